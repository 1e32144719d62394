"""Power loss: whatever was synced is there, byte for byte; everything else is whole, as it was before, or absent.

A script of writes, syncs and commits runs once. After every call that changes a file, states that a power loss may
leave at that moment are drawn; each is opened as after a boot, and held against what had been promised by then.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.maintenance.verify import verify
from storage.model.digest import Digest
from storage.model.samples import BytesSource
from storage.snapshot import Snapshot
from storage.working import WorkingReader
from tests.conftest import ADA
from tests.faults.power import materialised, recorded

STATES_EACH = 30

Tree = dict[tuple[str, ...], bytes | None]
"""What lies at a path of a branch (its name comes first); None for a directory."""


@dataclass
class Promise:
    """What has been acknowledged: trees in the order of the calls, and which of them is safe."""

    trees: list[Tree] = field(default_factory=lambda: [{}])
    safe: int = 0
    commits: list[tuple[Digest, Tree]] = field(default_factory=list)
    tags: dict[str, Digest] = field(default_factory=dict)
    branches: set[str] = field(default_factory=lambda: {"main"})

    def allowed(self, path: tuple[str, ...]) -> list[bytes | str | None]:
        """What may be found at a path: anything that was there since what is safe."""
        return [tree.get(path, "nothing") for tree in self.trees[self.safe :]]


@dataclass
class Script:
    """Does things to a repository and keeps the promise; what is safe only counts once a call has returned."""

    engine: Engine
    promise: Promise

    def change(self, edit: Callable[[Tree], object], call: Callable[[], object]) -> None:
        tree = dict(self.promise.trees[-1])
        edit(tree)
        self.promise.trees.append(tree)
        call()

    def put(self, path: str, data: bytes, branch: str = "main") -> None:
        parts = tuple(path.split("/"))
        target = tuple(part.encode() for part in parts)
        work = self.engine.working_tree(branch)
        self.change(lambda t: t.update({(branch, *parts): data}), lambda: work.put_file(target, BytesSource(data)))

    def make(self, path: str) -> None:
        parts = tuple(path.split("/"))
        work = self.engine.working_tree("main")
        self.change(
            lambda t: t.update({("main", *parts): None}), lambda: work.make_directory(tuple(p.encode() for p in parts))
        )

    def remove(self, path: str) -> None:
        parts = tuple(path.split("/"))
        work = self.engine.working_tree("main")
        self.change(lambda t: t.pop(("main", *parts)), lambda: work.remove(tuple(p.encode() for p in parts)))

    def rename(self, old: str, new: str) -> None:
        one, other = tuple(old.split("/")), tuple(new.split("/"))
        work = self.engine.working_tree("main")
        self.change(
            lambda t: t.update({("main", *other): t.pop(("main", *one))}),
            lambda: work.rename(tuple(p.encode() for p in one), tuple(p.encode() for p in other)),
        )

    def sync(self) -> None:
        self.engine.sync()
        self.promise.safe = len(self.promise.trees) - 1

    def commit(self, branch: str = "main") -> None:
        digest = self.engine.working_tree(branch).commit("a message")
        tree = self.promise.trees[-1]
        self.promise.safe = len(self.promise.trees) - 1
        self.promise.commits.append((digest, {path[1:]: data for path, data in tree.items() if path[0] == branch}))

    def tag(self, name: str) -> None:
        digest = self.promise.commits[-1][0]
        self.engine.create_tag(name, digest)
        self.promise.tags[name] = digest

    def branch(self, name: str) -> None:
        """From the tip of main, when nothing is staged there."""
        tree = self.promise.trees[-1]
        self.promise.trees[-1] = {
            **tree,
            **{(name, *path[1:]): data for path, data in tree.items() if path[0] == "main"},
        }
        self.promise.trees.append(dict(self.promise.trees[-1]))
        self.engine.create_branch(name)
        self.promise.branches.add(name)

    def undo_commit(self) -> None:
        """What it took is staged again: no file changes."""
        self.engine.undo()
        self.promise.safe = len(self.promise.trees) - 1

    def reset_and_undo(self) -> None:
        """Drop what is staged on main, and bring it back."""
        before, tip = dict(self.promise.trees[-1]), self.engine.branches()["main"]
        assert tip is not None
        committed = dict(next(tree for digest, tree in self.promise.commits if digest == tip))
        others = {path: data for path, data in before.items() if path[0] != "main"}
        self.promise.trees.append(others | {("main", *path): data for path, data in committed.items()})
        self.engine.reset_hard("main", tip)
        self.promise.safe = len(self.promise.trees) - 1
        self.promise.trees.append(before)
        self.engine.undo()
        self.promise.safe = len(self.promise.trees) - 1


def run(script: Script, rng: random.Random) -> None:
    """Everything that changes a repository: small and large files, several commits, branches, tags."""
    script.make("d")
    script.put("d/small", b"one")
    script.put("large", rng.randbytes(400_000))
    script.sync()
    for number in range(6):
        script.put(f"d/{number}", rng.randbytes(200 * number))
    script.put("d/small", b"two")
    script.commit()
    script.tag("first")
    script.put("d/small", b"three")
    script.remove("d/3")
    script.rename("d/4", "moved")
    script.sync()
    script.put("large", rng.randbytes(300_000))
    script.put("d/small", b"four")
    script.commit()
    script.branch("other")
    script.put("d/small", b"elsewhere", "other")
    script.put("d/small", b"five")
    script.commit("other")
    for number in range(8):
        script.put("d/again", b"%d" % number * 100)
        if number % 3 == 2:
            script.sync()
    script.put("middling", rng.randbytes(50_000))
    script.commit()
    script.undo_commit()
    script.put("d/small", b"six")
    script.reset_and_undo()
    script.remove("large")
    script.put("last", b"staged and never synced")


def found(
    tree: WorkingReader | Snapshot, path: tuple[bytes, ...] = ()
) -> Iterator[tuple[tuple[str, ...], bytes | None]]:
    """Everything that a tree holds."""
    for name, entry in tree.entries(path):
        below = (*path, name)
        text = tuple(part.decode() for part in below)
        if entry.is_directory:
            yield text, None
            yield from found(tree, below)
        else:
            content = tree.open(below)[1]
            yield text, bytes(content.read(0, content.size))


def check(path: Path, promise: Promise, told: str) -> None:
    """A repository after a power loss and a boot: is everything there that was promised?"""
    with Engine.open(path) as engine:
        branches = engine.branches()
        assert promise.branches <= branches.keys(), told
        there: Tree = {}
        for branch in branches:
            there.update({(branch, *name): data for name, data in found(engine.working_tree(branch))})
        for name in there.keys() | {name for tree in promise.trees[promise.safe :] for name in tree}:
            if name[0] in promise.branches:
                assert there.get(name, "nothing") in promise.allowed(name), f"{name}: {told}"
        for digest, tree in promise.commits:
            assert dict(found(engine.snapshot(digest))) == tree, told
        for name, digest in promise.tags.items():
            assert engine.tags()[name] == digest, told
        assert verify(engine) == [], told
        work = engine.working_tree("main")
        work.put_file((b"after",), BytesSource(b"the power came back"))
        digest = work.commit("after")
        assert engine.snapshot(digest).entry((b"after",)).size == 19, told


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: thousands of repositories are opened, and nothing here depends on the disk."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None, prefix="arborfs-power-"
    ) as name:
        yield Path(name)


@pytest.mark.parametrize("seed", [int(os.environ.get("POWER_SEED", "1"))])
def test_whatever_a_power_loss_leaves_keeps_the_promises(memory, seed):
    rng = random.Random(seed)
    Engine.create(memory / "original", ADA).close()
    checked = 0
    promise = Promise()
    with Engine.open(memory / "original") as engine, recorded(memory / "original" / ".arborfs") as disk:

        def lose_power() -> None:
            nonlocal checked
            for _ in range(STATES_EACH):
                told = f"seed {seed}, state {checked}, after {len(promise.trees)} changes"
                (memory / "left").mkdir()
                materialised(disk.left(rng), memory / "left" / ".arborfs")
                quiet, disk.on_change = disk.on_change, lambda: None
                check(memory / "left", promise, told)  # if it fails, what it undoes on its way is of no interest
                disk.on_change = quiet
                shutil.rmtree(memory / "left")
                checked += 1

        engine._syncer.stop()  # only the script syncs
        disk.on_change = lose_power
        run(Script(engine, promise), rng)
        disk.on_change = lambda: None
    assert checked >= 2000
