"""Staging: the rows of staged directories, and what a record of the log does to them.

State is what the records say, applied in order of sequence: the functions `apply_stage` and `apply_fence` run when a
record is written and again, unchanged, when the index is rebuilt.

A staged directory has an id, the root of the committed directory it is based on, and rows: name → entry, removed, or
staged directory. Row: sequence u64, place of the value (segment u32, offset u64, length u32, checksum u64), head, and the value
itself where it is short. The checksum is that of the value in both cases.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from storage.disk.index import GENERATION, Index, Txn, number_key
from storage.disk.segments import Segments, checksum
from storage.errors import Corrupt
from storage.model.digest import DIGEST_SIZE, Digest
from storage.model.records import HEAD, KINDS, Entry, Fence, Kind, Place, Schema, StageRecord, decode_entry

ROW = struct.Struct("<QIQIQ")
_ROW_AND_HEAD = struct.Struct(ROW.format + HEAD.format[1:])
_HEAD_START, _HEAD_END = ROW.size, ROW.size + HEAD.size
DIRECTORY_ROW = struct.Struct("<32sq")
STAGED_ID = struct.Struct("<Q")
SHORT_VALUE = 64
"""Values up to this many bytes stand in the row itself."""
KEPT_CHANGES = 10_000
"""So many of the latest changes are kept for other processes, and at most a `_TRIM` more."""
_TRIM = 64  # deleting one with each change would make it write two pages more
FENCE = b"fence/"
"""Before the id of a branch's root, in the table `meta`: the sequence number up to which its rows are settled."""

REMOVED_HEAD = HEAD.pack(Kind.REMOVED, 0, 0, 0, 0, 0)

LeafRow = tuple[bytes, bytes, bytes]


class Row(msgspec.Struct, frozen=True, gc=False):
    """A staged row: its head, and its value where short, else the value's place."""

    sequence: int
    kind: Kind
    head: bytes
    value: bytes | Place

    @property
    def staged_id(self) -> int:
        """The staged directory a row of kind STAGED leads to."""
        assert isinstance(self.value, bytes)
        return int(STAGED_ID.unpack(self.value)[0])


class StagedDirectory(msgspec.Struct, frozen=True, gc=False):
    """A staged directory's own row: what it is based on, when it last changed, and a root's head."""

    base: Digest
    mtime: int
    head: bytes = b""


class Where(msgspec.Struct, frozen=True, gc=False):
    """A directory of a working tree: its staged id (None where nothing in it is staged), base root and schema."""

    staged: int | None
    base: Digest
    schema: Schema | None


def encode_rows(
    directory: int, rows: Iterable[LeafRow], sequence: int, segment: int, offset: int
) -> list[tuple[bytes, bytes]]:
    """Index rows of a directory's staged rows, whose values lie one after the other from `offset` in `segment`."""
    prefix = number_key(directory)
    pack, check = ROW.pack, checksum
    out = []
    for key, head, value in rows:
        length = len(value)
        if length > SHORT_VALUE:
            out.append((prefix + key, pack(sequence, segment, offset, length, check(value)) + head))
        else:
            out.append((prefix + key, pack(sequence, 0, 0, length, check(value)) + head + value))
        offset += length
    return out


def decode_row(data: bytes) -> Row:
    """The row that encode_rows wrote."""
    sequence, segment, offset, length, check, kind, _, _, extra, _, _ = _ROW_AND_HEAD.unpack_from(data)
    behind = _HEAD_END + extra
    if kind not in KINDS or len(data) < behind:
        raise Corrupt("a staged row cannot be read: run `arborfs rebuild`")
    head = data[_HEAD_START:behind]
    if segment:
        if length <= SHORT_VALUE or kind == Kind.STAGED:  # these stand in the row itself
            raise Corrupt("a staged row is damaged: run `arborfs rebuild`")
        return Row(sequence, KINDS[kind], head, Place(segment, offset, length, check))
    value = data[behind:]
    if len(value) != length or checksum(value) != check:
        raise Corrupt("a staged row is damaged: run `arborfs rebuild`")
    return Row(sequence, KINDS[kind], head, value)


