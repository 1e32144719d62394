"""Writing sparse segments anew, and deleting what nobody knows.

A log segment's live records are those that index rows lead to, and all changes of refs. They are copied into a new
segment; once that is synced one transaction leads the rows there; then the old file goes. Killed before the
transaction, the copy is a file that the index does not know: the next gc deletes it. Killed behind it, the old one is. A
rebuild in between finds records twice and takes one of each.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from storage.disk import files
from storage.disk.index import Txn, number_key
from storage.disk.segments import FILE_SIZE, RECORD_SIZE, Found, Record, RecordKind, Segment, SegmentKind, scan
from storage.errors import Corrupt
from storage.model.records import Place
from storage.stores.log import END, FAILED
from storage.stores.objects import object_place, object_row
from storage.stores.recovery import HOLE, Problem
from storage.stores.refs import COLLECTION, encode_place, operation_place
from storage.working import Parts

SPARSE = 0.2
"""The share of a segment's bytes that must be dead for its live ones to be copied."""
_BLOCK = 8 << 20  # bytes copied between two calls of `on_progress`

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Sparse:
    """A segment worth rewriting: its id, its size, how many of its records are alive, and their bytes."""

    segment: int
    size: int
    records: int
    live: int

    @property
    def copied(self) -> int:
        """Bytes that its copy takes; none where nothing in it is alive."""
        return self.live + FILE_SIZE if self.live else 0


@dataclass(slots=True)
class Compaction:
    """Segments rewritten, segments deleted whole, those that somebody appends to and the damaged ones; bytes freed, copied."""

    rewritten: int = 0
    removed: int = 0
    busy: int = 0
    freed: int = 0
    copied: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, done: Sparse) -> None:
        """Count a segment."""
        if done.live:
            self.rewritten += 1
        else:
            self.removed += 1
        self.copied += done.copied
        self.freed += done.size - done.copied


def compact(parts: Parts, on_progress: Progress | None = None) -> Compaction:
    """Rewrite sparse log segments and delete dead and unknown files. Only one process at a time may do this.

    Segments that another process appends to are left for the next time, as are damaged ones, which are reported.
    """
    report = Compaction()
    for segment, path in parts.segments.paths().items():
        _remove_unknown(parts, segment, path, report)
    # On a full disk the dead ones must go before there is room for a copy.
    todo = sorted(sparse_segments(parts, frozenset()), key=lambda found: found.copied)
    total = sum(found.copied for found in todo)
    for found in todo:
        rewriting = _Rewriting(parts, found, report)
        for done in rewriting.run():
            if on_progress is not None:
                on_progress(report.copied + done, total)
    return report


def preview(parts: Parts, dying: Set[bytes], report: Compaction, *, renewed: bool) -> None:
    """What `compact` would do if the objects `dying` had no rows, and, if `renewed`, there were a later note of gc."""
    for segment, path in parts.segments.paths().items():
        if not _is_known(parts, segment) and path.stat().st_size and not _is_busy(path):
            report.removed += 1
            report.freed += path.stat().st_size
    for found in sparse_segments(parts, dying, renewed=renewed):
        parts.log.release(found.segment)
        if _is_busy(parts.segments.path(found.segment, SegmentKind.LOG)):
            report.busy += 1
        else:
            report.add(found)


