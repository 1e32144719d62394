"""Merging into branches: outcomes, every type of conflict, resolving, aborting, and who sees it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from storage.engine import Engine
from storage.errors import (
    MergeConflict,
    MergeUnderWay,
    NoMergeUnderWay,
    NotFound,
    NothingToCommit,
    OpenConflicts,
    StagedWork,
    Unsupported,
)
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.merging import Outcome
from storage.model.records import Attributes
from storage.model.samples import BytesSource, make_schema
from storage.tree import merge as merges

NUMBERS = make_schema(np.dtype("<i2"), (4,))
FLOATS = make_schema(np.dtype("<f4"), (4,))


def parts(text: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in text.split("/"))


def put(tree, text: str, data: bytes | str, mtime: int | None = None):
    data = data.encode() if isinstance(data, str) else data
    for depth in range(1, len(parts(text))):
        try:
            tree.entry(parts(text)[:depth])
        except NotFound:
            tree.make_directory(parts(text)[:depth])
    return tree.put_file(parts(text), BytesSource(data), mtime=mtime)


def files(tree, path=()) -> dict[str, bytes]:
    found = {}
    for name, entry in tree.entries(path):
        here = (*path, name)
        if entry.is_directory:
            found |= files(tree, here)
        else:
            content = tree.open(here)[1]
            found[b"/".join(here).decode()] = bytes(content.read(0, content.size))
    return found


class Two:
    """A repository with two branches that parted: main, and dev made from it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.main = engine.working_tree("main")
        for name in ("d/same", "d/ours", "d/theirs", "d/both", "e/x", "top"):
            put(self.main, name, "base of " + name)
        self.main.make_directory((b"n",), attributes=Attributes(schema=NUMBERS))
        self.main.put_entry(
            (b"n", b"0.npy"),
            self.main.sample_entry(NUMBERS, np.zeros(4, "<i2")),
        )
        self.base = self.main.commit("base")
        engine.create_branch("dev")
        self.dev = engine.working_tree("dev")

    def commit(self) -> None:
        """Commit what is staged on both."""
        for tree in (self.main, self.dev):
            if tree.is_dirty():
                tree.commit(f"on {tree.branch}")

    @property
    def merging(self):
        return self.engine.merging("main")

    @property
    def tip(self):
        return self.engine.branches()["dev"]

    def merge(self, **options):
        self.commit()
        return self.merging.merge(self.tip, "merged", name="dev", **options)


@pytest.fixture
def two(engine):
    return Two(engine)


def test_what_is_merged_already(two):
    assert two.merge().outcome is Outcome.ALREADY
    put(two.main, "top", "newer")
    result = two.merge()
    assert (result.outcome, result.commit) == (Outcome.ALREADY, two.main.tip())


def test_fast_forward_moves_the_branch_and_makes_no_commit(two):
    put(two.dev, "d/new", "from dev")
    two.dev.remove(parts("e/x"))
    result = two.merge()
    assert result.outcome is Outcome.FAST_FORWARD
    assert two.main.tip() == two.tip == result.commit
    assert files(two.main) == files(two.dev)
    assert not two.main.is_dirty()
    assert two.engine.operations(1)[0].description == "merge: dev"


def test_into_a_branch_without_commits(tmp_path, repository):
    with Engine.open(repository) as engine:
        engine.create_branch("dev")
        put(engine.working_tree("dev"), "f", "x")
        tip = engine.working_tree("dev").commit("first")
        result = engine.merging("main").merge(tip)
        assert (result.outcome, engine.branches()["main"]) == (Outcome.FAST_FORWARD, tip)
        assert files(engine.working_tree("main")) == {"f": b"x"}


def test_changes_of_both_sides_become_a_commit_with_two_parents(two):
    put(two.main, "d/ours", "by main")
    put(two.dev, "d/theirs", "by dev")
    put(two.dev, "new/deep/file", "by dev")
    two.dev.remove(parts("e/x"))
    two.commit()
    ours, theirs = two.main.tip(), two.tip
    result = two.merge()
    assert result.outcome is Outcome.COMMITTED
    record = two.engine.commit_record(result.commit)
    assert record.parents == (ours, theirs)
    assert record.message == "merged"
    found = files(two.main)
    assert (found["d/ours"], found["d/theirs"], found["new/deep/file"]) == (b"by main", b"by dev", b"by dev")
    assert "e/x" not in found
    assert not two.main.is_dirty()
    assert files(two.engine.snapshot(result.commit)) == found
    assert two.merge().outcome is Outcome.ALREADY
    assert verify(two.engine) == []


