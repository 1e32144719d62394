"""Segments: the append-only files that hold everything. Formats stand in storage/FORMAT.md.

A segment has one writer at a time (`appending`), which holds a lock on the file; readers need none. Places that it gives
out stay valid until the segment is deleted. Reading checks nothing: callers check what they read against the checksum in
the index row, `scan` checks all.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import msgspec
import numpy as np
import xxhash

from storage.disk import files
from storage.errors import Corrupt, NewerFormat, StorageFailed
from storage.model.digest import NO_DIGEST, Digest
from storage.model.format import FORMAT_VERSION
from storage.model.records import Place

SEAL_SIZE = 1 << 28
"""A segment this large is not appended to any more."""

_FILE = struct.Struct("<8sIIIIQ")
_FILE_MAGIC = b"ARBORSEG"
FILE_SIZE = 40
_RECORD = struct.Struct("<4sBBHIIQ32sQ")
_MAGIC = b"arb\x01"
RECORD_SIZE = _RECORD.size + 8
# The same, as numpy reads many of them at once: what every reader checks.
_RECORDS = np.dtype(
    {
        "names": ["magic", "length", "digest"],
        "formats": ["V4", "<u4", "V32"],
        "offsets": [0, 8, 24],
        "itemsize": RECORD_SIZE,
    }
)
_FILE_NAME = re.compile(r"[0-9a-f]{8}\.(log|journal)", re.ASCII)
_CHECK = struct.Struct("<Q")
_GAP, _SPAN = 4096, 1 << 22  # places this close are read together, this many bytes at most


checksum: Callable[[bytes | memoryview], int] = xxhash.xxh3_64_intdigest
"""XXH3-64 (https://github.com/Cyan4973/xxHash) of a stored payload. A name only: a call more costs as much as hashing."""


class RecordKind(IntEnum):
    """What a record of a segment holds. Below 16: objects, found by digest. From 16 on: changes, in order of sequence."""

    CHUNK = 1
    NODE = 2
    COMMIT = 3
    CHUNK_LIST = 4
    STAGE = 16
    REFS = 17
    COLLECTION = 18


class SegmentKind(IntEnum):
    """LOG segments are for ever (until gc); JOURNAL segments go when all they stage has been committed."""

    LOG = 1
    JOURNAL = 2


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record to append: its payload comes in parts, already packed by `codec` from `raw_length` bytes."""

    kind: RecordKind
    parts: Sequence[bytes | memoryview]
    raw_length: int
    digest: Digest = NO_DIGEST
    sequence: int = 0
    codec: int = 0


@dataclass(slots=True)
class Found:
    """A record met by a walk or a scan; `payload` is None where its bytes are damaged, or were not looked at yet."""

    kind: int
    codec: int
    raw_length: int
    digest: Digest
    sequence: int
    checksum: int
    place: Place
    payload: memoryview | None = None

    @property
    def start(self) -> int:
        """Where in its file the record begins."""
        return self.place.offset - RECORD_SIZE

    @property
    def end(self) -> int:
        """Where in its file the record ends."""
        return self.place.offset + self.place.length

    def is_whole(self, payload: bytes | memoryview) -> bool:
        """Whether these are the bytes that were written as its payload."""
        return len(payload) == self.place.length and checksum(payload) == self.checksum


def checksum_parts(parts: Sequence[bytes | memoryview]) -> int:
    """The checksum of the parts joined."""
    if len(parts) == 1:
        return checksum(parts[0])
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part)
    return state.intdigest()


def file_header(kind: SegmentKind, segment: int, salt: int) -> bytes:
    """The first bytes of a segment file."""
    body = _FILE.pack(_FILE_MAGIC, FORMAT_VERSION, kind, segment, 0, salt)
    return body + _CHECK.pack(xxhash.xxh64_intdigest(body))


def parse_file_header(data: bytes | memoryview, path: Path) -> tuple[SegmentKind, int, int]:
    """Kind, id and salt of a segment file; Corrupt or NewerFormat."""
    if len(data) < FILE_SIZE or _CHECK.unpack_from(data, _FILE.size)[0] != xxhash.xxh64_intdigest(data[: _FILE.size]):
        raise Corrupt(f"{path} does not begin as a segment does", where=str(path))
    magic, version, kind, segment, _, salt = _FILE.unpack_from(data)
    if magic != _FILE_MAGIC or kind not in (1, 2):
        raise Corrupt(f"{path} is not a segment", where=str(path))
    if version > FORMAT_VERSION:
        raise NewerFormat(
            f"{path} has format {version}, this arborfs reads up to {FORMAT_VERSION}: install a newer one"
        )
    return SegmentKind(kind), segment, salt


class Segments:
    """The segment files of a repository, for reading. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fds: dict[int, int] = {}
        self._journals: set[int] = set()
        self._lock = threading.Lock()

    def path(self, segment: int, kind: SegmentKind) -> Path:
        """Where the segment's file is, or would be."""
        return self.folder / f"{segment:08x}.{'log' if kind is SegmentKind.LOG else 'journal'}"

    def paths(self) -> dict[int, Path]:
        """All segment files by id."""
        found = {}
        try:
            there = sorted(os.scandir(self.folder), key=lambda entry: entry.name)
        except OSError as error:
            raise files.failure(error, f"list {self.folder}") from error
        for entry in there:
            if _FILE_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                found[int(entry.name[:8], 16)] = self.folder / entry.name
        return found

    def paths_of(self, segment: int) -> Path | None:
        """The segment's file, None when there is none."""
        for kind in SegmentKind:
            path = self.path(segment, kind)
            if path.exists():
                return path
        return None

    def read_many(self, places: Sequence[Place]) -> list[bytes]:
        """The bytes at each place, in the order given; places close together are read at once."""
        out: list[bytes] = [b""] * len(places)
        for order, block, base in self._blocks([(place.segment, place.offset, place.length) for place in places]):
            for i in order:
                start = places[i].offset - base
                out[i] = block[start : start + places[i].length]
        return out

    def _blocks(
        self, places: Sequence[tuple[int, int, int]], before: int = 0
    ) -> Iterator[tuple[Sequence[int], bytes, int]]:
        """What lies at these places (segment, offset, length), and so many bytes `before` each: together where close.

        Gives, for each time that the file is read, the numbers of these places, the bytes, and where in the file they begin.
        """
        order = sorted(range(len(places)), key=places.__getitem__)
        at = 0
        while at < len(order):
            segment, first, length = places[order[at]]
            first -= before
            last, stop = first + before + length, at + 1
            while stop < len(order):
                where, offset, length = places[order[stop]]
                reaches = max(last, offset + length)
                if where != segment or offset - before - last > _GAP or reaches - first > _SPAN:
                    break
                last, stop = reaches, stop + 1
            yield order[at:stop], self.read(Place(segment, first, last - first)), first
            at = stop

    def read(self, place: Place) -> bytes:
        """The bytes at `place`; Corrupt where the file is gone or too short. Checks nothing else."""
        data = self._pread(place)
        if len(data) != place.length:
            raise Corrupt(
                f"segment {place.segment:08x} ends before the {place.length} bytes at {place.offset}: it was cut off",
                where=f"{place.segment:08x}:{place.offset}",
            )
        return data

    def read_object(self, place: Place, digest: Digest) -> memoryview:
        """The payload of an object's record at `place`; Corrupt unless the record is that of `digest`.

        The payload itself is not checked.
        """
        data = self.read(_with_header(place))
        _require(data, place, digest)
        return memoryview(data)[RECORD_SIZE:]

    def read_objects(self, places: Sequence[tuple[int, int, int]], digests: Sequence[Digest]) -> list[memoryview]:
        """What `read_object` gives for each of these places, which are segment, offset and length; nothing is copied.

        Those close together are read at once, and stay in memory together as long as one of them is used.
        """
        if places and min(place[1] for place in places) < FILE_SIZE + RECORD_SIZE:
            raise Corrupt("no record's payload begins so early in a segment")
        headers, found = [b""] * len(places), [memoryview(b"")] * len(places)
        for order, block, base in self._blocks(places, RECORD_SIZE):
            view = memoryview(block)
            for i in order:
                _, offset, length = places[i]
                start = offset - base
                headers[i] = block[start - RECORD_SIZE : start]
                found[i] = view[start : start + length]
        _require_all(b"".join(headers), [place[2] for place in places], digests)
        return found

    def object_at_once(self, place: Place, digest: Digest) -> memoryview | None:
        """The same if the kernel has it in memory; None where the disk, or an error, is in the way."""
        buffer = bytearray(RECORD_SIZE + place.length)
        try:
            found = os.preadv(self._descriptor(place.segment), [buffer], place.offset - RECORD_SIZE, os.RWF_NOWAIT)
        except (OSError, OverflowError):
            return None
        if found != len(buffer):
            return None
        _require(buffer, place, digest)
        return memoryview(buffer).toreadonly()[RECORD_SIZE:]

    def _descriptor(self, segment: int) -> int:
        fd = self._fds.get(segment)
        return self._open(segment) if fd is None else fd

    def _pread(self, place: Place) -> bytes:
        try:
            return os.pread(self._descriptor(place.segment), place.length, place.offset)
        except (Corrupt, StorageFailed):
            # OSErrors, too: that the file is gone readers of a journal must tell from a disk's refusal.
            raise
        except (OverflowError, MemoryError) as error:
            raise Corrupt(f"no segment has {place.length} bytes at {place.offset}: run `arborfs rebuild`") from error
        except OSError as error:
            raise files.failure(error, f"read segment {place.segment:08x}") from error

    def _open(self, segment: int) -> int:
        with self._lock:
            if segment in self._fds:
                return self._fds[segment]
            for kind in SegmentKind:
                with suppress(FileNotFoundError):
                    fd = files.open_file(self.path(segment, kind), os.O_RDONLY)
                    self._fds[segment] = fd
                    if kind is SegmentKind.JOURNAL:
                        self._journals.add(segment)
                    return fd
        raise Corrupt(f"segment {segment:08x} is missing", where=f"{segment:08x}")

    def hold(self, segment: int) -> None:
        """Open a segment, which stays readable from here on though it be deleted. Corrupt where it is missing."""
        self._descriptor(segment)

    def held(self, segment: int) -> Path | None:
        """A path that leads to an open segment, deleted or not; None where it is not open here."""
        fd = self._fds.get(segment)
        return None if fd is None else Path(f"/proc/self/fd/{fd}")

    def let_go(self) -> None:
        """Give the disk back what deleted log segments take: nobody needs them, their objects lie elsewhere now.

        Other threads may be reading: the descriptor stays, and reads nothing from here on. Deleted journals stay readable.
        """
        with self._lock:
            for segment, fd in self._fds.items():
                if os.fstat(fd).st_nlink == 0 and segment not in self._journals:
                    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                    os.dup2(nothing, fd, inheritable=False)
                    os.close(nothing)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()


def _with_header(place: Place) -> Place:
    if place.offset < FILE_SIZE + RECORD_SIZE:
        raise Corrupt(f"no record's payload begins at byte {place.offset} of a segment")
    return Place(place.segment, place.offset - RECORD_SIZE, RECORD_SIZE + place.length)


def _require(data: bytes | bytearray, place: Place, digest: Digest) -> None:
    magic, _, _, _, length, _, _, found, _ = _RECORD.unpack_from(data)
    if magic != _MAGIC or length != place.length or found != digest:
        raise Corrupt("the index leads to another record, or to none: run `arborfs rebuild`")


def _require_all(headers: bytes, lengths: Sequence[int], digests: Sequence[Digest]) -> None:
    """What `_require` does for each of these headers, which lie one behind the other."""
    table = np.frombuffer(headers, _RECORDS)
    same = table["magic"].tobytes() == _MAGIC * len(digests) and table["digest"].tobytes() == b"".join(digests)
    if not same or table["length"].tolist() != lengths:
        raise Corrupt("the index leads to another record, or to none: run `arborfs rebuild`")


def is_unused(path: Path) -> bool:
    """Whether whoever made this segment file was cut off before anything could be appended to it."""
    if path.stat().st_size > FILE_SIZE:
        return False
    try:
        parse_file_header(files.read_file(path, FILE_SIZE), path)
    except Corrupt:
        return True
    return False


def record_header(record: Record, length: int, check: int, salt: int) -> bytes:
    """What stands before a payload of so many bytes with that checksum; `salt` is the file's own with the record's offset."""
    kind, codec, raw_length = record.kind, record.codec, record.raw_length
    body = _RECORD.pack(_MAGIC, kind, codec, 0, length, raw_length, record.sequence, record.digest, check)
    return body + _CHECK.pack(xxhash.xxh64_intdigest(body, salt))


def parse_record(header: bytes, segment: int, at: int, salt: int) -> Found | None:
    """The record that begins at byte `at` of a file with that salt; None where these bytes are no header of such a one."""
    return _found(header, segment, at) if _is_header(header, at, salt) else None


View = Callable[[int, int], bytes | memoryview]
"""Gives the bytes of a file from an offset on, so many, fewer where it ends."""


def scan(data: memoryview, path: Path) -> Iterator[Found]:
    """Every record of a segment file, in order, each checked; damaged ones come with payload None."""
    for found in walk(lambda at, length: data[at : at + length], path):
        payload = data[found.place.offset : found.end]
        found.payload = payload if found.is_whole(payload) else None
        yield found


def walk(view: View, path: Path) -> Iterator[Found]:
    """The records of a segment file, in order, without their payloads, which are looked at only where a header is damaged.

    From there the walk goes on at the next byte that begins a valid one: behind the record before, or within it if that is
    damaged, too. The header's checksum is salted with the file's own salt and the record's offset, so that a segment
    stored as data is never taken for records.
    """
    _, segment, salt = parse_file_header(bytes(view(0, FILE_SIZE)), path)
    at, header = FILE_SIZE, bytes(view(FILE_SIZE, RECORD_SIZE))
    valid = _is_header(header, at, salt)
    while len(header) == RECORD_SIZE:
        resume = at + 1
        if valid:
            found = _found(header, segment, at)
            yield found
            at = found.end
            header = bytes(view(at, RECORD_SIZE))
            valid = _is_header(header, at, salt)
            if valid or found.is_whole(view(found.place.offset, found.place.length)):
                continue
        at, header = _next_header(view, resume, salt)
        valid = bool(header)


def _found(header: bytes, segment: int, at: int) -> Found:
    _, kind, codec, _, length, raw_length, sequence, digest, check = _RECORD.unpack_from(header)
    return Found(kind, codec, raw_length, Digest(digest), sequence, check, Place(segment, at + RECORD_SIZE, length))


def _is_header(header: bytes, at: int, salt: int) -> bool:
    if len(header) != RECORD_SIZE or not header.startswith(_MAGIC):
        return False
    expected: int = _CHECK.unpack_from(header, _RECORD.size)[0]
    return expected == xxhash.xxh64_intdigest(header[: _RECORD.size], salt ^ at)


def _next_header(view: View, start: int, salt: int) -> tuple[int, bytes]:
    """Where the next valid header begins, and itself; nothing where none is left."""
    window = 1 << 20
    while True:
        block = bytes(view(start, window + RECORD_SIZE - 1))
        found = block.find(_MAGIC)
        while 0 <= found < window:
            header = block[found : found + RECORD_SIZE]
            if _is_header(header, start + found, salt):
                return start + found, header
            found = block.find(_MAGIC, found + 1)
        if len(block) < window:
            return start + len(block), b""
        start += window
