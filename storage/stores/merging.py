"""Merging into a branch: merge, revert and cherry-pick, all of them one three-way merge with other bases.

1. Under the commit lock, so that no commit comes between: the staging area must be clean.
2. The trees are merged; new nodes, and the commit record where there are no conflicts, are stored and synced.
3. One write transaction moves the branch's ref, or notes the merge as under way, and puts the staged root directory on the
   merged tree; if anything was staged meanwhile it refuses.

A crash between any two steps leaves the branch as it was before or as it is after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from msgspec.structs import replace

from storage.disk.index import Index, Txn, number_key
from storage.disk.segments import SegmentKind
from storage.errors import (
    MergeConflict,
    MergeUnderWay,
    NoMergeUnderWay,
    NotFound,
    StagedWork,
    StorageFailed,
    StorageFull,
    Unsupported,
)
from storage.model.digest import Digest
from storage.model.history import merge_bases
from storage.model.names import Path, path_text
from storage.model.records import Author, Commit, Entry, Fence, Kind, decode_entry, encode_head
from storage.stores.changes import MANY_NAMES
from storage.stores.log import Log
from storage.stores.merge_state import MergeState, open_conflicts, read_state
from storage.stores.objects import Objects
from storage.stores.refs import BRANCH, MERGE, BranchRef, Refs, change_refs
from storage.stores.staging import Staging, note_change
from storage.stores.transaction import Committer, root_of
from storage.tree.diff import diff
from storage.tree.merge import Conflict, merge
from storage.tree.node import Load

NOBODY = b""
"""The origin of changes that every process must look at, also the one that made them: they came from no file written."""
MANY_DIRECTORIES = 1000

Staged = Callable[[], Sequence[Path]]
"""The paths that are staged on a branch."""
Noted = tuple[str, list[bytes], list[bytes] | None]


class Outcome(StrEnum):
    """What became of a merge."""

    ALREADY = "already merged"
    FAST_FORWARD = "fast-forward"
    COMMITTED = "committed"
    UNDER_WAY = "conflicts"


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge did. `commit` is the branch's tip after it, `conflicts` what is to be resolved where it is under way."""

    outcome: Outcome
    commit: Digest | None
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is merged: the tree of `side` (None: the empty one), changed since `bases`, and the commit's second parent."""

    what: str
    theirs: str
    bases: tuple[Digest, ...]
    side: Digest | None
    parent: Digest | None
    message: str
    author: Author


@dataclass(frozen=True, slots=True)
class _Start:
    """The branch as it was found: its ref, the stored bytes of a merge under way, and the last sequence number by then."""

    branch: str
    ref: BranchRef
    stale: bytes
    upto: int


