"""Commits: staged rows become a new tree, at the cost of what changed.

1. One read transaction gives the staged rows and the fence: the last sequence number acknowledged by then.
2. The rows are folded, deepest directory first, into new tree nodes; nodes and the commit record are stored and synced.
3. One write transaction moves the branch, if its tip is still the one folded onto, and settles the rows up to the fence.
   Rows staged meanwhile have higher numbers: they stay staged, over the new tip.
4. Journals that hold nothing unsettled are deleted.

A crash between any two steps leaves the branch as it was before or as it is after; nodes nobody refers to are left for gc.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from storage.disk import files
from storage.disk.appending import Segment
from storage.disk.index import Index, Txn, number_key
from storage.disk.locks import alone
from storage.disk.segments import SegmentKind, Segments
from storage.errors import Conflict, Corrupt, NotFound, NothingToCommit, StorageFailed, StorageFull
from storage.model.chunking import INLINE_MAX, ChunkRef, encode_chunks
from storage.model.deltas import DELTA_MIN
from storage.model.digest import Digest, blake
from storage.model.records import (
    CHUNKED,
    Author,
    Commit,
    Entry,
    Fence,
    Kind,
    decode_entry,
    directory_entry,
    encode_head,
)
from storage.stores.contents import chunks_of
from storage.stores.log import Log
from storage.stores.merge_record import MergeState
from storage.stores.merge_state import folded_state, read_state, require_no_merge, require_resolved
from storage.stores.objects import Objects
from storage.stores.refs import BRANCH, MERGE, BranchRef, Refs, change_refs
from storage.stores.staging import Row, StagedDirectory, Staging, settled_rows
from storage.stores.tails import end_of
from storage.tree import read
from storage.tree.edit import edit
from storage.tree.node import EMPTY

ATTEMPTS = 10
EMPTY_ROOT = directory_entry(EMPTY, 0, 0, 0)

_CONTENTS = (Kind.FILE, Kind.SAMPLE)
_Edits = list[tuple[bytes, tuple[bytes, bytes] | None]]


@dataclass(slots=True)
class Folded:
    """What folding gave: the root's entry in the tip and the new one, nodes to store, and the new base of every staged
    directory met.
    """

    before: Entry
    root: Entry
    upto: int
    fresh: list[tuple[Digest, bytes]] = field(default_factory=list)
    bases: dict[int, Digest] = field(default_factory=dict)
    head: bytes = b""
    """Of the staged root, as it was folded."""

    @property
    def is_clean(self) -> bool:
        """Whether the tip has the same tree."""
        return self.root.value == self.before.value and self.root.attributes == self.before.attributes


class Committer:
    """Turns a branch's staged rows into commits. Thread-safe."""

    def __init__(
        self,
        index: Index,
        segments: Segments,
        log: Log,
        objects: Objects,
        refs: Refs,
        staging: Staging,
        origin: bytes,
        author: Author,
    ) -> None:
        self._index = index
        self._segments = segments
        self._log = log
        self._objects = objects
        self._refs = refs
        self._staging = staging
        self._origin = origin
        self._author = author

    def commit(self, branch: str, message: str, author: Author | None, metadata: dict[str, str]) -> Digest:
        """Commit everything staged on `branch` when this is called; durable when it returns.

        Without a message or an author, those of a merge under way are taken, and else whoever has the repository open is the
        author. NothingToCommit when nothing differs from the tip; Conflict when the branch keeps moving.
        """
        return self._until_it_fits(lambda: self._attempt(branch, message, author, metadata))

    def amend(self, branch: str, message: str | None, author: Author, metadata: dict[str, str] | None) -> Digest:
        """Put a commit of everything staged in the tip's place: with the tip's parents, and its message and metadata unless
        given; durable when it returns.

        NothingToCommit when nothing would differ, or before the first commit; Conflict when the branch keeps moving.
        """
        return self._until_it_fits(lambda: self._attempt_to_amend(branch, message, author, metadata))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Commits, whatever else replaces a branch's staged work, and gc when it deletes take turns among all processes.

        Each one's sync would otherwise let another win the race for the branch, again and again. And what a commit finds
        stored stays until a ref leads to it.
        """
        with alone(self._segments.folder.parent / "commit.lock"):
            yield

    def _until_it_fits(self, attempted: Callable[[], Digest]) -> Digest:
        for attempt in range(ATTEMPTS):
            try:
                with self.turn():
                    digest = attempted()
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            except Corrupt:
                # A commit elsewhere may have deleted a journal under our feet; real damage is still there the next time.
                if attempt >= 2:
                    raise
                continue
            with suppress(StorageFailed, StorageFull):  # the commit is safe; a journal that stays costs space only
                self.remove_settled_journals()
            return digest
        raise AssertionError("unreachable")

    def _attempt(self, branch: str, message: str, author: Author | None, metadata: dict[str, str]) -> Digest:
        with self._index.read() as txn:
            ref = self._refs.branch(txn, branch)
            merging = read_state(self._refs, self._staging, txn, branch, ref)
            if merging is not None:
                require_resolved(self._objects, self._staging, txn, ref, merging)
            folded = self.fold(txn, ref)
        if folded.is_clean and merging is None:
            raise NothingToCommit("No changes made in staging area. Cannot commit.")
        parents: tuple[Digest, ...] = (ref.tip,) if ref.tip else ()
        if merging is not None:
            parents, message, author = merging.parents, message or merging.message, author or merging.written_by
        commit = Commit(folded.root, parents, author or self._author, time.time_ns(), message, metadata)
        return self._move(branch, ref, folded, commit, "commit: ", merging)

    def _attempt_to_amend(
        self, branch: str, message: str | None, author: Author, metadata: dict[str, str] | None
    ) -> Digest:
        with self._index.read() as txn:
            ref = self._refs.branch(txn, branch)
            require_no_merge(read_state(self._refs, self._staging, txn, branch, ref), branch)
            folded = self.fold(txn, ref)
        if ref.tip is None:
            raise NothingToCommit(f"branch {branch!r} has no commit to amend")
        tip = self._objects.commit(ref.tip)
        text = tip.message if message is None else message
        facts = tip.metadata if metadata is None else metadata
        if folded.is_clean and (text, facts) == (tip.message, tip.metadata):
            raise NothingToCommit("Nothing is staged and the message is the same. Nothing to amend.")
        commit = Commit(folded.root, tip.parents, author, time.time_ns(), text, facts)
        return self._move(branch, ref, folded, commit, "amend: ")

    def _move(
        self,
        branch: str,
        ref: BranchRef,
        folded: Folded,
        commit: Commit,
        what: str,
        merging: MergeState | None = None,
    ) -> Digest:
        """Store the commit, and make it the branch's tip if that is still the one folded onto."""
        self._objects.put_nodes(folded.fresh)
        digest = self._objects.put_commit(commit)
        self._log.sync()
        with self._log.change(SegmentKind.LOG) as txn:
            if self._has_new_head(txn, ref.root_id, folded):
                raise Conflict(BRANCH + branch, "the root's attributes as they were", "others")
            fence = self._fence(txn, branch, ref.root_id, folded)
            description = what + (commit.message.splitlines() or [""])[0]
            updates = [(BRANCH + branch, ref.encode(), BranchRef(digest, ref.root_id).encode())]
            left = {}
            if merging is not None:
                updates.append((MERGE + branch, merging.encode(), b""))
                done = folded_state(self._objects, self._staging, txn, ref, merging, folded.root)
                left[MERGE + branch] = done.encode()
            txn.put(digest, number_key(commit.time), db=self._index.commits)
            change_refs(
                self._index,
                self._log,
                txn,
                self._staging,
                author=commit.author,
                description=description,
                updates=updates,
                fences=[fence],
                left=left,
                origin=self._origin,
            )
        return digest

    def fold_staged(self, txn: Txn, row: Row) -> tuple[Entry, list[tuple[Digest, bytes]]]:
        """What a commit would make of the staged directory that `row` leads to: its entry, and the nodes to store."""
        folded = Folded(EMPTY_ROOT, EMPTY_ROOT, 0)
        head, value = self._fold_child(txn, row, folded)
        return decode_entry(head, value), folded.fresh

    def fold(self, txn: Txn, ref: BranchRef) -> Folded:
        """A branch's working tree as committed nodes. Nothing but chunks is stored yet: `fresh` is to be."""
        before = root_of(self._objects, ref.tip)
        folded = Folded(before, before, self._index.number(txn, b"sequence"))
        directory = self._staging.directory(txn, ref.root_id)
        if directory is None:
            return folded
        folded.head = directory.head
        like = decode_entry(directory.head, before.value) if directory.head else before
        like = replace(like, mtime=directory.mtime or like.mtime)
        folded.root = self._fold(txn, ref.root_id, directory, like, folded)
        return folded

    def _fold(self, txn: Txn, directory: int, known: StagedDirectory, like: Entry, folded: Folded) -> Entry:
        rows = list(self._staging.rows(txn, directory))
        plain = [(name, row) for name, row in rows if row.kind not in (Kind.STAGED, Kind.REMOVED)]
        values = self._staging.values([row.value for _, row in plain])
        names = [name for name, _ in plain]
        kept = self._committed_form(known.base, names, [row.head for _, row in plain], values)
        edits: _Edits = [(name, head_and_value) for (name, _), head_and_value in zip(plain, kept, strict=True)]
        for name, row in rows:
            if row.kind is Kind.REMOVED:
                edits.append((name, None))
            elif row.kind is Kind.STAGED:
                edits.append((name, self._fold_child(txn, row, folded)))
        if len(plain) != len(rows):
            edits.sort(key=lambda item: item[0])
        root, totals, fresh = edit(self._objects.node, known.base, edits)
        folded.fresh.extend(fresh)
        folded.bases[directory] = root
        return directory_entry(
            root, totals.count, totals.samples, totals.size, mtime=like.mtime, attributes=like.attributes
        )

    def _committed_form(
        self, base: Digest, names: list[bytes], heads: list[bytes], values: list[bytes]
    ) -> list[tuple[bytes, bytes]]:
        """Heads and values as the tree keeps them: contents too long for a leaf become chunks."""
        long = [i for i, value in enumerate(values) if len(value) > INLINE_MAX and heads[i][0] in _CONTENTS]
        long = [i for i in long if not heads[i][1]]
        replaced = [i for i in long if len(values[i]) > DELTA_MIN and self._put_delta(base, names[i], values[i])]
        self._objects.put_chunks([values[i] for i in sorted(set(long) - set(replaced))])
        kept = list(zip(heads, values, strict=True))
        for i in long:
            chunk = encode_chunks([ChunkRef(blake(values[i]), len(values[i]))])
            kept[i] = (heads[i][:1] + bytes([CHUNKED]) + heads[i][2:], chunk)
        return kept

    def _put_delta(self, base: Digest, name: bytes, value: bytes) -> bool:
        """Store contents as a delta against those that the tree `base` has under that name; whether that pays."""
        found = read.get(self._objects.node, base, name)
        digest = blake(value)
        if found is None or self._objects.is_kept(digest):
            return False
        old = decode_entry(*found)
        try:
            chunks = chunks_of(self._objects, old, found[1])
            return self._objects.put_delta(digest, value, [chunk.digest for chunk in chunks])
        except (Corrupt, NotFound):
            return False  # the old version cannot be read: the new one stands for itself

    def _fold_child(self, txn: Txn, row: Row, folded: Folded) -> tuple[bytes, bytes]:
        child = self._staging.directory(txn, row.staged_id) or StagedDirectory(EMPTY, 0)
        like = decode_entry(row.head, row.value)
        like = replace(like, mtime=child.mtime or like.mtime)
        entry = self._fold(txn, row.staged_id, child, like, folded)
        assert isinstance(entry.value, bytes)
        return encode_head(entry), entry.value

    def has_later(self, txn: Txn, root_id: int, folded: Folded) -> bool:
        """Whether anything was staged on the branch after it was folded."""
        return self._has_new_head(txn, root_id, folded) or self._keep(txn, root_id, folded, {}, [])

    def _has_new_head(self, txn: Txn, root_id: int, folded: Folded) -> bool:
        """Whether the root was given other attributes after it was folded: there is no row that would stay staged."""
        known = self._staging.directory(txn, root_id)
        return known is not None and known.head != folded.head

    def _fence(self, txn: Txn, branch: str, root_id: int, folded: Folded) -> Fence:
        kept: dict[int, bytes] = {}
        rows: list[tuple[int, bytes, bytes, int]] = []
        self._keep(txn, root_id, folded, kept, rows)
        kept.pop(root_id, None)
        assert isinstance(folded.root.value, bytes)
        return Fence(
            branch, root_id, folded.upto, encode_head(folded.root), folded.root.value, list(kept.items()), rows
        )

    def _keep(
        self,
        txn: Txn,
        directory: int,
        folded: Folded,
        kept: dict[int, bytes],
        rows: list[tuple[int, bytes, bytes, int]],
    ) -> bool:
        """Find the directories that must stay staged because something below them came after the fence."""
        late = False
        for name, row in list(self._staging.late_or_staged(txn, directory, folded.upto)):
            if row.kind is Kind.STAGED:
                if self._keep(txn, row.staged_id, folded, kept, rows):
                    late = True
                    if row.sequence <= folded.upto:
                        rows.append((directory, name, row.head, row.staged_id))
                elif row.sequence > folded.upto:
                    self._keep_directory(txn, row.staged_id, folded, kept)
                    late = True
            else:
                late = True
        if late:
            self._keep_directory(txn, directory, folded, kept)
        return late

    def _keep_directory(self, txn: Txn, directory: int, folded: Folded, kept: dict[int, bytes]) -> None:
        known = self._staging.directory(txn, directory)
        kept[directory] = folded.bases.get(directory, known.base if known else EMPTY)

    def remove_settled_journals(self) -> None:
        """Delete journals of which every staged row has been settled, unless somebody appends to them."""
        for segment in self._settled():
            self._log.release(segment)
            path = self._segments.path(segment, SegmentKind.JOURNAL)
            taken = Segment.adopt(path, partial(end_of, self._index, segment))
            if taken is None:
                continue  # also if it was ours: somebody else may append to it by now
            try:
                self._remove_journal(segment)
            finally:
                taken.close()

    def _remove_journal(self, segment: int) -> None:
        """Forget a journal, then delete it: without its row in the index nobody takes it up any more.

        Killed in between, we leave a file whose rows are all settled: to be replayed, to no effect, by a rebuild.
        """
        with self._index.write() as txn:
            if segment not in self._settled_in(txn):
                return
            for key, _ in list(self._index.scan(txn, self._index.journals, number_key(segment))):
                txn.delete(key, db=self._index.journals)
            txn.delete(number_key(segment), db=self._index.ends)
        files.remove(self._segments.path(segment, SegmentKind.JOURNAL))

    def _settled(self) -> set[int]:
        with self._index.read() as txn:
            return self._settled_in(txn)

    def _settled_in(self, txn: Txn) -> set[int]:
        settled: dict[int, bool] = {}
        for key, last in self._index.scan(txn, self._index.journals, b""):
            segment, root_id = (int.from_bytes(part, "big") for part in (key[:8], key[8:]))
            done = int.from_bytes(last, "big") <= settled_rows(self._index, txn, root_id)
            settled[segment] = settled.get(segment, True) and done
        return {segment for segment, done in settled.items() if done}


def root_of(objects: Objects, tip: Digest | None) -> Entry:
    """The root directory of a tip; empty before the first commit."""
    return objects.commit(tip).root if tip else EMPTY_ROOT
