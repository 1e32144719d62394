"""Every command that has something to tell tells it to programs, too: as JSON, with --json."""

from __future__ import annotations

import json

import click
import pytest

from fusefs.cli.commands import main
from tests.command_line import all_commands, committed, run, stage

TELLS_NOTHING = {("mount",), ("umount",), ("completion",)}
"""They print nothing when all went well, or a script."""


@pytest.mark.parametrize(
    "words, command",
    [(words, command) for words, command in all_commands(main) if words and words not in TELLS_NOTHING],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_that_tells_something_tells_it_to_programs(words, command):
    assert any("--json" in option.opts for option in command.params if isinstance(option, click.Option))


def test_init_names_the_repository_and_its_author(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = run("init", "new", "--name", "Ada", "--email", "ada@example.org", "--json")
    assert json.loads(made.output) == {
        "repository": str(tmp_path / "new"),
        "author": {"name": "Ada", "email": "ada@example.org"},
    }


def test_a_dataset_is_renamed_and_removed(cli):
    cli("branch", "create", "dev")
    cli("dataset", "create", "images", "uint8", "2", "--branch", "dev")
    renamed = cli.json("dataset", "rename", "images", "photos", "--branch", "dev")
    assert renamed == {"branch": "dev", "old": "images", "new": "photos"}
    assert cli.json("dataset", "remove", "photos", "--branch", "dev") == {"branch": "dev", "name": "photos"}
    assert cli.json("dataset", "list", "dev+") == []


def test_head_moves_and_what_is_left_behind_is_counted(cli):
    committed(cli, "first")
    cli("branch", "create", "dev")
    stage(cli.repository, "staged")
    assert cli.json("checkout", "dev") == {"branch": "dev", "left": "main", "staged": 1}
    assert cli.json("branch", "default", "main") == {"branch": "main", "left": "dev", "staged": 0}
    assert cli.json("checkout", "main") == {"branch": "main", "left": "main", "staged": 1}


def test_a_branch_is_renamed(cli):
    cli("branch", "create", "empty")
    assert cli.json("branch", "rename", "empty", "void") == {"old": "empty", "new": "void", "commit": None}
    commit = committed(cli, "first")
    assert cli.json("branch", "rename", "main", "trunk") == {"old": "main", "new": "trunk", "commit": commit}


def test_a_deleted_tag_is_told_as_it_was(cli):
    committed(cli, "first")
    made = cli.json("tag", "create", "v1", "-m", "as in the paper")
    assert cli.json("tag", "delete", "v1") == made
    cli("tag", "delete", "v1", "--json", code=3)


def test_what_was_restored_and_from_where(cli):
    commit = committed(cli, "a")
    stage(cli.repository, "a", b"changed")
    stage(cli.repository, "new")
    restored = cli.json("restore", "/a", "new", "--remove")
    assert restored == {"branch": "main", "commit": commit, "restored": ["a", "new"]}
    assert cli.json("restore", ".")["restored"] == ["."]
    assert cli.json("status")["changes"] == []


def test_conflicts_that_are_left(cli):
    committed(cli, "other")
    cli("branch", "create", "dev")
    for branch in ("main", "dev"):
        stage(cli.repository, "both", branch.encode(), branch)
        stage(cli.repository, "as well", branch.encode(), branch)
        cli("commit", "-m", f"on {branch}", "--branch", branch)
    cli("merge", "dev", code=4)
    first = cli.json("resolve", "./both", "--theirs")
    assert first["branch"] == "main" and first["resolved"] == ["both"]
    assert [conflict["path"] for conflict in first["conflicts"]] == ["as well"]
    assert cli.json("resolve", "as well", "--ours")["conflicts"] == []


def test_a_path_of_diff_begins_at_the_top(cli):
    old, new = committed(cli, "a"), committed(cli, "b")
    for everything in (".", "/"):
        assert len(cli.json("diff", old, new, everything)["changes"]) == 1
    assert cli.json("diff", old, new, "/a")["changes"] == []
    assert cli.json("diff", old, new, "./b")["changes"]
