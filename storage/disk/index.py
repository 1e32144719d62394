"""The LMDB index: derivable from the segments, and the only module that imports lmdb.

Transactions are not synced: killing processes cannot hurt LMDB (its pages are in the kernel), and after a power loss
the index is rebuilt rather than trusted. A write transaction begins and ends inside one synchronous function.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import lmdb
import msgspec

from storage.errors import Closed, Corrupt, StorageFailed, StorageFull

Table = Any

UNREADABLE = (struct.error, OverflowError, msgspec.MsgspecError, UnicodeDecodeError)
"""What rows of the index give when they are taken apart and are not what was written."""


class Txn(Protocol):
    """A transaction: what the stores use of lmdb.Transaction."""

    def get(self, key: bytes, *, db: Table) -> bytes | None:
        """The value of a key, None where there is none."""

    def put(self, key: bytes, value: bytes, *, overwrite: bool = True, db: Table) -> bool:
        """Set the value of a key; whether it was set (always, unless `overwrite` is false)."""

    def delete(self, key: bytes, *, db: Table) -> bool:
        """Delete a key; whether it was there."""

    def cursor(self, *, db: Table) -> Any:
        """A cursor over a table, to be used in a `with` block."""

    def stat(self, *, db: Table) -> dict[str, int]:
        """What LMDB counts of a table."""


MAP_SIZE = 1 << 40
GENERATION = b"generation"
"""The counter, in the table `meta`, that grows with every change of a working tree or ref."""
COLLECTIONS = b"collections"
"""The counter, in the table `meta`, that grows whenever gc deletes objects."""
HORIZON = b"horizon"
"""The number, in the table `meta`, of the first operation whose commits gc has kept."""
_TABLES = (
    "meta",
    "objects",
    "commits",
    "refs",
    "operations",
    "staged",
    "directories",
    "changes",
    "ends",
    "journals",
    "condemned",
)
_NUMBER = 8
_Key = tuple[int, int, int]


class Index:
    """The tables of a repository. Thread-safe, and safe to carry across fork (the child opens its own)."""

    meta: Table
    """name → value: sequence numbers, ids, generation."""
    objects: Table
    """digest → place, codec, checksum."""
    commits: Table
    """digest → time in ns."""
    refs: Table
    """name → value."""
    operations: Table
    """sequence → place of the record."""
    staged: Table
    """directory id + name → row."""
    directories: Table
    """staged directory id → base root, mtime."""
    changes: Table
    """generation → what changed, for other processes; only the latest."""
    ends: Table
    """segment id → acknowledged end, synced end."""
    journals: Table
    """segment id + id of a branch's root → highest sequence number it stages."""
    condemned: Table
    """digest of an object that nothing led to → when gc saw that, in ns. Who stores it meanwhile stores it anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._closed = False
        self._open()

    def _open(self) -> None:
        try:
            self._key, self._env, tables = _borrow(self.folder)
            for name, table in tables.items():
                setattr(self, name, table)
        except (lmdb.Error, OSError) as error:
            raise Corrupt(f"the index cannot be opened: {error}", where=str(self.folder)) from error
        # Last: who finds it takes the environment for that of this process, in another thread at this very moment.
        self._pid = os.getpid()

    def environment(self) -> lmdb.Environment:
        """The LMDB environment of this process."""
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._open()
        return self._env

    def read(self) -> _Snapshot:
        """A snapshot of all tables, as the target of a `with` statement."""
        return _Snapshot(self)

    def write(self) -> Writing:
        """One atomic change of the tables, as the target of a `with` statement: alone among all processes, and nothing of it
        stays if the block raises.
        """
        return Writing(self)

    def sync(self) -> None:
        """Make the index itself survive power loss; needed only before it is marked clean. StorageFailed."""
        try:
            self.environment().sync(True)
        except lmdb.Error as error:
            raise StorageFailed(f"the index cannot be synced to disk: {error}") from error

    def trouble(self, what: str, error: BaseException) -> Closed | Corrupt:
        """What it means that the index cannot be read or changed: another thread has closed it, or it is damaged."""
        if self._closed:
            return Closed("The repository has been closed by another thread in the middle of this call.")
        return Corrupt(
            f"the index cannot be {what}: {error}; close the repository everywhere and run `arborfs rebuild`",
            where=str(self.folder),
        )

    def close(self) -> None:
        """Let go of the environment. What other threads do with it then raises Closed."""
        self._closed = True
        if self._pid == os.getpid():
            _give_back(self._key)

    def number(self, txn: Txn, name: bytes) -> int:
        """A counter's value, 0 where it was never set."""
        return int.from_bytes(txn.get(name, db=self.meta) or b"", "big")

    def set_number(self, txn: Txn, name: bytes, value: int) -> None:
        """Set a counter."""
        txn.put(name, value.to_bytes(_NUMBER, "big"), db=self.meta)

    def next_number(self, txn: Txn, name: bytes) -> int:
        """The counter's next value, starting at 1."""
        value = self.number(txn, name) + 1
        self.set_number(txn, name, value)
        return value

    def next_sequence(self, txn: Txn) -> int:
        """A sequence number above every one ever written to a segment, also by a process that died while writing.

        It is taken from the clock that runs since boot, over a base that is set anew at the first open after a boot: a
        number once used, though its transaction never happened, is in the past.
        """
        last = self.number(txn, b"sequence")
        clock = self.number(txn, b"sequence-base") + time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        sequence = clock if clock > last else last + 1
        self.set_number(txn, b"sequence", sequence)
        return sequence

    def rows(self, txn: Txn, table: Table) -> int:
        """How many rows a table has. O(1)."""
        return txn.stat(db=table)["entries"]

    def scan(self, txn: Txn, table: Table, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The rows whose keys begin with `prefix`, in order, those behind `prefix + after` only."""
        with txn.cursor(db=table) as cursor:
            start = prefix + after
            if not cursor.set_range(start) or (after and cursor.key() == start and not cursor.next()):
                return
            for key, value in cursor.iternext():
                if not key.startswith(prefix):
                    return
                yield key, value


class _Snapshot:
    """A read transaction for a `with` block. A class: a generator would double the cost of a look-up."""

    __slots__ = ("_index", "_txn")

    def __init__(self, index: Index) -> None:
        self._index = index

    def __enter__(self) -> Txn:
        index = self._index
        environment = index._env if index._pid == os.getpid() else index.environment()
        try:
            self._txn = environment.begin()
        except lmdb.Error as error:
            raise index.trouble("read", error) from error
        return cast(Txn, self._txn)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._txn.abort()
        if isinstance(error, (lmdb.Error, *UNREADABLE)):
            raise self._index.trouble("read", error) from error


class Writing:
    """A write transaction for a `with` block. A class, as a snapshot is."""

    __slots__ = ("_index", "_txn")

    def __init__(self, index: Index) -> None:
        self._index = index

    def __enter__(self) -> Txn:
        """Wait until no other process changes the tables. StorageFull, Corrupt."""
        try:
            self._txn = self._index.environment().begin(write=True)
        except lmdb.Error as error:
            raise self._failure(error) from error
        return cast(Txn, self._txn)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Make the change, or none of it if the block raised."""
        if error is None:
            try:
                self._txn.commit()
            except lmdb.Error as failed:
                raise self._failure(failed) from failed
            return
        self._txn.abort()
        if isinstance(error, (lmdb.Error, *UNREADABLE)):
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> Exception:
        if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)) or "No space left" in str(error):
            return StorageFull(f"the index cannot be written: {error}")
        return self._index.trouble("changed", error)


