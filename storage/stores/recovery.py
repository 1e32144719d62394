"""Making the index again from the segments: objects where they lie, then every change in order of sequence."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

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
from storage.stores.log import END
from storage.stores.objects import index_object, object_place
from storage.stores.refs import BRANCH, TAG, BranchRef, apply_refs, decode_tag
from storage.stores.staging import STAGED_ID, LeafRow, Staging, apply_stage, drop_directory
from storage.tree.node import EMPTY, BadNode, Leaf, decode

BATCH = 20_000
LAST_SEQUENCE = 1 << 63
HOLE = b"hole/"
"""Before a segment's id and an offset, in the table `meta`: from there on so many bytes are no valid records."""
_LENGTH_SIZE = 4


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
class _Commits:
    """The commit records that were found, and those that operations name: only those, and what they came from, count.

    A commit whose operation never was is one that nobody was told of, and after a power loss its tree may have holes.
    """

    found: dict[Digest, Commit] = field(default_factory=dict)
    named: set[Digest] = field(default_factory=set)

    def name(self, record: RefsRecord) -> None:
        """Take in what an operation names."""
        for name, *values in record.updates:
            for value in filter(None, values):
                if name.startswith(BRANCH):
                    self.named.add(BranchRef.decode(value).tip or EMPTY)
                elif name.startswith(TAG):
                    self.named.add(Digest(decode_tag(value).digest))

    def counting(self) -> Iterator[tuple[Digest, Commit]]:
        """The commits that count."""
        todo, seen = list(self.named), set(self.named)
        while todo:
            digest = todo.pop()
            commit = self.found.get(digest)
            if commit is not None:
                yield digest, commit
                todo += [parent for parent in commit.parents if parent not in seen]
                seen.update(commit.parents)


@dataclass(frozen=True, slots=True)
class _Change:
    sequence: int
    kind: int
    place: Place


def rebuild_index(home: Path) -> RebuildReport:
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
        _fill(index, segments, report)
        index.sync()
    finally:
        index.close()
        segments.close()
    files.swap_directory(fresh, home / "index")
    return report


def _fill(index: Index, segments: Segments, report: RebuildReport) -> None:
    changes: list[_Change] = []
    commits = _Commits()
    paths = sorted(segments.paths().items())
    for segment, path in paths:
        if is_unused(path):
            files.remove(path)
            continue
        try:
            _index_segment(index, segment, path, changes, commits, report)
        except Corrupt as error:
            report.problems.append(Problem(str(error), "", path.name, "restore the file from a copy"))
    changes.sort(key=lambda change: change.sequence)
    staging = Staging(index, segments)
    fenced = _fenced(segments, changes)
    last_directory = 0
    for first in range(0, len(changes), BATCH // 20):
        with index.write() as txn:
            for change in changes[first : first + BATCH // 20]:
                try:
                    last = _replay(index, txn, staging, segments, change, commits, fenced)
                    last_directory = max(last_directory, last)
                except (Corrupt, BadNode) as error:
                    problem = Problem(f"a change cannot be replayed: {error}", "", _where(change.place), "report it")
                    report.problems.append(problem)
    with index.write() as txn:
        index.set_number(txn, b"sequence", max((change.sequence for change in changes), default=0))
        index.set_number(txn, b"directory", last_directory)
        index.set_number(txn, b"segment", max((segment for segment, _ in paths), default=0))
        index.set_number(txn, GENERATION, 1)
        _drop_orphans(index, txn, staging)
        for digest, commit in commits.counting():
            txn.put(digest, number_key(commit.time), db=index.commits)
            report.commits += 1
    report.staged = sum(change.kind == RecordKind.STAGE for change in changes)


def _index_segment(
    index: Index, segment: int, path: Path, changes: list[_Change], commits: _Commits, report: RebuildReport
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
                        _index_record(index, txn, record, changes, commits)
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


def _index_record(index: Index, txn: Txn, record: Found, changes: list[_Change], commits: _Commits) -> None:
    if record.kind >= RecordKind.STAGE:
        if record.sequence > LAST_SEQUENCE:
            raise Corrupt(f"its sequence number {record.sequence} is above all that are ever given")
        changes.append(_Change(record.sequence, record.kind, record.place))
        return
    index_object(index, txn, record.kind, record.codec, record.raw_length, record.digest, record.place, record.checksum)
    if record.kind == RecordKind.COMMIT:
        assert record.payload is not None
        data = bytes(unpack(record.codec, bytes(record.payload), record.raw_length))
        commits.found[record.digest] = decode_commit(data)


def _fenced(segments: Segments, changes: list[_Change]) -> set[int]:
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
    change: _Change,
    commits: _Commits,
    fenced: set[int],
) -> int:
    """Do what a record says again; the highest id of a directory in it."""
    payload = segments.read(change.place)
    if change.kind == RecordKind.REFS:
        refs_record = decode_refs_record(payload)
        apply_refs(index, txn, staging, refs_record, change.sequence, change.place)
        commits.name(refs_record)
        return max(_directories_of_refs(refs_record), default=0)
    record, leaves, offsets = read_stage_payload(payload, change.place.offset)
    if _is_based(index, txn, record, leaves, fenced):
        record, leaves, offsets = _whole_rows(index, txn, segments, record, leaves, offsets)
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
    index: Index,
    txn: Txn,
    segments: Segments,
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
            if not _has_chunks(index, txn, segments, row):
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


def _has_chunks(index: Index, txn: Txn, segments: Segments, row: LeafRow) -> bool:
    _, head, value = row
    if head[0] not in (Kind.FILE, Kind.SAMPLE):
        return True
    if head[1] & INDIRECT:
        found = txn.get(value, db=index.objects)
        if found is None:
            return False
        place, raw_length, codec = object_place(found)
        value = bytes(unpack(codec, segments.read(place), raw_length))
    elif not head[1] & CHUNKED:
        return True
    return all(_is_stored(index, txn, segments, chunk.digest) for chunk in decode_chunks(value))


def _is_stored(index: Index, txn: Txn, segments: Segments, digest: Digest) -> bool:
    """Whether a chunk is there, and what it is a delta against."""
    row = txn.get(digest, db=index.objects)
    if row is None:
        return False
    place, _, codec = object_place(row)
    if codec != Codec.DELTA:
        return True
    return all(_is_stored(index, txn, segments, base) for base in Delta.decode(segments.read(place)).bases)


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
