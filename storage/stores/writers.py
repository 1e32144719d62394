"""Writer locks: one writer checkout a branch, and a dead owner's lock heals itself."""

from __future__ import annotations

import os
import uuid
import warnings

import msgspec

from storage.disk.index import Index
from storage.disk.locks import Owner, this_process
from storage.errors import WriterLockHeld
from storage.stores.refs import Refs


class WriterLocks:
    """The writer locks of a repository, kept in the index. Thread-safe."""

    def __init__(self, index: Index, refs: Refs) -> None:
        self._index = index
        self._refs = refs

    def acquire(self, branch: str) -> Owner:
        """Take the branch's writer lock; what to release it with.

        WriterLockHeld while a live process has it; a dead one's is taken over.
        """
        key = _key(branch)
        mine = msgspec.structs.replace(this_process(), token=uuid.uuid4().hex)
        with self._index.write() as txn:
            self._refs.branch(txn, branch)
            data = txn.get(key, db=self._index.meta)
            owner = msgspec.msgpack.decode(data, type=Owner) if data else None
            if owner is not None and owner.alive:
                raise WriterLockHeld(
                    "Cannot acquire the writer lock. Only one instance of a writer checkout can be active at a time. "
                    "If the last checkout of this repository did not properly close, or a crash occurred, the lock must "
                    "be manually freed before another writer can be instantiated. "
                    f"(Branch {branch!r} is written by process {owner.pid}, which lives.)"
                )
            if owner is not None:
                # Before the lock is taken: where warnings are errors, it must not stay with us.
                warnings.warn(
                    f"the writer lock of branch {branch!r} was left by process {owner.pid}, which is gone: taken over",
                    stacklevel=5,
                )
            txn.put(key, msgspec.msgpack.encode(mine), db=self._index.meta)
        return mine

    def release(self, branch: str, owner: Owner) -> None:
        """Give the branch's writer lock back, if it is still the one that acquire gave to this process."""
        if owner.pid != os.getpid():
            return  # forked from the one that has it, and still writes
        key = _key(branch)
        with self._index.write() as txn:
            data = txn.get(key, db=self._index.meta)
            if data and msgspec.msgpack.decode(data, type=Owner) == owner:
                txn.delete(key, db=self._index.meta)

    def force_release(self, branch: str | None = None) -> bool:
        """Take the writer lock away from whoever has it, on one branch or on all; whether there was one."""
        with self._index.write() as txn:
            prefix = _key(branch or "")
            keys = [key for key, _ in self._index.scan(txn, self._index.meta, prefix)]
            keys = [key for key in keys if branch is None or key == prefix]
            for key in keys:
                txn.delete(key, db=self._index.meta)
        return bool(keys)

    def held(self, branch: str) -> Owner | None:
        """The live process that holds the branch's writer lock, None if there is none."""
        with self._index.read() as txn:
            data = txn.get(_key(branch), db=self._index.meta)
        owner = msgspec.msgpack.decode(data, type=Owner) if data else None
        return owner if owner is not None and owner.alive else None


def _key(branch: str) -> bytes:
    # Also of what can be no branch's name: it is simply not there.
    return b"writer/" + branch.encode("utf-8", "surrogatepass")
