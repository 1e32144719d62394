"""History against plain dicts: commits, branches, tags, resets, undo, op restore, amending, reopening, rebuilding at random."""

import shutil
import tempfile
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.engine import Engine
from storage.errors import ArborError, NothingToCommit, StagedWork
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.digest import Digest
from storage.model.records import Author
from storage.model.samples import BytesSource
from storage.restoring import restore
from tests.model.test_worktree_model import picture

PATHS = st.sampled_from([(b"a",), (b"b",), (b"d", b"a"), (b"d", b"b"), (b"d", b"e", b"a")])
DIRECTORIES = {(b"d",): None, (b"d", b"e"): None}
SIZES = st.sampled_from([1, 100, 5000])
NAMES = st.sampled_from(["main", "one", "two"])
TAGS = st.sampled_from(["v1", "v2"])
NUMBERS = st.integers(0, 5)
MTIME = 1_000_000_000


@dataclass
class Refs:
    """Names: branches have a tip and an identity, which outlives their name; tags a commit and which making of them it is."""

    branches: dict[str, tuple[Digest, int]] = field(default_factory=dict)
    tags: dict[str, tuple[Digest, int]] = field(default_factory=dict)
    head: str = "main"

    @property
    def identities(self) -> set[int]:
        return {identity for _, identity in self.branches.values()}


@dataclass
class Done:
    """One operation: the refs around it, and working trees that went: of branches that did, and of those that stayed."""

    before: Refs
    after: Refs
    kept: dict[int, dict]
    replaced: set[int]


