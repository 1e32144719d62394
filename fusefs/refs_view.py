"""The top of a whole repository: HEAD, branches/, commits/ and tags/."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator

from fusefs.frozen import FrozenDirectory, Snapshots
from fusefs.handles import Listing, NameListing
from fusefs.layout import BRANCHES, COMMITS, CONTROL, FOREVER, HEAD, LONG, NEVER, TAGS, Owner, Stat
from fusefs.nodes import CrossDevice, Node, checked
from fusefs.placed import Gone
from fusefs.working import Notice, WorkingDirectory
from storage.engine import Engine
from storage.errors import Ambiguous, BranchInUse, Exists, InvalidName, NotFound, NotMerged
from storage.model.digest import Digest, hexed
from storage.stores.revisions import LISTED_DIGITS

OpenBranch = Callable[[str], WorkingDirectory]
KEPT_ROOTS = 256


class RefsDirectory(Node):
    """A directory whose names come from refs. Its stat never changes and is remembered: every path goes by here."""

    __slots__ = ("_engine", "_owner", "_when")

    is_directory = True

    def __init__(self, engine: Engine, owner: Owner, when: int) -> None:
        super().__init__()
        self._engine = engine
        self._owner = owner
        self._when = when

    def stat(self) -> Stat:
        """A directory, as old as the mount."""
        mode = stat.S_IFDIR | 0o755
        return Stat(self.ino, mode, 0, self._when, self._owner.uid, self._owner.gid, 1, LONG, LONG)

    def listing(self) -> Listing:
        """A reader of the names."""
        return NameListing(self, self.names)

    def names(self) -> Iterable[bytes]:
        """The names that are listed."""
        raise NotImplementedError


class TopDirectory(RefsDirectory):
    """The root of a whole repository."""

    __slots__ = ("branches", "commits", "control", "head", "tags")

    def __init__(
        self,
        engine: Engine,
        owner: Owner,
        when: int,
        snapshots: Snapshots,
        open_branch: OpenBranch,
        control: Node,
    ) -> None:
        super().__init__(engine, owner, when)
        self.control = control
        self.head = HeadLink(engine, owner, when)
        self.branches = BranchesDirectory(engine, owner, when, open_branch)
        self.commits = CommitsDirectory(engine, owner, when, snapshots)
        self.tags = TagsDirectory(engine, owner, when, snapshots)

    def names(self) -> Iterable[bytes]:
        """The four fixed names."""
        return [HEAD, BRANCHES, COMMITS, TAGS]

    def child(self, name: bytes) -> Node:
        """One of the four, or `.arborfs`. NotFound."""
        if name == BRANCHES:
            return self.branches
        if name == COMMITS:
            return self.commits
        if name == TAGS:
            return self.tags
        if name == HEAD:
            return self.head
        if name == CONTROL:
            return self.control
        raise NotFound("there is no such entry")


class HeadLink(Node):
    """HEAD: a link to the default branch."""

    __slots__ = ("_engine", "_owner", "_when")

    def __init__(self, engine: Engine, owner: Owner, when: int) -> None:
        super().__init__()
        self._engine = engine
        self._owner = owner
        self._when = when

    def stat(self) -> Stat:
        """A link."""
        mode = stat.S_IFLNK | 0o777
        size = len(self.target())
        return Stat(self.ino, mode, size, self._when, self._owner.uid, self._owner.gid, 1, LONG, NEVER)

    def target(self) -> bytes:
        """`branches/` and the name of the default branch."""
        return BRANCHES + b"/" + self._engine.head().encode()


class MadeLink(Node):
    """What `ln -s` is told it made where a tag or a branch came of it: the next lookup finds that."""

    __slots__ = ("_owner", "_target")

    def __init__(self, owner: Owner, target: bytes) -> None:
        super().__init__()
        self._owner = owner
        self._target = target

    def stat(self) -> Stat:
        """A link that nobody remembers."""
        mode = stat.S_IFLNK | 0o777
        return Stat(self.ino, mode, len(self._target), 0, self._owner.uid, self._owner.gid, 1, NEVER, NEVER)

    def target(self) -> bytes:
        """What was given to `ln -s`."""
        return self._target


def text_of(name: bytes) -> str:
    """A name as text. NotFound where it is none, for no ref or revision has such a name."""
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise NotFound(f"there is no {name!r} here") from None


def linked_commit(engine: Engine, target: bytes) -> Digest:
    """The commit that a link's target names: its last component, as a revision. InvalidName."""
    last = target.rstrip(b"/").rpartition(b"/")[2]
    try:
        return engine.resolve(last.decode())
    except (NotFound, Ambiguous, ValueError) as error:
        raise InvalidName(f"{target!r} names no commit: {error}") from None


