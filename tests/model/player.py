"""A repository and its model, step by step: every call does what the model does, or both refuse it."""

from __future__ import annotations

import copy
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path as Place
from typing import Any

import numpy as np
import pytest

from storage.engine import Engine
from storage.errors import ArborError, Exists, NotFound
from storage.formats.base import File as Imported
from storage.importing import import_items
from storage.maintenance.gc import SECOND, Policy, gc
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.merging import Outcome
from storage.model.digest import Digest
from storage.model.records import Attributes, Author, Kind
from storage.model.samples import BytesSource, canonical_header, make_schema
from storage.restoring import restore
from storage.snapshot import Snapshot
from storage.tree.merge import merge
from storage.worktree import WorkingTree
from tests.model.history import Model, Step
from tests.model.plain import File, Folder, Node, Path, facts

AUTHORS = {"": Author("a", "b"), "eve": Author("eve", "eve@example.org")}
NUMBERS = make_schema(np.dtype("<i2"), (4,))

BRANCHES = ("main", "main", "one", "two")
PATHS: tuple[Path, ...] = (
    (b"a",),
    (b"b",),
    (b"d",),
    (b"d", b"a"),
    (b"d", b"a"),
    (b"d", b"b"),
    (b"d", b"e"),
    (b"d", b"e", b"a"),
    (b"e",),
    (b"e", b"a"),
)
SAMPLES: tuple[Path, ...] = ((b"n", b"0.npy"), (b"n", b"1.npy"))
DATASET: tuple[Path, ...] = ((b"n",), *SAMPLES)
VALUES = tuple(canonical_header("<i2", (4,)) + np.arange(n, n + 4, dtype="<i2").tobytes() for n in range(3))
LONG = random.Random(0).randbytes(90_000)
# The last ones are stored as what differs between them.
DATA = (b"", b"x", b"y" * 100, b"z" * 5000, b"w" * 5000, b"big" * 30_000, LONG, LONG[:50_000] + b"more" + LONG[50_000:])
PLANTED = (b"short", LONG[:9000])
TIMES = (1, 2, 3)
NUMBER = tuple(range(12))
BOTH = (True, False)
CHOICES = ("ours", "theirs", "delete")
KEPT = (0, 0, 1, 2, 5, 1000)
"""So many operations are young enough to keep what they name."""

STEPS: tuple[tuple[int, str, tuple[Sequence[Any], ...]], ...] = (
    (6, "write", (BRANCHES, PATHS, DATA, TIMES)),
    (3, "write", (BRANCHES, SAMPLES, VALUES, TIMES)),
    (1, "link", (BRANCHES, PATHS, (b"a", b"t" * 50), TIMES)),
    (2, "make", (BRANCHES, PATHS)),
    (2, "plant", (BRANCHES, PATHS, PLANTED, TIMES)),
    (2, "remove", (BRANCHES, (*PATHS, *DATASET))),
    (2, "rename", (BRANCHES, PATHS, PATHS)),
    (2, "change", (BRANCHES, ((), *PATHS, *DATASET), (None, 0o600, 0o700), (None, b"1", b"2"), (None, *TIMES))),
    (2, "restore", (BRANCHES, (*PATHS, *DATASET), NUMBER)),
    (6, "commit", ((*BRANCHES, "*", "*"), ("", "of its own"), ("", "eve"))),
    (1, "amend", (BRANCHES, ("better", "best"))),
    (2, "create_branch", (BRANCHES, NUMBER)),
    (1, "rename_branch", (BRANCHES, BRANCHES)),
    (1, "remove_branch", (BRANCHES,)),
    (1, "set_head", (BRANCHES,)),
    (1, "create_tag", (("v1", "v2"), NUMBER)),
    (1, "remove_tag", (("v1", "v2"),)),
    (1, "reset", (BRANCHES, NUMBER)),
    (2, "reset_hard", (BRANCHES, NUMBER)),
    (1, "reset_soft", (BRANCHES, NUMBER)),
    (6, "merge", (BRANCHES, (*NUMBER, "@main", "@one", "@two"), (True, True, False), ("merged",))),
    (3, "transplant", (BRANCHES, ("revert", "cherry-pick"), NUMBER, (True, True, False), ("by other means",))),
    (9, "resolve", (("*",), NUMBER, CHOICES)),
    (2, "abort", (("*",),)),
    (4, "undo", ()),
    (1, "restore_operation", (tuple(range(30)),)),
    (3, "maintain", (NUMBER,)),
    (4, "gc", (KEPT, (0, 0, 3600), (False, False, True), BOTH, ("", "again", "rebuild", "lose_index"))),
)
"""How often, which step, and what each of its arguments may be."""


