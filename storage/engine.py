"""An open repository: everything below the Python API and the mount."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from storage.config import Config, folder, read_config
from storage.disk import files
from storage.disk.index import GENERATION, Index, number_key
from storage.disk.locks import Owner, Presence
from storage.disk.segments import SegmentKind, Segments
from storage.errors import (
    Corrupt,
    NotFound,
    RepositoryExists,
)
from storage.home import is_started, mark_clean, start_index
from storage.merging import Merging
from storage.model import history
from storage.model.digest import Digest
from storage.model.format import FORMAT_VERSION, MALFORMED
from storage.model.names import Path as TreePath
from storage.model.names import path_text
from storage.model.records import Author, Commit, Entry, Kind, Schema, decode_entry
from storage.references import References, new_root
from storage.snapshot import Snapshot
from storage.stores.compare import Comparison, Difference, Tree
from storage.stores.contents import Content, open_content, same_contents, settled_value
from storage.stores.log import Log, failed_segments
from storage.stores.merging import Merger
from storage.stores.objects import Objects
from storage.stores.pins import Pins
from storage.stores.recovery import RebuildReport
from storage.stores.refs import BRANCH, HEAD, BranchRef, Refs
from storage.stores.renames import with_renames
from storage.stores.revisions import Revisions
from storage.stores.staging import Staging
from storage.stores.syncer import Syncer
from storage.stores.transaction import Committer, root_of
from storage.stores.writers import WriterLocks
from storage.tree import read
from storage.working import Parts, WorkingReader
from storage.worktree import WorkingTree

DEFAULT_BRANCH = "main"
BEGINNINGS = 1000
"""Bytes of segments that a repository has when it is made, and some more."""


@dataclass(frozen=True, slots=True)
class TreeChange:
    """A change by another process: `names` in `directory` of `branch` (None: everything below). Branch "": refs."""

    branch: str
    directory: TreePath
    names: tuple[bytes, ...] | None


class Engine(References):
    """An open repository. Thread-safe; any number of processes may have the same repository open."""

    def __init__(
        self, path: Path, config: Config, presence: Presence, index: Index, rebuilt: RebuildReport | None
    ) -> None:
        self.path = path
        self.author = Author(config.name, config.email)
        self.identity = config.id
        self.rebuilt = rebuilt
        """What was found when the index was rebuilt at opening; None where that was not needed."""
        self.alone = False
        """Whether nobody else had the repository open when this engine came."""
        self.temporary = folder(path) / "tmp"
        self._presence = presence
        self._index = index
        self._origin = os.urandom(8)
        self._segments = Segments(folder(path) / "segments")
        self._log = Log(index, self._segments)
        self._syncer = Syncer(self._log.sync)
        self._log.on_change = self._syncer.notice
        self.objects = Objects(index, self._segments, self._log)
        self._refs = Refs(index)
        self._staging = Staging(index, self._segments)
        self._pins = Pins(folder(path) / "pins", index, self._origin)
        committer = Committer(
            index, self._segments, self._log, self.objects, self._refs, self._staging, self._origin, self.author
        )
        merger = Merger(index, self._log, self.objects, self._refs, self._staging, committer, self._origin)
        parts = Parts(
            index,
            self._log,
            self.objects,
            self._refs,
            self._staging,
            committer,
            merger,
            self._origin,
            self.author,
            self._segments,
            self._pins,
        )
        revisions = Revisions(index, self._segments, self._refs, self.objects)
        super().__init__(parts, WriterLocks(index, self._refs), revisions)
        self._trees: dict[str, WorkingTree] = {}
        self._lock = threading.Lock()
        self._closed = False

    # Opening and closing

    @classmethod
    def create(cls, path: str | os.PathLike[str], author: Author) -> Engine:
        """A new repository in the folder `path`, which is made if needed. RepositoryExists."""
        path = Path(path).absolute()
        home = folder(path)
        if (home / "config.json").exists():
            raise RepositoryExists(f"{path} already holds a repository")
        _clear_beginnings(home)
        files.make_directory(home / "segments")
        config = Config(FORMAT_VERSION, uuid.uuid4().hex, author.name, author.email)
        presence = Presence(home / "lock")
        presence.enter(partial(start_index, home, fresh=True))
        engine = cls(path, config, presence, Index(home / "index"), None)
        engine._first_refs()
        # Last: a folder without it is not a repository yet.
        files.replace(home / "config.json", msgspec.json.format(msgspec.json.encode(config)))
        return engine

    def _first_refs(self) -> None:
        with self._log.change(SegmentKind.LOG) as txn:
            root_id = self._index.next_number(txn, b"directory")
            updates = [
                (HEAD, b"", DEFAULT_BRANCH.encode()),
                (BRANCH + DEFAULT_BRANCH, b"", BranchRef(None, root_id).encode()),
            ]
            self.change_refs(txn, "init", updates, [new_root(DEFAULT_BRANCH, root_id, None, self.objects)])

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Engine:
        """Open the repository in the folder `path`. NotARepository, NewerFormat, Corrupt.

        The index is rebuilt from the segments when it is missing or cannot be trusted after an unclean boot.
        """
        path = Path(path).absolute()
        home = folder(path)
        config = read_config(path)
        presence = Presence(home / "lock")
        reports: list[RebuildReport | None] = []
        try:
            alone = presence.enter(lambda: reports.append(start_index(home, fresh=False)), partial(is_started, home))
            if not alone and not (home / "index" / "data.mdb").is_file():
                raise Corrupt(
                    f"the index of {path} is missing while other processes have the repository open: "
                    "close or unmount them, then open it again, and it will be rebuilt",
                    where=str(home / "index"),
                )
            engine = cls(path, config, presence, Index(home / "index"), reports[0] if reports else None)
            engine.alone = alone
            return engine
        except BaseException:
            presence.leave(lambda: None)
            raise

    def close(self) -> None:
        """Sync everything and let go of the repository. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._syncer.stop()
        self._pins.close()
        try:
            self._log.sync()
        finally:
            self._log.close()
            self._segments.close()
            self._presence.leave(self._mark_clean)
            self._index.close()

    def _mark_clean(self) -> None:
        if failed_segments(self._index):
            return  # the index says more than the disk may hold: after a boot it is not to be trusted
        mark_clean(folder(self.path), self._index)

    def __enter__(self) -> Engine:
        """The engine itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    # Trees

    def snapshot(self, commit: Digest) -> Snapshot:
        """A commit's tree, which gc leaves alone while it is held here. NotFound."""
        snapshot = Snapshot(self.objects, commit)
        self._pins.hold(commit, snapshot)
        return snapshot

    def working_tree(self, branch: str) -> WorkingTree:
        """A branch's working tree. NotFound."""
        with self._index.read() as txn:
            self._refs.branch(txn, branch)
        with self._lock:
            tree = self._trees.get(branch)
            if tree is None:
                tree = self._trees[branch] = WorkingTree(self._parts, branch)
            return tree

    def working_reader(self, branch: str) -> WorkingReader:
        """A branch's working tree, to read only. NotFound."""
        with self._index.read() as txn:
            self._refs.branch(txn, branch)
        return WorkingReader(self._parts, branch)

    def merging(self, branch: str) -> Merging:
        """Merging into a branch, and the merge of it that is under way. NotFound."""
        return Merging(self._parts, self.working_tree(branch))

    def diff(self, old: Digest | None, new: Digest) -> Iterator[Difference]:
        """What differs between two commits (None: nothing), by path."""
        return self.comparison(self.committed(old), self.committed(new)).differences()

    def committed(self, commit: Digest | None) -> Tree:
        """A commit's tree, to be compared; None is the empty one. NotFound."""
        return Tree(root_of(self.objects, commit), commit)

    def standing(self, branch: str) -> Tree:
        """A branch's working tree as it stands now, to be compared: a walk of its staged rows. NotFound."""
        return self.working_tree(branch).standing()

    def named_tree(self, name: str) -> Tree:
        """The tree of a revision; with a `+` behind it, the working tree of the branch of that name. NotFound, Ambiguous."""
        return self.standing(name[:-1]) if name.endswith("+") else self.committed(self.resolve(name))

    def comparison(self, old: Tree, new: Tree) -> Comparison:
        """Two trees side by side."""
        return Comparison(self.objects.node, partial(same_contents, self.objects), old, new)

    def compared(self, old: Tree, new: Tree, path: TreePath = ()) -> list[Difference]:
        """What differs between two trees at and below `path`, renamed entries found: see stores.renames.

        NotFound where neither has the path.
        """
        comparison = self.comparison(old, new)
        if comparison.find(old, path)[0] is None and comparison.find(new, path)[0] is None:
            raise NotFound(f"there is no {path_text(path)} on either side")
        return with_renames(comparison, lambda entry: settled_value(entry, self._staging.value(entry.value)), path)

    def contents(self, tree: Tree, path: TreePath, entry: Entry, dataset: Schema | None) -> Content:
        """What a file or sample of a tree holds; `dataset` is the schema of its directory.

        What was staged and has been committed since is looked up again: it may have changed meanwhile. NotFound, Corrupt.
        """
        try:
            return open_content(self.objects, entry, self._staging.value(entry.value), dataset)
        except Corrupt:
            if not tree.branch or isinstance(entry.value, bytes):
                raise
            return self.working_tree(tree.branch).open(path)[1]

    # History

    def commits(self) -> list[Digest]:
        """All commits stored here, newest first."""
        return self._history.commits()

    def log(self, start: Digest) -> Iterator[tuple[Digest, Commit]]:
        """A commit and its ancestors, each once, children before parents, newest first."""
        return history.walk(self.objects.commit, start)

    def path_log(self, start: Digest, path: TreePath) -> Iterator[tuple[Digest, Commit]]:
        """Those of them that changed what stands at `path`: it is not what any of their parents has there.

        Costs O(commits · depth) look-ups, whatever the trees hold. Of a directory, its time alone does not count.
        """
        return history.changing(self.objects.commit, start, lambda commit: self._identity(commit.root, path))

    def _identity(self, root: Entry, path: TreePath) -> object:
        """Something that two entries have in common only if they are the same; None where there is none."""
        entry = root
        for name in path:
            found = read.get(self.objects.node, entry.root, name) if entry.kind is Kind.DIRECTORY else None
            if found is None:
                return None
            entry = decode_entry(*found)
        return replace(entry, mtime=0) if entry.kind is Kind.DIRECTORY else entry

    def resolve(self, revision: str) -> Digest:
        """The commit that a revision names. NotFound, Ambiguous.

        A branch or tag, HEAD, or at least four digits of a commit's name, then `@{date}` or `@{n}` (n moves ago), `~n`, `^n`. A
        branch goes before a tag, a tag before digits.
        """
        return self._history.resolve(revision)

    def abbreviation(self, digest: Digest) -> str:
        """The shortest prefix of a commit's name that is its own, of at least 16 digits."""
        return self._history.abbreviation(digest)

    # Other processes

    @property
    def index_file(self) -> Path:
        """The file that is written to at every change by any process."""
        return self._index.folder / "data.mdb"

    def generation(self) -> int:
        """A number that grows with every change by any process."""
        with self._index.read() as txn:
            return self._index.number(txn, GENERATION)

    def changes(self, since: int) -> tuple[int, list[TreeChange] | None]:
        """The generation now, and what other engines changed since; None when that is too long ago to know."""
        with self._index.read() as txn:
            now = self._index.number(txn, GENERATION)
            if now == since:
                return now, []
            rows = [
                (int.from_bytes(key, "big"), value)
                for key, value in self._index.scan(txn, self._index.changes, b"", number_key(since))
            ]
        if not rows or rows[0][0] != since + 1:
            self.let_go()
            return now, None
        found: list[TreeChange] = []
        for _, value in rows:
            try:
                origin, changed = msgspec.msgpack.decode(value, type=_ChangeRow)
            except MALFORMED:
                return now, None
            if origin != self._origin:
                for branch, path, names in changed:
                    found.append(TreeChange(branch, tuple(path), None if names is None else tuple(names)))
        if any(not change.branch for change in found):
            self.let_go()
        return now, found

    def let_go(self) -> None:
        """Give up pins of what nobody reads, pin what gc has marked and somebody reads, and close files that gc deleted.

        `changes` does so when refs changed, which gc pretends to do.
        """
        self._pins.release()
        self._pins.hold_contents(self.objects.in_use())
        self._segments.let_go()

    def acquire_writer(self, branch: str) -> Owner:
        """Take the branch's writer lock; what to release it with.

        WriterLockHeld while a live process has it; a dead one's is taken over.
        """
        return self._writers.acquire(branch)

    def release_writer(self, branch: str, owner: Owner) -> None:
        """Give the branch's writer lock back, if it is still the one that acquire_writer gave."""
        self._writers.release(branch, owner)

    def force_release_writer(self, branch: str | None = None) -> bool:
        """Take the writer lock away from whoever has it, on one branch or on all; whether there was one."""
        return self._writers.force_release(branch)

    def writer_held(self, branch: str) -> Owner | None:
        """The live process that holds the branch's writer lock, None if there is none."""
        return self._writers.held(branch)

    # Space and safety

    def sync(self) -> None:
        """Make everything acknowledged so far survive power loss."""
        self._log.sync()

    def internals(self) -> tuple[Index, Segments, Refs, Staging]:
        """What verify reads."""
        return self._index, self._segments, self._refs, self._staging

    def parts(self) -> Parts:
        """What gc works with."""
        return self._parts

    def disk_usage(self) -> int:
        """Bytes the repository takes on its disk."""
        total = 0
        for path in folder(self.path).rglob("*"):
            try:
                total += path.lstat().st_blocks * 512
            except FileNotFoundError:
                continue
        return total


def _clear_beginnings(home: Path) -> None:
    """Remove what a creation that was cut short has left. RepositoryExists where there is more than that."""
    if not home.exists():
        return
    segments = Segments(home / "segments").paths().values() if (home / "segments").is_dir() else ()
    if sum(path.stat().st_size for path in segments) > BEGINNINGS:
        raise RepositoryExists(
            f"{home} holds what was stored in a repository, but no config.json: "
            "put that file back from a copy, or move the folder out of the way"
        )
    for part in ("segments", "index", "index.new", "index.old", "state.json"):
        files.remove_tree(home / part)


_ChangeRow = tuple[bytes, list[tuple[str, list[bytes], list[bytes] | None]]]
