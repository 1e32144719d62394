"""Doing again what the segments say was done: every change of staged work and refs, in order of sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from storage.disk.index import HORIZON, Index, Txn, number_key
from storage.disk.segments import RecordKind, Segments
from storage.errors import Corrupt
from storage.model.chunking import Codec, decode_chunks, unpack
from storage.model.deltas import Delta
from storage.model.digest import Digest
from storage.model.records import (
    CHUNKED,
    INDIRECT,
    Commit,
    Kind,
    Place,
    RefsRecord,
    StageRecord,
    decode_refs_record,
    decode_stage_record,
)
from storage.stores.objects import object_place
from storage.stores.refs import BRANCH, BranchRef, apply_collection, apply_refs, commits_of
from storage.stores.staging import STAGED_ID, LeafRow, Staging, apply_stage, drop_directory
from storage.tree.node import BadNode, Leaf, decode

BATCH = 1000
"""Changes that one transaction does again."""
_LENGTH_SIZE = 4
RowOf = Callable[[Txn, bytes], bytes | None]
"""Finds an object's row of the table `objects`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a repository: what, the digest it concerns, where it lies, and what to do."""

    what: str
    digest: str
    where: str
    advice: str


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
    for first in range(0, len(ordered), BATCH):
        with index.write() as txn:
            for change in ordered[first : first + BATCH]:
                try:
                    last = max(last, _replay(index, txn, staging, segments, change, commits, row_of, fenced))
                except (Corrupt, BadNode) as error:
                    what = f"a change cannot be replayed: {error}"
                    problems.append(Problem(what, "", place_text(change.place), "report it"))
    with index.write() as txn:
        _drop_orphans(index, txn, staging)
    return last


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


def place_text(place: Place) -> str:
    """Where a record lies, for people."""
    return f"segment {place.segment:08x} at byte {place.offset}"
