"""The one place that writes, syncs, renames and removes files of a repository.

Everything that must survive a crash goes through here, so that a test can record the calls and replay any state that
a power loss may leave.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from contextlib import suppress
from pathlib import Path

from storage.errors import StorageFailed, StorageFull

_EXPECTED = 1 << 20  # of a longer range the kernel may take only the beginning
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def failure(error: OSError, doing: str) -> StorageFull | StorageFailed:
    """The error to raise when the system refused `doing`."""
    kind = StorageFull if error.errno in _FULL else StorageFailed
    raised = kind(f"cannot {doing}: {error.strerror}")
    raised.errno = error.errno
    return raised


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a regular file, never of what a link at `path` leads to. FileNotFoundError, StorageFailed."""
    try:
        # A pipe would be waited for.
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise failure(error, f"open {path}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StorageFailed(f"{path} is not a regular file: put it out of the way")
    return fd


def read_file(path: Path, limit: int) -> bytes:
    """All of a small file. FileNotFoundError, StorageFailed (also where it has more than `limit` bytes)."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise failure(error, f"read {path}") from error
    if len(data) > limit:
        raise StorageFailed(f"{path} has more than {limit} bytes: it is none of ours")
    return data


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


def read_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` with the bytes from `offset` on; how many there were. StorageFailed."""
    done = 0
    try:
        while count := os.preadv(fd, [buffer[done:]], offset + done):
            done += count
    except OSError as error:
        raise failure(error, f"read the repository's bytes {offset + done} to {offset + len(buffer)}") from error
    return done


def expect(fd: int, start: int, stop: int) -> None:
    """Have the kernel begin to read these bytes of a file: else the disk and who works on its bytes wait for each other."""
    for at in range(start, stop, _EXPECTED):
        os.posix_fadvise(fd, at, min(_EXPECTED, stop - at), os.POSIX_FADV_WILLNEED)


def truncate(fd: int, size: int) -> None:
    """Cut the file off at `size`."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise failure(error, "cut off a file of the repository") from error


def sync(fd: int) -> None:
    """Make the file's contents survive power loss; StorageFailed when the system cannot promise that."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise failure(error, "sync the repository to disk") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive power loss."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise failure(error, f"sync {path}") from error


def create(path: Path) -> int:
    """A new file open for reading and writing; its name survives power loss."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise failure(error, f"create {path}") from error
    try:
        sync_directory(path.parent)
    except BaseException:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd


def make_directory(path: Path) -> None:
    """A directory, with those above it; their names survive power loss. Nothing happens where it is there already."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise failure(error, f"make the folder {path}") from error
    sync_directory(path.parent)


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
    except OSError as error:
        with suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise failure(error, f"write {path}") from error
    sync_directory(path.parent)


def put_aside(path: Path, parts: list[bytes | memoryview]) -> None:
    """Put a file that can be made again at `path`: atomically, and not durably, so that nobody waits for the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_all(fd, parts, 0)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        with suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise failure(error, f"write {path}") from error


def overwrite(path: Path, data: bytes) -> None:
    """Write `data` over the file at `path`, durably: needs no room where it is no longer, but a crash may tear it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _write_all(fd, [data], 0)
            os.ftruncate(fd, len(data))
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise failure(error, f"write {path}") from error


def swap_directory(fresh: Path, place: Path) -> None:
    """Put the directory `fresh` in the place of `place`, durably, and remove what was there.

    A crash in the middle leaves the old one, the new one, or none.
    """
    old = place.with_name(f"{place.name}.old")
    remove_tree(old)
    try:
        if os.path.lexists(place):
            os.rename(place, old)
        os.rename(fresh, place)
    except OSError as error:
        raise failure(error, f"put {fresh} in the place of {place}") from error
    sync_directory(place.parent)
    remove_tree(old)


def remove(path: Path) -> None:
    """Remove a file; nothing happens when it is gone already."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise failure(error, f"remove {path}") from error


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, or whatever else is there; nothing happens when it is gone already."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise failure(error, f"remove {path}") from error
