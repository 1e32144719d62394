"""What a power loss may leave of a repository: the system calls that change its files are recorded, and undone in part.

The model is strict, as POSIX is. Contents: what was written and not synced since may be there, be missing (zeros, or
nothing where the file ends before it) or be torn at any byte, each write for itself; a file cut shorter may have its
old length. Names: what was created, renamed, removed or made a directory is safe once the directory it is in was
synced, and only then; until then each name is what any of the calls left it as, each name for itself, so that a file
that was renamed may stand under both names. What was synced is there. The index's data file is written by LMDB, not
by Python: it is looked at whenever a state is drawn, and each of its pages is any of those seen since it was synced.
"""

from __future__ import annotations

import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import storage
from storage import home
from storage.disk import index, locks
from storage.disk.index import Index

PAGE, SECTOR = 4096, 512
MOODS = ("nothing", "everything", "in order", "some", "some", "some")
"""What is left of what was not synced. In order: the first calls on each file and name, and none after those."""
SOURCES = Path(storage.__file__).parent

State = dict[str, bytes | None]
"""What lies at a path below the disk's root; None for a directory. Those above come first."""


@dataclass(eq=False)
class File:
    """A file: what is safe of it, and what was done to it since, in order: (offset, bytes), or (size, None) for a cut."""

    safe: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        """All that was done to it is safe."""
        self.safe, self.since = _played(self.safe, self.since), []

    def left(self, mood: str, rng: random.Random) -> bytes:
        """What a power loss may leave of it."""
        if mood == "nothing":
            return self.safe
        if mood == "everything":
            return _played(self.safe, self.since)
        if mood == "in order":
            return _played(self.safe, _first(self.since, rng))
        fates = [_fate(offset, written, rng) for offset, written in self.since]
        return _played(self.safe, [fate for fate in fates if fate is not None])


@dataclass(eq=False)
class Pages:
    """The data file of an index: for each page what is safe of it, then everything that was seen there since."""

    seen: list[list[bytes]] = field(default_factory=list)
    size: int = 0
    """Pages that are safe."""

    def look(self, path: Path) -> None:
        """Take in what the file holds now."""
        data = path.read_bytes()
        for number, start in enumerate(range(0, len(data), PAGE)):
            if number == len(self.seen):
                self.seen.append([bytes(PAGE)])
            if self.seen[number][-1] != data[start : start + PAGE]:
                self.seen[number].append(data[start : start + PAGE])

    def sync(self) -> None:
        """What was seen last is safe."""
        self.seen = [versions[-1:] for versions in self.seen]
        self.size = len(self.seen)

    def left(self, mood: str, rng: random.Random) -> bytes:
        """What a power loss may leave of it."""
        if mood == "nothing":
            return b"".join(versions[0] for versions in self.seen[: self.size])
        if mood == "everything":
            return b"".join(versions[-1] for versions in self.seen)
        pages = self.seen[: rng.choice([self.size, len(self.seen), len(self.seen)])]
        return b"".join(_torn_page(versions, rng) for versions in pages)


@dataclass(eq=False)
class Folder:
    """A directory: for each name what is safe there, then what each call since put there; None for nothing."""

    names: dict[str, list[File | Pages | Folder | None]] = field(default_factory=dict)

    def get(self, name: str) -> File | Pages | Folder | None:
        """What the name stands for while the machine runs."""
        return self.names.get(name, [None])[-1]

    def put(self, name: str, node: File | Pages | Folder | None) -> None:
        """A call makes the name stand for something else."""
        self.names.setdefault(name, [None]).append(node)

    def sync(self) -> None:
        """The names are safe as they are."""
        self.names = {name: nodes[-1:] for name, nodes in self.names.items() if nodes[-1] is not None}


Node = File | Pages | Folder


