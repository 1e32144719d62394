"""The engine: commits, refs, revisions, rebuild, several of them at once."""

import fcntl
import json
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.errors import (
    Ambiguous,
    BranchInUse,
    Corrupt,
    Exists,
    InvalidName,
    NewerFormat,
    NotARepository,
    NotFound,
    NothingToCommit,
    NotMerged,
    RepositoryExists,
    StorageFailed,
    WriterLockHeld,
)
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.records import Author, Place
from storage.model.samples import BytesSource
from tests.conftest import wait_until


def put(tree, text: str, data: bytes):
    return tree.put_file(tuple(part.encode() for part in text.split("/")), BytesSource(data))


def contents(tree, path=()) -> dict:
    found = {}
    for name, entry in tree.entries(path):
        here = (*path, name)
        if entry.is_directory:
            found[here] = None
            found |= contents(tree, here)
        else:
            content = tree.open(here)[1]
            found[here] = bytes(content.read(0, content.size))
    return found


def state(engine) -> dict:
    return {
        "branches": engine.branches(),
        "tags": engine.tags(),
        "head": engine.head(),
        "trees": {name: contents(engine.working_tree(name)) for name in engine.branches()},
        "status": {name: engine.working_tree(name).status() for name in engine.branches()},
        "operations": [(o.sequence, o.description) for o in engine.operations()],
        "commits": sorted(engine.commits()),
    }


def test_a_folder_is_not_a_repository_until_it_is_made_one(tmp_path):
    with pytest.raises(NotARepository, match="arborfs init"):
        Engine.open(tmp_path)
    Engine.create(tmp_path, Author("a", "b")).close()
    with pytest.raises(RepositoryExists):
        Engine.create(tmp_path, Author("a", "b"))


