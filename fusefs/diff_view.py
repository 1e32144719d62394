"""`.arborfs/diff/<revision>/` of every tree: what differs between the revision and that tree, as directories and links.

    added/PATH                  in this tree, not in the revision
    removed/PATH                in the revision, not in this tree
    changed/old/PATH, new/PATH  other contents, type or schema: so `diff -r changed/old changed/new` works
    attributes/old/PATH, new/PATH   the same contents, another mode, owner, time or extended attribute

Directories mirror the path; a leaf is a relative symbolic link to the file itself, or to a directory that only one side
has as a whole, whatever is in it. Where the mount has no commits/ to link to, the old side is shown in place, read-only.

A comparison is made when it is looked at, in a thread, and again when anything has changed since. There are nodes for
what the kernel knows and no others.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fusefs.frozen import FrozenDirectory, FrozenFile, Snapshots
from fusefs.handles import Listing, NameListing
from fusefs.layout import COMMITS, CONTROL, NEVER, Owner, Path, Stat
from fusefs.nodes import Node
from fusefs.placed import Branch
from fusefs.refs_view import text_of
from storage.engine import Engine
from storage.errors import Ambiguous, NotFound
from storage.model.digest import Digest
from storage.stores.compare import Difference, Tree

ADDED, REMOVED, CHANGED, ATTRIBUTES = b"added", b"removed", b"changed", b"attributes"
OLD, NEW = b"old", b"new"
_ABOVE = 3
"""How many directories lie between a comparison's and the root of its tree: .arborfs, diff, the revision."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An entry of one of the two trees: the old one, or this one."""

    is_old: bool
    path: Path


class Folder(dict[bytes, "Folder | Leaf"]):
    """A directory of a comparison, by name."""

    def at(self, trail: Iterable[bytes]) -> Folder:
        """The folder there, made where it is missing."""
        folder = self
        for name in trail:
            below = folder.setdefault(name, Folder())
            assert isinstance(below, Folder)
            folder = below
        return folder


def picture(differences: Iterable[Difference]) -> Folder:
    """The directories that show these differences, which must not go into directories that only one side has.

    What the repository keeps for itself in a tree, such as metadata, has no file to link to and is left out.
    """
    top = Folder()
    for trail in ((ADDED,), (REMOVED,), (CHANGED, OLD), (CHANGED, NEW), (ATTRIBUTES, OLD), (ATTRIBUTES, NEW)):
        top.at(trail)
    for each in differences:
        path = each.path
        if not path or path[0] == CONTROL:
            continue
        if each.old is None:
            top.at((ADDED, *path[:-1]))[path[-1]] = Leaf(False, path)
        elif each.new is None:
            top.at((REMOVED, *path[:-1]))[path[-1]] = Leaf(True, path)
        else:
            section = ATTRIBUTES if each.only_attributes else CHANGED
            for side in (OLD, NEW):
                if each.old.is_directory and each.new.is_directory:
                    top.at((section, side, *path))
                else:
                    top.at((section, side, *path[:-1]))[path[-1]] = Leaf(side == OLD, path)
    return top


@dataclass(frozen=True, slots=True)
class Here:
    """The tree that a `.arborfs` belongs to. `version` changes at least whenever the tree does."""

    tree: Callable[[], Tree]
    version: Callable[[], int]


class Diffs:
    """What the comparisons of one mount share; `linked` says whether it has a commits/ directory to link to."""

    def __init__(self, engine: Engine, owner: Owner, when: int, *, linked: bool) -> None:
        self.engine = engine
        self.owner = owner
        self.when = when
        self.linked = linked

    def of_commit(self, commit: Digest, snapshots: Snapshots) -> Node:
        """`.arborfs/diff` of a snapshot."""
        tree = self.engine.committed(commit)
        return DiffsDirectory(self, snapshots, Here(lambda: tree, lambda: 0))

    def of_branch(self, branch: Branch, snapshots: Snapshots) -> Node:
        """`.arborfs/diff` of a working tree."""
        return DiffsDirectory(self, snapshots, Here(lambda: branch.tree.standing(), self.engine.generation))


class DiffNode(Node):
    """A node of a comparison: found again by its directory as long as the kernel knows it, and never remembered by name."""

    __slots__ = ("children", "diffs", "name", "parent")

    def __init__(self, diffs: Diffs, parent: DiffNode | None, name: bytes) -> None:
        super().__init__()
        self.diffs = diffs
        self.parent = parent
        self.name = name
        self.children: dict[bytes, DiffNode] = {}

    def attach(self) -> None:
        """From now on a lookup of the name gives this node."""
        if self.parent is not None:
            self.parent.children[self.name] = self

    def drop(self) -> None:
        """A lookup of the name makes a new node."""
        if self.parent is not None and self.parent.children.get(self.name) is self:
            del self.parent.children[self.name]

    def stat(self) -> Stat:
        """A directory that cannot be changed."""
        return self._stat(stat.S_IFDIR | 0o755, 0)

    def _stat(self, mode: int, size: int) -> Stat:
        owner = self.diffs.owner
        return Stat(self.ino, mode, size, self.diffs.when, owner.uid, owner.gid, 1, NEVER, NEVER)


