"""Merging two versions of one file: state files of Treants, and files for which a plug-in has a merger."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import Repository, mergers
from storage.engine import Engine
from storage.errors import MergeConflict, NothingToCommit, Unsupported
from storage.maintenance.verify import verify
from storage.model.history import merge_bases
from storage.stores.merging import Outcome
from storage.treants.state import State, decode_state, encode_state
from tests.conftest import arborfs

UUID = "00000000-0000-4000-8000-000000000001"
NAME = f"t/Treant.{UUID}.h5"


class Two:
    """A repository with a Treant `t` on `main`, and a branch `side` of it."""

    def __init__(self, repository: Path) -> None:
        self.path = repository
        self.repo = Repository(repository)
        self.engine = Engine.open(repository)
        self.write("main", State(UUID, tags=("base",), categories={"n": 1}))
        self.engine.create_branch("side", self.engine.branches()["main"])

    def write(self, branch: str, state: State | None) -> None:
        """Write the state on a branch (None: remove it), and commit."""
        tree = self.repo.files(branch=branch)
        tree.write_many({NAME: None if state is None else encode_state(state)})
        tree.commit("labels")

    def label(self, branch: str, *tags: str, **categories: bool | int | float | str) -> None:
        """Make these the labels on a branch."""
        self.write(branch, State(UUID, tags=tuple(sorted(tags)), categories=categories))

    def state(self, branch: str = "main") -> State:
        """The state as a branch has it."""
        return decode_state(self.repo.files(branch=branch).read(NAME))

    def merge(self, into: str = "main", theirs: str = "side", **options: bool) -> Outcome:
        """Merge one branch into another."""
        return self.engine.merging(into).merge(self.engine.resolve(theirs), **options).outcome


@pytest.fixture
def two(repository: Path) -> Iterator[Two]:
    made = Two(repository)
    yield made
    made.engine.close()
    made.repo.close()


def test_two_branches_that_label_differently_merge(two):
    two.label("main", "base", "ours", n=1, mine=True)
    two.label("side", "theirs", n=2)
    assert two.merge() is Outcome.COMMITTED
    assert two.state() == State(UUID, tags=("ours", "theirs"), categories={"n": 2, "mine": True})
    assert two.repo.files().labels().having(("tag",), "theirs") == {"t"}
    assert not verify(two.engine)


def test_the_command_line_merges_them(two):
    two.label("main", "base", "ours", n=1)
    two.label("side", "base", "theirs", n=1)
    arborfs("-C", two.path, "merge", "side")
    assert two.state().tags == ("base", "ours", "theirs")


def test_one_category_with_two_values_is_a_conflict(two):
    two.label("main", "ours", n=2)
    two.label("side", "theirs", n=3)
    with pytest.raises(MergeConflict, match="both-changed"):
        two.merge()
    assert two.state().categories == {"n": 2}
    assert two.merge(leave_open=True) is Outcome.UNDER_WAY
    (conflict,) = two.engine.merging("main").conflicts()
    two.engine.merging("main").resolve(conflict.path, "theirs")
    two.repo.files().commit("")
    assert two.state().tags == ("theirs",)


def test_a_treant_that_both_sides_copied_merges(two):
    two.label("main", "base", n=1)
    for branch, tag in (("main", "a"), ("side", "b")):
        tree = two.repo.files(branch=branch)
        tree.write_many({f"copy/Treant.{UUID}.h5": encode_state(State(UUID, tags=(tag,)))})
        tree.commit("copied")
    two.merge()
    assert decode_state(two.repo.files().read(f"copy/Treant.{UUID}.h5")).tags == ("a", "b")


@pytest.mark.parametrize("damage", [b"", b"junk"])
def test_a_damaged_state_file_is_a_conflict(two, damage):
    two.label("main", "ours", n=1)
    tree = two.repo.files(branch="side")
    tree.write(NAME, damage)
    tree.commit("damage")
    with pytest.raises(MergeConflict):
        two.merge()


def test_removed_on_one_side_is_a_conflict_as_of_any_file(two):
    two.label("main", "ours", n=1)
    two.write("side", None)
    with pytest.raises(MergeConflict, match="removed-by-them"):
        two.merge()


@pytest.mark.parametrize("count", [300, 3000])
def test_long_states_are_merged_and_whole(two, count):
    ours, theirs = ([f"{side} {'x' * 30} {i}" for i in range(count)] for side in ("ours", "theirs"))
    two.label("main", *ours, n=1)
    two.label("side", *theirs, n=1)
    assert two.merge() is Outcome.COMMITTED
    assert two.state().tags == tuple(sorted([*ours, *theirs]))
    assert not verify(two.engine)


def test_reverting_and_picking_take_labels_one_by_one(two):
    two.label("side", "base", "picked", n=1)
    picked = two.engine.resolve("side")
    two.label("side", "base", "picked", "later", n=1)
    two.label("main", "base", "ours", n=1)
    two.engine.merging("main").cherry_pick(picked)
    assert two.state().tags == ("base", "ours", "picked")
    two.label("main", "base", "ours", "picked", "last", n=1)
    two.engine.merging("main").revert(two.engine.resolve("main~1"))
    assert two.state().tags == ("base", "last", "ours")


def test_mode_and_attributes_are_merged_beside(two):
    two.label("main", "base", "ours", n=1)
    two.label("side", "base", "theirs", n=1)
    tree = two.repo.files(branch="side")
    tree.set_attributes(NAME, {"note": b"theirs"})
    tree.commit("noted")
    two.merge()
    assert two.repo.files().attributes(NAME) == {"note": b"theirs"} and len(two.state().tags) == 3


# Plug-ins

PLUGIN = """
def merge(base, ours, theirs):
    lines = set((base or b"").splitlines())
    mine, yours = set(ours.splitlines()), set(theirs.splitlines())
    return b"\\n".join(sorted((mine & yours) | ((mine | yours) - lines)))
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package whose merger is for `*.lines`, and one that is broken for `*.broken`."""
    site = tmp_path / "site"
    (site / "lines-1.0.dist-info").mkdir(parents=True)
    (site / "lines-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: lines\nVersion: 1.0\n")
    (site / "lines-1.0.dist-info/entry_points.txt").write_text(
        "[arborfs.mergers]\n*.lines = merge_of_lines:merge\n*.broken = merge_of_lines:nothing\n"
    )
    (site / "merge_of_lines.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    mergers._plugins.cache_clear()
    yield
    mergers._plugins.cache_clear()


def test_a_plug_in_merges_its_files(two, plugin):
    for branch, lines in (("main", b"a\nb"), ("side", b"b\nc")):
        tree = two.repo.files(branch=branch)
        tree.write("x.lines", lines)
        tree.write(f"{branch}.txt", b"")
        tree.commit("lines")
    two.merge()
    assert two.repo.files().read("x.lines") == b"a\nb\nc"


def test_a_plug_in_that_cannot_be_loaded_is_named(two, plugin):
    for branch in ("main", "side"):
        tree = two.repo.files(branch=branch)
        tree.write("x.broken", branch.encode())
        tree.commit("x")
    with pytest.raises(Unsupported, match="merge_of_lines:nothing"):
        two.merge()


# Histories at random


def expected(two: Two, into: str, theirs: str) -> tuple[set[str], dict[str, object]] | None:
    """Tags and categories that merging has to give, label by label; None for a conflict, or where the bases differ."""
    engine = two.engine
    tips = engine.resolve(into), engine.resolve(theirs)
    commits = [*merge_bases(engine.commit_record, *tips), *tips]
    states = [decode_state(two.repo.files(commit=commit.hex()).read(NAME)) for commit in commits]
    *bases, ours, other = states
    if any(base != bases[0] for base in bases):
        return None
    base = bases[0]
    tags = set()
    for tag in {*base.tags, *ours.tags, *other.tags}:
        was, mine, yours = tag in base.tags, tag in ours.tags, tag in other.tags
        if mine if yours == was else yours:
            tags.add(tag)
    categories: dict[str, object] = {}
    for key in {*base.categories, *ours.categories, *other.categories}:
        was, mine, yours = (state.categories.get(key) for state in (base, ours, other))
        if mine != yours and was not in (mine, yours):
            return None
        value = mine if yours == was else yours
        if value is not None:
            categories[key] = value
    return tags, categories


def relabelled(state: State, chance: random.Random) -> State:
    """The state with some labels added and removed."""
    tags = set(state.tags) ^ set(chance.sample("abcdef", chance.randrange(1, 3)))
    categories = dict(state.categories)
    if chance.random() < 0.3:
        categories[chance.choice("xyz")] = chance.randrange(2)
    if categories and chance.random() < 0.2:
        del categories[chance.choice(sorted(categories))]
    return State(UUID, tags=tuple(sorted(tags)), categories=categories)


@pytest.mark.parametrize("seed", range(12))
def test_no_label_is_lost_in_any_history(two, seed):
    chance = random.Random(seed)
    two.engine.create_branch("third", two.engine.branches()["main"])
    branches = ["main", "side", "third"]
    merged = 0
    for _ in range(25):
        into, theirs = chance.sample(branches, 2)
        if chance.random() < 0.6:
            try:
                two.write(into, relabelled(two.state(into), chance))
            except NothingToCommit:
                continue
        else:
            wanted = expected(two, into, theirs)
            try:
                two.merge(into, theirs)
            except MergeConflict:
                assert wanted is None
            else:
                state = two.state(into)
                assert wanted is None or (set(state.tags), state.categories) == wanted
                merged += 1
    assert merged
    for branch in branches:
        assert set(two.repo.files(branch=branch).labels().values(("tag",))) == set(two.state(branch).tags)
