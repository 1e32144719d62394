"""A merge that is under way: what is kept of it, and which of its conflicts are still open.

It is the ref `merge/BRANCH`, so it is written like every other ref and a rebuild has it. It holds for the tip at which it
was begun and for the merged tree: a branch that was moved or reset meanwhile by other means has no merge under way.

While it is under way the branch's staged root directory stands on the merged tree instead of the tip's: the conflicting
paths have what our side had, everything else is merged, and changes are staged over that as ever. So a conflict is
resolved by what is staged at its path, whoever staged it; what cannot be told from that is noted in `settled`.

A merge that ends with its working tree leaves what it was to the operation that ended it (`folded_state`): over the tree that
held what was staged as well, with all that was resolved in `settled`. Taking that operation back brings both back.
"""

from __future__ import annotations

from msgspec.structs import replace

from storage.disk.index import Txn
from storage.errors import MergeUnderWay, NoMergeUnderWay, OpenConflicts
from storage.model.names import Path, path_text
from storage.model.records import Entry, Kind, decode_entry
from storage.stores.contents import same_contents
from storage.stores.merge_record import MergeState, decode_state
from storage.stores.objects import Objects
from storage.stores.refs import MERGE, BranchRef, Refs
from storage.stores.staging import Row, Staging
from storage.tree import read
from storage.tree.merge import AttributesChanged
from storage.tree.node import EMPTY


def read_state(refs: Refs, staging: Staging, txn: Txn, branch: str, ref: BranchRef) -> MergeState | None:
    """The merge under way on a branch; None where there is none, or the branch was moved or reset since it began."""
    data = refs.raw(txn, MERGE + branch)
    if not data:
        return None
    state = decode_state(data)
    known = staging.directory(txn, ref.root_id)
    return state if state.ours == (ref.tip or b"") and known is not None and known.base == state.root else None


def folded_state(
    objects: Objects, staging: Staging, txn: Txn, ref: BranchRef, state: MergeState, root: Entry
) -> MergeState:
    """The merge as it holds over `root`, the branch's working tree with all that is staged.

    What was resolved by what is staged is settled: in the tree alone it can no longer be seen.
    """
    still = {path for path, _ in open_conflicts(objects, staging, txn, ref, state)}
    settled = [number for number, (path, _) in enumerate(state.conflicts) if tuple(path) not in still]
    return replace(state, root=root.root, settled=settled)


def require_merge(state: MergeState | None, branch: str) -> MergeState:
    """The merge under way on `branch`; NoMergeUnderWay where there is none."""
    if state is None:
        raise NoMergeUnderWay(f"no merge of branch {branch!r} is under way")
    return state


def require_no_merge(state: MergeState | None, branch: str) -> None:
    """MergeUnderWay unless there is none."""
    if state is not None:
        raise MergeUnderWay(
            f"the {state.what} of {state.theirs} on branch {branch!r} is not finished: "
            "resolve its conflicts and commit, or abort it"
        )


def open_conflicts(
    objects: Objects, staging: Staging, txn: Txn, ref: BranchRef, state: MergeState
) -> list[tuple[Path, str]]:
    """The conflicts that are not resolved: path, and the word for what happened."""
    return [
        (tuple(path), word)
        for number, (path, word) in enumerate(state.conflicts)
        if number not in state.settled
        and not _is_resolved(objects, staging, txn, ref.root_id, tuple(path), word == AttributesChanged.word)
    ]


def require_resolved(objects: Objects, staging: Staging, txn: Txn, ref: BranchRef, state: MergeState) -> None:
    """OpenConflicts, which names them, unless all are resolved."""
    left = open_conflicts(objects, staging, txn, ref, state)
    if left:
        named = ", ".join(f"{path_text(path)} ({word})" for path, word in left[:5])
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        raise OpenConflicts(f"the {state.what} of {state.theirs} has open conflicts: {named}{more}", left)


def _is_resolved(objects: Objects, staging: Staging, txn: Txn, directory: int, path: Path, by_attributes: bool) -> bool:
    """Whether what is staged settles the conflict at `path`: it was written, touched, removed or replaced since.

    Moving or removing a directory above it counts as removing it. Of a directory itself nothing counts but removing or
    replacing it: what is staged below says nothing about the rest of it. A new mode or owner alone settles only what the
    sides disagree about in those.
    """
    for depth, name in enumerate(path):
        known = staging.directory(txn, directory)
        row = staging.row(txn, directory, name)
        if known is None or row is None:
            return False
        stored = read.get(objects.node, known.base, name)
        before = decode_entry(*stored) if stored else None
        if row.kind is not Kind.STAGED:
            return depth < len(path) - 1 or _says_so(objects, row, before, by_attributes)
        if not _in_place(staging, txn, row, before):
            return True
        if depth == len(path) - 1:
            assert before is not None
            return by_attributes and decode_entry(row.head, row.value).attributes != before.attributes
        directory = row.staged_id
    return False  # the root itself: only by saying so


def _in_place(staging: Staging, txn: Txn, row: Row, before: Entry | None) -> bool:
    known = staging.directory(txn, row.staged_id)
    return before is not None and before.is_directory and (known.base if known else EMPTY) == before.root


def _says_so(objects: Objects, row: Row, before: Entry | None, by_attributes: bool) -> bool:
    if row.kind is Kind.REMOVED or before is None:
        return True
    entry = decode_entry(row.head, row.value)
    if by_attributes and entry.attributes != before.attributes:
        return True
    return entry.mtime != before.mtime or not same_contents(objects, before, entry)
