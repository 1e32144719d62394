"""Chunks as deltas: what differs is stored, whatever the change; what is damaged is told; chains stay short."""

from __future__ import annotations

import io
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.disk.segments import FILE_SIZE
from storage.engine import Engine
from storage.errors import Corrupt
from storage.importing import import_files
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.chunking import ChunkRef
from storage.model.deltas import CHAIN_MAX, Alignment, Delta, difference, patched
from storage.model.digest import blake
from storage.model.records import Attributes
from storage.model.samples import BytesSource, make_schema
from tests.fuzz.mutations import mutated

ROW, ROWS = 4096, 1500
"""A file of 6 MB: enough for some chunks of each length."""


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.integers(0, 3000))
def test_any_two_contents(base, new, at):
    data = base[:at] + new + base[at:]
    assert patched(base or b"x", difference(base or b"x", data), len(data)) == data


RNG = np.random.default_rng(5)
BASE = RNG.integers(0, 256, 200_000, dtype=np.uint8).tobytes()
NEW = BASE[:50_000] + b"inserted" * 10 + BASE[50_000:]
FRAME = difference(BASE, NEW)
ENCODED = Delta(1, (blake(BASE),), FRAME).encode()


def test_what_is_alike_costs_nothing():
    assert len(FRAME) < 200


@settings(max_examples=300)
@given(mutated(ENCODED))
def test_damaged_deltas(data):
    try:
        delta = Delta.decode(data)
        found = patched(BASE, delta.frame, len(NEW))
    except Corrupt:
        return
    assert len(found) == len(NEW)


@pytest.mark.parametrize("length", [0, len(NEW) - 1, len(NEW) + 1, 1 << 60])
def test_another_length_than_the_frame_says(length):
    with pytest.raises(Corrupt):
        patched(BASE, FRAME, length)


def refs(*parts: bytes) -> list[ChunkRef]:
    return [ChunkRef(blake(part), len(part)) for part in parts]


class TestAlignment:
    parts = tuple(RNG.integers(0, 256, 100_000 + 7 * i, dtype=np.uint8).tobytes() for i in range(6))

    def test_in_place(self):
        old = refs(*self.parts)
        found = Alignment(old)
        assert found.bases(0, 100_000) == old[:1]
        assert found.bases(old[0].length, 100_000) == old[1:2]
        assert found.bases(old[0].length // 2, 100_000) == old[:2]

    def test_behind_an_insertion_in_a_chunk(self):
        old = refs(*self.parts)
        found = Alignment(old)
        new = memoryview(self.parts[0][:70_000] + bytes(30_000) + self.parts[0][70_000:])
        bases = found.bases(0, len(new))
        found.compared(bases, b"".join(self.parts[: len(bases)]), 0, new)
        assert found.bases(len(new), 100_000) == old[1:2]

    def test_behind_a_chunk_that_is_the_same(self):
        old = refs(*self.parts)
        found = Alignment(old)
        found.passed(old[3].digest, 1_000_000)
        assert found.bases(1_000_000 + old[3].length, 100_000) == old[4:5]

    def test_behind_the_end(self):
        found = Alignment(refs(*self.parts))
        assert found.bases(10_000_000, 100_000) == []
        assert Alignment([]).bases(0, 100_000) == []


def npy(rows: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, rows)
    return out.getvalue()


def changed(rows: np.ndarray, how: str) -> np.ndarray:
    """One row in a hundred changed, or inserted, at random."""
    count = len(rows) // 100
    fresh = RNG.integers(0, 256, (count, ROW), dtype=np.uint8)
    if how == "changed":
        rows = rows.copy()
        rows[RNG.choice(len(rows), count, replace=False)] = fresh
        return rows
    return np.insert(rows, np.sort(RNG.integers(0, len(rows), count)), fresh, axis=0)


def stored(engine: Engine) -> int:
    return sum(path.stat().st_size for path in (engine.path / ".arborfs" / "segments").iterdir())


@pytest.mark.parametrize("how", ["changed", "inserted"])
def test_twenty_versions_of_a_file_cost_what_changed(engine, how):
    """The bytes that differ come to 1.2 times the first version."""
    tree = engine.working_tree("main")
    rows = RNG.integers(0, 256, (ROWS, ROW), dtype=np.uint8)
    versions = []
    for number in range(20):
        rows = changed(rows, how) if number else rows
        versions.append(npy(rows))
        tree.put_file((b"x.npy",), BytesSource(versions[-1]))
        tree.commit(str(number))
    assert stored(engine) < 1.8 * len(versions[0])
    for (commit, _), version in zip(engine.log(engine.branches()["main"]), reversed(versions), strict=True):
        content = engine.snapshot(commit).open((b"x.npy",))[1]
        assert content.read(0, content.size) == version
        for chunk in content.chunks:
            assert engine.objects._depth(chunk.digest) <= CHAIN_MAX
    assert verify(engine) == []


def test_a_rebuild_finds_them(repository):
    rows = RNG.integers(0, 256, (ROWS, ROW), dtype=np.uint8)
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"x",), BytesSource(rows.tobytes()))
        tree.commit("one")
        rows = changed(rows, "changed")
        tree.put_file((b"x",), BytesSource(rows.tobytes()))
    assert rebuild(repository).problems == []
    with Engine.open(repository) as engine:
        content = engine.working_tree("main").open((b"x",))[1]
        assert any(engine.objects.delta(chunk.digest) for chunk in content.chunks)
        assert content.read(0, content.size) == rows.tobytes()
        assert verify(engine) == []


