"""Garbage collection: what something leads to stays, the rest goes, and others may work meanwhile."""

import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.disk.locks import Owner
from storage.disk.segments import RecordKind, SegmentKind
from storage.engine import Engine
from storage.errors import Collected, CollectorRuns, Corrupt, NotFound
from storage.maintenance import gc as gc_module
from storage.maintenance.gc import GRACE, KEEP, SECOND, Policy, gc
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.records import Place
from storage.model.samples import BytesSource
from storage.stores.objects import object_kind, object_place, object_row

AT_ONCE = Policy(keep=0, grace=0)


def later(seconds: float, **kept: int) -> Policy:
    """A policy whose clock is ahead."""
    return Policy(**kept, now=lambda: time.time_ns() + int(seconds * SECOND))


def put(tree, name: str, data: bytes) -> None:
    tree.put_file((name.encode(),), BytesSource(data))


def read(tree, name: str) -> bytes:
    content = tree.open((name.encode(),))[1]
    return bytes(content.read(0, content.size))


def stored(repository: Path) -> int:
    return sum(path.stat().st_size for path in (repository / ".arborfs" / "segments").iterdir())


def dead_branch(repository: Path, size: int = 3_000_000) -> bytes:
    """A repository with one commit on main, and one of `size` bytes on a branch that was removed: that commit."""
    with Engine.open(repository) as engine:
        put(engine.working_tree("main"), "kept", b"kept" * 100_000)
        engine.working_tree("main").commit("kept")
        engine.create_branch("side")
        put(engine.working_tree("side"), "lost", random.Random(size).randbytes(size))
        digest = engine.working_tree("side").commit("lost")
        engine.remove_branch("side", force=True)
    return digest


def test_nothing_goes_while_the_operation_log_can_bring_it_back(repository):
    digest = dead_branch(repository)
    before = stored(repository)
    assert gc(repository).deleted == 0
    with Engine.open(repository) as engine:
        engine.create_branch("again", digest)
        assert len(read(engine.working_tree("again"), "lost")) == 3_000_000
    assert stored(repository) >= before


def test_what_nothing_leads_to_goes_and_the_rest_stays(repository):
    digest = dead_branch(repository)
    before = stored(repository)
    done = gc(repository, AT_ONCE)
    assert done.commits == [digest]
    assert done.freed >= 3_000_000 and stored(repository) <= before - 3_000_000
    with Engine.open(repository) as engine:
        assert digest not in engine.commits()
        with pytest.raises(NotFound):
            engine.snapshot(digest)
        with pytest.raises(NotFound):
            engine.create_branch("again", digest)
        assert read(engine.working_tree("main"), "kept") == b"kept" * 100_000
        assert [operation.description for operation in engine.operations()][-1] == "init"
        assert verify(engine) == []
    again = gc(repository, AT_ONCE)
    assert (again.deleted, again.freed, again.commits) == (0, 0, [])


def test_the_keep_time_counts_from_the_operation_that_left_a_commit(repository):
    digest = dead_branch(repository)
    assert gc(repository, later(29 * 86_400)).commits == []
    assert gc(repository, later(31 * 86_400)).commits == [digest]
    assert KEEP == 30 * 86_400 * SECOND


def test_a_dry_run_says_the_same_and_deletes_nothing(repository):
    dead_branch(repository)
    before = stored(repository)
    said = gc(repository, AT_ONCE, dry_run=True)
    assert stored(repository) == before
    did = gc(repository, AT_ONCE)
    assert (said.commits, said.deleted, said.deleted_bytes) == (did.commits, did.deleted, did.deleted_bytes)
    assert abs(said.freed - did.freed) < 1000


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_rebuild_gives_the_same_repository(repository, when):
    digest = dead_branch(repository)
    if when == "before":
        shutil.rmtree(repository / ".arborfs" / "index")
    gc(repository, AT_ONCE)
    assert rebuild(repository).problems == []
    with Engine.open(repository) as engine:
        assert digest not in engine.commits() and len(engine.commits()) == 1
        assert next(o.description for o in engine.operations()) == "branch removed: side"
        assert verify(engine) == []
    assert gc(repository, AT_ONCE).commits == []


