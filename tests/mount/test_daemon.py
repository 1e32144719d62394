"""The life of a mount: refusals before it, signals and crashes during it, what is left after it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fusefs import mountinfo
from storage.engine import Engine
from storage.maintenance.verify import verify
from storage.model.records import Attributes
from storage.model.samples import make_schema
from tests.conftest import PATIENCE, Mounts, alive, arborfs, fuse_missing, is_mounted, wait_until


def stored(repository) -> dict[bytes, bytes]:
    """The files at the root of main."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        return {name: bytes(tree.open((name,))[1].read(0, 1 << 30)) for name, _ in tree.entries(())}


class TestRefusals:
    def test_no_mount_point(self, repository, tmp_path):
        done = arborfs("mount", repository, tmp_path / "nowhere", check=False)
        assert done.returncode != 0
        assert "does not exist" in done.stderr

    def test_a_file_as_mount_point(self, repository, tmp_path):
        (tmp_path / "file").touch()
        done = arborfs("mount", repository, tmp_path / "file", check=False)
        assert done.returncode != 0
        assert "not a folder" in done.stderr

    def test_inside_the_repository(self, repository):
        (repository / "inside").mkdir()
        done = arborfs("mount", repository, repository / "inside", check=False)
        assert done.returncode != 0
        assert "inside the repository" in done.stderr

    def test_around_the_repository(self, repository, tmp_path):
        done = arborfs("mount", repository, tmp_path, check=False)
        assert done.returncode != 0
        assert "would be hidden" in done.stderr

    def test_not_a_repository(self, tmp_path):
        (tmp_path / "plain").mkdir()
        (tmp_path / "m").mkdir()
        done = arborfs("mount", tmp_path / "plain", tmp_path / "m", check=False)
        assert done.returncode != 0
        assert not is_mounted(tmp_path / "m")

    @pytest.mark.parametrize("option, value", [("--ref", "nothing"), ("--branch", "nothing")])
    def test_what_is_not_there(self, repository, tmp_path, option, value):
        (tmp_path / "m").mkdir()
        done = arborfs("mount", repository, tmp_path / "m", option, value, check=False)
        assert done.returncode != 0
        assert "nothing" in done.stderr
        assert not is_mounted(tmp_path / "m")

    def test_twice(self, mount):
        done = arborfs("mount", mount.repository, mount.path, check=False)
        assert done.returncode != 0
        assert "already" in done.stderr


class TestEnding:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signals_stage_what_is_open_and_unmount(self, mount, repository, number):
        file = open(mount.main / "open", "wb", buffering=0)
        file.write(b"written, never closed")
        os.kill(mount.pid, number)
        mount.await_end()
        assert not is_mounted(mount.path)
        with pytest.raises(OSError, match="Errno"):
            file.write(b"x")
        with pytest.raises(OSError, match="Errno"):
            file.close()
        assert stored(repository) == {b"open": b"written, never closed"}

    def test_a_refused_file_does_not_keep_others_from_being_staged(self, mount, repository):
        with Engine.open(repository) as engine:
            schema = make_schema(np.dtype("<f8"), (2,), uuid="u")
            engine.working_tree("main").make_directory((b"d",), attributes=Attributes(schema=schema))
        open_files = []
        for name in ["d/misfit.npy", *map(str, range(1000))]:
            file = open(mount.main / name, "wb", buffering=0)
            file.write(b"written, never closed")
            open_files.append(file)
        mount.expect("d/misfit.npy was not staged")
        os.kill(mount.pid, signal.SIGTERM)
        mount.await_end()
        for file in open_files:
            with contextlib.suppress(OSError):
                file.close()
        with Engine.open(repository) as engine:
            tree = engine.working_tree("main")
            assert all(tree.entry((b"%d" % number,)).size == 21 for number in range(1000))
        kept = list((repository / ".arborfs" / "rejected").rglob("*"))
        assert b"written, never closed" in [path.read_bytes() for path in kept if path.is_file()]

    @pytest.mark.parametrize("command", [["fusermount3", "-u"], ["umount"]])
    def test_unmounted_by_others(self, mount, repository, command):
        if command[0] == "umount" and os.geteuid() != 0:
            pytest.skip("umount(8) of a FUSE mount needs root")
        (mount.main / "f").write_bytes(b"x")
        subprocess.run([*command, mount.path], check=True)
        mount.await_end()
        assert stored(repository) == {b"f": b"x"}

    def test_busy_mounts_stay(self, mount):
        with open(mount.main / "f", "wb") as file:
            done = arborfs("umount", mount.path, check=False)
            assert done.returncode != 0
            assert "busy" in done.stderr.lower()
            file.write(b"goes on")
        assert (mount.main / "f").read_bytes() == b"goes on"

    def test_a_lazy_unmount_serves_open_files_to_their_end(self, mount, repository):
        with open(mount.main / "f", "wb", buffering=0) as file:
            file.write(b"one ")
            subprocess.run(["fusermount3", "-u", "-z", mount.path], check=True)
            assert not is_mounted(mount.path)
            file.write(b"two")
        mount.await_end()
        assert stored(repository) == {b"f": b"one two"}


