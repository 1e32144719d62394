"""`arborfs mount --supervise`: a daemon that dies comes back by itself; one that ends does not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusefs.cli.supervisor import LONGEST_PAUSE, pause
from tests.conftest import alive, arborfs, fuse_missing, is_mounted, session_processes, wait_until


@dataclass
class Supervised:
    """A supervised mount: its place, what was in the folder before, and its log."""

    place: Path
    log: Path

    @property
    def main(self) -> Path:
        return self.place / "branches" / "main"

    def processes(self) -> list[int]:
        return [pid for pid, command in session_processes().items() if f" {self.place} " in f"{command} "]

    def daemon(self) -> int | None:
        rows = json.loads(arborfs("mounts", "--json").stdout)
        return next((row["pid"] for row in rows if row["mountpoint"] == str(self.place) and row["alive"]), None)

    def supervisor(self) -> int:
        (pid,) = set(self.processes()) - {self.daemon()}
        return pid

    def kill(self) -> None:
        """Kill the daemon, and wait until another one serves."""
        killed = self.daemon()
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.daemon() not in (None, killed), what="the next daemon")

    def await_end(self) -> None:
        wait_until(lambda: not self.processes(), what="the end of supervisor and daemon")
        assert not is_mounted(self.place)


@pytest.fixture
def supervised(tmp_path, repository) -> Iterator[Supervised]:
    """A supervised mount on a folder in which a file `below` lies."""
    if reason := fuse_missing():
        pytest.skip(reason)
    there = Supervised(tmp_path / "place", tmp_path / "log")
    there.place.mkdir()
    (there.place / "below").touch()
    arborfs("mount", repository, there.place, "--supervise", "--log", there.log)
    try:
        yield there
    finally:
        for pid in there.processes():
            os.kill(pid, signal.SIGKILL)
        if is_mounted(there.place):
            subprocess.run(["fusermount3", "-uz", there.place], check=False)
    assert " ERROR " not in there.log.read_text()


def test_a_killed_daemon_comes_back_with_what_was_staged(supervised):
    for number in range(3):
        (supervised.main / f"file{number}").write_text("staged")
        supervised.kill()
        assert sorted(os.listdir(supervised.main)) == [f"file{n}" for n in range(number + 1)]
    log = supervised.log.read_text()
    assert log.count("died (SIGKILL): starting it again in ") == 3
    assert "in 0.1 s" in log and "in 0.2 s" in log and "in 0.4 s" in log
    arborfs("umount", supervised.place)
    supervised.await_end()


def test_nobody_ever_sees_the_folder_below(supervised):
    killed = supervised.daemon()
    os.kill(killed, signal.SIGKILL)
    seen: set[str] = set()
    while supervised.daemon() in (None, killed):
        try:
            seen.update(os.listdir(supervised.place))
        except OSError as error:
            seen.add(errno.errorcode[error.errno or 0])
    assert seen - {"HEAD", "branches", "commits", "tags"} <= {"ENOTCONN", "ECONNABORTED"}
    assert "ENOTCONN" in seen
    arborfs("umount", supervised.place)
    supervised.await_end()
    assert os.listdir(supervised.place) == ["below"]


def test_sigterm_to_the_supervisor_stages_and_unmounts(supervised):
    file = (supervised.main / "open").open("wb", buffering=0)
    file.write(b"half")
    os.kill(supervised.supervisor(), signal.SIGTERM)
    supervised.await_end()
    with pytest.raises(OSError, match="not connected"):
        file.close()
    arborfs("mount", supervised.place.parent / "repository", supervised.place)
    try:
        assert (supervised.main / "open").read_bytes() == b"half"
    finally:
        arborfs("umount", supervised.place)


def test_unmounted_while_it_was_dead(supervised):
    for _ in range(3):
        supervised.kill()
    daemon = supervised.daemon()
    os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: not alive(daemon))
    arborfs("umount", supervised.place)  # within the pause, or just after it
    supervised.await_end()


def test_a_killed_supervisor_leaves_the_mount_alone(supervised):
    pid = supervised.supervisor()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))
    (supervised.main / "file").write_text("served")
    arborfs("umount", supervised.place)
    supervised.await_end()


def test_a_call_that_cannot_work_is_not_repeated(repository, tmp_path):
    if reason := fuse_missing():
        pytest.skip(reason)
    place = tmp_path / "place"
    place.mkdir()
    done = arborfs("mount", repository, place, "--supervise", "--ref", "nothing", check=False)
    assert done.returncode == 3
    assert "nothing" in done.stderr
    wait_until(lambda: not any(str(place) in command for command in session_processes().values()))


def test_pauses_grow_up_to_a_minute():
    assert [pause(failures) for failures in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert pause(50) == LONGEST_PAUSE
