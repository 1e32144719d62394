"""Moving branches and taking operations back: reset, amend, undo, op restore; seen by others, and after a rebuild."""

import shutil
import threading

import pytest

from storage.engine import Engine
from storage.errors import BranchInUse, Conflict, NotFound, NothingToCommit, NothingToUndo, NotMerged, StagedWork
from storage.maintenance.verify import verify
from tests.unit.test_engine import contents, put, state


@pytest.fixture
def tree(engine):
    """The working tree of main, with two commits: d/a and d/b, then d/a changed, d/b removed, d/c added."""
    tree = engine.working_tree("main")
    tree.make_directory((b"d",))
    put(tree, "d/a", b"first")
    put(tree, "d/b", b"b" * 5000)
    tree.commit("one")
    put(tree, "d/a", b"second")
    put(tree, "d/c", b"c")
    tree.remove((b"d", b"b"))
    tree.commit("two")
    return tree


ONE = {(b"d",): None, (b"d", b"a"): b"first", (b"d", b"b"): b"b" * 5000}
TWO = {(b"d",): None, (b"d", b"a"): b"second", (b"d", b"c"): b"c"}


def rows(tree) -> list[tuple[str, str]]:
    return [(row.change, b"/".join(row.path).decode()) for row in tree.status()]


def rebuilt(engine) -> None:
    """Close the engine; what a rebuild makes of the repository is what it was."""
    before, path = state(engine), engine.path
    assert verify(engine) == []
    engine.close()
    shutil.rmtree(path / ".arborfs" / "index")
    with Engine.open(path) as again:
        assert again.rebuilt
        assert state(again) == before
        assert verify(again) == []


def test_an_undone_commit_brings_its_changes_back_as_staged_work(engine, tree):
    one, two = engine.resolve("main~1"), engine.resolve("main")
    undone = engine.undo()
    assert undone.description == "commit: two"
    assert engine.branches() == {"main": one}
    assert contents(tree) == TWO
    assert rows(tree) == [("changed", "d/a"), ("removed", "d/b"), ("added", "d/c")]
    assert engine.operations(1)[0].description == f"undo {undone.number}: commit: two"
    again = tree.commit("two, once more")
    assert contents(engine.snapshot(again)) == TWO
    assert engine.snapshot(again).record.root == engine.snapshot(two).record.root
    rebuilt(engine)


def test_an_undone_undo_is_the_commit_again(engine, tree):
    two = engine.resolve("main")
    engine.undo()
    engine.undo()
    assert engine.branches() == {"main": two}
    assert rows(tree) == []
    assert contents(tree) == TWO
    rebuilt(engine)


def test_what_was_staged_meanwhile_stays_on_top(engine, tree):
    put(tree, "d/a", b"third")
    put(tree, "new", b"new")
    engine.undo()
    expected = TWO | {(b"d", b"a"): b"third", (b"new",): b"new"}
    assert contents(tree) == expected
    assert rows(tree) == [("changed", "d/a"), ("removed", "d/b"), ("added", "d/c"), ("added", "new")]
    put(tree, "d/c", b"changed after the undo")
    expected[b"d", b"c"] = b"changed after the undo"
    assert contents(tree) == expected
    assert contents(engine.snapshot(tree.commit("all"))) == expected
    rebuilt(engine)


def test_the_first_commit_can_be_undone_and_the_beginning_cannot(engine):
    tree = engine.working_tree("main")
    put(tree, "f", b"x")
    first = tree.commit("first")
    engine.undo()
    assert engine.branches() == {"main": None}
    assert contents(tree) == {(b"f",): b"x"}
    assert rows(tree) == [("added", "f")]
    assert tree.entry(()).count == 1
    with pytest.raises(NothingToUndo):
        engine.undo(1)
    with pytest.raises(NotFound):
        engine.undo(99)
    engine.undo()
    assert engine.branches() == {"main": first}
    rebuilt(engine)


