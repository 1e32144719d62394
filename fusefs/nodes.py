"""Inodes: what every one can be asked, and the table of those that the kernel knows.

A node is a name's worth of the mounted tree and answers for itself; what it does not do, it refuses here. Finding a
node is not remembering it: only a reply that hands the node to the kernel raises its lookup count (`remember`), and
the kernel gives the counts back with `forget`. Everything in this module runs on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from fusefs.layout import LIVE, NEVER, ROOT_INODE, Stat
from storage.errors import ArborError, InvalidName, NotADirectory, ReadOnly, State, Unsupported
from storage.model.names import CONTROL, MAX_NAME

if TYPE_CHECKING:
    from fusefs.handles import Handle, Listing


class Refused(State, PermissionError):
    """This part of the mount does not do that."""


class Stale(State, OSError):
    """Another process replaced or removed this file: it can be read on, not written."""


class CrossDevice(State, OSError):
    """Entries cannot be renamed from one tree into another: they must be copied."""


class NameTooLong(InvalidName):
    """A name has at most 255 bytes."""


class NoAttribute(ArborError):
    """No extended attribute of that name."""


class NoRoom(State, OSError):
    """A file has as many attributes as it may have."""


class NoXattrs(Unsupported):
    """Extended attributes of this namespace are not kept."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a setattr request sets; None leaves as is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None


NOTHING = Changes()


def checked(name: bytes) -> bytes:
    """`name` if users may create it: not `.arborfs`, not over 255 bytes."""
    if len(name) > MAX_NAME:
        raise NameTooLong(f"a name has at most {MAX_NAME} bytes, {name[:32]!r}… has {len(name)}")
    if name == CONTROL:
        raise InvalidName(f"{CONTROL.decode()} is reserved for arborfs itself")
    return name


