"""The commands that need no mount, run in this process on real repositories."""

import re

import click
import numpy as np
import pytest

from fusefs.cli.commands import main
from storage import Repository
from storage.engine import Engine
from tests.command_line import all_commands, committed, run, stage

# --- init ---------------------------------------------------------------------------------------------------


def test_init_makes_a_repository(tmp_path):
    result = run("init", tmp_path / "new", "--name", "Ada", "--email", "ada@example.org")
    assert result.exit_code == 0 and str(tmp_path / "new" / ".arborfs") in result.output
    engine = Engine.open(tmp_path / "new")
    assert (engine.author.name, engine.author.email) == ("Ada", "ada@example.org")
    engine.close()


def test_init_takes_the_author_from_the_environment(tmp_path):
    env = {"ARBORFS_USER_NAME": "Grace", "ARBORFS_USER_EMAIL": "grace@example.org"}
    assert run("init", tmp_path / "new", env=env).exit_code == 0
    engine = Engine.open(tmp_path / "new")
    assert engine.author.name == "Grace"
    engine.close()


@pytest.mark.parametrize("words", [[], ["--name", "Ada"], ["--name", " ", "--email", "a@example.org"]])
def test_init_without_an_author_is_a_usage_error_and_makes_nothing(tmp_path, words):
    result = run("init", tmp_path / "new", *words)
    assert result.exit_code == 2 and "is missing" in result.output
    assert not (tmp_path / "new").exists()


def test_init_twice_is_refused(repository):
    result = run("init", repository, "--name", "Ada", "--email", "ada@example.org")
    assert result.exit_code == 4


# --- finding the repository ---------------------------------------------------------------------------------


