"""Merging by files: `.arborfs/merge`, and `.arborfs/conflicts/<path>/` with what each side has there."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from fusefs.control import CommandFile, CommandHandle
from fusefs.frozen import WRITING, Snapshots
from fusefs.handles import ContentHandle, Handle, Listing, NameListing
from fusefs.layout import CONTROL, NEVER, Path, Stat, entry_stat
from fusefs.nodes import Node, ReadOnlyNode, Refused
from fusefs.placed import Branch
from storage.engine import Engine
from storage.errors import NotFound, ReadOnly
from storage.merging import MergeState
from storage.model.names import path_text
from storage.model.records import Entry, Kind
from storage.model.texts import printable
from storage.snapshot import Snapshot
from storage.stores.merge_state import require_merge, require_no_merge
from storage.stores.merging import staged_work

MERGE = (CONTROL, b"merge")
ABORT = "--abort"
SIDES = (b"base", b"ours", b"theirs")


def merging_control(engine: Engine, branch: Branch, snapshots: Snapshots) -> dict[bytes, Node]:
    """The files about merges of a working tree's `.arborfs`."""
    return {
        b"merge": CommandFile(branch.owner, lambda: _text(engine, branch), lambda: MergeHandle(engine, branch)),
        b"conflicts": ConflictsDirectory(Conflicts(engine, branch, snapshots), ()),
    }


def _text(engine: Engine, branch: Branch) -> str:
    """The merge under way and its open conflicts, a line each; nothing where there is none."""
    merging = engine.merging(branch.name)
    state = merging.under_way()
    if state is None:
        return ""
    lines = [f"{word} {printable(path_text(path))}\n" for path, word in merging.open()]
    return f"{state.what} {state.theirs}\n" + "".join(lines)


class MergeHandle(CommandHandle):
    """What to merge being written: a revision, on further lines the commit's message; or `--abort`.

    A merge with conflicts is left open. What stands in the way of one is noted among the errors.
    """

    __slots__ = ("_branch", "_engine")

    def __init__(self, engine: Engine, branch: Branch) -> None:
        super().__init__()
        self._engine = engine
        self._branch = branch

    def check(self, text: str) -> None:
        """NoMergeUnderWay, or MergeUnderWay, StagedWork; NotFound and Ambiguous once the revision's line is complete."""
        name = text.partition("\n")[0].strip()
        if name != ABORT and ABORT.startswith(name):
            return
        with self._branch.rejections.noting(MERGE):
            tree = self._branch.tree
            if name == ABORT:
                require_merge(tree.merging(), self._branch.name)
                return
            require_no_merge(tree.merging(), self._branch.name)
            staged = [row.path for row in tree.status()]
            if staged:
                raise staged_work(self._branch.name, staged)
            if b"\n" in self._text:
                self._engine.resolve(name)

    def act(self, text: str) -> None:
        """Merge, or abort."""
        name, _, message = text.partition("\n")
        name = name.strip()
        merging = self._engine.merging(self._branch.name)
        with self._branch.rejections.noting(MERGE):
            if name == ABORT:
                merging.abort()
            else:
                merging.merge(self._engine.resolve(name), message.strip(), name=name, leave_open=True)


class Conflicts:
    """The conflicts of the merge under way on a branch, read again when anything in the repository has changed.

    `open` are the paths of those that are not resolved, `paths` of all: what is listed, and what can be found by name,
    so that a copy which resolves a conflict as it begins can go on.
    """

    def __init__(self, engine: Engine, branch: Branch, snapshots: Snapshots) -> None:
        self.branch = branch
        self.snapshots = snapshots
        self.state: MergeState | None = None
        self.open: tuple[Path, ...] = ()
        self.paths: tuple[Path, ...] = ()
        self._engine = engine
        self._seen = -1

    def look(self) -> Conflicts:
        """Look again if needed; itself."""
        generation = self._engine.generation()
        if generation != self._seen:
            merging = self._engine.merging(self.branch.name)
            self.state = merging.under_way()
            self.open = tuple(path for path, _ in merging.open())
            self.paths = tuple(tuple(path) for path, _ in self.state.conflicts) if self.state is not None else ()
            self._seen = generation
        return self

    def side(self, side: bytes, path: Path) -> tuple[Snapshot, Entry] | None:
        """What one side has at the path of a conflict; None where it has nothing, or there is no conflict."""
        if self.state is None or path not in self.paths:
            return None
        return self._engine.merging(self.branch.name).side(self.state, side.decode(), path)


