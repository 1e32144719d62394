"""Reading one segment through: every record checked against its checksums and its digest, and what it refers to."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from storage.disk.segments import FILE_SIZE, RECORD_SIZE, Found, RecordKind, parse_file_header, scan
from storage.errors import ArborError, NotFound
from storage.model.chunking import Codec, decode_chunks
from storage.model.deltas import Delta
from storage.model.digest import DIGEST_SIZE, Digest, blake, hexed
from storage.model.records import CHUNKED, INDIRECT, Commit, Kind, Place, decode_commit
from storage.stores.objects import object_row
from storage.stores.recovery import Change
from storage.tree.node import EMPTY, BadNode, Inner, decode

_BLOCK = 4 << 20  # bytes between two calls of `advance`
_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14: all pages at once instead of a fault for each few
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


@dataclass(slots=True)
class Inspection:
    """What a segment holds up to its acknowledged end. `holes` (offset, length) are no valid records."""

    segment: int
    size: int
    objects: list[Met] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    commits: dict[Digest, Commit] = field(default_factory=dict)
    references: set[Digest] = field(default_factory=set)
    holes: list[tuple[int, int]] = field(default_factory=list)


def inspect(path: Path, segment: int, end: int, unpacked: Unpacked, advance: Callable[[int], None]) -> Inspection:
    """Read a segment file up to `end`. Corrupt where it does not begin as a segment does; FileNotFoundError.

    `unpacked` gives what a payload stands for: codec, payload, length.
    `advance` is called with bytes read since its last call, in the thread that reads.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = Inspection(segment, size)
        parse_file_header(file.read(FILE_SIZE), path)
        readable = min(end, size)
        with mmap.mmap(file.fileno(), readable, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            reading = _Reading(found, mapped, readable, unpacked, advance)
            for record in scan(data, path):
                try:
                    reading.take(record)
                finally:
                    if record.payload is not None:
                        record.payload.release()
            reading.finish()
    return found


class _Reading:
    def __init__(
        self, found: Inspection, mapped: mmap.mmap, end: int, unpacked: Unpacked, advance: Callable[[int], None]
    ) -> None:
        self._found = found
        self._mapped = mapped
        self._end = end
        self._unpacked = unpacked
        self._advance = advance
        self._told = 0
        self._whole = FILE_SIZE  # up to here all is valid records and holes already noted
        self._fetched = 0
        self._fetch(0)

    def take(self, record: Found) -> None:
        """Check a record and note it."""
        after = record.place.offset + record.place.length
        if record.payload is not None:
            self._hole_up_to(record.place.offset - RECORD_SIZE)
            self._whole = after
        if record.kind < RecordKind.STAGE:
            self._object(record)
        elif record.payload is not None:
            self._found.changes.append(Change(record.sequence, record.kind, record.place))
        if after - self._told >= _BLOCK:
            self._advance(after - self._told)
            self._told = after
            self._fetch(after)

    def finish(self) -> None:
        """Note what is left behind the last record."""
        self._hole_up_to(self._end)
        self._advance(self._end - self._told)

    def _fetch(self, start: int) -> None:
        """Bring the next bytes into memory in one call; without it, faults cost as much as hashing."""
        stop = min(start + 2 * _BLOCK, self._end)
        begin = self._fetched
        if stop > begin:
            try:
                self._mapped.madvise(_POPULATE_READ, begin, stop - begin)
            except OSError:
                self._mapped.madvise(mmap.MADV_WILLNEED, begin, stop - begin)
            self._fetched = stop // mmap.PAGESIZE * mmap.PAGESIZE

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
