"""Batches: `with dataset:`. What is seen when, what is staged when, and what happens when something fails."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from storage import dataset_writer
from storage.dataset_writer import SHARE
from storage.errors import Closed, SchemaMismatch, StorageFull
from storage.filling import LEAST
from storage.maintenance.gc import Policy, gc
from storage.maintenance.verify import verify
from storage.model.records import sample_head
from storage.repository import Repository

SMALL = np.arange(4, dtype=np.int32)
LARGE = np.arange(5000, dtype=np.int32)


@pytest.fixture
def co(repo):
    with repo.checkout(write=True) as writer:
        writer.datasets.init_dataset("d", prototype=SMALL)
        writer.datasets.init_dataset("large", prototype=LARGE)
        writer.datasets.init_dataset("v", prototype=LARGE, variable_shape=True)
        writer.commit("empty")
        yield writer


KINDS = pytest.mark.parametrize("name, one", [("d", SMALL), ("large", LARGE), ("v", LARGE[:7]), ("v", LARGE)])


def records(co) -> int:
    """How many changes the repository has seen."""
    return co._engine.generation()


@KINDS
def test_a_batch_sees_what_it_holds_and_stages_it_at_its_end(repo, co, name, one):
    dataset = co.datasets[name]
    dataset["before"] = one
    co.commit("one")
    with dataset as entered:
        assert entered is dataset
        dataset["a"] = one
        co.datasets[name].add(one + 1, "b")
        dataset.add(one + 2, 7)
        dataset["before"] = one + 3
        assert repo.status() == "CLEAN"
        assert "a" in dataset and 7 in dataset and "7" in dataset and "c" not in dataset
        assert np.array_equal(dataset["b"], one + 1) and np.array_equal(dataset[7], one + 2)
        assert np.array_equal(dataset.get("before"), one + 3)
        dataset["b"][:] = 0
        assert np.array_equal(dataset["b"], one + 1)
    assert repo.status() == "DIRTY"
    assert {key: array[1] - one[1] for key, array in dataset.items()} == {"7": 2, "a": 0, "b": 1, "before": 3}


@KINDS
def test_counting_and_listing_in_a_batch(co, name, one):
    dataset = co.datasets[name]
    with dataset:
        dataset["b"] = one
        assert len(dataset) == 1
        dataset["a"] = one
        assert list(dataset) == ["a", "b"]
        dataset["c"] = one
        assert len(list(dataset.values())) == 3
        dataset["d"] = one
        del dataset["a"]
        assert np.array_equal(dataset.pop("d"), one)
        dataset["a"] = one + 1
        with pytest.raises(KeyError):
            del dataset["d"]
    assert {key: array[0] - one[0] for key, array in dataset.items()} == {"a": 1, "b": 0, "c": 0}


def test_a_batch_is_few_records(co, monkeypatch):
    monkeypatch.setattr(dataset_writer, "BATCH_BYTES", 100 * (SMALL.nbytes + dataset_writer._OVERHEAD))
    dataset = co.datasets.init_dataset("e", prototype=SMALL)
    before = records(co)
    with dataset:
        for i in range(950):
            dataset.add(SMALL + i, str(i))
    assert records(co) - before == 10
    assert len(dataset) == 950
    assert np.array_equal(dataset["949"], SMALL + 949)


def is_whole(co, name: str = "d") -> bool:
    """Whether a dataset is a tree of leaves, with nothing staged row by row."""
    return co._session.working_tree.settled((name.encode(),)) is not None


def fill_batch(dataset, keys: range, plus: int = 0) -> None:
    with dataset:
        for i in keys:
            dataset.add(np.full(4, i + plus, np.int32), str(i))


def contents(dataset) -> dict[int, int]:
    return {int(key): int(array[3]) for key, array in dataset.items()}


def test_a_large_batch_is_laid_down_whole_and_a_small_one_row_by_row(co):
    dataset = co.datasets["d"]
    before = records(co)
    fill_batch(dataset, range(LEAST))
    assert records(co) == before + 1 and is_whole(co)
    fill_batch(dataset, range(10, LEAST + 10), plus=1)
    assert records(co) == before + 2 and is_whole(co)
    fill_batch(dataset, range(LEAST - 1), plus=2)
    assert records(co) == before + 3 and not is_whole(co)
    expected = {i: i + 2 if i < LEAST - 1 else i + 1 for i in range(LEAST + 10)}
    assert contents(dataset) == expected
    co.commit("all")
    assert contents(dataset) == expected


def test_a_batch_that_is_small_beside_its_dataset_rewrites_no_leaves(co):
    dataset = co.datasets["d"]
    many = (SHARE + 1) * LEAST
    dataset.update(range(many), np.repeat(np.arange(many, dtype=np.int32), 4).reshape(-1, 4))
    co.commit("many")
    fill_batch(dataset, range(many, many + LEAST))
    assert not is_whole(co)
    assert contents(dataset) == {i: i for i in range(many + LEAST)}


def test_a_batch_that_is_too_large_to_be_held_is_staged_in_parts(co, monkeypatch):
    monkeypatch.setattr(dataset_writer, "BATCH_BYTES", 100 * (SMALL.nbytes + dataset_writer._OVERHEAD))
    monkeypatch.setattr(dataset_writer, "HELD_BYTES", LEAST * (SMALL.nbytes + dataset_writer._OVERHEAD) + 15_000)
    dataset = co.datasets.init_dataset("e", prototype=SMALL)
    before = records(co)
    fill_batch(dataset, range(6 * LEAST))
    assert before + 3 < records(co) < before + 6 * LEAST // 100
    assert contents(dataset) == {i: i for i in range(6 * LEAST)}


def test_what_others_changed_during_a_large_batch_stays(repository, co):
    dataset = co.datasets["d"]
    with Repository(repository) as other:
        tree = other._engine.working_tree("main")
        with dataset:
            for i in range(LEAST):
                dataset.add(SMALL + i, str(i))
            tree.put_samples((b"d",), [b"theirs.npy"], [SMALL.tobytes()], sample_head(144, 0))
    assert is_whole(co)
    assert len(dataset) == LEAST + 1
    assert np.array_equal(dataset["theirs"], SMALL)


def test_gc_leaves_alone_what_a_large_batch_lays_down(repository, co, monkeypatch):
    tree = co._session.working_tree
    graft, collected = tree.graft, []

    def late(*arguments):
        while len(collected) < 2:
            collected.append(gc(repository, Policy(grace=0)))
        graft(*arguments)

    monkeypatch.setattr(tree, "graft", late)
    fill_batch(co.datasets["d"], range(LEAST))
    assert is_whole(co) and collected[0].waiting and not collected[1].deleted
    assert contents(co.datasets["d"]) == {i: i for i in range(LEAST)}
    assert verify(co._engine) == []


def test_an_update_is_one_record(co):
    before = records(co)
    co.datasets["d"].update({str(i): SMALL for i in range(100)})
    co.datasets["d"].update([("x", SMALL), (7, SMALL)], y=SMALL)
    co.datasets["d"].update()
    assert records(co) - before == 2
    assert len(co.datasets["d"]) == 102


def test_batches_nest_and_stand_side_by_side(repo, co):
    one, other = co.datasets["d"], co.datasets["large"]
    with one, other:
        with one:
            one["a"] = SMALL
        assert repo.status() == "CLEAN"
        other["b"] = LARGE
    assert repo.status() == "DIRTY"
    assert (list(one), list(other)) == (["a"], ["b"])


def test_a_batch_that_ends_with_an_exception_keeps_what_was_added(co):
    dataset = co.datasets["d"]

    def interrupted(last: object) -> None:
        with dataset:
            dataset["a"] = SMALL
            dataset["b"] = last

    with pytest.raises(SchemaMismatch):
        interrupted(LARGE)
    assert list(dataset) == ["a"]


def test_commit_and_close_in_a_batch_take_what_it_holds(repo, co):
    dataset = co.datasets["d"]
    with dataset:
        dataset["a"] = SMALL
        commit = co.commit("one")
        dataset["b"] = SMALL
        co.close()
        with pytest.raises(Closed):
            dataset["c"] = SMALL
        with pytest.raises(Closed):
            dataset["a"]
    with repo.checkout(commit=commit) as reader:
        assert list(reader.datasets["d"]) == ["a"]
    with repo.checkout(write=True) as again:
        assert list(again.datasets["d"]) == ["a", "b"]


def test_a_batch_over_a_removed_dataset_says_so_and_ends(co):
    dataset = co.datasets["d"]
    dataset.__enter__()
    dataset["a"] = SMALL
    co._session.working_tree.remove_tree((b"d",))
    with pytest.raises(KeyError):
        dataset.__exit__(None, None, None)
    assert co.close()


def test_what_the_disk_refused_is_kept_for_the_next_try(repo, co, monkeypatch):
    dataset = co.datasets["d"]
    full = True
    stage = co._session.working_tree.put_samples

    def put_samples(*arguments):
        if full:
            raise StorageFull("the disk is full")
        stage(*arguments)

    monkeypatch.setattr(co._session.working_tree, "put_samples", put_samples)
    with pytest.raises(StorageFull):
        dataset["naked"] = SMALL
    assert "naked" not in dataset
    with pytest.raises(StorageFull), dataset:
        dataset["a"] = SMALL
    for failing in (lambda: dataset.add(SMALL, "b"), lambda: co.commit("too early"), co.close):
        with pytest.raises(StorageFull):
            failing()
    assert co.is_open
    assert np.array_equal(dataset["a"], SMALL)
    full = False
    dataset["d"] = SMALL
    assert repo.status() == "DIRTY"
    assert list(dataset) == ["a", "d"]
    before = records(co)
    dataset["e"] = SMALL
    assert records(co) == before + 1
    assert co.close()


def test_many_threads_add_to_one_batch(co):
    dataset = co.datasets["d"]

    def add(first: int) -> None:
        for i in range(first, 4000, 4):
            dataset.add(np.full(4, i, np.int32), str(i))
            if i % 500 == 0:
                dataset.flush()

    with dataset:
        threads = [threading.Thread(target=add, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(dataset) == 4000
    assert all(array[0] == int(key) for key, array in dataset.items())


@pytest.mark.parametrize("count", [1000, LEAST])
def test_what_a_batch_staged_survives_a_killed_process(repository, count):
    script = """
import os, signal, sys
import numpy as np
from storage.repository import Repository
co = Repository(sys.argv[1]).checkout(write=True)
d = co.datasets.init_dataset("d", shape=3, dtype="i4")
with d:
    for i in range(int(sys.argv[2])):
        d.add(np.full(3, i, "i4"), str(i))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script, repository, str(count)], check=False).returncode == -9
    with Repository(repository) as repo:
        with pytest.warns(UserWarning, match="taken over"):
            co = repo.checkout(write=True)
        assert {key: array.tolist() for key, array in co.datasets["d"].items()} == {
            str(i): [i, i, i] for i in range(count)
        }
