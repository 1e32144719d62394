"""Pins: what a live process reads though no ref may lead to it any more. gc keeps it.

A pin is a row of the index that names its process, so that the pins of a dead one count for nothing. A commit is pinned
before it is read. Contents of files are pinned when gc has marked them: whoever has them open has the grace time for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from weakref import WeakSet

import msgspec

from storage.disk.index import Index, Txn, number_key
from storage.disk.locks import Owner, this_process
from storage.errors import NotFound, StorageFull
from storage.model.digest import Digest, hexed

_OWNER = 16  # process id u64 and the engine's own 8 bytes; the digest follows


class Pins:
    """The commits that one engine reads, each for as long as somebody here holds a reader of it. Thread-safe."""

    def __init__(self, index: Index, origin: bytes) -> None:
        self._index = index
        self._origin = origin
        self._readers: dict[Digest, WeakSet[object]] = {}
        self._contents: set[Digest] = set()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def hold(self, commit: Digest, reader: object) -> None:
        """Keep `commit` readable while `reader` lives. NotFound when gc took it already.

        A full disk keeps nobody from reading: the pin is then left out.
        """
        with self._lock:
            if self._pid != os.getpid():
                # The parent's pins hold while it lives; what this process opens, it pins itself.
                self._pid, self._readers, self._contents = os.getpid(), {}, set()
            if commit not in self._readers:
                self._write(commit)
                self._readers[commit] = WeakSet()
            self._readers[commit].add(reader)

    def _write(self, commit: Digest) -> None:
        with self._index.read() as txn:
            self._require(txn, commit)
        with suppress(StorageFull), self._index.write() as txn:
            self._require(txn, commit)
            self._drop(txn, self._unread())
            txn.put(self._key(commit), msgspec.msgpack.encode(this_process()), db=self._index.pins)

    def _require(self, txn: Txn, commit: Digest) -> None:
        if txn.get(commit, db=self._index.commits) is None:
            raise NotFound(f"no commit {hexed(commit)} is stored here")

    def release(self) -> None:
        """Take back the pins of commits that nobody here reads any more."""
        with self._lock:
            unread = self._unread() if self._pid == os.getpid() else []
            if unread:
                self._take_back(unread)

    def hold_contents(self, digests: Iterable[Digest]) -> None:
        """Keep those of `digests` that gc has marked, from now on until they are not among those given any more."""
        with self._lock:
            if self._pid != os.getpid():
                return
            wanted = set(digests)
            with self._index.read() as txn:
                if not self._contents and not self._index.rows(txn, self._index.condemned):
                    return
                fresh = {digest for digest in wanted if txn.get(digest, db=self._index.condemned) is not None}
            fresh, done = fresh - self._contents, self._contents - wanted
            if fresh or done:
                with suppress(StorageFull), self._index.write() as txn:
                    for digest in fresh:
                        txn.put(self._key(digest), msgspec.msgpack.encode(this_process()), db=self._index.pins)
                    self._drop(txn, list(done))
                    self._contents |= fresh

    def close(self) -> None:
        """Take back all pins."""
        with self._lock:
            if (self._readers or self._contents) and self._pid == os.getpid():
                self._take_back([*self._readers, *self._contents])

    def _take_back(self, commits: list[Digest]) -> None:
        with suppress(StorageFull), self._index.write() as txn:
            self._drop(txn, commits)

    def _unread(self) -> list[Digest]:
        return [commit for commit, readers in self._readers.items() if not readers]

    def _drop(self, txn: Txn, digests: list[Digest]) -> None:
        for digest in digests:
            txn.delete(self._key(digest), db=self._index.pins)
            self._readers.pop(digest, None)
            self._contents.discard(digest)

    def _key(self, digest: Digest) -> bytes:
        return number_key(self._pid) + self._origin + digest


def pinned(index: Index, txn: Txn) -> Iterator[tuple[bytes, Digest, bool]]:
    """Every pin: its key, the commit or contents that it keeps, and whether its process lives."""
    for key, value in index.scan(txn, index.pins, b""):
        yield key, Digest(key[_OWNER:]), msgspec.msgpack.decode(value, type=Owner).alive
