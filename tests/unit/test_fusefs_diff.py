"""The directories of a comparison without FUSE: which nodes there are, and that they go when the kernel forgets."""

from __future__ import annotations

import gc

import pytest

from fusefs.diff_view import DiffNode, picture
from fusefs.layout import NEVER, Owner
from fusefs.nodes import NodeTable
from fusefs.view import View
from storage.model.records import Entry, Kind
from storage.model.samples import BytesSource
from storage.stores.compare import Difference


@pytest.fixture
def tree(engine):
    """The working tree of main, with 100 files committed and other contents staged for all of them."""
    tree = engine.working_tree("main")
    tree.make_directory((b"d",))
    for version in (b"old", b"new!"):
        for number in range(100):
            tree.put_file((b"d", b"%03d" % number), BytesSource(version))
        if version == b"old":
            tree.commit("old ones")
    return tree


def walked(table, node):
    """Tell the kernel of everything below a node, as find does; all nodes met."""
    met = []
    for name, below, _ in node.listing().entries(0):
        found = node.child(name)
        assert type(found) is type(below)
        table.remember(below)
        met.append(below)
        if below.is_directory:
            met += walked(table, below)
    return met


@pytest.mark.parametrize("branch", [None, "main"])
def test_nodes_go_when_the_kernel_forgets(engine, tree, branch):
    view = View(engine, Owner(0, 0), branch=branch)
    table = NodeTable(view.root, view.snapshots)
    root = view.root if branch else view.root.child(b"branches").child(b"main")
    comparison = root.child(b".arborfs").child(b"diff").child(b"main")
    table.remember(comparison)
    met = walked(table, comparison)
    assert len([node for node in met if not node.is_directory]) == 200
    assert all(node.stat().name_timeout == NEVER for node in met)
    assert comparison.child(b"changed").child(b"new").child(b"d").child(b"000") in met
    for node in met:
        table.forget(node.ino, 1)
    assert len(table) == 2 and len(view.snapshots) == 0
    del met, node
    gc.collect()
    left = [each for each in gc.get_objects() if issubclass(type(each), DiffNode) and each.diffs is comparison.diffs]
    assert {each.name for each in left} <= {b"diff", b"main"}


def test_a_comparison_is_made_once_for_each_change(engine, tree, monkeypatch):
    view = View(engine, Owner(0, 0), branch="main")
    comparison = view.root.child(b".arborfs").child(b"diff").child(b"main")
    made = []
    compare = type(engine).comparison
    monkeypatch.setattr(type(engine), "comparison", lambda *given: made.append(1) or compare(*given))
    pending = comparison.pending()
    assert pending is not None and not made
    pending()
    assert comparison.pending() is None and comparison.child(b"changed").pending() is None
    for _ in range(3):
        assert len(list(comparison.child(b"changed").child(b"new").child(b"d").listing().entries(0))) == 100
    assert len(made) == 1
    changed = comparison.child(b"changed")
    tree.remove((b"d", b"000"))
    assert changed.pending() is not None
    assert len(list(comparison.child(b"changed").child(b"new").child(b"d").listing().entries(0))) == 99
    assert len(made) == 2


def test_attributes_of_directories_are_folders_and_metadata_is_left_out():
    file, folder = Entry(Kind.FILE), Entry(Kind.DIRECTORY, value=bytes(48))
    shown = picture(
        [
            Difference((b".arborfs", b"metadata", b"k"), None, file),
            Difference((), folder, folder, ("mode",)),
            Difference((b"d",), folder, folder, ("mode",)),
            Difference((b"d", b"f"), file, file, ("content", "mode")),
        ]
    )
    assert shown[b"added"] == {} and shown[b"removed"] == {}
    assert shown[b"attributes"] == {b"old": {b"d": {}}, b"new": {b"d": {}}}
    assert list(shown[b"changed"][b"new"][b"d"]) == [b"f"]