class Machine(RuleBasedStateMachine):
    """Every call either does what the model does, or is refused by both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="arborfs-history-"))
        self.engine = Engine.create(self.folder, Author("a", "b"))
        tree = self.engine.working_tree("main")
        tree.make_directory((b"d",))
        tree.make_directory((b"d", b"e"))
        first = tree.commit("first")
        self.refs = Refs({"main": (first, 0)})
        self.commits: dict[Digest, dict] = {first: dict(DIRECTORIES)}
        self.parents: dict[Digest, tuple] = {first: ()}
        self.works: dict[int, dict] = {0: dict(DIRECTORIES)}
        self.touched: dict[int, set] = {0: set()}
        self.done: list[Done] = []
        self.skipped = len(self.engine.operations())
        self.next = 1

    # The model

    def finish(self, after: Refs, kept: dict[int, dict] | None = None, replaced: set[int] | None = None) -> None:
        """An operation has been done."""
        self.done.append(Done(deepcopy(self.refs), deepcopy(after), kept or {}, replaced or set()))
        self.refs = deepcopy(after)
        for identity in self.works.keys() - after.identities:
            del self.works[identity], self.touched[identity]

    def moved(self, **branches: tuple[Digest, int] | None) -> Refs:
        after = deepcopy(self.refs)
        for name, value in branches.items():
            after.branches.pop(name, None)
            if value is not None:
                after.branches[name] = value
        return after

    def revive(self, identity: int, work: dict) -> None:
        self.works[identity], self.touched[identity] = dict(work), set()

    def is_dirty(self, name: str) -> bool:
        tip, identity = self.refs.branches[name]
        return self.works[identity] != self.commits[tip]

    def revision(self, number: int) -> Digest:
        return list(self.commits)[number % len(self.commits)]

    def attempt(self, allowed: bool, call) -> bool:
        try:
            call()
        except ArborError:
            assert not allowed
            return False
        assert allowed
        return True

    # Work

    @rule(name=NAMES, path=PATHS, size=SIZES)
    def put(self, name, path, size):
        if name in self.refs.branches:
            data = b"x" * size
            identity = self.refs.branches[name][1]
            self.engine.working_tree(name).put_file(path, BytesSource(data), mtime=MTIME)
            self.works[identity][path] = data
            self.touched[identity].add(path)

    @rule(name=NAMES, path=PATHS)
    def remove(self, name, path):
        if name in self.refs.branches:
            identity = self.refs.branches[name][1]
            if self.attempt(path in self.works[identity], lambda: self.engine.working_tree(name).remove(path)):
                del self.works[identity][path]
                self.touched[identity].add(path)

    @rule(name=NAMES, path=PATHS, number=NUMBERS)
    def restore_file(self, name, path, number):
        if name in self.refs.branches:
            identity, commit = self.refs.branches[name][1], self.revision(number)
            tree, source = self.engine.working_tree(name), self.engine.snapshot(commit)
            if self.attempt(path in self.commits[commit], lambda: restore(tree, source, path)):
                self.works[identity][path] = self.commits[commit][path]
                self.touched[identity].add(path)

    # Operations

    @rule(name=NAMES)
    def commit(self, name):
        if name not in self.refs.branches:
            return
        tip, identity = self.refs.branches[name]
        try:
            digest = self.engine.working_tree(name).commit(f"{len(self.done)}")
        except NothingToCommit:
            assert not self.is_dirty(name)
            return
        self.commits[digest], self.parents[digest] = dict(self.works[identity]), (tip,)
        self.touched[identity] = set()
        self.finish(self.moved(**{name: (digest, identity)}))

    @rule(name=NAMES)
    def amend(self, name):
        if name not in self.refs.branches:
            return
        tip, identity = self.refs.branches[name]
        digest = self.engine.working_tree(name).amend(f"{len(self.done)} amended")
        self.commits[digest], self.parents[digest] = dict(self.works[identity]), self.parents[tip]
        self.touched[identity] = set()
        self.finish(self.moved(**{name: (digest, identity)}))

    @rule(name=NAMES, number=NUMBERS)
    def create_branch(self, name, number):
        at = self.revision(number)
        if self.attempt(name not in self.refs.branches, lambda: self.engine.create_branch(name, at)):
            self.revive(self.next, self.commits[at])
            self.next += 1
            self.finish(self.moved(**{name: (at, self.next - 1)}))

    @rule(old=NAMES, new=NAMES)
    def rename_branch(self, old, new):
        allowed = old in self.refs.branches and new not in self.refs.branches
        if self.attempt(allowed, lambda: self.engine.rename_branch(old, new)):
            after = self.moved(**{old: None, new: self.refs.branches[old]})
            after.head = new if after.head == old else after.head
            self.finish(after)

    @rule(name=NAMES)
    def remove_branch(self, name):
        allowed = name in self.refs.branches and name != self.refs.head
        if self.attempt(allowed, lambda: self.engine.remove_branch(name, force=True)):
            identity = self.refs.branches[name][1]
            self.finish(self.moved(**{name: None}), {identity: dict(self.works[identity])})

    @rule(name=NAMES)
    def set_head(self, name):
        if self.attempt(name in self.refs.branches, lambda: self.engine.set_head(name)):
            after = self.moved()
            after.head = name
            self.finish(after)

    @rule(name=TAGS, number=NUMBERS)
    def create_tag(self, name, number):
        at = self.revision(number)
        if self.attempt(name not in self.refs.tags, lambda: self.engine.create_tag(name, at)):
            after = self.moved()
            after.tags[name] = (at, len(self.done))
            self.finish(after)

    @rule(name=TAGS)
    def remove_tag(self, name):
        if self.attempt(name in self.refs.tags, lambda: self.engine.remove_tag(name)):
            after = self.moved()
            del after.tags[name]
            self.finish(after)

    @rule(name=NAMES, number=NUMBERS)
    def reset(self, name, number):
        if name in self.refs.branches:
            to = self.revision(number)
            try:
                self.engine.reset(name, to)
            except StagedWork:
                assert self.is_dirty(name)
                return
            assert not self.is_dirty(name)
            self.replaced(name, to)

    @rule(name=NAMES, number=NUMBERS)
    def reset_hard(self, name, number):
        if name in self.refs.branches:
            self.engine.reset_hard(name, self.revision(number))
            self.replaced(name, self.revision(number))

    def replaced(self, name, to):
        identity = self.refs.branches[name][1]
        kept = {identity: dict(self.works[identity])}
        self.revive(identity, self.commits[to])
        self.finish(self.moved(**{name: (to, identity)}), kept, {identity})

    @rule(name=NAMES, number=NUMBERS)
    def reset_soft(self, name, number):
        if name in self.refs.branches:
            to, identity = self.revision(number), self.refs.branches[name][1]
            self.engine.reset_soft(name, to)
            self.finish(self.moved(**{name: (to, identity)}))

    @precondition(lambda self: self.done)
    @rule()
    def undo(self):
        last = self.done[-1]
        self.engine.undo()
        going = self.refs.identities - last.before.identities
        kept = {identity: dict(self.works[identity]) for identity in going | last.replaced}
        for identity in last.before.identities - self.refs.identities:
            self.revive(identity, last.kept[identity])
        for identity in last.replaced:
            work = dict(last.kept[identity])
            for path in self.touched[identity]:  # what was staged since stays on top
                work.pop(path, None)
                if path in self.works[identity]:
                    work[path] = self.works[identity][path]
            self.works[identity] = work
        self.finish(last.before, kept, last.replaced)

    @precondition(lambda self: self.done)
    @rule(number=st.integers(0, 30))
    def restore_operation(self, number):
        number %= len(self.done) + 1
        then = self.done[number].before if number < len(self.done) else self.refs
        if not self.attempt(then != self.refs, lambda: self.engine.restore_operation(self.skipped + number)):
            return
        kept = {identity: dict(self.works[identity]) for identity in self.refs.identities - then.identities}
        for identity in then.identities - self.refs.identities:
            gone = next(done.kept[identity] for done in self.done[number:] if identity in done.kept)
            self.revive(identity, gone)
        self.finish(then, kept)

    # Closing

    @rule(remade=st.booleans())
    def reopen(self, remade):
        self.engine.close()
        if remade:
            rebuild(self.folder)
        self.engine = Engine.open(self.folder)

    @invariant()
    def same(self):
        engine = self.engine
        assert engine.branches() == {name: tip for name, (tip, _) in self.refs.branches.items()}
        assert engine.tags() == {name: at for name, (at, _) in self.refs.tags.items()}
        assert engine.head() == self.refs.head
        for name, (tip, identity) in self.refs.branches.items():
            tree = engine.working_tree(name)
            assert picture(tree) == self.works[identity]
            assert tree.is_dirty() == self.is_dirty(name)
            paths = {row.path for row in tree.status()}
            there, here = self.commits[tip], self.works[identity]
            assert paths == {path for path in there.keys() | here.keys() if there.get(path, 0) != here.get(path, 0)}

    def teardown(self):
        for digest, entries in self.commits.items():
            assert picture(self.engine.snapshot(digest)) == entries
            assert self.engine.commit_record(digest).parents == self.parents[digest]
        assert verify(self.engine) == []
        self.engine.close()
        shutil.rmtree(self.folder)


TestHistory = Machine.TestCase
TestHistory.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