class Node:
    """Something with an inode number. By default it can only be looked at."""

    __slots__ = ("ino", "known")

    is_directory = False
    frozen = False
    absent_timeout = NEVER
    """How long the kernel may remember that a name is not in this directory."""
    refusal: type[ArborError] = Refused

    def __init__(self, ino: int = 0) -> None:
        self.ino = ino
        self.known = 0

    def stat(self) -> Stat:
        """What stat says; from memory wherever that is possible."""
        raise NotImplementedError

    def child(self, name: bytes) -> Node:
        """The node of that name in this directory: the known one, or a new one. NotFound."""
        raise NotADirectory("not a directory")

    def listing(self) -> Listing:
        """A reader of this directory's entries."""
        raise NotADirectory("not a directory")

    def pending(self) -> Callable[[], object] | None:
        """What must be worked out, in a thread, before `child` and `listing` can answer at once; None for nothing."""
        return None

    def target(self) -> bytes:
        """Where a symbolic link leads."""
        raise Refused("not a symbolic link")

    def open(self, flags: int) -> Handle:
        """Open for reading or writing, as the flags of open(2) say."""
        raise Refused("cannot be opened")

    def attach(self) -> None:
        """The kernel knows the node from now on."""

    def drop(self) -> None:
        """The kernel has forgotten the node."""

    def remembered(self) -> None:
        """Count one more lookup of something in a snapshot."""

    def make_file(self, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new empty file in this directory. Exists."""
        self.refuse()

    def make_directory(self, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new directory in this one. Exists."""
        self.refuse()

    def make_symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Node:
        """A new symbolic link in this directory. Exists."""
        self.refuse()

    def unlink(self, name: bytes) -> None:
        """Remove a file or link from this directory."""
        self.refuse()

    def remove_directory(self, name: bytes) -> None:
        """Remove an empty directory from this one."""
        self.refuse()

    def rename(self, name: bytes, directory: Node, new_name: bytes, *, replace: bool) -> None:
        """Move an entry of this directory into `directory`. Exists unless it may replace."""
        self.refuse()

    def exchange(self, name: bytes, directory: Node, new_name: bytes) -> None:
        """Swap an entry of this directory with one of `directory`."""
        self.refuse()

    def change(self, changes: Changes) -> None:
        """Set mode, owner or mtime."""
        self.refuse()

    def truncate(self, size: int) -> None:
        """Cut or extend a file with zeros."""
        self.refuse()

    def xattrs(self) -> list[bytes]:
        """Names of the extended attributes."""
        return []

    def xattr(self, name: bytes) -> bytes:
        """The value of an extended attribute. NoAttribute."""
        raise NoAttribute("no such attribute")

    def set_xattr(self, name: bytes, value: bytes | None) -> None:
        """Set an extended attribute; None removes it. NoAttribute where there is nothing to remove."""
        self.refuse()

    def refuse(self) -> NoReturn:
        """What this part of the tree says to changes that it does not make."""
        raise self.refusal(self.refusal.__doc__)


class ReadOnlyNode(Node):
    """Something that never changes."""

    __slots__ = ()
    refusal = ReadOnly


class Immutable(Protocol):
    """The snapshots: nodes that are computed from their numbers and counted by directory."""

    def node(self, ino: int) -> Node:
        """The node with that number. Stale."""

    def forget(self, ino: int, count: int) -> None:
        """The kernel gives back lookups of that number."""


MANY = 1 << 15
"""Nodes that take some megabytes."""
PAGE_BITS = 7
PAGE_MASK = (1 << PAGE_BITS) - 1


class NodeTable:
    """Inode number → node, for everything the kernel knows.

    Numbers are given in a row: the nodes stand in pages of 64, and a page goes when nothing in it is known any more. A
    dict of them all would take five times the memory, and keep it.
    """

    def __init__(self, root: Node, immutable: Immutable) -> None:
        self._pages: dict[int, list[Node | None]] = {}
        self._count = 1
        self._most = 1
        self._immutable = immutable
        self._next = ROOT_INODE
        root.ino = ROOT_INODE
        self._place(root)
        root.known = 1
        root.attach()

    def __len__(self) -> int:
        """How many changeable nodes the kernel knows."""
        return self._count

    def __iter__(self) -> Iterator[Node]:
        """Every changeable node that the kernel knows."""
        return iter([node for page in self._pages.values() for node in page if node is not None])

    def __getitem__(self, ino: int) -> Node:
        """The node with that number. Stale."""
        if not ino & LIVE:
            return self._immutable.node(ino)
        node = self._find(ino)
        if node is None:
            raise Stale(f"inode {ino} is not known")
        return node

    def _find(self, ino: int) -> Node | None:
        page = self._pages.get(ino >> PAGE_BITS)
        return None if page is None else page[(ino & PAGE_MASK) >> 1]

    def _place(self, node: Node) -> None:
        page = self._pages.get(node.ino >> PAGE_BITS)
        if page is None:
            page = self._pages[node.ino >> PAGE_BITS] = [None] * (1 << PAGE_BITS - 1)
        page[(node.ino & PAGE_MASK) >> 1] = node

    def number(self, node: Node) -> None:
        """Give `node` an inode number if it has none yet; it is not known for that."""
        if not node.ino:
            self._next += 2
            node.ino = self._next

    def remember(self, node: Node) -> None:
        """Count one more lookup of `node` by the kernel. Called once for each reply that names it."""
        if node.frozen:
            node.remembered()
            return
        if not node.known:
            if not node.ino:
                self.number(node)
            self._place(node)
            self._count += 1
            node.attach()
        node.known += 1

    def forget_many(self, given_back: Iterable[tuple[int, int]]) -> bool:
        """The kernel gives back lookups: inode and count. Whether of many nodes that it knew hardly any are left by that."""
        self._most = max(self._most, self._count)
        for ino, count in given_back:
            self.forget(ino, count)
        if self._most < MANY or self._count > self._most >> 6:
            return False
        self._most = self._count
        return True

    def forget(self, ino: int, count: int) -> None:
        """The kernel gives back `count` lookups."""
        if not ino & LIVE:
            self._immutable.forget(ino, count)
            return
        node = self._find(ino)
        if node is None or ino == ROOT_INODE:
            return
        node.known -= count
        if node.known <= 0:
            node.known = 0
            self._release(ino)
            node.drop()

    def _release(self, ino: int) -> None:
        page = self._pages[ino >> PAGE_BITS]
        page[(ino & PAGE_MASK) >> 1] = None
        self._count -= 1
        if not any(page):
            del self._pages[ino >> PAGE_BITS]
