"""The one place that writes, syncs, renames and removes files of a repository.

Everything that must survive a crash goes through here, so that a test can record the calls and replay any state that
a power loss may leave.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from storage.errors import StorageFailed, StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def failure(error: OSError, doing: str) -> StorageFull | StorageFailed:
    """The error to raise when the system refused `doing`."""
    kind = StorageFull if error.errno in _FULL else StorageFailed
    raised = kind(f"cannot {doing}: {error.strerror}")
    raised.errno = error.errno
    return raised


def append(fd: int, parts: list[bytes | memoryview], offset: int) -> int:
    """Write `parts` one after the other from `offset` on, all or nothing; the offset behind them.

    When the system refuses, what was written is cut off again and StorageFull or StorageFailed is raised.
    """
    at = offset
    try:
        for first in range(0, len(parts), 512):
            at = _write_all(fd, parts[first : first + 512], at)
    except OSError as error:
        with suppress(OSError):  # what stays was never acknowledged, and the first error is the one to tell
            os.ftruncate(fd, offset)
        raise failure(error, "write to the repository") from error
    return at


def _write_all(fd: int, parts: list[bytes | memoryview], at: int) -> int:
    wanted = sum(map(len, parts))
    done = os.pwritev(fd, parts, at)
    if done < wanted:  # a short write: the rest in one piece, which gives the error if there is one
        rest = memoryview(b"".join(parts))[done:]
        while rest:
            written = os.pwrite(fd, rest, at + done)
            done += written
            rest = rest[written:]
    return at + wanted


def truncate(fd: int, size: int) -> None:
    """Cut the file off at `size`."""
    os.ftruncate(fd, size)


def sync(fd: int) -> None:
    """Make the file's contents survive power loss; StorageFailed when the system cannot promise that."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise failure(error, "sync the repository to disk") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        raise failure(error, f"sync {path}") from error
    finally:
        os.close(fd)


def create(path: Path) -> int:
    """A new file open for reading and writing; its name survives power loss."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        sync_directory(path.parent)
    except OSError as error:
        raise failure(error, f"create {path}") from error
    return fd


def replace(path: Path, data: bytes) -> None:
    """Put `data` at `path`, atomically and durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_all(fd, [data], 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise failure(error, f"write {path}") from error


def remove(path: Path) -> None:
    """Remove a file; nothing happens when it is gone already."""
    path.unlink(missing_ok=True)
