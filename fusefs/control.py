"""The `.arborfs/` directory at the root of every tree: commands and answers as text files.

It is found by name and never listed. Its files are made when they are first read after being opened, in a thread, and
read past the page cache; their size is 0, like that of files in /proc.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import asdict

from fusefs.handles import Handle, Listing, NameListing, TextHandle
from fusefs.layout import LONG, NEVER, Owner, Stat
from fusefs.nodes import Node, Refused
from fusefs.placed import Branch
from fusefs.rejections import Rejections
from storage.engine import Engine
from storage.errors import ArborError, InvalidName, NotFound, NothingToCommit
from storage.model.digest import Digest, hexed
from storage.model.names import CONTROL, path_text
from storage.model.records import Commit
from storage.model.texts import printable

Text = Callable[[], str]
Report = Callable[[], dict[str, Any]]
WRITING = os.O_WRONLY | os.O_RDWR
MAX_MESSAGE = 1 << 20
COMMIT = (CONTROL, b"commit")


class ControlFile(Node):
    """A text that is made when it is read; `text` is called in any thread. Emptying it calls `clear`."""

    __slots__ = ("_clear", "_owner", "_text")

    def __init__(self, owner: Owner, text: Text, clear: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._owner = owner
        self._text = text
        self._clear = clear

    def stat(self) -> Stat:
        """A file of size 0 that may be read, and written where that means something."""
        mode = stat.S_IFREG | (0o644 if self._clear or isinstance(self, CommandFile) else 0o444)
        return Stat(self.ino, mode, 0, 0, self._owner.uid, self._owner.gid, 1, NEVER, NEVER)

    def open(self, flags: int) -> Handle:
        """Open the text, for reading it as it is at the first read."""
        if flags & WRITING:
            if self._clear is None:
                raise Refused("this file can only be read")
            if flags & os.O_TRUNC:
                self._clear()
            return Discarding()
        return TextHandle(lambda: self._text().encode("utf-8", "surrogateescape"))

    def truncate(self, size: int) -> None:
        """Emptying clears it."""
        if self._clear is None:
            self.refuse()
        self._clear()


class Discarding(Handle):
    """An open text that takes anything and keeps nothing: emptying it was what counted."""

    direct = True

    def read(self, offset: int, size: int) -> bytes:
        """Nothing."""
        return b""

    def write(self, offset: int, data: bytes) -> None:
        """Nothing."""


class CommandFile(ControlFile):
    """Reading gives a text, writing is a command that is carried out when the file is closed."""

    __slots__ = ("_command",)

    def __init__(self, owner: Owner, text: Text, command: Callable[[], CommandHandle]) -> None:
        super().__init__(owner, text)
        self._command = command

    def open(self, flags: int) -> Handle:
        """Open for reading the text or writing a command."""
        return self._command() if flags & WRITING else super().open(flags)

    def truncate(self, size: int) -> None:
        """Nothing: programs empty a file before they write it."""


class CommandHandle(Handle):
    """A command being written. It is carried out at close: what was written since the last close is one command."""

    __slots__ = ("_text",)

    direct = True

    def __init__(self) -> None:
        self.expected = 0
        self.fetched = 0
        self._text = bytearray()

    def read(self, offset: int, size: int) -> bytes:
        """What was written so far."""
        return bytes(self._text[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Add to the command. What stands in its way is told at once: many programs ignore what close says."""
        if len(self._text) + len(data) > MAX_MESSAGE:
            raise InvalidName(f"a command or message has at most {MAX_MESSAGE} bytes")
        before = len(self._text)
        self._text += data
        try:
            self.check(self._written())
        except ArborError:
            del self._text[before:]
            raise

    def submit(self) -> Callable[[], object] | None:
        """A function that carries out what was written since the last time; None where there is nothing."""
        if not self._text:
            return None
        text = self._written()
        self._text.clear()
        return lambda: self.act(text)

    def _written(self) -> str:
        return bytes(self._text).decode("utf-8", "replace").strip()

    def check(self, text: str) -> None:
        """Raise what already stands in the way, as far as the command is written."""
        raise NotImplementedError

    def act(self, text: str) -> object:
        """Carry the command out."""
        raise NotImplementedError


