"""Appending to a segment file: one process at a time, which holds a lock on it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from storage.disk import files
from storage.disk.segments import (
    FILE_SIZE,
    RECORD_SIZE,
    SEAL_SIZE,
    Found,
    Record,
    SegmentKind,
    checksum_parts,
    file_header,
    parse_file_header,
    parse_record,
    record_header,
)
from storage.errors import Corrupt, StorageFailed, StorageFull
from storage.model.records import Place


class Segment:
    """One segment file, open for appending by this process alone."""

    def __init__(self, path: Path, kind: SegmentKind, segment: int, fd: int, salt: int, end: int) -> None:
        self.path = path
        self.kind = kind
        self.id = segment
        self.end = end
        self.fd = fd
        self._salt = salt

    @classmethod
    def create(cls, path: Path, kind: SegmentKind, segment: int) -> Segment:
        """A new segment file with that id. Its beginning survives power loss: without it no record could be read."""
        fd = files.create(path)
        salt = int.from_bytes(os.urandom(8), "little")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            end = files.append(fd, [file_header(kind, segment, salt)], 0)
            files.sync(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, kind, segment, fd, salt, end)

    @classmethod
    def adopt(cls, path: Path, acknowledged: Callable[[], int | None]) -> Segment | None:
        """The segment file at `path` to append to, unless another process appends to it.

        What lies behind its acknowledged end (asked once the lock is held) was written by a process that died before
        it could acknowledge it, and is cut off.
        """
        try:
            fd = files.open_file(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kind, segment, salt = parse_file_header(os.pread(fd, FILE_SIZE, 0), path)
            size = os.fstat(fd).st_size
        except (BlockingIOError, Corrupt):
            os.close(fd)
            return None
        end = acknowledged()
        if end is None or size < end or not path.exists():
            os.close(fd)
            return None
        if size > end:
            try:
                files.truncate(fd, end)
            except (StorageFailed, StorageFull):
                os.close(fd)
                return None
        return cls(path, kind, segment, fd, salt, end)

    def append(self, records: Sequence[Record]) -> list[tuple[Place, int]]:
        """Append records, all or none; where each one's payload lies, and its checksum."""
        parts: list[bytes | memoryview] = []
        placed: list[tuple[Place, int]] = []
        at = self.end
        for record in records:
            length = sum(map(len, record.parts))
            check = checksum_parts(record.parts)
            parts.append(record_header(record, length, check, self._salt ^ at))
            parts.extend(record.parts)
            placed.append((Place(self.id, at + RECORD_SIZE, length), check))
            at += RECORD_SIZE + length
        self.end = files.append(self.fd, parts, self.end)
        return placed

    def record(self, header: bytes | memoryview, place: Place) -> Found | None:
        """The record whose payload lies at `place`, from the bytes before it; None where these are no header of such a one."""
        at = place.offset - RECORD_SIZE
        found = parse_record(bytes(header), self.id, at, self._salt)
        return found if found is not None and found.place == place else None

    def take_back(self, end: int) -> None:
        """Cut off what was appended behind `end`, which nobody was told of."""
        files.truncate(self.fd, end)
        self.end = end

    def sync(self) -> None:
        """Make everything appended so far survive power loss."""
        files.sync(self.fd)

    @property
    def full(self) -> bool:
        """Whether the next record belongs into a new segment."""
        return self.end >= SEAL_SIZE

    def close(self) -> None:
        """Let go of the file; another process may append to it then."""
        os.close(self.fd)
