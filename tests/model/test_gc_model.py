"""Garbage collection against plain dicts: nothing reachable is ever lost, what is unreachable is gone after gc.

The model knows every commit's files, what is staged, and when each operation left which commit behind; its clock is ours.
"""

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.engine import Engine
from storage.errors import NotFound, NothingToCommit
from storage.maintenance.gc import SECOND, Policy, gc
from storage.maintenance.verify import verify
from storage.model.records import Author
from storage.model.samples import BytesSource
from tests.faults.test_gc_faults import contents

NAMES = st.sampled_from([b"a", b"b", b"c"])
BRANCHES = st.sampled_from(["main", "x", "y"])
# Inline, waiting in the journal, one chunk, another one, several.
DATA = st.sampled_from([b"x", b"y" * 5000, b"z" * 80_000, b"w" * 90_000, bytes(range(251)) * 5000])
KEEP, GRACE = 1000, 100
"""In seconds of the model's clock."""

Files = dict[tuple[bytes, ...], bytes]


class Machine(RuleBasedStateMachine):
    """A repository and what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="arborfs-gc-model-"))
        self.engine = Engine.create(self.folder, Author("a", "b"))
        self.other: Engine | None = None
        self.ahead = 0.0
        self.tips: dict[str, bytes | None] = {"main": None}
        self.staged: dict[str, Files] = {"main": {}}
        self.commits: dict[bytes, tuple[bytes | None, Files]] = {}
        self.left: dict[bytes, float] = {}
        """When an operation last named a commit."""
        self.snapshots: dict[bytes, object] = {}

    def now(self) -> int:
        return time.time_ns() + int(self.ahead * SECOND)

    def policy(self, keep: int) -> Policy:
        return Policy(keep * SECOND, GRACE * SECOND, self.now)

    def history(self, tip: bytes | None) -> set[bytes]:
        found = set()
        while tip is not None:
            found.add(tip)
            tip = self.commits[tip][0]
        return found

    def kept(self, since: float) -> set[bytes]:
        """The commits that must be there if operations since then count."""
        named = [digest for digest, when in self.left.items() if when >= since]
        tips = [*self.tips.values(), *named, *self.snapshots]
        return set().union(*(self.history(tip) for tip in tips))

    def name(self, *tips: bytes | None) -> None:
        """An operation names these tips; it has the time of the real clock."""
        for tip in tips:
            if tip is not None:
                self.left[tip] = time.time_ns() / SECOND

    @rule(branch=BRANCHES, name=NAMES, data=DATA)
    def put(self, branch, name, data):
        if branch in self.tips:
            self.engine.working_tree(branch).put_file((name,), BytesSource(data))
            self.staged[branch][name,] = data

    @rule(branch=BRANCHES, name=NAMES)
    def remove(self, branch, name):
        if branch in self.tips and self.staged[branch].pop((name,), None) is not None:
            self.engine.working_tree(branch).remove((name,))

    @rule(branch=BRANCHES)
    def commit(self, branch):
        if branch not in self.tips:
            return
        try:
            digest = self.engine.working_tree(branch).commit("m")
        except NothingToCommit:
            return
        self.commits[digest] = (self.tips[branch], dict(self.staged[branch]))
        self.name(self.tips[branch], digest)
        self.tips[branch] = digest

    @rule(branch=BRANCHES)
    def create_branch(self, branch):
        if branch not in self.tips:
            tip = self.tips["main"]
            self.engine.create_branch(branch)
            self.tips[branch] = tip
            self.staged[branch] = dict(self.commits[tip][1]) if tip else {}
            self.name(tip)

    @rule(branch=st.sampled_from(["x", "y"]))
    def remove_branch(self, branch):
        if branch in self.tips:
            self.engine.remove_branch(branch, force=True)
            self.name(self.tips.pop(branch))
            del self.staged[branch]

    @precondition(lambda self: self.commits)
    @rule(data=st.data())
    def bring_back(self, data):
        """A branch at any commit that is still listed."""
        digest = data.draw(st.sampled_from(sorted(self.engine.commits()) or [b""]))
        if digest and "y" not in self.tips:
            self.engine.create_branch("y", digest)
            self.tips["y"] = digest
            self.staged["y"] = dict(self.commits[digest][1])
            self.name(digest)

    @precondition(lambda self: self.commits)
    @rule(data=st.data())
    def open_snapshot(self, data):
        digest = data.draw(st.sampled_from(sorted(self.engine.commits()) or [b""]))
        if digest:
            self.snapshots[digest] = self.engine.snapshot(digest)

    @rule()
    def close_snapshots(self):
        self.snapshots.clear()

    @rule(seconds=st.sampled_from([GRACE / 2, GRACE + 1, KEEP + 1]))
    def wait(self, seconds):
        self.ahead += seconds

    @rule(keep=st.sampled_from([0, KEEP]), dry_run=st.booleans())
    def collect(self, keep, dry_run):
        """Beside others: commits that must go vanish, their objects wait for the grace time."""
        expected = self.kept(self.now() / SECOND - keep)
        self.engine.let_go()
        before = set(self.engine.commits())
        done = gc(self.folder, self.policy(keep), dry_run=dry_run)
        assert set(done.commits) == before - expected
        assert set(self.engine.commits()) == (before if dry_run else before & expected)
        if not dry_run:
            self.forget(keep)

    @rule()
    def collect_alone(self):
        """With nobody else here all that is unreachable is gone: a second gc finds nothing."""
        self.snapshots.clear()
        self.engine.close()
        gc(self.folder, self.policy(0))
        self.forget(0)
        again = gc(self.folder, self.policy(0))
        assert (again.deleted, again.waiting, again.freed, again.commits) == (0, 0, 0, [])
        self.engine = Engine.open(self.folder)
        index = self.engine.internals()[0]
        with index.read() as txn:
            assert index.rows(txn, index.commits) == len(self.kept(float("inf")))
        assert verify(self.engine) == []

    def forget(self, keep):
        """Operations that gc has passed over keep nothing any more, however long a later one would look back."""
        since = self.now() / SECOND - keep
        self.left = {digest: when for digest, when in self.left.items() if when >= since}

    @rule()
    def reopen(self):
        self.snapshots.clear()
        self.engine.close()
        self.engine = Engine.open(self.folder)

    @rule()
    def rebuild(self):
        """All that is reachable is there; operations that no gc has passed over keep theirs."""
        self.snapshots.clear()
        self.engine.close()
        shutil.rmtree(self.folder / ".arborfs" / "index")
        self.engine = Engine.open(self.folder)
        assert set(self.engine.commits()) == self.kept(0)

    @invariant()
    def all_that_is_reachable_is_there(self):
        for branch, tip in self.tips.items():
            assert self.engine.branches()[branch] == tip
            assert dict(contents(self.engine.working_tree(branch))) == self.staged[branch]
        for digest in self.kept(float("inf")):
            snapshot = self.snapshots.get(digest) or self.engine.snapshot(digest)
            assert dict(contents(snapshot)) == self.commits[digest][1]
            del snapshot
        self.engine.let_go()

    def teardown(self):
        assert verify(self.engine) == []
        self.engine.close()
        shutil.rmtree(self.folder)


TestGc = Machine.TestCase
TestGc.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_a_commit_that_gc_took_is_not_found(repository):
    with Engine.open(repository) as engine, pytest.raises(NotFound):
        engine.snapshot(b"\1" * 32)