def test_the_other_branch_can_follow(two):
    put(two.main, "d/ours", "by main")
    put(two.dev, "d/theirs", "by dev")
    merged = two.merge().commit
    result = two.engine.merging("dev").merge(merged)
    assert (result.outcome, two.engine.branches()["dev"]) == (Outcome.FAST_FORWARD, merged)


def test_the_same_change_on_both_sides_is_none(two):
    for tree in (two.main, two.dev):
        put(tree, "d/both", "agreed", mtime=1)
        put(tree, "d/added", "agreed", mtime=2 if tree is two.main else 3)
        tree.remove(parts("e/x"))
    result = two.merge()
    assert result.outcome is Outcome.COMMITTED
    assert two.main.entry(parts("d/added")).mtime == 3


def test_attributes_and_contents_are_merged_by_themselves(two):
    put(two.main, "d/both", "new contents")
    two.main.set_attributes(parts("d/both"), xattrs={b"user.a": b"1"})
    two.dev.set_attributes(parts("d/both"), mode=0o600, xattrs={b"user.b": b"2"})
    assert two.merge().outcome is Outcome.COMMITTED
    entry = two.main.entry(parts("d/both"))
    assert entry.attributes.mode == 0o600
    assert entry.attributes.xattrs == ((b"user.a", b"1"), (b"user.b", b"2"))
    assert files(two.main)["d/both"] == b"new contents"


def both_changed(two):
    put(two.main, "d/both", "ours")
    put(two.dev, "d/both", "theirs")


def both_added(two):
    put(two.main, "d/added", "ours")
    put(two.dev, "d/added", "theirs")


def removed_by_us(two):
    two.main.remove(parts("d/both"))
    put(two.dev, "d/both", "theirs")


def removed_by_them(two):
    put(two.main, "d/both", "ours")
    two.dev.remove(parts("d/both"))


def dataset_removed_by_us(two):
    two.main.remove_tree((b"n",))
    two.dev.put_entry((b"n", b"1.npy"), two.dev.sample_entry(NUMBERS, np.ones(4, "<i2")))


def dataset_removed_by_them(two):
    two.main.put_entry((b"n", b"1.npy"), two.main.sample_entry(NUMBERS, np.ones(4, "<i2")))
    two.dev.remove_tree((b"n",))


def replaced(tree, schema):
    tree.remove_tree((b"n",))
    tree.make_directory((b"n",), attributes=Attributes(schema=schema))


def schema_replaced_by_them(two):
    two.main.put_entry((b"n", b"1.npy"), two.main.sample_entry(NUMBERS, np.ones(4, "<i2")))
    replaced(two.dev, FLOATS)


def schema_changed_on_both(two):
    replaced(two.main, FLOATS)
    replaced(two.dev, make_schema(np.dtype("<f8"), (4,)))


def directory_against_file(two):
    two.main.remove_tree((b"e",))
    put(two.main, "e", "a file now")
    put(two.dev, "e/y", "one more in the directory")


def attributes_on_both(two):
    two.main.set_attributes(parts("d/both"), mode=0o600)
    two.dev.set_attributes(parts("d/both"), mode=0o640)


CASES = [
    (both_changed, "d/both", merges.BothChanged),
    (both_added, "d/added", merges.BothAdded),
    (removed_by_us, "d/both", merges.RemovedByUs),
    (removed_by_them, "d/both", merges.RemovedByThem),
    (dataset_removed_by_us, "n", merges.RemovedByUs),
    (dataset_removed_by_them, "n", merges.RemovedByThem),
    (schema_replaced_by_them, "n", merges.SchemaChanged),
    (schema_changed_on_both, "n", merges.SchemaChanged),
    (directory_against_file, "e", merges.KindChanged),
    (attributes_on_both, "d/both", merges.AttributesChanged),
]
IDS = [case[0].__name__ for case in CASES]