class Disk:
    """Everything below a folder as a power loss may leave it. `on_change` is called after every call that changes it."""

    def __init__(self, root: Path) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.elsewhere: set[tuple[str, str, str]] = set()
        """Who changed names or contents without `storage.disk.files`: (module, function, call)."""
        self._root = root
        self._nodes: dict[tuple[int, int], Node] = {}
        self._quiet = False
        self.root = self._adopted(root)

    def _adopted(self, path: Path) -> Folder:
        """A folder and all below it, which counts as safe."""
        folder = Folder()
        for child in path.iterdir():
            if child.name == "lock.mdb":  # of no consequence to whoever opens the index first
                continue
            found: Node = self._adopted(child) if child.is_dir() else File(child.read_bytes())
            if child.name == "data.mdb":
                found = Pages()
                found.look(child)
                found.sync()
            folder.names[child.name] = [found]
            self._nodes[_identity(child.lstat())] = found
        self._nodes[_identity(path.lstat())] = folder
        return folder

    # What is drawn

    def left(self, moods: tuple[str, str], rng: random.Random) -> State:
        """One of the states that a power loss may leave now: of names, and of contents, in these moods."""
        self.look()
        state: State = {}
        contents: dict[int, bytes] = {}  # a file that stands under two names is one file
        self._leave(self.root, "", moods, rng, state, contents)
        return state

    def _leave(
        self,
        folder: Folder,
        above: str,
        moods: tuple[str, str],
        rng: random.Random,
        state: State,
        contents: dict[int, bytes],
    ) -> None:
        for name, nodes in folder.names.items():
            node = {"nothing": nodes[0], "everything": nodes[-1]}.get(moods[0], rng.choice(nodes))
            if isinstance(node, Folder):
                state[above + name] = None
                self._leave(node, f"{above}{name}/", moods, rng, state, contents)
            elif node is not None:
                if id(node) not in contents:
                    contents[id(node)] = node.left(moods[1], rng)
                state[above + name] = contents[id(node)]

    def look(self) -> None:
        """Take in what LMDB wrote."""
        for folder, path in self._indexes(self.root, self._root):
            data = path / "data.mdb"
            if data.exists():
                pages = self._nodes.get(_identity(data.lstat()))
                if not isinstance(pages, Pages) or folder.get("data.mdb") is not pages:
                    pages = self._nodes[_identity(data.lstat())] = Pages()
                    folder.put("data.mdb", pages)
                pages.look(data)

    def _indexes(self, folder: Folder, path: Path) -> Iterator[tuple[Folder, Path]]:
        for name in folder.names:
            child = folder.get(name)
            if isinstance(child, Folder):
                if name.startswith("index"):
                    yield child, path / name
                yield from self._indexes(child, path / name)

    # What is recorded

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Nothing is recorded meanwhile."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def settle(self, path: Path) -> None:
        """What the folder at `path` names is safe, as if somebody had synced it."""
        self._node(path).sync()

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The system's function `name`, recorded."""
        note = getattr(self, f"_note_{name}")

        def call(*arguments: Any, **options: Any) -> Any:
            if self._quiet:
                return real(*arguments, **options)
            with self.quiet():
                noted = note(*arguments, **options)
                done = real(*arguments, **options)
                changed = noted is not None and noted(done)
                if changed:
                    self._note_caller(name)
            if changed:
                with self.quiet():
                    self.on_change()
            return done

        return call

    def _note_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> Any:
        where = self._where(path, dir_fd)
        if where is None or not flags & (os.O_CREAT | os.O_TRUNC):
            return None
        known = self._node(where.parent).get(where.name)

        def opened(fd: int) -> bool:
            if known is None:
                made = self._nodes[_identity(os.fstat(fd))] = File()
                self._node(where.parent).put(where.name, made)
            elif flags & os.O_TRUNC:
                known.since.append((0, None))
            return known is None or bool(flags & os.O_TRUNC)

        return opened

    def _note_mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> Any:
        where = self._where(path, dir_fd)

        def made(_: None) -> bool:
            folder = self._nodes[_identity(where.lstat())] = Folder()
            self._node(where.parent).put(where.name, folder)
            return True

        return made if where else None

    def _note_unlink(self, path: Any, *, dir_fd: int | None = None) -> Any:
        where = self._where(path, dir_fd)

        def removed(_: None) -> bool:
            folder = self._node(where.parent)
            if folder.get(where.name) is not None:
                folder.put(where.name, None)
            return True

        return removed if where else None

    _note_rmdir = _note_unlink

    def _note_rename(self, old: Any, new: Any) -> Any:
        source, target = self._where(old), self._where(new)

        def renamed(_: None) -> bool:
            node = self._node(source)
            self._node(source.parent).put(source.name, None)
            self._node(target.parent).put(target.name, node)
            return True

        return renamed if source and target else None

    _note_replace = _note_rename

    def _note_pwritev(self, fd: int, parts: Any, offset: int) -> Any:
        data = b"".join(parts)
        file = self._open_file(fd)
        return file and (lambda done: file.since.append((offset, data[:done])) or True)

    def _note_pwrite(self, fd: int, data: Any, offset: int) -> Any:
        return self._note_pwritev(fd, [data], offset)

    def _note_ftruncate(self, fd: int, size: int) -> Any:
        file = self._open_file(fd)
        return file and (lambda _: file.since.append((size, None)) or True)

    def _note_fsync(self, fd: int) -> Any:
        node = self._nodes.get(_identity(os.fstat(fd)))
        return node and (lambda _: node.sync() or True)

    _note_fdatasync = _note_fsync

    def note_index_sync(self, folder: Path) -> None:
        """The index in `folder` was synced."""
        if not self._quiet and folder.is_relative_to(self._root):
            with self.quiet():
                self.look()
                self._node(folder / "data.mdb").sync()
                self.on_change()

    def _note_caller(self, call: str) -> None:
        if call in ("fsync", "fdatasync"):
            return
        frame = sys._getframe(2)
        while frame.f_back is not None and not Path(frame.f_code.co_filename).is_relative_to(SOURCES):
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCES) and path != SOURCES / "disk" / "files.py":
            self.elsewhere.add((str(path.relative_to(SOURCES)), frame.f_code.co_name, call))

    def _open_file(self, fd: int) -> File | None:
        found = self._nodes.get(_identity(os.fstat(fd)))
        return found if isinstance(found, File) else None

    def _where(self, path: Any, dir_fd: int | None = None) -> Path | None:
        """The path that a call means, None where it is none of ours."""
        whole = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else Path.cwd()
        whole = whole / os.fsdecode(path)
        return whole if whole.is_relative_to(self._root) and whole != self._root else None

    def _node(self, path: Path) -> Any:
        node: Any = self.root
        for part in path.relative_to(self._root).parts:
            node = node.get(part)
        return node


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _played(data: bytes, calls: list[tuple[int, bytes | None]]) -> bytes:
    out = bytearray(data)
    for offset, written in calls:
        if written is None:
            del out[offset:]
        else:
            if len(out) < offset:
                out.extend(bytes(offset - len(out)))
            out[offset : offset + len(written)] = written
    return bytes(out)


