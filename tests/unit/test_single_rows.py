"""Samples that are staged one by one: each is a change of its own, by a way that is shorter than that of many."""

from __future__ import annotations

import numpy as np
import pytest

from storage.engine import Engine
from storage.errors import NotFound, StorageFull
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.records import Attributes, Kind
from storage.stores.staging import KEPT_CHANGES
from storage.worktree import WorkingTree

ONE = np.arange(200, dtype=np.int32)
SHORT = np.arange(4, dtype=np.uint8)


@pytest.fixture
def co(repo):
    with repo.checkout(write=True) as writer:
        writer.datasets.init_dataset("d", prototype=ONE)
        writer.datasets.init_dataset("s", prototype=SHORT)
        writer.datasets.init_dataset("words", kind="str")
        yield writer


@pytest.fixture
def shorter(monkeypatch):
    """What the shorter way answered each time, in order."""
    answers = []
    real = WorkingTree.put_sample

    def put_sample(*arguments):
        answers.append(real(*arguments))
        return answers[-1]

    monkeypatch.setattr(WorkingTree, "put_sample", put_sample)
    return answers


def tree_of(co) -> WorkingTree:
    return co._session.working_tree


def test_new_ones_and_replaced_ones_and_those_after_a_commit_take_the_shorter_way(repo, co, shorter):
    dataset, short, words = co.datasets["d"], co.datasets["s"], co.datasets["words"]
    for turn in range(3):
        for key in ("a", "b"):
            dataset[key] = ONE + turn
            short[key] = SHORT + turn
            words[key] = "word" * turn
        dataset[f"new{turn}"] = ONE
        del dataset["b"]
        dataset["b"] = ONE + 9
        assert verify(co._engine) == []
        co.commit(f"turn {turn}")
    # Of a new dataset all do; after a commit the first of each dataset finds that nothing is staged in it.
    assert shorter == [True] * 8 + 2 * ([False] * 3 + [True] * 5)
    assert np.array_equal(dataset["a"], ONE + 2)
    assert np.array_equal(dataset["b"], ONE + 9)
    assert np.array_equal(short["b"], SHORT + 2)
    assert (words["a"], len(dataset)) == ("wordword", 5)


def test_a_rebuild_makes_the_same_of_them(repository, co, repo, shorter):
    dataset, short = co.datasets["d"], co.datasets["s"]
    for number in range(20):
        dataset[f"n{number % 7}"] = ONE + number
        short[f"n{number}"] = SHORT + number
    assert shorter.count(True) >= 38
    co.close()
    repo.close()
    assert rebuild(repository).problems == []
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        assert tree.count_samples((b"d",)) == 7
        for number in range(20):
            content = tree.open((b"s", b"n%d.npy" % number))[1]
            assert bytes(content.payload()) == (SHORT + number).tobytes()


def test_new_names_change_the_time_of_their_directory_and_replaced_ones_do_not(co, shorter):
    dataset = co.datasets["d"]
    dataset["a"] = dataset["b"] = ONE
    first = tree_of(co).entry((b"d",)).mtime
    dataset["c"] = ONE
    second = tree_of(co).entry((b"d",)).mtime
    dataset["c"] = ONE + 1
    assert shorter[-2:] == [True, True]
    assert first < second == tree_of(co).entry((b"d",)).mtime


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("name, one", [("d", ONE), ("s", SHORT)])
def test_the_same_data_again_are_no_change(co, shorter, committed, name, one):
    dataset = co.datasets[name]
    dataset["a"] = dataset["b"] = one
    if committed:
        co.commit("both")
        dataset["other"] = one
    path = (b"d" if name == "d" else b"s", b"a.npy")
    before = tree_of(co).entry(path)
    dataset["a"] = one
    assert tree_of(co).entry(path) == before
    dataset["a"] = one + 1
    assert tree_of(co).entry(path) != before
    assert shorter[-1] is True


def test_mode_and_xattrs_of_what_is_replaced_stay(co, shorter):
    dataset, tree, path = co.datasets["d"], tree_of(co), (b"d", b"a.npy")
    dataset["a"] = dataset["b"] = ONE
    tree.set_attributes(path, mode=0o600, xattrs={b"user.note": b"x"})
    dataset["a"] = ONE + 1
    assert shorter[-1] is False
    assert tree.entry(path).attributes == Attributes(mode=0o600, xattrs=((b"user.note", b"x"),))
    assert np.array_equal(dataset["a"], ONE + 1)


def test_what_somebody_else_did_meanwhile_is_seen(repository, co, shorter):
    """Another engine has no part in what this one has found out."""
    dataset = co.datasets["d"]
    dataset["a"] = dataset["b"] = ONE
    with Engine.open(repository) as other:
        tree = other.working_tree("main")
        tree.remove((b"d", b"a.npy"))
        dataset["a"] = ONE
        assert "a" in dataset
        tree.rename((b"d",), (b"moved",))
        with pytest.raises(NotFound):
            dataset["a"] = ONE + 1
        tree.make_directory((b"d",))
        with pytest.raises(NotFound, match="open it again"):
            dataset["a"] = ONE + 1
        assert list(tree.entries((b"d",))) == []
        tree.commit("moved")
    assert verify(co._engine) == []


def test_an_empty_file_in_its_place_is_filled(co, shorter):
    """As a mount leaves one between creating and closing it."""
    dataset, tree = co.datasets["d"], tree_of(co)
    dataset["b"] = ONE
    tree.make_file((b"d", b"a.npy"))
    dataset["a"] = ONE
    assert tree.entry((b"d", b"a.npy")).kind is Kind.SAMPLE
    assert np.array_equal(dataset["a"], ONE)


def test_what_the_disk_refuses_is_not_there(co, monkeypatch):
    dataset = co.datasets["d"]
    dataset["a"] = dataset["b"] = ONE
    log = tree_of(co)._p.log
    real = log._acknowledge

    def full(*arguments):
        real(*arguments)
        raise StorageFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(log, "_acknowledge", full)
        with pytest.raises(StorageFull):
            dataset["a"] = ONE + 1
        with pytest.raises(StorageFull):
            dataset["c"] = ONE + 1
    assert np.array_equal(dataset["a"], ONE)
    assert "c" not in dataset
    dataset["c"] = ONE + 2
    assert np.array_equal(dataset["c"], ONE + 2)
    assert verify(co._engine) == []


def test_of_the_changes_the_latest_are_kept(co):
    dataset, engine = co.datasets["s"], co._engine
    dataset["a"] = dataset["b"] = SHORT
    start = engine.generation()
    for number in range(KEPT_CHANGES + 200):
        dataset["a"] = SHORT + number % 2
    index, now = engine.internals()[0], engine.generation()
    assert now >= start + KEPT_CHANGES + 199
    with index.read() as txn:
        kept = [int.from_bytes(key, "big") for key, _ in index.scan(txn, index.changes, b"")]
    assert kept == list(range(kept[0], now + 1))
    assert KEPT_CHANGES <= len(kept) <= KEPT_CHANGES + 64
    assert engine.changes(kept[0] - 2)[1] is None
    assert engine.changes(kept[0])[1] == []  # one's own are not told