class Staging:
    """Reads staged rows. Every method works within the caller's transaction."""

    def __init__(self, index: Index, segments: Segments) -> None:
        self._index = index
        self._segments = segments

    def row(self, txn: Txn, directory: int, name: bytes) -> Row | None:
        """The row of `name`, None where nothing is staged for it."""
        data = txn.get(number_key(directory) + name, db=self._index.staged)
        return None if data is None else decode_row(data)

    def staged_among(self, txn: Txn, directory: int, names: Sequence[bytes]) -> set[bytes]:
        """Those of `names` for which anything is staged."""
        prefix = number_key(directory)
        with txn.cursor(db=self._index.staged) as cursor:
            return {key[8:] for key, _ in cursor.getmulti([prefix + name for name in names])}

    def rows_among(self, txn: Txn, directory: int, names: Sequence[bytes]) -> dict[bytes, Row]:
        """The rows of those of `names` for which anything is staged."""
        prefix = number_key(directory)
        with txn.cursor(db=self._index.staged) as cursor:
            found = cursor.getmulti([prefix + name for name in names])
            return {key[8:]: decode_row(data) for key, data in found}

    def rows(self, txn: Txn, directory: int, after: bytes = b"") -> Iterator[tuple[bytes, Row]]:
        """The rows of a staged directory by name, those behind `after` only."""
        for key, data in self._index.scan(txn, self._index.staged, number_key(directory), after):
            yield key[8:], decode_row(data)

    def kinds(self, txn: Txn, directory: int) -> Iterator[tuple[bytes, int]]:
        """Names of the rows of a staged directory with their kinds, at half the cost of the rows."""
        for key, data in self._index.scan(txn, self._index.staged, number_key(directory)):
            yield key[8:], data[ROW.size]

    def late_or_staged(self, txn: Txn, directory: int, upto: int) -> Iterator[tuple[bytes, Row]]:
        """Rows above the sequence number `upto`, and those that lead to staged directories."""
        for key, data in self._index.scan(txn, self._index.staged, number_key(directory)):
            if data[ROW.size] == Kind.STAGED or ROW.unpack_from(data)[0] > upto:
                yield key[8:], decode_row(data)

    def directory(self, txn: Txn, directory: int) -> StagedDirectory | None:
        """A staged directory, None when it is gone."""
        data = txn.get(number_key(directory), db=self._index.directories)
        if data is None:
            return None
        base, mtime = DIRECTORY_ROW.unpack_from(data)
        return StagedDirectory(Digest(base), mtime, data[DIRECTORY_ROW.size :])

    def value(self, value: bytes | Place) -> bytes:
        """A staged value's bytes; Corrupt when the journal's bytes have changed."""
        return value if isinstance(value, bytes) else _checked(self._segments.read(value), value)

    def values(self, values: Sequence[bytes | Place]) -> list[bytes]:
        """The bytes of many values, in order."""
        far = [(i, value) for i, value in enumerate(values) if isinstance(value, Place)]
        out = [value if isinstance(value, bytes) else b"" for value in values]
        for (i, place), data in zip(far, self._segments.read_many([place for _, place in far]), strict=True):
            out[i] = _checked(data, place)
        return out

    def entry(self, row: Row) -> Entry:
        """The entry a row stands for (not REMOVED); its value stays a Place where it is long."""
        return decode_entry(row.head, row.value)


def _checked(data: bytes, place: Place) -> bytes:
    if checksum(data) != place.check:
        where = f"journal segment {place.segment:08x} at byte {place.offset}"
        raise Corrupt(f"a staged value in {where} is damaged: its bytes have changed", where=where)
    return data


def put_directory(index: Index, txn: Txn, directory: int, row: StagedDirectory) -> None:
    """Write a staged directory's own row."""
    data = DIRECTORY_ROW.pack(row.base, row.mtime) + row.head
    txn.put(number_key(directory), data, db=index.directories)


def apply_stage(
    index: Index,
    txn: Txn,
    staging: Staging,
    record: StageRecord,
    leaves: Sequence[Sequence[LeafRow]],
    sequence: int,
    segment: int,
    offsets: Sequence[int],
    root_id: int,
) -> None:
    """Do what a staging record says. `leaves` are the rows of its groups, whose values begin at `offsets`.

    `root_id` is the id of the branch's root: it stays the same when the branch gets another name.
    """
    for directory, base in record.created:
        put_directory(index, txn, directory, StagedDirectory(Digest(base), 0))
    for directory in record.dropped:
        drop_directory(index, txn, staging, directory)
    for (directory, mtime, _), rows, offset in zip(record.groups, leaves, offsets, strict=True):
        known = staging.directory(txn, directory)
        if known is None:  # only when replaying a log whose older journals have been settled
            known = StagedDirectory(Digest(bytes(DIGEST_SIZE)), 0)
        if mtime:
            put_directory(index, txn, directory, StagedDirectory(known.base, mtime, known.head))
        with txn.cursor(db=index.staged) as cursor:
            cursor.putmulti(encode_rows(directory, rows, sequence, segment, offset))
    for directory, head in record.attributes:
        known = staging.directory(txn, directory)
        if known is not None:
            put_directory(index, txn, directory, StagedDirectory(known.base, known.mtime, head))
    txn.put(number_key(segment) + number_key(root_id), number_key(sequence), db=index.journals)