WRITER = """
import itertools, sys
for number in itertools.count():
    with open(f"{sys.argv[1]}-{number}", "wb", buffering=0) as file:
        file.write(b"%d\\n" % number)
    print(number, flush=True)
"""
"""Tells of a file once its close has returned without an error."""


class TestCrashes:
    def test_a_dead_mount_is_cleared(self, mounted, mount, repository):
        (mount.main / "f").write_bytes(b"acknowledged")
        mount.kill()
        with pytest.raises(OSError, match=f"Errno ({errno.ENOTCONN}|{errno.ECONNABORTED})]"):
            os.listdir(mount.path)
        assert mountinfo.is_dead(mount.path)
        arborfs("mount", repository, mount.path)
        assert (mount.main / "f").read_bytes() == b"acknowledged"

    def test_a_dead_mount_can_be_taken_away(self, mount):
        mount.kill()
        arborfs("umount", mount.path)
        assert not is_mounted(mount.path)
        assert os.listdir(mount.path) == []

    def test_everything_closed_survives_kill_9(self, mounted, repository):
        for round_ in range(3):
            mount = mounted(repository)
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, f"{mount.main}/{round_}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert writer.stdout is not None
            begun = [int(writer.stdout.readline()) for _ in range(100 + 37 * round_)]
            mount.kill()
            out, _ = writer.communicate(timeout=PATIENCE)
            acknowledged = begun + [int(line) for line in out.split()]
            files = stored(repository)
            for number in acknowledged:
                assert files[b"%d-%d" % (round_, number)] == b"%d\n" % number
        with Engine.open(repository) as engine:
            assert verify(engine) == []

    def test_spill_files_leave_nothing_behind(self, mounted, repository):
        mount = mounted(repository)
        with open(mount.main / "big", "wb", buffering=0) as file:
            file.write(b"x" * 20_000_000)
            mount.kill()
            with pytest.raises(OSError, match="Errno"):
                os.fsync(file.fileno())
            with pytest.raises(OSError, match="Errno"):
                file.close()
        assert list((repository / ".arborfs" / "tmp").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MB, with 6 MB taken by a file `ballast`."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    (disk / "ballast").write_bytes(bytes(6_000_000))
    yield disk
    wait_until(lambda: subprocess.run(["umount", disk], check=False, capture_output=True).returncode == 0)


def test_a_full_disk_is_told_and_work_goes_on_once_there_is_room(small_disk, mounted):
    arborfs("init", small_disk / "repository", "--name", "Ada", "--email", "ada@example.org")
    mount = mounted(small_disk / "repository")
    mount.expect("full|No space left")
    stored = {"before": b"kept" * 1000}
    (mount.main / "before").write_bytes(stored["before"])

    def fill() -> None:
        for number in range(40):
            data = os.urandom(1_000_000)
            (mount.main / f"{number}").write_bytes(data)
            stored[f"{number}"] = data

    with pytest.raises(OSError, match=f"Errno {errno.ENOSPC}]"):
        fill()
    assert len(stored) > 5
    (small_disk / "ballast").unlink()
    # Nothing is mounted anew: writing, fsync and committing work again.
    stored["after"] = os.urandom(1_000_000)
    with (mount.main / "after").open("wb", buffering=0) as file:
        file.write(stored["after"])
        os.fsync(file.fileno())
    (mount.main / ".arborfs" / "commit").write_text("once there was room")
    for tree in (mount.main, mount.path / "commits" / "main"):
        assert {name: (tree / name).read_bytes() for name in stored} == stored
    mount.unmount()
    with Engine.open(small_disk / "repository") as engine:
        assert verify(engine) == []


def test_damage_is_an_error_and_the_rest_reads_on(mounted, repository):
    mount = mounted(repository)
    data = {name: os.urandom(3_000_000) for name in ("bad", "good")}
    for name, contents in data.items():
        (mount.main / name).write_bytes(contents)
    (mount.main / ".arborfs" / "commit").write_text("to be damaged")
    mount.unmount()
    place = data["bad"][1_000_000:1_000_100]
    for segment in (repository / ".arborfs" / "segments").iterdir():
        raw = bytearray(segment.read_bytes())
        at = raw.find(place)
        if at >= 0:
            raw[at] ^= 0xFF
            segment.write_bytes(raw)
            break
    else:
        pytest.fail("the stored bytes were not found")
    again = mounted(repository)
    again.expect("damaged|changed since|Traceback")
    with pytest.raises(OSError, match=f"Errno {errno.EIO}]"):
        (again.main / "bad").read_bytes()
    assert (again.main / "good").read_bytes() == data["good"]
    again.unmount()


def test_mounts_are_listed_by_reading_only(mount, repository):
    found = mountinfo.mounted_at(mount.path)
    assert found is not None
    assert found.repository == repository
    assert found in mountinfo.mounts()
    assert not found.read_only
    assert mountinfo.wait_ready(mount.path, repository, time.monotonic())
    assert not mountinfo.wait_ready(mount.path, repository / "other", time.monotonic())


def test_odd_paths(mounted, tmp_path):
    from storage.model.records import Author

    place = tmp_path / "with space, comma, 100% and ünï"
    Engine.create(place, Author("Ada", "a@b")).close()
    mount = mounted(place)
    (mount.main / "f").write_bytes(b"x")
    found = mountinfo.mounted_at(mount.path)
    assert found is not None
    assert found.repository == place


def test_the_readahead_is_raised(mount):
    if os.geteuid() != 0:
        pytest.skip("only root may raise it")
    found = mountinfo.mounted_at(mount.path)
    assert found is not None
    setting = Path(f"/sys/class/bdi/{found.device}/read_ahead_kb")
    wait_until(lambda: setting.read_text().strip() == "4096")


def test_the_daemon_idles(mount):
    """An idle mount costs next to no CPU."""

    def ticks() -> int:
        with open(f"/proc/{mount.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    (mount.main / "f").touch()
    before, start = ticks(), time.monotonic()
    while time.monotonic() - start < 1.0:
        time.sleep(0.05)
    assert ticks() - before <= 10, "more than a tenth of a core"
    assert alive(mount.pid)


class TestCaching:
    """With the daemon stopped, whatever still answers comes from the kernel's memory."""

    @pytest.fixture
    def frozen(self, mount):
        """A committed file, read once, in a snapshot."""
        (mount.main / "d").mkdir()
        (mount.main / "d" / "f").write_bytes(os.urandom(3_000_000))
        (mount.main / ".arborfs" / "commit").write_text("one")
        (name,) = os.listdir(mount.path / "commits")
        return mount.path / "commits" / name / "d" / "f"

    @contextmanager
    def stopped(self, mount):
        """The daemon answers nothing."""
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(mount.pid, signal.SIGCONT)

    def test_a_committed_file_is_read_once(self, mount, frozen):
        data = frozen.read_bytes()
        assert not (frozen.parent / "nothing").exists()
        with open(frozen, "rb", buffering=0) as file, self.stopped(mount):
            assert file.read() == data
            assert frozen.stat().st_size == len(data)
            assert not (frozen.parent / "nothing").exists()

    def test_an_unchanged_working_file_is_read_once(self, mount, frozen):
        path = mount.main / "d" / "f"
        data = path.read_bytes()
        with open(path, "rb", buffering=0) as file, self.stopped(mount):
            assert file.read() == data
            assert path.stat().st_size == len(data)


@pytest.fixture
def open_place():
    """A folder that other users can reach: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="arborfs-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_other_users_are_let_in_where_that_was_asked_for(repository, open_place):
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    if reason := fuse_missing():
        pytest.skip(reason)
    mounts = Mounts(open_place)
    try:
        mount = mounts(repository, "--allow-other")
        (mount.main / "open").write_bytes(b"for all")
        (mount.main / "closed").write_bytes(b"for one")
        os.chmod(mount.main / "closed", 0o600)
        (mount.main / "shared").mkdir()
        os.chmod(mount.main / "shared", 0o777)
        assert other_user("cat", mount.main / "open").stdout == "for all"
        assert "Permission denied" in other_user("cat", mount.main / "closed").stderr
        assert "Permission denied" in other_user("touch", mount.main / "new").stderr
        assert other_user("touch", mount.main / "shared" / "theirs").returncode == 0
        assert (mount.main / "shared" / "theirs").stat().st_uid == 12345
    finally:
        wrong = mounts.take_down()
    assert not wrong


def other_user(*command: object) -> subprocess.CompletedProcess[str]:
    words = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *map(str, command)]
    return subprocess.run(words, cwd="/", capture_output=True, text=True, check=False)
