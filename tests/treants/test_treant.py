"""A Treant: made, found, moved, removed, damaged, by several at once, and in commits."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from storage.errors import (
    DamagedState,
    Exists,
    MultipleTreants,
    NeedsCopy,
    NotATreant,
    NotEmpty,
    NothingToCommit,
    NoTreants,
    ReadOnly,
    WrongKind,
)
from storage.places import place_of
from storage.treants.state import State, encode_state
from storage.treants.treant import Treant
from storage.treants.trees import Tree
from tests.treants import shell


def test_paths_of_a_treant_lead_to_the_same_one(place, monkeypatch):
    made = Treant(place / "wood" / "sprout", categories={"a": 1}, tags=["elm"])
    again = Treant("sprout", location=place / "wood", tags="oak")
    by_file = Treant(made.filepath)
    assert made.uuid == again.uuid == by_file.uuid and made == by_file and hash(made) == hash(by_file)
    assert list(made.tags) == ["elm", "oak"] and made.categories == {"a": 1}
    assert Treant(Tree(place / "wood")["sprout/"]) == made
    assert Treant(made).uuid == made.uuid
    assert (made.name, made.location, made.basedir) == ("sprout", str(place / "wood"), str(place / "wood" / "sprout"))
    assert made.filepath == f"{place.path}/wood/sprout/Treant.{made.uuid}.h5"
    assert made.treanttype == "Treant" and repr(made) == "<Treant: 'sprout'>"
    assert shell.shows(place, "wood/sprout", f"Treant.{made.uuid}.h5")
    assert made in Tree(place / "wood") and made.exists


def test_what_it_does_not_take(place):
    shell.write(place, "file", b"x")
    with pytest.raises(WrongKind):
        Treant(place / "file")
    with pytest.raises(NoTreants):
        Treant(place / "no" / "Treant.2b4b5800-48a7-4814-ba6d-1e631a09a199.h5")
    assert shell.shows(place, "", "file")
    with pytest.raises(ValueError):
        Treant(place / "new", tags=[1])
    with pytest.raises(TypeError):
        Treant(place / "new", categories={1: 1})
    assert shell.shows(place, "", "file")
    with pytest.raises(NotImplementedError):
        Treant(place / "new", coordinator="x")
    treant = Treant(place / "new")
    assert treant.coordinators is None
    with pytest.raises(NotImplementedError):
        treant.coordinators = "x"


def test_a_directory_becomes_a_treant(place):
    shell.write(place, "notes", b"x")
    Tree(place / "d").make()
    shell.write(place, "d/notes", b"x")
    treant = Treant(place / "d")
    assert shell.shows(place, "d", "notes", os.path.basename(treant.filepath))
    top = Treant(place.path)
    assert Treant(place.path).uuid == top.uuid and top.name == place.path.name
    assert top.data.keys() == []


def test_anywhere_else_it_is_a_repository_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sprout = Treant("sprout", tags="elm")
    assert os.listdir("sprout") == [".arborfs"]
    assert Treant(tmp_path / "sprout").uuid == sprout.uuid and sprout.name == "sprout"
    assert [leaf.name for leaf in sprout.leaves()] == [f"Treant.{sprout.uuid}.h5"]
    assert Treant("sprout/below").uuid != sprout.uuid
    with pytest.raises(NeedsCopy, match="repository of its own"):
        sprout.name = "tree"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(NotEmpty, match="arborfs import"):
        Treant("full")


def test_two_state_files_are_told(place):
    treant = Treant(place / "a")
    shell.copy(place, "a", "b")
    other = Treant(place / "c")
    shell.copy(place, f"c/{other.filepath.rpartition('/')[2]}" if place.mounted else "c", "b")
    with pytest.raises(MultipleTreants, match="keep the one") as caught:
        Treant(place / "b")
    assert set(caught.value.names) == {f"Treant.{treant.uuid}.h5", f"Treant.{other.uuid}.h5"}
    assert Treant(place / "a").uuid == treant.uuid


def test_a_damaged_state_file_names_itself_and_hurts_nobody_else(place):
    treant, other = Treant(place / "a", tags="elm"), Treant(place / "b", tags="oak")
    shell.write(place, f"a/Treant.{treant.uuid}.h5", b"rubbish")
    for use in (lambda: list(treant.tags), lambda: treant.tags.add("x"), lambda: treant.categories.keys()):
        with pytest.raises(DamagedState) as caught:
            use()
        assert caught.value.where == treant.filepath and caught.value.problem
    assert list(other.tags) == ["oak"] and list(Treant(place / "b").tags) == ["oak"]
    shell.write(place, f"a/Treant.{treant.uuid}.h5", encode_state(State(other.uuid)))
    with pytest.raises(DamagedState, match="under another name"):
        list(treant.tags)
    shell.write(place, f"a/Treant.{treant.uuid}.h5", encode_state(State(treant.uuid, tags=("healed",))))
    assert list(treant.tags) == ["healed"]


def test_what_was_removed_moved_or_replaced_is_no_treant(place):
    treant = Treant(place / "a", tags="elm")
    shell.move(place, "a", "b")
    uses = [
        lambda: list(treant.tags),
        lambda: treant.tags.add("x"),
        lambda: treant.categories.add(a=1),
        lambda: treant.data.keys(),
        lambda: treant.data.add("x", b"1", allow_pickle=True),
        lambda: treant.data.retrieve("x"),
        lambda: treant.data.locate("x"),
        lambda: setattr(treant, "name", "c"),
    ]
    for use in uses:
        with pytest.raises(NotATreant, match="no Treant any more") as caught:
            use()
        assert str(place / "a") in str(caught.value)
    assert shell.shows(place, "", "b")
    moved = Treant(place / "b")
    assert moved.uuid == treant.uuid and list(moved.tags) == ["elm"]
    fresh = Treant(place / "a")
    with pytest.raises(NotATreant, match=rf"another Treant now, Treant\.{fresh.uuid}"):
        list(treant.tags)
    shell.remove(place, "b")
    with pytest.raises(NotATreant):
        list(moved.tags)


def test_a_copy_is_another_one(place):
    treant = Treant(place / "a", tags="elm")
    shell.copy(place, "a", "b")
    copied = Treant(place / "b")
    copied.tags.add("oak")
    assert copied.uuid == treant.uuid and copied != treant
    assert list(treant.tags) == ["elm"] and list(copied.tags) == ["elm", "oak"]


def test_a_state_file_under_another_name_makes_no_treant(place):
    treant = Treant(place / "a", tags="elm")
    shell.move(place, f"a/Treant.{treant.uuid}.h5", "a/kept")
    with pytest.raises(NotATreant):
        list(treant.tags)
    shell.move(place, "a/kept", f"a/Treant.{treant.uuid}.h5")
    assert list(treant.tags) == ["elm"]


def test_name_and_location_move_it(place):
    treant = Treant(place / "wood" / "a", tags="elm")
    treant.name = "b"
    assert treant.abspath == f"{place.path}/wood/b/" and list(treant.tags) == ["elm"]
    treant.location = place / "deep" / "forest"
    assert treant.location == str(place / "deep" / "forest") and list(treant.tags) == ["elm"]
    assert treant.uuid == Treant(place / "deep" / "forest" / "b").uuid
    assert shell.shows(place, "wood")
    Treant(place / "deep" / "forest" / "c")
    with pytest.raises(Exists):
        treant.name = "c"
    for name in ("x/y", "..", ""):
        with pytest.raises(ValueError):
            treant.name = name
    with pytest.raises(NeedsCopy, match="copy it there"):
        treant.location = place.repository.parent
    assert list(treant.tags) == ["elm"]


def test_equal_by_path_ordered_by_name_and_pickled_by_it(place):
    b, a = Treant(place / "x" / "b"), Treant(place / "y" / "a", allow_pickle=True)
    assert sorted([b, a]) == [a, b] and a != b
    back = pickle.loads(pickle.dumps([a, b]))
    assert back == [a, b] and back[0].uuid == a.uuid
    assert [treant.allow_pickle for treant in back] == [True, False]


def test_treants_are_added_to_bundles(place):
    a, b = Treant(place / "a"), Treant(place / "b")
    assert (a + b).names == ["a", "b"] and (b + (a + b)).names == ["b", "a"] and (a + b + a).names == ["a", "b"]
    for wrong in (5, "b", [b]):
        with pytest.raises(TypeError):
            a + wrong


def test_items_are_data_or_what_a_tree_has(place):
    treant = Treant(place / "a", allow_pickle=True)
    treant["x/y"] = {"any": "thing"}
    assert treant["x/y"] == {"any": "thing"}
    assert treant["x"] == Tree(place / "a" / "x") and treant["x/"].exists
    assert treant["nothing"].name == "nothing" and not treant["nothing"].exists
    assert len(treant[["x/", "z"]]) == 2
    del treant["x/y"]
    with pytest.raises(KeyError, match="No data for 'x/y'"):
        del treant["x/y"]


def _make(path: str) -> str:
    return Treant(path).uuid


@pytest.mark.parametrize("there", [False, True])
def test_of_many_who_make_one_all_get_the_same(repository, there):
    path = repository / "a"
    if there:
        Tree(path).make()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(_make, [str(path)] * 16))
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        found |= set(processes.map(_make, [str(path)] * 4))
        found_new = set(processes.map(_make, [str(repository / "new")] * 4, chunksize=1))
    assert len(found) == len(found_new) == 1


def test_committing(place):
    treant = Treant(place / "a", tags="elm")
    first = treant.commit("an elm")
    assert treant.place.files.commit_hash == first
    with pytest.raises(NothingToCommit):
        treant.commit("nothing")
    with Treant(place / "a", commit_on_close="an oak") as opened:
        opened.tags.add("oak")
    second = treant.place.files.commit_hash
    assert second != first
    with Treant(place / "a", commit_on_close="nothing"):
        pass
    opened.tags.add("ash")
    with pytest.raises(ZeroDivisionError), Treant(place / "a", commit_on_close="an ash") as opened:
        opened.categories.add(ash=1 // 0)
    assert treant.place.files.commit_hash == second


def test_in_a_commit_it_is_read_only(repository, mounted):
    made = Treant(repository / "a", tags="elm")
    made.data["x"] = np.arange(3)
    commit = made.commit("first")
    made.tags.add("later")
    mount = mounted(repository)
    frozen = Treant(mount.path / "commits" / commit / "a")
    assert list(frozen.tags) == ["elm"] and frozen.data["x"].tolist() == [0, 1, 2]
    for use in (
        lambda: frozen.tags.add("x"),
        lambda: frozen.data.remove("x"),
        lambda: setattr(frozen, "name", "b"),
        lambda: Treant(mount.path / "commits" / commit / "new"),
    ):
        with pytest.raises(ReadOnly):
            use()
    assert Path(frozen.data.locate("x")).is_dir()


def test_one_that_is_copied_whole_by_rsync_is_one(repository, mounted):
    mount = mounted(repository)
    treant = Treant(mount.main / "a", tags="elm")
    subprocess.run(["rsync", "-a", f"{treant.basedir}/", mount.main / "b"], check=True)
    assert list(Treant(mount.main / "b").tags) == ["elm"]
    assert place_of(mount.main / "b").files.exists(f"b/Treant.{treant.uuid}.h5")
