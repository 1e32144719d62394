"""Objects: chunks, tree nodes, commits, found by the digest of their contents. Stored once, never changed."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar
from weakref import WeakSet

import numpy as np

from storage.disk.index import Index, Txn
from storage.disk.segments import Record, RecordKind, Segments, checksum
from storage.errors import Corrupt, NotFound
from storage.model.cache import Cache
from storage.model.chunking import ChunkRef, Codec, pack, pack_many, unpack, unpack_into, unpack_many
from storage.model.deltas import BASES_MAX, CHAIN_MAX, DELTA_MIN, WORTH, Delta, difference, patched
from storage.model.digest import Digest, blake, hexed
from storage.model.records import Commit, Place, decode_commit, encode_commit
from storage.stores.log import Log
from storage.tree.node import BadNode, Inner, Leaf, Load, decode

Node = Leaf | Inner
T = TypeVar("T")

OBJECT_ROW = struct.Struct("<IQIIBBHQ")
# The same, as numpy reads many of them at once.
_ROWS = np.dtype(
    {
        "names": ["segment", "offset", "length", "raw", "codec", "check"],
        "formats": ["<u4", "<u8", "<u4", "<u4", "u1", "<u8"],
        "offsets": [0, 4, 12, 16, 21, 24],
        "itemsize": OBJECT_ROW.size,
    }
)
NODE_CACHE = 96 << 20
CHUNK_CACHE = 96 << 20
COMMIT_CACHE = 4 << 20
_NODES = 1024  # in one transaction: the lock on the index is held some milliseconds
SHORT = 1 << 16
"""Chunks up to this many bytes are read by whoever needs them, if the disk is not in the way."""


def object_place(row: bytes) -> tuple[Place, int, int]:
    """Where an object lies, from its index row; its unpacked length and codec."""
    return _parsed(row)[:3]


def object_row(place: Place, raw_length: int, kind: int, codec: int, check: int) -> bytes:
    """The index row of an object."""
    return OBJECT_ROW.pack(place.segment, place.offset, place.length, raw_length, kind, codec, 0, check)


def object_kind(row: bytes) -> int:
    """What an object is (RecordKind), from its index row; Corrupt."""
    _parsed(row)
    return int(OBJECT_ROW.unpack(row)[4])


def _parsed(row: bytes) -> tuple[Place, int, int, int]:
    try:
        segment, offset, length, raw_length, _, codec, _, check = OBJECT_ROW.unpack(row)
    except struct.error as error:
        raise Corrupt("the index's row of an object cannot be read: run `arborfs rebuild`") from error
    return Place(segment, offset, length), raw_length, codec, check


def _require_unchanged(stored: memoryview, check: int) -> None:
    if checksum(stored) != check:
        raise Corrupt("its bytes have changed since they were written")


def _decoded(digest: Digest, data: bytes | memoryview) -> tuple[Node, int]:
    """The tree node that an object is, and how many bytes of memory it takes. Corrupt."""
    try:
        node = decode(bytes(data))
    except BadNode as error:
        raise Corrupt(f"tree node {hexed(digest)} is malformed: {error}", digest=hexed(digest)) from error
    return node, len(data) + 100 * len(node) + 500


class Reader(Protocol):
    """What reads chunks piece by piece."""

    chunks: Sequence[ChunkRef]


class Objects:
    """Reads and writes objects. Thread-safe. Everything read is checked; wrong bytes are never returned."""

    def __init__(self, index: Index, segments: Segments, log: Log) -> None:
        self._index = index
        self._segments = segments
        self._log = log
        self._nodes: Cache[Digest, Node] = Cache(NODE_CACHE, self._load_node)
        self._chunks: Cache[Digest, bytes | memoryview] = Cache(CHUNK_CACHE, self._load_chunk)
        self._commits: Cache[Digest, Commit] = Cache(COMMIT_CACHE, self._load_commit)
        self.node: Load = self._nodes.__getitem__
        """A decoded tree node."""
        self.readers: WeakSet[Reader] = WeakSet()
        """Whoever may ask for chunks later."""
        self._loading: dict[Digest, threading.Event] = {}
        self._lock = threading.Lock()

    def get(self, digest: Digest) -> bytes | memoryview:
        """The contents stored under `digest`. NotFound, or Corrupt naming the digest when they are damaged."""
        return self._read(digest, self.unpacked)

    def _read(self, digest: Digest, unpacked: Callable[[int, memoryview, int], T]) -> T:
        """What `unpacked` makes of an object's codec, its stored bytes, which are checked, and its length. Errors as of get."""
        row = self._row(digest)
        while row is not None:
            place, raw_length, codec, check = _parsed(row)
            where = f"segment {place.segment:08x} at byte {place.offset}"
            try:
                stored = self._segments.read_object(place, digest)
                _require_unchanged(stored, check)
                return unpacked(codec, stored, raw_length)
            except Corrupt as error:
                before, row = row, self._row(digest)
                if row == before:
                    raise Corrupt(
                        f"object {hexed(digest)} in {where} is damaged: {error}", digest=hexed(digest), where=where
                    ) from error
                # gc moved it between the two steps.
        raise NotFound(f"no object {hexed(digest)} is stored here")

    def put_into(self, room: memoryview, digest: Digest) -> None:
        """Fill `room` with a chunk's contents, which are as long; they are not kept. NotFound, Corrupt."""
        kept = self._chunks.find(digest)
        if kept is not None:
            if len(kept) != len(room):
                raise Corrupt(f"object {hexed(digest)} has {len(kept)} bytes instead of {len(room)}")
            room[:] = kept
            return

        def unpack_there(codec: int, stored: memoryview, length: int) -> None:
            """Unpack a record straight into the room; a delta by way of what it is a delta of."""
            if codec == Codec.DELTA:
                stored, codec = memoryview(self.unpacked(codec, stored, length)), Codec.RAW
            unpack_into(room, codec, stored, length)

        self._read(digest, unpack_there)

    def get_many(self, digests: Sequence[Digest]) -> list[bytes | memoryview]:
        """What `get` gives for each of these: found, read and unpacked together, at a fraction of the cost. Not kept."""
        with self._index.read() as txn:
            rows = [txn.get(digest, db=self._index.objects) for digest in digests]
        try:
            return self._got(digests, [row for row in rows if row is not None])
        except (Corrupt, ValueError):
            # One is missing or damaged, or gc has moved it meanwhile: one by one it is found, or said which.
            return [self.get(digest) for digest in digests]

    def _got(self, digests: Sequence[Digest], rows: Sequence[bytes]) -> list[bytes | memoryview]:
        """The objects of these index rows. Corrupt; ValueError where there are fewer rows, or a delta."""
        table = np.frombuffer(b"".join(rows), _ROWS)
        # A delta is put together from others.
        if len(table) != len(digests) or (table["codec"] == Codec.DELTA).any():
            raise ValueError("not all are objects that stand for themselves")
        columns = (table[name].tolist() for name in ("segment", "offset", "length", "codec", "raw", "check"))
        segments, offsets, lengths, codecs, raw, checks = columns
        stored = self._segments.read_objects(list(zip(segments, offsets, lengths, strict=True)), digests)
        if list(map(checksum, stored)) != checks:
            raise Corrupt("its bytes have changed since they were written")
        return unpack_many(list(zip(codecs, stored, raw, strict=True)))

    def unpacked(self, codec: int, stored: bytes | memoryview, length: int) -> bytes | memoryview:
        """The `length` bytes that a record's payload stands for; Corrupt, NotFound (the other chunk of a delta)."""
        if codec != Codec.DELTA:
            return unpack(codec, stored, length)
        delta = Delta.decode(stored)
        return patched(self.joined(delta.bases), delta.frame, length)

    def joined(self, digests: Sequence[Digest]) -> bytes | memoryview:
        """The contents of chunks, one after the other."""
        parts = [self.chunk(digest) for digest in digests]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _row(self, digest: Digest) -> bytes | None:
        with self._index.read() as txn:
            return txn.get(digest, db=self._index.objects)

    def in_use(self) -> set[Digest]:
        """The chunks that readers here may still ask for."""
        while True:
            with suppress(RuntimeError):  # another thread opened a file meanwhile
                return {chunk.digest for reader in list(self.readers) for chunk in reader.chunks}

    def chunk(self, digest: Digest) -> bytes | memoryview:
        """A chunk's contents, kept in memory for the next reads of its neighbourhood."""
        found = self._chunks.find(digest)
        if found is not None:
            return found
        with self._lock:
            loaded = self._loading.get(digest)
            if loaded is None:
                self._loading[digest] = threading.Event()
        if loaded is not None:  # another thread is at it: readers in sequence ask for both halves of a chunk at once
            loaded.wait()
            return self._chunks[digest]
        try:
            return self._chunks[digest]
        finally:
            with self._lock:
                self._loading.pop(digest).set()

    def _load_chunk(self, digest: Digest) -> tuple[bytes | memoryview, int]:
        found = self.get(digest)
        return found, len(found)

    def at_hand(self, chunk: ChunkRef) -> bool:
        """Whether `chunk` would answer without waiting for the disk.

        A short one is brought into memory for that if the kernel has its bytes: it is read faster than a thread is reached.
        """
        if chunk.digest in self._chunks:
            return True
        row = self._row(chunk.digest) if chunk.length <= SHORT else None
        if row is None:
            return False
        try:
            place, raw_length, codec, check = _parsed(row)
            if codec == Codec.DELTA:
                return False  # what it stands on is another read
            stored = self._segments.object_at_once(place, chunk.digest)
            if stored is not None:
                _require_unchanged(stored, check)
                self._chunks.put(chunk.digest, unpack(codec, stored, raw_length), raw_length)
        except Corrupt:
            return False  # whoever reads it is told
        return stored is not None

    def passing(self, digest: Digest) -> Node:
        """A decoded tree node for those who come by once: a leaf that is not kept yet is not kept for that.

        Whoever lists a large map would push out everything else, and leave all its leaves in memory.
        """
        node = self._nodes.find(digest)
        if node is None:
            node, size = self._load_node(digest)
            if node.level:
                self._nodes.put(digest, node, size)
        return node

    def empty_caches(self) -> None:
        """Keep nothing in memory of what can be read again."""
        self._nodes.empty()
        self._chunks.empty()

    def nodes(self, digests: Sequence[Digest], *, keep: bool = True) -> list[Node]:
        """The decoded tree nodes of these digests; what is not in memory is loaded at once, and kept if `keep`."""
        found = {digest: self._nodes.find(digest) for digest in digests}
        missing = [digest for digest, node in found.items() if node is None]
        for digest, data in zip(missing, self.get_many(missing) if missing else (), strict=True):
            node, size = _decoded(digest, data)
            found[digest] = node
            if keep:
                self._nodes.put(digest, node, size)
        return [found[digest] for digest in digests]  # type: ignore[misc]  # no None is left

    def _load_node(self, digest: Digest) -> tuple[Node, int]:
        return _decoded(digest, self.get(digest))

    def commit(self, digest: Digest) -> Commit:
        """A commit record; NotFound when the digest is not that of a commit."""
        return self._commits[digest]

    def _load_commit(self, digest: Digest) -> tuple[Commit, int]:
        with self._index.read() as txn:
            if txn.get(digest, db=self._index.commits) is None:
                raise NotFound(f"no commit {hexed(digest)} is stored here")
        data = bytes(self.get(digest))
        return decode_commit(data), len(data) + 500

    def put_nodes(self, fresh: Sequence[tuple[Digest, bytes]]) -> None:
        """Store tree nodes."""
        for first in range(0, len(fresh), _NODES):
            self._put(RecordKind.NODE, fresh[first : first + _NODES])

    def put_chunk(self, data: bytes | memoryview, itemsize: int = 1, compression: str = "") -> Digest:
        """Store a chunk and return its digest; `compression` as of `pack`."""
        digest = blake(data)
        self._put(RecordKind.CHUNK, [(digest, data)], itemsize, compression)
        return digest

    def packed(self, data: bytes | memoryview, itemsize: int, compression: str) -> tuple[Digest, Record | None]:
        """A chunk's digest and the record that `put_packed` stores; None where it is stored already. For any thread."""
        digest = blake(data)
        if self.is_kept(digest):
            return digest, None
        codec, stored = pack(data, itemsize, compression)
        return digest, Record(RecordKind.CHUNK, [stored], len(data), digest, codec=codec)

    def put_packed(self, records: Iterable[Record]) -> None:
        """Store chunks that are packed, in one transaction; what was stored meanwhile is not stored again."""
        with self._index.read() as txn:
            once = {record.digest: record for record in records if not self._is_kept(txn, record.digest)}
        if once:
            self._append(list(once.values()))

    def put_delta(self, digest: Digest, data: bytes | memoryview, bases: Sequence[Digest], itemsize: int = 1) -> bool:
        """Store a chunk as a delta against others, or against the full ones that these lead to; whether that pays.

        If it does not, nothing is stored.
        """
        if len(data) < DELTA_MIN or not bases or not self._may_stand_on(digest, bases):
            return False
        depth = max(self._depth(base) for base in bases)
        if depth >= CHAIN_MAX:
            depth, bases = 0, self._full(bases)
        if len(bases) > BASES_MAX:
            return False
        payload = Delta(depth + 1, tuple(bases), difference(self.joined(bases), data)).encode()
        if len(payload) > len(data) * WORTH:
            return False
        if len(payload) > len(data) // 10 and len(pack(data, itemsize)[1]) <= len(payload):
            return False
        self._append([Record(RecordKind.CHUNK, [payload], len(data), digest, codec=Codec.DELTA)])
        return True

    def _may_stand_on(self, digest: Digest, bases: Sequence[Digest]) -> bool:
        # What gc has marked may itself stand on what is stored here anew: never two on each other.
        with self._index.read() as txn:
            if txn.get(digest, db=self._index.objects) is not None:
                return False
            return all(txn.get(base, db=self._index.condemned) is None for base in bases)

    def _depth(self, digest: Digest) -> int:
        delta = self.delta(digest)
        return 0 if delta is None else delta.depth

    def _full(self, digests: Sequence[Digest]) -> list[Digest]:
        """The full chunks that these are made of in the end, in order, each once."""
        found: dict[Digest, None] = {}
        for digest in digests:
            delta = self.delta(digest)
            found.update(dict.fromkeys([digest] if delta is None else self._full(delta.bases)))
        return list(found)

    def delta(self, digest: Digest) -> Delta | None:
        """What a chunk is stored as, None where that is its contents. NotFound, Corrupt."""
        row = self._row(digest)
        while row is not None:
            place, _, codec, _ = _parsed(row)
            if codec != Codec.DELTA:
                return None
            try:
                return Delta.decode(self._segments.read_object(place, digest))
            except Corrupt:
                before, row = row, self._row(digest)
                if row == before:
                    raise
                # gc moved it between the two steps.
        raise NotFound(f"no object {hexed(digest)} is stored here")

    def deltas(self, digests: Iterable[Digest]) -> Iterator[Delta]:
        """The deltas among what is stored under `digests`; whatever is missing is passed over. Corrupt."""
        with self._index.read() as txn:
            rows = [(digest, txn.get(digest, db=self._index.objects)) for digest in digests]
        for digest, row in rows:
            if row is not None and _parsed(row)[2] == Codec.DELTA:
                delta = self.delta(digest)
                if delta is not None:
                    yield delta

    def put_chunks(self, many: Sequence[bytes], itemsize: int = 1) -> list[Digest]:
        """Store many small chunks of numbers of `itemsize` bytes and return their digests, in order."""
        objects = [(blake(data), data) for data in many]
        for first in range(0, len(objects), 256):
            self._put(RecordKind.CHUNK, objects[first : first + 256], itemsize)
        return [digest for digest, _ in objects]

    def put_chunk_list(self, data: bytes) -> Digest:
        """Store a long list of chunks and return its digest."""
        digest = blake(data)
        self._put(RecordKind.CHUNK_LIST, [(digest, data)])
        return digest

    def put_commit(self, commit: Commit) -> Digest:
        """Store a commit record and return its digest, which is the commit's name."""
        data = encode_commit(commit)
        digest = blake(data)
        self._put(RecordKind.COMMIT, [(digest, data)])
        return digest

    def is_kept(self, digest: Digest) -> bool:
        """Whether something is stored under `digest` that gc is not about to delete."""
        with self._index.read() as txn:
            return self._is_kept(txn, digest)

    def has_all(self, digests: Sequence[Digest]) -> bool:
        """Whether something is stored under each of these, and whatever it is a delta against."""
        with self._index.read() as txn:
            if any(txn.get(digest, db=self._index.objects) is None for digest in digests):
                return False
        return all(self.has_all(delta.bases) for delta in self.deltas(digests))

    def _put(
        self,
        kind: RecordKind,
        objects: Sequence[tuple[Digest, bytes | memoryview]],
        itemsize: int = 1,
        compression: str = "",
    ) -> None:
        with self._index.read() as txn:
            new = {digest: data for digest, data in objects if not self._is_kept(txn, digest)}
        if not new:
            return
        if itemsize == 1 and not compression:
            packed = pack_many(list(new.values()))
        else:
            packed = [pack(data, itemsize, compression) for data in new.values()]
        self._append(
            [
                Record(kind, [stored], len(data), digest, codec=codec)
                for (digest, data), (codec, stored) in zip(new.items(), packed, strict=True)
            ]
        )

    def _append(self, records: Sequence[Record]) -> None:
        with self._log.objects(records) as (txn, placed):
            marked = self._index.rows(txn, self._index.condemned) > 0
            for record, (place, check) in zip(records, placed, strict=True):
                known = marked or txn.get(record.digest, db=self._index.objects) is not None
                if known and not self._is_kept(txn, record.digest):
                    # gc may have the old copy's segment half rewritten: the new copy is the one that stays.
                    txn.delete(record.digest, db=self._index.condemned)
                    txn.delete(record.digest, db=self._index.objects)
                index_object(
                    self._index, txn, record.kind, record.codec, record.raw_length, record.digest, place, check
                )

    def _is_kept(self, txn: Txn, digest: Digest) -> bool:
        """Whether an object is stored, and neither it nor what it stands on is about to be deleted."""
        row = txn.get(digest, db=self._index.objects)
        if row is None or txn.get(digest, db=self._index.condemned) is not None:
            return False
        if _parsed(row)[2] != Codec.DELTA:
            return True
        try:
            delta = self.delta(digest)
        except (Corrupt, NotFound):
            return False
        return delta is None or all(self._is_kept(txn, base) for base in delta.bases)


def index_object(
    index: Index, txn: Txn, kind: int, codec: int, raw_length: int, digest: Digest, place: Place, check: int
) -> None:
    """Enter an object into the index. A copy that is already there stays."""
    row = object_row(place, raw_length, kind, codec, check)
    txn.put(digest, row, overwrite=False, db=index.objects)