def test_a_commit_that_vanished_stays_gone_though_its_record_was_not_rewritten(repository):
    with Engine.open(repository) as engine:
        put(engine.working_tree("main"), "big", os.urandom(2_000_000))
        engine.working_tree("main").commit("big")
        engine.create_branch("side")
        put(engine.working_tree("side"), "small", b"small")
        digest = engine.working_tree("side").commit("small")
        engine.remove_branch("side", force=True)
    done = gc(repository, AT_ONCE)
    assert done.commits == [digest] and done.compaction.rewritten == 0
    rebuild(repository)
    with Engine.open(repository) as engine:
        assert digest not in engine.commits()
        assert verify(engine) == []


def test_staged_work_stays_with_its_chunks(repository):
    dead_branch(repository)
    big, small = os.urandom(2_000_000), b"s" * 30_000
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "big", big)
        put(tree, "small", small)
        tree.rename((b"kept",), (b"moved",))
        put(tree, "replaced", os.urandom(1_000_000))
        put(tree, "replaced", b"now short")
    done = gc(repository, AT_ONCE)
    assert done.deleted_bytes > 4_000_000
    for _ in range(2):
        with Engine.open(repository) as engine:
            tree = engine.working_tree("main")
            assert (read(tree, "big"), read(tree, "small")) == (big, small)
            assert (read(tree, "moved"), read(tree, "replaced")) == (b"kept" * 100_000, b"now short")
            assert verify(engine) == []
        rebuild(repository)


def test_tags_and_history_keep_what_they_lead_to(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        old = os.urandom(1_000_000)
        put(tree, "a", old)
        first = tree.commit("one")
        put(tree, "a", b"new")
        tree.commit("two")
        engine.create_branch("side")
        put(engine.working_tree("side"), "b", os.urandom(1_000_000))
        tagged = engine.working_tree("side").commit("three")
        engine.create_tag("v1", tagged)
        engine.remove_branch("side", force=True)
    assert gc(repository, AT_ONCE).deleted == 0
    with Engine.open(repository) as engine:
        assert read(engine.snapshot(first), "a") == old
        assert len(read(engine.snapshot(tagged), "b")) == 1_000_000


def test_while_others_have_it_open_deleting_takes_two_looks(repository):
    digest = dead_branch(repository)
    with Engine.open(repository) as engine:
        put(engine.working_tree("main"), "other", b"x")
        first = gc(repository, Policy(keep=0))
        assert first.commits == [digest] and first.deleted == 0 and first.waiting_bytes > 3_000_000
        assert gc(repository, later(GRACE / SECOND / 2, keep=0)).deleted == 0
        last = gc(repository, later(GRACE / SECOND + 60, keep=0))
        assert last.deleted == first.waiting and last.deleted_bytes == first.waiting_bytes
        assert verify(engine) == []


def test_contents_stored_again_between_the_two_looks_stay(repository):
    data = os.urandom(1_500_000)
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "a", data)
        tree.remove((b"a",))
        assert gc(repository, Policy(keep=0)).waiting >= 1
        put(tree, "a", data)
        gc(repository, later(2 * GRACE / SECOND, keep=0))
        assert read(tree, "a") == data
        tree.commit("kept")
        gc(repository, later(4 * GRACE / SECOND, keep=0))
        assert verify(engine) == []
    assert gc(repository, AT_ONCE).waiting == 0
    rebuild(repository)
    with Engine.open(repository) as engine:
        assert read(engine.working_tree("main"), "a") == data


def test_an_open_snapshot_pins_its_commit(repository):
    digest = dead_branch(repository)
    with Engine.open(repository) as engine:
        snapshot = engine.snapshot(digest)
        done = gc(repository, AT_ONCE)
        assert done.commits == [] and done.pins == 1
        assert len(read(snapshot, "lost")) == 3_000_000
        del snapshot
        engine.changes(0)
        assert gc(repository, AT_ONCE).commits == [digest]


def test_pins_of_dead_processes_count_for_nothing(repository):
    digest = dead_branch(repository)
    child = os.fork()
    if child == 0:
        engine = Engine.open(repository)
        snapshot = engine.snapshot(digest)
        os._exit(0 if snapshot else 1)  # without closing anything
    assert os.waitpid(child, 0)[1] == 0
    assert not Owner(child, 1, "another boot").alive
    assert gc(repository, AT_ONCE).commits == [digest]


