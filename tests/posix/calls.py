"""System calls that Python has no name for, and jobs in processes of their own."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
HERE = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
NOFOLLOW = 0x100
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
NOBODY = 65534
PATIENCE = 60


class Timespec(ctypes.Structure):
    """Seconds and nanoseconds."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def renameat2(old: Path, new: Path, flags: int) -> None:
    """rename(2) with flags."""
    _checked(LIBC.renameat2(HERE, os.fsencode(old), HERE, os.fsencode(new), flags))


def utimensat(path: Path, accessed: tuple[int, int], modified: tuple[int, int], flags: int = 0) -> None:
    """Times in seconds and nanoseconds; the nanoseconds may be NOW or OMIT."""
    times = (Timespec * 2)(Timespec(*accessed), Timespec(*modified))
    _checked(LIBC.utimensat(HERE, os.fsencode(path), times, flags))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2): unlike posix_fallocate, without help from the C library."""
    _checked(LIBC.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def refused(*names: str):
    """The body must fail with one of these errors."""
    numbers = "|".join(str(getattr(errno, name)) for name in names)
    return pytest.raises(OSError, match=rf"Errno ({numbers})\]")


def answer(call: Callable[[], object]) -> object:
    """What a call gives: its result, or the name of its error."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def in_child(job: Callable[[], object], *, before: Callable[[], None] | None = None) -> object:
    """What `job` gives in a process of its own, or the name of its error; `SIG…` where a signal ends it.

    `before` is run first: it may change who the process is. The child must not import anything by then.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the child only makes calls
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(PATIENCE)
            if before is not None:
                before()
            os.write(writing, pickle.dumps(answer(job)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    assert found, "the job ended without an answer"
    return pickle.loads(found)


def as_nobody(folder: Path, job: Callable[[], object]) -> object:
    """What `job` gives to an ordinary user who stands in `folder`: paths above it may be closed to that user."""

    def drop() -> None:
        os.chdir(folder)
        os.umask(0o022)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    return in_child(job, before=drop)
