"""Contents of files and samples: reading them piece by piece, and storing new ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from storage.disk.segments import checksum
from storage.errors import Corrupt, NotFound
from storage.model.chunking import (
    INLINE_MAX,
    LIST_MAX,
    STAGED_INLINE_MAX,
    ChunkRef,
    FreshChunk,
    cut,
    decode_chunks,
    encode_chunks,
)
from storage.model.deltas import Alignment
from storage.model.digest import Digest, blake
from storage.model.dtypes import dtype_of
from storage.model.records import CHUNKED, INDIRECT, PLAIN, Attributes, Entry, Kind, Place, Schema
from storage.model.samples import HEADER_MAX, Source, file_header, read_file_form
from storage.stores.objects import Objects

FLAGS = CHUNKED | INDIRECT
MISSES = 8
"""After so many chunks in a row that were not like the old version's, no more are compared."""


class Content:
    """The file form of a stored file or sample. Immutable: it reads the same whatever happens to the tree. Thread-safe."""

    __slots__ = ("__weakref__", "_head", "_inline", "_objects", "_starts", "chunks", "size")

    def __init__(self, objects: Objects, size: int, head: bytes, inline: bytes, chunks: Sequence[ChunkRef]) -> None:
        self.size = size
        self.chunks = chunks
        self._objects = objects
        self._head = head
        self._inline = inline
        self._starts: Sequence[int] = ()
        at = len(head) + len(inline)
        if chunks:
            *self._starts, at = accumulate((chunk.length for chunk in chunks), initial=at)
            objects.readers.add(self)
        if at != size:
            raise Corrupt(f"an entry says it has {size} bytes, its contents have {at}")

    @property
    def payload_offset(self) -> int:
        """Where the contents begin behind the header."""
        return len(self._head)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """`size` bytes from `offset`, fewer only at the end. Corrupt where the stored bytes have changed."""
        end = min(offset + size, self.size)
        if offset >= end or offset < 0:
            return b""
        if not self.chunks:
            return self._small(offset, end)
        parts: list[bytes | memoryview] = []
        if offset < len(self._head):
            parts.append(self._head[offset:end])
            offset = len(self._head)
        while offset < end:
            at = bisect_right(self._starts, offset) - 1
            start = self._starts[at]
            piece = memoryview(self._objects.chunk(self.chunks[at].digest))[offset - start : end - start]
            if not piece:
                raise Corrupt(f"chunk {self.chunks[at].digest.hex()} is shorter than the list of chunks says")
            parts.append(piece)
            offset += len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def piece(self, offset: int, size: int) -> bytes | memoryview:
        """The first bytes of what `read` gives, as many as lie together: nothing is copied to join them. Empty only at the
        end.
        """
        at = bisect_right(self._starts, offset)
        end = self._starts[at] if at < len(self._starts) else self.size
        return self.read(offset, min(size, end - offset))

    def _small(self, offset: int, end: int) -> bytes:
        if not self._head:
            return self._inline if offset == 0 and end == self.size else self._inline[offset:end]
        return (self._head + self._inline)[offset:end]

    def ready(self, offset: int, size: int) -> bool:
        """Whether `read` would answer without waiting for the disk."""
        if not self.chunks or offset >= self.size:
            return True
        end = min(offset + size, self.size)
        at = max(bisect_right(self._starts, offset) - 1, 0)
        while at < len(self.chunks) and self._starts[at] < end:
            if not self._objects.at_hand(self.chunks[at]):
                return False
            at += 1
        return True

    def prefetch(self, offset: int, end: int) -> None:
        """Bring the chunks from `offset` to `end` into memory; nothing happens behind the end of the file."""
        at = max(bisect_right(self._starts, offset) - 1, 0)
        while at < len(self.chunks) and self._starts[at] < end:
            self._objects.chunk(self.chunks[at].digest)
            at += 1

    def payload(self) -> bytes | memoryview:
        """Everything behind the header."""
        if not self.chunks:
            return self._inline
        return self.read(len(self._head), self.size)


def open_content(objects: Objects, entry: Entry, value: bytes, schema: Schema | None) -> Content:
    """The contents of an entry whose value is `value`, under the schema of its directory."""
    attributes, flags = entry.attributes, entry.flags
    head = attributes.header
    if head is None:
        head = file_header(schema, attributes) if entry.kind is Kind.SAMPLE else b""
    if not flags & FLAGS:
        return Content(objects, entry.size, head, value, ())
    return Content(objects, entry.size, head, b"", _chunks(objects, flags, value))