class CommitHandle(CommandHandle):
    """A commit message being written."""

    __slots__ = ("_branch",)

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self._branch = branch

    def check(self, text: str) -> None:
        """NothingToCommit; OpenConflicts, which is noted among the errors."""
        tree = self._branch.tree
        if not tree.is_dirty():
            raise NothingToCommit("nothing is staged")
        with self._branch.rejections.noting(COMMIT):
            tree.require_resolved()

    def act(self, text: str) -> object:
        """Commit."""
        return self._branch.tree.commit(text)


class ControlDirectory(Node):
    """`.arborfs`, or a directory in it: names and the nodes they lead to, made once."""

    __slots__ = ("_entries", "_owner")

    is_directory = True

    def __init__(self, owner: Owner, entries: dict[bytes, Node]) -> None:
        super().__init__()
        self._owner = owner
        self._entries = entries

    def stat(self) -> Stat:
        """A directory that cannot be changed."""
        return Stat(self.ino, stat.S_IFDIR | 0o755, 0, 0, self._owner.uid, self._owner.gid, 1, LONG, LONG)

    def child(self, name: bytes) -> Node:
        """The file of that name. NotFound."""
        try:
            return self._entries[name]
        except KeyError:
            raise NotFound(f"there is no {name!r} here") from None

    def listing(self) -> Listing:
        """A reader of the files."""
        return NameListing(self, lambda: sorted(self._entries))


class RejectedDirectory(Node):
    """The kept bytes of refused files. They can be read and removed."""

    __slots__ = ("_nodes", "_owner", "_rejections")

    is_directory = True

    def __init__(self, owner: Owner, rejections: Rejections) -> None:
        super().__init__()
        self._owner = owner
        self._rejections = rejections
        self._nodes: dict[bytes, RejectedFile] = {}

    def stat(self) -> Stat:
        """A directory that can be emptied."""
        return Stat(self.ino, stat.S_IFDIR | 0o755, 0, 0, self._owner.uid, self._owner.gid, 1, LONG, NEVER)

    def child(self, name: bytes) -> Node:
        """The kept file of that name. NotFound."""
        path = self._rejections.path(name)
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = RejectedFile(self._owner, path)
        return node

    def listing(self) -> Listing:
        """A reader of the kept files."""
        return NameListing(self, self._rejections.names)

    def unlink(self, name: bytes) -> None:
        """Drop a kept file."""
        self._rejections.remove(name)
        self._nodes.pop(name, None)


