"""Making the index again from the segments: objects where they lie, then every change in order of sequence."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from storage.disk import files
from storage.disk.index import GENERATION, HORIZON, Index, Txn, number_key
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
from storage.model.chunking import Codec, decode_chunks, unpack
from storage.model.deltas import Delta
from storage.model.digest import Digest, hexed
from storage.model.records import (
    CHUNKED,
    INDIRECT,
    Commit,
    Kind,
    Place,
    RefsRecord,
    StageRecord,
    decode_commit,
    decode_refs_record,
    decode_stage_record,
)
from storage.stores.objects import index_object, object_place, object_row
from storage.stores.refs import BRANCH, BranchRef, apply_collection, apply_refs, commits_of
from storage.stores.staging import STAGED_ID, LeafRow, Staging, apply_stage, drop_directory
from storage.stores.tails import END
from storage.tree.node import BadNode, Leaf, decode

BATCH = 20_000
LAST_SEQUENCE = 1 << 63
HOLE = b"hole/"
"""Before a segment's id and an offset, in the table `meta`: from there on so many bytes are no valid records."""
_LENGTH_SIZE = 4
RowOf = Callable[[Txn, bytes], bytes | None]
"""Finds an object's row of the table `objects`."""
Progress = Callable[[int, int], None]
"""Is told the bytes read so far, and how many there are."""


_DeltaRow = tuple[Digest, bytes, tuple[Digest, ...]]
"""A chunk that is stored as a delta: its digest, its row of the table `objects`, the chunks that it stands on."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a repository: what, the digest it concerns, where it lies, and what to do."""

    what: str
    digest: str
    where: str
    advice: str


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild found: records read, commits among them, staging changes replayed, and damage."""

    records: int = 0
    commits: int = 0
    staged: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class Commits:
    """The commit records that were found, and those that operations name: only those, and what they came from, count.

    A commit whose operation never was is one that nobody was told of, and after a power loss its tree may have holes.
    """

    found: dict[Digest, Commit] = field(default_factory=dict)
    named: dict[Digest, int] = field(default_factory=dict)
    """Commits, and the last operation that names each."""

    def name(self, record: RefsRecord, sequence: int) -> None:
        """Take in what an operation names."""
        for name, *values in record.updates:
            for value in values:
                for digest in commits_of(name, value):
                    self.named[digest] = sequence

    def counting(self, index: Index, txn: Txn) -> Iterator[tuple[Digest, Commit]]:
        """The commits that count: those that refs lead to, or operations that no gc has passed over."""
        horizon = index.number(txn, HORIZON)
        seen = {digest for digest, sequence in self.named.items() if sequence >= horizon}
        for key, value in index.scan(txn, index.refs, b""):
            seen.update(commits_of(key.decode(), value))
        todo = list(seen)
        while todo:
            digest = todo.pop()
            commit = self.found.get(digest)
            if commit is not None:
                yield digest, commit
                todo += [parent for parent in commit.parents if parent not in seen]
                seen.update(commit.parents)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of staged work or refs, or a note of gc: where its record's payload lies."""

    sequence: int
    kind: int
    place: Place


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


