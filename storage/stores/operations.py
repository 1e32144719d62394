"""Moving branches and taking operations back: each is one operation itself, in one record, and so can be taken back.

A branch that moves keeps its working tree: its staged root directory stays on the base it has, whatever the tip is, and what
differs between the two is what is staged. So an undone commit costs the same whatever was in it.

Where an operation does put another working tree in a branch's place, or removes the branch, the tree as it stood is folded
into nodes first, as for a commit, and the operation's record names its root (`kept`): taking it back brings the work back, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from storage.disk.index import HORIZON, Index, Txn
from storage.disk.segments import SegmentKind
from storage.errors import BranchInUse, Conflict, NotFound, NothingToUndo, StagedWork
from storage.model.digest import Digest
from storage.model.records import Author, Entry, Fence, Kind, RefsRecord, decode_entry
from storage.stores.log import Log
from storage.stores.merge_state import folded_state, read_state
from storage.stores.objects import Objects
from storage.stores.refs import (
    BRANCH,
    HEAD,
    MERGE,
    BranchRef,
    Refs,
    change_refs,
    fence_of,
    ref_text,
    require_refs,
    stored,
)
from storage.stores.revisions import Operation
from storage.stores.staging import StagedDirectory, Staging
from storage.stores.transaction import ATTEMPTS, Committer, Folded, root_of
from storage.tree import read
from storage.tree.node import EMPTY

Update = tuple[str, bytes, bytes]
"""A ref, what it is now, what it shall be: stored bytes, empty where it does not exist."""
Now = Callable[[str], bytes]
"""What a ref is now."""


@dataclass(frozen=True, slots=True)
class Work:
    """A working tree to put in the place of a branch's own.

    What has been staged goes, or stays on top of it if that lies `over` a root that is known, its attributes too.
    """

    branch: str
    root_id: int
    root: Entry
    over: Entry | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One operation to perform. `works` are working trees to replace, `kept` those that come back with branches that come back,
    by the id of their root.
    """

    description: str
    updates: list[Update]
    works: list[Work] = field(default_factory=list)
    kept: Mapping[int, Entry] = field(default_factory=dict)
    oldest: int = 0
    """The sequence number of the oldest operation whose record names one of these working trees; 0 where none is used."""

    @property
    def vanishing(self) -> list[tuple[str, BranchRef]]:
        """Branches of which nothing stays, not under another name either."""
        coming = {ref.root_id for _, ref in _branches((name, new) for name, _, new in self.updates)}
        return [
            (n, ref) for n, ref in _branches((name, old) for name, old, _ in self.updates) if ref.root_id not in coming
        ]

    @property
    def appearing(self) -> list[tuple[str, BranchRef]]:
        """Branches of which there was nothing, not under another name either."""
        going = {ref.root_id for _, ref in _branches((name, old) for name, old, _ in self.updates)}
        return [
            (n, ref) for n, ref in _branches((name, new) for name, _, new in self.updates) if ref.root_id not in going
        ]

    @property
    def released(self) -> list[str]:
        """Names that no branch has afterwards, or another one than now: nobody may be writing under them."""
        return [
            name.removeprefix(BRANCH)
            for name, old, new in self.updates
            if name.startswith(BRANCH) and old and _root_id(old) != _root_id(new)
        ]


def _branches(values: Iterable[tuple[str, bytes]]) -> list[tuple[str, BranchRef]]:
    return [(n.removeprefix(BRANCH), BranchRef.decode(value)) for n, value in values if n.startswith(BRANCH) and value]


def _root_id(value: bytes) -> int:
    return BranchRef.decode(value).root_id if value else 0


def inverse(operation: Operation, now: Now) -> Plan:
    """What takes an operation back. Conflict where a ref is not as the operation left it; NothingToUndo for the first one."""
    record = operation.record
    if any(name == HEAD and not old for name, old, _ in record.updates):
        raise NothingToUndo("the repository's beginning cannot be taken back")
    updates = []
    for name, old, new in record.updates:
        found = now(name)
        if not _same(name, found, new):
            advice = "Take back first what moved it since: `arborfs op log` tells what that was."
            raise Conflict(name, ref_text(name, new), ref_text(name, found), advice)
        updates.append((name, found, _moved(name, found, old, new)))
    kept = _kept(record)
    left = {fence.branch: fence for fence in record.fences if fence.root_id in kept}
    works = [
        Work(name, ref.root_id, kept[left[name].root_id], decode_entry(left[name].head, left[name].value))
        for name, ref in _branches((name, found) for name, found, _ in updates)
        if name in left
    ]
    return Plan(f"undo {operation.number}: {operation.description}", updates, works, kept, operation.sequence)


