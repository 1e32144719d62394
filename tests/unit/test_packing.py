"""Large samples of a batch: stored in portions, packed by two threads, they are what they would be one by one."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

import numpy as np
import pytest

from storage.engine import Engine
from storage.errors import StorageFull
from storage.maintenance.verify import verify
from storage.model.records import CHUNKED
from storage.stores import packing

LARGE = np.random.default_rng(1).integers(0, 1000, (50, 400), dtype=np.int32)
HUGE = np.arange(1_200_000, dtype=np.int32)


@pytest.fixture
def co(repo, monkeypatch):
    monkeypatch.setattr(packing, "PORTION", 20 * LARGE.nbytes)
    with repo.checkout(write=True) as writer:
        writer.datasets.init_dataset("d", prototype=LARGE)
        writer.datasets.init_dataset("v", prototype=HUGE, variable_shape=True)
        writer.datasets.init_dataset("b", kind="bytes")
        yield writer


def rows_of(engine: Engine, name: str) -> dict[bytes, tuple[int, int, bytes]]:
    """Flags, size and value of all samples of a dataset."""
    entries = engine.working_tree("main").entries((name.encode(),))
    value = engine.parts().staging.value
    return {key: (entry.flags, entry.size, value(entry.value)) for key, entry in entries}


def test_what_a_batch_stores_is_what_is_stored_one_by_one(repo, co):
    dataset, sizes, files = co.datasets["d"], co.datasets["v"], co.datasets["b"]
    arrays = {f"k{i:03}": LARGE + i for i in range(100)}
    shapes = {f"k{size}": HUGE[:size] for size in (1, 1024, 1025, 70_000, 90_000, 1_200_000)}
    values = {str(size): os.urandom(size) for size in (10, 65_536, 65_537, 200_000, 300_000)}
    with dataset, sizes, files:
        for pairs, where in ((arrays, dataset), (shapes, sizes), (values, files)):
            for key, value in pairs.items():
                where[key] = value
                where[f"again{key}"] = value
    batched = [rows_of(co._engine, name) for name in "dvb"]
    assert all(flags == CHUNKED for flags, _, _ in batched[0].values())
    for pairs, where in ((arrays, dataset), (shapes, sizes), (values, files)):
        for key in pairs:
            del where[key]
            where[key] = pairs[key]
    assert [rows_of(co._engine, name) for name in "dvb"] == batched
    assert verify(co._engine) == []
    co.commit("all")
    for pairs, where in ((arrays, dataset), (shapes, sizes), (values, files)):
        assert all(np.array_equal(where[key], value) for key, value in pairs.items())


def test_contents_are_those_at_the_time_of_adding_and_are_seen_at_once(co):
    dataset = co.datasets["d"]
    changing = LARGE.copy()
    with dataset:
        for number in range(90):
            changing[:] = number
            dataset[number] = changing
            assert dataset[number][3, 3] == number
            assert dataset[number // 2][3, 3] == number // 2
        columns = np.asfortranarray(LARGE)
        dataset["columns"] = columns
        dataset["parts"] = np.repeat(LARGE, 2, axis=1)[:, ::2]
    assert [dataset[number][7, 7] for number in range(90)] == list(range(90))
    assert np.array_equal(dataset["columns"], LARGE)
    assert np.array_equal(dataset["parts"], LARGE)


def test_the_same_contents_are_stored_once(co, monkeypatch):
    """Also those of a portion that is packed while the one before is not stored yet."""
    dataset, sizes = co.datasets["d"], [segment_bytes(co)]
    for turn in range(3):
        with dataset:
            for number in range(20 + 40 * turn):
                dataset[f"{turn}{number}"] = LARGE + number % 20
        sizes.append(segment_bytes(co))
    first, *others = [after - before for before, after in pairwise(sizes)]
    assert first > 20 * LARGE.nbytes // 3
    assert max(others) < 100 * 250  # rows of the journal
    objects, store = co._engine.objects, co._engine.objects.put_packed

    def late(records):
        for thread in threading.enumerate():
            if thread.name == "arborfs-pack":
                thread.join()
        store(records)

    monkeypatch.setattr(objects, "put_packed", late)
    rng = np.random.default_rng(5)
    some = [rng.integers(0, 2**31, LARGE.shape, dtype=np.int32) for _ in range(20)]
    before = segment_bytes(co)
    with dataset:
        for number in range(60):
            dataset[number] = some[number % 20]
    assert segment_bytes(co) - before < 20.5 * LARGE.nbytes


def segment_bytes(co) -> int:
    return sum(file.stat().st_size for file in (co._engine.path / ".arborfs" / "segments").iterdir())


def test_an_update_of_many_is_packed_too_and_is_one_change(co):
    dataset = co.datasets["d"]
    before = co._engine.generation()
    dataset.update({f"k{i}": LARGE + i for i in range(60)})
    assert co._engine.generation() == before + 1
    assert all(np.array_equal(dataset[f"k{i}"], LARGE + i) for i in range(60))
    with pytest.raises(ValueError, match="shape"):
        dataset.update({"new": LARGE, "other": LARGE[1:]})
    assert "new" not in dataset


def test_what_a_version_before_is_like_stands_on_it(co):
    """Deltas are found one by one, within a batch as well."""
    rng = np.random.default_rng(3)
    first = rng.integers(0, 2**31, LARGE.shape, dtype=np.int32)
    dataset, sizes = co.datasets["d"], []
    for turn in range(3):
        with dataset:
            for number in range(30):
                changed = first + number
                changed[turn] = turn
                dataset[number] = changed
        co.commit(f"turn {turn}")
        sizes.append(segment_bytes(co))
    assert sizes[2] - sizes[1] < (sizes[0]) // 4
    assert verify(co._engine) == []


def test_what_the_disk_refuses_is_stored_by_the_next_try(co, monkeypatch):
    dataset, objects = co.datasets["d"], co._engine.objects
    real, refused, added = objects.put_packed, [], []

    def full(records):
        refused.append(len(list(records)))
        raise StorageFull("the disk is full")

    with dataset:
        with monkeypatch.context() as patch:
            patch.setattr(objects, "put_packed", full)
            for number in range(100):
                try:
                    dataset[number] = LARGE + number
                    added.append(number)
                except StorageFull:
                    pass
            with pytest.raises(StorageFull):
                dataset.flush()
        assert refused
        # Two portions are kept, and what was refused was not taken.
        assert len(added) == 2 * 20
        assert objects.put_packed == real
        dataset["last"] = LARGE
    assert sorted(dataset.keys()) == sorted([*map(str, added), "last"])
    assert all(np.array_equal(dataset[number], LARGE + number) for number in added)
    assert verify(co._engine) == []


def test_a_batch_goes_on_in_a_forked_process(repository, repo, co):
    """Whose threads are gone: what they had in hand is packed again."""
    dataset = co.datasets["d"]
    begun = threading.Event()
    real = type(co._engine.objects).packed

    def slow(self, *arguments):
        if threading.current_thread().name == "arborfs-pack" and not begun.is_set():
            begun.set()
            halted.wait()
        return real(self, *arguments)

    halted = threading.Event()
    with dataset:
        co._engine.objects.packed = slow.__get__(co._engine.objects)
        for number in range(21):
            dataset[number] = LARGE + number
        begun.wait()
        pid = os.fork()
        if pid == 0:
            try:
                dataset.flush()
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        halted.set()
        assert os.waitstatus_to_exitcode(status) == 0
        content = co._engine.working_tree("main").open((b"d", b"20.npy"))[1]
        assert bytes(content.payload()) == (LARGE + 20).tobytes()
    assert all(np.array_equal(dataset[number], LARGE + number) for number in range(21))


def test_what_the_disk_refuses_while_leaves_are_made_is_told_and_an_update_can_be_tried_again(co, monkeypatch):
    """Leaves are stored by a thread of their own."""
    co.datasets.init_dataset("small", shape=(300,), dtype=np.uint8)
    dataset, objects = co.datasets["small"], co._engine.objects
    rows = np.random.default_rng(2).integers(0, 255, (20_000, 300), dtype=np.uint8)
    real, threads = objects.put_nodes, []

    def full(nodes):
        threads.append(threading.current_thread().name)
        if len(threads) > 1:
            raise StorageFull("the disk is full")
        real(nodes)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "put_nodes", full)
        with pytest.raises(StorageFull):
            dataset.update(list(map(str, range(len(rows)))), rows)
    assert threads[1:] == ["arborfs-store", "MainThread"]
    assert len(dataset) == 0
    dataset.update(list(map(str, range(len(rows)))), rows)
    assert np.array_equal(dataset["777"], rows[777])
    assert verify(co._engine) == []