def test_undoing_a_commit_costs_the_same_whatever_was_in_it(engine, tree):
    for i in range(300):
        put(tree, f"d/{i}", b"%d" % i)
    tree.commit("many")
    log = engine.path / ".arborfs" / "segments"
    before = sum(path.stat().st_size for path in log.iterdir())
    engine.undo()
    assert sum(path.stat().st_size for path in log.iterdir()) - before < 1000
    assert len(tree.status()) == 300


def test_branches_come_and_go(engine, tree):
    tip = engine.resolve("main")
    engine.create_branch("side", engine.resolve("main~1"))
    engine.undo()
    assert list(engine.branches()) == ["main"]
    engine.undo()
    assert engine.branches() == {"main": tip, "side": engine.resolve("main~1")}
    assert contents(engine.working_tree("side")) == ONE
    engine.rename_branch("side", "other")
    put(engine.working_tree("other"), "staged", b"on it")
    engine.undo()
    assert list(engine.branches()) == ["main", "side"]
    assert contents(engine.working_tree("side")) == ONE | {(b"staged",): b"on it"}
    engine.set_head("side")
    engine.undo()
    assert engine.head() == "main"
    rebuilt(engine)


def test_a_branch_removed_by_force_comes_back_with_its_staged_work(engine, tree):
    engine.create_branch("side", engine.resolve("main~1"))
    side = engine.working_tree("side")
    put(side, "d/a", b"not committed")
    put(side, "long", b"staged" * 2000)
    with pytest.raises(NotMerged, match="staged"):
        engine.remove_branch("side")
    engine.remove_branch("side", force=True)
    assert list(engine.branches()) == ["main"]
    engine.undo()
    side = engine.working_tree("side")
    assert contents(side) == ONE | {(b"d", b"a"): b"not committed", (b"long",): b"staged" * 2000}
    assert rows(side) == [("changed", "d/a"), ("added", "long")]
    engine.undo()
    engine.undo()
    assert rows(engine.working_tree("side")) == [("changed", "d/a"), ("added", "long")]
    rebuilt(engine)


def test_tags_come_and_go(engine, tree):
    engine.create_tag("v1", engine.resolve("main"), "as in the paper")
    made = engine.tag("v1")
    engine.remove_tag("v1")
    engine.undo()
    assert engine.tag("v1") == made
    engine.undo()
    assert engine.tags() == {}
    rebuilt(engine)


def test_an_inverse_that_does_not_fit_any_more_is_a_conflict(engine, tree):
    second = engine.operations(1)[0]
    put(tree, "d/a", b"third")
    three = tree.commit("three")
    with pytest.raises(Conflict) as caught:
        engine.undo(second.number)
    assert caught.value.ref == "branch/main"
    assert "Take back first" in str(caught.value), "trying again would not help"
    assert caught.value.expected == second.changes[0][2]
    assert caught.value.found == three.hex()
    assert engine.branches() == {"main": three}
    engine.create_tag("v1", three)
    tagging = engine.operations(1)[0].number
    put(tree, "d/a", b"fourth")
    tree.commit("four")
    engine.undo(tagging)  # the commit made meanwhile is not in its way
    assert engine.tags() == {}


def test_a_branch_that_came_back_under_another_name_does_not_come_back_twice(engine, tree):
    engine.create_branch("x")
    engine.remove_branch("x")
    removal = engine.operations(1)[0].number
    engine.undo()
    engine.rename_branch("x", "y")
    with pytest.raises(Conflict, match="'y'"):
        engine.undo(removal)
    assert list(engine.branches()) == ["main", "y"]


def test_reset_refuses_to_lose_staged_work(engine, tree):
    one = engine.resolve("main~1")
    put(tree, "d/a", b"staged")
    with pytest.raises(StagedWork, match="soft"):
        engine.reset("main", one)
    assert contents(tree) == TWO | {(b"d", b"a"): b"staged"}
    tree.commit("three")
    engine.reset("main", one)
    assert engine.branches() == {"main": one}
    assert contents(tree) == ONE
    assert rows(tree) == []
    engine.undo()
    assert contents(tree) == TWO | {(b"d", b"a"): b"staged"}
    assert rows(tree) == []
    rebuilt(engine)


