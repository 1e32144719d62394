"""An open repository: everything below the Python API and the mount."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from storage.disk import files
from storage.disk.index import GENERATION, Index, Txn, number_key
from storage.disk.locks import Owner, Presence
from storage.disk.segments import FORMAT_VERSION, SegmentKind, Segments
from storage.errors import (
    BranchInUse,
    Corrupt,
    Exists,
    NotFound,
    NotMerged,
    RepositoryExists,
)
from storage.home import Config, folder, is_started, mark_clean, read_config, start_index
from storage.merging import Merging
from storage.model import history
from storage.model.digest import Digest
from storage.model.names import Path as TreePath
from storage.model.names import check_ref_name
from storage.model.records import MALFORMED, Author, Commit, Fence, encode_head
from storage.snapshot import Snapshot
from storage.stores.compare import Difference, differences
from storage.stores.log import Log, failed_segments
from storage.stores.merging import Merger
from storage.stores.objects import Objects
from storage.stores.recovery import RebuildReport
from storage.stores.refs import BRANCH, HEAD, MERGE, TAG, BranchRef, Refs, TagRef, change_refs, encode_tag
from storage.stores.revisions import Operation, Revisions
from storage.stores.staging import Staging
from storage.stores.syncer import Syncer
from storage.stores.transaction import EMPTY_ROOT, Committer, root_of
from storage.stores.writers import WriterLocks
from storage.working import Parts
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


class Engine:
    """An open repository. Thread-safe; any number of processes may have the same repository open."""

    def __init__(
        self, path: Path, config: Config, presence: Presence, index: Index, rebuilt: RebuildReport | None
    ) -> None:
        self.path = path
        self.author = Author(config.name, config.email)
        self.identity = config.id
        self.rebuilt = rebuilt
        """What was found when the index was rebuilt at opening; None where that was not needed."""
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
        self._history = Revisions(index, self._segments, self._refs, self.objects)
        self._writers = WriterLocks(index, self._refs)
        committer = Committer(index, self._segments, self._log, self.objects, self._refs, self._staging, self._origin)
        merger = Merger(index, self._log, self.objects, self._refs, self._staging, committer, self._origin)
        self._parts = Parts(
            index,
            self._log,
            self.objects,
            self._refs,
            self._staging,
            committer,
            merger,
            self._origin,
            self.author,
        )
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
            self._change_refs(txn, "init", updates, [_new_root(DEFAULT_BRANCH, root_id, None, self.objects)])

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
            return cls(path, config, presence, Index(home / "index"), reports[0] if reports else None)
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
        """A commit's tree. NotFound."""
        return Snapshot(self.objects, commit)

    def working_tree(self, branch: str) -> WorkingTree:
        """A branch's working tree. NotFound."""
        with self._index.read() as txn:
            self._refs.branch(txn, branch)
        with self._lock:
            tree = self._trees.get(branch)
            if tree is None:
                tree = self._trees[branch] = WorkingTree(self._parts, branch)
            return tree

    def merging(self, branch: str) -> Merging:
        """Merging into a branch, and the merge of it that is under way. NotFound."""
        return Merging(self._parts, self.working_tree(branch))

    def diff(self, old: Digest | None, new: Digest) -> Iterator[Difference]:
        """What differs between two commits (None: nothing), by path."""
        before = root_of(self.objects, old).root
        return differences(self.objects.node, before, self.commit_record(new).root.root)

    # History

    def commit_record(self, digest: Digest) -> Commit:
        """A commit's record. NotFound."""
        return self.objects.commit(digest)

    def commits(self) -> list[Digest]:
        """All commits stored here, newest first."""
        return self._history.commits()

    def log(self, start: Digest) -> Iterator[tuple[Digest, Commit]]:
        """A commit and its ancestors, each once, children before parents, newest first."""
        return history.walk(self.objects.commit, start)

    def resolve(self, revision: str) -> Digest:
        """The commit that a revision names. NotFound, Ambiguous.

        A branch or tag, HEAD, or at least four digits of a commit's name, then `@{date}`, `~n`, `^n`. A branch goes before
        a tag, a tag before digits.
        """
        return self._history.resolve(revision)

    def abbreviation(self, digest: Digest) -> str:
        """The shortest prefix of a commit's name that is its own, of at least 16 digits."""
        return self._history.abbreviation(digest)

    def operations(self, limit: int | None = None) -> list[Operation]:
        """The operation log, newest first."""
        return self._history.operations(limit)

    # Refs

    def branches(self) -> dict[str, Digest | None]:
        """Branches and their tips (None before the first commit), by name."""
        with self._index.read() as txn:
            return {name: ref.tip for name, ref in self._refs.branches(txn).items()}

    def root_ids(self) -> dict[str, int]:
        """The id of each branch's root."""
        with self._index.read() as txn:
            return {name: ref.root_id for name, ref in self._refs.branches(txn).items()}

    def tags(self) -> dict[str, Digest]:
        """Tags and their commits, by name."""
        with self._index.read() as txn:
            return {name: Digest(tag.digest) for name, tag in self._refs.tags(txn).items()}

    def tag(self, name: str) -> TagRef:
        """A tag with its message and time. NotFound."""
        with self._index.read() as txn:
            found = self._refs.tags(txn).get(name)
        if found is None:
            raise NotFound(f"there is no tag {name!r}")
        return found

    def head(self) -> str:
        """The default branch."""
        with self._index.read() as txn:
            return self._refs.head(txn)

    def set_head(self, branch: str) -> None:
        """Make `branch` the default one. NotFound."""
        with self._log.change(SegmentKind.LOG) as txn:
            self._refs.branch(txn, branch)
            old = self._refs.raw(txn, HEAD)
            self._change_refs(txn, f"head: {branch}", [(HEAD, old, branch.encode())])

    def create_branch(self, name: str, at: Digest | None = None) -> None:
        """A new branch at commit `at`, or at the default branch's tip. Exists, InvalidName, NotFound."""
        check_ref_name(name)
        if at is not None:
            self.commit_record(at)
        with self._log.change(SegmentKind.LOG) as txn:
            if self._refs.raw(txn, BRANCH + name):
                raise Exists(f"there is already a branch {name!r}")
            tip = at if at is not None else self._refs.branch(txn, self._refs.head(txn)).tip
            root_id = self._index.next_number(txn, b"directory")
            updates = [(BRANCH + name, b"", BranchRef(tip, root_id).encode())]
            self._change_refs(txn, f"branch: {name}", updates, [_new_root(name, root_id, tip, self.objects)])

    def rename_branch(self, old: str, new: str) -> None:
        """Give a branch another name; what is staged on it stays staged. NotFound, Exists, InvalidName, BranchInUse."""
        check_ref_name(new)
        if self.writer_held(old) is not None:
            raise BranchInUse(f"a writer checkout holds branch {old!r}")
        with self._log.change(SegmentKind.LOG) as txn:
            ref = self._refs.branch(txn, old)
            if self._refs.raw(txn, BRANCH + new):
                raise Exists(f"there is already a branch {new!r}")
            updates = [(BRANCH + old, ref.encode(), b""), (BRANCH + new, b"", ref.encode())]
            if self._refs.head(txn) == old:
                updates.append((HEAD, old.encode(), new.encode()))
            updates += self._merge_moved(txn, old, new)
            self._change_refs(txn, f"branch renamed: {old} to {new}", updates)
        with self._lock:
            self._trees.pop(old, None)

    def remove_branch(self, name: str, *, force: bool = False) -> None:
        """Remove a branch with what is staged on it. NotFound, NotMerged, BranchInUse (default, or a writer holds it)."""
        if self.writer_held(name) is not None:
            raise BranchInUse(f"a writer checkout holds branch {name!r}")
        if not force and self.working_tree(name).is_dirty():
            raise NotMerged(f"branch {name!r} has staged work that is not committed")
        with self._log.change(SegmentKind.LOG) as txn:
            ref = self._refs.branch(txn, name)
            if self._refs.head(txn) == name:
                raise BranchInUse(f"{name!r} is the default branch: make another one the default first")
            if not force and not self._is_merged(txn, name, ref.tip):
                raise NotMerged(f"branch {name!r} has commits that no other branch or tag holds")
            updates = [(BRANCH + name, ref.encode(), b""), *self._merge_moved(txn, name, "")]
            self._change_refs(txn, f"branch removed: {name}", updates, dropped=[(name, ref.root_id)])
        with self._lock:
            self._trees.pop(name, None)

    def _merge_moved(self, txn: Txn, old: str, new: str) -> list[tuple[str, bytes, bytes]]:
        """What becomes of a merge under way on a branch that is renamed, or removed (no new name)."""
        under_way = self._refs.raw(txn, MERGE + old)
        if not under_way:
            return []
        moved = [(MERGE + new, self._refs.raw(txn, MERGE + new), under_way)] if new else []
        return [(MERGE + old, under_way, b""), *moved]

    def _is_merged(self, txn: Txn, name: str, tip: Digest | None) -> bool:
        if tip is None:
            return True
        others = [ref.tip for other, ref in self._refs.branches(txn).items() if other != name]
        others += [Digest(tag.digest) for tag in self._refs.tags(txn).values()]
        return any(other and history.is_ancestor(self.objects.commit, tip, other) for other in others)

    def create_tag(self, name: str, at: Digest, message: str = "") -> None:
        """Name a commit for ever. Exists, InvalidName, NotFound."""
        check_ref_name(name)
        self.commit_record(at)
        value = encode_tag(TagRef(at, message, time.time_ns()))
        with self._log.change(SegmentKind.LOG) as txn:
            if self._refs.raw(txn, TAG + name):
                raise Exists(f"there is already a tag {name!r}")
            self._change_refs(txn, f"tag: {name}", [(TAG + name, b"", value)])

    def remove_tag(self, name: str) -> None:
        """Remove a tag. NotFound."""
        with self._log.change(SegmentKind.LOG) as txn:
            old = self._refs.raw(txn, TAG + name)
            if not old:
                raise NotFound(f"there is no tag {name!r}")
            self._change_refs(txn, f"tag removed: {name}", [(TAG + name, old, b"")])

    def _change_refs(
        self,
        txn: Txn,
        description: str,
        updates: list[tuple[str, bytes, bytes]],
        fences: list[Fence] | None = None,
        dropped: list[tuple[str, int]] | None = None,
    ) -> None:
        change_refs(
            self._index,
            self._log,
            txn,
            self._staging,
            author=self.author,
            description=description,
            updates=updates,
            fences=fences or (),
            dropped=dropped or (),
            origin=self._origin,
        )

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
        return now, found

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


def _new_root(branch: str, root_id: int, tip: Digest | None, objects: Objects) -> Fence:
    root = root_of(objects, tip) if tip else EMPTY_ROOT
    assert isinstance(root.value, bytes)
    return Fence(branch, root_id, 0, encode_head(root), root.value, [], [])