def test_the_nearest_parent_that_holds_a_repository_is_meant(repository, monkeypatch):
    (repository / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(repository / "a" / "b")
    assert run("status").exit_code == 0


def test_the_environment_can_name_it(repository):
    assert run("status", env={"ARBORFS_REPOSITORY": str(repository)}).exit_code == 0


def test_no_repository_is_told_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("status")
    assert result.exit_code == 3 and "-C" in result.output and "init" in result.output


def test_a_folder_that_is_none_is_named(tmp_path):
    result = run("-C", tmp_path, "log")
    assert result.exit_code == 3 and str(tmp_path) in result.output


# --- status, commit, log ------------------------------------------------------------------------------------


def test_a_fresh_repository_has_nothing_staged_and_no_commits(cli):
    assert cli("status") == "On branch main, nothing staged.\n"
    assert cli("log") == "No commits yet.\n"
    assert cli.json("log") == []
    assert cli.json("status") == {"branch": "main", "commit": None, "changes": []}


def test_status_lists_what_is_staged(cli):
    stage(cli.repository, "b.txt")
    stage(cli.repository, "a.txt")
    assert cli("status") == "On branch main, 2 changes staged.\n  added    a.txt\n  added    b.txt\n"
    assert cli.json("status")["changes"][0] == {"path": "a.txt", "change": "added", "kind": "file"}


def test_commit_takes_what_is_staged_and_prints_its_id(cli):
    stage(cli.repository, "a.txt")
    printed = cli("commit", "-m", "first\n\nwith a body")
    assert re.fullmatch(r"\[main [0-9a-f]{16,}\] first\n", printed)
    assert cli("status") == "On branch main, nothing staged.\n"
    assert cli.json("log")[0]["message"] == "first\n\nwith a body"


def test_committing_nothing_is_exit_code_4(cli):
    assert "Error: " in cli("commit", "-m", "nothing", code=4)


def test_an_empty_message_is_a_usage_error(cli):
    stage(cli.repository, "a.txt")
    cli("commit", "-m", " ", code=2)
    assert cli.json("status")["changes"], "what was staged still is"


def test_commit_on_another_branch_leaves_the_default_one(cli):
    first = committed(cli, "a.txt")
    cli("branch", "create", "side")
    stage(cli.repository, "b.txt", branch="side")
    side = cli.json("commit", "-m", "on the side", "--branch", "side")
    assert side["branch"] == "side" and cli.json("status")["commit"] == first
    assert [row["commit"] for row in cli.json("log", "side")] == [side["commit"], first]


def test_an_unknown_branch_is_exit_code_3(cli):
    assert "nowhere" in cli("status", "nowhere", code=3)


def test_log_is_newest_first_with_author_date_and_refs(cli):
    committed(cli, "a.txt", "first")
    committed(cli, "b.txt", "second")
    cli("tag", "create", "v1.0", "main~1")
    printed = cli("log")
    assert printed.index("second") < printed.index("first")
    assert "Author: Ada Lovelace <ada@example.org>" in printed
    assert re.search(r"Date:   \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", printed)
    assert re.search(r"commit [0-9a-f]+ \(HEAD -> main\)", printed)
    assert re.search(r"commit [0-9a-f]+ \(tag v1\.0\)", printed)


def test_log_takes_a_start_and_a_limit(cli):
    ids = [committed(cli, f"{number}.txt", f"number {number}") for number in range(4)]
    assert [row["commit"] for row in cli.json("log", "main~1", "-n", "2")] == [ids[2], ids[1]]


def test_log_in_one_line_each(cli):
    committed(cli, "a.txt", "first\n\nbody")
    committed(cli, "b.txt", "second")
    lines = cli("log", "--oneline").splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["second", "first"]


def test_log_for_programs_has_full_ids_and_parents(cli):
    first = committed(cli, "a.txt")
    second = committed(cli, "b.txt", "second")
    newest = cli.json("log")[0]
    assert newest["commit"] == second and newest["parents"] == [first] and len(second) == 64
    assert newest["author"] == {"name": "Ada Lovelace", "email": "ada@example.org"}
    assert newest["refs"] == ["HEAD -> main"]


def test_an_unknown_revision_is_exit_code_3(cli):
    committed(cli, "a.txt")
    assert "v9" in cli("log", "v9", code=3)


def test_a_message_cannot_move_the_cursor(cli):
    stage(cli.repository, "a.txt")
    cli("commit", "-m", "red \x1b[31malert")
    assert "\x1b" not in cli("log") and "red \\x1b[31malert" in cli("log")


# --- branch and tag -----------------------------------------------------------------------------------------


def test_branches_are_listed_with_the_default_one_marked(cli):
    first = committed(cli, "a.txt", "first")
    cli("branch", "create", "side")
    assert re.fullmatch(r"\* main  [0-9a-f]+ first\n  side  [0-9a-f]+ first\n", cli("branch"))
    assert cli.json("branch", "list") == [
        {"name": "main", "commit": first, "default": True},
        {"name": "side", "commit": first, "default": False},
    ]


def test_a_branch_before_its_first_commit_says_so(cli):
    assert "(no commit yet)" in cli("branch")


def test_a_branch_begins_where_it_is_told(cli):
    first = committed(cli, "a.txt")
    committed(cli, "b.txt")
    cli("branch", "create", "side", "main~1")
    assert cli.json("log", "side")[0]["commit"] == first


def test_a_branch_can_be_renamed_and_made_the_default(cli):
    committed(cli, "a.txt")
    cli("branch", "create", "side")
    cli("branch", "rename", "side", "calibrated")
    cli("branch", "default", "calibrated")
    assert [(row["name"], row["default"]) for row in cli.json("branch", "list")] == [
        ("calibrated", True),
        ("main", False),
    ]
    assert cli("status").startswith("On branch calibrated,")


def test_a_merged_branch_can_be_deleted_an_unmerged_one_by_force(cli):
    committed(cli, "a.txt")
    cli("branch", "create", "merged")
    cli("branch", "delete", "merged")
    cli("branch", "create", "side")
    stage(cli.repository, "b.txt", branch="side")
    cli("commit", "-m", "only here", "--branch", "side")
    cli("branch", "delete", "side", code=4)
    cli("branch", "delete", "side", "--force")
    assert [row["name"] for row in cli.json("branch", "list")] == ["main"]


@pytest.mark.parametrize(
    "words, code",
    [
        (["create", "main"], 4),  # exists
        (["create", "a/b"], 2),  # cannot be a name
        (["create", "side", "nowhere"], 3),
        (["delete", "nowhere"], 3),
        (["delete", "main"], 5),  # the default branch
        (["rename", "nowhere", "there"], 3),
        (["default", "nowhere"], 3),
    ],
)
def test_branch_errors_have_their_exit_codes(cli, words, code):
    committed(cli, "a.txt")
    assert "Error: " in cli("branch", *words, code=code)


def test_tags_are_made_listed_and_deleted(cli):
    first = committed(cli, "a.txt", "first")
    committed(cli, "b.txt", "second")
    cli("tag", "create", "v1.0", "main~1", "-m", "as in the paper")
    cli("tag", "create", "v2.0")
    listed = cli.json("tag", "list")[0]
    assert (listed["name"], listed["commit"], listed["message"]) == ("v1.0", first, "as in the paper")
    assert "[as in the paper]" in cli("tag")
    assert re.search(r"v2\.0  [0-9a-f]+ second", cli("tag"))
    cli("tag", "delete", "v1.0")
    assert [row["name"] for row in cli.json("tag", "list")] == ["v2.0"]


def test_tag_errors_have_their_exit_codes(cli):
    cli("tag", "create", "v1.0", code=3)  # no commit yet
    committed(cli, "a.txt")
    cli("tag", "create", "v1.0")
    cli("tag", "create", "v1.0", code=4)
    cli("tag", "delete", "v2.0", code=3)


# --- show ---------------------------------------------------------------------------------------------------


def test_show_tells_what_a_commit_changed(cli):
    committed(cli, "a.txt", "first")
    stage(cli.repository, "a.txt", b"changed")
    committed(cli, "b.txt", "second")
    printed = cli("show")
    assert "second" in printed and "first" not in printed
    assert "  changed  a.txt\n" in printed and "  added    b.txt\n" in printed
    assert cli.json("show", "main~1")["changes"] == [{"path": "a.txt", "change": "added", "kind": "file"}]


def test_show_counts_where_there_are_many(cli):
    for number in range(15):
        stage(cli.repository, f"{number:02}.txt")
    cli("commit", "-m", "many")
    assert "  added    5 more in ./\n" in cli("show") and "14.txt" not in cli("show")
    assert "14.txt" in cli("show", "--all") and len(cli.json("show")["changes"]) == 15


def test_show_lists_a_directory(cli):
    stage(cli.repository, "b.txt", b"12345")
    committed(cli, "a.txt")
    lines = cli("show", ":").splitlines()
    assert lines[0] == ".: 2 entries, 6 B"
    assert [line.split() for line in lines[1:]] == [["file", "1", "B", "a.txt"], ["file", "5", "B", "b.txt"]]
    assert [row["path"] for row in cli.json("show", "main:")["entries"]] == ["a.txt", "b.txt"]


def test_show_tells_the_facts_of_an_entry(cli):
    stage(cli.repository, "a.txt", b"12345")
    commit = cli.json("commit", "-m", "first")["commit"]
    facts = cli.json("show", "main:a.txt")
    assert facts["kind"] == "file" and facts["size"] == 5 and facts["mode"] == "0644"
    assert facts["commit"] == commit and facts["modified"] == "2023-11-14T22:13:20+00:00"
    assert "5 bytes" in cli("show", "main:a.txt")


def test_show_tells_a_dataset_and_its_samples(cli):
    checkout = Repository(path=str(cli.repository)).checkout(write=True)
    images = checkout.datasets.init_dataset(name="images", prototype=np.zeros((8, 8), np.uint8))
    images["0"] = np.ones((8, 8), np.uint8)
    checkout.commit("a sample")
    checkout.close()
    assert "dataset of |u1 8 x 8, 1 entry" in cli("show", ":images")
    facts = cli.json("show", ":images/0.npy")
    assert (facts["kind"], facts["dtype"], facts["shape"], facts["size"]) == ("sample", "|u1", [8, 8], 192)
    assert "  added    images/\n" in cli("show") and "  added    images/0.npy\n" in cli("show")


def test_show_of_what_is_not_there(cli):
    committed(cli, "a.txt")
    cli("show", "main:b.txt", code=3)
    cli("show", "main:a.txt/b", code=4)
    cli("show", "v9", code=3)


# --- verify and rebuild -------------------------------------------------------------------------------------


def test_verify_finds_nothing_wrong_with_a_sound_repository(cli):
    committed(cli, "a.txt")
    assert cli("verify") == "1 commit checked: everything is as it was stored.\n"
    assert cli.json("verify") == []


def test_verify_tells_damage_with_exit_code_6(cli):
    committed(cli, "a.txt")
    for segment in (cli.repository / ".arborfs" / "segments").iterdir():
        data = bytearray(segment.read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        segment.write_bytes(data)
    assert "problem" in cli("verify", code=6)


def test_rebuild_while_another_process_is_at_work_is_exit_code_5(cli, engine):
    assert "unmount or close" in cli("rebuild", code=5)


def test_rebuild_keeps_commits_and_staged_work(cli):
    commit = committed(cli, "a.txt")
    stage(cli.repository, "b.txt")
    assert "Index rebuilt" in cli("rebuild")
    assert cli.json("rebuild")["commits"] == 1
    assert cli.json("status") == {
        "branch": "main",
        "commit": commit,
        "changes": [{"path": "b.txt", "change": "added", "kind": "file"}],
    }


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, command",
    list(all_commands(main)),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_has_help_with_an_example(words, command):
    result = run(*words, "--help")
    assert result.exit_code == 0 and "Example:" in result.output
    assert all(option.help for option in command.params if isinstance(option, click.Option)), "an option has no help"


def test_help_documents_the_exit_codes():
    assert "Exit codes:" in run("--help").output


def test_an_unknown_command_is_exit_code_2():
    assert run("comit").exit_code == 2


def test_the_version_is_the_package_s():
    assert run("--version").output.startswith("arborfs, version 0.")


def test_no_short_description_is_cut():
    def groups(command, name):
        if isinstance(command, click.Group):
            yield command, name
            for inner, each in command.commands.items():
                yield from groups(each, inner)

    for group, name in groups(main, "arborfs"):
        listing = group.get_help(click.Context(group, info_name=name, terminal_width=80))
        assert "..." not in listing.partition("Commands:")[2], listing


# --- gc -----------------------------------------------------------------------------------------------------


def removed_branch(cli):
    committed(cli, "kept")
    engine = Engine.open(cli.repository)
    engine.create_branch("side")
    engine.close()
    stage(cli.repository, "lost", b"lost" * 100_000, branch="side")
    digest = cli.json("commit", "-m", "lost", "--branch", "side")["commit"]
    cli("branch", "delete", "side", "--force")
    return digest


def test_gc_keeps_thirty_days_of_operations(cli):
    removed_branch(cli)
    assert "0 commits" in cli("gc") and "0 objects deleted" in cli("gc")


def test_gc_says_what_it_would_delete_and_deletes_it(cli):
    digest = removed_branch(cli)
    said = cli.json("gc", "--keep", "0", "--dry-run")
    assert said["commits"] == [digest] and said["dry_run"] and said["deleted"]["objects"] == 3
    assert "would be deleted" in cli("gc", "--keep", "0s", "-n")
    assert "1 commit that nothing leads to" in cli("gc", "--keep", "0")
    assert cli.json("gc", "--keep", "0")["commits"] == []
    assert "everything is as it was stored" in cli("verify")


@pytest.mark.parametrize("span", ["7", "1y", "-1d", "", "d"])
def test_gc_refuses_what_is_no_time_span(cli, span):
    assert "no time span" in cli("gc", "--keep", span, code=2)