@pytest.mark.parametrize("prepare, path, kind", CASES, ids=IDS)
def test_conflicts_are_typed_and_change_nothing(two, prepare, path, kind):
    prepare(two)
    put(two.dev, "d/theirs", "by dev")
    two.commit()
    before = (two.main.tip(), files(two.main), two.engine.operations(1))
    with pytest.raises(ValueError, match=f"ABORTED with conflict: {kind.word} {path}") as caught:
        two.merge()
    assert isinstance(caught.value, MergeConflict)
    (conflict,) = caught.value.conflicts
    assert type(conflict) is kind
    assert conflict.path == parts(path)
    snapshots = [two.engine.snapshot(commit) for commit in (two.base, two.main.tip(), two.tip)]
    for found, snapshot in zip((conflict.base, conflict.ours, conflict.theirs), snapshots, strict=True):
        try:
            assert found == snapshot.entry(parts(path))
        except NotFound:
            assert found is None
    assert (two.main.tip(), files(two.main), two.engine.operations(1)) == before
    assert not two.main.is_dirty()


@pytest.mark.parametrize("choice", ["ours", "theirs", "delete"])
@pytest.mark.parametrize("prepare, path, kind", CASES, ids=IDS)
def test_resolving_each_conflict_each_way(two, prepare, path, kind, choice):
    prepare(two)
    put(two.dev, "d/theirs", "by dev")
    two.commit()
    ours, theirs = two.main.tip(), two.tip
    assert two.merge(leave_open=True).outcome is Outcome.UNDER_WAY
    (conflict,) = two.merging.conflicts()
    assert (type(conflict), conflict.path) == (kind, parts(path))
    assert files(two.main)["d/theirs"] == b"by dev"
    with pytest.raises(OpenConflicts, match=path) as caught:
        two.main.commit("too early")
    assert caught.value.conflicts == ((parts(path), kind.word),)
    two.merging.resolve(parts(path), choice)
    assert two.merging.conflicts() == []
    commit = two.main.commit("by hand")
    record = two.engine.commit_record(commit)
    assert (record.parents, record.message) == ((ours, theirs), "by hand")
    wanted = None if choice == "delete" else two.engine.snapshot(ours if choice == "ours" else theirs)
    found = files(two.engine.snapshot(commit))
    below = {name: data for name, data in found.items() if name == path or name.startswith(path + "/")}
    assert below == (
        {}
        if wanted is None
        else {name: data for name, data in files(wanted).items() if name == path or name.startswith(path + "/")}
    )
    if kind is merges.AttributesChanged and wanted is not None:
        assert two.main.entry(parts(path)).attributes == wanted.entry(parts(path)).attributes
    assert found["d/theirs"] == b"by dev"
    assert two.merging.under_way() is None
    assert not two.main.is_dirty()
    assert verify(two.engine) == []