# LMDB allows one environment a process and folder, so engines on one repository share it. It is the only thing they share.
_shared: dict[_Key, tuple[lmdb.Environment, dict[str, Table], int]] = {}
_sharing = threading.Lock()


def _borrow(folder: Path) -> tuple[_Key, lmdb.Environment, dict[str, Table]]:
    found = folder.stat()
    key = (os.getpid(), found.st_dev, found.st_ino)
    with _sharing:
        # After a fork the parent's environment is of no use here, and LMDB opens none beside it. Closing it in the child
        # leaves the parent's alone: reader slots and locks belong to the process.
        for old in [old for old in _shared if old[0] != key[0]]:
            _shared.pop(old)[0].close()
        environment, tables, users = _shared.get(key) or (*_opened(folder), 0)
        _shared[key] = (environment, tables, users + 1)
        return key, environment, tables


def _give_back(key: _Key) -> None:
    with _sharing:
        environment, tables, users = _shared.pop(key)
        if users > 1:
            _shared[key] = (environment, tables, users - 1)
        else:
            environment.close()


def _opened(folder: Path) -> tuple[lmdb.Environment, dict[str, Table]]:
    """An environment and its tables, opened while no other thread can know it: opening one waits for the write lock without
    letting other threads run, so that one which has the lock could never give it back.
    """
    environment = _environment(folder)
    return environment, {name: environment.open_db(name.encode()) for name in _TABLES}


def _environment(folder: Path) -> lmdb.Environment:
    environment = lmdb.open(
        str(folder),
        map_size=MAP_SIZE,
        max_dbs=len(_TABLES),
        max_readers=1024,
        sync=False,
        metasync=False,
        readahead=False,
        create=True,
    )
    environment.reader_check()
    return environment


def is_whole(folder: Path) -> bool:
    """Whether an index is there and has all its pages. Nobody may have it open: a page that is missing kills who reads it."""
    try:
        size = (folder / "data.mdb").stat().st_size
        environment = lmdb.open(str(folder), readonly=True, create=False, lock=False, map_size=max(size, 1 << 20))
    except (lmdb.Error, OSError):
        return False
    try:
        return (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] <= size
    finally:
        environment.close()


def number_key(value: int) -> bytes:
    """A number as a key that sorts like it."""
    return value.to_bytes(_NUMBER, "big")