def payload_of(objects: Objects, flags: int, value: bytes) -> bytes | memoryview:
    """What an entry with those flags and that value holds, without a sample's header."""
    if not flags & FLAGS:
        return value
    pieces = [objects.chunk(chunk.digest) for chunk in _chunks(objects, flags, value)]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def put_payload_into(room: memoryview, objects: Objects, flags: int, value: bytes) -> bool:
    """Fill `room` with what payload_of gives, without keeping it; False, and nothing is done, where it is of another length."""
    if not flags & FLAGS:
        if len(value) == len(room):
            room[:] = value
        return len(value) == len(room)
    chunks = _chunks(objects, flags, value)
    if sum(chunk.length for chunk in chunks) != len(room):
        return False
    at = 0
    for chunk in chunks:
        objects.put_into(room[at : at + chunk.length], chunk.digest)
        at += chunk.length
    return True


def same_contents(objects: Objects, old: Entry, new: Entry) -> bool:
    """Whether two versions of a file, link or sample have the same file form.

    True is only told of the same bytes (where one of them lies in a journal that may be gone, or is remembered by its
    checksum alone: of the same length and checksum, 64 bits). False may be told of the same bytes cut into other chunks,
    or where they cannot be read.
    """
    a, b = old.attributes, new.attributes
    if (old.kind, old.size, a.header, a.shape) != (new.kind, new.size, b.header, b.shape):
        return False
    if old.flags == new.flags:
        if isinstance(old.value, bytes) and isinstance(new.value, bytes):
            return old.value == new.value
        return value_check(old.value) == value_check(new.value)
    try:
        # A commit makes chunks of what lay in a journal: short enough to be read.
        return _payload_check(objects, old) == _payload_check(objects, new)
    except (Corrupt, NotFound):
        return False


def settled_value(entry: Entry, value: bytes) -> tuple[int, bytes]:
    """Flags and value that the entry of a file or sample has once it is committed, where `value` is what it has now.

    Equal ones hold the same bytes, whether one of them is still staged or not.
    """
    if entry.flags & FLAGS or len(value) <= INLINE_MAX or entry.kind is Kind.SYMLINK:
        return entry.flags, value
    return CHUNKED, encode_chunks([ChunkRef(blake(value), len(value))])


def _payload_check(objects: Objects, entry: Entry) -> int:
    if not entry.flags & FLAGS:
        return value_check(entry.value)
    if isinstance(entry.value, Place) or entry.size > STAGED_INLINE_MAX + HEADER_MAX:
        raise NotFound("a long list of chunks is never what short contents have become")
    return checksum(payload_of(objects, entry.flags, entry.value))


def value_check(value: bytes | Place) -> int:
    """The checksum of a value, wherever it lies."""
    return value.check if isinstance(value, Place) else checksum(value)


def chunks_of(objects: Objects, entry: Entry, value: bytes) -> list[ChunkRef]:
    """The chunks of an entry whose value is `value`; none where its contents are short."""
    return _chunks(objects, entry.flags, value) if entry.flags & FLAGS else []


def _chunks(objects: Objects, flags: int, value: bytes) -> list[ChunkRef]:
    return decode_chunks(objects.get(Digest(value)) if flags & INDIRECT else value)


def contents_digests(objects: Objects, flags: int, value: bytes) -> Iterator[Digest]:
    """The objects that hold the contents of an entry with those flags and that value. NotFound where a list is gone."""
    if flags & INDIRECT:
        yield Digest(value)
    if flags & FLAGS:
        yield from (chunk.digest for chunk in _chunks(objects, flags, value))


def inline_max(itemsize: int, compression: str) -> int:
    """Up to so many bytes are contents staged as they are, without a chunk."""
    # Numbers of several bytes are packed by their width, which only who stages them knows: a commit could not.
    return STAGED_INLINE_MAX if itemsize == 1 and not compression else INLINE_MAX


def is_here(objects: Objects, flags: int, value: bytes) -> bool:
    """Whether all is stored that holds the contents of an entry with those flags and that value. Reads none of it."""
    if not flags & FLAGS:
        return True
    try:
        return objects.has_all(list(contents_digests(objects, flags, value)))
    except NotFound:
        return False