def test_what_stands_on_a_lost_chunk_is_lost_with_it(repository):
    """After a power loss: the version before stays, as for a chunk that was lost itself."""
    first, second = (RNG.integers(0, 256, (200, ROW), dtype=np.uint8).tobytes() for _ in range(2))
    third = second[:100_000] + b"changed" + second[100_007:]
    # Each appends to a segment of its own, for the one before holds its own.
    with Engine.open(repository) as one, Engine.open(repository) as two, Engine.open(repository) as three:
        for engine, version in ((one, first), (two, second), (three, third)):
            tree = engine.working_tree("main")
            tree.put_file((b"x",), BytesSource(version))
            if engine is one:
                tree.commit("durable")
        assert any(three.objects.delta(chunk.digest) for chunk in tree.open((b"x",))[1].chunks)
    holding = [
        path for path in (repository / ".arborfs" / "segments").glob("*.log") if second[:100] in path.read_bytes()
    ]
    (segment,) = holding
    os.truncate(segment, FILE_SIZE)
    shutil.rmtree(repository / ".arborfs" / "index")
    with Engine.open(repository) as engine:
        content = engine.working_tree("main").open((b"x",))[1]
        assert content.read(0, content.size) == first


def test_a_changed_sample_of_a_dataset(engine):
    from storage import Repository

    with Repository(engine.path) as repo:
        checkout = repo.checkout(write=True)
        sample = RNG.integers(0, 256, (1000, 3000), dtype=np.uint8)
        dataset = checkout.datasets.init_dataset("d", prototype=sample)
        dataset["k"] = sample
        checkout.commit("one")
        before = stored(engine)
        sample[500, 1000:1100] = 0
        dataset["k"] = sample
        checkout.commit("two")
        assert stored(engine) - before < 50_000
        assert (checkout.datasets["d"]["k"] == sample).all()
        checkout.close()


def test_contents_that_have_nothing_in_common_are_stored_in_full(engine):
    tree = engine.working_tree("main")
    for _ in range(2):
        tree.put_file((b"x",), BytesSource(RNG.integers(0, 256, (ROWS, ROW), dtype=np.uint8).tobytes()))
        content = tree.open((b"x",))[1]
        assert not any(engine.objects.delta(chunk.digest) for chunk in content.chunks)


def test_what_packs_well_is_packed(engine):
    """Ten values only: a delta against another such file would be longer than the packed file."""
    tree = engine.working_tree("main")
    for _ in range(2):
        tree.put_file((b"x",), BytesSource(RNG.integers(0, 2, 2_000_000, dtype=np.uint8).tobytes()))
        content = tree.open((b"x",))[1]
        assert not any(engine.objects.delta(chunk.digest) for chunk in content.chunks)


@pytest.mark.parametrize("name", [b".x.npy.a8Fj2k", b"x.npy.tmp", b"x.npy~", b"tmp.x.npy"])
@pytest.mark.parametrize("rows", [10, ROWS], ids=["in the journal", "in chunks"])
def test_a_file_written_beside_the_one_that_it_replaces(engine, name, rows):
    tree = engine.working_tree("main")
    old = RNG.integers(0, 256, (rows, ROW), dtype=np.uint8)
    tree.put_file((b"x.npy",), BytesSource(old.tobytes()))
    tree.commit("one")
    before, new = stored(engine), old.copy()
    new[rows // 2, :100] = 0
    tree.put_file((name,), BytesSource(new.tobytes()))
    tree.rename((name,), (b"x.npy",))
    tree.commit("two")
    assert stored(engine) - before < 10_000
    content = tree.open((b"x.npy",))[1]
    assert content.read(0, content.size) == new.tobytes()
    assert verify(engine) == []


def test_a_file_that_was_removed_or_emptied_before_it_was_written_anew(engine):
    tree = engine.working_tree("main")
    rows = RNG.integers(0, 256, (ROWS, ROW), dtype=np.uint8)
    tree.put_file((b"x",), BytesSource(rows.tobytes()))
    tree.commit("one")
    before = stored(engine)
    for gone in (lambda: tree.remove((b"x",)), lambda: tree.put_file((b"x",), BytesSource(b""))):
        gone()
        rows = changed(rows, "changed")
        tree.put_file((b"x",), BytesSource(rows.tobytes()))
        tree.commit("again")
    assert stored(engine) - before < rows.nbytes // 10


def test_a_sample_written_beside_the_one_that_it_replaces(engine):
    """Under the name that it is written under it is no sample: it becomes one when it is moved."""
    tree = engine.working_tree("main")
    rows = RNG.integers(0, 256, (ROWS, ROW), dtype=np.uint8)
    tree.make_directory((b"d",), attributes=Attributes(schema=make_schema(rows.dtype, rows.shape)))
    tree.put_file((b"d", b"0.npy"), BytesSource(npy(rows)))
    tree.commit("one")
    before = stored(engine)
    rows[7, :100] = 0
    tree.put_file((b"d", b".0.npy.a8Fj2k"), BytesSource(npy(rows)))
    tree.rename((b"d", b".0.npy.a8Fj2k"), (b"d", b"0.npy"))
    tree.commit("two")
    assert stored(engine) - before < rows.nbytes // 10
    content = tree.open((b"d", b"0.npy"))[1]
    assert content.read(0, content.size) == npy(rows)


def test_an_import_over_what_is_there(engine, tmp_path):
    tree = engine.working_tree("main")
    rows = RNG.integers(0, 256, (ROWS, ROW), dtype=np.uint8)
    sizes = []
    for _ in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / "file").write_bytes(rows.tobytes())
        np.save(tmp_path / "0.npy", rows)
        import_files(tree, [tmp_path / "in"], "files", overwrite=True)
        import_files(tree, [tmp_path / "0.npy"], "samples", overwrite=True)
        tree.commit("imported")
        sizes.append(stored(engine))
        rows = changed(rows, "changed")
    assert sizes[1] - sizes[0] < 2 * rows.nbytes // 10
