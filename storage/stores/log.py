"""This process's place in the log: the segments it appends to, and the transactions that acknowledge what it appended.

Write order: the record goes into the segment first, then its index row and the segment's new end in one LMDB
transaction. Bytes behind that end were never acknowledged. Thread-safe.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from storage.disk import files
from storage.disk.appending import Segment
from storage.disk.index import Index, Txn, number_key
from storage.disk.segments import Record, SegmentKind, Segments
from storage.errors import Closed, Corrupt, StorageFailed, StorageFull
from storage.model.records import Place
from storage.stores.tails import END, trusted_end

FAILED = b"failed/"
"""Before a segment's id, in the table `meta`: it could not be synced, and must not be promised again."""


class Log:
    """Appends records to this process's own segments."""

    def __init__(self, index: Index, segments: Segments) -> None:
        self._index = index
        self._segments = segments
        self._lock = threading.RLock()
        self._open: dict[SegmentKind, Segment] = {}
        self._failed: set[int] = set()
        self._pid = os.getpid()
        self.on_change: Callable[[], None] = lambda: None

    def change(self, kind: SegmentKind) -> Appending:
        """One write transaction, as the target of a `with` statement; what is appended inside is acknowledged with it, or taken
        back if it fails.
        """
        return Appending(self, kind)

    def append(self, txn: Txn, kind: SegmentKind, record: Record) -> Place:
        """Append a record inside `change(kind)`, and acknowledge it with that; where its payload lies."""
        segment = self._open[kind]
        place = segment.append([record])[0][0]
        self._acknowledge(txn, segment)
        return place

    @contextmanager
    def objects(self, records: Sequence[Record]) -> Iterator[tuple[Txn, list[tuple[Place, int]]]]:
        """Append objects before the transaction begins, so that the write lock is not held while bytes are written."""
        with self._lock:
            segment = self._own(SegmentKind.LOG)
            end = segment.end
            try:
                placed = segment.append(records)
                with self._index.write() as txn:
                    yield txn, placed
                    self._acknowledge(txn, segment)
            except BaseException:
                self._take_back(segment, end)
                raise
            self.on_change()

    def sync(self) -> None:
        """Make everything acknowledged so far, by any process, survive power loss.

        A file whose sync failed once is never reported as safe again, by no process: the kernel may have dropped its dirty
        pages. It is written anew when the repository is next opened by a process that is alone (`renew_failed`).
        """
        with self._index.read() as txn:
            waiting = [(key, *END.unpack(value)) for key, value in self._index.scan(txn, self._index.ends, b"")]
            waiting = [(key, end, synced) for key, end, synced in waiting if synced < end]
            for key, _, _ in waiting:
                self._refuse_failed(txn, key)
        try:
            for key, _, _ in waiting:
                self._sync_segment(int.from_bytes(key, "big"))
        except (StorageFailed, StorageFull):
            self._tell_others()
            raise
        if waiting:
            with self._index.write() as txn:
                for key, end, _ in waiting:
                    self._mark_synced(txn, key, end)

    def sync_own(self, txn: Txn, kind: SegmentKind) -> None:
        """Make what this transaction appended survive power loss, before the transaction is committed."""
        segment = self._open[kind]
        self._refuse_failed(txn, number_key(segment.id))
        self._sync_segment(segment.id)
        txn.put(number_key(segment.id), END.pack(segment.end, segment.end), db=self._index.ends)

    def _mark_synced(self, txn: Txn, key: bytes, end: int) -> None:
        row = txn.get(key, db=self._index.ends)
        if row is not None:
            now, synced = END.unpack(row)
            txn.put(key, END.pack(now, max(synced, end)), db=self._index.ends)

    def _refuse_failed(self, txn: Txn, key: bytes) -> None:
        segment = int.from_bytes(key, "big")
        if segment in self._failed or txn.get(FAILED + key, db=self._index.meta) is not None:
            raise StorageFailed(
                f"segment {segment:08x} could not be synced before, and its last writes may be lost: see to the disk, "
                "then close or unmount the repository everywhere; opening it again writes the segment anew"
            )

    def _tell_others(self) -> None:
        """Note what could not be synced, so that no process promises it."""
        if self._failed:
            with suppress(StorageFull), self._index.write() as txn:
                for segment in self._failed:
                    txn.put(FAILED + number_key(segment), b"", db=self._index.meta)

    def _sync_segment(self, segment: int) -> None:
        path = self._segments.paths_of(segment)
        if path is None:
            return  # a journal whose rows have all been committed
        try:
            fd = files.open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            files.sync(fd)
        except (StorageFailed, StorageFull):
            self._failed.add(segment)
            raise
        finally:
            os.close(fd)

    def _own(self, kind: SegmentKind) -> Segment:
        """The segment to append to."""
        self._forked()
        segment = self._open.get(kind)
        if segment is not None and not segment.full:
            return segment
        if segment is not None:
            self._open.pop(kind).close()
        segment = self._adopt(kind) or self.create(kind)
        self._open[kind] = segment
        return segment

    def _adopt(self, kind: SegmentKind) -> Segment | None:
        with self._index.read() as txn:
            ends = [(key, END.unpack(value)[0]) for key, value in self._index.scan(txn, self._index.ends, b"")]
        for key, _ in ends:
            segment = int.from_bytes(key, "big")
            path = self._segments.path(segment, kind)
            adopted = Segment.adopt(path, partial(trusted_end, self._index, path, segment))
            if adopted is None:
                continue
            if not adopted.full:
                return adopted
            adopted.close()
        return None

    def create(self, kind: SegmentKind) -> Segment:
        """A new segment that only the caller appends to; nobody knows it until its end stands in the index."""
        # Ids are never used twice: readers may still hold a deleted journal open under its id.
        with self._index.write() as txn:
            number = 1 + max(self._index.number(txn, b"segment"), *self._segments.paths(), 0)
            self._index.set_number(txn, b"segment", number)
        return Segment.create(self._segments.path(number, kind), kind, number)

    def _acknowledge(self, txn: Txn, segment: Segment) -> None:
        key, ends = number_key(segment.id), self._index.ends
        row = txn.get(key, db=ends)
        synced = END.unpack(row)[1] if row else 0
        txn.put(key, END.pack(segment.end, synced), db=ends)

    def _take_back(self, segment: Segment, end: int) -> None:
        try:
            # Ctrl-C may come when the transaction has been made: what is acknowledged stays.
            with self._index.read() as txn:
                row = txn.get(number_key(segment.id), db=self._index.ends)
            segment.take_back(max(end, END.unpack(row)[0]) if row else end)
        except (StorageFailed, StorageFull, Corrupt, Closed):
            # Nothing may ever be written behind it: whoever adopts the segment cuts it off first.
            self._open.pop(segment.kind).close()

    def release(self, segment: int) -> bool:
        """Close the segment if this process appends to it; whether it did."""
        with self._lock:
            for kind, own in list(self._open.items()):
                if own.id == segment:
                    self._open.pop(kind).close()
                    return True
        return False

    def _forked(self) -> None:
        if self._pid != os.getpid():
            # The parent's segments are not ours: their ends move without us.
            for segment in self._open.values():
                segment.close()
            self._open.clear()
            self._pid = os.getpid()

    def close(self) -> None:
        """Let go of the segments."""
        with self._lock:
            if self._pid == os.getpid():
                for segment in self._open.values():
                    segment.close()
            self._open.clear()


