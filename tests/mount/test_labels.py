"""`.arborfs/by/` by shell: Treants by tag and category, tasks by state, as links that lead to them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from storage import Repository
from storage.model.samples import make_schema
from storage.model.tasks import KIND, TRACKER
from storage.treants.state import State, encode_state
from tests.conftest import arborfs


def uuid_of(number: int) -> str:
    """A uuid of version 4."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def make(folder: Path, number: int, *tags: str, **categories: bool | int | float | str) -> None:
    """Make a directory of the mount a Treant, or label it anew."""
    folder.mkdir(parents=True, exist_ok=True)
    state = State(uuid_of(number), tags=tuple(sorted(tags)), categories=categories)
    (folder / state.file_name).write_bytes(encode_state(state))


def shown(folder: Path) -> dict[str, Path]:
    """The links in a directory, by name, and the directories or files that they lead to."""
    found = {name: (folder / name).resolve(strict=True) for name in os.listdir(folder)}
    assert all((folder / name).is_symlink() for name in found)
    return found


@pytest.fixture
def mount(mounted, repository):
    """A whole repository, mounted, with three Treants in main."""
    mount = mounted(repository)
    make(mount.main / "forest/oak", 1, "tree", "very old", height=30, alive=True)
    make(mount.main / "forest/fir", 2, "tree", height=20.5, alive="true")
    make(mount.main / "forest/fir/cone", 3, "a/b", where="..")
    return mount


@pytest.fixture
def by(mount):
    """`by` of main."""
    return mount.main / ".arborfs/by"


def test_treants_by_tag(mount, by):
    assert sorted(os.listdir(by)) == ["category", "state", "tag"]
    assert sorted(os.listdir(by / "tag")) == ["a%2Fb", "tree", "very old"]
    forest = mount.main / "forest"
    assert shown(by / "tag/tree") == {"forest%2Foak": forest / "oak", "forest%2Ffir": forest / "fir"}
    assert shown(by / "tag/a%2Fb") == {"forest%2Ffir%2Fcone": forest / "fir/cone"}
    assert os.readlink(by / "tag/tree/forest%2Foak") == "../../../../forest/oak"
    assert sorted(os.listdir(by / "tag/tree/forest%2Foak")) == [f"Treant.{uuid_of(1)}.h5"]


def test_treants_by_category(mount, by):
    forest = mount.main / "forest"
    assert sorted(os.listdir(by / "category")) == ["alive", "height", "where"]
    assert sorted(os.listdir(by / "category/height")) == ["20.5", "30"]
    assert shown(by / "category/height/30") == {"forest%2Foak": forest / "oak"}
    assert os.listdir(by / "category/where") == ["%2E%2E"]
    assert shown(by / "category/where/%2E%2E") == {"forest%2Ffir%2Fcone": forest / "fir/cone"}
    # True and "true" go by the same name.
    assert shown(by / "category/alive/true") == {"forest%2Foak": forest / "oak", "forest%2Ffir": forest / "fir"}


def test_names_that_are_not_there(by):
    for name in ("tag/none", "tag/a%2fb", "tag/%61%2Fb", "category/none", "category/height/30.0", "state/none", "none"):
        assert not os.path.lexists(by / name), name
    assert not os.path.lexists(by / "tag/tree/forest%2Ffir%2Fcone")
    assert not os.path.lexists(by / "tag/tree/forest")


def test_labels_are_as_of_now(mount, by, repository):
    forest = mount.main / "forest"
    assert len(shown(by / "tag/tree")) == 2
    subprocess.run(["mv", forest / "oak", mount.main / "felled"], check=True)
    assert shown(by / "tag/tree") == {"felled": mount.main / "felled", "forest%2Ffir": forest / "fir"}
    subprocess.run(["cp", "-r", forest / "fir", mount.main / "copy"], check=True)
    assert shown(by / "tag/tree").keys() == {"felled", "forest%2Ffir", "copy"}
    subprocess.run(["rm", "-r", forest], check=True)
    assert shown(by / "tag/tree").keys() == {"felled", "copy"}
    with Repository(repository) as other:  # another process, to the daemon
        state = State(uuid_of(1), tags=("timber",))
        other.files().write(f"felled/{state.file_name}", encode_state(state))
        assert shown(by / "tag/timber").keys() == {"felled"}
        assert shown(by / "tag/tree").keys() == {"copy"}
        other.files().commit("all of it")
        assert shown(by / "tag/tree").keys() == {"copy"}


