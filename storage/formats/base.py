"""What formats have in common: what they hand over when they load, what they are given to save, their interface.

A format reads a file outside of the repository and yields what is in it, some megabytes at a time; or it is given
something stored and writes it to a file. It never sees the repository: names, schemas and what is there already
are looked after by `storage.importing` and `storage.exporting`, so that a plug-in is a few lines.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from storage.errors import InvalidInput
from storage.formats.stored import Stored
from storage.model.names import Path as TreePath
from storage.model.records import PLAIN, Attributes
from storage.model.samples import Array, Source, check_array

BLOCK_BYTES = 4 << 20
"""Formats hand over and read about so many bytes at a time."""

By = Literal["", "file", "row", "column"]
"""What becomes one sample; empty: what is usual for the format."""

__all__ = [
    "BLOCK_BYTES", "By", "File", "FileSource", "Folder", "Format", "Item", "Link", "Meter", "Options", "Samples",
    "Stored", "check_array", "natural_file", "regular_file",
]  # fmt: skip


class Meter(Protocol):
    """Is told how far the work has come. What it raises ends the work, with nothing staged and nothing exported."""

    def start(self, total: int) -> None:
        """So many bytes will be done; 0 where that is not known."""

    def advance(self, nbytes: int) -> None:
        """So many bytes more have been done."""


class Silent:
    """A meter that shows nothing."""

    def start(self, total: int) -> None:
        """Nothing."""

    def advance(self, nbytes: int) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. `key` is the column that holds keys; `meter` is told of bytes read or written."""

    by: By = ""
    key: str = ""
    variable_shape: bool = False
    meter: Meter = field(default_factory=Silent)


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one dataset.

    `values` are arrays; or one array, whose rows are the samples; or a single source that holds a `.npy` file.
    Without `keys` they are numbered on. `dataset` is the dataset below the one that is imported into: () that
    one itself. `where` names them in messages; with `first` set it is a file, and they are its rows from `first` on.
    """

    values: Array | Sequence[Array] | Source
    keys: Sequence[str] | None
    where: str
    dataset: TreePath = ()
    first: int | None = None

    def place(self, number: int) -> str:
        """The sample of that number, for messages."""
        return self.where if self.first is None else f"{self.where}, row {self.first + number}"


@dataclass(frozen=True, slots=True)
class File:
    """A file to be kept as it is; as a sample if its place is in a dataset and its name is that of one."""

    path: TreePath
    source: Source
    where: str
    mtime: int
    attributes: Attributes = PLAIN


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, to be kept as one."""

    path: TreePath
    target: bytes
    where: str
    mtime: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory: everything in it has been handed over. One that is never named is made all the same."""

    path: TreePath
    where: str
    mtime: int
    attributes: Attributes = PLAIN


Item = Samples | File | Link | Folder


class Format(Protocol):
    """A format by name. Entry points of the group `arborfs.formats` give objects like this one."""

    @property
    def name(self) -> str:
        """What `--format` calls it."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The endings of its files, with the dot, in small letters; () if it is asked for by name only."""

    def weigh(self, path: Path, options: Options) -> int:
        """How many bytes `load` will tell the meter of."""

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """What the file at `path` holds, a few megabytes at a time. InvalidInput, naming file and place."""

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """Write what is stored to `path`, which is not there yet. Unsupported, where it cannot hold that."""


class FileSource:
    """A file that stays open, as the source of contents. It is taken to be as long as when it was opened."""

    base = None
    dirty: tuple[()] = ()

    def __init__(self, fd: int, size: int, where: str, meter: Meter) -> None:
        self._fd = fd
        self.size = size
        self._where = where
        self._meter = meter
        self._told = 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer only at the end. InvalidInput where the file has become shorter."""
        wanted = max(0, min(size, self.size - offset))
        parts: list[bytes] = []
        while wanted:
            part = os.pread(self._fd, wanted, offset)
            if not part:
                raise InvalidInput("the file became shorter while it was read", where=self._where)
            parts.append(part)
            wanted -= len(part)
            offset += len(part)
        if offset > self._told:
            self._meter.advance(offset - self._told)
            self._told = offset
        return parts[0] if len(parts) == 1 else b"".join(parts)


def regular_file(path: Path, *, follow: bool = True) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file, and what is known of it; InvalidInput for anything else.

    A fifo or device is never waited for. Without `follow` a symbolic link is refused as well.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    known = os.fstat(fd)
    if not stat.S_ISREG(known.st_mode):
        os.close(fd)
        raise InvalidInput("neither a file nor a directory nor a link", where=str(path))
    return fd, known


def natural_file(path: Path) -> str:
    """The key of a file's sample: its name without the ending."""
    return path.name[: -len(path.suffix)] if path.suffix else path.name