class Merger:
    """Merges into branches. Thread-safe."""

    def __init__(
        self,
        index: Index,
        log: Log,
        objects: Objects,
        refs: Refs,
        staging: Staging,
        committer: Committer,
        origin: bytes,
    ) -> None:
        self._index = index
        self._log = log
        self._objects = objects
        self._refs = refs
        self._staging = staging
        self._committer = committer
        self._origin = origin

    # Beginning

    def merge(
        self,
        branch: str,
        theirs: Digest,
        name: str,
        message: str,
        author: Author,
        staged: Staged,
        *,
        leave_open: bool = False,
    ) -> MergeResult:
        """Merge the commit `theirs`, which people call `name`, into `branch`; durable when it returns.

        Where the tip is an ancestor of it, the branch moves there and no commit is made. MergeConflict when both sides
        changed the same, and nothing has happened; with `leave_open` the merge is then under way, with everything else
        merged in the working tree. StagedWork, MergeUnderWay, Conflict.
        """
        self._objects.commit(theirs)
        with self._committer.turn():
            start = self._start(branch, staged)
            tip = start.ref.tip
            bases = merge_bases(self._objects.commit, tip, theirs) if tip else []
            if theirs in bases:
                return MergeResult(Outcome.ALREADY, tip)
            if tip is None or tip in bases:
                root = self._objects.commit(theirs).root
                self._move(start, BranchRef(theirs, start.ref.root_id), root, f"merge: {name}", author, staged)
                result = MergeResult(Outcome.FAST_FORWARD, theirs)
            else:
                plan = _Plan("merge", name, tuple(bases), theirs, theirs, message, author)
                result = self._combine(start, plan, staged, leave_open=leave_open)
        self._tidy()
        return result

    def revert(
        self,
        branch: str,
        commit: Digest,
        name: str,
        message: str,
        author: Author,
        staged: Staged,
        *,
        parent: int | None = None,
        leave_open: bool = False,
    ) -> MergeResult:
        """Take back on `branch` what `commit` changed, as a new commit. Of a merge, against its parent number `parent`.

        Conflicts and errors as of merge; Unsupported for a merge without `parent`, NotFound where it has no such parent.
        """
        before = self._parent(commit, parent)
        return self._transplant(
            _Plan("revert", name, (commit,), before, None, message, author), branch, staged, leave_open=leave_open
        )

    def cherry_pick(
        self,
        branch: str,
        commit: Digest,
        name: str,
        message: str,
        author: Author,
        staged: Staged,
        *,
        parent: int | None = None,
        leave_open: bool = False,
    ) -> MergeResult:
        """Make on `branch` the changes that `commit` made, as a new commit. As revert in everything else."""
        before = self._parent(commit, parent)
        bases = (before,) if before else ()
        return self._transplant(
            _Plan("cherry-pick", name, bases, commit, None, message, author), branch, staged, leave_open=leave_open
        )

    def _transplant(self, plan: _Plan, branch: str, staged: Staged, *, leave_open: bool) -> MergeResult:
        with self._committer.turn():
            result = self._combine(self._start(branch, staged), plan, staged, leave_open=leave_open)
        self._tidy()
        return result

    def _parent(self, commit: Digest, number: int | None) -> Digest | None:
        parents = self._objects.commit(commit).parents
        if number is None and len(parents) > 1:
            raise Unsupported(
                f"commit {commit.hex()[:16]} is a merge: say against which of its parents, 1 is its own past"
            )
        if number is not None and not 1 <= number <= len(parents):
            raise NotFound(f"commit {commit.hex()[:16]} has no parent {number}")
        return parents[(number or 1) - 1] if parents else None

    def _start(self, branch: str, staged: Staged) -> _Start:
        with self._index.read() as txn:
            ref = self._refs.branch(txn, branch)
            state = read_state(self._refs, self._staging, txn, branch, ref)
            start = _Start(branch, ref, self._refs.raw(txn, MERGE + branch), self._index.number(txn, b"sequence"))
        if state is not None:
            raise MergeUnderWay(
                f"the {state.what} of {state.theirs} on branch {branch!r} is not finished: "
                "resolve its conflicts and commit, or abort it"
            )
        _require_clean(branch, staged)
        return start

    # Carrying out

    def _combine(self, start: _Start, plan: _Plan, staged: Staged, *, leave_open: bool) -> MergeResult:
        load, ours = self._objects.node, root_of(self._objects, start.ref.tip)
        theirs = root_of(self._objects, plan.side)
        merged = merge(load, [self._objects.commit(base).root for base in plan.bases], ours, theirs)
        if merged.conflicts and not leave_open:
            named = ", ".join(map(str, merged.conflicts[:5]))
            more = f" and {len(merged.conflicts) - 5} more" if len(merged.conflicts) > 5 else ""
            raise MergeConflict(f"{plan.what.capitalize()} ABORTED with conflict: {named}{more}", merged.conflicts)
        if plan.parent is None and not merged.conflicts and merged.root == ours:
            return MergeResult(Outcome.ALREADY, start.ref.tip)
        self._objects.put_nodes(merged.fresh)
        if merged.conflicts:
            self._log.sync()
            self._open(start, plan, merged.root, merged.conflicts, staged)
            return MergeResult(Outcome.UNDER_WAY, start.ref.tip, tuple(merged.conflicts))
        parents = tuple(parent for parent in (start.ref.tip, plan.parent) if parent is not None)
        commit = Commit(merged.root, parents, plan.author, time.time_ns(), plan.message)
        digest = self._objects.put_commit(commit)
        self._log.sync()
        ref = BranchRef(digest, start.ref.root_id)
        made = digest, commit.time
        self._move(start, ref, merged.root, f"{plan.what}: {plan.theirs}", plan.author, staged, made)
        return MergeResult(Outcome.COMMITTED, digest)

    def _open(self, start: _Start, plan: _Plan, root: Entry, conflicts: Sequence[Conflict], staged: Staged) -> None:
        state = MergeState(
            plan.what,
            plan.theirs,
            start.ref.tip or b"",
            list(plan.bases),
            plan.side or b"",
            plan.parent or b"",
            root.root,
            plan.message,
            time.time_ns(),
            [(list(conflict.path), conflict.word) for conflict in conflicts],
        )
        updates = [(MERGE + start.branch, start.stale, state.encode())]
        self._change(start, updates, root, f"{plan.what} begun: {plan.theirs}", plan.author, staged)

    def _move(
        self,
        start: _Start,
        ref: BranchRef,
        root: Entry,
        description: str,
        author: Author,
        staged: Staged,
        made: tuple[Digest, int] | None = None,
    ) -> None:
        updates = [(BRANCH + start.branch, start.ref.encode(), ref.encode())]
        if start.stale:
            updates.append((MERGE + start.branch, start.stale, b""))
        self._change(start, updates, root, description, author, staged, made)

    def _change(
        self,
        start: _Start,
        updates: list[tuple[str, bytes, bytes]],
        root: Entry,
        description: str,
        author: Author,
        staged: Staged,
        made: tuple[Digest, int] | None = None,
    ) -> None:
        """Change refs, enter the commit `made` at that time, and put the branch's working tree on `root`.

        StagedWork where something was staged since the start.
        """
        before = root_of(self._objects, start.ref.tip).root
        noted = _noted(start.branch, changed_names(self._objects.node, before, root.root))
        with self._log.change(SegmentKind.LOG) as txn:
            late = self._has_late(txn, start.ref.root_id, start.upto)
            if not late:
                if made is not None:
                    txn.put(made[0], number_key(made[1]), db=self._index.commits)
                self._write(txn, start.branch, start.ref.root_id, start.upto, updates, root, description, author)
                note_change(self._index, txn, NOBODY, noted)
        if late:
            _require_clean(start.branch, staged)
            raise StagedWork(start.branch, [])

    def _write(
        self,
        txn: Txn,
        branch: str,
        root_id: int,
        upto: int,
        updates: list[tuple[str, bytes, bytes]],
        root: Entry,
        description: str,
        author: Author,
    ) -> None:
        assert isinstance(root.value, bytes)
        change_refs(
            self._index,
            self._log,
            txn,
            self._staging,
            author=author,
            description=description,
            updates=updates,
            fences=[Fence(branch, root_id, upto, encode_head(root), root.value, [], [])],
            origin=self._origin,
        )

    def _has_late(self, txn: Txn, directory: int, upto: int) -> bool:
        return any(
            row.sequence > upto or self._has_late(txn, row.staged_id, upto)
            for _, row in self._staging.late_or_staged(txn, directory, upto)
        )

    def _tidy(self) -> None:
        with suppress(StorageFailed, StorageFull):  # the merge is safe; a journal that stays costs space only
            self._committer.remove_settled_journals()

    # A merge under way

    def conflicts(self, branch: str) -> list[tuple[Path, str]]:
        """The open conflicts of the merge under way, path and word; none where no merge is."""
        with self._index.read() as txn:
            ref = self._refs.branch(txn, branch)
            state = read_state(self._refs, self._staging, txn, branch, ref)
            return [] if state is None else open_conflicts(self._objects, self._staging, txn, ref, state)

    def settle(self, branch: str, paths: Iterable[Path], author: Author) -> None:
        """Note that the conflicts at these paths are resolved by what stands there now. NoMergeUnderWay, NotFound."""
        with self._log.change(SegmentKind.LOG) as txn:
            state, _ = self._under_way(txn, branch)
            numbers = set(state.settled)
            for path in paths:
                number = state.number(path)
                if number is None:
                    raise NotFound(f"there is no conflict at {path_text(path) or '.'}")
                numbers.add(number)
            kept = replace(state, settled=sorted(numbers))
            change_refs(
                self._index,
                self._log,
                txn,
                self._staging,
                author=author,
                description=f"resolved: {', '.join(path_text(path) or '.' for path in paths)}",
                updates=[(MERGE + branch, state.encode(), kept.encode())],
                origin=self._origin,
            )

    def abort(self, branch: str, author: Author) -> None:
        """Give the merge under way up: the working tree is the tip again, without anything staged. NoMergeUnderWay."""
        with self._committer.turn(), self._log.change(SegmentKind.LOG) as txn:
            state, ref = self._under_way(txn, branch)
            updates = [(MERGE + branch, state.encode(), b"")]
            root, upto = root_of(self._objects, ref.tip), self._index.number(txn, b"sequence")
            self._write(txn, branch, ref.root_id, upto, updates, root, f"{state.what} aborted", author)
            note_change(self._index, txn, NOBODY, [(branch, [], None)])
        self._tidy()

    def _under_way(self, txn: Txn, branch: str) -> tuple[MergeState, BranchRef]:
        ref = self._refs.branch(txn, branch)
        state = read_state(self._refs, self._staging, txn, branch, ref)
        if state is None:
            raise NoMergeUnderWay(f"no merge of branch {branch!r} is under way")
        return state, ref


def _require_clean(branch: str, staged: Staged) -> None:
    found = staged()
    if found:
        raise StagedWork(branch, [path_text(path) for path in found])


def changed_names(load: Load, old: Digest, new: Digest, path: Path = ()) -> Iterator[tuple[Path, list[bytes]]]:
    """The names that differ between two trees, directory by directory."""
    names, below = [], []
    for name, one, other in diff(load, old, new):
        names.append(name)
        if one is not None and other is not None and one[0][0] == other[0][0] == Kind.DIRECTORY:
            below.append((name, decode_entry(*one).root, decode_entry(*other).root))
    if names:
        yield path, names
    for name, before, after in below:
        yield from changed_names(load, before, after, (*path, name))


def _noted(branch: str, changes: Iterable[tuple[Path, list[bytes]]]) -> list[Noted]:
    """What other processes are told; where it is much, that anything may have changed."""
    noted: list[Noted] = []
    for path, names in changes:
        if len(noted) == MANY_DIRECTORIES:
            return [(branch, [], None)]
        noted.append((branch, list(path), names if len(names) <= MANY_NAMES else None))
    # The root directory's own attributes may have changed as well.
    return noted or [(branch, [], [])]
