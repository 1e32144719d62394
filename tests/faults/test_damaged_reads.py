"""Damage under a dataset: every way of reading many samples gives what was written or says that it is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.errors import Corrupt
from storage.loaders import make_numpy_dataset
from storage.repository import Repository
from storage.tree import read
from tests.faults.test_damage import flip

COUNT = 400
KEYS = [f"{i:03d}" for i in range(COUNT)]
SHORT = np.random.default_rng(0).integers(0, 9, (COUNT, 100)).astype("u1")
LONG = np.random.default_rng(1).integers(0, 9, (6, 20_000)).astype("i4")
TEXTS = [str(array.tolist()) for array in SHORT[:50]]

Way = Callable[[object], object]
WAYS: dict[str, Way] = {
    "one by one": lambda d: [d[key] for key in d],
    "values": lambda d: list(d.values()),
    "items": lambda d: [value for _, value in d.items()],
    "stack": lambda d: list(d.stack()),
    "stack into": lambda d: list(d.stack(out=np.empty((len(d), *d.shape), d.dtype))),
    "stack into every other": lambda d: list(d.stack(out=np.empty((len(d), 2, *d.shape), d.dtype)[:, 0])),
    "stack of keys": lambda d: list(d.stack(list(d))),
    "batches": lambda d: [each for batch in make_numpy_dataset(d, batch_size=2, shuffle=False) for each in batch],
}
WAYS_OF_TEXTS = ("one by one", "values", "items")


@pytest.fixture
def filled(repository: Path) -> Path:
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        co.datasets.init_dataset("short", prototype=SHORT[0]).update(KEYS, SHORT)
        co.datasets.init_dataset("long", prototype=LONG[0]).update(KEYS[:6], LONG)
        co.datasets.init_dataset("texts", kind="str").update(dict(zip(KEYS[:50], TEXTS, strict=True)))
        co.commit("m")
    return repository


def test_a_flipped_bit_never_gives_wrong_samples(filled):
    segment = max((filled / ".arborfs" / "segments").glob("*.log"), key=lambda path: path.stat().st_size)
    size = segment.stat().st_size
    told: dict[tuple[str, str], int] = {}
    for at in range(100, size, size // 40):
        flip(segment, at)
        with Repository(filled) as repo:
            for name, wanted in (("short", SHORT), ("long", LONG), ("texts", TEXTS)):
                for way in WAYS_OF_TEXTS if name == "texts" else WAYS:
                    try:
                        with repo.checkout() as co:
                            co._session.tree.objects.empty_caches()
                            found = WAYS[way](co[name])
                        assert len(found) == len(wanted)
                        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)), (at, way)
                    except Corrupt:
                        told[name, way] = told.get((name, way), 0) + 1
        flip(segment, at)
    missed = {(name, way) for name in ("short", "long") for way in WAYS if (name, way) not in told}
    missed |= {("texts", way) for way in WAYS_OF_TEXTS if ("texts", way) not in told}
    assert not missed, f"no damage was met by {missed}"


@pytest.mark.parametrize("way", WAYS)
def test_an_index_that_leads_elsewhere_gives_no_other_samples(filled, way):
    with Repository(filled) as repo, repo.checkout() as co:
        objects = co._session.tree.objects
        leaves = [digest for _, _, digest in read.leaves(objects.node, co._session.tree.settled((b"short",)))]
        index = objects._index
        with index.write() as txn:
            one, other = (txn.get(digest, db=index.objects) for digest in leaves[1:3])
            txn.put(leaves[1], other, db=index.objects)
        objects.empty_caches()
        with pytest.raises(Corrupt):
            WAYS[way](co["short"])
        for at in range(0, len(one), 3):
            wrong = bytearray(one)
            wrong[at] ^= 0x41
            with index.write() as txn:
                txn.put(leaves[1], bytes(wrong), db=index.objects)
            objects.empty_caches()
            try:
                found = WAYS[way](co["short"])
            except Corrupt:
                continue
            assert np.array_equal(found, SHORT), at
        with index.write() as txn:
            txn.put(leaves[1], one[:-1], db=index.objects)
        objects.empty_caches()
        with pytest.raises(Corrupt):
            WAYS[way](co["short"])
