"""Reading the files and directories of a branch or a commit by path."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

from storage.errors import InvalidName, IsADirectory, NotADirectory, NotFound, Unsupported
from storage.labels import LabelIndex, Labels
from storage.model.digest import hexed
from storage.model.names import Path
from storage.model.records import Entry, Kind, Schema
from storage.session import Home
from storage.snapshot import Snapshot
from storage.stores.contents import Content
from storage.worktree import WorkingTree

FilePath = str | os.PathLike[str]

USER = "user."

_KINDS: dict[Kind, Literal["file", "directory", "link"]] = {
    Kind.FILE: "file",
    Kind.SAMPLE: "file",
    Kind.SYMLINK: "link",
    Kind.DIRECTORY: "directory",
    Kind.STAGED: "directory",
}


class FileInfo(NamedTuple):
    """What stands at a path: a file (samples, too), a directory or a link; `size` in bytes (0
    for a directory), `mtime` in ns since 1970."""

    kind: Literal["file", "directory", "link"]
    size: int
    mtime: int

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.kind == "directory"


class FileReader:
    """What can be read of a tree by path: see storage.files.Files. Thread-safe."""

    def __init__(self, tree: Snapshot | WorkingTree, home: Home, labels: LabelIndex) -> None:
        self._tree = tree
        self._home = home
        self._labels = labels

    @property
    def repository(self) -> os.PathLike[str]:
        """The repository's folder."""
        return self._home.path

    @property
    def branch(self) -> str | None:
        """The branch; None where it is a commit."""
        return self._tree.branch if isinstance(self._tree, WorkingTree) else None

    @property
    def commit_hash(self) -> str:
        """The commit, or the branch's last one: 64 hexadecimal digits, empty before the first one."""
        tip = self._tree.commit if isinstance(self._tree, Snapshot) else self._tree.tip()
        return hexed(tip) if tip is not None else ""

    def info(self, path: FilePath) -> FileInfo:
        """What stands at `path`."""
        return _info(self._tree.entry(tree_path(path)))

    def exists(self, path: FilePath) -> bool:
        """Whether anything stands at `path`."""
        return self._found(tree_path(path)) is not None

    def is_directory(self, path: FilePath) -> bool:
        """Whether a directory stands at `path`."""
        entry = self._found(tree_path(path))
        return entry is not None and entry.is_directory

    def list(self, path: FilePath = "") -> Iterator[tuple[str, FileInfo]]:
        """Name and info of what is in a directory, in the order of the names' bytes."""
        for name, entry in self._tree.entries(tree_path(path)):
            if entry.kind in _KINDS:
                yield os.fsdecode(name), _info(entry)

    def list_with(self, path: FilePath, attribute: str) -> Iterator[tuple[str, FileInfo, bytes | None]]:
        """As `list`, with the value of the extended attribute `user.<attribute>` of each, None where there is none."""
        wanted = os.fsencode(USER + attribute)
        for name, entry in self._tree.entries(tree_path(path)):
            if entry.kind in _KINDS:
                yield os.fsdecode(name), _info(entry), dict(entry.attributes.xattrs).get(wanted)

    def samples(self, path: FilePath) -> Iterator[tuple[str, bytes]]:
        """Name and contents of the samples of a dataset that is no array's, in the order of the names' bytes."""
        for name, entry in self._tree.entries(tree_path(path)):
            if entry.kind is Kind.SAMPLE:
                yield os.fsdecode(name), bytes(self._tree.payload(entry))

    def count(self, path: FilePath) -> int:
        """How many samples a dataset holds. Costs a walk over what is staged in it, and none while nothing changes."""
        return self._tree.count_samples(tree_path(path))

    def schema(self, path: FilePath) -> Schema | None:
        """What the samples of the dataset at `path` look like, None for an ordinary directory. NotADirectory."""
        entry = self._tree.entry(tree_path(path))
        if not entry.is_directory:
            raise NotADirectory(f"{os.fspath(path)} is a file")
        return entry.schema

    def read(self, path: FilePath) -> bytes:
        """What a file holds."""
        content = self._content(tree_path(path))
        return bytes(content.read(0, content.size))

    def open(self, path: FilePath) -> BinaryIO:
        """A file to read from and to seek in; only what is read is fetched. It stays as it is, whatever is written later."""
        return io.BufferedReader(_Reading(self._content(tree_path(path))), 1 << 16)

    def target(self, path: FilePath) -> str:
        """Where a link leads, as it was written. Unsupported (a ValueError) for what is no link."""
        entry = self._tree.entry(tree_path(path))
        if entry.kind is not Kind.SYMLINK:
            raise Unsupported(f"{os.fspath(path)} is no link")
        target = entry.value if isinstance(entry.value, bytes) else self._tree.target(tree_path(path))  # type: ignore[union-attr]
        return os.fsdecode(target)

    def attributes(self, path: FilePath) -> dict[str, bytes]:
        """The extended attributes `user.…` of what stands at `path`, by name without `user.`."""
        entry = self._tree.entry(tree_path(path))
        return {os.fsdecode(name)[len(USER) :]: value for name, value in entry.attributes.xattrs}

    def labels(self, what: str = "treant") -> Labels:
        """Which directories or files are marked as a `treant` or a `task`, and with which labels. NotFound for other things."""
        if isinstance(self._tree, Snapshot):
            return self._labels.of_commit(self._tree.commit, what)
        return self._labels.of_branch(self._tree.branch, what)

    def _found(self, path: Path) -> Entry | None:
        try:
            return self._tree.entry(path)
        except (NotFound, NotADirectory):
            return None

    def _schema(self, parent: Path) -> Schema | None:
        try:
            return self._tree.schema_of(parent)
        except NotFound:
            return None

    def _content(self, path: Path) -> Content:
        if not path:
            raise IsADirectory("the top of a tree is a directory")
        return self._tree.open(path)[1]

    def __repr__(self) -> str:
        """The repository, and what of it."""
        return f"Files({str(self._home.path)!r}, {self.branch or self.commit_hash[:16]!r})"


class _Reading(io.RawIOBase):
    """A content as a file."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from any place."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Read on from there; where that is. Behind the end there is nothing to read."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._content.size}[whence]
        if start + offset < 0:
            raise InvalidName("before the beginning of a file there is nothing")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Where reading goes on."""
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill a buffer as far as there is something to read; how many bytes that are."""
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._content.piece(self._at, len(target))
        target[: len(data)] = data
        self._at += len(data)
        return len(data)


def tree_path(path: FilePath) -> Path:
    """A path in a tree; empty components and `.` are left out. InvalidName for `..`; other names are checked when used."""
    names = [name for name in os.fsencode(path).split(b"/") if name and name != b"."]
    if b".." in names:
        raise InvalidName(f"{os.fspath(path)!r} leads upwards: name a path from the top of the tree, without ..")
    return tuple(names)


def _info(entry: Entry) -> FileInfo:
    return FileInfo(_KINDS[entry.kind], 0 if entry.is_directory else entry.size, entry.mtime)
