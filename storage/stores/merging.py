"""Merging into a branch: merge, revert and cherry-pick, all of them one three-way merge with other bases.

1. Under the commit lock, so that no commit comes between: the staging area must be clean.
2. The trees are merged; new nodes, and the commit record where there are no conflicts, are stored and synced.
3. One write transaction moves the branch's ref, or notes the merge as under way, and puts the staged root directory on the
   merged tree; if anything was staged meanwhile it refuses.

A crash between any two steps leaves the branch as it was before or as it is after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from msgspec.structs import replace

from storage.disk.index import Index, Txn, number_key
from storage.disk.segments import SegmentKind
from storage.errors import (
    Conflict as RefConflict,
)
from storage.errors import (
    MergeConflict,
    NotFound,
    StagedWork,
    StorageFailed,
    StorageFull,
    Unsupported,
)
from storage.model.digest import Digest
from storage.model.history import merge_bases
from storage.model.names import Path, path_text
from storage.model.records import Author, Commit, Entry
from storage.stores.joining import Joining
from storage.stores.log import Log
from storage.stores.merge_record import MergeState
from storage.stores.merge_state import folded_state, open_conflicts, read_state, require_merge, require_no_merge
from storage.stores.moving import Mover, Names, Update, by_directory, changed_names
from storage.stores.objects import Objects
from storage.stores.refs import BRANCH, MERGE, BranchRef, Refs, fence_of, require_commits
from storage.stores.staging import Staging
from storage.stores.transaction import ATTEMPTS, Committer, Folded, root_of
from storage.tree.merge import Conflict, Merged, merge


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
class Request:
    """Who merges into which branch. `theirs` is what people call what is merged; `staged` gives the staged paths.

    With `leave_open`, conflicts leave the merge under way instead of refusing it; with `keeps_author`, the commit that
    ends it is `author`'s, whoever makes it.
    """

    branch: str
    theirs: str
    message: str
    author: Author
    staged: Callable[[], Sequence[Path]]
    leave_open: bool = False
    keeps_author: bool = False

    def require_clean(self) -> None:
        """StagedWork, which names it, while anything is staged."""
        found = self.staged()
        if found:
            raise staged_work(self.branch, found)


def staged_work(branch: str, paths: Sequence[Path]) -> StagedWork:
    """The error that names what is staged."""
    texts = [path_text(path) for path in paths]
    named = ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
    return StagedWork(f"branch {branch!r} has staged work that is not committed: {named or 'made just now'}", texts)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is merged: the tree of `side` (None: the empty one), changed since `bases`, and the commit's second parent."""

    what: str
    bases: tuple[Digest, ...]
    side: Digest | None
    parent: Digest | None = None


