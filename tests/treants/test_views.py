"""Views: ordered sets of trees and leaves."""

from __future__ import annotations

import operator
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from storage.errors import WorkerDied
from storage.places import place_of
from storage.treants.leaves import Leaf
from storage.treants.trees import Tree
from storage.treants.veg import Veg
from storage.treants.views import View
from tests.treants import mapped_functions


@pytest.fixture
def view(repository):
    """Trees a, b, c/a and leaf x, of which b is not there."""
    place_of(repository).files.write_many({"a/one": b"1", "a/deep/two": b"2", "c/a/one": b"3", "x": b"x"})
    return View(*(f"{repository}/{name}" for name in ("a", "b/", "c/a", "x")))


def test_made_of_all_that_has_a_path(place):
    place_of(place.path).files.write_many({"d/x": b"", "y": b""})
    tree, leaf = Tree(place / "d"), Leaf(place / "y")
    view = View(
        tree, [leaf, (place / "d" / "x", [str(place / "new")])], f"{place.path}/made/", View(tree, leaf), {leaf}
    )
    assert view.names == ["d", "y", "x", "new", "made"]
    assert [type(member) for member in view] == [Tree, Leaf, Leaf, Leaf, Tree]
    assert type(View(Veg(place / "d"))[0]) is Tree and len(View()) == 0 and list(View(iter([leaf]))) == [leaf]
    for wrong in (5, None, [tree, 5], b"x"):
        with pytest.raises(TypeError, match="a View is made of"):
            View(wrong)


def test_choosing(view):
    assert view[0].name == "a" and view[-1].name == "x" and view[np.int64(1)].name == "b"
    assert view[1:3].names == ["b", "a"] and view[::-1].names == ["x", "a", "b", "a"]
    assert view[[2, 0, 2, -2]].relpaths == [view[2].relpath, view[0].relpath]
    assert view[[True, False, False, True]].names == ["a", "x"] == view[np.array([True, False, False, True])].names
    assert view[np.array([3, 1])].names == ["x", "b"] and len(view[[]]) == 0
    assert view["a"].abspaths == [view[0].abspath, view[2].abspath] and type(view["x"]) is View
    with pytest.raises(KeyError, match="no member is named 'nobody'"):
        view["nobody"]
    with pytest.raises(IndexError):
        view[4]
    with pytest.raises(IndexError):
        view[[0, 7]]
    with pytest.raises(ValueError, match="2 bools for 4 members"):
        view[[True, False]]
    for wrong in (1.5, None, ["a"], {0}):
        with pytest.raises(TypeError, match="chosen by position"):
            view[wrong]


def test_algebra_keeps_the_order(view):
    left, right = view[[3, 0, 1]], view[[2, 1, 3]]
    assert (left | right).abspaths == (left + right).abspaths == view[[3, 0, 1, 2]].abspaths
    assert (left & right).abspaths == view[[3, 1]].abspaths
    assert (left - right).abspaths == view[[0]].abspaths
    assert (left ^ right).abspaths == view[[0, 2]].abspaths
    assert (left - view[0]).names == ["x", "b"] and (left + Leaf(view[0].path / "one")).names[-1] == "one"
    assert left == left[::-1] and left != right and left != list(left)
    assert view[0] in left and view[2] not in left and "a" not in left
    for operation in (operator.add, operator.sub, operator.and_, operator.or_, operator.xor):
        with pytest.raises(TypeError):
            operation(left, ["a"])


def test_of_all_members(view, repository, monkeypatch):
    monkeypatch.chdir(repository)
    assert view.names == ["a", "b", "a", "x"] and view.exists == [True, False, True, True]
    assert view.relpaths == ["a/", "b/", "c/a/", "x"]
    assert view.abspaths == [f"{repository}/a/", f"{repository}/b/", f"{repository}/c/a/", f"{repository}/x"]
    assert view.membertrees.relpaths == ["a/", "b/", "c/a/"] and view.memberleaves.relpaths == ["x"]
    assert view.globfilter("[ax]").relpaths == ["a/", "c/a/", "x"]
    assert repr(view) == str(view) == "<View([<Tree: 'a/'>, <Tree: 'b/'>, <Tree: 'c/a/'>, <Leaf: 'x'>])>"
    assert repr(View([f"t{i}/" for i in range(1020)])).endswith("<Tree: 't19/'>, … 1,000 more])>")
    assert pickle.loads(pickle.dumps(view)).relpaths == view.relpaths


def test_below_all_members(view, repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    with pytest.raises(OSError, match="Tree doesn't exist"):
        view.leaves()
    assert view.make() is view and all(view.exists)
    assert view.leaves().relpaths == ["a/one", "c/a/one"] and view.trees().relpaths == ["a/deep/"]
    assert view.children().relpaths == ["a/deep/", "a/one", "c/a/one"]
    assert view.glob("**/*o").relpaths == ["a/deep/two"]
    assert view.parents().relpaths == ["./", "c/"]
    assert view.loc["one"].relpaths == ["a/one", "b/one", "c/a/one"]
    assert view.loc[["one", "deep/"]].relpaths == ["a/one", "a/deep/", "b/one", "b/deep/", "c/a/one", "c/a/deep/"]
    assert view.treeloc["new"].relpaths == ["a/new/", "b/new/", "c/a/new/"]
    assert view.leafloc["new"].relpaths == ["a/new", "b/new", "c/a/new"]
    view.draw()
    lines = ["a/", "+-- deep/", "|   +-- two", "+-- one", "b/", "a/", "+-- one"]
    assert capsys.readouterr().out.splitlines() == lines


def test_map(view):
    assert view.map(lambda member: member.name) == view.names
    assert view.map(mapped_functions.name_of, suffix="!") == ["a!", "b!", "a!", "x!"]
    assert view.map(lambda member: None) is None and View().map(len) is None
    assert view.map(lambda member: member.name if member.name == "b" else None) == [None, "b", None, None]
    with pytest.raises(ValueError, match="name one or more"):
        view.map(len, processes=0)


def test_map_in_processes(view, tmp_path):
    assert view.map(operator.attrgetter("name"), processes=2) == view.names
    assert view.map(mapped_functions.name_of, processes=8, suffix="!") == ["a!", "b!", "a!", "x!"]
    assert os.getpid() not in view.map(mapped_functions.process_of, processes=2)
    assert view.memberleaves.map(mapped_functions.noted, processes=2, folder=str(tmp_path)) is None
    assert (tmp_path / "x").read_text() == "x"


def test_errors_of_processes_reach_the_caller(view):
    with pytest.raises(LookupError, match="b is none"):
        view.map(mapped_functions.fails_at, processes=2, name="b")
    with pytest.raises(WorkerDied, match="was killed"):
        view.map(mapped_functions.is_killed, processes=2)
    with pytest.raises(ValueError, match="cannot go to another process"):
        view.map(lambda member: member.name, processes=2)


def test_an_error_does_not_wait_for_work_that_never_ends(view):
    with pytest.raises(LookupError, match="x is none"):
        view.map(mapped_functions.fails_or_never_ends, processes=4, name="x")


def test_a_plain_path_stands_for_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert [type(member) for member in View("folder", Path("folder"), "file")] == [Tree, Leaf]
