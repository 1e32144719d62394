"""Cutting contents into chunks, and making chunks small.

Chunks are cut where the content says so (FastCDC 2020: Xia et al., "The Design of Fast Content-Defined Chunking for
Data Deduplication Based Storage Systems", IEEE TPDS 2020; library pyfastcdc), so that bytes inserted in the middle
of a file leave all chunks but their neighbours as they were. The cut points are part of the format: the same
contents must always give the same chunks.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from operator import ne

import numpy as np
import zstandard
from numcodecs import blosc
from pyfastcdc import FastCDC

from storage.errors import Corrupt
from storage.model.digest import DIGEST_SIZE, Digest
from storage.model.samples import Source

INLINE_MAX = 4096
"""Contents up to this many bytes live inside the tree's leaves."""

STAGED_INLINE_MAX = 1 << 16
"""Staged contents up to this many bytes wait in the journal; the commit makes a chunk of those above INLINE_MAX."""

CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX = 1 << 18, 1 << 20, 1 << 22
UNPACKED_MAX = 1 << 28
"""No packed record holds more bytes: chunks have at most CHUNK_MAX, the longest lists of chunks a few million."""
THREADS = min(8, os.cpu_count() or 1)
MANY = 32
"""From so many at once on, packing them in threads pays for the threads."""
LIST_MAX = 64
"""A longer list of chunks is an object of its own."""

_cutter = FastCDC(CHUNK_AVERAGE, min_size=CHUNK_MIN, max_size=CHUNK_MAX, normalized_chunking=1, seed=0)
_LENGTH = 4
_ITEM = DIGEST_SIZE + _LENGTH
_WORTH = 0.9  # a chunk that does not shrink below this is kept raw: reading it then costs no decoding

# One thread per call and no global pool: a pool carried across fork would hang the child.
blosc.use_threads = False
_blosc = blosc.Blosc("lz4", clevel=5, shuffle=blosc.SHUFFLE)
_BLOSC = struct.Struct("<BBBBIII")
_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}


class _Zstd(threading.local):
    """Zstandard's contexts: each thread has its own. Made anew for every leaf of a tree they would cost as much as the work."""

    def __init__(self) -> None:
        packing, unpacking = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
        self.pack, self.unpack = packing.compress, unpacking.decompress
        self.pack_many, self.unpack_many = packing.multi_compress_to_buffer, unpacking.multi_decompress_to_buffer


_zstd = _Zstd()


class Codec(IntEnum):
    """How a record's payload is packed."""

    RAW = 0
    ZSTD = 1
    BLOSC = 2
    DELTA = 3
    """Against another chunk: see storage/model/deltas.py."""


COMPRESSIONS = ("", "none", "lz4", "zstd")
"""What a dataset may ask for; nothing: what fits its values."""


def pack(data: bytes | memoryview, itemsize: int = 1, wanted: str = "") -> tuple[Codec, bytes | memoryview]:
    """`data` packed as `wanted`, one of COMPRESSIONS; without a wish with Blosc (shuffled LZ4) for items of 2 to 16 bytes,
    else with Zstandard.

    Data that would not become a tenth smaller are returned as they are.
    """
    if len(data) < 128 or wanted == "none":
        return Codec.RAW, data
    word = _WORDS.get(itemsize, np.uint8 if wanted == "lz4" else None)
    if word is not None and len(data) % np.dtype(word).itemsize == 0 and wanted != "zstd":
        codec, packed = Codec.BLOSC, _blosc.encode(np.frombuffer(data, word))
    else:
        codec, packed = Codec.ZSTD, _zstd.pack(data)
    return (codec, packed) if len(packed) < len(data) * _WORTH else (Codec.RAW, data)


