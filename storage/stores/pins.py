"""Pins: what a live process reads though no ref may lead to it any more, and when it began work that no ref leads to yet.

Each engine that pins anything has a file of its own in the repository's folder `pins`, which it holds a `flock` on: nobody
waits for anybody, and what a process that died had pinned counts for nothing. A commit is pinned before it is read.
Contents of files are pinned when gc has marked them: whoever has them open has the grace time for it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakSet

from storage.disk.files import open_file
from storage.disk.index import Index, number_key
from storage.errors import NotFound
from storage.model.digest import DIGEST_SIZE, Digest, hexed

_RECORD = struct.Struct(f"<c{DIGEST_SIZE}s")
_PIN, _UNPIN, _BEGIN, _END = b"+", b"-", b"(", b")"
_TIME = 8  # of what _BEGIN and _END name, the ns since 1970; the rest tells it from others
_LONG = 10_000
"""Records after which a file is written anew."""


class Pins:
    """What one engine has pinned: each commit for as long as somebody here holds a reader of it. Thread-safe.

    A full disk keeps nobody from reading: the pin is then left out.
    """

    def __init__(self, folder: Path, index: Index, origin: bytes) -> None:
        self._folder = folder
        self._index = index
        self._origin = origin
        self._readers: dict[Digest, WeakSet[object]] = {}
        self._contents: set[Digest] = set()
        self._work: set[bytes] = set()
        self._fd = -1
        self._path = folder
        self._noted = 0
        self._files = 0
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def hold(self, commit: Digest, reader: object) -> None:
        """Keep `commit` readable while `reader` lives. NotFound when gc took it already. Waits for nobody."""
        with self._lock:
            self._leave_parent()
            if commit not in self._readers:
                self._note(_PIN, [commit])
                # Behind the pin: a gc that has not seen it has not taken away the commit's tree by now, and looks again.
                with self._index.read() as txn:
                    listed = txn.get(commit, db=self._index.commits) is not None
                if not listed:
                    self._note(_UNPIN, [commit])
                    raise NotFound(f"no commit {hexed(commit)} is stored here")
                self._readers[commit] = WeakSet()
            self._readers[commit].add(reader)

    def release(self) -> None:
        """Take back the pins of commits that nobody here reads any more."""
        with self._lock:
            self._leave_parent()
            unread = [commit for commit, readers in self._readers.items() if not readers]
            for commit in unread:
                del self._readers[commit]
            self._note(_UNPIN, [commit for commit in unread if commit not in self._contents])

    def hold_contents(self, digests: Iterable[Digest]) -> None:
        """Keep those of `digests` that gc has marked, from now on until they are not among those given any more."""
        with self._lock:
            self._leave_parent()
            wanted = set(digests)
            with self._index.read() as txn:
                if not self._contents and not self._index.rows(txn, self._index.condemned):
                    return
                marked = {digest for digest in wanted if txn.get(digest, db=self._index.condemned) is not None}
            fresh, done = marked - self._contents, self._contents - wanted
            self._contents = (self._contents | fresh) - done
            self._note(_PIN, fresh)
            self._note(_UNPIN, [digest for digest in done if digest not in self._readers])

    @contextmanager
    def working(self) -> Iterator[None]:
        """While this runs gc deletes nothing that it has marked since the beginning: for work that takes long until a row
        leads to what it has stored, or found stored.
        """
        mark = number_key(time.time_ns()) + os.urandom(DIGEST_SIZE - _TIME)
        with self._lock:
            self._leave_parent()
            self._work.add(mark)
            self._note(_BEGIN, [mark])
        try:
            yield
        finally:
            with self._lock:
                self._work.discard(mark)
                self._note(_END, [mark])

    def close(self) -> None:
        """Take back all pins."""
        with self._lock:
            self._leave_parent()
            self._drop_file()
            self._readers, self._contents, self._work = {}, set(), set()

    def _leave_parent(self) -> None:
        """The parent's pins hold while it lives; what a forked process opens, it pins itself."""
        if self._pid != os.getpid():
            if self._fd >= 0:
                os.close(self._fd)
            self._fd, self._pid = -1, os.getpid()
            self._readers, self._contents, self._work = {}, set(), set()

    def _note(self, kind: bytes, names: Iterable[bytes]) -> None:
        records = [_RECORD.pack(kind, name) for name in names]
        if not records:
            return
        with suppress(OSError):
            if self._fd < 0:
                self._new_file()
            self._append(records)
            if self._noted > _LONG + 2 * len(self._records()):
                self._renew()

    def _records(self) -> list[bytes]:
        pinned = self._readers.keys() | self._contents
        return [_RECORD.pack(_PIN, digest) for digest in pinned] + [_RECORD.pack(_BEGIN, mark) for mark in self._work]

    def _append(self, records: list[bytes]) -> None:
        os.write(self._fd, b"".join(records))
        self._noted += len(records)

    def _renew(self) -> None:
        """Write what holds into a new file; the old one goes when that is done."""
        fd, path = self._fd, self._path
        self._new_file()
        self._append(self._records())
        path.unlink(missing_ok=True)
        os.close(fd)

    def _new_file(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._files += 1
        path = self._folder / f"{self._pid}-{self._origin.hex()}-{self._files}"
        while True:
            fd = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:  # else gc took it for that of a dead process before it had the lock
                break
            os.close(fd)
        self._fd, self._path, self._noted = fd, path, 0

    def _drop_file(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


@dataclass(slots=True)
class Pinned:
    """What live processes have pinned, commits and contents; and when each piece of their work began, in ns since 1970."""

    digests: set[Digest] = field(default_factory=set)
    work: set[bytes] = field(default_factory=set)

    @property
    def since(self) -> int | None:
        """When the oldest work began, None where there is none."""
        return min((int.from_bytes(mark[:_TIME], "big") for mark in self.work), default=None)


def pinned(folder: Path) -> Pinned:
    """What is pinned in a repository by the files in its folder `pins`; those of dead processes are deleted."""
    while True:
        try:
            files = [_read_live(path) for path in folder.iterdir()]
        except FileNotFoundError:
            if not folder.exists():
                return Pinned()
            continue  # somebody went, or wrote a file anew: look at all of them again
        found = Pinned()
        for data in files:
            one = _replayed(data)
            found.digests |= one.digests
            found.work |= one.work
        return found


def _replayed(data: bytes) -> Pinned:
    found = Pinned()
    for at in range(0, len(data) - _RECORD.size + 1, _RECORD.size):
        kind, name = _RECORD.unpack_from(data, at)
        if kind == _PIN:
            found.digests.add(Digest(name))
        elif kind == _UNPIN:
            found.digests.discard(Digest(name))
        elif kind == _BEGIN:
            found.work.add(name)
        elif kind == _END:
            found.work.discard(name)
    return found


def _read_live(path: Path) -> bytes:
    """What a file says; nothing if its process is dead, and the file is deleted. FileNotFoundError."""
    fd = open_file(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read()
    else:
        path.unlink(missing_ok=True)
        return b""
    finally:
        os.close(fd)