def _same(name: str, one: bytes, other: bytes) -> bool:
    """Whether a ref's bytes mean the same: a branch may have gone and come back, with another root."""
    if name.startswith(BRANCH) and one and other:
        return BranchRef.decode(one).tip == BranchRef.decode(other).tip
    return one == other


def _moved(name: str, found: bytes, old: bytes, new: bytes) -> bytes:
    """A ref's bytes where it was before an operation left it as `new`.

    A branch that has gone and come back since keeps the root that it has now.
    """
    if name.startswith(BRANCH) and found and old and _root_id(found) != _root_id(new):
        return BranchRef(BranchRef.decode(old).tip, _root_id(found)).encode()
    return old


def return_to(number: int, operations: Iterator[Operation], now: Mapping[str, bytes]) -> Plan:
    """What brings all refs back to where they were after operation `number`. `operations` come newest first."""
    then = dict(now)
    kept: dict[int, Entry] = {}
    oldest = 0
    for operation in operations:
        if operation.number <= number:
            break
        kept |= _kept(operation.record)
        oldest = operation.sequence if operation.record.kept else oldest
        then |= {name: old for name, old, _ in operation.record.updates}
    updates = [(name, now.get(name, b""), then[name]) for name in sorted(then) if now.get(name, b"") != then[name]]
    return Plan(f"op restore {number}", updates, kept=kept, oldest=oldest)


def _kept(record: RefsRecord) -> dict[int, Entry]:
    return {root_id: decode_entry(head, value) for root_id, head, value in record.kept}