def disagreement(path: Path, ours: bytes | None, theirs: bytes | None, what: str, end: tuple[Step, ...]) -> list[Step]:
    """Steps after which a merge (or cherry-pick) into main mostly is under way: two branches that parted, and one path. Then
    those of its `end`.
    """
    steps: list[Step] = [
        ("commit", "main", "before", ""),
        ("create_branch", "one", "@main"),
        ("commit", "one", "before", ""),
    ]
    for name, data in (("main", ours), ("one", theirs)):
        steps.append(("write", name, path, data, 7) if data is not None else ("remove", name, path))
        steps.append(("commit", name, f"on {name}", "eve" if name == "one" else ""))
    if what == "merge":
        return [*steps, ("merge", "main", "@one", True, "merged"), *end]
    return [*steps, ("transplant", "main", what, "@one", True, "by other means"), *end]


UNDO: Step = ("undo",)
WORK: Step = ("write", "main", (b"b",), b"work", 8)
RESOLVE: tuple[Step, ...] = tuple(("resolve", "*", number, choice) for number, choice in enumerate(CHOICES))
ENDS: tuple[tuple[Step, ...], ...] = (
    (),
    (UNDO, UNDO),
    (WORK, UNDO, UNDO),
    (("abort", "*"), UNDO),
    (WORK, RESOLVE[0], ("abort", "*"), UNDO, UNDO, UNDO),
    (RESOLVE[1], ("commit", "*", "", ""), UNDO),
    (RESOLVE[2], WORK, ("commit", "*", "of its own", "eve"), UNDO, UNDO, UNDO, ("commit", "*", "", "")),
    (RESOLVE[0], ("reset_hard", "main", "@main"), UNDO),
    (("reset_soft", "main", 0), UNDO, ("abort", "*")),
    (("rename_branch", "main", "two"), UNDO, ("restore_operation", 3), UNDO),
    (WORK, ("set_head", "one"), ("remove_branch", "main"), UNDO, RESOLVE[1]),
)
DISAGREEMENTS = (PATHS, (b"ours", None), (b"theirs", None), ("merge", "merge", "cherry-pick"), ENDS)
OFTEN = 8
"""So often comes a disagreement, in the measure of STEPS."""


def garbage(made: tuple[Step, ...], kept: int, alone: bool, then: str, end: tuple[Step, ...]) -> list[Step]:
    """Steps that leave what is needed by little else, a gc without grace, and steps that need it."""
    return [*made, ("gc", kept, 0, False, alone, then), *end]


LARGE: Step = ("write", "main", (b"b",), DATA[-2], 4)
ALIKE: Step = ("write", "main", (b"b",), DATA[-1], 5)
PLANT: Step = ("plant", "two", (b"b",), PLANTED[1], 6)
DROP: Step = ("reset_hard", "main", "@main")
NEEDING: tuple[tuple[Step, ...], ...] = (
    (LARGE, ALIKE),
    (LARGE, ALIKE, DROP),
    (("create_branch", "two", "@main"), PLANT),
    (("create_branch", "two", "@main"), PLANT, ("set_head", "main"), ("remove_branch", "two")),
    (
        ("create_branch", "two", "@main"),
        PLANT,
        ("commit", "two", "p", ""),
        ("restore", "main", (b"b",), -1),
        DROP,
        UNDO,
    ),
    (LARGE, ("commit", "main", "to be replaced", ""), ALIKE, ("amend", "main", "in its place")),
    (LARGE, ("commit", "main", "to be taken back", ""), UNDO),
)
ENDINGS: tuple[tuple[Step, ...], ...] = ((), (UNDO,), (UNDO, UNDO), (("gc", 0, 0, False, True, "rebuild"), UNDO))
GARBAGE = (NEEDING, KEPT, BOTH, ("", "rebuild"), ENDINGS)

