"""`merge`, `resolve`, `revert`, `cherry-pick` and what `status` says of them."""

from __future__ import annotations

import pytest

from storage.engine import Engine
from tests.command_line import Cli, stage


@pytest.fixture
def cli(repository):
    """Two branches: both changed `both`, dev added `new`."""
    run = Cli(repository)
    stage(repository, "both", b"base")
    run("commit", "-m", "base")
    run("branch", "create", "dev")
    stage(repository, "both", b"theirs", "dev")
    stage(repository, "new", b"new", "dev")
    run("commit", "-m", "on dev", "--branch", "dev")
    return run


def contents(cli, name, branch="main"):
    with Engine.open(cli.repository) as engine:
        content = engine.working_tree(branch).open((name.encode(),))[1]
        return bytes(content.read(0, content.size))


def test_fast_forward_and_nothing_to_do(cli):
    assert "fast-forward: on dev" in cli("merge", "dev")
    assert cli("merge", "dev") == "Nothing to do: main has all of it.\n"
    assert contents(cli, "new") == b"new"


def test_a_merge_commit(cli):
    stage(cli.repository, "mine")
    mine = cli.json("commit", "-m", "on main")["commit"]
    theirs = cli.json("log", "dev")[0]["commit"]
    found = cli.json("merge", "dev", "-m", "together")
    assert (found["outcome"], found["conflicts"]) == ("committed", [])
    top = cli.json("log")[0]
    assert (top["commit"], top["parents"], top["message"]) == (found["commit"], [mine, theirs], "together")


@pytest.fixture
def parted(cli):
    stage(cli.repository, "both", b"ours")
    cli("commit", "-m", "on main")
    return cli


def test_conflicts_are_listed_resolved_and_committed(parted):
    told = parted("merge", "dev", code=4)
    assert "both-changed       both\n" in told
    assert "1 conflict on main: resolve and commit" in told
    assert "under way, 1 open conflict:\n  both-changed       both\n" in parted("status")
    assert parted.json("status")["merge"] == {
        "what": "merge",
        "theirs": "dev",
        "conflicts": [{"path": "both", "conflict": "both-changed"}],
    }
    assert parted.json("status")["changes"] == [{"path": "new", "change": "added", "kind": "file"}]
    assert "open conflicts: both (both-changed)" in parted("commit", "-m", "early", code=4)
    assert "is not finished" in parted("merge", "dev", code=4)
    parted("resolve", "both", code=2)
    parted("resolve", "nothing", "--ours", code=3)
    assert parted("resolve", "both", "--theirs") == "All conflicts are resolved: commit the merge.\n"
    assert "all conflicts are resolved" in parted("status")
    parted("commit", "-m", "merged")
    assert contents(parted, "both") == b"theirs"
    assert len(parted.json("log")[0]["parents"]) == 2


def test_abort(parted):
    parted("merge", "dev", code=4)
    assert parted("merge", "--abort") == "Aborted: main is as it was before.\n"
    assert parted("status") == "On branch main, nothing staged.\n"
    parted("merge", "--abort", code=4)
    parted("merge", code=2)
    parted("merge", "dev", "--abort", code=2)


def test_strict_changes_nothing(parted):
    assert "ABORTED with conflict: both-changed both" in parted("merge", "dev", "--strict", code=4)
    assert parted("status") == "On branch main, nothing staged.\n"


def test_staged_work_is_named(parted):
    stage(parted.repository, "work")
    assert "staged work that is not committed: work" in parted("merge", "dev", code=4)


def test_revert_and_cherry_pick(parted):
    assert "revert: on main" in parted("revert", "main")
    assert contents(parted, "both") == b"base"
    assert "on dev" in parted("cherry-pick", "dev")
    assert contents(parted, "both") == b"theirs"
    parted("revert", "main~2", code=4)
    assert "the revert of" in parted("commit", "-m", "early", code=4)
    parted("merge", "--abort")


def test_a_pick_with_conflicts_is_committed_with_its_own_message(parted):
    stage(parted.repository, "both", b"also ours")
    parted("commit", "-m", "in between")
    parted("cherry-pick", "dev", code=4)
    parted("resolve", "both", "--theirs")
    assert "on dev" in parted("commit")
    assert parted.json("log")[0]["message"] == "on dev"
    assert "Say what changed" in parted("commit", code=2)
