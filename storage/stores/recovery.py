"""Making the index again from the segments: objects where they lie, then every change replayed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from storage.disk import files
from storage.disk.index import GENERATION, Index, Txn, number_key
from storage.disk.segments import (
    FILE_SIZE,
    RECORD_SIZE,
    Found,
    RecordKind,
    Segments,
    is_unused,
    parse_file_header,
    scan,
)
from storage.errors import Corrupt
from storage.model.chunking import Codec, unpack
from storage.model.deltas import Delta
from storage.model.digest import Digest, hexed
from storage.model.records import decode_commit
from storage.stores.objects import index_object, object_row
from storage.stores.replaying import Change, Commits, Problem, place_text, replay
from storage.stores.tails import END

BATCH = 20_000
LAST_SEQUENCE = 1 << 63
HOLE = b"hole/"
"""Before a segment's id and an offset, in the table `meta`: from there on so many bytes are no valid records."""
Progress = Callable[[int, int], None]
"""Is told the bytes read so far, and how many there are."""
_DeltaRow = tuple[Digest, bytes, tuple[Digest, ...]]
"""A chunk that is stored as a delta: its digest, its row of the table `objects`, the chunks that it stands on."""


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild found: records read, commits among them, staging changes replayed, and damage."""

    records: int = 0
    commits: int = 0
    staged: int = 0
    problems: list[Problem] = field(default_factory=list)


def rebuild_index(home: Path, on_progress: Progress | None = None) -> RebuildReport:
    """Make the index of the repository in `home` again, and put it in the old one's place in one step.

    The caller has the repository to itself. Nothing but the index is written: a rebuild cut short is simply run again.
    """
    report = RebuildReport()
    fresh = home / "index.new"
    files.remove_tree(fresh)
    files.make_directory(fresh)
    segments = Segments(home / "segments")
    index = Index(fresh)
    try:
        _fill(index, segments, report, on_progress)
        index.sync()
    finally:
        index.close()
        segments.close()
    files.swap_directory(fresh, home / "index")
    return report


def _fill(index: Index, segments: Segments, report: RebuildReport, on_progress: Progress | None) -> None:
    changes: list[Change] = []
    commits = Commits()
    deltas: list[_DeltaRow] = []
    paths = sorted(segments.paths().items())
    sizes = [path.stat().st_size for _, path in paths]
    for number, (segment, path) in enumerate(paths):
        if on_progress is not None:
            on_progress(sum(sizes[:number]), sum(sizes))
        if is_unused(path):
            files.remove(path)
            continue
        try:
            _index_segment(index, segment, path, changes, commits, deltas, report)
        except Corrupt as error:
            report.problems.append(Problem(str(error), "", path.name, "restore the file from a copy"))
    _index_deltas(index, deltas)
    last_directory = replay(
        index, segments, changes, commits, lambda txn, digest: txn.get(digest, db=index.objects), report.problems
    )
    with index.write() as txn:
        index.set_number(txn, b"sequence", max((change.sequence for change in changes), default=0))
        index.set_number(txn, b"directory", last_directory)
        index.set_number(txn, b"segment", max((segment for segment, _ in paths), default=0))
        index.set_number(txn, GENERATION, 1)
        for digest, commit in commits.counting(index, txn):
            txn.put(digest, number_key(commit.time), db=index.commits)
            report.commits += 1
    report.staged = sum(change.kind == RecordKind.STAGE for change in changes)


def _index_deltas(index: Index, deltas: list[_DeltaRow]) -> None:
    """Enter chunks that stand on others, those first whose others are there.

    Where there are several copies of a chunk, of which gc has given up some, so no two come to stand on each other.
    """
    todo = deltas
    while todo:
        left = []
        with index.write() as txn:
            for digest, row, bases in todo:
                if all(txn.get(base, db=index.objects) is not None for base in bases):
                    txn.put(digest, row, overwrite=False, db=index.objects)
                else:
                    left.append((digest, row, bases))
            if len(left) == len(todo):
                for digest, row, _ in left:  # a base is lost: whoever reads them is told
                    txn.put(digest, row, overwrite=False, db=index.objects)
                left = []
        todo = left


def _index_segment(
    index: Index,
    segment: int,
    path: Path,
    changes: list[Change],
    commits: Commits,
    deltas: list[_DeltaRow],
    report: RebuildReport,
) -> None:
    end = FILE_SIZE
    found = _records(path)
    done = False
    while not done:
        done = True
        with index.write() as txn:
            for number, record in enumerate(found, 1):
                report.records += 1
                if record.payload is None:
                    report.problems.append(_damaged(record))
                else:
                    start = record.place.offset - RECORD_SIZE
                    if start > end:
                        txn.put(hole_key(segment, end), number_key(start - end), db=index.meta)
                    end = record.place.offset + record.place.length
                    try:
                        _index_record(index, txn, record, changes, commits, deltas)
                    except Corrupt as error:
                        report.problems.append(_unreadable(record, error))
                if number == BATCH:
                    done = False
                    break
            if done:
                # What stands behind the last record may be damage: it is kept, and written on behind it.
                size = path.stat().st_size
                if size > end:
                    txn.put(hole_key(segment, end), number_key(size - end), db=index.meta)
                    end = size
            txn.put(number_key(segment), END.pack(end, 0), db=index.ends)


def hole_key(segment: int, offset: int) -> bytes:
    """The key of a hole that a rebuild met: what a power loss took, or damage, which the rebuild reported."""
    return HOLE + number_key(segment) + number_key(offset)


def _records(path: Path) -> Iterator[Found]:
    with os.fdopen(files.open_file(path, os.O_RDONLY), "rb") as file:
        parse_file_header(file.read(FILE_SIZE), path)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            for record in scan(data, path):
                yield record
                if record.payload is not None:
                    record.payload.release()


def _index_record(
    index: Index, txn: Txn, record: Found, changes: list[Change], commits: Commits, deltas: list[_DeltaRow]
) -> None:
    if record.kind >= RecordKind.STAGE:
        if record.sequence > LAST_SEQUENCE:
            raise Corrupt(f"its sequence number {record.sequence} is above all that are ever given")
        changes.append(Change(record.sequence, record.kind, record.place))
        return
    assert record.payload is not None
    if record.codec == Codec.DELTA:
        row = object_row(record.place, record.raw_length, record.kind, record.codec, record.checksum)
        deltas.append((record.digest, row, Delta.decode(record.payload).bases))
        return
    index_object(index, txn, record.kind, record.codec, record.raw_length, record.digest, record.place, record.checksum)
    if record.kind == RecordKind.COMMIT:
        data = bytes(unpack(record.codec, bytes(record.payload), record.raw_length))
        commits.found[record.digest] = decode_commit(data)


def _damaged(record: Found) -> Problem:
    what = "a record's bytes have changed or were never written whole"
    return Problem(what, _digest_of(record), place_text(record.place), "restore it from a copy")


def _unreadable(record: Found, error: Corrupt) -> Problem:
    return Problem(f"a record cannot be read: {error}", _digest_of(record), place_text(record.place), "report it")


def _digest_of(record: Found) -> str:
    return hexed(record.digest) if record.kind < RecordKind.STAGE else ""
