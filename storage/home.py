"""A repository's folder: its configuration, the state of its index, and what happens when the first process opens it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from storage.disk import files
from storage.disk.index import Index, is_whole
from storage.disk.locks import boot_id
from storage.disk.segments import FORMAT_VERSION, Segments
from storage.errors import Corrupt, NewerFormat, NotARepository
from storage.model.names import CONTROL
from storage.stores.log import renew_failed
from storage.stores.recovery import RebuildReport, rebuild_index

LAYOUT = 2
"""What the rows of the index look like; an index that looks otherwise is made anew."""


class Config(msgspec.Struct, frozen=True):
    """`config.json`: the format, the repository's own id, and who commits."""

    format: int
    id: str
    name: str
    email: str


class State(msgspec.Struct, frozen=True):
    """`state.json`: the boot in which the index was last open, and whether it was closed in good order.

    `stamp` stands in the index too: it tells that very index from any copy made before it was last opened.
    """

    boot: str
    clean: bool
    stamp: str = ""


def folder(path: Path) -> Path:
    """The folder inside a repository's folder that holds its data."""
    return path / CONTROL.decode()


def read_config(path: Path) -> Config:
    """A repository's configuration. NotARepository, NewerFormat, Corrupt."""
    where = folder(path) / "config.json"
    try:
        data = where.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotARepository(f"{path} holds no arborfs repository: make one with `arborfs init {path}`") from None
    except OSError as error:
        raise files.failure(error, f"read {where}") from error
    try:
        version = msgspec.json.decode(data).get("format", 0)
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise NewerFormat(
                f"{path} has format {version}, this arborfs reads up to {FORMAT_VERSION}: install a newer arborfs"
            )
        return msgspec.json.decode(data, type=Config)
    except (msgspec.MsgspecError, AttributeError) as error:
        raise Corrupt(f"{where} cannot be read: {error}", where=str(where)) from error


def _read_state(home: Path) -> State:
    try:
        return msgspec.json.decode((home / "state.json").read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError):
        return State("", False)


def is_started(home: Path) -> bool:
    """Whether the index was started in this boot, and nobody was the last to close it since."""
    state = _read_state(home)
    return state.boot == boot_id() and not state.clean


def index_trouble(home: Path) -> str:
    """Why the index must be rebuilt before it is used, empty where it need not. Nobody else may have it open."""
    state = _read_state(home)
    if not (home / "index" / "data.mdb").exists():
        return "it is missing"
    if not (state.clean or state.boot == boot_id()):
        return "the machine went down while the repository was open"
    if not _fits(home, state.stamp):
        return "it is damaged, cut short, a copy from an earlier day, or made by an older arborfs"
    return ""


def start_index(home: Path, *, fresh: bool) -> RebuildReport | None:
    """Make the index fit to be opened, with the repository to ourselves; what was found if it was rebuilt."""
    needed = not fresh and index_trouble(home) != ""
    files.make_directory(home / "tmp")
    for left in (home / "tmp").iterdir():
        files.remove_tree(left) if left.is_dir() and not left.is_symlink() else files.remove(left)
    report = rebuild_index(home) if needed else None
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
        return _stamp(index) == stamp and _layout(index) == LAYOUT
    except Corrupt:
        return False
    finally:
        index.close()


def _stamp(index: Index) -> str:
    with index.read() as txn:
        return (txn.get(b"stamp", db=index.meta) or b"").decode()


def _layout(index: Index) -> int:
    with index.read() as txn:
        return index.number(txn, b"layout")


def bind_index(home: Path) -> None:
    """Bind the index to this boot: sequence numbers go on above all that were used before."""
    files.make_directory(home / "index")
    index = Index(home / "index")
    with index.write() as txn:
        boot = boot_id().encode()
        if txn.get(b"boot", db=index.meta) != boot:
            index.set_number(txn, b"sequence-base", index.number(txn, b"sequence") + 1)
            txn.put(b"boot", boot, db=index.meta)
        index.set_number(txn, b"layout", LAYOUT)
        txn.put(b"stamp", os.urandom(8).hex().encode(), db=index.meta)
    stamp = _stamp(index)
    renew_failed(index, Segments(home / "segments"))
    index.close()
    _write_state(home, clean=False, stamp=stamp)


def mark_clean(home: Path, index: Index) -> None:
    """Note, durably, that the index was closed in good order."""
    _write_state(home, clean=True, stamp=_stamp(index))


def _write_state(home: Path, *, clean: bool, stamp: str) -> None:
    files.replace(home / "state.json", msgspec.json.encode(State(boot_id(), clean, stamp)))
