"""Taking back what began, finished or aborted a merge with conflicts: it is as it was; and whose commit a pick is."""

from __future__ import annotations

import pytest

from storage.engine import Engine
from storage.errors import MergeUnderWay, OpenConflicts
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.records import Author
from storage.model.samples import BytesSource
from tests.unit.test_merging import Two, files, parts, put

EVE = Author("Eve", "eve@example.org")


@pytest.fixture
def two(engine):
    """Three conflicts: `d/both` and `top` changed on both sides, `e/x` removed here; and a change of theirs alone."""
    two = Two(engine)
    for tree, who in ((two.main, "ours"), (two.dev, "theirs")):
        put(tree, "d/both", who)
        put(tree, "top", who)
    two.main.remove(parts("e/x"))
    put(two.dev, "e/x", "theirs")
    put(two.dev, "d/theirs", "by dev")
    two.merge(leave_open=True)
    return two


def seen(two) -> tuple:
    state = two.merging.under_way()
    told = [(row.change, row.path) for row in two.main.status()]
    return files(two.main), told, two.merging.open(), state and (state.what, state.theirs, state.parents, state.message)


def resolved_in_each_way(two) -> None:
    """One conflict by a write, one by saying so about a removed file, one not at all; and some work besides."""
    put(two.main, "d/both", "of both")
    two.merging.resolve(parts("e/x"), "ours")
    put(two.main, "more", "more")


def end(two, how: str) -> None:
    if how == "abort":
        two.merging.abort()
    elif how == "reset":
        two.engine.reset_hard("main", two.main.tip())
    elif how == "soft":
        two.engine.reset_soft("main", two.base)
    elif how == "undo":
        two.engine.undo()
    elif how == "removed":
        two.engine.create_branch("other")
        two.engine.set_head("other")
        two.engine.remove_branch("main", force=True)
    else:
        two.merging.resolve(parts("top"), "theirs")
        two.main.commit("merged")


@pytest.mark.parametrize("how", ["abort", "reset", "soft", "removed"])
def test_a_merge_that_was_given_up_comes_back_as_it_was(two, how, repository):
    resolved_in_each_way(two)
    before = seen(two)
    assert [path for path, _ in before[2]] == [parts("top")]
    end(two, how)
    if how != "removed":
        assert two.merging.under_way() is None
        assert two.merging.open() == []
    two.engine.undo()
    assert seen(two) == before
    with pytest.raises(OpenConflicts):
        two.main.commit("too early")
    two.engine.close()
    rebuild(repository)
    with Engine.open(repository) as engine:
        two.engine, two.main = engine, engine.working_tree("main")
        assert seen(two) == before
        two.merging.resolve(parts("top"), "theirs")
        made = engine.commit_record(two.main.commit("merged"))
        assert len(made.parents) == 2
        assert files(two.main) == before[0] | {"top": b"theirs"}
        assert verify(engine) == []


def test_a_merge_that_was_finished_comes_back_resolved(two):
    resolved_in_each_way(two)
    two.merging.resolve(parts("top"), "theirs")
    before, tip = seen(two), two.main.tip()
    assert before[2] == []
    merged = two.main.commit("merged")
    assert two.merging.under_way() is None
    two.engine.undo()
    assert (seen(two), two.main.tip()) == (before, tip)
    with pytest.raises(MergeUnderWay):
        two.main.amend("not while it is under way")
    two.engine.undo()
    assert (two.main.tip(), two.main.status(), two.merging.under_way()) == (merged, [], None)
    two.engine.undo()
    put(two.main, "top", "another mind")
    record = two.engine.commit_record(two.main.commit("merged otherwise"))
    assert record.parents == two.engine.commit_record(merged).parents
    assert files(two.main) == before[0] | {"top": b"another mind"}
    assert verify(two.engine) == []


def test_undoing_the_beginning_takes_it_away_and_undoing_that_brings_it_back(two):
    fresh = seen(two)
    two.engine.undo()
    assert (two.main.status(), two.merging.under_way(), two.merging.open()) == ([], None, [])
    two.engine.undo()
    assert seen(two) == fresh
    put(two.main, "d/both", "of both")
    before = seen(two)
    two.engine.undo()
    assert two.merging.under_way() is None
    two.engine.undo()
    assert seen(two) == before


def test_each_resolved_conflict_is_taken_back_by_itself(two):
    before = seen(two)
    two.merging.resolve(parts("top"), "ours")
    assert len(two.merging.open()) == 2
    two.engine.undo()
    assert two.merging.open() == before[2]


def test_a_merge_that_has_come_back_can_be_aborted(two):
    tip = files(two.engine.snapshot(two.main.tip()))
    resolved_in_each_way(two)
    two.merging.abort()
    two.engine.undo()
    two.merging.abort()
    assert (files(two.main), two.main.status(), two.merging.under_way()) == (tip, [], None)


def picked(engine: Engine):
    """A pick by Ada of a commit of Eve's that is under way, with its conflict resolved."""
    two = Two(engine)
    put(two.dev, "top", "by Eve")
    commit = two.dev.commit("Eve's change\n\nIn her words.", author=EVE)
    put(two.main, "top", "by Ada")
    two.commit()
    two.merging.cherry_pick(commit, leave_open=True)
    two.merging.resolve(parts("top"), "theirs")
    return two


def test_a_pick_finished_by_a_commit_keeps_author_and_message(engine):
    two = picked(engine)
    made = engine.commit_record(two.main.commit(""))
    assert (made.author, made.message) == (EVE, "Eve's change\n\nIn her words.")
    engine.undo()
    again = engine.commit_record(two.main.commit("in other words", author=engine.author))
    assert (again.author, again.message) == (engine.author, "in other words")
    engine.undo()
    assert engine.commit_record(two.main.commit("in other words")).author == EVE


def test_a_merge_finished_by_a_commit_is_by_whoever_commits(two):
    for path, _ in two.merging.open():
        two.merging.resolve(path, "theirs")
    made = two.engine.commit_record(two.main.commit("", author=None))
    assert (made.author, made.message) == (two.engine.author, "merged")


def test_what_is_staged_while_it_is_aborted_comes_back_with_it(two, monkeypatch):
    """Written after the working tree was folded: the abort folds it once more."""
    from storage.stores.objects import Objects

    real, late = Objects.put_nodes, [b"late"]

    def put_nodes(self, nodes):
        real(self, nodes)
        if late:
            two.main.put_file((b"late",), BytesSource(late.pop()))

    monkeypatch.setattr(Objects, "put_nodes", put_nodes)
    put(two.main, "more", "more")
    two.merging.abort()
    assert "late" not in files(two.main)
    two.engine.undo()
    assert files(two.main)["late"] == b"late"