def store_payload(
    objects: Objects,
    source: Source,
    start: int,
    itemsize: int,
    before: Sequence[ChunkRef] = (),
    compression: str = "",
) -> tuple[int, bytes]:
    """Store what `source` holds from `start` on: the flags and value of its entry. Long contents become chunks.

    `itemsize` is that of its numbers, in bytes; `before` are the chunks of the version that is replaced. With a `compression`
    (see chunking.pack) nothing is stored as a delta.
    """
    if source.size - start <= inline_max(itemsize, compression):
        return 0, bytes(source.read(start, source.size - start))
    if compression:
        before = ()
    elif not before and source.base is not None:
        before = source.base.chunks
    chain = _Successor(objects, itemsize, before, compression)
    pieces = cut(source, start)
    chunks = [chain.kept(piece) if isinstance(piece, ChunkRef) else chain.stored(piece) for piece in pieces]
    value = encode_chunks(chunks)
    if len(chunks) <= LIST_MAX:
        return CHUNKED, value
    return INDIRECT, objects.put_chunk_list(value)


class _Successor:
    """Stores the chunks of a new version, in order: those that are like one of the old version as deltas."""

    def __init__(self, objects: Objects, itemsize: int, before: Sequence[ChunkRef], compression: str) -> None:
        self._objects = objects
        self._compression = compression
        self._itemsize = itemsize
        self._before = Alignment(before) if before else None
        self._position = 0
        self._misses = 0

    def kept(self, chunk: ChunkRef) -> ChunkRef:
        """A chunk of the old version."""
        if self._before is not None:
            self._before.passed(chunk.digest, self._position)
        self._position += chunk.length
        return chunk

    def stored(self, chunk: FreshChunk) -> ChunkRef:
        """Store a chunk that was cut anew."""
        if self._before is None or self._misses >= MISSES:
            digest = self._objects.put_chunk(chunk.data, self._itemsize, self._compression)
            return ChunkRef(digest, chunk.length)
        digest = blake(chunk.data)
        if self._objects.is_kept(digest):
            return self.kept(ChunkRef(digest, chunk.length))
        if self._like_before(self._before, digest, chunk):
            self._misses = 0
        else:
            self._misses += 1
            self._objects.put_chunk(chunk.data, self._itemsize)
        self._position += chunk.length
        return ChunkRef(digest, chunk.length)

    def _like_before(self, before: Alignment, digest: Digest, chunk: FreshChunk) -> bool:
        """Whether the chunk could be stored as a delta."""
        bases = before.bases(self._position, chunk.length)
        try:
            if not self._objects.put_delta(digest, chunk.data, [base.digest for base in bases], self._itemsize):
                return False
            old = self._objects.joined([base.digest for base in bases])
        except (Corrupt, NotFound):
            return False  # the old version cannot be read: the new one stands for itself
        before.compared(bases, old, self._position, chunk.data)
        return True


def store_sample(
    objects: Objects, source: Source, schema: Schema, what: str, before: Sequence[ChunkRef] = ()
) -> tuple[int, bytes, Attributes]:
    """Check a sample's file form against its schema and store it: flags, value and what is kept of its header."""
    header, kept = read_file_form(schema, source, what)
    itemsize = dtype_of(schema.dtype).itemsize
    flags, value = store_payload(objects, source, header.length, itemsize, before, schema.compression)
    return flags, value, kept


def stored_entry(
    objects: Objects,
    source: Source,
    schema: Schema | None,
    what: str,
    mtime: int,
    attributes: Attributes = PLAIN,
    before: Sequence[ChunkRef] = (),
    compression: str = "",
) -> Entry:
    """Store a file's contents; the entry to stage. With a schema it must be a sample: SchemaMismatch, InvalidSample.

    `attributes` gives mode, owner and xattrs; header and shape come from the contents. `before` are the chunks of what
    is replaced.
    """
    kept = Attributes(attributes.mode, attributes.uid, attributes.gid, attributes.xattrs)
    if schema is None:
        flags, value = store_payload(objects, source, 0, 1, before, compression)
        return Entry(Kind.FILE, source.size, mtime, kept, flags, value)
    flags, value, found = store_sample(objects, source, schema, what, before)
    with_header = Attributes(kept.mode, kept.uid, kept.gid, kept.xattrs, found.header, found.shape)
    return Entry(Kind.SAMPLE, source.size, mtime, with_header, flags, value)
