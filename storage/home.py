"""The folder of a repository: what it needs, the state of its index, who opens it first, and how it is deleted."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import xxhash

from storage.disk import files
from storage.disk.index import Index, is_whole
from storage.disk.locks import Presence, boot_id
from storage.disk.segments import Segments
from storage.errors import Busy, Corrupt, StorageFull
from storage.model.format import MALFORMED
from storage.stores.log import renew_failed
from storage.stores.recovery import RebuildReport, rebuild_index
from storage.stores.tails import cut_unacknowledged

STATE_MAX = 1 << 16
"""Bytes that `state.json` has at most."""
CHECKED_MAX = 1 << 27
"""A larger index is not read to its end when it is opened: `verify` and `rebuild` are for doubts about it."""
_BLOCK = 1 << 20
INDEX_VERSION = 4
"""An index with another version is made anew."""


class State(msgspec.Struct, frozen=True):
    """`state.json`: the boot in which the index was last open, and whether it was closed in good order.

    `stamp` stands in the index too: it tells that very index from any copy made before it was last opened. `checksum` is
    that of the index's file when it was closed in good order, empty where it is larger than CHECKED_MAX.
    """

    boot: str
    clean: bool
    stamp: str = ""
    checksum: str = ""


def _read_state(home: Path) -> State:
    try:
        return msgspec.json.decode(files.read_file(home / "state.json", STATE_MAX), type=State)
    except (OSError, *MALFORMED):
        return State("", False)


def is_started(home: Path) -> bool:
    """Whether the index was started in this boot, and nobody was the last to close it since."""
    state = _read_state(home)
    return state.boot == boot_id() and not state.clean


def index_trouble(home: Path) -> str:
    """Why the index must be rebuilt before it is used, empty where it need not. Nobody else may have it open."""
    state = _read_state(home)
    if not _is_plain(home / "index", stat.S_ISDIR) or not _is_plain(home / "index" / "data.mdb", stat.S_ISREG):
        return "it is missing"
    if os.path.lexists(home / "index" / "lock.mdb") and not _is_plain(home / "index" / "lock.mdb", stat.S_ISREG):
        return "its lock file is none"
    if not (state.clean or state.boot == boot_id()):
        return "the machine went down while the repository was open"
    if state.clean and state.checksum and state.checksum != checksum_of(home / "index" / "data.mdb"):
        return "it is not what it was when it was closed"
    if not _fits(home, state.stamp):
        return "it is damaged, cut short, a copy from an earlier day, or made by an older arborfs"
    return ""


def _is_plain(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether there is a file of that kind, and no link."""
    try:
        return kind(path.lstat().st_mode)
    except OSError:
        return False


def start_index(home: Path, *, fresh: bool) -> RebuildReport | None:
    """Make the index fit to be opened, with the repository to ourselves; what was found if it was rebuilt."""
    needed = not fresh and index_trouble(home) != ""
    if not _is_plain(home / "segments", stat.S_ISDIR):
        raise Corrupt(f"{home / 'segments'} is no folder: it held everything that was stored", where=str(home))
    if not _is_plain(home / "tmp", stat.S_ISDIR):
        files.remove_tree(home / "tmp")
        files.make_directory(home / "tmp")
    for left in (home / "tmp").iterdir():
        files.remove_tree(left)
    report = rebuild_index(home) if needed else None
    try:
        bind_index(home)
    except Corrupt:
        if report is not None:
            raise
        # It contradicts itself: what it was made from is still there.
        report = rebuild_index(home)
        bind_index(home)
    return report


def _fits(home: Path, stamp: str) -> bool:
    """Whether the index is whole, and the one that was last open here: a copy from an earlier day is not."""
    if not is_whole(home / "index"):
        return False
    try:
        index = Index(home / "index")
    except Corrupt:
        return False
    try:
        return _stamp(index) == stamp and _version(index) == INDEX_VERSION
    except Corrupt:
        return False
    finally:
        index.close()


def _stamp(index: Index) -> str:
    with index.read() as txn:
        return (txn.get(b"stamp", db=index.meta) or b"").decode()


def _version(index: Index) -> int:
    with index.read() as txn:
        return index.number(txn, b"version")


def bind_index(home: Path) -> None:
    """Bind the index to this boot: sequence numbers go on above all that were used before."""
    files.make_directory(home / "index")
    stamp = os.urandom(8).hex()
    # First: from the first change on, the index must not be trusted any more after a power loss.
    _write_state(home, clean=False, stamp=stamp)
    index = Index(home / "index")
    try:
        with index.write() as txn:
            boot = boot_id().encode()
            if txn.get(b"boot", db=index.meta) != boot:
                index.set_number(txn, b"sequence-base", index.number(txn, b"sequence") + 1)
                txn.put(b"boot", boot, db=index.meta)
            txn.put(b"stamp", stamp.encode(), db=index.meta)
            index.set_number(txn, b"version", INDEX_VERSION)
        segments = Segments(home / "segments")
        cut_unacknowledged(index, segments)
        renew_failed(index, segments)
    finally:
        index.close()


def mark_clean(home: Path, index: Index) -> None:
    """Note, durably, that the index was closed in good order: this one, and no copy made while it was open."""
    stamp = os.urandom(8).hex()
    with index.write() as txn:
        txn.put(b"stamp", stamp.encode(), db=index.meta)
    index.sync()
    _write_state(home, clean=True, stamp=stamp, checksum=checksum_of(home / "index" / "data.mdb"))


def checksum_of(path: Path) -> str:
    """The checksum (XXH3-64) of an index's file, which LMDB itself does not have; empty where it is large or gone."""
    found = xxhash.xxh3_64()
    try:
        descriptor = files.open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_size > CHECKED_MAX:
            return ""
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _write_state(home: Path, *, clean: bool, stamp: str, checksum: str = "") -> None:
    state = msgspec.json.encode(State(boot_id(), clean, stamp, checksum))
    try:
        files.replace(home / "state.json", state)
    except StorageFull:
        # Who is out of room must be able to read, and to make some. A state torn by a power loss is none: a rebuild.
        files.overwrite(home / "state.json", state)


def delete_data(home: Path) -> None:
    """Delete a repository's data, if there are any, for ever. Busy while anybody has it open."""
    if not home.exists():
        return
    presence = Presence(home / "lock")
    try:
        if not presence.enter(lambda: files.remove_tree(home)):
            raise Busy(f"{home} is open elsewhere: close or unmount it before it can be removed")
    finally:
        presence.leave(lambda: None)


def require_64_bits() -> None:
    """OSError where memory is too small for what is mapped into it."""
    if sys.maxsize < 1 << 32:
        raise OSError("arborfs needs a Python of 64 bits: its index is mapped into memory")


def require_folder(path: Path) -> None:
    """FileNotFoundError, PermissionError unless there is a folder that takes files."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder: make it first", str(path))
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "The folder takes no files of yours: change its mode", str(path))
