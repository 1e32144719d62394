"""Who is here: the presence lock of a repository, and the identity of processes for writer locks."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from storage.disk import files


class Owner(msgspec.Struct, frozen=True):
    """A process, told apart from a later one with the same pid by its start time and the boot it ran in.

    `token` tells apart the locks that one process takes.
    """

    pid: int
    started: int
    boot: str
    token: str = ""

    @property
    def alive(self) -> bool:
        """Whether that very process still runs on this machine."""
        return self.boot == boot_id() and start_time(self.pid) == self.started


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def this_process() -> Owner:
    """The identity of this process."""
    pid = os.getpid()
    return Owner(pid, start_time(pid) or 0, boot_id())


@contextmanager
def _held(path: Path, flags: int, operation: int) -> Iterator[bool]:
    """Open the lock file at `path` and hold it as flock's `operation` says; whether it could be had."""
    fd = files.open_file(path, flags)
    try:
        try:
            fcntl.flock(fd, operation)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(fd)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` alone among all processes and threads; waits for it. StorageFailed, also for a link."""
    with _held(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX):
        yield


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Hold a directory itself alone among all who do so; waits for it. Leaves nothing in it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def together(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` with others who do so, while nobody holds it alone; waits for it. Errors as `alone`."""
    with _held(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_SH):
        yield


def alone_at_once(path: Path) -> AbstractContextManager[bool]:
    """Like `alone`, without waiting: whether the lock was free."""
    return _held(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX | fcntl.LOCK_NB)


def alone_if_there(path: Path) -> AbstractContextManager[bool]:
    """Like `alone_at_once`, of a file that need not be one for locks and is never made. FileNotFoundError, too."""
    return _held(path, os.O_RDONLY, fcntl.LOCK_EX | fcntl.LOCK_NB)


PATIENCE = 5.0
"""Seconds to try for the lock alone when others have it and nothing tells that they have recovered the repository."""


class Presence:
    """A shared lock on the repository for as long as it is open in this process.

    The first to come and the last to leave hold it alone for a moment: that is when recovery and the clean mark are safe.
    """

    def __init__(self, path: Path) -> None:
        self._fd = files.open_file(path, os.O_RDWR | os.O_CREAT)
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def enter(self, recover: Callable[[], object], recovered: Callable[[], bool] = lambda: True) -> bool:
        """Take the lock; `recover` runs first, alone, if nobody else has the repository open. Whether it ran.

        `recovered` tells, while the lock is shared, whether those who are here have done so. They need not have: who
        held the lock alone a moment ago may have been leaving, or only looking.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._alone():
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            # Shared, so nobody can leave as the last one any more.
            if recovered() or time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        recover()
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        return True

    def leave(self, finish: Callable[[], None]) -> None:
        """Give the lock back; `finish` runs first, alone, if nobody else has the repository open."""
        with self._lock:
            if self._fd < 0:
                return
            try:
                if self._pid == os.getpid() and self._alone():
                    finish()
            finally:
                os.close(self._fd)
                self._fd = -1

    def _alone(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