class DiffsDirectory(DiffNode):
    """`.arborfs/diff`: a comparison for every revision; branches and tags are listed."""

    __slots__ = ("here", "snapshots")

    is_directory = True

    def __init__(self, diffs: Diffs, snapshots: Snapshots, here: Here) -> None:
        super().__init__(diffs, None, b"diff")
        self.snapshots = snapshots
        self.here = here

    def child(self, name: bytes) -> Node:
        """The comparison with a revision. NotFound."""
        self.resolve(name)
        return self.children.get(name) or Versus(self, name)

    def resolve(self, name: bytes) -> Digest:
        """The commit that a name means now. NotFound."""
        try:
            return self.diffs.engine.resolve(text_of(name))
        except (Ambiguous, ValueError) as error:
            raise NotFound(str(error)) from None

    def listing(self) -> Listing:
        """A reader of the branches and tags; those without a commit are left out."""
        engine = self.diffs.engine
        return NameListing(self, lambda: sorted({name.encode() for name in (*engine.branches(), *engine.tags())}))


class DiffDirectory(DiffNode):
    """A directory in a comparison; `trail` leads to it from the comparison's own."""

    __slots__ = ("trail", "versus")

    is_directory = True

    def __init__(self, versus: Versus | None, parent: DiffNode, name: bytes, trail: Path) -> None:
        super().__init__(parent.diffs, parent, name)
        self.versus = versus
        self.trail = trail

    def pending(self) -> Callable[[], object] | None:
        """The comparison, where it has not been made since the last change."""
        assert self.versus is not None
        return None if self.versus.is_current() else self.versus.picture

    def folder(self) -> Folder:
        """What is in it now. NotFound where nothing differs there any more."""
        assert self.versus is not None
        found: Folder | Leaf = self.versus.picture()
        for name in self.trail:
            below = found.get(name) if isinstance(found, Folder) else None
            if below is None:
                raise NotFound("nothing differs here any more")
            found = below
        if isinstance(found, Leaf):
            raise NotFound("nothing differs here any more")
        return found

    def child(self, name: bytes) -> Node:
        """A directory, a link, or where there is nothing to link to the entry itself. NotFound."""
        versus = self.versus
        assert versus is not None
        found = self.folder().get(name)
        if found is None:
            raise NotFound(f"there is no {name!r} here")
        known = self.children.get(name)
        if isinstance(found, Folder):
            return known if isinstance(known, DiffDirectory) else DiffDirectory(versus, self, name, (*self.trail, name))
        if found.is_old and not self.diffs.linked:
            return versus.shown(found.path)
        target = b"../" * (_ABOVE + len(self.trail)) + versus.place(found)
        return known if isinstance(known, DiffLink) and known.target() == target else DiffLink(self, name, target)

    def listing(self) -> Listing:
        """A reader of the names."""
        return NameListing(self, lambda: sorted(self.folder()))


class Versus(DiffDirectory):
    """`.arborfs/diff/<revision>`: what differs between the revision, which may move, and the tree, which may change."""

    __slots__ = ("_diffs_directory", "_drawn", "_root")

    def __init__(self, parent: DiffsDirectory, name: bytes) -> None:
        super().__init__(None, parent, name, ())
        self.versus = self
        self._diffs_directory = parent
        self._drawn: tuple[tuple[Digest, int] | None, Folder] = (None, Folder())
        self._root: FrozenDirectory | None = None

    def commit(self) -> Digest:
        """The commit that the revision names now. NotFound."""
        return self._diffs_directory.resolve(self.name)

    def _version(self) -> tuple[Digest, int]:
        # The number first: what changes in between is looked at again the next time.
        number = self._diffs_directory.here.version()
        return self.commit(), number

    def is_current(self) -> bool:
        """Whether `picture` answers from memory, also that there is no such revision any more."""
        try:
            return self._drawn[0] == self._version()
        except NotFound:
            return True

    def picture(self) -> Folder:
        """What differs now: the last answer, if nothing has changed since. NotFound. Thread-safe."""
        version, engine = self._version(), self.diffs.engine
        known, drawn = self._drawn
        if known != version:
            comparison = engine.comparison(engine.committed(version[0]), self._diffs_directory.here.tree())
            drawn = picture(comparison.surface())
            self._drawn = (version, drawn)
        return drawn

    def place(self, leaf: Leaf) -> bytes:
        """Where an entry stands, from the root of this tree."""
        above = b"../../" + COMMITS + b"/" + self.diffs.engine.abbreviation(self.commit()).encode() + b"/"
        return (above if leaf.is_old else b"") + b"/".join(leaf.path)

    def shown(self, path: Path) -> Node:
        """An entry of the old side itself, read-only. NotFound."""
        commit = self.commit()
        if self._root is None or self._root.snapshot.commit != commit:
            self._root = self._diffs_directory.snapshots.root(self.diffs.engine.snapshot(commit), NEVER)
        node: Node = self._root
        for name in path:
            node = node.child(name)
        if isinstance(node, FrozenFile):
            return ShownFile(node.directory, node.ino, node.entry)
        assert isinstance(node, FrozenDirectory)
        node.name_timeout = NEVER
        return node


class ShownFile(FrozenFile):
    """A file of a snapshot, under a name that may come to mean something else."""

    def stat(self) -> Stat:
        """What stat says; the name is not remembered."""
        return super().stat()._replace(name_timeout=NEVER)


class DiffLink(DiffNode):
    """A link to an entry of one of the two trees."""

    __slots__ = ("_target",)

    def __init__(self, parent: DiffNode, name: bytes, target: bytes) -> None:
        super().__init__(parent.diffs, parent, name)
        self._target = target

    def stat(self) -> Stat:
        """A link."""
        return self._stat(stat.S_IFLNK | 0o777, len(self._target))

    def target(self) -> bytes:
        """Where it leads, from the directory it is in."""
        return self._target