def replay(
    index: Index,
    segments: Segments,
    changes: Iterable[Change],
    commits: Commits,
    row_of: RowOf,
    problems: list[Problem],
) -> int:
    """Apply all changes to an `index` without any, in order of sequence; the highest id of a staged directory.

    Takes in what commits they name. Staged rows count whose chunks all have a row of the table `objects`, by `row_of`.
    """
    # A change may stand in two segments when gc was cut short while it rewrote one.
    last_first = sorted(changes, key=lambda change: (change.place.segment, change.place.offset), reverse=True)
    once = {change.sequence: change for change in last_first}
    ordered = sorted(once.values(), key=lambda change: change.sequence)
    staging = Staging(index, segments)
    fenced = _fenced(segments, ordered)
    last = 0
    for first in range(0, len(ordered), BATCH // 20):
        with index.write() as txn:
            for change in ordered[first : first + BATCH // 20]:
                try:
                    last = max(last, _replay(index, txn, staging, segments, change, commits, row_of, fenced))
                except (Corrupt, BadNode) as error:
                    what = f"a change cannot be replayed: {error}"
                    problems.append(Problem(what, "", _where(change.place), "report it"))
    with index.write() as txn:
        _drop_orphans(index, txn, staging)
    return last


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


def _fenced(segments: Segments, changes: Iterable[Change]) -> set[int]:
    """The staged directories that a change of a branch left staged: they are known though their journals may be gone."""
    found: set[int] = set()
    for change in changes:
        if change.kind == RecordKind.REFS:
            try:
                found.update(_directories_of_refs(decode_refs_record(segments.read(change.place))))
            except Corrupt:
                continue  # told when it is replayed
    return found


def _replay(
    index: Index,
    txn: Txn,
    staging: Staging,
    segments: Segments,
    change: Change,
    commits: Commits,
    row_of: RowOf,
    fenced: set[int],
) -> int:
    """Do what a record says again; the highest id of a directory in it."""
    payload = segments.read(change.place)
    if change.kind == RecordKind.REFS:
        refs_record = decode_refs_record(payload)
        apply_refs(index, txn, staging, refs_record, change.sequence, change.place)
        commits.name(refs_record, change.sequence)
        return max(_directories_of_refs(refs_record), default=0)
    if change.kind == RecordKind.COLLECTION:
        apply_collection(index, txn, payload, change.place)
        return 0
    record, leaves, offsets = read_stage_payload(payload, change.place.offset)
    if _is_based(index, txn, record, leaves, fenced):
        record, leaves, offsets = _whole_rows(txn, segments, row_of, record, leaves, offsets)
        data = txn.get((BRANCH + record.branch).encode(), db=index.refs)
        root_id = BranchRef.decode(data).root_id if data else 0
        apply_stage(index, txn, staging, record, leaves, change.sequence, change.place.segment, offsets, root_id)
    return max([directory for directory, _ in record.created], default=0)


def _is_based(index: Index, txn: Txn, record: StageRecord, leaves: list[list[LeafRow]], fenced: set[int]) -> bool:
    """Whether every staged directory that a record speaks of is known.

    After a power loss the record that made one may be missing, and a later one be there: it was not synced either, and
    done in part it would lose what it moves.
    """
    created = {directory for directory, _ in record.created}
    named = {directory for directory, _, _ in record.groups}
    named.update(STAGED_ID.unpack(value)[0] for rows in leaves for _, head, value in rows if head[0] == Kind.STAGED)
    unknown = named - created - fenced
    return all(txn.get(number_key(directory), db=index.directories) is not None for directory in unknown)


def _whole_rows(
    txn: Txn,
    segments: Segments,
    row_of: RowOf,
    record: StageRecord,
    leaves: list[list[LeafRow]],
    offsets: list[int],
) -> tuple[StageRecord, list[list[LeafRow]], list[int]]:
    """A staging record without the rows whose chunks are missing: what was there before them stays. A record that moves
    something is done as a whole or not at all.

    Chunks lie in other segments than rows. After a power loss a row may be there that was never synced, and its chunks not.
    """
    groups, whole, starts = [], [], []
    moves = any(head[0] == Kind.REMOVED for rows in leaves for _, head, _ in rows)
    for group, rows, offset in zip(record.groups, leaves, offsets, strict=True):
        kept: list[LeafRow] = []
        start = at = offset
        for row in rows:
            if not _has_chunks(txn, segments, row_of, row):
                if moves:
                    return StageRecord(record.branch, [], [], [], [], []), [], []
                groups.append(group)
                whole.append(kept)
                starts.append(start)
                kept, start = [], at + len(row[2])
            else:
                kept.append(row)
            at += len(row[2])
        groups.append(group)
        whole.append(kept)
        starts.append(start)
    return replace(record, groups=groups), whole, starts


def _has_chunks(txn: Txn, segments: Segments, row_of: RowOf, row: LeafRow) -> bool:
    _, head, value = row
    if head[0] not in (Kind.FILE, Kind.SAMPLE):
        return True
    if head[1] & INDIRECT:
        found = row_of(txn, value)
        if found is None:
            return False
        place, raw_length, codec = object_place(found)
        value = bytes(unpack(codec, segments.read(place), raw_length))
    elif not head[1] & CHUNKED:
        return True
    return all(_is_stored(txn, segments, row_of, chunk.digest) for chunk in decode_chunks(value))


def _is_stored(txn: Txn, segments: Segments, row_of: RowOf, digest: Digest) -> bool:
    """Whether a chunk is there, and what it is a delta against."""
    row = row_of(txn, digest)
    if row is None:
        return False
    place, _, codec = object_place(row)
    if codec != Codec.DELTA:
        return True
    return all(_is_stored(txn, segments, row_of, base) for base in Delta.decode(segments.read(place)).bases)


def _directories_of_refs(record: RefsRecord) -> list[int]:
    return [i for f in record.fences for i in (f.root_id, *(d for d, _ in f.bases))]


def read_stage_payload(payload: bytes, start: int) -> tuple[StageRecord, list[list[LeafRow]], list[int]]:
    """A staging record taken apart: its head, the rows of its groups, and where in the segment their values begin."""
    length = int.from_bytes(payload[:_LENGTH_SIZE], "little")
    at = _LENGTH_SIZE + length
    record = decode_stage_record(payload[_LENGTH_SIZE:at])
    leaves: list[list[LeafRow]] = []
    offsets: list[int] = []
    for _, _, size in record.groups:
        leaf = decode(payload[at : at + size])
        if not isinstance(leaf, Leaf):
            raise Corrupt("a staging record holds something else than rows")
        rows = [leaf.row(i) for i in range(len(leaf))]
        at += size
        leaves.append(rows)
        offsets.append(start + at - sum(len(value) for _, _, value in rows))
    return record, leaves, offsets


def _drop_orphans(index: Index, txn: Txn, staging: Staging) -> None:
    """Forget staged directories that no branch leads to: left by journals whose counterpart has been settled."""
    reached: set[int] = set()
    todo = [BranchRef.decode(value).root_id for _, value in index.scan(txn, index.refs, b"branch/")]
    while todo:
        directory = todo.pop()
        reached.add(directory)
        todo.extend(row.staged_id for _, row in staging.rows(txn, directory) if row.kind is Kind.STAGED)
    known = {int.from_bytes(key, "big") for key, _ in index.scan(txn, index.directories, b"")}
    held = {int.from_bytes(key[:8], "big") for key, _ in index.scan(txn, index.staged, b"")}
    for directory in (known | held) - reached:
        drop_directory(index, txn, staging, directory)


def _damaged(record: Found) -> Problem:
    what = "a record's bytes have changed or were never written whole"
    return Problem(what, _digest_of(record), _where(record.place), "restore it from a copy")


def _unreadable(record: Found, error: Corrupt) -> Problem:
    return Problem(f"a record cannot be read: {error}", _digest_of(record), _where(record.place), "report it")


def _digest_of(record: Found) -> str:
    return hexed(record.digest) if record.kind < RecordKind.STAGE else ""


def _where(place: Place) -> str:
    return f"segment {place.segment:08x} at byte {place.offset}"