def test_readers_find_what_moved_to_another_segment(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        names = [f"f{i}" for i in range(20)]
        data = {name: os.urandom(300_000) for name in names}
        for name in names:
            put(tree, name, data[name])
        tip = tree.commit("all")
        put(tree, "gone", os.urandom(4_000_000))
        tree.remove((b"gone",))
    with Engine.open(repository) as reader:
        snapshot = reader.snapshot(tip)
        assert read(snapshot, "f0") == data["f0"]
        old = next(id for id, path in reader.internals()[1].paths().items() if path.suffix == ".log")
        done = gc(repository, AT_ONCE)
        assert done.compaction.rewritten == 1
        assert old not in reader.internals()[1].paths()
        assert {name: read(snapshot, name) for name in names} == data
        assert reader.operations()[-1].description == "init"
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        assert any(f"{old:08x}.log (deleted)" in link for link in links)
        reader.changes(0)
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        assert not any("(deleted)" in link and ".log" in link for link in links)
        assert {name: read(snapshot, name) for name in names} == data


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_a_segment_somebody_appends_to_waits(repository):
    dead_branch(repository)
    with Engine.open(repository) as engine:
        put(engine.working_tree("main"), "more", os.urandom(200_000))
        done = gc(repository, AT_ONCE)
        assert done.deleted and done.compaction.busy == 1 and done.freed == 0
        put(engine.working_tree("main"), "yet more", os.urandom(200_000))
        assert verify(engine) == []
    assert gc(repository, AT_ONCE).freed > 3_000_000


def test_only_one_gc_at_a_time(repository, monkeypatch):
    dead_branch(repository)

    def in_between(*args: object) -> object:
        with pytest.raises(CollectorRuns):
            gc(repository)
        raise RuntimeError

    monkeypatch.setattr(gc_module, "compact", in_between)
    with pytest.raises(RuntimeError):
        gc(repository, AT_ONCE)
    monkeypatch.undo()
    assert gc(repository, AT_ONCE).freed > 0


def test_contents_that_gc_took_under_a_writer_are_refused_not_lost(repository):
    """Storing longer than the grace time: the row is refused, and storing again heals it."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "first", b"x")
        digest = engine.objects.put_chunk(os.urandom(500_000))
        data = os.urandom(700_000)
        real = engine.objects.put_chunk

        def slow(*arguments: object) -> object:
            stored = real(*arguments)
            gc(repository, AT_ONCE)
            return stored

        engine.objects.put_chunk = slow
        with pytest.raises(Collected) as refused:
            put(tree, "second", data)
        assert refused.value.digest
        engine.objects.put_chunk = real
        assert not engine.objects.is_kept(digest)
        put(tree, "second", data)
        assert read(tree, "second") == data
        tree.commit("fine")
        assert verify(engine) == []


def test_gc_deletes_nothing_that_a_commit_under_way_has_stored(repository):
    with Engine.open(repository) as engine, ThreadPoolExecutor(1) as pool:
        tree = engine.working_tree("main")
        put(tree, "a", os.urandom(50_000))
        real, index, collections = engine.objects.put_commit, engine.internals()[0], []

        def marked() -> bool:
            with index.read() as txn:
                return index.rows(txn, index.condemned) > 0

        def overtaken(commit: object) -> object:
            collections.append(pool.submit(gc, repository, AT_ONCE))
            while not marked() and not collections[0].done():
                time.sleep(0.001)
            return real(commit)

        engine.objects.put_commit = overtaken
        tree.commit("one")
        assert collections[0].result().deleted == 0
        assert len(read(tree, "a")) == 50_000
        assert verify(engine) == []


def test_damage_stops_gc_before_anything_is_deleted(repository):
    digest = dead_branch(repository)
    segment = next((repository / ".arborfs" / "segments").glob("*.log"))
    with Engine.open(repository) as engine:
        index = engine.internals()[0]
        root = engine.snapshot(engine.branches()["main"]).record.root.root
        with index.write() as txn:
            txn.delete(root, db=index.objects)
    size = segment.stat().st_size
    with pytest.raises(Corrupt):
        gc(repository, AT_ONCE)
    assert segment.stat().st_size == size
    rebuild(repository)
    assert gc(repository, AT_ONCE).commits == [digest]


def test_a_damaged_segment_is_left_as_it_is(repository):
    dead_branch(repository)
    segment = next((repository / ".arborfs" / "segments").glob("*.log"))
    data = bytearray(segment.read_bytes())
    with Engine.open(repository) as engine:
        chunk = engine.working_tree("main").open((b"kept",))[1].chunks[0].digest
        at = bytes(data).index(chunk) + 60
    data[at] ^= 1
    segment.write_bytes(data)
    done = gc(repository, AT_ONCE)
    assert [problem.where for problem in done.compaction.problems] == [segment.name]
    assert segment.read_bytes()[:1000] == bytes(data[:1000])


def test_live_records_of_all_sizes_between_dead_ones_are_moved(repository):
    """Neighbours and loners, a dead stretch shorter than what is read along and longer, more than is copied at once."""
    sizes = [5_000, 100_000, 6_000, 700_000, 5_000_000, 5_000, 5_000, 12_000_000, 70_000]
    kept = {}
    with Engine.open(repository) as engine:
        engine.create_branch("side")
        main, side = engine.working_tree("main"), engine.working_tree("side")
        for number, size in enumerate(sizes * 2):
            tree = side if number % 3 == 0 or size == 12_000_000 else main
            data = os.urandom(size)
            put(tree, str(number), data)
            if tree is main:
                kept[str(number)] = data
        main.commit("kept")
        side.commit("lost")
        engine.remove_branch("side", force=True)
    told: list[tuple[int, int]] = []
    done = gc(repository, AT_ONCE, on_progress=lambda *at: told.append(at))
    assert done.compaction.rewritten == 1 and not done.compaction.problems and done.freed > 24_000_000
    assert len(told) > 3 and told == sorted(told) and told[-1][0] == told[-1][1] == done.compaction.copied
    with Engine.open(repository) as engine:
        assert verify(engine) == []
        tree = engine.working_tree("main")
        assert {name: read(tree, name) for name in kept} == kept
    assert gc(repository, AT_ONCE).compaction.rewritten == 0


@pytest.mark.parametrize("wrong", ["two for one record", "into a record", "behind the end", "far behind it", "before"])
def test_a_segment_whose_rows_are_wrong_is_left_as_it_is(repository, wrong):
    dead_branch(repository)
    with Engine.open(repository) as engine:
        put(engine.working_tree("main"), "another", b"another" * 100_000)
        engine.working_tree("main").commit("another")
        index = engine.internals()[0]
        with index.write() as txn:
            rows = [row for row in index.scan(txn, index.objects, b"") if object_kind(row[1]) == RecordKind.CHUNK]
            rows = [row for row in rows if object_place(row[1])[0].length < 100_000]  # not of the branch that is gone
            (digest, row), (_, other) = rows[:2]
            place = object_place(row)[0]
            segment, offset, length = place.segment, place.offset, place.length
            places = {
                "two for one record": object_place(other)[0],
                "into a record": Place(segment, offset + 1, length - 1),
                "behind the end": Place(segment, offset + 3_500_000, 1000),
                "far behind it": Place(segment, (1 << 63) + 5, length),
                "before": Place(segment, 3, length),
            }
            txn.put(digest, object_row(places[wrong], length, RecordKind.CHUNK, 0, 0), db=index.objects)
    before = stored(repository)
    done = gc(repository, AT_ONCE)
    assert done.compaction.problems and not done.compaction.rewritten
    assert stored(repository) >= before


def test_files_the_index_does_not_know_are_deleted(repository):
    dead_branch(repository)
    gc(repository, AT_ONCE)
    folder = repository / ".arborfs" / "segments"
    log = next(folder.glob("*.log"))
    # The first process to open a repository deletes such files itself.
    with Engine.open(repository):
        shutil.copy(log, folder / "000000ff.log")
        shutil.copy(log, folder / "000000fe.journal")
        done = gc(repository, AT_ONCE)
    assert done.compaction.removed == 2
    assert list(folder.glob("000000f*")) == []


def test_leftover_journals_are_deleted(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "a", b"x")
        tree._p.committer.remove_settled_journals = lambda: None
        tree.commit("one")
    folder = repository / ".arborfs" / "segments"
    assert list(folder.glob("*.journal"))
    gc(repository)
    assert not list(folder.glob("*.journal"))
    assert SegmentKind.JOURNAL == 2
