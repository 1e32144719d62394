"""A model of a repository's history: branches, commits, merges under way and the operation log, as plain values.

`Model.play` takes one step and says whether a repository has to take it as well: True, False (refused, nothing changes), or
None where both are right, and then `settle` tells it which of them happened. What only the repository can know (times of
folders, and some conflicts that what is staged around them may have resolved) is told to the model with `seen`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests.model.plain import Conflicts, File, Folder, Node, Path, at, facts, merged, put

Step = tuple[Any, ...]
"""Name of a step, and its arguments."""
BEGINNING = 1_000_000
"""Operations before the first one here are numbered down from -1; there are fewer of them."""


NAMING = {
    "restore": 2,
    "create_branch": 1,
    "create_tag": 1,
    "reset": 1,
    "reset_hard": 1,
    "reset_soft": 1,
    "merge": 1,
    "transplant": 2,
}
"""Steps that name a commit, and as which of their arguments."""


@dataclass(frozen=True)
class Commit:
    """A commit: its tree, the numbers of its parents, and who says what."""

    tree: Folder
    parents: tuple[int, ...]
    author: str
    message: str


@dataclass(frozen=True)
class Merge:
    """A merge under way on a branch, over the tree `root`; `settled` conflicts, by number, are so whatever is staged."""

    number: int
    what: str
    ours: int
    bases: tuple[int, ...]
    side: int | None
    parents: tuple[int, ...]
    root: Folder
    conflicts: Conflicts
    message: str
    author: str | None
    settled: tuple[int, ...] = ()

    @property
    def commits(self) -> set[int]:
        """What it needs to go on."""
        return {self.ours, *self.bases, *self.parents, *([] if self.side is None else [self.side])}


@dataclass
class Work:
    """A working tree, over the tree `base`. `touched` is what was staged since it lies over that, at least.

    `moved` says that folders came, went or moved meanwhile; `open` are the conflicts that were open when it was last seen.
    """

    tree: Folder
    base: Folder
    touched: set[Path] = field(default_factory=set)
    moved: bool = False
    open: list[Path] = field(default_factory=list)


@dataclass
class Refs:
    """Names. Branches have a tip and an identity, which outlives their name; tags a commit and which making of them it is."""

    branches: dict[str, tuple[int, int]]
    head: str = "main"
    tags: dict[str, tuple[int, int]] = field(default_factory=dict)
    merges: dict[str, Merge] = field(default_factory=dict)

    def copy(self) -> Refs:
        """Other refs that are the same now."""
        return Refs(dict(self.branches), self.head, dict(self.tags), dict(self.merges))

    @property
    def commits(self) -> set[int]:
        """Where all of them lead."""
        named = {tip for tip, _ in [*self.branches.values(), *self.tags.values()]}
        return named.union(*(merge.commits for merge in self.merges.values()))

    def but(self, other: Refs) -> Refs:
        """Those that are not the same in the other ones."""
        mine = ((self.branches, other.branches), (self.tags, other.tags), (self.merges, other.merges))
        branches, tags, merges = ({k: v for k, v in one.items() if two.get(k) != v} for one, two in mine)
        return Refs(branches, self.head, tags, merges)

    @property
    def identities(self) -> set[int]:
        """Of all branches."""
        return {identity for _, identity in self.branches.values()}


@dataclass
class Done:
    """One operation: the refs around it, trees that went (of branches that did, and of those in `replaced`), and over what."""

    before: Refs
    after: Refs
    kept: dict[int, Folder]
    replaced: set[int]

    @property
    def commits(self) -> set[int]:
        """Where it found refs, and where it left them, of those that it changed."""
        return self.before.but(self.after).commits | self.after.but(self.before).commits


class Model:
    """What a repository has to be after the steps that were played."""

    def __init__(self, first: Folder) -> None:
        self.commits = [Commit(first, (), "", "first")]
        self.refs = Refs({"main": (0, 0)})
        self.works = {0: Work(first, first)}
        self.done: list[Done] = []
        self.next = 1
        self.pending: Any = None
        self.horizon = -BEGINNING
        """Operations below this number keep nothing any more."""

    def play(self, step: Step) -> bool | None:
        """Take a step; one that names a commit that is gone is refused."""
        name, *arguments = step
        self.pending = None
        if name in NAMING and self.revision(arguments[NAMING[name]]) not in self.there():
            return False
        return getattr(self, name)(*arguments)

    def spelled_out(self, step: Step) -> Step:
        """The step with names: `*` is the branch that has a merge under way, else main; and with numbers for tips (`@main`)."""
        under_way = next((name for name in sorted(self.refs.branches) if self.merging(name)), "main")
        name, *arguments = step
        plain = [under_way if each == "*" else each for each in arguments]
        return name, *(self._tip_of(each[1:]) if isinstance(each, str) and each[:1] == "@" else each for each in plain)

    def _tip_of(self, name: str) -> int:
        return self.refs.branches[name][0] if name in self.refs.branches else 0

    def settle(self, happened: bool) -> None:
        """Of a step that both may take and refuse: which it was."""
        if happened:
            self.pending()
        self.pending = None

    # What is there

    def tree(self, name: str) -> Work:
        return self.works[self.refs.branches[name][1]]

    def tip(self, name: str) -> Commit:
        return self.commits[self.refs.branches[name][0]]

    def differing(self, name: str) -> set[Path]:
        """The paths that are not what the tip has."""
        here, there = facts(self.tree(name).tree), facts(self.tip(name).tree)
        return {path for path in here.keys() | there.keys() if here.get(path) != there.get(path)}

    def is_dirty(self, name: str) -> bool:
        return bool(self.differing(name)) or self.merging(name) is not None

    def merging(self, name: str) -> Merge | None:
        """The merge under way, if the branch still stands where it began."""
        merge = self.refs.merges.get(name)
        holds = merge and merge.ours == self.refs.branches[name][0]
        return merge if holds and merge.root.children == self.tree(name).base.children else None

    def open_at_least(self, name: str) -> list[Path]:
        """The conflicts that must be open: nothing was staged at, above or below them."""
        return [path for path in self._unsettled(name) if not self._may_be_resolved(self.tree(name), path)]

    def open_at_most(self, name: str) -> list[Path]:
        """The conflicts that may be open."""
        merge = self.merging(name)
        return [path for path in self._unsettled(name) if merge and not self._is_resolved(self.tree(name), merge, path)]

    def _unsettled(self, name: str) -> list[Path]:
        merge = self.merging(name)
        return [] if merge is None else [p for i, (p, _) in enumerate(merge.conflicts) if i not in merge.settled]

    def _may_be_resolved(self, work: Work, path: Path) -> bool:
        return work.moved or any(p == path[: len(p)] or path == p[: len(path)] for p in work.touched)

    def _is_resolved(self, work: Work, merge: Merge, path: Path) -> bool:
        """Whether a write at the path says so."""
        before, now = at(merge.root, path), at(work.tree, path)
        if work.moved or path not in work.touched or isinstance(before, Folder) or isinstance(now, Folder):
            return False
        if before is None or now is None:
            return before != now
        return (before.kind, before.data, before.mtime) != (now.kind, now.data, now.mtime)

    def ancestors(self, *commits: int) -> set[int]:
        found, todo = set(), list(commits)
        while todo:
            number = todo.pop()
            if number not in found:
                found.add(number)
                todo += self.commits[number].parents
        return found

    def bases(self, one: int, other: int) -> list[int]:
        common = self.ancestors(one) & self.ancestors(other)
        return sorted(c for c in common if not any(c in self.ancestors(d) - {d} for d in common))

    def revision(self, number: int) -> int:
        return number % len(self.commits)

    def seen(self, name: str, tree: Folder, still: list[Path], settled: tuple[int, ...]) -> None:
        """What the repository shows of a branch, found to be right."""
        work = self.tree(name)
        fresh = work.base is work.tree
        work.tree, work.open = tree, still
        if fresh:
            work.base = tree
        merge = self.merging(name)
        if merge is not None and merge.settled != settled:  # resolving said so, in an operation of its own
            after = self.refs.copy()
            after.merges[name] = replace(merge, settled=settled)
            self.finish(after)

    def maintain(self, number: int) -> bool:
        """Whatever is done for a repository's sake: to what is in it nothing happens."""
        return True

    # Collecting garbage

    def gc(self, kept: int, grace: int, dry_run: bool, alone: bool, then: str) -> bool:
        """Give up what neither refs nor the newest `kept` operations lead to; operations passed over keep nothing for ever."""
        horizon = max(self.horizon, len(self.done) - kept)
        if dry_run or horizon == self.horizon:
            return True
        passed = self.done[max(self.horizon, 0) : max(horizon, 0)]
        if self.there(horizon) != self.there() or any(done.kept for done in passed):
            self.horizon = horizon
        return True

    def there(self, horizon: int | None = None) -> set[int]:
        """The commits that can be read: of refs, of operations from `horizon` on (else the one that holds), and before them."""
        horizon = self.horizon if horizon is None else horizon
        named = self.refs.commits | ({0} if horizon < 0 else set())
        for done in self.done[max(horizon, 0) :]:
            named |= done.commits
        return self.ancestors(*named)

    def _is_there(self, then: Refs, oldest: int, replacing: bool) -> bool:
        """Whether all is there that refs need which come back, with the working trees named by operations from `oldest` on."""
        lost = oldest < self.horizon and (replacing or self._come_back(then, oldest))
        return not lost and then.commits <= self.there()

    def _come_back(self, then: Refs, oldest: int) -> bool:
        """Whether any branch comes back with the working tree that it went with."""
        coming = then.identities - self.refs.identities
        return any(coming & done.kept.keys() for done in self.done[oldest:])

    # Work

    def _edit(self, name: str, path: Path, node: Node | None, *, moved: bool = False) -> bool:
        work = self.tree(name)
        moved |= isinstance(node, Folder) or isinstance(at(work.tree, path), Folder)
        work.tree = put(work.tree, path, node)
        work.touched.add(path)
        work.moved |= moved
        return True

    def _parent(self, name: str, path: Path) -> Folder | None:
        found = at(self.tree(name).tree, path[:-1])
        return found if isinstance(found, Folder) else None

    def write(self, name: str, path: Path, data: bytes, mtime: int) -> bool:
        """Create or replace a file; one in the dataset is a sample."""
        if name not in self.refs.branches or not (folder := self._parent(name, path)):
            return False
        old = folder.children.get(path[-1])
        if isinstance(old, Folder):
            return False
        kind = "sample" if folder.dataset else "file"
        new = File(kind, data, old.mode if old else None, old.xattrs if old else (), mtime)
        return self._edit(name, path, new)

    def link(self, name: str, path: Path, target: bytes, mtime: int) -> bool:
        if name not in self.refs.branches or not (folder := self._parent(name, path)) or path[-1] in folder.children:
            return False
        return self._edit(name, path, File("link", target, mtime=mtime))

    def make(self, name: str, path: Path) -> bool:
        if name not in self.refs.branches or not (folder := self._parent(name, path)) or path[-1] in folder.children:
            return False
        return self._edit(name, path, Folder())

    def plant(self, name: str, path: Path, data: bytes, mtime: int) -> bool:
        """A new folder with a file in it."""
        if name not in self.refs.branches or not (folder := self._parent(name, path)) or path[-1] in folder.children:
            return False
        return self._edit(name, path, Folder({b"planted": File("file", data, mtime=mtime)}))

    def remove(self, name: str, path: Path) -> bool:
        if name not in self.refs.branches or at(self.tree(name).tree, path) is None:
            return False
        return self._edit(name, path, None)

    def rename(self, name: str, old: Path, new: Path) -> bool:
        if name not in self.refs.branches:
            return False
        tree = self.tree(name).tree
        found, over = at(tree, old), at(tree, new)
        if found is None or not self._parent(name, new) or (new[: len(old)] == old and new != old):
            return False
        if old == new:
            return True
        if over is not None and isinstance(over, Folder) != isinstance(found, Folder):
            return False
        if isinstance(over, Folder) and over.children:
            return False
        self._edit(name, old, None)
        return self._edit(name, new, found, moved=isinstance(found, Folder))

    def change(self, name: str, path: Path, mode: int | None, xattr: bytes | None, mtime: int | None) -> bool:
        """Attributes: mode and mtime where given, and the one xattr there is, None to take it away."""
        if name not in self.refs.branches:
            return False
        node = at(self.tree(name).tree, path)
        if node is None:
            return False
        facts = {"mode": node.mode if mode is None else mode, "xattrs": ((b"user.x", xattr),) if xattr else ()}
        if isinstance(node, File):
            facts |= {"mtime": node.mtime if mtime is None else mtime}
        return self._edit(name, path, node._replace(**facts) if isinstance(node, File) else replace(node, **facts))

    def restore(self, name: str, path: Path, number: int) -> bool:
        """Put back what a commit has at a path."""
        source = self.commits[self.revision(number)].tree
        found = at(source, path)
        if name not in self.refs.branches or found is None:
            return False
        tree = self.tree(name).tree
        for depth in range(1, len(path)):
            above = at(tree, path[:depth])
            if isinstance(above, File):
                return False
            if above is None:
                like = at(source, path[:depth])
                assert isinstance(like, Folder)
                tree = put(tree, path[:depth], replace(like, children={}))
                self.tree(name).moved = True
        self.tree(name).tree = tree
        return self._edit(name, path, found)

    # Operations

    def finish(self, after: Refs, kept: dict[int, Folder] | None = None, replaced: set[int] | None = None) -> None:
        """An operation has been done. A merge that went together with the working tree it was in, or was committed, is what
        it was over that tree, with all that was resolved settled.
        """
        before, kept = self.refs.copy(), kept or {}
        for name, (_, identity) in self.refs.branches.items():
            merge = self.merging(name)
            if merge is not None and identity in kept and after.merges.get(name) != merge:
                before.merges[name] = self._left(merge, self.works[identity], kept[identity])
        self.done.append(Done(before, after.copy(), kept, replaced or set()))
        self.refs = after.copy()
        for identity in self.works.keys() - after.identities:
            del self.works[identity]

    def _left(self, merge: Merge, work: Work, root: Folder) -> Merge:
        settled = tuple(i for i, (path, _) in enumerate(merge.conflicts) if path not in work.open)
        return replace(merge, root=root, settled=settled)

    def moved(self, **branches: tuple[int, int] | None) -> Refs:
        """The refs with branches where these say, and the merges under way on them over."""
        after = self.refs.copy()
        for name, value in branches.items():
            after.branches.pop(name, None)
            after.merges.pop(name, None)
            if value is not None:
                after.branches[name] = value
        return after

    def _commit(self, name: str, commit: Commit) -> None:
        identity = self.refs.branches[name][1]
        self.commits.append(commit)
        work = self.works[identity]
        merge, after = self.merging(name), self.refs.copy()
        after.branches[name] = (len(self.commits) - 1, identity)
        if merge is not None:
            del after.merges[name]
        before = self.refs.copy()
        self.finish(after)
        if merge is not None:
            before.merges[name] = self._left(merge, work, work.tree)
            self.done[-1].before = before
        self._over(identity, work.tree)

    def _over(self, identity: int, tree: Folder) -> None:
        """The working tree is `tree`, and nothing is staged over it."""
        self.works[identity] = Work(tree, tree)

    def commit(self, name: str, message: str, author: str) -> bool | None:
        if name not in self.refs.branches:
            return False
        tip, merge, work = self.refs.branches[name][0], self.merging(name), self.tree(name)
        if merge is None:
            made = Commit(work.tree, (tip,), author, message)
        elif work.open:
            return False
        else:
            made = Commit(work.tree, merge.parents, author or merge.author or "", message or merge.message)
        if not self.is_dirty(name):
            self.pending = lambda: self._commit(name, made)  # times of folders may differ
            return None
        self._commit(name, made)
        return True

    def amend(self, name: str, message: str) -> bool | None:
        if name not in self.refs.branches or self.merging(name) is not None:
            return False
        tip = self.tip(name)
        made = Commit(self.tree(name).tree, tip.parents, "", message)
        if not self.differing(name) and message == tip.message:
            self.pending = lambda: self._commit(name, made)
            return None
        self._commit(name, made)
        return True

    def create_branch(self, name: str, number: int) -> bool:
        if name in self.refs.branches:
            return False
        at_commit = self.revision(number)
        self._over(self.next, self.commits[at_commit].tree)
        after = self.moved()
        after.branches[name] = (at_commit, self.next)
        self.next += 1
        self.finish(after)
        return True

    def rename_branch(self, old: str, new: str) -> bool:
        if old not in self.refs.branches or new in self.refs.branches:
            return False
        merge = self.refs.merges.get(old)
        after = self.moved(**{old: None, new: self.refs.branches[old]})
        after.head = new if after.head == old else after.head
        if merge is not None:
            after.merges[new] = merge
        self.finish(after)
        return True

    def remove_branch(self, name: str) -> bool:
        if name not in self.refs.branches or name == self.refs.head:
            return False
        identity = self.refs.branches[name][1]
        self.finish(self.moved(**{name: None}), {identity: self.works[identity].tree})
        return True

    def set_head(self, name: str) -> bool:
        if name not in self.refs.branches:
            return False
        after = self.moved()
        after.head = name
        self.finish(after)
        return True

    def create_tag(self, name: str, number: int) -> bool:
        if name in self.refs.tags:
            return False
        after = self.moved()
        after.tags[name] = (self.revision(number), len(self.done))
        self.finish(after)
        return True

    def remove_tag(self, name: str) -> bool:
        if name not in self.refs.tags:
            return False
        after = self.moved()
        del after.tags[name]
        self.finish(after)
        return True

    def reset(self, name: str, number: int) -> bool:
        if name not in self.refs.branches or self.is_dirty(name):
            return False
        return self.reset_hard(name, number)

    def reset_hard(self, name: str, number: int) -> bool:
        if name not in self.refs.branches:
            return False
        to = self.revision(number)
        self._replace(name, to, self.moved(**{name: (to, self.refs.branches[name][1])}), self.commits[to].tree)
        return True

    def _replace(self, name: str, tip: int, after: Refs, tree: Folder, kept: Folder | None = None) -> None:
        identity = self.refs.branches[name][1]
        self.finish(after, {identity: kept or self.works[identity].tree}, {identity})
        self._over(identity, tree)

    def reset_soft(self, name: str, number: int) -> bool:
        if name not in self.refs.branches:
            return False
        self.finish(self.moved(**{name: (self.revision(number), self.refs.branches[name][1])}))
        return True

    # Merging

    def merge(self, name: str, number: int, leave_open: bool, message: str) -> bool:
        """Merge a commit into a branch."""
        theirs = self.revision(number)
        if not self._may_begin(name):
            return False
        tip, identity = self.refs.branches[name]
        bases = self.bases(tip, theirs)
        if theirs in bases:
            return True
        if tip in bases:
            after = self.moved(**{name: (theirs, identity)})
            self._replace(name, theirs, after, self.commits[theirs].tree, self.tip(name).tree)
            return True
        return self._combine(name, self._plan("merge", name, tuple(bases), theirs, (tip, theirs), message), leave_open)

    def _plan(
        self, what: str, name: str, bases: tuple[int, ...], side: int | None, parents: tuple[int, ...], message: str
    ) -> Merge:
        tip = self.refs.branches[name][0]
        return Merge(len(self.done), what, tip, bases, side, parents, Folder(), [], message, None)

    def transplant(self, name: str, what: str, number: int, leave_open: bool, message: str) -> bool:
        """Revert or cherry-pick a commit; of a merge, against its first parent."""
        commit = self.revision(number)
        if not self._may_begin(name):
            return False
        record, tip = self.commits[commit], self.refs.branches[name][0]
        parent = record.parents[:1]
        if what == "revert":
            plan = self._plan(what, name, (commit,), parent[0] if parent else None, (tip,), message)
        else:
            plan = replace(self._plan(what, name, parent, commit, (tip,), record.message), author=record.author)
        return self._combine(name, plan, leave_open)

    def _may_begin(self, name: str) -> bool:
        return name in self.refs.branches and not self.is_dirty(name)

    def _combine(self, name: str, plan: Merge, leave_open: bool) -> bool:
        tip, identity = self.refs.branches[name]
        ours = self.commits[tip].tree
        theirs = Folder() if plan.side is None else self.commits[plan.side].tree
        root, conflicts = merged([self.commits[base].tree for base in plan.bases], ours, theirs)
        if conflicts and not leave_open:
            return False
        if len(plan.parents) == 1 and not conflicts and root == ours:
            return True
        if conflicts:
            after = self.moved()
            after.merges[name] = replace(plan, root=root, conflicts=conflicts)
            self._replace(name, tip, after, root, ours)
            return True
        self.commits.append(Commit(root, plan.parents, plan.author or "", plan.message))
        made = len(self.commits) - 1
        self._replace(name, made, self.moved(**{name: (made, identity)}), root, ours)
        return True

    def resolve(self, name: str, number: int, choice: str) -> bool:
        """Settle one of the conflicts."""
        merge = self.merging(name) if name in self.refs.branches else None
        if merge is None:
            return False
        path, word = merge.conflicts[number % len(merge.conflicts)]
        side = None if choice == "delete" else merge.side if choice == "theirs" else merge.ours
        found = None if side is None else at(self.commits[side].tree, path)
        here = at(self.tree(name).tree, path)
        if found is not None and word == "attributes-changed":
            if here is None:
                return False
            values = {"mode": found.mode, "xattrs": found.xattrs}
            node = here._replace(**values) if isinstance(here, File) else replace(here, **values)
            return self._edit(name, path, node)
        if not path or self._parent(name, path) is None:
            return False
        return self._edit(name, path, found)

    def abort(self, name: str) -> bool:
        if name not in self.refs.branches or self.merging(name) is None:
            return False
        after = self.moved()
        del after.merges[name]
        self._replace(name, self.refs.branches[name][0], after, self.tip(name).tree)
        return True

    # Taking back

    def undo(self) -> bool:
        """Take the last operation back; the caller has asked `can_undo`."""
        last = self.done[-1]
        if not self._is_there(last.before, len(self.done) - 1, bool(last.replaced)):
            return False
        going = self.refs.identities - last.before.identities
        kept = {identity: self.works[identity].tree for identity in going | last.replaced}
        coming = last.before.identities - self.refs.identities
        works = {identity: self._laid_over(last.kept[identity], self.works[identity]) for identity in last.replaced}
        self.finish(last.before, kept, last.replaced)
        for identity in coming:
            self._over(identity, last.kept[identity])
        self.works |= works
        return True

    def can_undo(self) -> bool:
        """Whether the model knows what undo does: where it puts a tree below what was staged since, that moved no folders."""
        if not self.done:
            return False
        last = self.done[-1]
        return all(self._fits(last.kept[identity], self.works[identity]) for identity in last.replaced)

    def _fits(self, tree: Folder, work: Work) -> bool:
        if work.moved:
            return False
        above = {path[:depth] for path in work.touched for depth in range(len(path))}
        return all(isinstance(at(tree, path), Folder) for path in above) and not any(
            isinstance(at(tree, path), Folder) for path in work.touched
        )

    def _laid_over(self, below: Folder, work: Work) -> Work:
        """What was staged, over another tree; folders above it keep the attributes that they have."""
        tree = below
        for path in sorted(work.touched, key=len):
            for depth in range(1, len(path)):
                here, now = at(tree, path[:depth]), at(work.tree, path[:depth])
                assert isinstance(here, Folder) and isinstance(now, Folder)
                tree = put(tree, path[:depth], replace(here, mode=now.mode, xattrs=now.xattrs))
            tree = put(tree, path, at(work.tree, path))
        return Work(tree, below, set(work.touched))

    def restore_operation(self, number: int) -> bool:
        """Bring all refs back to where they were after an operation."""
        number = self.operation(number)
        then = (self.done[number].before if number < len(self.done) else self.refs).copy()
        then.merges = dict(self.refs.merges)
        for done in reversed(self.done[number:]):
            for name in done.before.merges.keys() | done.after.merges.keys():
                if done.before.merges.get(name) != done.after.merges.get(name):
                    then.merges.pop(name, None)
                    if name in done.before.merges:
                        then.merges[name] = done.before.merges[name]
        oldest = next((i for i in range(number, len(self.done)) if self.done[i].kept), number)
        if then == self.refs or not self._is_there(then, oldest, False):
            return False
        kept = {identity: self.works[identity].tree for identity in self.refs.identities - then.identities}
        coming = then.identities - self.refs.identities
        trees = {i: next(done.kept[i] for done in self.done[number:] if i in done.kept) for i in coming}
        self.finish(then, kept)
        for identity, tree in trees.items():
            self._over(identity, tree)
        return True

    def operation(self, number: int) -> int:
        """Which one a number means."""
        return number % (len(self.done) + 1)
