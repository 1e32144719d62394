"""Chunks as deltas against chunks of the version before: scattered small changes in a large file cost what changed.

A delta is a Zstandard frame made with the other chunk's contents as a raw-content dictionary (RFC 8878, section 5).
Chunks are cut by content, so a chunk of a new version mostly begins and ends where one of the old version did;
`Alignment` says which it overlaps, also behind what was inserted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import zstandard

from storage.errors import Corrupt
from storage.model.chunking import ChunkRef
from storage.model.digest import DIGEST_SIZE, Digest

DELTA_MIN = 1 << 14
"""Chunks shorter than this are stored in full."""
BASES_MAX = 8
OVERLAP_MIN = 16
"""Of the old chunks, only those that overlap this part of a new one are of use: 1 / 16."""
CHAIN_MAX = 8
"""A chunk is read by way of at most so many others."""
WORTH = 0.5
"""A delta longer than this part of what it stands for is not worth being put together at each read."""
_TABLE_MIN, _TABLE_MAX, _WINDOW_MIN = 15, 22, 10
_TAIL, _TAILS = 64, (0, 4096, 16384, 65536)


@dataclass(frozen=True, slots=True)
class Delta:
    """A chunk's contents as what differs from other chunks, joined; the farthest full one is `depth` deltas away."""

    depth: int
    bases: tuple[Digest, ...]
    frame: bytes | memoryview

    def encode(self) -> bytes:
        """As a record's payload: depth (u8), number of other chunks (u8), their digests (32 each), frame."""
        return bytes((self.depth, len(self.bases))) + b"".join(self.bases) + bytes(self.frame)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Delta:
        """What encode wrote; Corrupt for anything else."""
        depth, count = (data[0], data[1]) if len(data) > 2 else (0, 0)
        start = 2 + count * DIGEST_SIZE
        if not 1 <= depth <= CHAIN_MAX or not 1 <= count <= BASES_MAX or len(data) <= start:
            raise Corrupt("the head of a delta cannot be read")
        bases = tuple(Digest(bytes(data[at : at + DIGEST_SIZE])) for at in range(2, start, DIGEST_SIZE))
        return cls(depth, bases, data[start:])


def difference(base: bytes | memoryview, data: bytes | memoryview) -> bytes:
    """A frame that gives `data` together with `base`."""
    # A smaller table forgets the beginning of the dictionary, a larger one costs more to clear than to search: measured
    # with three rows of 4 KiB for each MiB, level 2 takes 3 ms a MiB and finds all there is (level 3 takes 10).
    table = min(max(len(base).bit_length() - 2, _TABLE_MIN), _TABLE_MAX)
    window = max((len(base) + len(data)).bit_length(), _WINDOW_MIN)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        2, source_size=len(data), dict_size=len(base), hash_log=table, chain_log=table, window_log=window
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(base)).compress(data)


def patched(base: bytes | memoryview, frame: bytes | memoryview, length: int) -> bytes:
    """The `length` bytes that `difference` was given; Corrupt when they do not come out."""
    try:
        # Before anything is set aside: the size stands in the frame's header.
        if zstandard.get_frame_parameters(frame).content_size != length:
            raise Corrupt("a delta's header contradicts its length")
        found = zstandard.ZstdDecompressor(dict_data=_dictionary(base)).decompress(frame, max_output_size=length)
    except zstandard.ZstdError as error:
        raise Corrupt(f"a delta cannot be read: {error}") from error
    if len(found) != length:
        raise Corrupt(f"a delta gives {len(found)} bytes instead of {length}")
    return found


def _dictionary(base: bytes | memoryview) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(bytes(base), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


class Alignment:
    """Which chunks of the old version lie where in the new one, from what has been seen of the new one so far."""

    def __init__(self, chunks: Sequence[ChunkRef]) -> None:
        self._chunks = chunks
        self._starts = [0, *accumulate(chunk.length for chunk in chunks)]
        self._numbers = {chunk.digest: number for number, chunk in enumerate(chunks)}
        self._shift = 0
        """How much later things stand in the new version than in the old one."""

    def passed(self, digest: Digest, position: int) -> None:
        """The new version has this chunk of the old one at `position`."""
        number = self._numbers.get(digest)
        # One that is there several times says nothing.
        if number is not None and self._chunks[number - 1].digest != digest:
            self._shift = position - self._starts[number]

    def bases(self, position: int, length: int) -> list[ChunkRef]:
        """The old chunks that the new one from `position` on overlaps; none where that cannot be said."""
        start, end = position - self._shift, position - self._shift + length
        first = max(bisect_right(self._starts, start) - 1, 0)
        found: list[ChunkRef] = []
        for number in range(first, len(self._chunks)):
            if self._starts[number] >= end:
                break
            overlap = min(end, self._starts[number + 1]) - max(start, self._starts[number])
            if overlap * OVERLAP_MIN >= length:
                found.append(self._chunks[number])
        return found[:BASES_MAX]

    def compared(self, bases: Sequence[ChunkRef], old: bytes | memoryview, position: int, new: memoryview) -> None:
        """The chunk `new` at `position` is like its bases, whose joined contents are `old`: see where it ends there."""
        joined = bytes(old)
        start = self._starts[self._numbers[bases[0].digest]]
        for back in _TAILS:
            tail = bytes(new[len(new) - back - _TAIL : len(new) - back])
            at = joined.find(tail) if len(tail) == _TAIL else -1
            if at >= 0:
                self._shift = position + len(new) - back - _TAIL - start - at
                return