class Operations:
    """Performs plans. Thread-safe; one at a time among all processes, and none while a commit is made."""

    def __init__(
        self,
        index: Index,
        log: Log,
        objects: Objects,
        refs: Refs,
        staging: Staging,
        committer: Committer,
        origin: bytes,
        author: Author,
    ) -> None:
        self._index = index
        self._log = log
        self._objects = objects
        self._refs = refs
        self._staging = staging
        self._committer = committer
        self._origin = origin
        self._author = author

    def perform(self, planned: Callable[[Txn], Plan], check: Callable[[Plan, Mapping[str, Folded]], None]) -> Plan:
        """Do what `planned` says; durable when it returns. `check` may refuse it for what is staged, by branch.

        Conflict when a ref moves meanwhile, or when a working tree that is to go keeps changing; BranchInUse where the
        default branch would be gone.
        """
        with self._committer.turn():
            for _ in range(ATTEMPTS):
                with self._index.read() as txn:
                    plan = planned(txn)
                    folded = {branch: self._committer.fold(txn, ref) for branch, ref in self._going(txn, plan)}
                    roots = {branch: self._root(txn, branch) for branch in folded}
                check(plan, folded)
                self._store(folded)
                with self._log.change(SegmentKind.LOG) as txn:
                    require_refs(self._index, txn, plan.updates)
                    if not self._moved_on(txn, folded, roots):
                        self._write(txn, plan, folded)
                        return plan
        branch = next(iter(folded))
        raise Conflict(BRANCH + branch, "the work that was staged", "more of it")

    def _going(self, txn: Txn, plan: Plan) -> list[tuple[str, BranchRef]]:
        """Branches whose working trees go."""
        return [*plan.vanishing, *((work.branch, self._refs.branch(txn, work.branch)) for work in plan.works)]

    def _root(self, txn: Txn, branch: str) -> StagedDirectory | None:
        return self._staging.directory(txn, self._refs.branch(txn, branch).root_id)

    def _store(self, folded: Mapping[str, Folded]) -> None:
        for each in folded.values():
            self._objects.put_nodes(each.fresh)
        # Before the record that names them.
        self._log.sync()

    def _moved_on(self, txn: Txn, folded: Mapping[str, Folded], roots: Mapping[str, StagedDirectory | None]) -> bool:
        there = self._refs.branches(txn)
        return any(
            branch in there
            and (
                self._committer.has_later(txn, there[branch].root_id, each) or self._root(txn, branch) != roots[branch]
            )
            for branch, each in folded.items()
        )

    def _write(self, txn: Txn, plan: Plan, folded: Mapping[str, Folded]) -> None:
        self._require_head(txn, plan)
        self._require_kept(txn, plan)
        fences = [self._replacing(txn, work, folded[work.branch]) for work in plan.works]
        for branch, ref in plan.appearing:
            root = plan.kept.get(ref.root_id) or root_of(self._objects, ref.tip)
            fences.append(fence_of(branch, ref.root_id, 0, root))
        going = self._going(txn, plan)
        left = dict(self._ended(txn, plan, folded))
        change_refs(
            self._index,
            self._log,
            txn,
            self._staging,
            author=self._author,
            description=plan.description,
            updates=plan.updates,
            fences=fences,
            dropped=[(branch, ref.root_id) for branch, ref in plan.vanishing],
            kept=[(ref.root_id, *stored(folded[branch].root)) for branch, ref in going],
            redrawn=[fence.branch for fence in fences],
            left=left,
            origin=self._origin,
        )

    def _ended(self, txn: Txn, plan: Plan, folded: Mapping[str, Folded]) -> Iterator[tuple[str, bytes]]:
        """Merges that end with their working trees, by ref: what they come back as together with those."""
        for name, old, new in plan.updates:
            branch = name.removeprefix(MERGE)
            if name.startswith(MERGE) and old and old != new and branch in folded:
                ref = self._refs.branch(txn, branch)
                state = read_state(self._refs, self._staging, txn, branch, ref)
                if state is not None:
                    root = folded[branch].root
                    yield name, folded_state(self._objects, self._staging, txn, ref, state, root).encode()

    def _require_head(self, txn: Txn, plan: Plan) -> None:
        after = {name: new for name, _, new in plan.updates}
        head = (after.get(HEAD) or self._refs.raw(txn, HEAD)).decode()
        if not after.get(BRANCH + head, self._refs.raw(txn, BRANCH + head)):
            raise BranchInUse(f"{head!r} is the default branch: make another one the default first")

    def _require_kept(self, txn: Txn, plan: Plan) -> None:
        """NotFound where working trees are to come back that gc has taken."""
        coming = [*plan.works, *(ref for _, ref in plan.appearing if ref.root_id in plan.kept)]
        if coming and 0 < plan.oldest < self._index.number(txn, HORIZON):
            raise NotFound("the working trees of that time are gone: gc keeps them for the time given by its --keep")

    def _replacing(self, txn: Txn, work: Work, folded: Folded) -> Fence:
        if work.over is None:
            return fence_of(work.branch, work.root_id, folded.upto, work.root)
        known = self._staging.directory(txn, work.root_id)
        base = known.base if known else EMPTY
        if base != work.over.root:
            raise StagedWork(
                f"branch {work.branch!r} holds the work of a commit that was taken back since: commit it, or reset the branch"
            )
        bases = list(self._rebased(txn, work.root_id, base, work.root.root))
        root = work.root
        if known is not None and known.head:
            attributes = decode_entry(known.head, root.value).attributes
            if attributes != work.over.attributes:
                root = replace(root, attributes=attributes)
        fence = fence_of(work.branch, work.root_id, 0, root)
        return Fence(fence.branch, fence.root_id, 0, fence.head, fence.value, bases, [])

    def _rebased(self, txn: Txn, directory: int, old: Digest, new: Digest) -> Iterator[tuple[int, bytes]]:
        """The bases that staged directories below one have when its own changes from `old` to `new`.

        One that was staged where it stood follows; one that was moved there keeps what it has.
        """
        for name, row in self._staging.rows(txn, directory):
            if row.kind is not Kind.STAGED:
                continue
            known = self._staging.directory(txn, row.staged_id)
            base = known.base if known else EMPTY
            before, after = self._directory(old, name), self._directory(new, name)
            follows = before == base and after is not None
            target = after if follows and after is not None else base
            yield row.staged_id, target
            yield from self._rebased(txn, row.staged_id, base, target)

    def _directory(self, root: Digest, name: bytes) -> Digest | None:
        found = read.get(self._objects.node, root, name)
        entry = None if found is None else decode_entry(*found)
        return entry.root if entry is not None and entry.kind is Kind.DIRECTORY else None
