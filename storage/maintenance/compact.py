"""Writing sparse segments anew, and deleting what nobody knows.

A log segment's live records are those that index rows lead to, and all changes of refs. They are copied into a new
segment; once that is synced one transaction leads the rows there; then the old file goes. Killed before the
transaction, the copy is a file that the index does not know: the next gc deletes it. Killed behind it, the old one is. A
rebuild in between finds records twice and takes one of each.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from storage.disk import files
from storage.disk.appending import Segment
from storage.disk.index import Txn, number_key
from storage.disk.locks import alone_if_there
from storage.disk.segments import FILE_SIZE, RECORD_SIZE, Found, Record, RecordKind, SegmentKind
from storage.errors import Corrupt, StorageFailed
from storage.model.records import Place
from storage.stores.log import FAILED
from storage.stores.objects import object_place, object_row
from storage.stores.recovery import HOLE
from storage.stores.refs import encode_place, operation_place
from storage.stores.replaying import Problem
from storage.stores.tails import COLLECTION, END, is_acknowledged, trusted_end
from storage.working import Parts

SPARSE = 0.2
"""The share of a segment's bytes that must be dead for its live ones to be copied."""
_BLOCK = 2 << 20  # bytes copied between two calls of `on_progress`; of 8 MiB the processor's cache keeps too little
_GAP = 1 << 16  # dead bytes that are read along, as another read would cost as much

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """A segment worth rewriting: its id, its size, and where its live records' payloads lie: rows of offset and length."""

    segment: int
    size: int
    places: np.ndarray

    @property
    def copied(self) -> int:
        """Bytes that its copy takes; none where nothing in it is alive."""
        return FILE_SIZE + int(self.places[:, 1].sum()) + RECORD_SIZE * len(self.places) if len(self.places) else 0

    def live(self) -> Iterator[Place]:
        """Where its live records' payloads lie, in order."""
        for offset, length in self.places[self.places[:, 0].argsort()]:
            yield Place(self.segment, int(offset), int(length))


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
        if done.copied:
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
        with alone_if_there(path) as free:
            return not free
    except FileNotFoundError:
        return False