def test_a_soft_reset_leaves_the_files_alone(engine, tree):
    one, two = engine.resolve("main~1"), engine.resolve("main")
    put(tree, "new", b"staged")
    engine.reset_soft("main", one)
    assert contents(tree) == TWO | {(b"new",): b"staged"}
    assert rows(tree) == [("changed", "d/a"), ("removed", "d/b"), ("added", "d/c"), ("added", "new")]
    engine.reset_soft("main", two)
    assert rows(tree) == [("added", "new")]
    engine.undo()
    engine.undo()
    assert engine.branches() == {"main": two}
    rebuilt(engine)


def test_a_hard_reset_drops_what_is_staged_and_undo_brings_it_back(engine, tree):
    one, two = engine.resolve("main~1"), engine.resolve("main")
    put(tree, "d/a", b"staged")
    put(tree, "d/deep", b"below")
    tree.rename((b"d",), (b"moved",))
    before = contents(tree)
    engine.reset_hard("main", one)
    assert contents(tree) == ONE
    assert rows(tree) == []
    assert engine.branches() == {"main": one}
    put(tree, "d/later", b"later")
    engine.undo()
    assert engine.branches() == {"main": two}
    assert contents(tree) == before | ONE | {(b"d", b"later"): b"later"}
    rebuilt(engine)


def test_undoing_a_hard_reset_keeps_later_work_on_top(engine, tree):
    two = engine.resolve("main")
    put(tree, "d/a", b"staged")
    engine.reset_hard("main", engine.resolve("main~1"))
    put(tree, "d/later", b"later")
    put(tree, "d/b", b"changed later")
    engine.undo()
    assert engine.branches() == {"main": two}
    expected = TWO | {(b"d", b"a"): b"staged", (b"d", b"later"): b"later", (b"d", b"b"): b"changed later"}
    assert contents(tree) == expected
    engine.undo()
    assert contents(tree) == ONE | {(b"d", b"later"): b"later", (b"d", b"b"): b"changed later"}
    engine.undo()
    assert contents(tree) == expected
    assert contents(engine.snapshot(tree.commit("all of it"))) == expected
    rebuilt(engine)


def test_undoing_a_hard_reset_over_work_of_an_undone_commit_is_refused(engine, tree):
    put(tree, "d/a", b"staged")
    engine.reset_hard("main", engine.resolve("main"))
    reset = engine.operations(1)[0].number
    put(tree, "d/c", b"three")
    tree.commit("three")
    engine.undo()
    with pytest.raises(StagedWork, match="taken back"):
        engine.undo(reset)
    assert contents(tree) == TWO | {(b"d", b"c"): b"three"}


def test_work_staged_on_each_branch_stays_its_own(engine, tree):
    engine.create_branch("side")
    side = engine.working_tree("side")
    put(tree, "d/a", b"on main")
    put(side, "d/a", b"on side")
    engine.set_head("side")
    engine.reset_hard("side", engine.resolve("main"))
    assert contents(side) == TWO
    assert contents(tree) == TWO | {(b"d", b"a"): b"on main"}
    tree.commit("on main")
    engine.undo(engine.operations(2)[1].number)
    assert contents(side) == TWO | {(b"d", b"a"): b"on side"}
    assert rows(tree) == []
    rebuilt(engine)


def test_amend(engine, tree):
    one, two = engine.resolve("main~1"), engine.resolve("main")
    put(tree, "d/a", b"amended")
    amended = tree.amend()
    record = engine.commit_record(amended)
    assert (record.parents, record.message) == ((one,), "two")
    assert contents(engine.snapshot(amended)) == TWO | {(b"d", b"a"): b"amended"}
    assert rows(tree) == []
    with pytest.raises(NothingToCommit):
        tree.amend("two")
    assert engine.commit_record(tree.amend("another message")).parents == (one,)
    for operation in engine.operations(2):
        engine.undo(operation.number)
    assert engine.branches() == {"main": two}
    assert contents(tree) == TWO | {(b"d", b"a"): b"amended"}
    assert rows(tree) == [("changed", "d/a")]
    rebuilt(engine)


def test_there_is_nothing_to_amend_before_the_first_commit(engine):
    put(engine.working_tree("main"), "f", b"x")
    with pytest.raises(NothingToCommit, match="no commit"):
        engine.working_tree("main").amend("m")


