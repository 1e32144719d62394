"""Merging into one branch, and settling what a merge could not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from storage.errors import NotADirectory, NotFound, Unsupported
from storage.model.digest import Digest
from storage.model.names import Path, path_text
from storage.model.records import Author, Entry
from storage.snapshot import Snapshot
from storage.stores.merge_record import MergeState
from storage.stores.merge_state import require_merge
from storage.stores.merging import MergeResult, Outcome, Request
from storage.tree.merge import CONFLICTS, AttributesChanged, Conflict
from storage.working import Parts
from storage.worktree import WorkingTree

__all__ = ["CHOICES", "Choice", "Conflict", "MergeResult", "MergeState", "Merging", "Outcome"]

Choice = Literal["ours", "theirs", "delete"]
CHOICES: tuple[Choice, ...] = ("ours", "theirs", "delete")


class Merging:
    """Merges into a branch, reverts and cherry-picks on it. Thread-safe.

    Each of the three needs a clean staging area (StagedWork), raises MergeUnderWay while another one is not finished,
    and Conflict where the branch moved meanwhile. Where both sides changed the same it raises MergeConflict and changes
    nothing; with `leave_open` the merge is under way then: what could be merged is staged, the conflicting paths keep
    what the branch has, and committing makes the merge's commit as soon as all conflicts are resolved.
    """

    def __init__(self, parts: Parts, tree: WorkingTree) -> None:
        self._p = parts
        self._tree = tree
        self.branch = tree.branch

    def merge(
        self,
        theirs: Digest,
        message: str = "",
        *,
        name: str = "",
        author: Author | None = None,
        leave_open: bool = False,
    ) -> MergeResult:
        """Merge the commit `theirs`, called `name` in texts. A branch that is behind it moves there without a commit."""
        name = name or theirs.hex()[:16]
        return self._p.merger.merge(self._request(name, message or f"merge {name}", author, leave_open), theirs)

    def revert(
        self,
        commit: Digest,
        message: str = "",
        *,
        parent: int | None = None,
        author: Author | None = None,
        leave_open: bool = False,
    ) -> MergeResult:
        """Take back what a commit changed, as a new commit. Of a merge, against its parent number `parent`, from 1."""
        first = (self._p.objects.commit(commit).message.splitlines() or [""])[0]
        message = message or f"revert: {first}\n\nThis takes back commit {commit.hex()}."
        return self._p.merger.revert(self._request(commit.hex()[:16], message, author, leave_open), commit, parent)

    def cherry_pick(
        self,
        commit: Digest,
        message: str = "",
        *,
        parent: int | None = None,
        author: Author | None = None,
        leave_open: bool = False,
    ) -> MergeResult:
        """Make the changes of another commit here, as a new commit with its message and author unless others are given."""
        record = self._p.objects.commit(commit)
        request = self._request(commit.hex()[:16], message or record.message, author or record.author, leave_open)
        return self._p.merger.cherry_pick(replace(request, keeps_author=True), commit, parent)

    def _request(self, theirs: str, message: str, author: Author | None, leave_open: bool) -> Request:
        return Request(self.branch, theirs, message, author or self._p.author, self._staged, leave_open)

    def _staged(self) -> Sequence[Path]:
        return [row.path for row in self._tree.status()]

    # A merge under way

    def under_way(self) -> MergeState | None:
        """The merge that is not finished, None where there is none."""
        return self._tree.merging()

    def open(self) -> list[tuple[Path, str]]:
        """The paths of the conflicts that are still open, each with the word for what happened; none without a merge."""
        return self._p.merger.conflicts(self.branch)

    def conflicts(self) -> list[Conflict]:
        """The conflicts that are still open, by path; none where no merge is under way."""
        state = self._tree.merging()
        if state is None:
            return []
        return [self._conflict(state, path, word) for path, word in self.open()]

    def _conflict(self, state: MergeState, path: Path, word: str) -> Conflict:
        sides = [self.side(state, side, path) for side in ("base", "ours", "theirs")]
        base, ours, theirs = (found[1] if found is not None else None for found in sides)
        return CONFLICTS[word](path, base, ours, theirs)

    def side(self, state: MergeState, side: str, path: Path) -> tuple[Snapshot, Entry] | None:
        """What stands at `path` on one side (base, ours or theirs), with the snapshot that it is in; None: nothing."""
        commits = {"base": state.bases, "ours": [state.ours], "theirs": [state.side]}[side]
        for commit in filter(None, commits):
            snapshot = Snapshot(self._p.objects, Digest(commit))
            try:
                return snapshot, snapshot.entry(path)
            except (NotFound, NotADirectory):
                continue
        return None

    def resolve(self, path: Path, choice: Choice) -> None:
        """Settle the conflict at `path`, also one that was settled before: stage what one side has there, or nothing.

        NoMergeUnderWay, NotFound where there is no such conflict.
        """
        state = require_merge(self._tree.merging(), self.branch)
        if choice not in CHOICES:
            raise Unsupported(f"{choice!r} is no way to resolve a conflict: choose ours, theirs or delete")
        number = state.number(path)
        if number is None:
            raise NotFound(f"there is no conflict at {path_text(path)}")
        found = None if choice == "delete" else self.side(state, choice, path)
        if found is not None and state.conflicts[number][1] == AttributesChanged.word:
            # All else is merged already.
            self._tree.put_attributes(path, found[1].attributes)
        else:
            self._tree.put_entry(path, found[1] if found is not None else None)
        # What can be seen from what is staged need not be said: it also stays true when that is undone.
        if path in [unsettled for unsettled, _ in self.open()]:
            self._p.merger.settle(self.branch, path, self._p.author)

    def abort(self) -> None:
        """Give the merge that is under way up: the working tree is the tip again, nothing is staged. NoMergeUnderWay."""
        self._p.merger.abort(self.branch, self._p.author, self._staged)
