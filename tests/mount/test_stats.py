"""What a daemon tells of itself: `arborfs stats`, `.arborfs/stats.json`, and the log line of every EIO."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.model.samples import BytesSource
from tests.conftest import arborfs


def report(mount) -> dict:
    return json.loads((mount.path / ".arborfs" / "stats.json").read_text())


def test_requests_bytes_and_staged_work_are_counted(mounted, repository):
    mount = mounted(repository)
    before = report(mount)
    assert before["pid"] == mount.pid
    (mount.main / "a").write_bytes(bytes(100_000))
    for number in range(20):
        (mount.main / f"file{number}").write_bytes(b"x" * 1000)
    after = report(mount)
    created = after["requests"]["create"]
    assert created["count"] == 21
    assert 0 < created["p50_us"] <= created["p90_us"] <= created["p99_us"]
    assert created["mean_us"] > 0
    assert after["bytes"]["written"] == 120_000
    assert after["repository"]["staged_rows"] == 21
    assert after["repository"]["dirty"] == ["main"]
    assert after["repository"]["journals"]["bytes"] > 0
    assert after["refusals"].keys() >= before["refusals"].keys()
    assert after["last_errors"] == []


def test_open_files_and_unstaged_work(mounted, repository):
    mount = mounted(repository)
    with (mount.main / "a").open("wb", buffering=0) as file:
        file.write(b"not staged yet")
        there = report(mount)["open"]
        assert there["files"] == 1
        assert there["unstaged_files"] == 1
    assert report(mount)["open"]["unstaged_files"] == 0


def test_reads_from_memory_and_from_disk_are_told_apart(mounted, repository):
    mount = mounted(repository)
    content = os.urandom(3 << 20)
    (mount.main / "a").write_bytes(content)
    mount.unmount()
    mount = mounted(repository)
    assert (mount.main / "a").read_bytes() == content
    there = report(mount)
    assert there["bytes"]["read"] >= len(content)
    assert there["reads"]["from_disk"] > 0
    assert there["reads"]["from_disk"] + there["reads"]["from_memory"] == there["requests"]["read"]["count"]


@pytest.mark.parametrize("options", [["--ref", "main"], ["--branch", "main"]])
def test_every_kind_of_mount_has_the_report(mounted, repository, options):
    whole = mounted(repository)
    (whole.main / "a").write_text("a")
    (whole.main / ".arborfs" / "commit").write_text("first")
    for place in (whole.path, whole.main, whole.path / "commits" / "main"):
        assert json.loads((place / ".arborfs" / "stats.json").read_text())["pid"] == whole.pid
    single = mounted(repository, *options)
    assert report(single)["pid"] == single.pid
    assert ".arborfs" not in os.listdir(single.path)
    assert ".arborfs" not in os.listdir(whole.path)


def test_the_command(mounted, repository):
    mount = mounted(repository)
    (mount.main / "a").write_bytes(bytes(5000))
    said = arborfs("stats", mount.path).stdout
    assert f"process {mount.pid}" in said
    assert "written     5 kB" in said
    assert "staged      1 row on main" in said
    assert "errors      none" in said
    inside = json.loads(arborfs("stats", "--json", cwd=mount.main).stdout)
    assert inside["bytes"]["written"] == 5000


def test_the_command_where_there_is_no_mount_or_a_dead_one(mounted, repository, tmp_path):
    done = arborfs("stats", tmp_path, check=False)
    assert (done.returncode, done.stderr) == (3, f"Error: no arborfs mount at {tmp_path}\n")
    mount = mounted(repository)
    mount.kill()
    done = arborfs("stats", mount.path, check=False)
    assert done.returncode == 4
    assert "is dead" in done.stderr


def test_every_eio_is_logged_with_its_traceback_and_remembered(mounted, repository):
    content = os.urandom(200_000)
    with Engine.open(repository) as engine:
        engine.working_tree("main").put_file((b"a",), BytesSource(content))
        engine.working_tree("main").commit("first")
    segment = next(path for path in (repository / ".arborfs" / "segments").glob("*.log") if _holds(path, content))
    data = bytearray(segment.read_bytes())
    data[data.find(content[:64])] ^= 1
    segment.write_bytes(data)
    mount = mounted(repository)
    mount.expect("ERROR fusefs: read: ")
    mount.expect("Traceback")
    with pytest.raises(OSError, match="Input/output error"):
        (mount.main / "a").read_bytes()
    errors = report(mount)["last_errors"]
    assert {(row["request"], row["errno"]) for row in errors} == {("read", "EIO")}
    assert "Corrupt: " in errors[0]["error"]
    log = mount.log.read_text()
    assert "ERROR fusefs: read: " in log
    assert 'File "' in log
    assert "Corrupt" in arborfs("stats", mount.path).stdout


def _holds(path: Path, content: bytes) -> bool:
    return content[:64] in path.read_bytes()
