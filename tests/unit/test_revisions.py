"""Where branches were, and which commits changed a path."""

from datetime import datetime

import pytest

from storage.errors import NotFound
from storage.model.digest import blake
from storage.model.history import changing, condensed, parse_revision
from storage.model.records import Commit, directory_entry
from storage.worktree import WorkingTree
from tests.conftest import ADA
from tests.unit.test_engine import put


def moment(nanoseconds: int) -> str:
    """A time as it stands in `@{…}`, to the microsecond, rounded up."""
    return datetime.fromtimestamp((nanoseconds + 999) // 1000 / 1e6).isoformat(timespec="microseconds")


def test_where_a_branch_was(engine):
    tree = engine.working_tree("main")
    for i in range(3):
        put(tree, "f", b"%d" % i)
        tree.commit(f"{i}")
    commits = [digest for digest, _ in engine.log(engine.resolve("main"))]
    times = [moment(operation.time) for operation in engine.operations()]
    engine.reset("main", commits[2])
    assert engine.resolve("main@{0}") == commits[2]
    assert [engine.resolve(f"main@{{{n}}}") for n in (1, 2, 3)] == commits
    assert [engine.resolve(f"HEAD@{{{time}}}") for time in times[:3]] == commits
    assert engine.resolve("main@{1}~1") == commits[1]
    for missing in ("main@{4}", "main@{99}", f"main@{{{times[3]}}}", "nothing@{0}", "main@{-1}"):
        with pytest.raises(NotFound):
            engine.resolve(missing)


def test_a_renamed_branch_was_where_it_was_under_its_old_name(engine):
    tree = engine.working_tree("main")
    put(tree, "f", b"0")
    first = tree.commit("first")
    then = moment(engine.operations(1)[0].time)
    engine.create_branch("old")
    put(engine.working_tree("old"), "f", b"1")
    second = engine.working_tree("old").commit("second")
    engine.rename_branch("old", "new")
    engine.create_branch("old", first)
    assert (engine.resolve("new@{0}"), engine.resolve("new@{1}")) == (second, first)
    assert engine.resolve("old@{0}") == first
    with pytest.raises(NotFound):
        engine.resolve("old@{1}")
    assert engine.resolve("old@{2}") == second  # the name's own past: there was another branch of that name
    with pytest.raises(NotFound):
        engine.resolve(f"new@{{{then}}}")
    assert engine.resolve(f"main@{{{then}}}") == first


def test_dates_and_numbers_are_told_apart():
    assert parse_revision("main@{3}").moves == 3
    assert parse_revision("main@{20261101}").at == parse_revision("main@{2026-11-01}").at


def test_commits_that_changed_a_path(engine):
    tree: WorkingTree = engine.working_tree("main")
    tree.make_directory((b"d",))
    put(tree, "d/a", b"1")
    one = tree.commit("d/a comes")
    put(tree, "other", b"x")
    tree.commit("something else")
    put(tree, "d/b", b"b")
    three = tree.commit("d/b comes")
    put(tree, "d/a", b"2")
    four = tree.commit("d/a changes")
    tree.set_attributes((b"d",), mtime=5)
    tree.commit("a time")
    tree.remove((b"d", b"a"))
    six = tree.commit("d/a goes")

    def changing(*path):
        return [digest for digest, _ in engine.path_log(engine.resolve("main"), path)]

    assert changing(b"d", b"a") == [six, four, one]
    assert changing(b"d") == [six, four, three, one]
    assert changing(b"d", b"b") == [three]
    assert changing(b"other", b"below a file") == []
    assert changing(b"nowhere") == []


def test_a_merge_that_takes_one_side_changed_nothing():
    """What differs from every parent is a change; what came from one of them is not."""
    commits: dict = {}

    def made(name: str, parents: str, **files: str) -> bytes:
        root = directory_entry(blake(repr(files).encode()), 0, 0, 0)
        commits[name.encode()] = Commit(root, tuple(p.encode() for p in parents), ADA, len(commits), name, files)
        return name.encode()

    made("r", "", f="base", g="base")
    made("o", "r", f="ours", g="base")
    made("t", "r", f="base", g="theirs")
    merge = made("m", "ot", f="ours", g="theirs")
    evil = made("e", "ot", f="neither", g="theirs")

    def changed(start: bytes, name: str) -> bytes:
        found = changing(commits.__getitem__, start, lambda commit: commit.metadata[name])
        return b"".join(digest for digest, _ in found)

    assert changed(merge, "f") == b"or"
    assert changed(merge, "g") == b"tr"
    assert changed(evil, "f") == b"eor"


def test_a_condensed_history():
    history = [("m", "dc"), ("d", "b"), ("c", "b"), ("b", "a"), ("a", "")]
    digests = [(child.encode(), [p.encode() for p in parents]) for child, parents in history]
    assert condensed(digests, {b"m", b"d", b"a"}) == [(b"m", [b"d", b"a"]), (b"d", [b"a"]), (b"a", [])]
    assert condensed(digests[:2], {b"m"}) == [(b"m", [])]