class RejectedFile(Node):
    """The bytes of a refused file."""

    __slots__ = ("_owner", "_path")

    def __init__(self, owner: Owner, path: bytes) -> None:
        super().__init__()
        self._owner = owner
        self._path = path

    def stat(self) -> Stat:
        """Size and time of the kept file."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            raise NotFound("dropped") from None
        mode = stat.S_IFREG | 0o444
        return Stat(self.ino, mode, found.st_size, found.st_mtime_ns, self._owner.uid, self._owner.gid, 1, NEVER, NEVER)

    def open(self, flags: int) -> Handle:
        """Open for reading."""
        if flags & WRITING:
            raise Refused("kept files can be read and removed, not written")
        try:
            return KeptHandle(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise NotFound("dropped") from None


class KeptHandle(Handle):
    """An open kept file."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.expected = 0
        self.fetched = 0
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer only at the end."""
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        """Close the kept file."""
        os.close(self._descriptor)


def _statistics(owner: Owner, report: Report) -> dict[bytes, Node]:
    """What stands in every `.arborfs`: the figures of the whole mount."""
    return {b"stats.json": ControlFile(owner, lambda: _json(report()))}


def top_control(owner: Owner, report: Report) -> ControlDirectory:
    """`.arborfs` at the top of a whole repository."""
    return ControlDirectory(owner, _statistics(owner, report))


def branch_control(engine: Engine, branch: Branch, report: Report, more: dict[bytes, Node]) -> ControlDirectory:
    """`.arborfs` of a working tree; `more` are the files about merges and the directories of differences and labels."""
    owner, rejections = branch.owner, branch.rejections
    return ControlDirectory(
        owner,
        _statistics(owner, report)
        | {
            b"commit": CommandFile(owner, lambda: _tip_text(branch.tree.tip()), lambda: CommitHandle(branch)),
            b"status": ControlFile(owner, lambda: _status(engine, branch)),
            b"status.json": ControlFile(owner, lambda: _json(_status_rows(engine, branch))),
            b"log": ControlFile(owner, lambda: log_text(engine, branch.tree.tip())),
            b"log.json": ControlFile(owner, lambda: _json(log_rows(engine, branch.tree.tip()))),
            b"errors": ControlFile(owner, lambda: _errors(rejections), rejections.clear_errors),
            b"errors.json": ControlFile(owner, lambda: _json([asdict(error) for error in rejections.errors()])),
            b"rejected": RejectedDirectory(owner, rejections),
        }
        | more,
    )


def snapshot_control(
    engine: Engine, commit: Digest, owner: Owner, report: Report, more: dict[bytes, Node]
) -> ControlDirectory:
    """`.arborfs` of a snapshot; `more` are the directories of differences and of labels."""
    return ControlDirectory(
        owner,
        _statistics(owner, report)
        | {
            b"commit": ControlFile(owner, lambda: _tip_text(commit)),
            b"log": ControlFile(owner, lambda: log_text(engine, commit)),
            b"log.json": ControlFile(owner, lambda: _json(log_rows(engine, commit))),
        }
        | more,
    )


def _tip_text(tip: Digest | None) -> str:
    return f"{hexed(tip)}\n" if tip is not None else ""


def _status_rows(engine: Engine, branch: Branch) -> list[dict[str, str]]:
    """Open conflicts first, then what is staged."""
    return [
        {"path": path_text(path), "change": "conflict", "kind": word}
        for path, word in engine.merging(branch.name).open()
    ] + [
        {"path": path_text(row.path), "change": row.change, "kind": row.kind.name.lower()}
        for row in branch.tree.status()
    ]


def _status(engine: Engine, branch: Branch) -> str:
    return "".join(f"{row['change']:<8} {printable(row['path'])}\n" for row in _status_rows(engine, branch))


def log_rows(engine: Engine, start: Digest | None) -> list[dict[str, Any]]:
    """The history of a commit as plain values, newest first."""
    if start is None:
        return []
    return [
        {
            "commit": hexed(digest),
            "parents": [hexed(parent) for parent in commit.parents],
            "author": {"name": commit.author.name, "email": commit.author.email},
            "time": _moment(commit),
            "message": commit.message,
            "metadata": commit.metadata,
        }
        for digest, commit in engine.log(start)
    ]


def log_text(engine: Engine, start: Digest | None) -> str:
    """The history of a commit, a line each, newest first."""
    if start is None:
        return ""
    return "".join(
        f"{engine.abbreviation(digest)}  {_moment(commit)}  {commit.author.name}: "
        f"{next(iter(commit.message.splitlines()), '')}\n"
        for digest, commit in engine.log(start)
    )


def _moment(commit: Commit) -> str:
    return datetime.fromtimestamp(commit.time / 1e9, UTC).isoformat(timespec="seconds")


def _errors(rejections: Rejections) -> str:
    lines = []
    for error in rejections.errors():
        when = datetime.fromtimestamp(error.time / 1e9, UTC).isoformat(timespec="seconds")
        kept = f" (kept as rejected/{error.kept})" if error.kept else ""
        lines.append(f"{when}  {error.path}: {error.reason}{kept}\n")
    return "".join(lines)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
