"""What the nodes of a branch's working tree have in common: a name, a place, and what is staged there."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from msgspec.structs import replace

from fusefs import xattrs
from fusefs.buffers import Room
from fusefs.facts import packed, unpacked
from fusefs.layout import LONG, PERMISSIONS, Owner, Path, Stat, entry_stat
from fusefs.nodes import Changes, NoAttribute, Node, Stale
from fusefs.rejections import Rejections
from storage.model.digest import Digest
from storage.model.records import Entry, Kind
from storage.stores.contents import Content
from storage.worktree import WorkingTree

if TYPE_CHECKING:
    from fusefs.working import WorkingDirectory


class Gone(IntEnum):
    """Whether a node still has a place in its tree."""

    NOT = 0
    UNLINKED = 1
    """Removed through this mount: it lives on while it is open, like any unlinked file."""
    REPLACED = 2
    """Removed or replaced by another process: it can be read on, and writing tells so (ESTALE)."""


class Branch:
    """What the nodes of one working tree share. `name` and `tree` change when the branch is renamed; `root_id` tells it
    from a later branch of the same name.
    """

    def __init__(
        self, name: str, tree: WorkingTree, root_id: int, owner: Owner, when: int, room: Room, rejections: Rejections
    ) -> None:
        self.name = name
        self.tree = tree
        self.root_id = root_id
        self.owner = owner
        self.when = when
        self.room = room
        self.rejections = rejections
        self.control: Node | None = None


class Placed(Node):
    """Something with a name in a working tree. `entry` is what is staged there, None where it must be asked for again.

    Of contents the entry has only what tells them apart: to read them, the tree is asked.
    """

    __slots__ = ("_facts", "branch", "gone", "name", "parent")

    def __init__(self, branch: Branch, parent: WorkingDirectory | None, name: bytes, entry: Entry | None) -> None:
        self.ino = 0
        self.known = 0
        self.branch = branch
        self.parent = parent
        self.name = name
        self.gone = Gone.NOT
        self._facts = None if entry is None else packed(entry)

    @property
    def entry(self) -> Entry | None:
        """What is staged there, as far as it is remembered (see fusefs/facts.py)."""
        return None if self._facts is None else unpacked(self._facts)

    @entry.setter
    def entry(self, entry: Entry | None) -> None:
        """Remember that this is staged there; None: nothing."""
        self._facts = None if entry is None else packed(entry)

    @property
    def path(self) -> Path:
        """Where it is. Stale where it is nowhere any more."""
        if self.gone:
            raise Stale("the file was removed or replaced")
        names = []
        node: Placed = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        names.reverse()
        return tuple(names)

    def current(self) -> Entry:
        """The staged entry."""
        entry = self.entry
        if entry is None:
            entry = self.entry = self.branch.tree.entry(self.path)
        return entry

    def note(self) -> None:
        """Read what it is while it is there: whoever has it open goes on asking when it is gone."""
        self.current()

    def stat(self) -> Stat:
        """What stat says."""
        return self.stat_as(self.current())

    def stat_as(self, entry: Entry) -> Stat:
        """What stat says where that is the staged entry."""
        there = self.branch
        return entry_stat(self.ino, entry, there.owner, there.when, LONG, LONG, 0 if self.gone else 1)

    def attach(self) -> None:
        """From now on a lookup of the name gives this node."""
        if self.parent is not None and not self.gone:
            self.parent.children[self.name] = self

    def drop(self) -> None:
        """A lookup of the name makes a new node."""
        if self.parent is None or self.parent.children.get(self.name) is not self:
            return
        del self.parent.children[self.name]
        if not self.parent.children:
            # Else the table stays as large as it was: 42 MB for a million names.
            self.parent.children.clear()

    def vanish(self, how: Gone) -> None:
        """It has no place in the tree any more; its stat goes on being asked for."""
        if self._facts is None:
            self.entry = Entry(Kind.FILE, mtime=self.branch.when)
        self.drop()
        self.gone = how

    def moved_to(self, directory: WorkingDirectory, name: bytes) -> None:
        """It has been renamed. What it is may have changed with its place: a file in a dataset is a sample."""
        self.parent, self.name = directory, name
        directory.children[name] = self
        if not self.is_directory and not self.unstaged:
            self.entry = None

    @property
    def unstaged(self) -> bool:
        """Whether anything is still to be staged."""
        return False

    @property
    def apart(self) -> bool:
        """Whether its attributes are changed here alone: it has no place in the tree, or is staged as a whole later."""
        return bool(self.gone)

    def change(self, changes: Changes) -> None:
        """Set mode, owner or mtime."""
        mode = None if changes.mode is None else changes.mode & PERMISSIONS
        # For a directory, 0 would say that no time is kept.
        mtime = 1 if changes.mtime == 0 and self.is_directory else changes.mtime
        if self.apart:
            self.entry = _changed(self.current(), mode, changes)
            return
        self.entry = self.branch.tree.set_attributes(
            self.path, mode=mode, uid=changes.uid, gid=changes.gid, mtime=mtime
        )

    def xattrs(self) -> list[bytes]:
        """The kept ones and those that arborfs derives from what is in the tree."""
        if self.gone:
            return [name for name, _ in self.current().attributes.xattrs]
        schema = self.parent.current().schema if self.parent is not None and not self.parent.gone else None
        return xattrs.names(self.current(), schema, self._tip())

    def xattr(self, name: bytes) -> bytes:
        """A kept or derived attribute. NoAttribute."""
        xattrs.check_name(name)
        if self.gone and xattrs.is_derived(name):
            raise NoAttribute("nothing is derived of what is not in the tree")
        schema = self.parent.current().schema if self.parent is not None and not self.parent.gone else None
        return xattrs.value(name, self.current(), schema, self._stored, self._tip() if name == xattrs.COMMIT else None)

    def _stored(self) -> Content:
        return self.branch.tree.open(self.path)[1]

    def _tip(self) -> Digest | None:
        return self.branch.tree.tip() if self.is_directory else None

    def set_xattr(self, name: bytes, value: bytes | None) -> None:
        """Keep an attribute, or remove it. The derived ones stay what they are."""
        xattrs.check_name(name)
        if xattrs.is_derived(name):
            return
        entry = self.current()
        kept = xattrs.kept_with(entry.attributes.xattrs, name, value)
        if not self.apart:
            self.entry = self.branch.tree.set_attributes(self.path, xattrs={name: value})
            return
        self.entry = replace(entry, attributes=replace(entry.attributes, xattrs=kept))


def _changed(entry: Entry, mode: int | None, changes: Changes) -> Entry:
    old = entry.attributes
    attributes = replace(
        old,
        mode=old.mode if mode is None else mode,
        uid=old.uid if changes.uid is None else changes.uid,
        gid=old.gid if changes.gid is None else changes.gid,
    )
    return replace(entry, attributes=attributes, mtime=entry.mtime if changes.mtime is None else changes.mtime)


class WorkingLink(Placed):
    """A symbolic link of a working tree. `noted` is its target, read before it was removed."""

    __slots__ = ("noted",)

    def __init__(self, branch: Branch, parent: WorkingDirectory | None, name: bytes, entry: Entry | None) -> None:
        super().__init__(branch, parent, name, entry)
        self.noted = b""

    def note(self) -> None:
        """Read what it is while it is there."""
        super().note()
        self.noted = self.target()

    def target(self) -> bytes:
        """Where it leads."""
        if self.noted and self.gone:
            return self.noted
        # Asked for anew: a commit may have moved a long target since `entry` was read.
        return self.branch.tree.target(self.path)
