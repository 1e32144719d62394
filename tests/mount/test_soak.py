"""`scripts/soak` is run for seconds, with what is installed and with programs made up to fail in each way."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import fuse_missing, mount_lines, wait_until

SCRIPTS = Path(__file__).parents[2] / "scripts"

pytestmark = pytest.mark.skipif(bool(fuse_missing()), reason=fuse_missing())


@pytest.fixture
def folder(tmp_path):
    """A folder for the soak's temporary files, in which nothing may stay mounted."""
    below = tmp_path / "soaks"
    below.mkdir()
    yield below
    mounted = [line.split()[1] for line in mount_lines() if line.split()[1].startswith(f"{below}/")]
    for place in mounted:
        subprocess.run(["fusermount3", "-uz", place], check=False)
    assert not mounted


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A function that puts a program in the place of dbench: a script of the shell."""
    commands = tmp_path / "commands"
    commands.mkdir()

    def make(script: str) -> None:
        program = commands / "dbench"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return make


def start(folder: Path, *words: str, script: str = "soak.py") -> subprocess.Popen[str]:
    """The soak, begun. Its choices are the same each time."""
    front = [sys.executable] if script.endswith(".py") else []
    return subprocess.Popen(
        [*front, SCRIPTS / script, *words, "--seed", "1", "--folder", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=SCRIPTS.parent,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS.parent)},
    )


def soak(folder: Path, *words: str, script: str = "soak.py") -> tuple[int, str]:
    """The soak, to its end: its exit code and what it printed."""
    process = start(folder, *words, script=script)
    told, _ = process.communicate(timeout=200)
    return process.returncode, told


@pytest.mark.parametrize("name", ["stress-ng:together", "fio:one-file", "dbench:clients"])
def test_a_mount_bears_what_is_installed(folder, name):
    tool = name.partition(":")[0]
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    code, told = soak(folder, "1s", "--only", name, script="soak")
    assert code == 0, told
    (turn, *_) = [line for line in told.splitlines() if line.startswith(f"  {name} ")]
    assert turn.endswith(" operations  ok") and " 0 operations" not in turn
    assert "1 programs, " in told and "soak: clean" in told
    assert list(folder.iterdir()) == []


def test_what_fails_on_the_mount_only_is_a_failure_and_the_repository_is_kept(folder, made_up):
    made_up("case $* in */mount/*) echo 'the third byte is wrong'; exit 3;; esac")
    code, told = soak(folder, "1s", "--only", "dbench:clients")
    assert code == 1, told
    assert "exit code 3; not so on the disk" in told and "the third byte is wrong" in told
    assert "FAILED on the mount only: dbench:clients" in told
    (kept,) = folder.iterdir()
    assert told.splitlines()[-1].endswith(f"in {kept}")
    assert sorted(path.name for path in kept.iterdir()) == ["daemon.log", "dbench-clients.txt", "repository"]


def test_what_fails_on_the_disk_too_is_told_and_is_no_failure(folder, made_up):
    made_up("exit 3")
    code, told = soak(folder, "1s", "--only", "dbench:clients")
    assert code == 0, told
    assert "the disk fails alike: dbench:clients" in told
    assert list(folder.iterdir()) == []


def test_the_end_of_the_daemon_is_a_failure_whatever_the_program_says(folder, made_up):
    # The daemon's command line ends with the mount point, which the program itself knows only what is below of.
    made_up('all=$*; place=${all##*-D }; kill -9 $(pgrep -f "${place%%/branches/*}$")')
    code, told = soak(folder, "1s", "--only", "dbench:clients")
    assert code == 1, told
    assert "after dbench:clients: the daemon is gone" in told
    assert (next(folder.iterdir()) / "repository").is_dir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_early_it_leaves_nothing(folder, made_up, tmp_path, number):
    # A program that does not want to end, and a job of it that has left its session.
    (tmp_path / "jobs").mkdir()
    made_up(f"trap '' INT TERM\nsetsid sleep 600 & echo > {tmp_path}/jobs/$!\necho > {tmp_path}/jobs/$$\nsleep 600")
    process = start(folder, "60s", "--only", "dbench:clients")
    try:
        wait_until(lambda: len(list((tmp_path / "jobs").iterdir())) == 2, what="the program that hangs")
    finally:
        process.send_signal(number)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, told
    assert "nothing is left" in told
    assert list(folder.iterdir()) == []
    assert not [job.name for job in (tmp_path / "jobs").iterdir() if Path("/proc", job.name, "exe").exists()]


def test_what_cannot_be_installed_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    code, told = soak(folder, "1s", "--only", "fio", "--only", "dbench")
    assert code == 2 and "missing: dbench fio" in told


def test_words_it_does_not_know_are_refused(folder):
    for words, told in ((["ten"], "no duration"), (["2s", "--only", "dbunch"], "no program is named dbunch")):
        code, printed = soak(folder, *words)
        assert code == 2 and told in printed
    assert list(folder.iterdir()) == []