def pack_many(many: Sequence[bytes | memoryview]) -> list[tuple[Codec, bytes | memoryview]]:
    """What `pack` gives for each of these, which are no numbers; many of them in threads of the library's own."""
    long: list[bytes | bytearray | memoryview] = [data for data in many if len(data) >= 128]
    if len(long) < MANY:
        return [pack(data) for data in many]
    frames = iter(_views(_zstd.pack_many(long, threads=THREADS)))
    packed: list[tuple[Codec, bytes | memoryview]] = []
    for data in many:
        frame = next(frames) if len(data) >= 128 else data
        packed.append((Codec.ZSTD, frame) if len(frame) < len(data) * _WORTH else (Codec.RAW, data))
    return packed


def unpack_many(many: Sequence[tuple[int, memoryview, int]]) -> list[bytes | memoryview]:
    """What `unpack` gives for each of these; those of Zstandard in one call, which lets other threads run. Corrupt."""
    packed = [(data, length) for codec, data, length in many if codec == Codec.ZSTD]
    frames = _unpacked_frames([data for data, _ in packed], [length for _, length in packed])
    if len(frames) == len(many):
        return frames
    rest = iter(frames)
    return [next(rest) if codec == Codec.ZSTD else unpack(codec, data, length) for codec, data, length in many]


def _unpacked_frames(frames: Sequence[memoryview], lengths: Sequence[int]) -> list[bytes | memoryview]:
    if not frames:
        return []
    try:
        if max(lengths) > UNPACKED_MAX or any(map(ne, map(zstandard.frame_content_size, frames), lengths)):
            raise Corrupt("the header of a packed record contradicts its length")
        plain = _zstd.unpack_many(list(frames), decompressed_sizes=np.array(lengths, np.uint64).tobytes())
    except (zstandard.ZstdError, ValueError, TypeError, MemoryError) as error:
        raise Corrupt(f"a record cannot be unpacked: {error}") from error
    return _views(plain)


def _views(collection: zstandard.BufferWithSegmentsCollection) -> list[bytes | memoryview]:
    return list(map(memoryview, collection))  # type: ignore[call-overload]  # its stubs lack it


def unpack(codec: int, data: bytes | memoryview, length: int) -> bytes | memoryview:
    """The `length` bytes that pack was given; Corrupt when they do not come out."""
    if codec == Codec.RAW:
        plain: bytes | memoryview = data
    else:
        if codec not in (Codec.ZSTD, Codec.BLOSC):
            raise Corrupt(f"a record is packed with codec {codec}, which this version does not know")
        if length > UNPACKED_MAX:
            raise Corrupt(f"a record says that it unpacks to {length} bytes, which none does")
        try:
            plain = _unpack_zstd(data, length) if codec == Codec.ZSTD else _unpack_blosc(data, length)
        except Corrupt:
            raise
        except (zstandard.ZstdError, RuntimeError, ValueError, SystemError, MemoryError) as error:
            raise Corrupt(f"a record cannot be unpacked: {error}") from error
    if len(plain) != length:
        raise Corrupt(f"a record unpacks to {len(plain)} bytes instead of {length}")
    return plain


def unpack_into(room: memoryview, codec: int, data: memoryview, length: int) -> None:
    """Fill `room` with the bytes that pack was given, without a copy where the codec can do that; Corrupt unless they fit.

    What `room` holds after an error is undefined.
    """
    if length != len(room):
        raise Corrupt(f"a record says that it unpacks to {length} bytes instead of {len(room)}")
    if codec != Codec.BLOSC:
        room[:] = unpack(codec, data, length)
        return
    try:
        _require_blosc(data, length)
        _blosc.decode(data, room)
    except (RuntimeError, ValueError, SystemError, MemoryError) as error:
        raise Corrupt(f"a record cannot be unpacked: {error}") from error


def _unpack_zstd(data: bytes | memoryview, length: int) -> bytes:
    """Corrupt unless the frame itself says that it holds `length` bytes: so many are set aside before it is unpacked."""
    if zstandard.frame_content_size(data) != length:
        raise Corrupt("the header of a packed record contradicts its length")
    return _zstd.unpack(data, allow_extra_data=False)


def _unpack_blosc(data: bytes | memoryview, length: int) -> bytes:
    _require_blosc(data, length)
    return _blosc.decode(data)  # type: ignore[no-any-return]


