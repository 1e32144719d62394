"""Directories of a branch's working tree: finding, listing, making, removing and moving entries.

Every change is made in storage first and in the nodes at once after it, without giving the event loop a chance in
between: no request ever sees one without the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from fusefs.handles import Entries, Listing
from fusefs.layout import BRIEF, CONTROL, DIRECTORY_MODE, FILE_MODE, SYMLINK_MODE, Stat, kept_attributes
from fusefs.nodes import CrossDevice, NameTooLong, Node, Stale, checked
from fusefs.placed import Branch, Gone, Placed, WorkingLink
from fusefs.working_file import WorkingFile
from storage.errors import NotADirectory, NotFound, SchemaMismatch
from storage.model.names import MAX_NAME
from storage.model.records import Entry, Kind

PAGE = 512
REMEMBERED = 1 << 17
"""A listing that is begun again forgets its old positions when it has more: a directory may change for ever under it."""


class Notice(NamedTuple):
    """What the kernel must be told: that a name leads elsewhere now (`name`), or that an inode's stat changed (no name).

    `deleted` is the inode that the name led to, where it is gone for good.
    """

    ino: int
    name: bytes = b""
    deleted: int = 0


class WorkingDirectory(Placed):
    """A directory of a working tree; `children` are the nodes of those entries that the kernel knows."""

    __slots__ = ("children",)

    is_directory = True
    absent_timeout = BRIEF

    def __init__(self, branch: Branch, parent: WorkingDirectory | None, name: bytes, entry: Entry | None) -> None:
        super().__init__(branch, parent, name, entry)
        self.children: dict[bytes, Placed] = {}

    # Finding

    def child(self, name: bytes) -> Node:
        """The entry of that name. NotFound."""
        node = self.children.get(name)
        if node is not None:
            return node
        if name == CONTROL:
            if self.parent is not None or self.branch.control is None:
                raise NotFound("there is no such entry")
            return self.branch.control
        if len(name) > MAX_NAME:
            raise NameTooLong(f"a name has at most {MAX_NAME} bytes")
        return self.made(name, self.branch.tree.entry((*self.path, name)))

    def made(self, name: bytes, entry: Entry) -> Placed:
        """The node for an entry of this directory: the known one, or a new one."""
        known = self.children.get(name)
        if known is not None:
            return known
        if entry.is_directory:
            return WorkingDirectory(self.branch, self, name, entry)
        if entry.kind is Kind.SYMLINK:
            return WorkingLink(self.branch, self, name, entry)
        return WorkingFile(self.branch, self, name, entry)

    def listing(self) -> Listing:
        """A reader of the entries, stable while others come and go."""
        return WorkingListing(self)

    # Making

    def make_file(self, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new empty file. Exists."""
        path = (*self.path, checked(name))
        attributes = kept_attributes(mode, uid, self._group(gid), self.branch.owner, FILE_MODE)
        entry = self.branch.tree.make_file(path, attributes=attributes)
        self.entry = None
        made = WorkingFile(self.branch, self, name, entry)
        made.begin()
        return made

    def make_directory(self, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new directory. Exists."""
        path = (*self.path, checked(name))
        inherited = self.stat().mode & 0o2000
        attributes = kept_attributes(mode | inherited, uid, self._group(gid), self.branch.owner, DIRECTORY_MODE)
        entry = self.branch.tree.make_directory(path, attributes=attributes, mtime=time.time_ns())
        self.entry = None
        return WorkingDirectory(self.branch, self, name, entry)

    def make_symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Node:
        """A new symbolic link. Exists."""
        path = (*self.path, checked(name))
        attributes = kept_attributes(SYMLINK_MODE, uid, self._group(gid), self.branch.owner, SYMLINK_MODE)
        entry = self.branch.tree.make_symlink(path, target, attributes=attributes, mtime=time.time_ns())
        self.entry = None
        return WorkingLink(self.branch, self, name, entry)

    def _group(self, gid: int) -> int:
        """The group of something new: that of the directory where its set-group-id bit says so."""
        found = self.stat()
        return found.gid if found.mode & 0o2000 else gid

    # Removing and moving

    def unlink(self, name: bytes) -> None:
        """Remove a file or link."""
        self._note(name)
        self.branch.tree.remove((*self.path, checked(name)))
        self._gone(name)

    def remove_directory(self, name: bytes) -> None:
        """Remove an empty directory."""
        self.branch.tree.remove_directory((*self.path, checked(name)))
        self._gone(name)

    def _note(self, name: bytes) -> None:
        node = self.children.get(name)
        if node is not None:
            node.note()

    def _gone(self, name: bytes) -> None:
        node = self.children.get(name)
        self.entry = None
        if node is not None:
            node.vanish(Gone.UNLINKED)

    def rename(self, name: bytes, directory: Node, new_name: bytes, *, replace: bool) -> None:
        """Move an entry, over an existing one if it may replace. CrossDevice for another tree."""
        old, new, target = self._move(name, directory, new_name)
        target._note(new_name)
        try:
            self.branch.tree.rename(old, new, replace=replace)
        except SchemaMismatch as error:
            self.branch.rejections.note(new, str(error))
            raise
        if old == new:
            return
        moved = self.children.pop(name, None)
        target._gone(new_name)
        self.entry = None
        if moved is not None:
            moved.moved_to(target, new_name)

    def exchange(self, name: bytes, directory: Node, new_name: bytes) -> None:
        """Swap two entries. CrossDevice for another tree."""
        old, new, target = self._move(name, directory, new_name)
        self.branch.tree.exchange(old, new)
        one, other = self.children.pop(name, None), target.children.pop(new_name, None)
        self.entry = target.entry = None
        if one is not None:
            one.moved_to(target, new_name)
        if other is not None:
            other.moved_to(self, name)

    def _move(
        self, name: bytes, directory: Node, new_name: bytes
    ) -> tuple[tuple[bytes, ...], tuple[bytes, ...], WorkingDirectory]:
        if not isinstance(directory, WorkingDirectory) or directory.branch is not self.branch:
            raise CrossDevice("entries of another tree must be copied")
        return (*self.path, checked(name)), (*directory.path, checked(new_name)), directory

    # What other processes did

    def recheck(self, name: bytes) -> Iterator[Notice]:
        """Look again at an entry that another process changed; what the kernel must be told.

        New contents are a new inode: the node here goes, and whoever has it open reads on what was there.
        """
        node = self.children.get(name)
        self.entry = None
        if node is None:
            return
        entry = self._found(name)
        if isinstance(node, WorkingFile) and node.unstaged and entry is not None and not entry.is_directory:
            return  # Being written here: the last close wins.
        if entry is not None and _same_inode(node, entry):
            known, node.entry = node.entry, entry
            if known is None or (known.attributes, known.mtime) != (entry.attributes, entry.mtime):
                yield Notice(node.ino)
            if isinstance(node, WorkingDirectory):
                yield from node.recheck_all()
            return
        node.vanish(Gone.REPLACED)
        yield Notice(self.ino, name, node.ino if entry is None else 0)

    def recheck_all(self) -> Iterator[Notice]:
        """Look again at everything known below this directory."""
        self.entry = None
        yield Notice(self.ino)
        for name in list(self.children):
            yield from self.recheck(name)

    def _found(self, name: bytes) -> Entry | None:
        try:
            return self.branch.tree.entry((*self.path, name))
        except (NotFound, NotADirectory, Stale):
            return None

    def vanish(self, how: Gone) -> None:
        """It is gone, with all that is known below it."""
        for node in list(self.children.values()):
            node.vanish(how)
        if self._facts is None:
            self.entry = Entry(Kind.STAGED, mtime=time.time_ns())
        super().vanish(how)

    def known_below(self) -> Iterator[Placed]:
        """Every node that the kernel knows at any depth below this directory."""
        for node in self.children.values():
            yield node
            if isinstance(node, WorkingDirectory):
                yield from node.known_below()


def _same_inode(node: Placed, entry: Entry) -> bool:
    if isinstance(node, WorkingDirectory):
        return entry.is_directory
    if entry.is_directory:
        return False
    known = node.entry
    return known is not None and node.branch.tree.same_contents(known, entry)


class WorkingListing(Listing):
    """Entries of a working directory in the order of their names; position p is that behind the p-th name listed so far.

    What stays is listed exactly once, whatever comes and goes meanwhile: reading goes on behind a name. A position keeps
    its meaning while the directory is open, also after reading has gone back and on again.
    """

    def __init__(self, directory: WorkingDirectory) -> None:
        super().__init__(directory)
        self._directory = directory
        self._names: list[bytes] = []
        self.large = False
        self._page: list[tuple[bytes, Entry]] = []
        self._at = 0

    def entries(self, position: int) -> Entries:
        """Name, node and following position of everything from `position` on."""
        if position == 0 and len(self._names) > REMEMBERED:
            self._names = []
        if position != self._at or position == 0:
            self._page, self._at = [], min(position, len(self._names))
        while True:
            if not self._page:
                self._page = self._read()
                self._page.reverse()
            if not self._page:
                return
            name, entry = self._page[-1]
            following = self._behind(name)
            if name != CONTROL or self._directory.parent is not None:
                yield name, self._directory.made(name, entry), following
            # Only once the next is asked for has this one found room.
            self._at = following
            self._page.pop()

    def stat(self, node: Node) -> Stat:
        """What stat says of the node that `entries` has given last."""
        if node.known or not isinstance(node, Placed):
            return node.stat()
        # Made for the entry that is at hand: unpacking its facts again would take longer than the rest.
        return node.stat_as(self._page[-1][1])

    def _behind(self, name: bytes) -> int:
        """The position behind a name that is listed now: the one it had when it was listed here before, or a new one."""
        if len(self._names) == REMEMBERED:
            self.large = True
        if self._at == len(self._names) or self._names[self._at] != name:
            self._names.append(name)
            return len(self._names)
        return self._at + 1

    def _read(self) -> list[tuple[bytes, Entry]]:
        if self._directory.gone:
            return []
        after = self._names[self._at - 1] if self._at else b""
        try:
            return list(islice(self._directory.branch.tree.entries(self._directory.path, after), PAGE))
        except (NotFound, NotADirectory):
            return []