class TestUnderWay:
    @pytest.fixture(autouse=True)
    def begun(self, two):
        both_changed(two)
        removed_by_us_path = parts("top")
        two.main.remove(removed_by_us_path)
        put(two.dev, "top", "theirs")
        put(two.dev, "d/theirs", "by dev")
        put(two.dev, "brought/file", "by dev")
        two.dev.remove(parts("e/x"))
        two.commit()
        self.before = files(two.main)
        result = two.merge(leave_open=True)
        assert [str(conflict) for conflict in result.conflicts] == ["both-changed d/both", "removed-by-us top"]

    def test_status_tells_what_was_brought(self, two):
        rows = {(b"/".join(row.path).decode(), row.change) for row in two.main.status()}
        assert rows == {("d/theirs", "changed"), ("brought", "added"), ("e/x", "removed")}
        put(two.main, "d/mine", "more")
        put(two.main, "brought/file", "changed again")
        put(two.main, "d/theirs", "and again")
        rows = {(b"/".join(row.path).decode(), row.change) for row in two.main.status()}
        assert {("d/theirs", "changed"), ("brought", "added"), ("e/x", "removed"), ("d/mine", "added")} <= rows
        assert two.main.is_dirty()

    def test_nothing_else_begins(self, two):
        for act in (
            lambda: two.merging.merge(two.tip),
            lambda: two.merging.revert(two.base),
            lambda: two.merging.cherry_pick(two.tip),
        ):
            with pytest.raises(MergeUnderWay, match="merge of dev"):
                act()

    def test_a_write_or_removal_resolves(self, two):
        two.main.set_attributes(parts("d/both"), mode=0o640)
        assert len(two.merging.conflicts()) == 2, "another mode says nothing about the contents"
        put(two.main, "d/both", "both of it")
        assert [conflict.path for conflict in two.merging.conflicts()] == [(b"top",)]
        put(two.main, "top", "made anew")
        two.main.remove((b"top",))
        assert two.merging.conflicts() == []
        two.main.commit("done")
        assert files(two.main)["d/both"] == b"both of it"
        assert "top" not in files(two.main)

    def test_touching_says_that_it_is_right(self, two):
        two.main.set_attributes(parts("d/both"), mtime=12345)
        assert [conflict.path for conflict in two.merging.conflicts()] == [(b"top",)]

    def test_moving_or_removing_the_directory_above_resolves(self, two):
        two.main.rename((b"d",), (b"moved",))
        assert [conflict.path for conflict in two.merging.conflicts()] == [(b"top",)]

    def test_aborting_is_exact(self, two):
        put(two.main, "d/both", "half done")
        put(two.main, "d/mine", "more")
        two.merging.resolve((b"top",), "theirs")
        two.merging.abort()
        assert files(two.main) == self.before
        assert two.main.status() == []
        assert not two.main.is_dirty()
        assert two.merging.under_way() is None
        with pytest.raises(NothingToCommit):
            two.main.commit("nothing")
        with pytest.raises(NoMergeUnderWay):
            two.merging.abort()
        with pytest.raises(NoMergeUnderWay):
            two.merging.resolve((b"top",), "ours")
        assert two.merge(leave_open=True).outcome is Outcome.UNDER_WAY, "and it can begin again"

    def test_another_mind(self, two):
        two.merging.resolve(parts("d/both"), "theirs")
        assert files(two.main)["d/both"] == b"theirs"
        two.merging.resolve(parts("d/both"), "ours")
        assert files(two.main)["d/both"] == b"ours"
        with pytest.raises(NotFound):
            two.merging.resolve(parts("d/theirs"), "ours")
        with pytest.raises(Unsupported):
            two.merging.resolve(parts("d/both"), "mine")

    def test_a_rebuild_has_it(self, two, repository):
        two.merging.resolve((b"top",), "ours")
        put(two.main, "d/mine", "more")
        state, status, found = two.merging.under_way(), two.main.status(), files(two.main)
        two.engine.close()
        assert rebuild(repository).problems == []
        with Engine.open(repository) as engine:
            assert engine.merging("main").under_way() == state
            assert engine.working_tree("main").status() == status
            assert files(engine.working_tree("main")) == found
            assert [str(conflict) for conflict in engine.merging("main").conflicts()] == ["both-changed d/both"]

    def test_it_goes_with_its_branch(self, two):
        two.engine.rename_branch("main", "other")
        assert len(two.engine.merging("other").conflicts()) == 2
        two.engine.set_head("dev")
        two.engine.remove_branch("other", force=True)
        two.engine.create_branch("other", two.base)
        assert two.engine.merging("other").under_way() is None
        assert set(two.engine.branches()) == {"dev", "other"}


def test_staged_work_is_named_and_stays(two):
    put(two.dev, "d/theirs", "by dev")
    two.commit()
    put(two.main, "d/mine", "staged")
    with pytest.raises(RuntimeError, match="d/mine") as caught:
        two.merging.merge(two.tip)
    assert isinstance(caught.value, StagedWork)
    assert caught.value.paths == ("d/mine",)
    assert [row.path for row in two.main.status()] == [parts("d/mine")]


def test_what_is_staged_during_a_merge_is_never_lost(two, monkeypatch):
    put(two.main, "d/ours", "by main")
    put(two.dev, "d/theirs", "by dev")
    two.commit()
    tip, store = two.main.tip(), two.engine.objects.put_commit

    def late(commit):
        put(two.main, "d/late", "staged meanwhile")
        return store(commit)

    monkeypatch.setattr(two.engine.objects, "put_commit", late)
    with pytest.raises(StagedWork, match="d/late"):
        two.merging.merge(two.tip)
    assert two.main.tip() == tip
    assert files(two.main)["d/late"] == b"staged meanwhile"


