"""Refs: branches, tags, HEAD; and the operation log, which is every change of them in order.

A ref changes only through `RefChange.record`: one record in the log, synced before the change is visible.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from storage.disk.index import HORIZON, Index, Txn, number_key
from storage.disk.segments import Record, RecordKind, SegmentKind
from storage.errors import Conflict, Corrupt, Exists, NotFound
from storage.model.digest import DIGEST_SIZE, NO_DIGEST, Digest, hexed
from storage.model.format import MALFORMED
from storage.model.records import Author, Entry, Fence, Place, RefsRecord, encode_head, encode_record
from storage.stores.log import Log
from storage.stores.merge_record import decode_state
from storage.stores.staging import (
    StagedDirectory,
    Staging,
    apply_fence,
    drop_directory,
    note_change,
    put_directory,
    settle_rows,
)
from storage.stores.tails import COLLECTION
from storage.tree.node import EMPTY

BRANCH, TAG, HEAD, MERGE = "branch/", "tag/", "HEAD", "merge/"
KEY_MAX = 511
"""LMDB's keys are no longer."""
_BRANCH_VALUE = struct.Struct("<32sQ")
_PLACE = struct.Struct("<IQI")


@dataclass(frozen=True, slots=True)
class BranchRef:
    """A branch: its tip (None before the first commit) and the id of its staged root directory."""

    tip: Digest | None
    root_id: int

    def encode(self) -> bytes:
        """As stored in the refs table."""
        return _BRANCH_VALUE.pack(self.tip or NO_DIGEST, self.root_id)

    @classmethod
    def decode(cls, data: bytes) -> BranchRef:
        """What encode wrote; Corrupt for anything else."""
        if len(data) != _BRANCH_VALUE.size:
            raise Corrupt(f"a branch's value has {len(data)} bytes instead of {_BRANCH_VALUE.size}")
        tip, root_id = _BRANCH_VALUE.unpack(data)
        return cls(None if tip == NO_DIGEST else Digest(tip), root_id)


class TagRef(msgspec.Struct, array_like=True, frozen=True):
    """A tag: the commit it names, with a message of its own."""

    digest: bytes
    message: str
    time: int


class Refs:
    """Reads refs. Every method works within the caller's transaction."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def branch(self, txn: Txn, name: str) -> BranchRef:
        """A branch; NotFound."""
        data = self.raw(txn, BRANCH + name)
        if not data:
            raise NotFound(f"there is no branch {name!r}")
        return BranchRef.decode(data)

    def branches(self, txn: Txn) -> dict[str, BranchRef]:
        """All branches by name."""
        rows = self._index.scan(txn, self._index.refs, BRANCH.encode())
        return {key.decode()[len(BRANCH) :]: BranchRef.decode(data) for key, data in rows}

    def tags(self, txn: Txn) -> dict[str, TagRef]:
        """All tags by name."""
        rows = self._index.scan(txn, self._index.refs, TAG.encode())
        return {key.decode()[len(TAG) :]: decode_tag(data) for key, data in rows}

    def head(self, txn: Txn) -> str:
        """The default branch's name."""
        data = txn.get(HEAD.encode(), db=self._index.refs)
        if data is None:
            raise NotFound("the repository has no HEAD")
        return data.decode()

    def raw(self, txn: Txn, name: str) -> bytes:
        """A ref's stored bytes, empty where there is none."""
        try:
            key = name.encode()
        except UnicodeEncodeError:
            return b""  # half a surrogate is no text, and no ref has it in its name
        return txn.get(key, db=self._index.refs) or b"" if len(key) <= KEY_MAX else b""

    def all_raw(self, txn: Txn) -> dict[str, bytes]:
        """All refs' stored bytes, by name."""
        return {key.decode(): data for key, data in self._index.scan(txn, self._index.refs, b"")}


def encode_tag(tag: TagRef) -> bytes:
    """A tag as stored in the refs table."""
    return msgspec.msgpack.encode(tag)


def decode_tag(data: bytes) -> TagRef:
    """The tag that encode_tag wrote; Corrupt for anything else."""
    try:
        tag = msgspec.msgpack.decode(data, type=TagRef)
    except MALFORMED as error:
        raise Corrupt(f"a tag cannot be read: {error}") from error
    if len(tag.digest) != DIGEST_SIZE or encode_tag(tag) != data:
        raise Corrupt("a tag is not written as it must be")
    return tag


def change_refs(
    index: Index,
    log: Log,
    txn: Txn,
    staging: Staging,
    *,
    author: Author,
    description: str,
    updates: Sequence[tuple[str, bytes, bytes]],
    fences: Sequence[Fence] = (),
    dropped: Sequence[tuple[str, int]] = (),
    kept: Sequence[tuple[int, bytes, bytes]] = (),
    redrawn: Sequence[str] = (),
    left: Mapping[str, bytes] | None = None,
    origin: bytes,
) -> int:
    """Change refs inside `log.change(LOG)`: write the record, sync it, apply it; its sequence number.

    `updates` are (name, expected bytes, new bytes). Conflict when a ref is not what was expected. `redrawn` are branches
    whose files change by it, for other processes to look at again. `left` is what taking it back shall make of refs that are
    not to be what they were, by name: a merge that ends is left as one over the tree that is kept of it.
    """
    require_refs(index, txn, updates)
    require_commits(index, txn, {digest for name, _, new in updates for digest in commits_of(name, new)})
    updates = [(name, (left or {}).get(name, old), new) for name, old, new in updates]
    who = f"{author.name} <{author.email}>"
    record = RefsRecord(time.time_ns(), who, description, updates, list(fences), list(dropped), list(kept))
    sequence = index.next_sequence(txn)
    payload = encode_record(record)
    place = log.append(txn, SegmentKind.LOG, Record(RecordKind.REFS, [payload], len(payload), sequence=sequence))
    log.sync_own(txn, SegmentKind.LOG)
    apply_refs(index, txn, staging, record, sequence, place)
    note_change(index, txn, origin, [("", [], None), *((branch, [], None) for branch in redrawn)])
    return sequence