SERIES: tuple[tuple[int, Callable[..., list[Step]], tuple[Sequence[Any], ...]], ...] = (
    (OFTEN, disagreement, DISAGREEMENTS),
    (4, garbage, GARBAGE),
)
"""How often, what makes several steps, and of what."""


def random_steps(rng: random.Random, count: int) -> list[Step]:
    """A history, for those who need it the same twice."""
    steps: list[Step] = []
    kinds = [*SERIES, *STEPS]
    for _, what, domains in rng.choices(kinds, [weight for weight, _, _ in kinds], k=count):
        arguments = [rng.choice(domain) for domain in domains]
        steps += [(what, *arguments)] if isinstance(what, str) else what(*arguments)
    return steps


class Player:
    """A repository in the folder `place`, and the model of it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.engine = Engine.create(place, AUTHORS[""])
        tree = self.engine.working_tree("main")
        tree.make_directory((b"n",), attributes=Attributes(schema=NUMBERS))
        for path, data in (((b"n", b"0.npy"), VALUES[0]), ((b"a",), b"first")):
            tree.put_file(path, BytesSource(data), mtime=1)
        for path in ((b"d",), (b"d", b"e")):
            tree.make_directory(path)
        self.commits = [tree.commit("first")]
        self.model = Model(seen(self.engine.snapshot(self.commits[0])))
        self.skipped = len(self.engine.operations())
        self.copies = 0
        self.check()

    @classmethod
    def opened(cls, place: Place, model: Model, commits: list[Digest | None], skipped: int) -> Player:
        """A repository that is there, and what it should be."""
        player = cls.__new__(cls)
        player.place, player.model, player.commits, player.skipped = place, model, commits, skipped
        player.copies = 0
        player.engine = Engine.open(place)
        return player

    def check_after(self, step: Step) -> None:
        """Compare with the model before `step`, or after it: whoever took it was gone before it could say so. Then close."""
        before = copy.deepcopy(self.model)
        try:
            self.check()  # of a gc: the commits that are there
        except AssertionError:
            self.model = before
            step = self.model.spelled_out(step)
            if step[0] == "restore_operation":
                step = (step[0], self.model.operation(step[1]))
            if self.model.play(step) is None:
                self.model.settle(happened=True)
            self._note_commit()
            self.check()
        self.finish()

    def play(self, step: Step) -> None:
        """Take one step, and compare."""
        step = self.model.spelled_out(step)
        name, *arguments = step
        if name == "undo" and not self.model.can_undo():
            return
        number = self.model.operation(arguments[0]) if name == "restore_operation" else 0
        theirs = self.model.revision(arguments[1]) if name == "merge" else 0
        expected, refusal = self.model.play(step), ""
        try:
            if name == "restore_operation":
                self.engine.restore_operation(self.skipped + number)
            else:
                getattr(self, name)(*arguments)
            happened = True
        except ArborError as error:
            happened = False
            refusal = repr(error)
        if expected is None:
            self.model.settle(happened)
        else:
            assert happened == expected, f"{step} is to be {'done: ' + refusal if expected else 'refused'}"
        self._note_commit()
        self.check()
        if name == "merge" and happened and self.model.merging(arguments[0]) is None:
            self._check_laws(arguments[0], theirs)

    def _note_commit(self) -> None:
        """Take up the commit that the model made: it is the newest one here."""
        if len(self.model.commits) == len(self.commits):
            return
        (made,) = set(self.engine.branches().values()) - set(self.commits)
        assert made is not None
        self.commits.append(made)
        expected, found = self.model.commits[-1].tree, seen(self.engine.snapshot(made))
        assert facts(found) == facts(expected)
        self.model.commits[-1] = replace(self.model.commits[-1], tree=found)

    def at(self, number: int) -> Digest:
        return self.commits[number % len(self.commits)]

    def tree(self, name: str) -> WorkingTree:
        return self.engine.working_tree(name)

    # Work

    def write(self, name: str, path: Path, data: bytes, mtime: int) -> None:
        self.tree(name).put_file(path, BytesSource(data), mtime=mtime)

    def link(self, name: str, path: Path, target: bytes, mtime: int) -> None:
        self.tree(name).make_symlink(path, target, mtime=mtime)

    def make(self, name: str, path: Path) -> None:
        self.tree(name).make_directory(path)

    def plant(self, name: str, path: Path, data: bytes, mtime: int) -> None:
        """A directory with a file in it, stored in full, as one row."""
        tree = self.tree(name)
        if tree.schema_of(path[:-1]) is not None or path[-1] in dict(tree.entries(path[:-1])):
            raise Exists("only where nothing is")
        dataset = b"/".join(path).decode()
        import_items(tree, [Imported((b"planted",), BytesSource(data), "", mtime)], dataset)

    def remove(self, name: str, path: Path) -> None:
        self.tree(name).remove_tree(path)

    def rename(self, name: str, old: Path, new: Path) -> None:
        self.tree(name).rename(old, new)

    def change(self, name: str, path: Path, mode: int | None, xattr: bytes | None, mtime: int | None) -> None:
        tree = self.tree(name)
        mtime = None if tree.entry(path).is_directory else mtime
        tree.set_attributes(path, mode=mode, xattrs={b"user.x": xattr}, mtime=mtime)

    def restore(self, name: str, path: Path, number: int) -> None:
        restore(self.tree(name), self.engine.snapshot(self.at(number)), path)

    # Operations

    def commit(self, name: str, message: str, author: str) -> None:
        self.tree(name).commit(message, author=AUTHORS[author] if author else None)

    def amend(self, name: str, message: str) -> None:
        self.tree(name).amend(message)

    def create_branch(self, name: str, number: int) -> None:
        self.engine.create_branch(name, self.at(number))

    def rename_branch(self, old: str, new: str) -> None:
        self.engine.rename_branch(old, new)

    def remove_branch(self, name: str) -> None:
        self.engine.remove_branch(name, force=True)

    def set_head(self, name: str) -> None:
        self.engine.set_head(name)

    def create_tag(self, name: str, number: int) -> None:
        self.engine.create_tag(name, self.at(number))

    def remove_tag(self, name: str) -> None:
        self.engine.remove_tag(name)

    def reset(self, name: str, number: int) -> None:
        self.engine.reset(name, self.at(number))

    def reset_hard(self, name: str, number: int) -> None:
        self.engine.reset_hard(name, self.at(number))

    def reset_soft(self, name: str, number: int) -> None:
        self.engine.reset_soft(name, self.at(number))

    def merge(self, name: str, number: int, leave_open: bool, message: str) -> None:
        self.engine.merging(name).merge(self.at(number), message, leave_open=leave_open)

    def transplant(self, name: str, what: str, number: int, leave_open: bool, message: str) -> None:
        merging, commit = self.engine.merging(name), self.at(number)
        parent = 1 if self.engine.commit_record(commit).parents else None
        if what == "revert":
            merging.revert(commit, message, parent=parent, leave_open=leave_open)
        else:
            merging.cherry_pick(commit, parent=parent, leave_open=leave_open)

    def resolve(self, name: str, number: int, choice: Any) -> None:
        merging = self.engine.merging(name)
        state = merging.under_way()
        conflicts = state.conflicts if state is not None else [([b"none"], "")]
        merging.resolve(tuple(conflicts[number % len(conflicts)][0]), choice)

    def abort(self, name: str) -> None:
        self.engine.merging(name).abort()

    def undo(self) -> None:
        self.engine.undo()

    def gc(self, kept: int, grace: int, dry_run: bool, alone: bool, then: str) -> None:
        """Collect garbage, beside the engine here or `alone`; `then` do something that must change nothing."""
        policy = self._policy(kept, grace)
        if alone:
            self.engine.close()
        else:
            self.engine.let_go()
        before = self._listed()
        done = gc(self.place, policy, dry_run=dry_run)
        assert done.dry_run == dry_run
        assert dry_run or set(done.commits) == before - self._listed()
        if then == "again":
            again = gc(self.place, policy, dry_run=dry_run)
            assert dry_run or again.commits == []
            assert dry_run or not alone or (again.deleted, again.waiting, again.freed) == (0, 0, 0)
        if alone:
            self.engine = Engine.open(self.place)
        if then not in ("", "again"):
            getattr(self, then)()
        assert verify(self.engine) == []

    def _policy(self, kept: int, grace: int) -> Policy:
        """That of a gc for which the newest `kept` operations are young enough."""
        operations, now = self.engine.operations(), time.time_ns()
        young = operations[:kept]
        return Policy(now - young[-1].time if young else 0, grace * SECOND, lambda: now)

    def _listed(self) -> set[Digest]:
        with Engine.open(self.place) as engine:
            return set(engine.commits())

    # Maintenance: what must not change anything that can be seen

    def maintain(self, number: int) -> None:
        """Do one of the things that are done for a repository's sake."""
        MAINTENANCE[number % len(MAINTENANCE)](self)

    def reopen(self) -> None:
        self.engine.close()
        self.engine = Engine.open(self.place)

    def rebuild(self) -> None:
        self.engine.close()
        rebuild(self.place)
        self.engine = Engine.open(self.place)

    def lose_index(self) -> None:
        self.engine.close()
        shutil.rmtree(self.place / ".arborfs" / "index")
        self.engine = Engine.open(self.place)
        assert self.engine.rebuilt is not None

    def crash(self) -> None:
        """Go on with the files as they are at this moment: what a process that is gone now has left."""
        self._go_on_with_a_copy(whole=True)

    def crash_and_lose_index(self) -> None:
        self._go_on_with_a_copy(whole=False)

    def _go_on_with_a_copy(self, *, whole: bool) -> None:
        self.copies += 1
        copy = self.place.parent / f"{self.place.name}-{self.copies}"
        with self.engine.internals()[0].write():  # the thread that syncs now and then waits so long
            shutil.copytree(self.place, copy)
        self.engine.close()
        shutil.rmtree(self.place)
        self.place = copy
        if not whole:
            shutil.rmtree(copy / ".arborfs" / "index")
        self.engine = Engine.open(copy)

    # Comparing

    def check(self) -> None:
        """Everything that can be seen of all branches is what the model says."""
        engine, refs = self.engine, self.model.refs
        assert engine.branches() == {name: self.commits[tip] for name, (tip, _) in refs.branches.items()}
        assert engine.tags() == {name: self.commits[at] for name, (at, _) in refs.tags.items()}
        assert engine.head() == refs.head
        assert set(engine.commits()) == {self.commits[number] for number in self.model.there()}
        for name in refs.branches:
            self._check_tree(name)
            self._check_merge(name)
        assert len(engine.operations()) == self.skipped + len(self.model.done)

    def _check_tree(self, name: str) -> None:
        tree, work = self.tree(name), self.model.tree(name)
        found = seen(tree)
        assert facts(found) == facts(work.tree), name
        state = self.engine.merging(name).under_way()
        still = [path for path, _ in self.engine.merging(name).open()]
        self.model.seen(name, found, still, tuple(state.settled) if state is not None else ())
        assert tree.is_dirty() == self.model.is_dirty(name)
        self._check_status(name)

    def _check_status(self, name: str) -> None:
        """What differs from the tip is told, at its path or above it where a folder came or went whole; and nothing else."""
        before, now = facts(self.model.tip(name).tree), facts(self.model.tree(name).tree)
        rows = {row.path: row.change for row in self.tree(name).status()}
        differing = self.model.differing(name)
        whole = {p for p in rows if (before.get(p, ("",))[0] == "folder") != (now.get(p, ("",))[0] == "folder")}
        for path in differing - rows.keys():
            assert any(path[:depth] in whole for depth in range(len(path))), f"{path} differs and is not told: {rows}"
        for path, change in rows.items():
            assert path in differing, f"{path} does not differ and is told: {rows}"
            assert change == ("added" if path not in before else "removed" if path not in now else "changed"), path

    def _check_merge(self, name: str) -> None:
        state, expected = self.engine.merging(name).under_way(), self.model.merging(name)
        still = self.model.tree(name).open
        assert (state is None) == (expected is None), (name, state, expected)
        if state is None or expected is None:
            assert still == []
            return
        assert (state.what, state.message, state.settled) == (expected.what, expected.message, list(expected.settled))
        assert [(tuple(path), word) for path, word in state.conflicts] == expected.conflicts
        assert state.parents == tuple(self.commits[parent] for parent in expected.parents)
        assert set(self.model.open_at_least(name)) <= set(still) <= set(self.model.open_at_most(name))

    def _check_laws(self, name: str, number: int) -> None:
        """What was merged is so already; sides can be exchanged; where one did not change, the other is taken."""
        engine = self.engine
        assert engine.merging(name).merge(self.at(number)).outcome is Outcome.ALREADY
        tip = self.model.refs.branches[name][0]
        parents = self.model.commits[tip].parents
        ours, other = parents if len(parents) == 2 else (tip, number)
        bases = [engine.commit_record(self.at(base)).root for base in self.model.bases(ours, other)]
        sides = [engine.commit_record(self.at(side)).root for side in (ours, other)]
        load = engine.objects.node
        one, turned = merge(load, bases, *sides), merge(load, bases, *reversed(sides))
        assert {c.path for c in one.conflicts} == {c.path for c in turned.conflicts}
        assert one.conflicts or one.root == turned.root
        assert merge(load, [sides[0]], *sides).root == sides[1]
        assert merge(load, [sides[1]], *sides).root == sides[0]

    def _check_differences(self) -> None:
        """What a comparison tells of two commits made one after the other is what differs between them."""
        there = sorted(self.model.there())
        for one_number, other_number in pairwise(there):
            old, new = self.commits[one_number], self.at(other_number)
            before, after = self.model.commits[one_number], self.model.commits[other_number]
            one, other = facts(before.tree), facts(after.tree)
            told = {each.path: each.change for each in self.engine.diff(old, new)}
            differing = [path for path in one.keys() | other.keys() if one.get(path) != other.get(path)]
            assert sorted(told) == sorted(differing)
            for path, change in told.items():
                assert change == ("added" if path not in one else "removed" if path not in other else "changed")

    def check_commits(self) -> None:
        """Every commit that was ever made is what it was, or was left to gc."""
        there = self.model.there()
        for number, expected in enumerate(self.model.commits):
            digest = self.at(number)
            if number not in there:
                with pytest.raises(NotFound):
                    self.engine.snapshot(digest)
                continue
            snapshot = self.engine.snapshot(digest)
            assert seen(snapshot) == expected.tree
            record = snapshot.record
            assert record.parents == tuple(self.commits[parent] for parent in expected.parents)
            assert (record.author, record.message) == (AUTHORS[expected.author], expected.message)

    def finish(self) -> None:
        """Compare everything once more, and close the repository."""
        self.check_commits()
        self._check_differences()
        assert verify(self.engine) == []
        self.engine.close()


MAINTENANCE: tuple[Callable[[Player], None], ...] = (
    Player.reopen,
    Player.rebuild,
    Player.lose_index,
    Player.crash,
    Player.crash_and_lose_index,
)


def seen(tree: WorkingTree | Snapshot) -> Folder:
    """A tree as it shows itself."""
    return _folder(tree, ())


def _folder(tree: WorkingTree | Snapshot, path: Path) -> Folder:
    entry = tree.entry(path)
    children: dict[bytes, Node] = {}
    for name, below in tree.entries(path):
        here, kept = (*path, name), below.attributes
        if below.is_directory:
            children[name] = _folder(tree, here)
        elif below.kind is Kind.SYMLINK:
            assert isinstance(below.value, bytes)
            children[name] = File("link", below.value, kept.mode, kept.xattrs, below.mtime)
        else:
            content = tree.open(here)[1]
            data = bytes(content.read(0, content.size))
            kind = "sample" if below.kind is Kind.SAMPLE else "file"
            children[name] = File(kind, data, kept.mode, kept.xattrs, below.mtime)
    kept = entry.attributes
    return Folder(children, kept.mode, kept.xattrs, entry.mtime, kept.schema is not None)
