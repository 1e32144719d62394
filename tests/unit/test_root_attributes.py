"""Mode, owner and xattrs of a branch's root: staged, told as `.`, committed, merged and taken back like any directory's."""

import json
import threading

import numpy as np
import pytest

from storage.engine import Engine
from storage.errors import NothingToCommit, StagedWork
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.records import Kind
from storage.model.samples import BytesSource
from storage.repository import Repository
from storage.stores.status import StatusRow
from storage.tree.merge import AttributesChanged
from tests.conftest import arborfs

SIDES = ("base", "ours", "theirs")
ROOT = [StatusRow((), "changed", Kind.DIRECTORY)]


@pytest.fixture
def tree(engine):
    """That of main, with one commit."""
    tree = engine.working_tree("main")
    tree.put_file((b"a",), BytesSource(b"a"))
    tree.commit("first")
    return tree


def mode(tree) -> int | None:
    return tree.entry(()).attributes.mode


def test_they_are_told_and_committed(tree):
    assert not tree.is_dirty()
    tree.set_attributes((), mode=0o700)
    assert tree.is_dirty() and tree.status() == ROOT
    tree.put_file((b"b",), BytesSource(b"b"))
    assert [row.path for row in tree.status()] == [(), (b"b",)]
    tree.commit("mode")
    assert tree.status() == [] and mode(tree) == 0o700
    with pytest.raises(NothingToCommit):
        tree.commit("again")


def test_those_before_the_first_commit(engine):
    tree = engine.working_tree("main")
    tree.set_attributes((), mode=0o700)
    assert tree.status() == ROOT
    tree.commit("first")
    assert tree.status() == [] and mode(tree) == 0o700


def test_those_that_are_set_back_are_nothing_to_commit(tree):
    tree.set_attributes((), mode=0o700)
    tree.commit("mode")
    tree.set_attributes((), xattrs={b"user.x": b"1"})
    tree.set_attributes((), xattrs={b"user.x": None})
    assert not tree.is_dirty()


@pytest.mark.parametrize("parted", [False, True], ids=["fast-forward", "merge"])
def test_a_merge_is_refused_while_they_are_staged(engine, tree, parted):
    engine.create_branch("side")
    side = engine.working_tree("side")
    side.put_file((b"b",), BytesSource(b"b"))
    tip = side.commit("of side")
    if parted:
        tree.put_file((b"c",), BytesSource(b"c"))
        tree.commit("of main")
    tree.set_attributes((), mode=0o700)
    with pytest.raises(StagedWork) as refused:
        engine.merging("main").merge(tip)
    assert "not committed: ." in str(refused.value)
    assert mode(tree) == 0o700
    tree.commit("mode")
    engine.merging("main").merge(tip)
    assert mode(tree) == 0o700 and verify(engine) == []


def test_a_merge_over_them_can_be_resolved_and_given_up(engine, tree):
    engine.create_branch("side")
    side = engine.working_tree("side")
    side.set_attributes((), mode=0o750)
    tip = side.commit("of side")
    tree.set_attributes((), mode=0o700)
    tree.commit("of main")
    merging = engine.merging("main")
    merging.merge(tip, leave_open=True)
    found = [merging.side(merging.under_way(), side, ()) for side in SIDES]
    assert merging.conflicts() == [AttributesChanged((), *[entry for _, entry in found])]
    merging.resolve((), "theirs")
    assert mode(tree) == 0o750 and ROOT[0] in tree.status()
    merging.abort()
    assert mode(tree) == 0o700 and not tree.is_dirty()
    engine.undo()
    assert mode(tree) == 0o750 and merging.open() == []
    tree.commit("")
    assert mode(tree) == 0o750 and verify(engine) == []


def test_undo_of_their_commit_stages_them(engine, repository, tree):
    tree.set_attributes((), mode=0o700)
    tree.commit("mode")
    engine.undo()
    assert tree.status() == ROOT and mode(tree) == 0o700
    engine.reset_hard("main", tree.tip())
    assert not tree.is_dirty() and mode(tree) is None
    engine.undo()
    assert tree.status() == ROOT and mode(tree) == 0o700
    engine.close()
    assert rebuild(repository).problems == []
    with Engine.open(repository) as again:
        assert again.working_tree("main").status() == ROOT


def test_undo_below_them_leaves_them_staged(engine, tree):
    engine.create_branch("side")
    side = engine.working_tree("side")
    side.put_file((b"b",), BytesSource(b"b"))
    engine.merging("main").merge(side.commit("of side"))
    tree.set_attributes((), mode=0o700)
    engine.undo()
    assert tree.status() == ROOT and mode(tree) == 0o700


class Late:
    """Gives the root another mode as soon as an operation has read what is staged."""

    def __init__(self, engine, tree) -> None:
        self._engine, self._tree, self._real = engine, tree, engine.objects.put_nodes
        engine.objects.put_nodes = self

    def __call__(self, nodes) -> None:
        self._engine.objects.put_nodes = self._real
        self._tree.set_attributes((), mode=0o711)
        self._real(nodes)


def test_those_set_while_a_commit_is_made_are_not_lost(engine, tree):
    tree.put_file((b"b",), BytesSource(b"b"))
    Late(engine, tree)
    tree.commit("second")
    assert mode(tree) == 0o711


def test_those_set_while_a_merge_is_made_are_not_lost(engine, tree):
    engine.create_branch("side")
    side = engine.working_tree("side")
    side.put_file((b"b",), BytesSource(b"b"))
    tip = side.commit("of side")
    tree.put_file((b"c",), BytesSource(b"c"))
    tree.commit("of main")
    Late(engine, tree)
    with pytest.raises(StagedWork):
        engine.merging("main").merge(tip)
    assert mode(tree) == 0o711 and tree.status() == ROOT


def test_the_command_line_tells_of_them(repository, engine, tree):
    tree.set_attributes((), mode=0o700)
    engine.close()
    assert arborfs("-C", repository, "status").stdout.splitlines() == [
        "On branch main, 1 change staged.",
        "  changed  .",
    ]
    told = json.loads(arborfs("-C", repository, "status", "--json").stdout)
    assert told["changes"] == [{"path": ".", "change": "changed", "kind": "directory"}]
    assert arborfs("-C", repository, "diff").stdout.split()[:2] == ["changed", ".:"]
    assert json.loads(arborfs("-C", repository, "diff", "--json").stdout)["changes"][0]["path"] == "."
    arborfs("-C", repository, "commit", "-m", "mode")
    assert arborfs("-C", repository, "status").stdout == "On branch main, nothing staged.\n"


def test_a_checkout_tells_of_them(repository):
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        co.datasets.init_dataset("d", prototype=np.zeros(3))["a"] = np.ones(3)
        co.commit("first")
        co._session.working_tree.set_attributes((), mode=0o700)
        assert (repo.status(), co.diff.status()) == ("DIRTY", "DIRTY")
        diff = co.diff.staged().diff
        assert diff.attributes.files == (".",) and len(diff) == 1
        co.commit("mode")
        assert co.diff.status() == "CLEAN"


def test_two_who_change_the_root_at_once_keep_both_changes(repository):
    with Engine.open(repository) as one, Engine.open(repository) as other:
        trees = [one.working_tree("main"), other.working_tree("main")]

        def change(number: int) -> None:
            for count in range(30):
                trees[number % 2].set_attributes((), xattrs={f"user.{number}.{count}".encode(): b"x"})

        threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(trees[0].entry(()).attributes.xattrs) == 120
