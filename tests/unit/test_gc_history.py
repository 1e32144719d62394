"""What gc keeps for deltas, work taken back, merges under way and imports; and that nobody waits for anybody."""

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.disk.index import Index
from storage.disk.segments import RecordKind
from storage.engine import Engine
from storage.errors import NotFound
from storage.formats.base import File
from storage.importing import import_items
from storage.maintenance.du import room
from storage.maintenance.gc import Policy, gc
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.chunking import ChunkRef, Codec
from storage.model.digest import Digest, blake
from storage.model.records import Place
from storage.model.samples import BytesSource
from storage.stores import recovery
from storage.stores.merging import Outcome
from storage.stores.objects import object_place, object_row
from storage.stores.pins import Pins, pinned
from tests.unit.test_gc import put

AT_ONCE = Policy(keep=0, grace=0)
RNG = random.Random(4)
FIRST = RNG.randbytes(300_000)
SECOND = FIRST[:1000] + b"changed" + FIRST[1000:]


def read(tree, *path: str) -> bytes:
    content = tree.open(tuple(name.encode() for name in path))[1]
    return bytes(content.read(0, content.size))


def chunks(tree, name: str) -> list[ChunkRef]:
    return list(tree.open((name.encode(),))[1].chunks)


@pytest.fixture
def with_delta(repository) -> tuple[Path, Digest]:
    """A version stored as a delta against one that nothing else leads to; the chunk that it stands on."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "f", FIRST)
        base = chunks(tree, "f")[0].digest
        put(tree, "f", SECOND)
        put(tree, "gone", RNG.randbytes(3_000_000))
        tree.remove((b"gone",))
        tree.commit("one")
        delta = engine.objects.delta(chunks(tree, "f")[0].digest)
        assert delta is not None and base in delta.bases
    return repository, base


def test_what_a_delta_stands_on_stays(with_delta):
    path, base = with_delta
    done = gc(path, AT_ONCE)
    assert done.deleted >= 3 and done.compaction.rewritten == 1
    for _ in range(2):
        with Engine.open(path) as engine:
            tree = engine.working_tree("main")
            assert read(tree, "f") == SECOND
            assert engine.objects.delta(chunks(tree, "f")[0].digest).bases == (base,)
            assert verify(engine) == []
        rebuild(path)
    assert gc(path, AT_ONCE).deleted == 0


def test_du_counts_what_deltas_stand_on(with_delta):
    path, base = with_delta
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        entry = engine.snapshot(engine.branches()["main"]).entry((b"f",))
        taken = room(engine, entry)
        assert taken.objects == len(chunks(tree, "f")) + len({base})
        assert taken.stored > len(FIRST)


def test_a_delta_whose_base_is_gone_is_not_relied_on(with_delta):
    path, base = with_delta
    with Engine.open(path) as engine:
        index = engine.internals()[0]
        with index.write() as txn:
            txn.delete(base, db=index.objects)
    with Engine.open(path) as engine:
        put(engine.working_tree("main"), "again", SECOND)
        assert engine.objects.delta(blake(SECOND)) is None
        assert read(engine.working_tree("main"), "f") == SECOND


def test_what_gc_has_marked_is_stored_anew_in_full(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "f", FIRST)
        put(tree, "f", SECOND)
        tree.remove((b"f",))
        assert gc(repository, Policy(keep=0)).waiting == 2
        put(tree, "g", FIRST)
        put(tree, "g", SECOND)
        assert engine.objects.delta(blake(SECOND)) is None
        gc(repository, AT_ONCE)
        assert read(tree, "g") == SECOND
        assert verify(engine) == []


def test_a_rebuild_takes_copies_that_do_not_stand_on_each_other(tmp_path):
    """Of chunks that gc gave up and that were stored again, an older copy may still be in a segment."""
    index = Index(tmp_path)
    one, other, full = (blake(name) for name in (b"one", b"other", b"full"))

    def row(offset: int, codec: int) -> bytes:
        return object_row(Place(1, offset, 1000), 5000, RecordKind.CHUNK, codec, 7)

    with index.write() as txn:
        txn.put(full, row(100, Codec.RAW), db=index.objects)
    recovery._index_deltas(
        index,
        [
            (other, row(2000, Codec.DELTA), (one,)),
            (one, row(4000, Codec.DELTA), (other,)),
            (other, row(6000, Codec.DELTA), (full,)),
            (blake(b"lost"), row(8000, Codec.DELTA), (blake(b"nowhere"),)),
        ],
    )
    with index.read() as txn:
        places = {key: object_place(value)[0].offset for key, value in index.scan(txn, index.objects, b"")}
    assert places == {full: 100, one: 4000, other: 6000, blake(b"lost"): 8000}
    index.close()


def test_a_working_tree_over_a_commit_taken_back_stays(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "a", b"a" * 9000)
        first = tree.commit("first")
        put(tree, "b", RNG.randbytes(100_000))
        put(tree, "c", b"c" * 9000)
        data = read(tree, "b")
        second = tree.commit("second")
        engine.reset_soft("main", first)
    assert gc(repository, AT_ONCE).commits == [second]
    for _ in range(2):
        with Engine.open(repository) as engine:
            tree = engine.working_tree("main")
            assert read(tree, "b") == data and read(tree, "c") == b"c" * 9000
            assert [row.path for row in tree.status()] == [(b"b",), (b"c",)]
            assert verify(engine) == []
        rebuild(repository)


def test_work_that_an_operation_replaced_comes_back_within_the_time_that_is_kept(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "a", b"a" * 9000)
        first = tree.commit("first")
        put(tree, "staged", FIRST)
        engine.reset_hard("main", first)
        gc(repository, Policy(grace=0))
        engine.undo()
        assert read(tree, "staged") == FIRST
        engine.undo()
        gc(repository, AT_ONCE)
        with pytest.raises(NotFound, match="--keep"):
            engine.undo()
        assert read(tree, "a") == b"a" * 9000
        put(tree, "staged", SECOND)
        engine.reset_hard("main", first)
        assert [row.path for row in tree.status()] == []
        assert verify(engine) == []


def test_a_merge_under_way_outlives_the_branch_that_is_merged(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "f", b"base" * 3000)
        tree.commit("base")
        engine.create_branch("side")
        put(engine.working_tree("side"), "f", b"theirs" * 3000)
        put(engine.working_tree("side"), "more", FIRST)
        theirs = engine.working_tree("side").commit("theirs")
        put(tree, "f", b"ours" * 3000)
        tree.commit("ours")
        assert engine.merging("main").merge(theirs, leave_open=True).outcome is Outcome.UNDER_WAY
        engine.remove_branch("side", force=True)
    assert gc(repository, AT_ONCE).commits == []
    rebuild(repository)
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        assert read(tree, "more") == FIRST
        put(tree, "f", b"resolved")
        tip = tree.commit("merged")
        assert theirs in engine.objects.commit(tip).parents
        assert read(engine.snapshot(theirs), "f") == b"theirs" * 3000
        assert verify(engine) == []


def test_an_import_under_way_keeps_what_it_has_stored(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "gone", FIRST)
        tree.remove((b"gone",))
        collected = []

        def items() -> Iterator[File]:
            # The first is found stored, though nothing leads to it; the second is new. gc comes when both are taken.
            for number, data in enumerate((FIRST, RNG.randbytes(200_000), b"last" * 5000)):
                if number == 2:
                    collected.append(gc(repository, AT_ONCE))
                yield File((b"%d" % number,), BytesSource(data), "", 1)

        import_items(tree, items(), "d")
        assert collected[0].deleted == 0 and collected[0].waiting >= 2
        gc(repository, AT_ONCE)
        assert read(tree, "d", "0") == FIRST and read(tree, "d", "2") == b"last" * 5000
        assert verify(engine) == []
        tree.remove_tree((b"d",))
    assert gc(repository, AT_ONCE).deleted >= 3


def test_opening_a_snapshot_waits_for_nobody_who_writes(repository):
    with Engine.open(repository) as engine, Engine.open(repository) as other, ThreadPoolExecutor(1) as pool:
        put(engine.working_tree("main"), "f", FIRST)
        commit = engine.working_tree("main").commit("one")
        with engine.internals()[0].write():
            assert read(pool.submit(other.snapshot, commit).result(timeout=60), "f") == FIRST


def test_a_dry_run_counts_to_the_byte(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "kept", RNG.randbytes(400_000))
        tree.commit("kept")
        engine.create_branch("side")
        put(engine.working_tree("side"), "lost", RNG.randbytes(700_000))
        engine.working_tree("side").commit("lost")
        engine.remove_branch("side", force=True)
    with Engine.open(repository) as writer:
        put(writer.working_tree("main"), "busy", RNG.randbytes(300_000))
        for policy in (Policy(keep=0), AT_ONCE, AT_ONCE):
            said, did = gc(repository, policy, dry_run=True), gc(repository, policy)
            assert _numbers(said) == _numbers(did)
    said, did = gc(repository, AT_ONCE, dry_run=True), gc(repository, AT_ONCE)
    assert _numbers(said) == _numbers(did)
    assert did.freed > 700_000


def _numbers(done) -> tuple:
    compaction = done.compaction
    counted = (compaction.rewritten, compaction.removed, compaction.busy, compaction.freed)
    return set(done.commits), done.deleted, done.deleted_bytes, done.waiting, done.waiting_bytes, counted


def test_a_file_of_pins_is_written_anew_when_it_is_long(repository, monkeypatch):
    monkeypatch.setattr("storage.stores.pins._LONG", 20)
    with Engine.open(repository) as engine:
        put(engine.working_tree("main"), "f", FIRST)
        commit = engine.working_tree("main").commit("one")
        folder = repository / ".arborfs" / "pins"
        held = engine.snapshot(commit)
        pins = Pins(folder, engine.internals()[0], os.urandom(8))
        with pins.working():
            began = time.time_ns()
            for _ in range(50):
                reader = object.__new__(type("Reader", (), {}))
                pins.hold(commit, reader)
                del reader
                pins.release()
            assert max(path.stat().st_size for path in folder.iterdir()) < 30 * 33
            found = pinned(folder)
            assert found.digests == {commit} and found.since is not None and found.since <= began
            assert len(list(folder.iterdir())) == 2
        assert pinned(folder).since is None
        pins.close()
        assert held.commit == commit
    assert list(folder.iterdir()) == []


def test_gc_goes_on_where_a_merge_came_back_that_does_not_hold(repository):
    """Its merged tree was given up with the working tree that lay over it."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "a", b"base")
        tree.commit("first")
        engine.create_branch("side")
        for name in ("main", "side"):
            put(engine.working_tree(name), "a", name.encode())
            put(engine.working_tree(name), f"of {name}", b"x" * 9000)
        tree.commit("ours")
        theirs = engine.working_tree("side").commit("theirs")
        engine.merging("main").merge(theirs, leave_open=True)
        begun = engine.operations()[0].number
        put(tree, "b", FIRST)
        engine.reset_hard("main", tree.tip())
        gc(repository, AT_ONCE)
        engine.restore_operation(begun)
        assert tree.merging() is None and tree.status() == []
        gc(repository, AT_ONCE)
        gc(repository, Policy(grace=0))
        assert verify(engine) == []
        engine.undo()
        assert read(tree, "a") == b"main"
    rebuild(repository)