def test_a_newer_format_is_refused(repository):
    config = repository / ".arborfs" / "config.json"
    config.write_text(config.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(NewerFormat, match="install a newer"):
        Engine.open(repository)


def test_what_is_staged_during_a_commit_stays_staged_over_the_new_tip(engine, monkeypatch):
    tree = engine.working_tree("main")
    tree.make_directory((b"d",))
    tree.make_directory((b"d", b"e"))
    put(tree, "d/e/early", b"early")
    put(tree, "d/e/changed", b"before")
    # Between folding and the branch's move, somebody else writes.
    stored = engine.objects.put_commit

    def interrupted(commit):
        put(tree, "d/e/late", b"late")
        put(tree, "d/e/changed", b"after")
        tree.rename((b"d", b"e"), (b"d", b"moved"))
        tree.make_directory((b"d", b"new"))
        put(tree, "d/new/x", b"x")
        return stored(commit)

    monkeypatch.setattr(engine.objects, "put_commit", interrupted)
    first = tree.commit("first")
    monkeypatch.undo()
    assert contents(engine.snapshot(first)) == {
        (b"d",): None,
        (b"d", b"e"): None,
        (b"d", b"e", b"early"): b"early",
        (b"d", b"e", b"changed"): b"before",
    }
    expected = {
        (b"d",): None,
        (b"d", b"moved"): None,
        (b"d", b"moved", b"early"): b"early",
        (b"d", b"moved", b"late"): b"late",
        (b"d", b"moved", b"changed"): b"after",
        (b"d", b"new"): None,
        (b"d", b"new", b"x"): b"x",
    }
    assert contents(tree) == expected
    before, path = state(engine), engine.path
    engine.close()
    shutil.rmtree(path / ".arborfs" / "index")
    with Engine.open(path) as again:
        assert again.rebuilt
        assert state(again) == before
        second = again.working_tree("main").commit("second")
        assert contents(again.snapshot(second)) == expected
        assert verify(again) == []


def test_a_deleted_index_is_rebuilt_with_everything(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for i in range(40):
            put(tree, f"f{i}", b"%d" % i * (i * 300))
        first = tree.commit("one")
        engine.create_branch("side", first)
        engine.create_tag("v1", first, "the first")
        put(engine.working_tree("side"), "only-here", b"side" * 5000)
        tree.remove((b"f3",))
        tree.make_directory((b"d",))
        put(tree, "d/staged", b"staged")
        before = state(engine)
    shutil.rmtree(repository / ".arborfs" / "index")
    with Engine.open(repository) as engine:
        assert engine.rebuilt
        assert state(engine) == before
        assert verify(engine) == []
    report = rebuild(repository)
    assert report.commits == 1
    assert report.problems == []
    with Engine.open(repository) as engine:
        assert not engine.rebuilt
        assert state(engine) == before


def test_an_index_deleted_under_a_live_process_is_not_an_empty_repository(engine):
    shutil.rmtree(engine.path / ".arborfs" / "index")
    with pytest.raises(Corrupt, match="close or unmount"):
        Engine.open(engine.path)
    with pytest.raises(BranchInUse):
        rebuild(engine.path)


def test_journals_go_once_everything_in_them_is_committed(engine):
    tree = engine.working_tree("main")
    for i in range(5):
        put(tree, "f", b"%d" % i)
        tree.commit(f"{i}")
        assert not list((engine.path / ".arborfs" / "segments").glob("*.journal"))
    engine.create_branch("other")
    put(engine.working_tree("other"), "g", b"staged elsewhere")
    put(tree, "f", b"last")
    tree.commit("last")
    assert list((engine.path / ".arborfs" / "segments").glob("*.journal"))
    assert contents(engine.working_tree("other"))[(b"g",)] == b"staged elsewhere"


def test_a_segment_that_is_gone_is_told_from_a_disk_that_refuses(engine):
    """Readers look again when a commit elsewhere deleted the journal under them: that must not look like an I/O error."""
    segments = engine.internals()[1]
    with pytest.raises(Corrupt, match="is missing"):
        segments.read(Place(77, 40, 10))


def test_two_processes_see_each_others_staged_work_and_commits(engine):
    with Engine.open(engine.path) as other:
        one, two = engine.working_tree("main"), other.working_tree("main")
        since = other.generation()
        put(one, "a", b"from one")
        assert contents(two) == {(b"a",): b"from one"}
        since, changed = other.changes(since)
        assert changed is not None
        assert [(c.branch, c.directory, c.names) for c in changed] == [("main", (), (b"a",))]
        tip = two.commit("by the other")
        assert engine.branches() == {"main": tip}
        assert one.status() == []
        assert other.changes(since)[1] == []


def test_many_threads_and_engines_stage_at_once(engine):
    others = [Engine.open(engine.path) for _ in range(2)]

    def work(worker: int) -> None:
        tree = [engine, *others][worker % 3].working_tree("main")
        for i in range(40):
            put(tree, f"{worker}-{i}", b"%d" % i * 500)
            if i % 15 == 14:
                with suppress(NothingToCommit):
                    tree.commit(f"{worker} {i}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tree = engine.working_tree("main")
    assert contents(tree) == {(f"{w}-{i}".encode(),): b"%d" % i * 500 for w in range(6) for i in range(40)}
    for other in others:
        other.close()
    assert verify(engine) == []


def test_branches_tags_and_revisions(engine):
    tree = engine.working_tree("main")
    commits = []
    for i in range(4):
        put(tree, "f", b"%d" % i)
        commits.append(tree.commit(f"commit {i}"))
    assert [engine.resolve(r) for r in ("main", "HEAD~1", "main^^", "main~3")] == commits[::-1]
    assert engine.resolve(commits[1].hex()[:12]) == commits[1]
    assert engine.resolve("main@{2100-01-01}") == commits[-1]
    for missing in ("main~9", "nothing", "main@{1999-01-01}", "main@{x}", "a b", "zz", "^", "~1", "main^2", ""):
        with pytest.raises(NotFound):
            engine.resolve(missing)
    engine.create_tag("v1", commits[0])
    assert engine.resolve("v1") == commits[0]
    with pytest.raises(Exists):
        engine.create_tag("v1", commits[1])
    engine.create_branch("side", commits[1])
    with pytest.raises(Exists):
        engine.create_branch("side")
    for bad in ("a/b", "", "-x", ".x", "HEAD", "n" * 65):
        with pytest.raises(InvalidName):
            engine.create_branch(bad)
    side = engine.working_tree("side")
    assert contents(side) == {(b"f",): b"1"}
    put(side, "g", b"g")
    with pytest.raises(NotMerged):
        engine.remove_branch("side")
    side.commit("not merged")
    with pytest.raises(NotMerged):
        engine.remove_branch("side")
    with pytest.raises(BranchInUse):
        engine.remove_branch("main", force=True)
    engine.remove_branch("side", force=True)
    assert list(engine.branches()) == ["main"]
    with pytest.raises(NotFound):
        engine.working_tree("side")
    assert [d for d, _ in engine.log(commits[-1])] == commits[::-1]


def test_an_ambiguous_prefix_names_the_candidates(engine, monkeypatch):
    monkeypatch.setattr("storage.stores.revisions.SHORTEST_PREFIX", 1)
    tree = engine.working_tree("main")
    for i in range(40):
        put(tree, "f", b"%d" % i)
        tree.commit(f"{i}")
    digits = [digest.hex()[0] for digest in engine.commits()]
    twice = next(d for d in digits if digits.count(d) > 1)
    with pytest.raises(Ambiguous, match="commits: ") as caught:
        engine.resolve(twice)
    assert set(caught.value.candidates) == {d.hex() for d in engine.commits() if d.hex()[0] == twice}
    assert str(caught.value).count(caught.value.candidates[0][:16]) == 1


def test_renaming_a_branch_keeps_its_staged_work(engine):
    engine.create_branch("old")
    put(engine.working_tree("old"), "f", b"staged")
    engine.rename_branch("old", "new")
    assert contents(engine.working_tree("new")) == {(b"f",): b"staged"}
    with pytest.raises(NotFound):
        engine.working_tree("old")
    engine.working_tree("new").commit("after the rename")
    engine.rename_branch("main", "trunk")
    assert engine.head() == "trunk"


def test_a_commit_under_a_branchs_old_name_leaves_its_staged_work_alone(engine):
    engine.create_branch("old")
    put(engine.working_tree("old"), "f", b"staged before the rename" * 100)
    engine.rename_branch("old", "new")
    engine.create_branch("old")
    put(engine.working_tree("old"), "g", b"of another branch")
    engine.working_tree("old").commit("under the old name")
    assert contents(engine.working_tree("new")) == {(b"f",): b"staged before the rename" * 100}
    engine.working_tree("new").commit("the last row of the journal")
    assert not list((engine.path / ".arborfs" / "segments").glob("*.journal"))


def test_the_writer_lock_is_per_branch_and_heals(engine, monkeypatch):
    engine.acquire_writer("main")
    with pytest.raises(WriterLockHeld, match="Cannot acquire the writer lock"):
        engine.acquire_writer("main")
    engine.create_branch("other")
    engine.acquire_writer("other")
    monkeypatch.setattr("storage.disk.locks.boot_id", lambda: "another boot")
    with pytest.warns(UserWarning, match="taken over"):
        engine.acquire_writer("main")
    monkeypatch.undo()
    assert engine.force_release_writer("main")
    assert not engine.force_release_writer("main")


def test_who_opens_while_another_leaves_starts_the_index_again(repository):
    """The one who leaves has marked the index clean: after a power loss it would be trusted, with changes unsynced."""
    opened: list[Engine] = []
    leaving = os.open(repository / ".arborfs" / "lock", os.O_RDWR)
    state = repository / ".arborfs" / "state.json"
    try:
        fcntl.flock(leaving, fcntl.LOCK_EX)
        assert json.loads(state.read_bytes())["clean"]
        thread = threading.Thread(target=lambda: opened.append(Engine.open(repository)))
        thread.start()
        wait_until(lambda: _is_awaited(leaving), what="a process that waits for the lock")
    finally:
        os.close(leaving)
    thread.join()
    with opened[0]:
        assert not json.loads(state.read_bytes())["clean"]
    assert json.loads(state.read_bytes())["clean"]


def _is_awaited(lock: int) -> bool:
    waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(f":{os.fstat(lock).st_ino} " in line for line in waiting)


def test_a_commit_is_made_also_where_its_journal_cannot_be_deleted(repository, monkeypatch):
    def refuse(path: Path) -> None:
        raise StorageFailed(f"cannot remove {path}")

    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        put(tree, "a", b"one")
        with monkeypatch.context() as patch:
            patch.setattr("storage.disk.files.remove", refuse)
            commit = tree.commit("first")
        assert engine.branches()["main"] == commit
        assert list((repository / ".arborfs" / "segments").glob("*.journal"))
        assert verify(engine) == []
    rebuild(repository)
    with Engine.open(repository) as engine:
        assert engine.branches()["main"] == commit
        assert not engine.working_tree("main").is_dirty()
        assert verify(engine) == []


def test_work_staged_before_a_branch_was_renamed_outlives_commits_on_the_name_s_next_owner(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"first",), BytesSource(b"x"))
        tree.commit("one")
        tree.put_file((b"staged",), BytesSource(b"y" * 5000))
        engine.rename_branch("main", "other")
        engine.create_branch("main")
        tree = engine.working_tree("main")
        tree.put_file((b"second",), BytesSource(b"z"))
        tree.commit("two")
    shutil.rmtree(repository / ".arborfs" / "index")
    with Engine.open(repository) as engine:
        assert engine.working_tree("other").open((b"staged",))[1].size == 5000
        engine.working_tree("other").commit("three")
        assert not list((repository / ".arborfs" / "segments").glob("*.journal"))


def test_what_was_staged_when_trees_were_compared_stays_readable(engine):
    """A commit by another process meanwhile deletes the journal that the staged value lay in."""
    tree = engine.working_tree("main")
    data = bytes(range(250)) * 8
    tree.put_file((b"f",), BytesSource(data))
    with Engine.open(engine.path) as reader:
        standing = reader.standing("main")
        (difference,) = reader.compared(reader.committed(None), standing)
        tree.commit("meanwhile")
        content = reader.contents(standing, (b"f",), difference.new, None)
        assert bytes(content.read(0, content.size)) == data
        tree.remove((b"f",))
        with pytest.raises(NotFound):
            reader.contents(standing, (b"f",), difference.new, None)
        with pytest.raises(NotFound):
            reader.standing("nowhere")


def test_status_while_another_process_commits_again_and_again(repository):
    """Each commit deletes journals that a look at what is staged may just be reading."""
    over = threading.Event()

    def work() -> None:
        with Engine.open(repository) as other:
            tree = other.working_tree("main")
            number = 0
            while not over.is_set():
                number += 1
                for name in ("a", "b", "c"):
                    put(tree, name, b"%d" % number * 500)
                with suppress(NothingToCommit):
                    tree.commit(str(number))

    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.make_directory((b"d",))
        put(tree, "a", b"first")
        tree.commit("first")
        thread = threading.Thread(target=work)
        thread.start()
        try:
            until = time.monotonic() + 2
            while time.monotonic() < until:
                tree.is_dirty()
                assert {row.path for row in tree.status()} <= {(b"a",), (b"b",), (b"c",)}
        finally:
            over.set()
            thread.join()


def test_in_a_directory_that_the_tip_has_not_all_is_added(engine):
    """Also where the directory came from elsewhere, and what is staged in it changed or removed what it brought."""
    tree = engine.working_tree("main")
    tree.make_directory((b"d",))
    put(tree, "d/a", b"a")
    put(tree, "d/b", b"b")
    tree.commit("one")
    tree.rename((b"d",), (b"moved",))
    put(tree, "moved/a", b"changed")
    tree.remove((b"moved", b"b"))
    told = {(row.change, b"/".join(row.path)) for row in tree.status()}
    assert told == {("removed", b"d"), ("added", b"moved"), ("added", b"moved/a")}