def test_all_refs_as_they_were_after_an_operation(engine, tree):
    one = engine.resolve("main~1")
    engine.create_branch("side", one)
    put(engine.working_tree("side"), "s", b"staged on side")
    engine.create_tag("v1", one, "first")
    then = state(engine)
    mark = engine.operations(1)[0].number
    engine.remove_tag("v1")
    engine.rename_branch("side", "renamed")
    engine.remove_branch("renamed", force=True)
    engine.create_branch("side")
    engine.set_head("side")
    put(tree, "d/a", b"third")
    tree.commit("three")
    engine.restore_operation(mark)
    for what in ("branches", "tags", "head"):
        assert state(engine)[what] == then[what]
    assert contents(tree) == TWO | {(b"d", b"a"): b"third"}
    assert contents(engine.working_tree("side")) == ONE | {(b"s",): b"staged on side"}
    with pytest.raises(NothingToUndo):
        engine.restore_operation(mark)
    with pytest.raises(NotFound):
        engine.restore_operation(1000)
    engine.undo()
    assert sorted(engine.branches()) == ["main", "side"]
    assert engine.head() == "side"
    assert rows(tree) == []
    rebuilt(engine)


def test_names_that_moved_round_come_back_to_their_own_branches(engine, tree):
    one, two = engine.resolve("main~1"), engine.resolve("main")
    engine.create_branch("x", one)
    engine.create_branch("y", two)
    put(engine.working_tree("x"), "on-x", b"x")
    put(engine.working_tree("y"), "on-y", b"y")
    mark = engine.operations(1)[0].number
    engine.remove_branch("y", force=True)
    engine.rename_branch("x", "y")
    engine.restore_operation(mark)
    assert engine.branches() == {"main": two, "x": one, "y": two}
    assert contents(engine.working_tree("x")) == ONE | {(b"on-x",): b"x"}
    assert contents(engine.working_tree("y")) == TWO | {(b"on-y",): b"y"}
    rebuilt(engine)


def test_the_default_branch_is_not_undone_away(engine, tree):
    engine.create_branch("side")
    made = engine.operations(1)[0].number
    engine.set_head("side")
    with pytest.raises(BranchInUse, match="default"):
        engine.undo(made)
    assert engine.head() == "side"


def test_a_branch_that_a_writer_holds_is_not_undone_away(engine, tree):
    engine.create_branch("side")
    owner = engine.acquire_writer("side")
    with pytest.raises(BranchInUse, match="writer"):
        engine.undo()
    engine.release_writer("side", owner)
    engine.undo()
    assert list(engine.branches()) == ["main"]


def test_what_is_staged_while_a_branch_is_reset_is_not_lost_unseen(engine, tree, monkeypatch):
    """Work that comes between looking and resetting is dropped only once it is in what undo brings back."""
    put(tree, "d/a", b"early")
    stored = engine.objects.put_nodes
    times = iter(range(3))

    def interrupted(fresh):
        stored(fresh)
        for number in times:
            put(tree, f"late-{number}", b"late")
            return

    monkeypatch.setattr(engine.objects, "put_nodes", interrupted)
    engine.reset_hard("main", engine.resolve("main~1"))
    monkeypatch.undo()
    assert contents(tree) == ONE
    engine.undo()
    assert contents(tree) == TWO | {(b"d", b"a"): b"early"} | {(b"late-%d" % i,): b"late" for i in range(3)}


def test_a_branch_that_keeps_being_written_to_is_a_conflict(engine, tree, monkeypatch):
    put(tree, "d/a", b"early")
    stored = engine.objects.put_nodes

    def interrupted(fresh):
        stored(fresh)
        put(tree, "late", b"late")

    monkeypatch.setattr(engine.objects, "put_nodes", interrupted)
    with pytest.raises(Conflict):
        engine.reset_hard("main", engine.resolve("main~1"))
    assert contents(tree) == TWO | {(b"d", b"a"): b"early", (b"late",): b"late"}