class Appending:
    """A change of the log for a `with` block. A class: a generator would take as long as the change's own look-ups."""

    __slots__ = ("_end", "_kind", "_log", "_segment", "_writing")

    def __init__(self, log: Log, kind: SegmentKind) -> None:
        self._log = log
        self._kind = kind

    def __enter__(self) -> Txn:
        """Wait until nobody else changes anything."""
        log = self._log
        log._lock.acquire()
        try:
            self._segment = log._own(self._kind)
            self._end = self._segment.end
            self._writing = log._index.write()
            return self._writing.__enter__()
        except BaseException:
            log._lock.release()
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Acknowledge what was appended, or take it back."""
        log = self._log
        try:
            try:
                self._writing.__exit__(kind, error, traceback)
            except BaseException:
                self._undo()
                raise
            if error is None:
                log.on_change()
            else:
                self._undo()
        finally:
            log._lock.release()

    def _undo(self) -> None:
        self._log._take_back(self._segment, self._end)
        self._log._tell_others()


def failed_segments(index: Index) -> list[int]:
    """The segments that could not be synced."""
    with index.read() as txn:
        return [int.from_bytes(key[len(FAILED) :], "big") for key, _ in index.scan(txn, index.meta, FAILED)]


def renew_failed(index: Index, segments: Segments) -> None:
    """Write segments that could not be synced anew, from what the kernel still has of them. The caller is alone.

    Where that fails too they stay marked: they can be read, and nothing is promised.
    """
    for segment in failed_segments(index):
        path = segments.paths_of(segment)
        try:
            if path is not None:
                files.replace(path, path.read_bytes())
        except (StorageFailed, StorageFull, OSError):
            continue
        with index.write() as txn:
            txn.delete(FAILED + number_key(segment), db=index.meta)