def _require_blosc(data: bytes | memoryview, length: int) -> None:
    """Corrupt unless the header of a Blosc buffer is true: the library believes what it says of lengths.

    Format: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
    """
    if len(data) < _BLOSC.size:
        raise Corrupt("a record is shorter than its packing's header")
    _, _, _, _, plain, block, packed = _BLOSC.unpack_from(data)
    if plain != length or packed != len(data) or not 0 < block <= max(plain, 1):
        raise Corrupt("the header of a packed record contradicts its lengths")


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A chunk of known contents."""

    digest: Digest
    length: int


@dataclass(frozen=True, slots=True)
class FreshChunk:
    """A chunk that was cut anew: its contents are to be stored."""

    data: memoryview

    @property
    def length(self) -> int:
        """Its length in bytes."""
        return len(self.data)


def encode_chunks(chunks: Sequence[ChunkRef]) -> bytes:
    """A list of chunks as bytes: digest (32) and length (u32) each."""
    return b"".join(chunk.digest + chunk.length.to_bytes(_LENGTH, "little") for chunk in chunks)


def decode_chunks(data: bytes | memoryview) -> list[ChunkRef]:
    """The list that encode_chunks wrote; Corrupt for anything else."""
    if len(data) % _ITEM:
        raise Corrupt("a list of chunks has the wrong length")
    raw = bytes(data)
    return [
        ChunkRef(Digest(raw[at : at + DIGEST_SIZE]), int.from_bytes(raw[at + DIGEST_SIZE : at + _ITEM], "little"))
        for at in range(0, len(raw), _ITEM)
    ]


def first_cuts(window: memoryview, at_end: bool) -> list[int]:
    """Lengths of the chunks that `window` begins with; the last one is left out unless the contents end there."""
    lengths = [chunk.length for chunk in _cutter.cut_buf(window)]
    return lengths if at_end else lengths[:-1]


def cut(source: Source, start: int = 0) -> Iterator[ChunkRef | FreshChunk]:
    """Cut what `source` holds from `start` on into chunks, in order.

    Where the source is an edited version of stored contents, chunks without changes are named, not read: the cost is
    that of the changed ranges. The chunks are the same as those of cutting everything.
    """
    known = _known_chunks(source, start)
    position = start
    window = memoryview(b"")
    lengths: list[int] = []
    while position < source.size:
        kept = known.get(position)
        if kept is not None:
            window, lengths = memoryview(b""), []
            position += kept.length
            yield kept
            continue
        if not lengths:
            window = memoryview(source.read(position, 4 * CHUNK_MAX))
            lengths = first_cuts(window, position + len(window) >= source.size)
        length = lengths.pop(0)
        yield FreshChunk(window[:length])
        window = window[length:]
        position += length


def _known_chunks(source: Source, start: int) -> dict[int, ChunkRef]:
    """Position → chunk of the base version, for those that `source` still has unchanged."""
    base = source.base
    if base is None or start != base.payload_offset:
        return {}
    chunks = base.chunks
    known: dict[int, ChunkRef] = {}
    dirty = _with_tail(source.dirty, base.size, source.size)
    starts = [0]
    for chunk in chunks:
        starts.append(starts[-1] + chunk.length)
    at = 0
    for chunk, (first, last) in zip(chunks, pairwise(starts), strict=True):
        first, last = first + start, last + start
        while at < len(dirty) and dirty[at][1] <= first:
            at += 1
        # The last chunk ended because the contents did: it is the same only if they still end there.
        ended = last == base.size and source.size != base.size
        if last <= source.size and not ended and (at == len(dirty) or dirty[at][0] >= last):
            known[first] = chunk
    return known


def _with_tail(dirty: Sequence[tuple[int, int]], old: int, new: int) -> list[tuple[int, int]]:
    ranges = sorted(r for r in dirty if r[0] < r[1])
    if old != new:
        ranges.append((min(old, new), max(old, new)))
        ranges.sort()
    merged: list[tuple[int, int]] = []
    for first, last in ranges:
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