def _first(calls: list[tuple[int, bytes | None]], rng: random.Random) -> list[tuple[int, bytes | None]]:
    """Some of the calls from the first on, the last of them torn."""
    kept = calls[: rng.randrange(len(calls) + 1)]
    if kept and kept[-1][1] is not None:
        offset, written = kept[-1]
        kept[-1] = (offset, written[: rng.randrange(len(written) + 1)])
    return kept


def _fate(offset: int, written: bytes | None, rng: random.Random) -> tuple[int, bytes | None] | None:
    """What becomes of one write or cut."""
    fate = rng.choice(["kept", "kept", "lost", "zeros", "torn", "holes"])
    if fate == "lost":
        return None
    if fate == "kept" or written is None:
        return offset, written
    if fate == "zeros":
        return offset, bytes(len(written))
    if fate == "torn":
        return offset, written[: rng.randrange(len(written) + 1)]
    start = rng.randrange(len(written) + 1)
    stop = min(len(written), start + rng.choice([1, 16, SECTOR, PAGE]))
    return offset, written[:start] + bytes(stop - start) + written[stop:]


def _torn_page(versions: list[bytes], rng: random.Random) -> bytes:
    """One of the versions of a page, or its sectors from two of them."""
    one, other = rng.choice(versions), rng.choice(versions)
    cut = rng.choice([PAGE, PAGE, PAGE, SECTOR * rng.randrange(PAGE // SECTOR)])
    return one[:cut] + other[cut:]


CALLS = (
    "open",
    "mkdir",
    "unlink",
    "rmdir",
    "rename",
    "replace",
    "pwritev",
    "pwrite",
    "ftruncate",
    "fsync",
    "fdatasync",
)


@contextmanager
def recorded(root: Path) -> Iterator[Disk]:
    """Record what is done to the files below `root`, from their present state on, which counts as safe."""
    disk = Disk(root)
    synced = Index.sync

    def sync(self: Index) -> None:
        synced(self)
        disk.note_index_sync(self.folder)

    with ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, disk.wrapped(name, getattr(os, name))))
        stack.enter_context(mock.patch.object(Index, "sync", sync))
        yield disk


@contextmanager
def rebooted() -> Iterator[None]:
    """Another boot: it has an id of its own, and the clock that runs since boot starts anew."""
    started, boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME), str(uuid.uuid4())
    clock = SimpleNamespace(
        clock_gettime_ns=lambda which: time.clock_gettime_ns(which) - started, CLOCK_BOOTTIME=time.CLOCK_BOOTTIME
    )
    with (
        mock.patch.object(home, "boot_id", return_value=boot),
        mock.patch.object(locks, "boot_id", return_value=boot),
        mock.patch.object(index, "time", clock),
    ):
        yield


def materialised(state: State, root: Path) -> None:
    """Write a state into an empty folder."""
    for name, data in state.items():
        if data is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(data)