CALLS = {
    "reset": lambda engine: engine.reset("main", engine.resolve("main~1")),
    "reset_soft": lambda engine: engine.reset_soft("main", engine.resolve("main~1")),
    "reset_hard": lambda engine: engine.reset_hard("main", engine.resolve("main~1")),
    "undo": lambda engine: engine.undo(),
    "restore": lambda engine: engine.restore_operation(2),
    "amend": lambda engine: engine.working_tree("main").amend("other words"),
    "remove": lambda engine: engine.remove_branch("main", force=True),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_lost_race_is_a_conflict(engine, tree, monkeypatch, call):
    """Another engine gives the branch another name, and the name another branch, in the middle of the call."""
    engine.create_branch("keeper")
    engine.set_head("keeper")
    engine.undo(engine.operations(1)[0].number)
    if call == "remove":
        engine.set_head("keeper")
    elif call == "undo":
        engine.reset("main", engine.resolve("main~1"))
    expected = engine.branches()["main"]
    with Engine.open(engine.path) as other:
        sync = type(engine._log).sync
        lost = []

        def interrupted(log):
            sync(log)
            if log is engine._log and not lost:
                lost.append(1)
                other.rename_branch("main", "elsewhere")
                other.create_branch("main", found)

        found = next(d for d in engine.commits() if d != expected)
        monkeypatch.setattr(type(engine._log), "sync", interrupted)
        if call == "amend":
            # It looks again, and amends what it finds then.
            CALLS[call](engine)
            assert engine.branches()["elsewhere"] == expected
        else:
            with pytest.raises(Conflict) as caught:
                CALLS[call](engine)
            assert caught.value.ref == "branch/main"
            assert (caught.value.expected, caught.value.found) == (expected.hex(), found.hex())
            assert other.branches()["main"] == found
        monkeypatch.undo()
        assert other.branches()["elsewhere"] == expected
        assert lost


def test_two_engines_undo_at_once_and_one_of_them_loses(engine, tree):
    results: list[object] = []
    last = engine.operations(1)[0].number
    with Engine.open(engine.path) as other:

        def work(which: Engine) -> None:
            try:
                results.append(which.undo(last))
            except Conflict as error:
                results.append(error)

        threads = [threading.Thread(target=work, args=(which,)) for which in (engine, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True]
    assert engine.branches() == {"main": engine.resolve("main")}
    assert contents(tree) == TWO


def test_other_engines_are_told_that_files_changed(engine, tree):
    with Engine.open(engine.path) as other:
        since = other.generation()
        engine.reset("main", engine.resolve("main~1"))
        since, changes = other.changes(since)
        assert changes is not None
        assert [(c.branch, c.directory, c.names) for c in changes] == [("", (), None), ("main", (), None)]
        assert contents(other.working_tree("main")) == ONE
        engine.undo()
        assert [c.branch for c in other.changes(since)[1] or []] == ["", "main"]
        assert contents(other.working_tree("main")) == TWO


def test_operations_tell_what_moved(engine, tree):
    first, *_, last = reversed(engine.operations())
    assert (first.number, first.description) == (1, "init")
    assert last.number == 3
    assert last.author == "Ada Lovelace <ada@example.org>"
    assert last.changes == [("branch/main", engine.resolve("main~1").hex(), engine.resolve("main").hex())]


def test_names_that_went_to_other_branches_go_back_to_theirs(engine, tree):
    """Each of the two branches has its own work again: they never share one."""
    number = engine.operations(1)[0].number
    engine.rename_branch("main", "side")
    put(engine.working_tree("side"), "d/a", b"work of side")
    engine.create_branch("main", engine.resolve("side"))
    put(engine.working_tree("main"), "d/a", b"work of main")
    engine.restore_operation(number)
    assert list(engine.branches()) == ["main"]
    assert contents(tree)[b"d", b"a"] == b"work of side"
    engine.undo()
    assert {name: contents(engine.working_tree(name))[b"d", b"a"] for name in engine.branches()} == {
        "main": b"work of main",
        "side": b"work of side",
    }
    put(engine.working_tree("side"), "d/a", b"more")
    assert contents(engine.working_tree("main"))[b"d", b"a"] == b"work of main"
    rebuilt(engine)
