"""Killed while merging: the branch is as it was before or as it is after, also when the index is lost."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.model.samples import BytesSource
from tests.faults.test_crash import picture, run

MERGE = """
    engine.merging("main").merge(engine.branches()["dev"], "merged")
"""

OPEN = """
    engine.merging("main").merge(engine.branches()["both"], "merged", leave_open=True)
"""

FORWARD = """
    engine.merging("dev").merge(engine.branches()["ahead"])
"""

RESOLVE = """
    engine.merging("main").resolve((b"d", b"1"), "ours")
"""

COMMIT = """
    tree.commit("resolved")
"""

ABORT = """
    engine.merging("main").abort()
"""


def prepared(path: Path) -> None:
    """Main, and branches from it: dev changed something else, both the same, ahead is dev and one commit more."""
    with Engine.open(path) as engine:
        main = engine.working_tree("main")
        main.make_directory((b"d",))
        for i in range(30):
            main.put_file((b"d", b"%d" % i), BytesSource(os.urandom(200 * i)))
        main.commit("base")
        changes = {"both": b"1", "dev": b"2"}
        for name, file in changes.items():
            engine.create_branch(name)
            tree = engine.working_tree(name)
            tree.put_file((b"d", file), BytesSource(name.encode() * 50))
            tree.put_file((b"big " + name.encode(),), BytesSource(os.urandom(300_000)))
            tree.remove((b"d", b"9"))
            tree.commit(name)
        engine.create_branch("ahead", engine.branches()["dev"])
        tree = engine.working_tree("ahead")
        tree.put_file((b"d", b"ahead"), BytesSource(b"one more"))
        tree.commit("ahead")
        main.put_file((b"d", b"1"), BytesSource(b"ours"))
        main.commit("on main")


def under_way(path: Path) -> None:
    """The same, with a merge under way whose conflict is resolved by a write."""
    prepared(path)
    with Engine.open(path) as engine:
        engine.merging("main").merge(engine.branches()["both"], leave_open=True)
        engine.working_tree("main").put_file((b"d", b"1"), BytesSource(b"of both"))
        engine.working_tree("main").put_file((b"d", b"more"), BytesSource(b"more"))


def unresolved(path: Path) -> None:
    """The same, with the conflict open."""
    prepared(path)
    with Engine.open(path) as engine:
        engine.merging("main").merge(engine.branches()["both"], leave_open=True)


def seen(path: Path) -> tuple:
    """What `picture` shows, the merge under way, the parents of the tip, and the other branch."""
    shown = picture(path)
    with Engine.open(path) as engine:
        state = engine.merging("main").under_way()
        conflicts = [str(conflict) for conflict in engine.merging("main").conflicts()]
        tips = engine.branches()
        parents = len(engine.commit_record(tips["main"]).parents)
        same = tips["dev"] == tips["ahead"]
        return (
            *shown,
            state and (state.what, state.settled),
            conflicts,
            parents,
            same,
            engine.working_tree("dev").status(),
        )


@pytest.mark.parametrize("torn, index", [("whole", "kept"), ("torn", "deleted")])
@pytest.mark.parametrize(
    "before, work",
    [
        (prepared, MERGE),
        (prepared, OPEN),
        (prepared, FORWARD),
        (unresolved, RESOLVE),
        (under_way, COMMIT),
        (under_way, ABORT),
    ],
    ids=["merge", "open", "forward", "resolve", "commit", "abort"],
)
def test_cut_at_every_write(repository, tmp_path, before, work, torn, index):
    before(repository)
    done = tmp_path / "done"
    shutil.copytree(repository, done)
    assert run(work, str(done), "0", torn) == 0
    outcomes = [seen(repository), seen(done)]
    assert outcomes[0] != outcomes[1]
    reached = []
    for step in count(1):
        attempt = tmp_path / f"cut-{step}"
        shutil.copytree(repository, attempt)
        code = run(work, str(attempt), str(step), torn)
        if index == "deleted":
            shutil.rmtree(attempt / ".arborfs" / "index")
        found = seen(attempt)
        assert found in outcomes, f"cut at step {step}"
        reached.append(outcomes.index(found))
        shutil.rmtree(attempt)
        if code == 0:
            break
        assert code == 9
    assert len(reached) >= 3
    assert reached == sorted(reached), "once it is done, it stays done"
    assert reached[-1] == 1