class ConflictsDirectory(Node):
    """`conflicts/`, or a directory in it: those on the way to a conflict, and the sides of one."""

    __slots__ = ("_conflicts", "_nodes", "_path")

    is_directory = True

    def __init__(self, conflicts: Conflicts, path: Path) -> None:
        super().__init__()
        self._conflicts = conflicts
        self._path = path
        self._nodes: dict[bytes, tuple[object, Node]] = {}

    def stat(self) -> Stat:
        """A directory that nobody may remember: conflicts come and go."""
        owner = self._conflicts.branch.owner
        return Stat(self.ino, stat.S_IFDIR | 0o755, 0, 0, owner.uid, owner.gid, 1, NEVER, NEVER)

    def listing(self) -> Listing:
        """A reader of the names."""
        return NameListing(self, lambda: sorted(set(self._names())))

    def _names(self) -> Iterator[bytes]:
        found, depth = self._conflicts.look(), len(self._path)
        if self._path in found.open:
            yield from (side for side in SIDES if found.side(side, self._path) is not None)
        yield from (path[depth] for path in found.open if len(path) > depth and path[:depth] == self._path)

    def child(self, name: bytes) -> Node:
        """A side of the conflict that is here, or a directory on the way to others. NotFound."""
        self._conflicts.look()
        found = self._conflicts.side(name, self._path) if name in SIDES else None
        if found is not None:
            # Another merge has other files under the same names: other inodes.
            began = self._conflicts.state.time if self._conflicts.state is not None else 0
            return self._kept(name, (found[0].commit, began), found)
        here = (*self._path, name)
        if any(path[: len(here)] == here for path in self._conflicts.paths):
            return self._kept(name, None, None)
        raise NotFound(f"there is no conflict at {path_text(here)}")

    def _kept(self, name: bytes, mark: object, found: tuple[Snapshot, Entry] | None) -> Node:
        known = self._nodes.get(name)
        if known is None or known[0] != mark:
            known = self._nodes[name] = mark, self._made(name, found)
        return known[1]

    def _made(self, name: bytes, found: tuple[Snapshot, Entry] | None) -> Node:
        if found is None:
            return ConflictsDirectory(self._conflicts, (*self._path, name))
        snapshot, entry = found
        if entry.is_directory:
            return self._conflicts.snapshots.part(snapshot, entry, NEVER)
        assert self._conflicts.state is not None
        return SideFile(self._conflicts.branch, snapshot, self._path, entry, self._conflicts.state.time)


class SideFile(ReadOnlyNode):
    """A file, sample or link as one side has it, to be read only.

    Its time is that of the merge: a copy that keeps it can be told from what our side had.
    """

    __slots__ = ("_branch", "_entry", "_path", "_snapshot", "_time")

    def __init__(self, branch: Branch, snapshot: Snapshot, path: Path, entry: Entry, time: int) -> None:
        super().__init__()
        self._branch = branch
        self._snapshot = snapshot
        self._path = path
        self._entry = entry
        self._time = time

    def stat(self) -> Stat:
        """What stat says."""
        found = entry_stat(self.ino, self._entry, self._branch.owner, self._branch.when, NEVER, NEVER)
        return found._replace(mtime=self._time)

    def open(self, flags: int) -> Handle:
        """Open for reading. ReadOnly."""
        if flags & WRITING:
            raise ReadOnly("the sides of a conflict can be read, and copied to where they belong")
        return ContentHandle(self._snapshot.content(self._entry, self._snapshot.schema_of(self._path[:-1])))

    def target(self) -> bytes:
        """Where a symbolic link leads."""
        if self._entry.kind is not Kind.SYMLINK or not isinstance(self._entry.value, bytes):
            raise Refused("not a symbolic link")
        return self._entry.value