class BranchesDirectory(RefsDirectory):
    """branches/: a working tree for each branch. mkdir makes one from HEAD, rmdir deletes a merged one, mv renames."""

    __slots__ = ("_open", "roots")

    def __init__(self, engine: Engine, owner: Owner, when: int, open_branch: OpenBranch) -> None:
        super().__init__(engine, owner, when)
        self._open = open_branch
        self.roots: dict[str, WorkingDirectory] = {}

    def names(self) -> Iterable[bytes]:
        """The branches."""
        return sorted(name.encode() for name in self._engine.branches())

    def child(self, name: bytes) -> Node:
        """The working tree of a branch. NotFound."""
        text = text_of(name)
        root = self.roots.get(text)
        if root is None:
            root = self.roots[text] = self._open(text)
        return root

    def make_directory(self, name: bytes, mode: int, uid: int, gid: int) -> Node:
        """A new branch from the default one's tip."""
        text = self._new(name)
        self._engine.create_branch(text)
        return self.child(name)

    def make_symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Node:
        """A new branch from the commit that the target names."""
        text = self._new(name)
        self._engine.create_branch(text, linked_commit(self._engine, target))
        return MadeLink(self._owner, target)

    def _new(self, name: bytes) -> str:
        try:
            return checked(name).decode("ascii")
        except UnicodeDecodeError:
            raise InvalidName(f"{name!r} cannot name a branch") from None

    def remove_directory(self, name: bytes) -> None:
        """Delete a branch. NotMerged, BranchInUse: the reason is in its errors."""
        text = text_of(name)
        try:
            self._engine.remove_branch(text)
        except (NotMerged, BranchInUse) as error:
            root = self.child(name)
            if isinstance(root, WorkingDirectory):
                root.branch.rejections.note((), str(error))
            raise
        self._lost(text, Gone.UNLINKED)

    def rename(self, name: bytes, directory: Node, new_name: bytes, *, replace: bool) -> None:
        """Rename a branch. Exists: never over another one."""
        if directory is not self:
            raise CrossDevice("a branch stays in branches/")
        old, new = text_of(name), self._new(new_name)
        if new in self._engine.branches():
            raise Exists(f"there is already a branch {new!r}")
        self._engine.rename_branch(old, new)
        root = self.roots.pop(old, None)
        if root is not None:
            root.branch.name, root.branch.tree = new, self._engine.working_tree(new)
            root.branch.rejections.move(new)
            self.roots[new] = root

    def _lost(self, name: str, how: Gone) -> WorkingDirectory | None:
        root = self.roots.pop(name, None)
        if root is not None:
            root.vanish(how)
        return root

    def recheck(self) -> Iterator[Notice]:
        """Drop the branches that another process has removed; what the kernel must be told."""
        there = self._engine.root_ids()
        for name in [name for name, root in self.roots.items() if there.get(name) != root.branch.root_id]:
            root = self._lost(name, Gone.REPLACED)
            yield Notice(self.ino, name.encode(), root.ino if root else 0)


class SnapshotsDirectory(RefsDirectory):
    """A directory of snapshots by name: one root for each name, as long as the kernel knows it."""

    __slots__ = ("_roots", "_snapshots")

    def __init__(self, engine: Engine, owner: Owner, when: int, snapshots: Snapshots) -> None:
        super().__init__(engine, owner, when)
        self._snapshots = snapshots
        self._roots: dict[bytes, FrozenDirectory] = {}

    def _root(self, name: bytes, commit: Digest, name_timeout: float) -> FrozenDirectory:
        """The root of `commit` under `name`: the one that is known, where the name leads to the same commit still."""
        known = self._roots.get(name)
        if known is not None and known.snapshot.commit == commit:
            return known
        if len(self._roots) > KEPT_ROOTS:
            self._roots = {key: root for key, root in self._roots.items() if root.held}
        root = self._roots[name] = self._snapshots.root(self._engine.snapshot(commit), name_timeout)
        return root


class TagsDirectory(SnapshotsDirectory):
    """tags/: a snapshot for each tag. `ln -s ../commits/<rev> <name>` makes one, rmdir removes, mv renames."""

    __slots__ = ()

    def names(self) -> Iterable[bytes]:
        """The tags."""
        return sorted(name.encode() for name in self._engine.tags())

    def child(self, name: bytes) -> Node:
        """The snapshot of a tag. NotFound."""
        return self._root(name, Digest(self._engine.tag(text_of(name)).digest), LONG)

    def make_symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Node:
        """A new tag of the commit that the target names."""
        self._engine.create_tag(text_of(checked(name)), linked_commit(self._engine, target))
        return MadeLink(self._owner, target)

    def remove_directory(self, name: bytes) -> None:
        """Remove a tag."""
        self._engine.remove_tag(text_of(name))
        self._roots.pop(name, None)

    def rename(self, name: bytes, directory: Node, new_name: bytes, *, replace: bool) -> None:
        """Rename a tag. Exists: never over another one."""
        if directory is not self:
            raise CrossDevice("a tag stays in tags/")
        tag = self._engine.tag(text_of(name))
        self._engine.create_tag(text_of(checked(new_name)), Digest(tag.digest), tag.message)
        self._engine.remove_tag(text_of(name))
        root = self._roots.pop(name, None)
        if root is not None:
            self._roots[new_name] = root

    def recheck(self) -> Iterator[Notice]:
        """Drop the tags that another process has moved or removed; what the kernel must be told."""
        there = self._engine.tags()
        for name, root in list(self._roots.items()):
            if there.get(name.decode()) != root.snapshot.commit:
                del self._roots[name]
                yield Notice(self.ino, name)


class CommitsDirectory(SnapshotsDirectory):
    """commits/: lists abbreviations, and finds any revision by name."""

    __slots__ = ()

    def names(self) -> Iterable[bytes]:
        """Every commit by its abbreviation."""
        return [self._engine.abbreviation(commit).encode() for commit in self._engine.commits()]

    def child(self, name: bytes) -> Node:
        """The snapshot that a revision names. NotFound."""
        text = text_of(name)
        try:
            commit = self._engine.resolve(text)
        except (NotFound, Ambiguous, ValueError) as error:
            raise NotFound(str(error)) from None
        lasting = len(text) >= LISTED_DIGITS and hexed(commit).startswith(text)
        return self._root(name, commit, FOREVER if lasting else NEVER)
