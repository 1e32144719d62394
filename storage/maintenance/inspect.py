"""Reading segments through: every record checked against its checksums and its digest, and what it refers to.

One thread walks a file's headers and cuts it into stretches of some MiB, which any number of threads then read and check.
Nothing is read through a memory map: a bad sector under one would kill the process instead of being reported.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from storage.disk import files
from storage.disk.segments import FILE_SIZE, Found, RecordKind, walk
from storage.errors import ArborError, NotFound
from storage.model.chunking import Codec, decode_chunks
from storage.model.deltas import Delta
from storage.model.digest import DIGEST_SIZE, Digest, blake, hexed
from storage.model.records import CHUNKED, INDIRECT, Commit, Kind, Place, decode_commit
from storage.stores.objects import object_row
from storage.stores.replaying import Change
from storage.tree.node import EMPTY, BadNode, Inner, decode

_SPAN = 4 << 20
_RECORDS = 4096
"""A stretch has at most so many bytes (or one record) and records: 1 MB of small ones takes 4 MB of memory."""
_AHEAD = 4 * _SPAN  # bytes that the kernel is asked to read before they are needed
_PAGE = 4096
_CONTENTS = (Kind.FILE, Kind.SAMPLE)
Unpacked = Callable[[int, bytes | memoryview, int], bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Met:
    """An object met in a segment: what it is, the index row that leads to it, and what is wrong with it (empty: nothing)."""

    digest: Digest
    kind: int
    row: bytes
    place: Place
    wrong: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """The bytes `start` to `stop` of a segment's file, and the records whose headers are valid there."""

    path: Path
    segment: int
    start: int
    stop: int
    records: list[Found]


@dataclass(slots=True)
class Inspection:
    """What a stretch of a segment holds. `holes` (offset, length) are no valid records."""

    segment: int
    objects: list[Met] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    commits: dict[Digest, Commit] = field(default_factory=dict)
    references: set[Digest] = field(default_factory=set)
    holes: list[tuple[int, int]] = field(default_factory=list)


def stretches(fd: int, path: Path, segment: int, end: int) -> Iterator[Stretch]:
    """A segment's file up to `end`, cut into stretches, in order and without gaps.

    Corrupt where it does not begin as a segment does, StorageFailed where it cannot be read.
    """
    window = _Window(fd, end)
    start, records = FILE_SIZE, list[Found]()
    for found in walk(window.view, path):
        if records and (found.end - records[0].start > _SPAN or len(records) == _RECORDS):
            yield Stretch(path, segment, start, found.start, records)
            start, records = found.start, []
        records.append(found)
        window.ask(found.end)
    yield Stretch(path, segment, start, end, records)


class _Window:
    """Reads headers; small records stand side by side, so that one call gives many of them."""

    def __init__(self, fd: int, end: int) -> None:
        self._fd = fd
        self._end = end
        self._start = 0
        self._data = b""
        self._asked = 0
        self.ask(0)

    def view(self, at: int, length: int) -> bytes:
        """The bytes from `at` on."""
        first = at - self._start
        if not 0 <= first <= first + length <= len(self._data):
            self._start, first = at, 0
            self._data = _read(self._fd, at, min(max(length, _PAGE), max(self._end - at, 0)))
        return self._data[first : first + length]

    def ask(self, at: int) -> None:
        """Have the kernel begin to read what comes after `at`."""
        stop = min(at + _AHEAD, self._end)
        if stop - self._asked >= _SPAN or stop == self._end:
            files.expect(self._fd, self._asked, stop)
            self._asked = max(self._asked, stop)


def _read(fd: int, at: int, length: int) -> bytes:
    try:
        return os.pread(fd, length, at)
    except OSError as error:
        raise files.failure(error, f"read {length} bytes of a segment from byte {at} on") from error


class _Memory(threading.local):
    """Each thread reads into memory of its own again and again: fresh memory would cost as much as hashing."""

    def __init__(self) -> None:
        self._buffer = bytearray(_SPAN)

    def read(self, path: Path, start: int, stop: int) -> memoryview:
        """The bytes `start` to `stop` of a file, fewer where it ends; until the next call. StorageFailed."""
        if stop - start > len(self._buffer):
            self._buffer = bytearray(stop - start)
        into = memoryview(self._buffer)[: stop - start]
        with path.open("rb") as file:
            return into[: files.read_into(file.fileno(), into, start)]