def _is_busy(path: Path) -> bool:
    """Whether somebody appends to a segment."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def sparse_segments(parts: Parts, dying: Set[bytes], *, renewed: bool = False) -> Iterator[Sparse]:
    """The log segments worth rewriting if the objects `dying` had no rows, and, if `renewed`, there were a later note of gc."""
    index = parts.index
    live: Counter[int] = Counter()
    records: Counter[int] = Counter()
    with index.read() as txn:
        for place in _live_places(parts, txn, dying, renewed=renewed):
            live[place.segment] += place.length + RECORD_SIZE
            records[place.segment] += 1
        ends = [(int.from_bytes(key, "big"), END.unpack(row)[0]) for key, row in index.scan(txn, index.ends, b"")]
        failed = {segment for segment, _ in ends if txn.get(FAILED + number_key(segment), db=index.meta) is not None}
    for segment, end in ends:
        if segment in failed or not parts.segments.path(segment, SegmentKind.LOG).exists():
            continue
        found = Sparse(segment, end, records[segment], live[segment])
        if found.size - found.copied >= max(SPARSE * found.size, 1):
            yield found


def _live_places(parts: Parts, txn: Txn, dying: Set[bytes], *, renewed: bool) -> Iterator[Place]:
    """Where every record lies that the index leads to, but for the objects `dying`, and the note of gc if it is `renewed`."""
    index = parts.index
    for key, row in index.scan(txn, index.objects, b""):
        if key not in dying:
            yield object_place(row)[0]
    for _, value in index.scan(txn, index.operations, b""):
        yield operation_place(value)
    note = txn.get(COLLECTION, db=index.meta)
    if note is not None and not renewed:
        yield operation_place(note)


def _remove_unknown(parts: Parts, segment: int, path: Path, report: Compaction) -> None:
    """Delete a segment file that the index does not know: a rewriting or a commit was killed just before it was done."""
    if _is_known(parts, segment):
        return
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(fd).st_size
        # An empty one is being made: its maker is about to take the lock.
        if size and not _is_known(parts, segment):
            files.remove(path)
            report.removed += 1
            report.freed += size
    except BlockingIOError:
        return
    finally:
        os.close(fd)


def _is_known(parts: Parts, segment: int) -> bool:
    with parts.index.read() as txn:
        return txn.get(number_key(segment), db=parts.index.ends) is not None


class _Rewriting:
    def __init__(self, parts: Parts, found: Sparse, report: Compaction) -> None:
        self._parts = parts
        self._index = parts.index
        self._found = found
        self._report = report
        self._path = parts.segments.path(found.segment, SegmentKind.LOG)
        self._moved: list[tuple[Found, Place]] = []

    def run(self) -> Iterator[int]:
        """Rewrite the segment, if nobody appends to it; yields the bytes copied so far."""
        self._parts.log.release(self._found.segment)
        old = Segment.adopt(self._path, self._end)
        if old is None:
            self._report.busy += 1
            return
        try:
            if old.end != self._found.size:
                self._report.busy += 1  # somebody did, just now
            elif self._found.records:
                yield from self._replace(old)
            else:
                self._swap(None)
        except Corrupt as error:
            advice = "run `arborfs verify`, then restore the file from a copy"
            self._report.problems.append(Problem(str(error), "", self._path.name, advice))
        finally:
            old.close()

    def _replace(self, old: Segment) -> Iterator[int]:
        new = self._parts.log.create(SegmentKind.LOG)
        done = False
        try:
            yield from self._copy(old, new)
            new.sync()
            self._swap(new)
            done = True
        finally:
            new.close()
            if not done:
                files.remove(new.path)

    def _copy(self, old: Segment, new: Segment) -> Iterator[int]:
        batch: list[Found] = []
        size = 0
        with mmap.mmap(old.fd, old.end, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            try:
                for record in scan(data, self._path):
                    if self._is_live(record):
                        batch.append(record)
                        size += record.place.length
                    elif record.payload is not None:
                        record.payload.release()
                    if size >= _BLOCK:
                        self._append(new, batch)
                        yield new.end
                        size = 0
                self._append(new, batch)
            finally:
                for record in batch:
                    _release(record)
        if len(self._moved) < self._found.records:
            raise Corrupt(f"some of the records of {self._path.name} are damaged: it is left as it is")

    def _is_live(self, record: Found) -> bool:
        """Whether the index leads to this very record."""
        index = self._index
        with index.read() as txn:
            if record.kind == RecordKind.COLLECTION:
                row = txn.get(COLLECTION, db=index.meta)
            elif record.kind >= RecordKind.STAGE:
                row = txn.get(number_key(record.sequence), db=index.operations)
            else:
                row = txn.get(record.digest, db=index.objects)
                return row is not None and object_place(row)[0] == record.place and self._is_whole(record)
        return row is not None and operation_place(row) == record.place and self._is_whole(record)

    def _is_whole(self, record: Found) -> bool:
        if record.payload is None:
            raise Corrupt(f"the record at byte {record.place.offset} of {self._path.name} is damaged: it stays there")
        return True

    def _append(self, new: Segment, batch: list[Found]) -> None:
        """Append the batch to `new`, and empty it."""
        records = []
        for record in batch:
            assert record.payload is not None
            kind, parts = RecordKind(record.kind), [record.payload]
            records.append(Record(kind, parts, record.raw_length, record.digest, record.sequence, record.codec))
        placed = new.append(records) if records else []
        for record, (place, _) in zip(batch, placed, strict=True):
            _release(record)
            self._moved.append((record, place))
        batch.clear()

    def _swap(self, new: Segment | None) -> None:
        """Lead the rows to the copy, then delete the file."""
        with self._index.write() as txn:
            for record, place in self._moved:
                self._lead(txn, record, place)
            self._forget(txn, self._found.segment)
            if new is not None:
                txn.put(number_key(new.id), END.pack(new.end, new.end), db=self._index.ends)
        self._report.add(self._found)
        files.remove(self._path)

    def _lead(self, txn: Txn, record: Found, place: Place) -> None:
        index = self._index
        if record.kind == RecordKind.COLLECTION:
            table, key, old, new = index.meta, COLLECTION, encode_place(record.place), encode_place(place)
        elif record.kind >= RecordKind.STAGE:
            table, key = index.operations, number_key(record.sequence)
            old, new = encode_place(record.place), encode_place(place)
        else:
            table, key, old, new = index.objects, record.digest, _row(record, record.place), _row(record, place)
        if txn.get(key, db=table) == old:  # else it was stored anew meanwhile
            txn.put(key, new, db=table)

    def _forget(self, txn: Txn, segment: int) -> None:
        txn.delete(number_key(segment), db=self._index.ends)
        for key, _ in list(self._index.scan(txn, self._index.meta, HOLE + number_key(segment))):
            txn.delete(key, db=self._index.meta)

    def _end(self) -> int | None:
        with self._index.read() as txn:
            row = txn.get(number_key(self._found.segment), db=self._index.ends)
        return None if row is None else END.unpack(row)[0]


def _row(record: Found, place: Place) -> bytes:
    return object_row(place, record.raw_length, record.kind, record.codec, record.checksum)


def _release(record: Found) -> None:
    if record.payload is not None:
        record.payload.release()