@dataclass(frozen=True, slots=True)
class _Start:
    """The branch as it was found: its ref, the bytes of a merge that no longer holds, the last sequence number by then, and the
    head of its staged root.
    """

    ref: BranchRef
    stale: bytes
    upto: int
    head: bytes

    def moved(self, branch: str, commit: Digest) -> list[Update]:
        """What moves the branch to a commit."""
        moved = BranchRef(commit, self.ref.root_id).encode()
        ended = [(MERGE + branch, self.stale, b"")] if self.stale else []
        return [(BRANCH + branch, self.ref.encode(), moved), *ended]


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
        self._mover = Mover(index, log, staging, origin)

    # Beginning

    def merge(self, request: Request, theirs: Digest) -> MergeResult:
        """Merge the commit `theirs` into the branch; durable when it returns.

        Where the tip is an ancestor of it, the branch moves there and no commit is made. MergeConflict when both sides
        changed the same, and nothing has happened; or the merge is under way then, with everything else merged in the
        working tree. StagedWork, MergeUnderWay, Conflict.
        """
        after = self._objects.commit(theirs).root
        with self._committer.turn():
            start = self._start(request)
            tip = start.ref.tip
            bases = merge_bases(self._objects.commit, tip, theirs) if tip else []
            if theirs in bases:
                return MergeResult(Outcome.ALREADY, tip)
            if tip is None or tip in bases:
                updates = start.moved(request.branch, theirs)
                self._publish(request, start, f"merge: {request.theirs}", updates, after)
                result = MergeResult(Outcome.FAST_FORWARD, theirs)
            else:
                result = self._combine(request, start, _Plan("merge", tuple(bases), theirs, theirs))
        self._tidy()
        return result

    def revert(self, request: Request, commit: Digest, parent: int | None = None) -> MergeResult:
        """Take back what `commit` changed, as a new commit. Of a merge, against its parent number `parent`.

        Conflicts and errors as of merge; Unsupported for a merge without `parent`, NotFound where it has no such parent.
        """
        return self._transplant(request, _Plan("revert", (commit,), self._parent(commit, parent)))

    def cherry_pick(self, request: Request, commit: Digest, parent: int | None = None) -> MergeResult:
        """Make the changes that `commit` made, as a new commit. As revert in everything else."""
        before = self._parent(commit, parent)
        return self._transplant(request, _Plan("cherry-pick", (before,) if before else (), commit))

    def _transplant(self, request: Request, plan: _Plan) -> MergeResult:
        with self._committer.turn():
            result = self._combine(request, self._start(request), plan)
        self._tidy()
        return result

    def _parent(self, commit: Digest, number: int | None) -> Digest | None:
        parents, shown = self._objects.commit(commit).parents, commit.hex()[:16]
        if number is None and len(parents) > 1:
            raise Unsupported(f"commit {shown} is a merge: say against which of its parents, 1 is its own past")
        if number is not None and not 1 <= number <= len(parents):
            raise NotFound(f"commit {shown} has no parent {number}")
        return parents[(number or 1) - 1] if parents else None

    def _start(self, request: Request) -> _Start:
        branch = request.branch
        with self._index.read() as txn:
            ref = self._refs.branch(txn, branch)
            state = read_state(self._refs, self._staging, txn, branch, ref)
            stale, upto = self._refs.raw(txn, MERGE + branch), self._index.number(txn, b"sequence")
            start = _Start(ref, stale, upto, self._root_head(txn, ref))
        require_no_merge(state, branch)
        request.require_clean()
        return start

    def _root_head(self, txn: Txn, ref: BranchRef) -> bytes:
        known = self._staging.directory(txn, ref.root_id)
        return known.head if known is not None else b""

    # Carrying out

    def _combine(self, request: Request, start: _Start, plan: _Plan) -> MergeResult:
        objects, tip = self._objects, start.ref.tip
        with self._index.read() as txn:
            # In turn with gc: what is listed here stays until this is done.
            require_commits(self._index, txn, {d for d in (*plan.bases, plan.side, plan.parent) if d is not None})
        ours, bases = root_of(objects, tip), [objects.commit(base).root for base in plan.bases]
        joining = Joining(objects)
        merged = merge(objects.node, bases, ours, root_of(objects, plan.side), joining.together)
        if merged.conflicts and not request.leave_open:
            named = ", ".join(map(str, merged.conflicts[:5]))
            more = f" and {len(merged.conflicts) - 5} more" if len(merged.conflicts) > 5 else ""
            raise MergeConflict(
                f"{plan.what.capitalize()} ABORTED with conflict: {named}{more}. Nothing was changed.", merged.conflicts
            )
        if plan.parent is None and not merged.conflicts and merged.root == ours:
            return MergeResult(Outcome.ALREADY, tip)
        objects.put_chunks(joining.chunks)
        objects.put_nodes(merged.fresh)
        if merged.conflicts:
            self._open(request, start, plan, merged)
            return MergeResult(Outcome.UNDER_WAY, tip, tuple(merged.conflicts))
        return MergeResult(Outcome.COMMITTED, self._commit(request, start, plan, merged))

    def _open(self, request: Request, start: _Start, plan: _Plan, merged: Merged) -> None:
        state = MergeState(
            plan.what,
            request.theirs,
            start.ref.tip or b"",
            list(plan.bases),
            plan.side or b"",
            plan.parent or b"",
            merged.root.root,
            request.message,
            time.time_ns(),
            [(list(conflict.path), conflict.word) for conflict in merged.conflicts],
            author=(request.author.name, request.author.email) if request.keeps_author else None,
        )
        # The branch does not move, but whoever takes this back finds its working tree by it.
        ref = start.ref.encode()
        updates = [(BRANCH + request.branch, ref, ref), (MERGE + request.branch, start.stale, state.encode())]
        description = f"{plan.what} begun: {request.theirs}"
        self._log.sync()
        self._publish(request, start, description, updates, merged.root)

    def _commit(self, request: Request, start: _Start, plan: _Plan, merged: Merged) -> Digest:
        parents = tuple(parent for parent in (start.ref.tip, plan.parent) if parent is not None)
        commit = Commit(merged.root, parents, request.author, time.time_ns(), request.message)
        digest = self._objects.put_commit(commit)
        updates = start.moved(request.branch, digest)
        description = f"{plan.what}: {request.theirs}"
        self._log.sync()
        made = digest, commit.time
        self._publish(request, start, description, updates, merged.root, made)
        return digest

    def _publish(
        self,
        request: Request,
        start: _Start,
        description: str,
        updates: list[Update],
        root: Entry,
        made: tuple[Digest, int] | None = None,
    ) -> None:
        """Change refs, enter the commit `made` at that time, and put the branch's working tree on `root`.

        StagedWork where something was staged since the start.
        """
        before = root_of(self._objects, start.ref.tip)
        changed = list(changed_names(self._objects.node, before.root, root.root))
        with self._log.change(SegmentKind.LOG) as txn:
            late = self._mover.has_late(txn, start.ref.root_id, start.upto)
            late = late or self._root_head(txn, start.ref) != start.head
            if not late:
                if made is not None:
                    txn.put(made[0], number_key(made[1]), db=self._index.commits)
                fence = fence_of(request.branch, start.ref.root_id, start.upto, root)
                self._mover.change(txn, description, request.author, updates, fence, before)
                self._mover.note(txn, request.branch, changed)
        if late:
            request.require_clean()
            raise staged_work(request.branch, [])

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

    def settle(self, branch: str, path: Path, author: Author) -> None:
        """Note that the conflict at `path` is resolved by what stands there now. NoMergeUnderWay, NotFound."""
        with self._log.change(SegmentKind.LOG) as txn:
            state, _ = self._under_way(txn, branch)
            number = state.number(path)
            if number is None:
                raise NotFound(f"there is no conflict at {path_text(path)}")
            kept = replace(state, settled=sorted({*state.settled, number}))
            updates = [(MERGE + branch, state.encode(), kept.encode())]
            self._mover.change(txn, f"resolved: {path_text(path)}", author, updates, None)

    def abort(self, branch: str, author: Author, staged: Callable[[], Sequence[Path]]) -> None:
        """Give the merge under way up: the working tree is the tip again, without anything staged. NoMergeUnderWay."""
        with self._committer.turn():
            for _ in range(ATTEMPTS):
                with self._index.read() as txn:
                    state, ref = self._under_way(txn, branch)
                    folded = self._committer.fold(txn, ref)
                    left = folded_state(self._objects, self._staging, txn, ref, state, folded.root)
                self._objects.put_nodes(folded.fresh)
                self._log.sync()
                changed = list(by_directory(staged()))
                if self._aborted(branch, author, ref, folded, (state, left), changed):
                    break
            else:
                raise RefConflict(BRANCH + branch, "the work that was staged", "more of it")
        self._tidy()

    def _aborted(
        self,
        branch: str,
        author: Author,
        ref: BranchRef,
        folded: Folded,
        states: tuple[MergeState, MergeState],
        changed: Sequence[Names],
    ) -> bool:
        """Put the branch back on its tip; False where more was staged than was folded: it would be lost. Conflict."""
        state, left = states
        fence = fence_of(branch, ref.root_id, folded.upto, root_of(self._objects, ref.tip))
        # The branch does not move, but whoever takes this back finds its working tree by it.
        updates = [(BRANCH + branch, ref.encode(), ref.encode()), (MERGE + branch, state.encode(), b"")]
        with self._log.change(SegmentKind.LOG) as txn:
            if self._committer.has_later(txn, ref.root_id, folded):
                return False
            description = f"{state.what} aborted: {state.theirs}"
            kept = {MERGE + branch: left.encode()}
            self._mover.change(txn, description, author, updates, fence, folded.root, kept)
            self._mover.note(txn, branch, changed)
        return True

    def _under_way(self, txn: Txn, branch: str) -> tuple[MergeState, BranchRef]:
        ref = self._refs.branch(txn, branch)
        return require_merge(read_state(self._refs, self._staging, txn, branch, ref), branch), ref