def test_rows_that_change_nothing_are_no_staged_work(two):
    put(two.dev, "d/theirs", "by dev")
    entry = two.main.entry(parts("d/both"))
    put(two.main, "d/both", "base of d/both", mtime=entry.mtime)
    assert not two.main.is_dirty()
    assert two.merge().outcome is Outcome.FAST_FORWARD
    assert files(two.main) == files(two.dev)


def test_criss_cross(two):
    """Each branch merged the other one's first commit; both first commits are bases of the next merge."""
    put(two.main, "d/ours", "main 1")
    put(two.dev, "d/theirs", "dev 1")
    put(two.main, "d/both", "agreed", mtime=1)
    put(two.dev, "d/both", "agreed", mtime=1)
    two.commit()
    first, second = two.main.tip(), two.tip
    two.merging.merge(second)
    two.engine.merging("dev").merge(first)
    put(two.main, "d/both", "main 2")
    put(two.dev, "e/x", "dev 2")
    assert two.merge().outcome is Outcome.COMMITTED
    assert files(two.main)["d/both"] == b"main 2"
    assert files(two.main)["e/x"] == b"dev 2"


def test_criss_cross_in_which_each_side_kept_another_base(two):
    put(two.main, "d/both", "main 1")
    put(two.dev, "d/both", "dev 1")
    two.commit()
    first, second = two.main.tip(), two.tip
    two.merging.merge(second, leave_open=True)
    two.merging.resolve(parts("d/both"), "ours")
    two.main.commit("ours")
    two.engine.merging("dev").merge(first, leave_open=True)
    two.engine.merging("dev").resolve(parts("d/both"), "ours")
    two.dev.commit("theirs")
    with pytest.raises(MergeConflict, match="both-changed d/both"):
        two.merge()


def test_histories_without_a_common_ancestor(two):
    with Engine.create(two.engine.path.parent / "other", two.engine.author):
        pass
    two.engine.create_branch("fresh")
    fresh = two.engine.working_tree("fresh")
    for name in ("d", "e", "n", "top"):
        fresh.remove_tree((name.encode(),))
    put(fresh, "other", "x")
    two.engine.create_branch("unrelated")
    assert two.engine.merging("unrelated").merge(fresh.commit("all gone")).outcome is Outcome.FAST_FORWARD


def test_revert_and_cherry_pick(two):
    put(two.main, "d/ours", "a mistake")
    put(two.main, "d/new", "also a mistake")
    mistake = two.main.commit("a mistake")
    put(two.main, "d/theirs", "later, and right")
    two.main.commit("later")
    result = two.merging.revert(mistake)
    assert result.outcome is Outcome.COMMITTED
    found = files(two.main)
    assert (found["d/ours"], found["d/theirs"]) == (b"base of d/ours", b"later, and right")
    assert "d/new" not in found
    record = two.engine.commit_record(result.commit)
    assert record.message.startswith("revert: a mistake")
    assert mistake.hex() in record.message
    assert len(record.parents) == 1
    picked = two.engine.merging("dev").cherry_pick(mistake)
    assert files(two.dev)["d/new"] == b"also a mistake"
    assert files(two.dev)["d/theirs"] == b"base of d/theirs"
    assert two.engine.commit_record(picked.commit).message == "a mistake"
    assert two.engine.commit_record(picked.commit).parents == (two.base,)
    assert two.engine.merging("dev").cherry_pick(mistake).outcome is Outcome.ALREADY


def test_reverting_the_first_commit_leaves_nothing(two):
    assert two.merging.revert(two.base).outcome is Outcome.COMMITTED
    assert list(two.main.entries(())) == []


def test_reverting_a_merge_needs_a_parent(two):
    put(two.main, "d/ours", "by main")
    put(two.dev, "d/theirs", "by dev")
    merged = two.merge().commit
    with pytest.raises(Unsupported, match="parents"):
        two.merging.revert(merged)
    with pytest.raises(NotFound, match="parent 3"):
        two.merging.revert(merged, parent=3)
    two.merging.revert(merged, parent=1)
    found = files(two.main)
    assert (found["d/ours"], found["d/theirs"]) == (b"by main", b"base of d/theirs")