def sparse_segments(parts: Parts, dying: Set[bytes], *, renewed: bool = False) -> Iterator[Sparse]:
    """The log segments worth rewriting if the objects `dying` had no rows, and, if `renewed`, there were a later note of gc."""
    index = parts.index
    live: defaultdict[int, array[int]] = defaultdict(partial(array, "Q"))  # 16 bytes an object
    with index.read() as txn:
        for place in _live_places(parts, txn, dying, renewed=renewed):
            live[place.segment].extend((place.offset, place.length))
        ends = [(int.from_bytes(key, "big"), END.unpack(row)[0]) for key, row in index.scan(txn, index.ends, b"")]
        failed = {segment for segment, _ in ends if txn.get(FAILED + number_key(segment), db=index.meta) is not None}
    for segment, end in ends:
        if segment in failed or not parts.segments.path(segment, SegmentKind.LOG).exists():
            continue
        found = Sparse(segment, end, np.array(live.pop(segment, ()), np.uint64).reshape(-1, 2))
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
    # One that is not free is being written; of what is so damaged that nobody can tell what was in it nothing is deleted.
    with suppress(FileNotFoundError, Corrupt), alone_if_there(path) as free:
        size = path.stat().st_size
        # An empty one is being made: its maker is about to take the lock.
        if free and size and not _is_known(parts, segment) and not is_acknowledged(parts.index, path, 0):
            files.remove(path)
            report.removed += 1
            report.freed += size


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
        self._buffer = bytearray(_BLOCK)

    def run(self) -> Iterator[int]:
        """Rewrite the segment, if nobody appends to it; yields the bytes copied so far."""
        self._parts.log.release(self._found.segment)
        old = Segment.adopt(self._path, partial(trusted_end, self._index, self._path, self._found.segment))
        if old is None:
            self._report.busy += 1
            return
        try:
            if old.end != self._found.size:
                self._report.busy += 1  # somebody did, just now
            elif self._found.copied:
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
        """Copy what is alive, batch by batch, while the kernel fetches the next one."""
        self._require_within(old.end)
        batches = chain(_batches(self._found.live()), ([],))
        for batch, following in pairwise(batches):
            for run in _runs(following):
                files.expect(old.fd, run[0].offset - RECORD_SIZE, run[-1].offset + run[-1].length)
            self._append(new, self._read(old, batch))
            yield new.end
        if len({record.place for record, _ in self._moved}) < len(self._found.places):
            raise Corrupt(f"several rows of the index lead to one record of {self._path.name}: it is left as it is")

    def _require_within(self, end: int) -> None:
        """Corrupt where a row leads out of the file: so much memory is set aside before anything is read."""
        offsets, lengths = self._found.places.T
        if offsets.min() < FILE_SIZE + RECORD_SIZE or offsets.max() > end or (lengths > end - offsets).any():
            raise Corrupt(f"a row of the index leads out of {self._path.name}: it is left as it is")

    def _read(self, old: Segment, batch: list[Place]) -> list[Found]:
        """The records at these places, checked; valid until the next call."""
        runs = [(run, run[0].offset - RECORD_SIZE, run[-1].offset + run[-1].length) for run in _runs(batch)]
        wanted = sum(stop - start for _, start, stop in runs)
        if wanted > len(self._buffer):
            self._buffer = bytearray(wanted)
        records = []
        free = memoryview(self._buffer)
        with self._index.read() as txn:
            for run, start, stop in runs:
                data, free = free[: stop - start], free[stop - start :]
                data = data[: self._fill(old, data, start)]
                records += [self._record(txn, old, data[place.offset - RECORD_SIZE - start :], place) for place in run]
        return records

    def _fill(self, old: Segment, data: memoryview, start: int) -> int:
        try:
            return files.read_into(old.fd, data, start)
        except StorageFailed as error:
            raise Corrupt(f"{self._path.name}: {error}: it is left as it is") from error

    def _record(self, txn: Txn, old: Segment, data: memoryview, place: Place) -> Found:
        """The record that `data` begins with. Corrupt unless it is whole, and the index leads to this very one."""
        record = old.record(data[:RECORD_SIZE], place)
        if record is not None:
            record.payload = data[RECORD_SIZE : RECORD_SIZE + place.length]
        if record is None or record.payload is None or not record.is_whole(record.payload):
            raise Corrupt(f"the record at byte {place.offset} of {self._path.name} is damaged: it stays there")
        if self._known_place(txn, record) != place:
            raise Corrupt(f"some of the records of {self._path.name} are damaged: it is left as it is")
        return record

    def _known_place(self, txn: Txn, record: Found) -> Place | None:
        """Where the index has this record."""
        index = self._index
        if record.kind < RecordKind.STAGE:
            row = txn.get(record.digest, db=index.objects)
            return None if row is None else object_place(row)[0]
        if record.kind == RecordKind.COLLECTION:
            row = txn.get(COLLECTION, db=index.meta)
        else:
            row = txn.get(number_key(record.sequence), db=index.operations)
        return None if row is None else operation_place(row)

    def _append(self, new: Segment, batch: list[Found]) -> None:
        records = []
        for record in batch:
            assert record.payload is not None
            kind, parts = RecordKind(record.kind), [record.payload]
            records.append(Record(kind, parts, record.raw_length, record.digest, record.sequence, record.codec))
        for record, (place, _) in zip(batch, new.append(records), strict=True):
            record.payload = None
            self._moved.append((record, place))

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


def _row(record: Found, place: Place) -> bytes:
    return object_row(place, record.raw_length, record.kind, record.codec, record.checksum)


def _batches(places: Iterable[Place]) -> Iterator[list[Place]]:
    """Places in order, some MiB together."""
    batch: list[Place] = []
    size = last = 0
    for place in places:
        end = place.offset + place.length
        taken = min(end - last, _GAP + RECORD_SIZE + place.length)
        if batch and size + taken > _BLOCK:
            yield batch
            batch, size = [], 0
        batch.append(place)
        size, last = size + taken, end
    if batch:
        yield batch


def _runs(places: list[Place]) -> Iterator[list[Place]]:
    """Places that lie close enough together to be read at once."""
    first = 0
    for at, (before, after) in enumerate(pairwise(places), 1):
        if after.offset - RECORD_SIZE - (before.offset + before.length) > _GAP:
            yield places[first:at]
            first = at
    if places:
        yield places[first:]