def test_a_commit_has_its_own(mount, by, repository):
    (mount.main / ".arborfs/commit").write_text("first")
    make(mount.main / "forest/oak", 1, "felled")
    commit = mount.path / "commits/main"
    there = commit / ".arborfs/by/tag"
    assert sorted(os.listdir(there)) == ["a%2Fb", "tree", "very old"]
    assert shown(there / "tree")["forest%2Foak"].parent.name == "forest"
    assert sorted(os.listdir(by / "tag")) == ["a%2Fb", "felled", "tree"]


@pytest.mark.parametrize("options", [["--branch", "main"], ["--ref", "main"]])
def test_in_a_mount_of_one_tree(mounted, repository, options):
    with Repository(repository) as opened:
        state = State(uuid_of(1), tags=("x",))
        opened.files().write_many({f"a/b/{state.file_name}": encode_state(state)})
        opened.files().commit("one")
    mount = mounted(repository, *options)
    assert shown(mount.path / ".arborfs/by/tag/x") == {"a%2Fb": mount.path / "a/b"}


def test_the_top_of_the_tree_and_long_paths(mount, by):
    make(mount.main, 9, "odd")
    long = Path("x" * 200) / ("y" * 200)
    make(mount.main / long, 10, "odd", **{"k" * 300: "v" * 300})
    found = shown(by / "tag/odd")
    assert found.pop("%") == mount.main
    ((name, place),) = found.items()
    assert place == mount.main / long and len(name) == 255
    key = next(key for key in os.listdir(by / "category") if key.startswith("k"))
    (value,) = os.listdir(by / "category" / key)
    assert shown(by / "category" / key / value) == {name: place}


def test_tasks_by_state(mount, by, repository):
    with Repository(repository) as opened:
        tree = opened.files()
        tree.make_directory("work", schema=make_schema(np.dtype(np.uint8), (), kind="json"))
        tree.set_attributes("work", {KIND: TRACKER})
    assert sorted(os.listdir(by / "state")) == ["aborted", "done", "todo"]
    assert os.listdir(by / "state/done") == []
    for number in range(4):
        (mount.main / f"work/k{number}.json").write_text('{"_tries": 0, "_done": false, "_aborted": false}')
    assert len(shown(by / "state/todo")) == 4
    (mount.main / "work/k1.json").write_text('{"_tries": 1, "_done": true, "_aborted": false}')
    (mount.main / "work/k2.json").write_text('{"_tries": 3, "_done": false, "_aborted": true}')
    assert shown(by / "state/done") == {"work%2Fk1.json": mount.main / "work/k1.json"}
    assert shown(by / "state/aborted") == {"work%2Fk2.json": mount.main / "work/k2.json"}
    assert (by / "state/done/work%2Fk1.json").read_text().startswith('{"_tries": 1')


def test_nothing_here_can_be_changed(by):
    for change in (
        lambda: (by / "tag/new").mkdir(),
        lambda: (by / "tag/tree/forest%2Foak").unlink(),
        lambda: os.symlink("x", by / "tag/tree/x"),
        lambda: (by / "tag/tree").rmdir(),
    ):
        with pytest.raises(PermissionError):
            change()


def test_branches_that_label_differently_merge_by_echo(mount):
    (mount.main / ".arborfs/commit").write_text("first")
    (mount.path / "branches/side").mkdir()
    side = mount.path / "branches/side"
    make(mount.main / "forest/oak", 1, "tree", "ours")
    make(side / "forest/oak", 1, "tree", "theirs")
    for branch in (mount.main, side):
        (branch / ".arborfs/commit").write_text("labels")
    (mount.main / ".arborfs/merge").write_text("side")
    assert {"ours", "theirs"} <= set(os.listdir(mount.main / ".arborfs/by/tag"))
    assert (mount.main / ".arborfs/merge").read_text() == ""


def test_many_are_listed(mounted, repository):
    files = {}
    for number in range(20_000):
        state = State(uuid_of(number), tags=("all", "rare") if number % 1000 == 0 else ("all",))
        files[f"g{number % 10}/t{number}/{state.file_name}"] = encode_state(state)
    with Repository(repository) as opened:
        opened.files().write_many(files)
    mount = mounted(repository)
    by = mount.main / ".arborfs/by"
    assert len(os.listdir(by / "tag/rare")) == 20
    names = os.listdir(by / "tag/all")
    assert len(names) == len(set(names)) == 20_000
    done = subprocess.run(["ls", "-f", by / "tag/all"], capture_output=True, text=True, check=True, timeout=100)
    assert len(done.stdout.splitlines()) == 20_002
    arborfs("-C", repository, "commit", "-m", "all")
    assert len(os.listdir(mount.path / "commits/main/.arborfs/by/tag/rare")) == 20
