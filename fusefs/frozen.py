"""Snapshots as directories and files.

There is no object for an entry: its inode number says in which directory it is (a handle) and at which rank, and the
prolly map finds it again. Only directories that the kernel knows something in are kept, each with one counter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fusefs import xattrs
from fusefs.handles import ContentHandle, Entries, Handle, Listing
from fusefs.layout import CONTROL, FOREVER, Owner, Path, Stat, entry_stat, frozen_inode, handle_of, rank_of
from fusefs.nodes import Node, ReadOnlyNode, Refused, Stale
from storage.errors import NotFound, ReadOnly
from storage.model.digest import Digest
from storage.model.records import Entry, Kind
from storage.snapshot import Snapshot

WRITING = 0o3 | 0o1000
"""O_ACCMODE | O_TRUNC."""


class FrozenFile(ReadOnlyNode):
    """A file, sample or link of a snapshot. Made for one request and forgotten."""

    __slots__ = ("directory", "entry")
    frozen = True

    def __init__(self, directory: FrozenDirectory, ino: int, entry: Entry) -> None:
        self.ino = ino
        self.directory = directory
        self.entry = entry

    def stat(self) -> Stat:
        """What stat says, for ever."""
        there = self.directory
        return entry_stat(self.ino, self.entry, there.registry.owner, there.when, FOREVER, FOREVER)

    def target(self) -> bytes:
        """Where a symbolic link leads."""
        if self.entry.kind is not Kind.SYMLINK or not isinstance(self.entry.value, bytes):
            raise Refused("not a symbolic link")
        return self.entry.value

    def open(self, flags: int) -> Handle:
        """Open for reading; ReadOnly for anything else."""
        if flags & WRITING:
            raise ReadOnly("commits and tags never change")
        there = self.directory
        return ContentHandle(there.snapshot.content(self.entry, there.entry.schema))

    def xattrs(self) -> list[bytes]:
        """The kept ones and those that arborfs derives."""
        return xattrs.names(self.entry, self.directory.entry.schema, self.directory.snapshot.commit)

    def xattr(self, name: bytes) -> bytes:
        """A kept or derived attribute. NoAttribute."""
        there = self.directory
        dataset = there.entry.schema
        return xattrs.value(
            name, self.entry, dataset, lambda: there.snapshot.content(self.entry, dataset), there.snapshot.commit
        )

    def remembered(self) -> None:
        """Count one more lookup."""
        self.directory.registry.count(self.directory)


class FrozenDirectory(ReadOnlyNode):
    """A directory of a snapshot. Kept while the kernel knows anything in it or a listing of it is open.

    `handle` is 0 until its first child is found; `held` counts the kernel's lookups of what is in it (and of itself,
    where it is a snapshot's root).
    """

    __slots__ = ("control", "entry", "handle", "held", "name_timeout", "parent", "registry", "snapshot", "when")

    is_directory = True
    frozen = True
    absent_timeout = FOREVER

    def __init__(
        self, registry: Snapshots, snapshot: Snapshot, ino: int, entry: Entry, parent: FrozenDirectory | None = None
    ) -> None:
        self.ino = ino
        self.parent = parent
        self.registry = registry
        self.snapshot = snapshot
        self.entry = entry
        self.when = snapshot.record.time
        self.handle = 0
        self.held = 0
        self.name_timeout = FOREVER
        self.control: Node | None = None

    def stat(self) -> Stat:
        """What stat says, for ever; a revision's name may lead elsewhere sooner."""
        return entry_stat(self.ino, self.entry, self.registry.owner, self.when, self.name_timeout, FOREVER)

    def child(self, name: bytes) -> Node:
        """The entry of that name. NotFound."""
        if name == CONTROL:
            if self.control is None:
                raise NotFound("there is no such entry")
            return self.control
        rank, entry = self.snapshot.locate(self.entry.root, name)
        return self.at(rank, entry)

    def at(self, rank: int, entry: Entry) -> Node:
        """The node of the entry with that rank."""
        if not self.handle:
            self.handle = self.registry.new_handle()
        ino = frozen_inode(self.handle, rank)
        if entry.is_directory:
            known = self.registry.directory(ino)
            return known or FrozenDirectory(self.registry, self.snapshot, ino, entry, self)
        return FrozenFile(self, ino, entry)

    def path(self) -> Path:
        """Its path in the snapshot."""
        if self.parent is None:
            return ()
        name, _ = self.snapshot.at(self.parent.entry.root, rank_of(self.ino))
        return (*self.parent.path(), name)

    def listing(self) -> Listing:
        """A reader of the entries, resumable by rank."""
        return FrozenListing(self)

    def remembered(self) -> None:
        """Count one more lookup: in the directory above, or here for a snapshot's root."""
        self.registry.count(self.parent or self)

    def xattrs(self) -> list[bytes]:
        """The kept ones and those that arborfs derives."""
        return xattrs.names(self.entry, None, self.snapshot.commit)

    def xattr(self, name: bytes) -> bytes:
        """A kept or derived attribute. NoAttribute."""
        return xattrs.value(name, self.entry, None, None, self.snapshot.commit)