def test_a_conflict_of_a_revert_is_resolved_like_any(two):
    put(two.main, "d/both", "a mistake")
    mistake = two.main.commit("a mistake")
    put(two.main, "d/both", "built upon it")
    two.main.commit("more")
    with pytest.raises(MergeConflict, match="Revert ABORTED"):
        two.merging.revert(mistake)
    assert two.merging.revert(mistake, leave_open=True).outcome is Outcome.UNDER_WAY
    assert [str(conflict) for conflict in two.merging.conflicts()] == ["both-changed d/both"]
    two.merging.resolve(parts("d/both"), "theirs")
    commit = two.main.commit("taken back")
    assert files(two.main)["d/both"] == b"base of d/both"
    assert len(two.engine.commit_record(commit).parents) == 1


def test_merges_and_commits_at_once(two):
    """Whatever wins, every commit stays in the history and nothing is lost."""
    for number in range(8):
        put(two.dev, f"dev/{number}", "x")
        two.dev.commit(f"dev {number}")
    tips = [digest for digest, _ in two.engine.log(two.tip)][:8]
    made, refused = [], []

    def commit():
        for number in range(20):
            put(two.main, f"main/{number}", "x")
            try:
                made.append(two.main.commit(f"main {number}"))
            except NothingToCommit:
                pass

    def merge():
        for tip in reversed(tips):
            try:
                two.engine.merging("main").merge(tip)
            except StagedWork:
                refused.append(tip)

    threads = [threading.Thread(target=commit), threading.Thread(target=merge)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reached = {digest for digest, _ in two.engine.log(two.main.tip())}
    assert reached >= set(made)
    assert {f"main/{number}" for number in range(20)} <= files(two.main).keys()
    assert two.merging.merge(two.tip).outcome in (Outcome.COMMITTED, Outcome.ALREADY)
    assert {f"dev/{number}" for number in range(8)} <= files(two.main).keys()
    assert verify(two.engine) == []


def test_others_are_told_the_names_that_changed_and_no_more(two, repository):
    put(two.main, "d/ours", "by main")
    put(two.dev, "d/theirs", "by dev")
    put(two.dev, "new/file", "by dev")
    two.dev.remove(parts("e/x"))
    two.commit()
    with Engine.open(repository) as other:
        seen = two.engine.generation()
        two.merge()
        for engine in (two.engine, other):  # a mount that merges is told as well
            _, changes = engine.changes(seen)
            told = {(c.directory, c.names) for c in changes if c.branch == "main"}
            assert told == {((), (b"new",)), ((b"d",), (b"theirs",)), ((b"e",), (b"x",))}
        for number in range(100):
            put(two.dev, f"d/many {number}", "by dev")
        put(two.dev, "e/one", "by dev")
        two.commit()
        seen = two.engine.generation()
        two.merge()
        changes = two.engine.changes(seen)[1]
        assert {(c.directory, c.names) for c in changes if c.branch} == {
            ((), ()),
            ((b"d",), None),
            ((b"e",), (b"one",)),
        }


@pytest.mark.parametrize("kind", ["forward", "commit", "under way"])
def test_undo_takes_a_merge_back(two, kind):
    put(two.dev, "d/theirs", "by dev")
    put(two.dev, "d/both", "theirs")
    if kind != "forward":
        put(two.main, "d/ours" if kind == "commit" else "d/both", "by main")
    two.commit()
    tip, before = two.main.tip(), files(two.main)
    two.merge(leave_open=True)
    assert files(two.main) != before
    two.engine.undo()
    assert (two.main.tip(), files(two.main)) == (tip, before)
    assert two.main.status() == []
    assert two.merging.under_way() is None
    assert two.merge(leave_open=True).outcome is not Outcome.ALREADY


def test_resetting_ends_a_merge(two):
    both_changed(two)
    put(two.dev, "d/theirs", "by dev")
    two.merge(leave_open=True)
    tip = two.main.tip()
    two.engine.reset_hard("main", tip)
    assert two.main.status() == []
    assert two.merging.under_way() is None
    two.merge(leave_open=True)
    with pytest.raises(MergeUnderWay):
        two.main.amend("not while it is under way")
