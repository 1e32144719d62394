"""The numeric summary of two versions of an array, against numpy on the whole arrays."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from storage import Repository
from storage.model.samples import BytesSource
from storage.stores import arrays
from storage.stores.arrays import array_difference


@pytest.fixture
def differ(engine):
    """How two arrays (or files' bytes) differ, both stored as files."""

    def stored(name, array):
        out = io.BytesIO()
        if isinstance(array, bytes):
            out.write(array)
        else:
            np.save(out, array)
        engine.working_tree("main").put_file((name,), BytesSource(out.getvalue()))
        return engine.working_tree("main").open((name,))[1]

    return lambda old, new: array_difference(stored(b"old.npy", old), stored(b"new.npy", new))


@pytest.mark.parametrize("dtype", ["<i1", "<u1", "<i8", ">i8", "<u8", "<f2", "<f4", ">f8", "<c8", "?"])
@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_elements_and_the_largest_difference(differ, dtype, size, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK", 10_001)  # many blocks, none a multiple of an item
    rng = np.random.default_rng(size)
    old = rng.integers(0, 2 if dtype == "?" else 100, size).astype(dtype)
    new = old.copy()
    places = rng.choice(size, size // 3, replace=False)
    new[places] = ~old[places] if dtype == "?" else old[places] + 27
    found = differ(old, new)
    assert (found.elements, found.differing) == (size, np.count_nonzero(old != new))
    assert found.largest == (None if not len(places) else 1 if dtype == "?" else 27)


def test_whole_numbers_do_not_overflow(differ):
    old = np.array([np.iinfo(np.int64).min, 0, 5], np.int64)
    new = np.array([np.iinfo(np.int64).max, 0, -5], np.int64)
    assert differ(old, new).largest == 2**64 - 1
    assert differ(np.array([3], np.uint64), np.array([2**63 + 5], np.uint64)).largest == 2**63 + 2
    assert differ(np.array([-100], np.int8), np.array([100], np.int8)).largest == 200


def test_nan_is_like_nan_and_unlike_numbers(differ):
    nan = math.nan
    assert differ(np.array([nan, 1.0, 2.0]), np.array([nan, 1.0, 2.0])).differing == 0
    found = differ(np.array([nan, 1.0, 2.0]), np.array([1.0, 1.5, nan]))
    assert (found.differing, found.largest) == (3, 0.5)
    found = differ(np.array([nan]), np.array([1.0]))
    assert found.differing == 1 and math.isnan(found.largest)
    assert differ(np.array([math.inf, 1]), np.array([math.inf, -math.inf])).largest == math.inf
    assert differ(np.array([complex(nan, 1)]), np.array([complex(1, nan)])).differing == 0


@pytest.mark.parametrize(
    "old, new, differing",
    [
        (np.array(["ab", "c"]), np.array(["ab", "d"]), 1),
        (np.array(["NaT", "2026-01-01"], "M8[D]"), np.array(["NaT", "2026-01-02"], "M8[D]"), 1),
        (np.zeros(3, "i4,f8"), np.array([(0, 0), (1, 0), (0, 2)], "i4,f8"), 2),
    ],
)
def test_other_kinds_are_counted_only(differ, old, new, differing):
    found = differ(old, new)
    assert (found.differing, found.largest) == (differing, None)


def test_another_shape_or_dtype_is_told_without_comparing(differ):
    found = differ(np.zeros((2, 3), np.int32), np.zeros((3, 2), np.float32))
    assert (found.old_shape, found.new_shape) == ((2, 3), (3, 2))
    assert (found.old_dtype, found.new_dtype, found.differing) == (np.int32, np.float32, None)
    assert differ(np.zeros((2, 3)), np.zeros((2, 3), order="F")).differing is None


def test_what_is_no_whole_array_has_no_summary(differ):
    assert differ(b"text", np.zeros(3)) is None
    assert differ(np.zeros(3), b"\x93NUMPY broken") is None


def test_shared_chunks_are_not_read(engine, differ, monkeypatch):
    old = np.random.default_rng(1).integers(0, 255, 12_000_000, np.uint8)
    new = old.copy()
    new[6_000_000:6_000_003] += 1
    read = set()
    fetch = type(engine.objects).chunk

    def chunk(objects, digest):
        read.add(digest)
        return fetch(objects, digest)

    monkeypatch.setattr(type(engine.objects), "chunk", chunk)
    assert differ(old, new).differing == 3
    # Both versions of the chunk that differs, and the first one for its header; a dozen there are.
    assert len(read) <= 3


@pytest.mark.parametrize("end", [1, 100, 128])
def test_what_lies_before_a_chunk_is_not_missed(engine, differ, end):
    old = np.random.default_rng(3).integers(0, 255, 4_000_000, np.uint8)
    tree = engine.working_tree("main")
    differ(old, old)
    first = tree.open((b"old.npy",))[1].chunks[0].length  # the header is in it
    new = old.copy()
    new[first - 128 - end] += 1
    assert differ(old, new).differing == 1


def test_items_across_chunks_are_counted_once(differ):
    old = np.random.default_rng(2).integers(0, 2**60, (500_000, 3)).astype("i8").view("i8,i8,i8").reshape(-1)
    new = old.copy()
    new["f1"][::50_000] += 1
    assert differ(old, new).differing == 10


def test_samples_of_a_dataset(repository):
    old = np.random.default_rng(4).normal(size=1_500_000)
    new = old.copy()
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        data = co.datasets.init_dataset("data", prototype=old)
        data["old"] = old
        engine = repo._engine
        chunks = engine.working_tree("main").open((b"data", b"old.npy"))[1].chunks
        places = [0, chunks[0].length // 8 - 1, chunks[0].length // 8, chunks[0].length // 8 + 1, len(old) - 1]
        new[places] = math.nan
        data["new"] = new
        found = array_difference(
            *(engine.working_tree("main").open((b"data", name))[1] for name in (b"old.npy", b"new.npy"))
        )
    assert (found.elements, found.differing) == (len(old), len(places)) and math.isnan(found.largest)