class FrozenListing(Listing):
    """Entries of a snapshot's directory: the cookie of an entry is its rank, so any position can be resumed."""

    def __init__(self, directory: FrozenDirectory) -> None:
        super().__init__(directory)
        self._directory = directory
        self._rows: Iterator[tuple[int, bytes, Entry]] = iter(())
        self._row: tuple[int, bytes, Entry] | None = None
        self._next = -1
        directory.registry.keep(directory)
        directory.held += 1

    def entries(self, position: int) -> Entries:
        """Name, node and following position from `position` on, a rank."""
        there = self._directory
        if position != self._next:
            self._rows, self._row, self._next = there.snapshot.rows(there.entry.root, position), None, position
        while True:
            # A row stays current until the next one is asked for: the caller may have had no room for it.
            self._row = self._row or next(self._rows, None)
            if self._row is None:
                return
            rank, name, entry = self._row
            if name != CONTROL:
                yield name, there.at(rank, entry), rank + 1
            self._row, self._next = None, rank + 1

    def close(self) -> None:
        """The directory may be forgotten."""
        self._directory.held -= 1
        self._directory.registry.release(self._directory)


class Snapshots:
    """The directories of snapshots that are in use, by handle and by inode number. `control` makes a commit's
    `.arborfs`.
    """

    def __init__(self, owner: Owner, control: Callable[[Digest], Node]) -> None:
        self.owner = owner
        self._control = control
        self._handles: dict[int, FrozenDirectory] = {}
        self._inodes: dict[int, FrozenDirectory] = {}
        self._last = 0

    def __len__(self) -> int:
        """How many directories are kept."""
        return len(self._handles)

    def new_handle(self) -> int:
        """A handle that was never given before."""
        self._last += 1
        return self._last

    def root(self, snapshot: Snapshot, name_timeout: float) -> FrozenDirectory:
        """The root of a snapshot, new, with its `.arborfs`; its name may be remembered for `name_timeout`."""
        directory = self.part(snapshot, snapshot.record.root, name_timeout)
        directory.control = self._control(snapshot.commit)
        return directory

    def part(self, snapshot: Snapshot, entry: Entry, name_timeout: float) -> FrozenDirectory:
        """A directory of a snapshot, new, as the top of a tree of its own."""
        handle = self.new_handle()
        directory = FrozenDirectory(self, snapshot, frozen_inode(handle, -1), entry)
        directory.handle = handle
        directory.name_timeout = name_timeout
        return directory

    def directory(self, ino: int) -> FrozenDirectory | None:
        """The kept directory with that number."""
        return self._inodes.get(ino)

    def node(self, ino: int) -> Node:
        """The node with that number. Stale where its directory was forgotten."""
        directory = self._inodes.get(ino)
        if directory is not None:
            return directory
        parent, rank = self._handles.get(handle_of(ino)), rank_of(ino)
        if parent is None or rank < 0:
            raise Stale(f"inode {ino} is not known")
        return parent.at(rank, parent.snapshot.at(parent.entry.root, rank)[1])

    def keep(self, directory: FrozenDirectory) -> None:
        """Find `directory` again by its numbers until it is released."""
        if not directory.handle:
            directory.handle = self.new_handle()
        self._handles[directory.handle] = directory
        self._inodes[directory.ino] = directory

    def count(self, directory: FrozenDirectory) -> None:
        """The kernel was told once more of something in `directory`."""
        if not directory.held:
            self.keep(directory)
        directory.held += 1

    def forget(self, ino: int, count: int) -> None:
        """The kernel gives back lookups of inode `ino`."""
        directory = self._handles.get(handle_of(ino))
        if directory is not None:
            directory.held -= count
            self.release(directory)

    def release(self, directory: FrozenDirectory) -> None:
        """Let go of a directory that nothing is known in any more."""
        if directory.held <= 0:
            self._handles.pop(directory.handle, None)
            self._inodes.pop(directory.ino, None)