def require_commits(index: Index, txn: Txn, digests: Iterable[Digest]) -> None:
    """NotFound when gc has taken one of the commits since the caller saw it."""
    for digest in digests:
        if txn.get(digest, db=index.commits) is None:
            raise NotFound(f"no commit {hexed(digest)} is stored here")


def commits_of(name: str, value: bytes) -> list[Digest]:
    """The commits that a ref of that name and value leads to. Corrupt."""
    if name.startswith(MERGE) and value:
        return list(decode_state(value).commits)
    if name.startswith(BRANCH) and value:
        tip = BranchRef.decode(value).tip
        return [tip] if tip else []
    return [Digest(decode_tag(value).digest)] if name.startswith(TAG) and value else []


def require_refs(index: Index, txn: Txn, updates: Sequence[tuple[str, bytes, bytes]]) -> None:
    """Conflict when a ref is not what `updates` (name, expected bytes, new bytes) expect."""
    for name, old, _ in updates:
        found = txn.get(name.encode(), db=index.refs) or b""
        if found != old:
            raise Conflict(name, ref_text(name, old), ref_text(name, found))


def apply_refs(index: Index, txn: Txn, staging: Staging, record: RefsRecord, sequence: int, place: Place) -> None:
    """Do what an operation record says; runs when it is written and again when the index is rebuilt."""
    for name, _, new in record.updates:
        if new:
            txn.put(name.encode(), new, db=index.refs)
        else:
            txn.delete(name.encode(), db=index.refs)
    for fence in record.fences:
        if staging.directory(txn, fence.root_id) is None:
            put_directory(index, txn, fence.root_id, StagedDirectory(EMPTY, 0))
        apply_fence(index, txn, staging, fence, sequence)
    for _, root_id in record.dropped:
        drop_directory(index, txn, staging, root_id)
        settle_rows(index, txn, root_id, sequence)
    txn.put(number_key(sequence), encode_place(place), db=index.operations)


def append_collection(index: Index, log: Log, txn: Txn, horizon: int) -> None:
    """Note in the log, inside `log.change(LOG)`, that operations before `horizon` keep no commits any more; synced."""
    payload = msgspec.msgpack.encode((time.time_ns(), horizon))
    sequence = index.next_sequence(txn)
    place = log.append(txn, SegmentKind.LOG, Record(RecordKind.COLLECTION, [payload], len(payload), sequence=sequence))
    log.sync_own(txn, SegmentKind.LOG)
    apply_collection(index, txn, payload, place)


def apply_collection(index: Index, txn: Txn, payload: bytes, place: Place) -> None:
    """Do what append_collection noted; runs when it is written and again when the index is rebuilt."""
    try:
        _, horizon = msgspec.msgpack.decode(payload, type=tuple[int, int])
    except MALFORMED as error:
        raise Corrupt(f"a note of gc cannot be read: {error}") from error
    if not 0 <= horizon < 1 << 63:
        raise Corrupt(f"a note of gc has the horizon {horizon}")
    index.set_number(txn, HORIZON, max(horizon, index.number(txn, HORIZON)))
    txn.put(COLLECTION, encode_place(place), db=index.meta)


def encode_place(place: Place) -> bytes:
    """Where an operation's record lies, as stored in the operations table."""
    return _PLACE.pack(place.segment, place.offset, place.length)


def operation_place(data: bytes) -> Place:
    """Where an operation's record lies, from its index row."""
    try:
        return Place(*_PLACE.unpack(data))
    except struct.error as error:
        raise Corrupt("the index's row of an operation cannot be read: run `arborfs rebuild`") from error


def ref_text(name: str, value: bytes) -> str:
    """A ref's stored bytes as text: a commit's digits, HEAD's branch; empty where it does not exist."""
    if name.startswith(BRANCH) and len(value) == _BRANCH_VALUE.size:
        return hexed(Digest(value[:DIGEST_SIZE]))
    if name.startswith(MERGE) and value:
        return "a merge under way"
    if name.startswith(TAG) and value:
        return hexed(Digest(decode_tag(value).digest))
    return value.decode("utf-8", "backslashreplace")


def require_absent(txn: Txn, index: Index, name: str, what: str) -> None:
    """Exists if the ref is there already."""
    if txn.get(name.encode(), db=index.refs) is not None:
        raise Exists(f"there is already a {what}")


def fence_of(branch: str, root_id: int, upto: int, root: Entry) -> Fence:
    """What puts a branch's working tree on `root`; rows up to the sequence number `upto` go."""
    return Fence(branch, root_id, upto, *stored(root), [], [])


def stored(root: Entry) -> tuple[bytes, bytes]:
    """Head and value of a root directory, as records hold them."""
    assert isinstance(root.value, bytes)
    return encode_head(root), root.value