def _root_id(index: Index, txn: Txn, branch: str) -> int:
    """The id of a branch's root directory, which stays when the branch is renamed; 0 where a damaged log lacks the branch."""
    value = txn.get(b"branch/" + branch.encode(), db=index.refs)
    return STAGED_ID.unpack(value[-STAGED_ID.size :])[0] if value else 0


def drop_directory(index: Index, txn: Txn, staging: Staging, directory: int) -> None:
    """Forget a staged directory, its rows and everything staged below it."""
    rows = list(staging.rows(txn, directory))
    for name, row in rows:
        txn.delete(number_key(directory) + name, db=index.staged)
        if row.kind is Kind.STAGED:
            drop_directory(index, txn, staging, row.staged_id)
    txn.delete(number_key(directory), db=index.directories)


def apply_fence(index: Index, txn: Txn, staging: Staging, fence: Fence, sequence: int) -> None:
    """Settle what a change of a branch settled: rows up to the fence go, what was staged later stays on the new base."""
    kept = {directory: Digest(base) for directory, base in fence.bases}
    gone = _settle(index, txn, staging, fence.root_id, fence.upto)
    for directory in kept:
        gone |= _settle(index, txn, staging, directory, fence.upto)
    for directory in gone - kept.keys() - {fence.root_id}:
        txn.delete(number_key(directory), db=index.directories)
    for directory, base in kept.items():
        known = staging.directory(txn, directory)
        put_directory(index, txn, directory, StagedDirectory(base, known.mtime if known else 0))
    for directory, name, head, staged in fence.rows:
        value = STAGED_ID.pack(staged)
        row = ROW.pack(sequence, 0, 0, len(value), checksum(value)) + head + value
        txn.put(number_key(directory) + name, row, db=index.staged)
    root = decode_entry(fence.head, fence.value)
    put_directory(index, txn, fence.root_id, StagedDirectory(root.root, root.mtime, fence.head))
    settle_rows(index, txn, fence.root_id, fence.upto)


def settle_rows(index: Index, txn: Txn, root_id: int, upto: int) -> None:
    """Note that no row of the branch up to that sequence number is staged any more: their journals may go."""
    txn.put(FENCE + number_key(root_id), number_key(max(upto, settled_rows(index, txn, root_id))), db=index.meta)


def settled_rows(index: Index, txn: Txn, root_id: int) -> int:
    """The sequence number up to which no row of the branch is staged any more."""
    return int.from_bytes(txn.get(FENCE + number_key(root_id), db=index.meta) or b"", "big")


def _settle(index: Index, txn: Txn, staging: Staging, directory: int, upto: int) -> set[int]:
    """Delete the rows up to `upto` of a directory and of those below it; all directories met."""
    met = {directory}
    below: list[int] = []
    with txn.cursor(db=index.staged) as cursor:
        prefix = number_key(directory)
        found = cursor.set_range(prefix)
        while found:
            key, data = cursor.item()
            if not key.startswith(prefix):
                break
            if data[ROW.size] == Kind.STAGED:
                below.append(decode_row(data).staged_id)
            found = cursor.delete() if ROW.unpack_from(data)[0] <= upto else cursor.next()
    for child in below:
        met |= _settle(index, txn, staging, child, upto)
    return met


def note_change(
    index: Index, txn: Txn, origin: bytes, changes: Sequence[tuple[str, list[bytes], list[bytes] | None]]
) -> int:
    """Tell other processes what changed; the new generation. Only the latest changes are kept."""
    generation = index.next_number(txn, GENERATION)
    txn.put(number_key(generation), _encode_change((origin, changes)), db=index.changes)
    if generation % _TRIM == 0:
        for old in range(max(generation - KEPT_CHANGES - _TRIM, 0), generation - KEPT_CHANGES):
            txn.delete(number_key(old), db=index.changes)
    return generation


def decode_change(row: bytes) -> list[tuple[str, list[bytes], list[bytes] | None]]:
    """The changes that `note_change` noted in a row: branch (empty: any), path, names (None: many)."""
    _, changes = _change_decoder.decode(row)
    return changes


_encode_change = msgspec.msgpack.Encoder().encode
_change_decoder = msgspec.msgpack.Decoder(tuple[bytes, list[tuple[str, list[bytes], list[bytes] | None]]])
