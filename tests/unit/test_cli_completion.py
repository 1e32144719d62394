"""Completion in the shell: bash itself is asked, with the script that `arborfs completion bash` prints."""

import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fusefs.cli.completion import OFFERED, names
from storage import Repository
from storage.engine import Engine
from storage.model.records import Kind
from storage.model.samples import BytesSource
from storage.snapshot import Snapshot
from tests.command_line import Cli
from tests.conftest import arborfs

SCRIPT = """
arborfs() {{ {command} "$@"; }}
eval "$(arborfs completion bash)"
ask() {{
    COMP_WORDS=("${{@:2}}") COMP_CWORD=$(($# - 2)) COMP_LINE=$1 COMP_POINT=${{#1}} COMPREPLY=()
    _arborfs_completion arborfs
    (( ${{#COMPREPLY[@]}} )) && printf '%s\\n' "${{COMPREPLY[@]}}"
    echo =====
}}
{asked}
"""


def completed(folder, *lines):
    """What bash offers at the end of each line; a line is a text, or one with the words that bash makes of it."""
    asked = []
    for line in lines:
        text, words = line if isinstance(line, tuple) else (line, line.split(" "))
        asked.append(shlex.join(["ask", text, *words]))
    command = shlex.join([sys.executable, "-m", "fusefs.cli"])
    done = subprocess.run(
        ["bash", "--norc", "-c", SCRIPT.format(command=command, asked="\n".join(asked))],
        cwd=folder,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    answers = done.stdout.split("=====\n")[:-1]
    return [answer.splitlines() for answer in answers]


@pytest.fixture
def full(repository):
    """A repository with branches, a tag, datasets, keys and files; and its commit."""
    with Repository(repository) as repo, repo.checkout(write=True) as checkout:
        images = checkout.datasets.init_dataset("images", (2,), np.uint8)
        for key in ("first", "second", "with blank", "it's"):
            images[key] = np.zeros(2, np.uint8)
        checkout.datasets.init_dataset("camera/left", (2,), np.uint8)
        commit = checkout.commit("first")
        repo.create_branch("experiment")
        repo.create_tag("v1.0")
        checkout.datasets["images"]["only staged"] = np.zeros(2, np.uint8)
    with Engine.open(repository) as engine:
        engine.working_tree("main").make_directory((b"notes",), mtime=1)
        engine.working_tree("main").put_file((b"notes", b"README.txt"), BytesSource(b"x"), mtime=1)
    return repository, commit


def test_commands_and_options_are_completed(tmp_path):
    assert completed(tmp_path, "arborfs sta", "arborfs dataset c", "arborfs view --pic") == [
        ["stats", "status"],
        ["create"],
        ["--picture"],
    ]


def test_branches_tags_and_revisions_are_completed(full):
    repository, commit = full
    assert completed(
        repository,
        "arborfs checkout ",
        "arborfs branch delete e",
        "arborfs status --json ma",
        "arborfs commit --branch e",
        "arborfs tag delete ",
        "arborfs branch create new v",
        "arborfs diff main ",
        f"arborfs log {commit[:6]}",
        "arborfs checkout nothing",
    ) == [
        ["experiment", "main"],
        ["experiment"],
        ["main"],
        ["experiment"],
        ["v1.0"],
        ["v1.0"],
        ["HEAD", "experiment", "main", "v1.0"],
        [commit[:16]],
        [],
    ]


def test_a_value_joined_to_its_option_is_completed(full):
    words = ["arborfs", "commit", "--branch", "=", "e"]
    assert completed(full[0], ("arborfs commit --branch=e", words)) == [["experiment"]]


def test_datasets_and_samples_are_completed(full):
    assert completed(
        full[0],
        "arborfs view ",
        "arborfs view camera/",
        "arborfs dataset remove im",
        "arborfs view images f",
        "arborfs view images ",
        "arborfs view images second v",
        "arborfs view nothing ",
        "arborfs export v1.0:images x.npy -s s",
        "arborfs import file --branch experiment x im",
    ) == [
        ["camera/", "images", "notes/"],
        ["camera/left"],
        ["images"],
        ["first"],
        ["first", r"it\'s", r"only\ staged", "second", r"with\ blank"],
        ["v1.0"],
        [],
        ["second"],
        ["images"],
    ]


def test_a_path_behind_a_colon_is_completed_as_bash_takes_the_word_apart(full):
    whole = ["arborfs", "show"]
    assert completed(
        full[0],
        ("arborfs show main:", [*whole, "main", ":"]),
        ("arborfs show main:im", [*whole, "main", ":", "im"]),
        ("arborfs show main:images/f", [*whole, "main", ":", "images/f"]),
        ("arborfs show 'main:im", [*whole, "'main:im"]),
        ("arborfs show :images/with\\ b", [*whole, ":", "images/with\\ b"]),
        ("arborfs show nothing:im", [*whole, "nothing", ":", "im"]),
    ) == [["camera/", "images/"], ["images/"], ["images/first.npy"], ["main:images/"], [r"images/with\ blank.npy"], []]


def test_paths_of_a_branch_are_completed(full):
    assert completed(full[0], "arborfs restore no", "arborfs restore images notes/R") == [
        ["notes/"],
        ["notes/README.txt"],
    ]


def test_the_repository_may_be_named_before(full, tmp_path):
    assert completed(tmp_path, f"arborfs -C {full[0]} checkout e") == [["experiment"]]


def test_bash_without_the_line_is_answered_by_its_words(full):
    """As where a completion is called by another program's."""
    assert completed(full[0], ("", ["arborfs", "checkout", "e"])) == [["experiment"]]


def test_outside_of_a_repository_there_is_nothing_and_no_message(tmp_path):
    (tmp_path / ".arborfs").mkdir()
    (tmp_path / ".arborfs" / "config.json").write_text("damaged")
    for folder in (tmp_path, tmp_path.parent):
        assert completed(folder, "arborfs checkout ", "arborfs view x ", "arborfs show main:") == [[], [], []]


def test_names_that_a_line_cannot_hold_are_left_out(full):
    repository, _ = full
    with Engine.open(repository) as engine:
        engine.working_tree("main").make_directory((b"names",), mtime=1)
        for name in (b"two\nlines", b"caf\xe9", b"\x1b[2J", b"fine"):
            engine.working_tree("main").put_file((b"names", name), BytesSource(b"x"), mtime=1)
    assert completed(repository, "arborfs restore names/") == [["names/fine"]]


def test_where_many_keys_fit_the_ways_to_go_on_are_offered(repository):
    with Repository(repository) as repo, repo.checkout(write=True) as checkout:
        numbers = checkout.datasets.init_dataset("numbers", (), np.int32)
        numbers.update({str(key): np.array(key, np.int32) for key in range(3000)})
        frames = checkout.datasets.init_dataset("frames", (), np.int32)
        frames.update({f"frame-{key:05}": np.array(key, np.int32) for key in range(3000)})
        frames["frame-größe"] = np.array(0, np.int32)
    found = completed(
        repository,
        "arborfs view numbers ",
        "arborfs view numbers 1",
        "arborfs view numbers 29",
        "arborfs view numbers 299",
        "arborfs view frames ",
        "arborfs view frames frame-01",
    )
    assert found[0] == list("0123456789")
    assert found[1] == ["1", *(f"1{digit}" for digit in range(10))], "the key 1, and how others begin"
    assert sorted(found[2]) == sorted(["29", *map(str, range(290, 300)), *map(str, range(2900, 3000))])
    assert sorted(found[3]) == ["299", *map(str, range(2990, 3000))]
    assert found[4] == ["frame-0", "frame-g"], "what all have in common is there at once"
    assert found[5] == [f"frame-01{digit}" for digit in range(10)]


def test_a_large_directory_is_looked_into_and_not_walked(engine, monkeypatch):
    """Counts the entries that are read: a few pages, of 20,000."""
    tree = engine.working_tree("main")
    tree.make_directory((b"d",), mtime=1)
    for number in range(20_000):
        tree.put_file((b"d", b"%05d" % number), BytesSource(b"x"), mtime=1)
    snapshot = engine.snapshot(tree.commit("many"))
    read = 0
    entries = Snapshot.entries

    def counting(self, path, after=b""):
        nonlocal read
        for row in entries(self, path, after):
            read += 1
            yield row

    monkeypatch.setattr(Snapshot, "entries", counting)

    def files(name, entry):
        return name.decode() if entry.kind is Kind.FILE else None

    assert names(snapshot, (b"d",), "1234", files) == [f"1234{digit}" for digit in range(10)]
    assert read < 20
    assert [way.rstrip("\0") for way in names(snapshot, (b"d",), "1", files)] == [f"1{digit}" for digit in range(10)]
    assert [way.rstrip("\0") for way in names(snapshot, (b"d",), "", files)] == ["0", "1"]
    assert read < 3 * OFFERED


def completed_in_fish(folder, home, *lines):
    """What fish offers at the end of each line: values, and behind a tab what they mean."""
    command = shlex.join([sys.executable, "-m", "fusefs.cli"])
    asked = [f"complete -C {shlex.quote(line)}; echo =====" for line in lines]
    script = f"function arborfs; {command} $argv; end\narborfs completion fish | source\n" + "\n".join(asked)
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=folder,
        env=os.environ | {"LC_ALL": "C.UTF-8", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return [answer.splitlines() for answer in done.stdout.split("=====\n")[:-1]]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_too(full, tmp_path):
    repository, _ = full
    with Repository(repository) as repo, repo.checkout(write=True) as checkout:
        checkout.datasets["images"]["a,b"] = np.zeros(2, np.uint8)
    assert completed_in_fish(
        repository,
        tmp_path,
        "arborfs checkout ",
        "arborfs commit --branch=e",
        "arborfs view images 'with",
        "arborfs view images a",
        "arborfs show main:im",
        "arborfs show :images/with\\ b",
        "arborfs restore notes/",
        f"arborfs -C {repository}/ checkout nothing",
        "arborfs status --js",
        "echo no; arborfs tag delete ",
        "arborfs import /usr/bi",
    ) == [
        ["experiment", "main"],
        ["--branch=experiment"],
        ["with blank"],
        ["a,b"],
        ["main:images/"],
        [":images/with blank.npy"],
        ["notes/README.txt"],
        [],
        ["--json\tPrint JSON, for programs to read."],
        ["v1.0"],
        ["/usr/bin/"],
    ]


def test_a_home_directory_by_its_short_name_is_understood(full, monkeypatch):
    repository, _ = full
    monkeypatch.setenv("HOME", str(repository.parent))
    assert completed(repository.parent, f"arborfs -C ~/{repository.name} checkout e") == [["experiment"]]


@pytest.mark.parametrize("shell, word", [("bash", "complete -o"), ("zsh", "#compdef arborfs"), ("fish", "complete --")])
def test_every_shell_has_its_script(shell, word):
    script = arborfs("completion", shell).stdout
    assert word in script and "_ARBORFS_COMPLETE" in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, check=True)


def test_an_unknown_shell_is_a_usage_error(repository):
    assert "bash" in Cli(repository)("completion", "tcsh", code=2)
