"""Verify: the index is held against the segments, row by row; progress counts bytes; writers go on meanwhile."""

import errno
import os
import threading

import pytest

from storage.disk.segments import SegmentKind
from storage.engine import Engine
from storage.maintenance import verify as verify_module
from storage.maintenance.gc import Policy, gc
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource
from storage.stores.objects import object_kind, object_place
from storage.stores.staging import ROW


@pytest.fixture
def filled(repository):
    """A repository with commits, a tag, a second branch, and staged work of all kinds; opened."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for number in range(40):
            tree.put_file((b"%d" % number,), BytesSource(os.urandom(300 * number)))
        tree.put_file((b"large",), BytesSource(os.urandom(3_000_000)))
        tip = tree.commit("one")
        engine.create_tag("v1", tip)
        engine.create_branch("other")
        tree.make_directory((b"d",))
        for number in range(10):
            tree.put_file((b"d", b"%d" % number), BytesSource(os.urandom(900 * number)))
        tree.remove((b"3",))
        tree.put_file((b"long",), BytesSource(os.urandom(200_000)))
        engine.working_tree("other").put_file((b"elsewhere",), BytesSource(b"x" * 70))
        assert verify(engine) == []
        yield engine


def swapped(engine, table):
    """Exchange the values of two rows of a table that differ in their beginnings: a directory's time may be lost."""
    index = engine.internals()[0]
    chosen = getattr(index, table)
    with index.write() as txn:
        rows = list(index.scan(txn, chosen, b""))
        pairs = ((left, right) for left in rows for right in rows if left[1][:32] != right[1][:32])
        (one, a), (other, b) = next(pairs)
        txn.put(one, b, db=chosen)
        txn.put(other, a, db=chosen)


@pytest.mark.parametrize("table", ["objects", "staged", "directories", "refs", "operations"])
def test_rows_that_changed_places_are_found_and_a_rebuild_heals_them(filled, table):
    swapped(filled, table)
    problems = verify(filled)
    assert problems
    assert all("rebuild" in problem.advice for problem in problems), problems
    filled.close()
    assert rebuild(filled.path).problems == []
    with Engine.open(filled.path) as engine:
        assert verify(engine) == []


def test_a_commit_whose_row_leads_to_another_object_is_healed_by_a_rebuild(filled):
    index = filled.internals()[0]
    tip = filled.branches()["main"]
    with index.write() as txn:
        other, row = next((key, row) for key, row in index.scan(txn, index.objects, b"") if key != tip)
        txn.put(other, txn.get(tip, db=index.objects), db=index.objects)
        txn.put(tip, row, db=index.objects)
    problems = verify(filled)
    assert any("branch main names commit" in problem.what for problem in problems), problems
    assert all("rebuild" in problem.advice for problem in problems), problems


