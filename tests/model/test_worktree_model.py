"""The working tree against a plain model: random changes, commits, reopening, rebuilding."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storage.engine import Engine
from storage.errors import ArborError, NothingToCommit
from storage.maintenance.verify import verify
from storage.model.records import Author
from storage.model.samples import BytesSource

NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
DATA = st.sampled_from([b"", b"x", b"y" * 100, b"z" * 5000])


class Model:
    """Paths → bytes, or None for a directory."""

    def __init__(self) -> None:
        self.entries: dict = {}

    def parent_ok(self, path) -> bool:
        return path[:-1] == () or (path[:-1] in self.entries and self.entries[path[:-1]] is None)

    def is_directory(self, path) -> bool:
        return path in self.entries and self.entries[path] is None

    def below(self, path) -> list:
        return [p for p in self.entries if len(p) > len(path) and p[: len(path)] == path]


class Machine(RuleBasedStateMachine):
    """Every call either does what the model does, or is refused by both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="arborfs-model-"))
        self.engine = Engine.create(self.folder, Author("a", "b"))
        self.model = Model()
        self.commits: list = []

    @property
    def tree(self):
        return self.engine.working_tree("main")

    def attempt(self, allowed: bool, call) -> bool:
        try:
            call()
        except ArborError:
            assert not allowed
            return False
        assert allowed
        return True

    @rule(path=PATHS, data=DATA)
    def put(self, path, data):
        allowed = self.model.parent_ok(path) and not self.model.is_directory(path)
        if self.attempt(allowed, lambda: self.tree.put_file(path, BytesSource(data))):
            self.model.entries[path] = data

    @rule(path=PATHS)
    def make_directory(self, path):
        allowed = self.model.parent_ok(path) and path not in self.model.entries
        if self.attempt(allowed, lambda: self.tree.make_directory(path)):
            self.model.entries[path] = None

    @rule(path=PATHS)
    def remove(self, path):
        allowed = path in self.model.entries and not self.model.is_directory(path)
        if self.attempt(allowed, lambda: self.tree.remove(path)):
            del self.model.entries[path]

    @rule(path=PATHS)
    def remove_directory(self, path):
        allowed = self.model.is_directory(path) and not self.model.below(path)
        if self.attempt(allowed, lambda: self.tree.remove_directory(path)):
            del self.model.entries[path]

    @rule(path=PATHS)
    def remove_tree(self, path):
        if self.attempt(path in self.model.entries, lambda: self.tree.remove_tree(path)):
            for below in [path, *self.model.below(path)]:
                del self.model.entries[below]

    @rule(old=PATHS, new=PATHS)
    def rename(self, old, new):
        m = self.model
        allowed = old in m.entries and m.parent_ok(new) and (new[: len(old)] != old or new == old)
        if allowed and new in m.entries and new != old:
            if m.is_directory(old):
                allowed = m.is_directory(new) and not m.below(new)
            else:
                allowed = not m.is_directory(new)
        if self.attempt(allowed, lambda: self.tree.rename(old, new)) and old != new:
            moved = {(*new, *p[len(old) :]): m.entries[p] for p in [old, *m.below(old)]}
            for p in [old, *m.below(old)]:
                del m.entries[p]
            m.entries.update(moved)

    @rule()
    def commit(self):
        try:
            digest = self.tree.commit("m")
        except NothingToCommit:
            return
        self.commits.append((digest, dict(self.model.entries)))
        assert not self.tree.is_dirty()

    @rule(rebuild=st.booleans())
    def reopen(self, rebuild):
        self.engine.close()
        if rebuild:
            shutil.rmtree(self.folder / ".arborfs" / "index")
        self.engine = Engine.open(self.folder)

    @invariant()
    def same(self):
        assert picture(self.tree) == self.model.entries

    def teardown(self):
        for digest, entries in self.commits:
            assert picture(self.engine.snapshot(digest)) == entries
        assert verify(self.engine) == []
        self.engine.close()
        shutil.rmtree(self.folder)


def picture(tree) -> dict:
    found: dict = {}
    todo = [()]
    while todo:
        here = todo.pop()
        for name, entry in tree.entries(here):
            path = (*here, name)
            if entry.is_directory:
                found[path] = None
                todo.append(path)
            else:
                content = tree.open(path)[1]
                found[path] = bytes(content.read(0, content.size))
    return found


TestWorkingTree = Machine.TestCase
TestWorkingTree.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
