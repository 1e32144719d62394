"""What a power loss may leave of a repository: every call that changes its files is recorded, and played back in part.

The model is strict. What was written and not synced since may be there, be missing (zeros, or nothing where the file
ends before it) or be torn at any byte, each write for itself. A file cut shorter may have its old length. A file
removed may be there again while its folder was not synced. What was synced is there. The index is never there: after
a boot it is made anew from the rest.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from storage.disk import files


@dataclass
class File:
    """A file: what is safe of it, and what was done to it since, in order: (offset, bytes), or (size, None) for a cut."""

    safe: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def now(self) -> bytes:
        """What the file holds while the machine runs."""
        return _played(self.safe, self.since)


@dataclass
class Disk:
    """The files of a repository by name, and names that were removed lately: those may come back."""

    files: dict[str, File] = field(default_factory=dict)
    removed: dict[str, File] = field(default_factory=dict)
    on_change: Callable[[], None] = lambda: None

    def left(self, rng: random.Random) -> dict[str, bytes]:
        """One of the states that a power loss may leave now."""
        mood = rng.choice(["nothing", "everything", "some", "some", "some"])
        names = dict(self.files)
        names.update({name: file for name, file in self.removed.items() if name not in names and rng.random() < 0.5})
        return {name: _survivor(file, mood, rng) for name, file in names.items()}


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


def _survivor(file: File, mood: str, rng: random.Random) -> bytes:
    if mood == "everything":
        return file.now()
    if mood == "nothing":
        return file.safe
    kept: list[tuple[int, bytes | None]] = []
    for offset, written in file.since:
        fate = rng.choice(["kept", "kept", "lost", "zeros", "torn", "holes"])
        if fate == "kept" or (written is None and fate != "lost"):
            kept.append((offset, written))
        elif written is not None and fate == "zeros":
            kept.append((offset, bytes(len(written))))
        elif written is not None and fate == "torn":
            kept.append((offset, written[: rng.randrange(len(written) + 1)]))
        elif written is not None and fate == "holes":
            kept.append((offset, _with_hole(written, rng)))
    return _played(file.safe, kept)


def _with_hole(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice([1, 16, 512, 4096]))
    return data[:start] + bytes(stop - start) + data[stop:]


@contextmanager
def recorded(home: Path) -> Iterator[Disk]:
    """Record what is done to the repository's files in `home`, from its present state on, which counts as safe."""
    disk = Disk()
    for path in home.rglob("*"):
        if path.is_file() and _counts(path, home):
            disk.files[_name(path, home)] = File(path.read_bytes())
    real = {
        name: getattr(files, name)
        for name in ("append", "truncate", "sync", "sync_directory", "create", "replace", "remove")
    }

    def of(descriptor: int) -> File | None:
        return disk.files.get(_name(Path(os.readlink(f"/proc/self/fd/{descriptor}")), home))

    def append(fd: int, parts: list[bytes | memoryview], offset: int) -> int:
        end: int = real["append"](fd, parts, offset)
        file = of(fd)
        if file is not None:
            file.since.append((offset, b"".join(parts)))
            disk.on_change()
        return end

    def truncate(fd: int, size: int) -> None:
        real["truncate"](fd, size)
        file = of(fd)
        if file is not None:
            file.since.append((size, None))
            disk.on_change()

    def sync(fd: int) -> None:
        real["sync"](fd)
        file = of(fd)
        if file is not None:
            file.safe, file.since = file.now(), []
            disk.on_change()

    def sync_directory(path: Path) -> None:
        real["sync_directory"](path)
        for name in [name for name in disk.removed if (home / name).parent == path]:
            del disk.removed[name]

    def create(path: Path) -> int:
        fd: int = real["create"](path)
        if _counts(path, home):
            disk.files[_name(path, home)] = File()
            disk.on_change()
        return fd

    def replace(path: Path, data: bytes) -> None:
        real["replace"](path, data)
        if _counts(path, home):
            disk.files[_name(path, home)] = File(data)
            disk.on_change()

    def remove(path: Path) -> None:
        real["remove"](path)
        file = disk.files.pop(_name(path, home), None)
        if file is not None:
            disk.removed[_name(path, home)] = file
            disk.on_change()

    with ExitStack() as stack:
        for fake in (append, truncate, sync, sync_directory, create, replace, remove):
            stack.enter_context(mock.patch.object(files, fake.__name__, fake))
        yield disk


def _counts(path: Path, home: Path) -> bool:
    return path.is_relative_to(home) and path.relative_to(home).parts[0] not in ("index", "tmp", "lock", "commit.lock")


def _name(path: Path, home: Path) -> str:
    return str(path.relative_to(home)) if path.is_relative_to(home) else ""


def materialised(state: dict[str, bytes], home: Path) -> None:
    """Write a state into an empty folder."""
    for name, data in state.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