@pytest.mark.parametrize("table", ["objects", "staged", "directories", "refs", "operations", "commits", "journals"])
def test_a_row_that_is_gone_or_changed_is_found(filled, table):
    index = filled.internals()[0]
    chosen = getattr(index, table)
    with index.read() as txn:
        rows = list(index.scan(txn, chosen, b""))
    for key, value in (rows[0], rows[len(rows) // 2], rows[-1]):
        with index.write() as txn:
            txn.delete(key, db=chosen)
        assert verify(filled), f"{table}: {key!r} is gone"
        for at in range(0, len(value), 5):
            if table == "directories" and at >= 32:
                continue  # its time, which a rebuild may not know
            with index.write() as txn:
                txn.put(key, value[:at] + bytes([value[at] ^ 4]) + value[at + 1 :], db=chosen)
            found = verify(filled)
            assert found or (table == "objects" and at >= 26), f"{table}: {key!r} changed at {at}"
        with index.write() as txn:
            txn.put(key, value, db=chosen)
    assert verify(filled) == []


def test_a_staged_row_with_an_older_number_is_found(filled):
    index = filled.internals()[0]
    with index.write() as txn:
        key, value = next(iter(index.scan(txn, index.staged, b"")))
        sequence, *rest = ROW.unpack_from(value)
        txn.put(key, ROW.pack(sequence - 1, *rest) + value[ROW.size :], db=index.staged)
    assert [problem.where for problem in verify(filled)] == ["the index"]


def test_progress_counts_the_bytes_of_all_segments(filled):
    said = []
    assert verify(filled, lambda done, total: said.append((done, total)), threads=3) == []
    size = sum(path.stat().st_size for path in filled.internals()[1].paths().values())
    assert said[-1] == (size, size)
    assert [done for done, _ in said] == sorted(done for done, _ in said)


@pytest.mark.parametrize("threads", [1, 3])
def test_damage_that_goes_over_several_stretches_is_found_and_known_after_a_rebuild(repository, threads):
    """A stretch is what one thread reads at once: some MiB."""
    with Engine.open(repository) as engine:
        engine.working_tree("main").put_file((b"large",), BytesSource(os.urandom(20_000_000)))
        engine.working_tree("main").commit("one")
        assert verify(engine, threads=threads) == []
        index, segments, _, _ = engine.internals()
        with index.read() as txn:
            rows = [object_place(row)[0] for _, row in index.scan(txn, index.objects, b"") if object_kind(row) == 1]
        assert len(rows) > 10
        for place in rows:
            with segments.path(place.segment, SegmentKind.LOG).open("r+b") as file:
                file.seek(place.offset + place.length - 1)
                last = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([last[0] ^ 1]))
        damaged = [problem.digest for problem in verify(engine, threads=threads) if "have changed" in problem.what]
        assert len(set(damaged)) == len(rows)
    rebuild(repository)
    with Engine.open(repository) as engine:
        problems = verify(engine, threads=threads)
        assert problems and not any("no valid records" in problem.what for problem in problems), problems


def test_a_segment_that_cannot_be_read_is_reported(filled, monkeypatch):
    """As the disk answers for a bad sector: nobody has one at hand."""
    real = os.preadv

    def refuse(fd, buffers, offset, *flags):
        if sum(map(len, buffers)) > 2_000_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers, offset, *flags)

    monkeypatch.setattr(os, "preadv", refuse)
    assert any(os.strerror(errno.EIO) in problem.what for problem in verify(filled))


def test_rebuild_tells_its_progress(filled):
    filled.close()
    said = []
    rebuild(filled.path, lambda done, total: said.append((done, total)))
    assert said[0][0] == 0 and all(done <= total for done, total in said)


def test_writers_and_commits_meanwhile_are_no_problem(filled):
    """Journals are settled and deleted, rows come and go, while verify is at it."""
    done = threading.Event()

    def work() -> None:
        number = 0
        with Engine.open(filled.path) as engine:
            tree = engine.working_tree("other")
            while not done.is_set():
                number += 1
                tree.put_file((b"%d" % (number % 7),), BytesSource(os.urandom(5000 * (number % 20))))
                if number % 5 == 0:
                    tree.commit("more")

    writer = threading.Thread(target=work)
    writer.start()
    try:
        for _ in range(25):
            assert verify(filled) == []
    finally:
        done.set()
        writer.join()


def test_gc_waits_for_verify(filled, monkeypatch):
    """Its segments must not go under it."""
    real = verify_module.inspect
    waits = []

    def slow(*arguments):
        waits.append(gc_refused(filled.path))
        return real(*arguments)

    monkeypatch.setattr(verify_module, "inspect", slow)
    assert verify(filled) == []
    assert waits and all(waits)


def gc_refused(path) -> bool:
    try:
        gc(path, Policy(keep=0, grace=0))
    except RuntimeError:
        return True
    return False


def test_after_gc_and_a_pin_all_is_well(filled):
    filled.create_branch("short")
    filled.working_tree("short").put_file((b"f",), BytesSource(os.urandom(500_000)))
    digest = filled.working_tree("short").commit("short")
    filled.remove_branch("short", force=True)
    snapshot = filled.snapshot(digest)
    assert gc(filled.path, Policy(keep=0, grace=0)).commits == []
    assert verify(filled) == []
    del snapshot
    filled.changes(0)
    assert gc(filled.path, Policy(keep=0, grace=0)).commits == [digest]
    assert verify(filled) == []
