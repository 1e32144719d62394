"""`arborfs doctor`: what is wrong is named, with what to do; what is fine is not disturbed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from fusefs import checkup, mountinfo, preflight
from storage.engine import Engine
from storage.home import index_trouble
from storage.maintenance.checkup import Verdict, examine
from storage.model.samples import BytesSource
from tests.conftest import arborfs


def verdicts(path: Path) -> dict[Verdict, list[str]]:
    found: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for finding in examine(path):
        found[finding.verdict].append(f"{finding.what} | {finding.advice}")
    return found


def troubles(path: Path) -> list[str]:
    found = verdicts(path)
    return found[Verdict.WARNING] + found[Verdict.PROBLEM]


@pytest.fixture
def filled(repository: Path) -> Path:
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"a",), BytesSource(os.urandom(100_000)))
        tree.commit("first")
        tree.put_file((b"b",), BytesSource(b"staged"))
    return repository


class TestRepository:
    def test_a_sound_one(self, filled):
        assert troubles(filled) == []

    def test_an_open_one_is_left_alone(self, filled):
        with Engine.open(filled) as engine:
            assert troubles(filled) == []
            assert any("open in another process" in text for text in verdicts(filled)[Verdict.FINE])
            assert engine.working_tree("main").is_dirty()
        assert troubles(filled) == []

    def test_none(self, tmp_path):
        assert len(troubles(tmp_path)) == 1
        assert "holds no arborfs repository" in troubles(tmp_path)[0]

    def test_a_newer_format(self, filled):
        config = filled / ".arborfs" / "config.json"
        config.write_text(config.read_text().replace('"format": 1', '"format": 99'))
        assert "install a newer arborfs" in troubles(filled)[0]

    @pytest.mark.parametrize("loss", ["missing", "cut", "other boot"])
    def test_an_index_that_cannot_be_used(self, filled, loss):
        index, state = filled / ".arborfs" / "index" / "data.mdb", filled / ".arborfs" / "state.json"
        if loss == "missing":
            index.unlink()
        elif loss == "cut":
            os.truncate(index, 20_000)
        else:
            state.write_text(json.dumps(json.loads(state.read_text()) | {"boot": "another", "clean": False}))
        (only,) = troubles(filled)
        assert "its index cannot be used" in only
        assert "nothing is lost" in only
        with Engine.open(filled) as engine:
            assert engine.rebuilt is not None
            assert engine.working_tree("main").is_dirty()
        assert troubles(filled) == []
        assert index_trouble(filled / ".arborfs") == ""

    def test_a_damaged_segment(self, filled):
        segment = next((filled / ".arborfs" / "segments").glob("*.log"))
        data = bytearray(segment.read_bytes())
        data[3] ^= 1
        segment.write_bytes(data)
        (only,) = verdicts(filled)[Verdict.PROBLEM]
        assert str(segment) in only
        assert "arborfs verify" in only

    def test_a_disk_that_is_nearly_full(self, filled, monkeypatch):
        monkeypatch.setattr("storage.maintenance.checkup.SCARCE", 1 << 60)
        (only,) = troubles(filled)
        assert "bytes left" in only

    def test_on_a_network_file_system(self, tmp_path, monkeypatch):
        (tmp_path / "mountinfo").write_text(
            "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n40 22 0:38 / /data rw - nfs4 server:/data rw\n"
        )
        monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "mountinfo")
        assert [finding.verdict for finding in checkup.examine_place(Path("/data/repository"))] == [Verdict.PROBLEM]
        assert list(checkup.examine_place(Path("/elsewhere"))) == []

    def test_errors_in_a_log(self, filled):
        logs = filled / ".arborfs" / "logs"
        logs.mkdir()
        (logs / "mnt.log").write_text(
            "2026 INFO fusefs: serving\n2026 ERROR fusefs: read: one\n2026 ERROR fusefs: two\n"
        )
        (only,) = checkup.examine_logs(filled)
        assert "2 errors; the last: 2026 ERROR fusefs: two" in only.what


class TestMachine:
    def problems(self) -> list[str]:
        return [
            f"{finding.what} | {finding.advice}"
            for finding in checkup.examine_machine()
            if finding.verdict is Verdict.PROBLEM
        ]

    def test_no_device(self, monkeypatch, tmp_path):
        monkeypatch.setattr(preflight, "DEVICE", tmp_path / "fuse")
        (only,) = self.problems()
        assert only.startswith(f"{tmp_path / 'fuse'} is missing | ")
        assert "modprobe fuse" in only

    def test_no_fusermount(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert any("fusermount3 is not installed | install it" in text for text in self.problems())


class TestCommand:
    def test_a_live_mount(self, mounted, filled):
        mount = mounted(filled)
        said = arborfs("doctor", mount.path).stdout
        assert f"ok       the mount of {filled} at {mount.path} answers" in said
        assert "PROBLEM" not in said

    def test_a_dead_mount(self, mounted, filled):
        mount = mounted(filled)
        mount.kill()
        done = arborfs("doctor", filled, check=False)
        assert done.returncode == 1
        assert f"PROBLEM  the mount of {filled} at {mount.path} is dead" in done.stdout
        assert f"arborfs umount {mount.path}" in done.stdout
        rows = json.loads(arborfs("doctor", "--json", mount.path, check=False).stdout)
        assert [row["verdict"] for row in rows].count("problem") == 1

    def test_a_mount_that_hangs(self, mounted, filled, monkeypatch):
        monkeypatch.setattr(checkup, "ANSWER_SECONDS", 0.3)
        mount = mounted(filled)
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            found = [finding for finding in checkup.examine_mounts() if str(mount.path) in finding.what]
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        assert [finding.verdict for finding in found] == [Verdict.PROBLEM]
        assert "umount --force" in found[0].advice

    def test_a_folder_without_a_repository(self, tmp_path):
        done = arborfs("doctor", tmp_path, check=False)
        assert done.returncode == 1
        assert f"{tmp_path} holds no arborfs repository" in done.stdout

    def test_outside_of_any_repository(self, tmp_path):
        assert "/dev/fuse" in arborfs("doctor", cwd=tmp_path, check=False).stdout