_memory = _Memory()


def inspect(stretch: Stretch, unpacked: Unpacked) -> Inspection:
    """Read a stretch and check all of it. Thread-safe. StorageFailed where the disk refuses; FileNotFoundError.

    `unpacked` gives what a payload stands for: codec, payload, length.
    """
    reading = _Reading(stretch, unpacked)
    if stretch.records:
        base = stretch.records[0].start
        data = _memory.read(stretch.path, base, max(found.end for found in stretch.records))
        for record in stretch.records:
            payload = data[record.place.offset - base : record.end - base]
            record.payload = payload if record.is_whole(payload) else None
            reading.take(record)
            record.payload = None
    return reading.finish(stretch.stop)


class _Reading:
    def __init__(self, stretch: Stretch, unpacked: Unpacked) -> None:
        self._found = Inspection(stretch.segment)
        self._unpacked = unpacked
        self._whole = stretch.start  # up to here all is valid records and holes already noted

    def take(self, record: Found) -> None:
        """Check a record and note it."""
        if record.payload is not None:
            self._hole_up_to(record.start)
            self._whole = record.end
        if record.kind < RecordKind.STAGE:
            self._object(record)
        elif record.payload is not None:
            self._found.changes.append(Change(record.sequence, record.kind, record.place))

    def finish(self, end: int) -> Inspection:
        """What was found, with what is left behind the last record up to `end`."""
        self._hole_up_to(end)
        return self._found

    def _hole_up_to(self, end: int) -> None:
        if end > self._whole:
            self._found.holes.append((self._whole, end - self._whole))
            self._whole = end

    def _object(self, record: Found) -> None:
        row = object_row(record.place, record.raw_length, record.kind, record.codec, record.checksum)
        wrong = "its bytes have changed since they were written"
        if record.payload is not None:
            try:
                wrong = self._contents(record, record.payload)
            except (ArborError, BadNode) as error:
                wrong = str(error)
        self._found.objects.append(Met(record.digest, record.kind, row, record.place, wrong))

    def _contents(self, record: Found, payload: memoryview) -> str:
        if record.kind == RecordKind.CHUNK and record.codec == Codec.DELTA:
            self._found.references.update(Delta.decode(payload).bases)
        try:
            data = self._unpacked(record.codec, payload, record.raw_length)
        except NotFound:
            return ""  # another chunk that it stands on: whether anybody needs that will be seen
        if blake(data) != record.digest:
            return "its contents do not have its digest"
        if record.kind == RecordKind.COMMIT:
            self._found.commits[record.digest] = decode_commit(bytes(data))
        if record.kind != RecordKind.CHUNK:
            self._found.references.update(references(record.kind, bytes(data)))
        return ""


def references(kind: int, data: bytes) -> Iterator[Digest]:
    """What an object leads to directly. Corrupt, BadNode."""
    if kind == RecordKind.COMMIT:
        commit = decode_commit(data)
        yield from commit.parents
        if commit.root.root != EMPTY:
            yield commit.root.root
    elif kind == RecordKind.CHUNK_LIST:
        yield from (chunk.digest for chunk in decode_chunks(data))
    elif kind == RecordKind.NODE:
        node = decode(data)
        if isinstance(node, Inner):
            yield from map(Digest, node.digests)
            return
        for head, value in node.leading():
            yield from entry_references(head, value)


def entry_references(head: bytes, value: bytes) -> Iterator[Digest]:
    """What an entry leads to directly: its contents, or the root of a directory."""
    if head[0] == Kind.DIRECTORY and value[:DIGEST_SIZE] != EMPTY:
        yield Digest(value[:DIGEST_SIZE])
    elif head[1] and head[0] in _CONTENTS:
        if head[1] & INDIRECT:
            yield Digest(value)
        elif head[1] & CHUNKED:
            yield from (chunk.digest for chunk in decode_chunks(value))


def described(met: Met) -> str:
    """Which object is wrong, and how."""
    return f"object {hexed(met.digest)} is damaged: {met.wrong}"
