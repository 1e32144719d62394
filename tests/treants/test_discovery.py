"""Finding Treants: in repositories by their index, in ordinary folders by a walk for repositories."""

from __future__ import annotations

import subprocess

import pytest

from storage.errors import NotFound, TreeNotFound
from storage.places import place_of
from storage.treants.discovery import discover
from storage.treants.treant import Treant
from storage.treants.trees import Tree


def relative(bundle, top):
    return [path.removeprefix(f"{top}/").rstrip("/") for path in bundle.abspaths]


@pytest.fixture
def wood(place):
    """Treants at several depths, in each other, beside directories that are none."""
    for path in ("a", "a/b", "a/b/c/d", "e/f", "g/h/i/j"):
        Treant(place / "wood" / path, tags=[path])
    Treant(place / "outside")
    Tree(place / "wood" / "none").make()
    return place / "wood"


@pytest.mark.parametrize(
    "options, found",
    [
        ({}, ["a", "a/b", "a/b/c/d", "e/f", "g/h/i/j"]),
        ({"depth": 0}, []),
        ({"depth": 1}, ["a"]),
        ({"depth": 2}, ["a", "a/b", "e/f"]),
        ({"treantdepth": 0}, ["a", "e/f", "g/h/i/j"]),
        ({"treantdepth": 1}, ["a", "a/b", "e/f", "g/h/i/j"]),
        ({"treantdepth": 3}, ["a", "a/b", "a/b/c/d", "e/f", "g/h/i/j"]),
        ({"depth": 3, "treantdepth": 0}, ["a", "e/f"]),
    ],
)
def test_below_a_directory(repository, options, found):
    for path in ("a", "a/b", "a/b/c/d", "e/f", "g/h/i/j"):
        Treant(repository / "wood" / path)
    Treant(repository / "woods")
    assert relative(discover(repository / "wood", **options), repository / "wood") == found


def test_a_treant_is_below_itself(wood):
    assert relative(discover(wood / "a"), wood) == ["a", "a/b", "a/b/c/d"]
    assert relative(discover(wood / "a", depth=0), wood) == ["a"]
    assert relative(discover(wood / "a", treantdepth=0), wood) == ["a"]


def test_what_others_do_is_seen_at_once(wood, place, monkeypatch):
    monkeypatch.chdir(place.repository)
    bundle = discover(wood)
    assert bundle.tags["a/b or e/f"] == [False, True, False, True, False] and bundle[1].tags & ["a/b"] == {"a/b"}
    if place.mounted:
        place.seen(lambda: (wood / "g").is_dir() and (wood / "a" / "b").is_dir())
        subprocess.run(["mv", wood / "g", wood / "z"], check=True)
        subprocess.run(["cp", "-r", wood / "e", wood / "k"], check=True)
        subprocess.run(["rm", "-r", wood / "a" / "b"], check=True)
        assert relative(discover(wood), wood) == ["a", "e/f", "k/f", "z/h/i/j"]
    else:
        place_of(wood).files.rename("wood/g", "wood/z")
        assert relative(discover("wood"), wood) == ["a", "a/b", "a/b/c/d", "e/f", "z/h/i/j"]


def test_looking_changes_nothing(wood):
    before = place_of(wood).files.info("wood/a").mtime
    assert len(discover(wood)) == 5 and place_of(wood).files.info("wood/a").mtime == before


def test_a_missing_directory_is_told(wood, tmp_path):
    for wrong in (wood / "nothing", tmp_path / "nothing"):
        with pytest.raises(OSError, match="Tree doesn't exist"):
            discover(wrong)
    with pytest.raises(TreeNotFound):
        discover(tmp_path / "nothing")
    assert len(discover(wood / "none")) == 0


def test_repositories_in_ordinary_folders(tmp_path, monkeypatch):
    top = tmp_path / "ordinary"
    for path in ("sprout", "deep/er/lab/x/y", "deep/second"):
        if path.endswith("y"):
            Tree(top / "deep" / "er" / "lab").make()
        Treant(top / path, tags=[path])
    (top / "deep" / "notes").mkdir()
    assert relative(discover(top), top) == ["deep/er/lab/x/y", "deep/second", "sprout"]
    assert relative(discover(top, depth=2), top) == ["deep/second", "sprout"]
    assert relative(discover(top, depth=4), top) == ["deep/second", "sprout"]
    assert relative(discover(top, depth=5), top) == ["deep/er/lab/x/y", "deep/second", "sprout"]
    monkeypatch.chdir(top)
    assert discover().tags[("sprout", "deep/second")] == [False, True, True]
    assert discover()[2].name == "sprout"


def test_what_is_mounted_in_an_ordinary_folder_is_passed_over(tmp_path, repository, mounted):
    Treant(repository / "tree")
    mount = mounted(repository)
    assert (mount.main / "tree").is_dir()
    assert len(discover(mount.path.parent)) == 0
    assert discover(mount.main).names == discover(repository).names == ["tree"]
    with pytest.raises(NotFound, match="in no branch"):
        discover(mount.path)


def test_a_commit_has_its_own(repository, mounted):
    mount = mounted(repository)
    first = Treant(mount.main / "first")
    commit = first.commit("first")
    Treant(mount.main / "second")
    assert discover(mount.main).names == ["first", "second"]
    assert discover(mount.path / "commits" / commit).names == ["first"]
