"""Branches, tags and HEAD of an open repository, and every change of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from storage.disk.index import Txn
from storage.disk.segments import SegmentKind
from storage.errors import BranchInUse, Conflict, Exists, NotFound, NothingToUndo, NotMerged, StagedWork
from storage.model import history
from storage.model.digest import Digest
from storage.model.names import check_ref_name
from storage.model.records import Commit, Fence
from storage.stores.objects import Objects
from storage.stores.operations import Operations, Plan, Work, inverse, return_to
from storage.stores.refs import BRANCH, HEAD, MERGE, TAG, BranchRef, TagRef, change_refs, encode_tag, fence_of
from storage.stores.revisions import Operation, Revisions
from storage.stores.transaction import Folded, root_of
from storage.stores.writers import WriterLocks
from storage.working import Parts
from storage.worktree import WorkingTree


class References:
    """The names of a repository. Thread-safe."""

    def __init__(self, parts: Parts, writers: WriterLocks, revisions: Revisions) -> None:
        self._parts = parts
        self._writers = writers
        self._history = revisions
        p = parts
        self._performer = Operations(p.index, p.log, p.objects, p.refs, p.staging, p.committer, p.origin, p.author)

    def commit_record(self, digest: Digest) -> Commit:
        """A commit's record. NotFound."""
        return self._parts.objects.commit(digest)

    def branches(self) -> dict[str, Digest | None]:
        """Branches and their tips (None before the first commit), by name."""
        with self._parts.index.read() as txn:
            return {name: ref.tip for name, ref in self._parts.refs.branches(txn).items()}

    def root_ids(self) -> dict[str, int]:
        """The id of each branch's root."""
        with self._parts.index.read() as txn:
            return {name: ref.root_id for name, ref in self._parts.refs.branches(txn).items()}

    def tags(self) -> dict[str, Digest]:
        """Tags and their commits, by name."""
        with self._parts.index.read() as txn:
            return {name: Digest(tag.digest) for name, tag in self._parts.refs.tags(txn).items()}

    def tag(self, name: str) -> TagRef:
        """A tag with its message and time. NotFound."""
        with self._parts.index.read() as txn:
            found = self._parts.refs.tags(txn).get(name)
        if found is None:
            raise NotFound(f"there is no tag {name!r}")
        return found

    def head(self) -> str:
        """The default branch."""
        with self._parts.index.read() as txn:
            return self._parts.refs.head(txn)

    def set_head(self, branch: str) -> None:
        """Make `branch` the default one. NotFound."""
        with self._parts.log.change(SegmentKind.LOG) as txn:
            self._parts.refs.branch(txn, branch)
            old = self._parts.refs.raw(txn, HEAD)
            self.change_refs(txn, f"head: {branch}", [(HEAD, old, branch.encode())])

    def create_branch(self, name: str, at: Digest | None = None) -> None:
        """A new branch at commit `at`, or at the default branch's tip. Exists, InvalidName, NotFound."""
        check_ref_name(name)
        if at is not None:
            self.commit_record(at)
        with self._parts.log.change(SegmentKind.LOG) as txn:
            if self._parts.refs.raw(txn, BRANCH + name):
                raise Exists(f"there is already a branch {name!r}")
            tip = at if at is not None else self._parts.refs.branch(txn, self._parts.refs.head(txn)).tip
            root_id = self._parts.index.next_number(txn, b"directory")
            updates = [(BRANCH + name, b"", BranchRef(tip, root_id).encode())]
            self.change_refs(txn, f"branch: {name}", updates, [new_root(name, root_id, tip, self._parts.objects)])

    def rename_branch(self, old: str, new: str) -> None:
        """Give a branch another name; what is staged on it stays staged. NotFound, Exists, InvalidName, BranchInUse."""
        check_ref_name(new)
        if self._writers.held(old) is not None:
            raise BranchInUse(f"a writer checkout holds branch {old!r}")
        with self._parts.log.change(SegmentKind.LOG) as txn:
            ref = self._parts.refs.branch(txn, old)
            if self._parts.refs.raw(txn, BRANCH + new):
                raise Exists(f"there is already a branch {new!r}")
            updates = [(BRANCH + old, ref.encode(), b""), (BRANCH + new, b"", ref.encode())]
            if self._parts.refs.head(txn) == old:
                updates.append((HEAD, old.encode(), new.encode()))
            updates += self._merge_moved(txn, old, new)
            self.change_refs(txn, f"branch renamed: {old} to {new}", updates)

    def remove_branch(self, name: str, *, force: bool = False) -> None:
        """Remove a branch with what is staged on it. NotFound, NotMerged, BranchInUse (default, or a writer holds it)."""

        def planned(txn: Txn) -> Plan:
            """The removal, if the branch may go."""
            ref = self._parts.refs.branch(txn, name)
            if self._parts.refs.head(txn) == name:
                raise BranchInUse(f"{name!r} is the default branch: make another one the default first")
            if not force and not self._is_merged(txn, name, ref.tip):
                raise NotMerged(f"branch {name!r} has commits that no other branch or tag holds")
            return Plan(
                f"branch removed: {name}", [(BRANCH + name, ref.encode(), b""), *self._merge_moved(txn, name, "")]
            )

        def check(plan: Plan, folded: Mapping[str, Folded]) -> None:
            """Refuse it while somebody writes there, or for what is staged."""
            self._require_no_writer(plan, folded)
            if not force and WorkingTree(self._parts, name).is_dirty():
                raise NotMerged(f"branch {name!r} has staged work that is not committed")

        self._performer.perform(planned, check)

    def _merge_moved(self, txn: Txn, old: str, new: str) -> list[tuple[str, bytes, bytes]]:
        """What becomes of a merge under way on a branch that is renamed; removed or reset (no new name)."""
        refs = self._parts.refs
        under_way = refs.raw(txn, MERGE + old)
        if not under_way:
            return []
        moved = [(MERGE + new, refs.raw(txn, MERGE + new), under_way)] if new else []
        return [(MERGE + old, under_way, b""), *moved]

    def _require_no_writer(self, plan: Plan, folded: Mapping[str, Folded]) -> None:
        for name in plan.released:
            if self._writers.held(name) is not None:
                raise BranchInUse(f"a writer checkout holds branch {name!r}")

    def _is_merged(self, txn: Txn, name: str, tip: Digest | None) -> bool:
        if tip is None:
            return True
        others = [ref.tip for other, ref in self._parts.refs.branches(txn).items() if other != name]
        others += [Digest(tag.digest) for tag in self._parts.refs.tags(txn).values()]
        return any(other and history.is_ancestor(self._parts.objects.commit, tip, other) for other in others)

    def create_tag(self, name: str, at: Digest, message: str = "") -> None:
        """Name a commit for ever. Exists, InvalidName, NotFound."""
        check_ref_name(name)
        self.commit_record(at)
        value = encode_tag(TagRef(at, message, time.time_ns()))
        with self._parts.log.change(SegmentKind.LOG) as txn:
            if self._parts.refs.raw(txn, TAG + name):
                raise Exists(f"there is already a tag {name!r}")
            self.change_refs(txn, f"tag: {name}", [(TAG + name, b"", value)])

    def remove_tag(self, name: str) -> None:
        """Remove a tag. NotFound."""
        with self._parts.log.change(SegmentKind.LOG) as txn:
            old = self._parts.refs.raw(txn, TAG + name)
            if not old:
                raise NotFound(f"there is no tag {name!r}")
            self.change_refs(txn, f"tag removed: {name}", [(TAG + name, old, b"")])

    # Moving branches

    def reset(self, branch: str, to: Digest) -> None:
        """Move a branch to a commit, its working tree with it. StagedWork if anything is staged; NotFound, Conflict."""

        def check(plan: Plan, folded: Mapping[str, Folded]) -> None:
            """StagedWork if there is any."""
            if WorkingTree(self._parts, branch).is_dirty():
                raise StagedWork(
                    f"branch {branch!r} has staged work: commit it, or say whether it shall stay (soft) or go (hard)"
                )

        self._performer.perform(lambda txn: self._reset(txn, branch, to), check)

    def reset_hard(self, branch: str, to: Digest | None) -> None:
        """Move a branch to a commit, its working tree with it; what is staged goes, and comes back with `undo`.

        None is no commit at all: what the branch was before its first one. NotFound, Conflict.
        """
        self._performer.perform(lambda txn: self._reset(txn, branch, to), lambda plan, folded: None)

    def reset_soft(self, branch: str, to: Digest) -> None:
        """Move a branch to a commit; its working tree stays as it is, so that what differs is staged. NotFound, Conflict."""

        def planned(txn: Txn) -> Plan:
            """That of a reset, called soft."""
            plan = self._reset(txn, branch, to)
            return Plan("soft " + plan.description, plan.updates)

        self._performer.perform(planned, lambda plan, folded: None)

    def _reset(self, txn: Txn, branch: str, to: Digest | None) -> Plan:
        ref = self._parts.refs.branch(txn, branch)
        work = Work(branch, ref.root_id, root_of(self._parts.objects, to))
        update = (BRANCH + branch, ref.encode(), BranchRef(to, ref.root_id).encode())
        where = to.hex()[:16] if to else "no commit"
        return Plan(f"reset: {branch} to {where}", [update, *self._merge_moved(txn, branch, "")], [work])

    # Taking back

    def operations(self, limit: int | None = None) -> list[Operation]:
        """The operation log, newest first."""
        return self._history.operations(limit)

    def undo(self, number: int | None = None) -> Operation:
        """Take an operation back, the last one unless a number is given; which one it was.

        That is an operation, too: undo once more and it is done again. A commit's changes come back as staged work, a branch
        comes back at its tip with what was staged on it. Conflict where a ref has moved since, NothingToUndo, NotFound,
        BranchInUse, StagedWork.
        """
        operation = self.operations(1)[0] if number is None else self._history.operation(number)

        def planned(txn: Txn) -> Plan:
            """What takes the operation back."""
            plan = inverse(operation, lambda name: self._parts.refs.raw(txn, name))
            self._require_own_roots(txn, plan)
            return plan

        self._performer.perform(planned, self._require_no_writer)
        return operation

    def _require_own_roots(self, txn: Txn, plan: Plan) -> None:
        """Conflict where a branch that would come back has come back already, under another name."""
        there = {ref.root_id: name for name, ref in self._parts.refs.branches(txn).items()}
        for name, ref in plan.appearing:
            if ref.root_id in there:
                raise Conflict(BRANCH + name, "no such branch", f"branch {there[ref.root_id]!r}, which it became")

    def restore_operation(self, number: int) -> None:
        """Bring all branches, tags and HEAD back to where they were after that operation; working trees stay as they are.

        Branches that come back do so with what was staged on them. NotFound, Conflict, BranchInUse; NothingToUndo where nothing
        has moved since.
        """
        self._history.operation(number)

        def planned(txn: Txn) -> Plan:
            """What leads back there. NothingToUndo."""
            plan = return_to(number, self._history.each_operation(), self._parts.refs.all_raw(txn))
            if not plan.updates:
                raise NothingToUndo(f"all refs are where they were after operation {number}")
            return plan

        self._performer.perform(planned, self._require_no_writer)

    def change_refs(
        self,
        txn: Txn,
        description: str,
        updates: list[tuple[str, bytes, bytes]],
        fences: list[Fence] | None = None,
        dropped: list[tuple[str, int]] | None = None,
    ) -> None:
        """One operation on refs, inside `log.change(LOG)`; Conflict when a ref is not what `updates` expect."""
        change_refs(
            self._parts.index,
            self._parts.log,
            txn,
            self._parts.staging,
            author=self._parts.author,
            description=description,
            updates=updates,
            fences=fences or (),
            dropped=dropped or (),
            origin=self._parts.origin,
        )


def new_root(branch: str, root_id: int, tip: Digest | None, objects: Objects) -> Fence:
    """What makes a branch's root directory: nothing staged over its tip."""
    return fence_of(branch, root_id, 0, root_of(objects, tip))
