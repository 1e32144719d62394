"""History on the command line: op log, undo, reset, restore, amend, log of a path and as a graph."""

import re

import pytest

from storage.engine import Engine
from tests.command_line import committed, stage


def files(cli):
    with Engine.open(cli.repository) as engine:
        tree = engine.working_tree("main")
        return {name.decode(): bytes(tree.open((name,))[1].read(0, 100)) for name, _ in tree.entries(())}


def changes(cli):
    return [(row["change"], row["path"]) for row in cli.json("status")["changes"]]


def test_the_operation_log_tells_number_time_author_what_and_what_moved(cli):
    first = committed(cli, "a", "first")
    cli("tag", "create", "v1")
    tagged, commit, init = cli.json("op", "log")
    assert (tagged["number"], commit["number"], init["number"]) == (3, 2, 1)
    assert tagged["moved"] == [{"ref": "tag/v1", "old": None, "new": first}]
    assert (commit["description"], commit["author"]) == ("commit: first", "Ada Lovelace <ada@example.org>")
    lines = cli("op", "log", "-n", "2").splitlines()
    assert re.fullmatch(r" +3  \S+ \S+ \S+  Ada Lovelace <ada@example.org>  tag: v1", lines[0])
    assert lines[1].split() == ["tag/v1", "nothing", "->", first[:16]]
    assert lines[3].split() == ["branch/main", "no", "commit", "yet", "->", first[:16]]
    assert cli("op") == cli("op", "log")


def test_undo_takes_back_the_last_operation_and_itself(cli):
    first, second = committed(cli, "a", "first"), committed(cli, "b", "second")
    assert cli("undo").splitlines() == [
        "Undone: 3 commit: second",
        f"  branch/main          {second[:16]} -> {first[:16]}",
    ]
    assert changes(cli) == [("added", "b")]
    cli("undo")
    assert changes(cli) == [] and cli.json("status")["commit"] == second


def test_undo_of_what_has_moved_since_is_exit_code_5_and_names_both(cli):
    first, second = committed(cli, "a", "first"), committed(cli, "b", "second")
    printed = cli("undo", "2", code=5)
    assert first in printed and second in printed
    assert cli.json("status")["commit"] == second


def test_there_must_be_something_to_undo(cli):
    assert "beginning" in cli("undo", code=4)
    cli("undo", "7", code=3)


def test_everything_as_it_was_after_an_operation(cli):
    first = committed(cli, "a", "first")
    cli("branch", "create", "side")
    committed(cli, "b", "second")
    cli("branch", "-D", "side")
    assert "2 refs moved" in cli("op", "restore", "3")
    assert [(row["name"], row["commit"]) for row in cli.json("branch", "list")] == [("main", first), ("side", first)]
    assert changes(cli) == [("added", "b")]


def test_reset_refuses_then_keeps_or_drops(cli):
    first, second = committed(cli, "a", "first"), committed(cli, "b", "second")
    stage(cli.repository, "c")
    assert "(soft)" in cli("reset", "main~1", code=4)
    assert "2 changes staged" in cli("reset", "--soft", "main~1")
    assert sorted(files(cli)) == ["a", "b", "c"]
    assert cli("reset", "--hard").startswith(f"Branch main is at {first[:16]}")
    assert sorted(files(cli)) == ["a"]
    cli("undo")
    assert sorted(files(cli)) == ["a", "b", "c"]
    cli("reset", "--hard", second)
    cli("reset", "main~1")
    assert sorted(files(cli)) == ["a"]
    cli("reset", "--soft", "--hard", code=2)
    cli("reset", "nowhere", code=3)


def test_reset_before_the_first_commit(cli):
    stage(cli.repository, "a")
    cli("reset", code=2)
    cli("reset", "--hard")
    assert files(cli) == {}
    cli("undo")
    assert files(cli) == {"a": b"x"}


def test_restore_brings_back_files(cli):
    committed(cli, "a", "first")
    stage(cli.repository, "a", b"changed")
    cli("commit", "-m", "second")
    stage(cli.repository, "a", b"again")
    stage(cli.repository, "new")
    assert cli("restore", "a").startswith("Restored a from ")
    assert files(cli) == {"a": b"changed", "new": b"x"}
    cli("restore", "a", "--from", "main~1")
    assert files(cli)["a"] == b"x"
    cli("restore", "new", code=3)
    cli("restore", "new", "--remove")
    cli("restore", ".")
    assert files(cli) == {"a": b"changed"} and changes(cli) == []


def test_amend(cli):
    first, second = committed(cli, "a", "first"), committed(cli, "b", "second")
    stage(cli.repository, "c")
    printed = cli("commit", "--amend")
    assert printed.endswith("second\n") and second[:16] not in printed
    cli("commit", "--amend", "-m", "better")
    assert [(row["message"], row["parents"]) for row in cli.json("log")] == [("better", [first]), ("first", [])]
    cli("commit", "--amend", code=4)
    cli("commit", code=2)


def test_the_log_of_a_path(cli):
    first = committed(cli, "a", "first")
    committed(cli, "b", "second")
    stage(cli.repository, "a", b"changed")
    third = cli.json("commit", "-m", "third")["commit"]
    for words in (["a"], [":a"], ["main:a"], ["HEAD:/a"]):
        assert [row["commit"] for row in cli.json("log", *words)] == [third, first]
    assert [row["commit"] for row in cli.json("log", "main~1:a")] == [first]
    assert cli.json("log", ":nowhere") == []
    assert "no commit there ever had nowhere" in cli("log", ":nowhere", code=3)
    assert "nowhere" in cli("log", "nowhere", code=3)
    assert cli("log", "--graph", "--oneline", "a").splitlines() == [
        f"* {third[:16]} (HEAD -> main) third",
        f"* {first[:16]} first",
    ]


def test_a_graph(cli):
    """One line of descent: what a merge looks like is tested on the drawing itself."""
    committed(cli, "a", "first")
    second = committed(cli, "b", "second\n\nwith a body")
    lines = cli("log", "--graph").splitlines()
    assert lines[0] == f"* commit {second[:16]} (HEAD -> main)"
    assert lines[1].startswith("| Author: ") and "|     with a body" in lines
    assert lines[7 if lines[7].startswith("*") else 8].startswith("* commit ")
    assert lines[-1].strip() == "first" or lines[-2].strip() == "first"
    assert len(cli("log", "--graph", "--oneline", "-n", "1").splitlines()) == 1
    cli("log", "--graph", "--json", code=2)


@pytest.mark.parametrize("flag", ["-d", "-D"])
def test_short_flags_delete_branches(cli, flag):
    committed(cli, "a")
    cli("branch", "create", "side")
    stage(cli.repository, "b", branch="side")
    if flag == "-d":
        assert "staged work" in cli("branch", "-d", "side", code=4)
        cli("reset", "--hard", "--branch", "side")
    cli("branch", flag, "side")
    assert [row["name"] for row in cli.json("branch", "list")] == ["main"]
    cli("branch", flag, "x", "list", code=2)


def test_an_unmerged_branch_is_deleted_by_force_alone_and_comes_back(cli):
    committed(cli, "a")
    cli("branch", "create", "side")
    stage(cli.repository, "b", branch="side")
    tip = cli.json("commit", "-m", "only here", "--branch", "side")["commit"]
    assert "no other branch" in cli("branch", "-d", "side", code=4)
    cli("branch", "-D", "side")
    cli("undo")
    assert {row["name"]: row["commit"] for row in cli.json("branch", "list")}["side"] == tip
