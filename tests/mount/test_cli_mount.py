"""`arborfs mount`, `umount` and `mounts`, each run as a process of its own, on the real kernel."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.model.samples import BytesSource
from tests.conftest import alive, arborfs, daemon_of, fuse_missing, is_mounted, wait_until

pytestmark = pytest.mark.skipif(bool(fuse_missing()), reason=fuse_missing())


@pytest.fixture
def place(tmp_path):
    """An empty folder to mount on."""
    folder = tmp_path / "M"
    folder.mkdir()
    return folder


@pytest.fixture
def tagged(repository):
    """A repository with one commit, tagged v1.0, that holds greeting.txt."""
    engine = Engine.open(repository)
    tree = engine.working_tree("main")
    tree.put_file((b"greeting.txt",), BytesSource(b"hello\n"), mtime=1_700_000_000_000_000_000)
    engine.create_tag("v1.0", tree.commit("first"))
    engine.close()
    return repository


def rows(*words):
    return json.loads(arborfs("mounts", "--json").stdout)


def row_of(place):
    (row,) = [row for row in rows() if row["mountpoint"] == str(place)]
    return row


def test_the_command_returns_when_the_mount_answers(mounted, tagged):
    mount = mounted(tagged)
    assert sorted(os.listdir(mount.path)) == ["HEAD", "branches", "commits", "tags"]
    assert (mount.main / "greeting.txt").read_text() == "hello\n"


def test_the_daemon_stands_on_its_own(mounted, repository):
    mount = mounted(repository)
    assert os.getsid(mount.pid) == mount.pid, "it has a session of its own"
    assert os.readlink(f"/proc/{mount.pid}/cwd") == "/", "it keeps no folder busy"


def test_unmounting_ends_the_daemon_and_keeps_staged_work(mounted, repository):
    first = mounted(repository)
    (first.main / "note.txt").write_text("kept")
    first.unmount()
    assert not is_mounted(first.path) and os.listdir(first.path) == []
    assert (mounted(repository).main / "note.txt").read_text() == "kept"


def test_the_log_lies_in_the_repository_unless_named(repository, place):
    arborfs("mount", repository, place)
    try:
        assert len(list((repository / ".arborfs" / "logs").glob("*M.log"))) == 1
    finally:
        arborfs("umount", place)


def test_mounts_tells_what_is_mounted_where(mounted, tagged):
    whole = mounted(tagged)
    snapshot = mounted(tagged, "--ref", "v1.0")
    branch = mounted(tagged, "--branch", "main")
    expected = {"repository": str(tagged), "alive": True, "ref": None, "branch": None, "read_only": False}
    assert row_of(whole.path) == expected | {"mountpoint": str(whole.path), "pid": whole.pid}
    assert (row_of(snapshot.path)["ref"], row_of(snapshot.path)["read_only"]) == ("v1.0", True)
    assert row_of(branch.path)["branch"] == "main"
    text = arborfs("mounts").stdout
    assert f"{tagged} on {snapshot.path} (read-only, ref v1.0, process {snapshot.pid})\n" in text


def test_a_snapshot_is_the_root_and_refuses_writes(mounted, tagged):
    mount = mounted(tagged, "--ref", "v1.0")
    assert (mount.path / "greeting.txt").read_text() == "hello\n"
    with pytest.raises(OSError) as refused:
        (mount.path / "new.txt").write_text("no")
    assert refused.value.errno == errno.EROFS


def test_a_branch_is_the_root_and_takes_writes(mounted, tagged):
    mount = mounted(tagged, "--branch", "main")
    (mount.path / "new.txt").write_text("yes")
    status = json.loads(arborfs("-C", tagged, "status", "--json").stdout)
    assert status["changes"] == [{"path": "new.txt", "change": "added", "kind": "file"}]


def test_a_read_only_mount_shows_everything_and_takes_nothing(mounted, tagged):
    mount = mounted(tagged, "--ro")
    assert (mount.main / "greeting.txt").read_text() == "hello\n"
    with pytest.raises(OSError) as refused:
        (mount.main / "new.txt").write_text("no")
    assert refused.value.errno == errno.EROFS


def test_commands_in_a_mount_mean_its_repository_and_the_branch_one_stands_in(mounted, tagged):
    arborfs("-C", tagged, "branch", "create", "side")
    mount = mounted(tagged)
    side = mount.path / "branches" / "side"
    (side / "new.txt").write_text("here")
    status = json.loads(arborfs("status", "--json", cwd=side).stdout)
    assert (status["branch"], len(status["changes"])) == ("side", 1)
    assert json.loads(arborfs("status", "--json", cwd=mount.path).stdout)["branch"] == "main"
    inside = mounted(tagged, "--branch", "side")
    assert json.loads(arborfs("status", "--json", cwd=inside.path).stdout)["branch"] == "side"


# --- the end of a daemon ----------------------------------------------------------------------------------------------


def test_a_dead_mount_is_listed_as_dead_and_cleared_by_the_next(mounted, repository):
    mount = mounted(repository)
    mount.kill()
    with pytest.raises(OSError) as dead:
        os.listdir(mount.path)
    assert dead.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    assert row_of(mount.path)["alive"] is False
    assert "DEAD" in arborfs("mounts").stdout
    arborfs("mount", repository, mount.path)
    assert "branches" in os.listdir(mount.path)
    second = daemon_of(mount.path)
    arborfs("umount", mount.path)
    assert not alive(second)


def test_umount_clears_a_dead_mount(mounted, repository):
    mount = mounted(repository)
    mount.kill()
    arborfs("umount", mount.path)
    assert not is_mounted(mount.path)


def test_a_busy_mount_stays_and_says_so(mounted, repository):
    mount = mounted(repository)
    with (mount.main / "open.txt").open("w") as file:
        refused = arborfs("umount", mount.path, check=False)
        assert refused.returncode == 4 and "busy" in refused.stderr and "--force" in refused.stderr
        assert is_mounted(mount.path)
        file.write("finished")
    assert (mount.main / "open.txt").read_text() == "finished"


def test_force_lets_open_files_finish(mounted, repository):
    mount = mounted(repository)
    with (mount.main / "open.txt").open("w") as file:
        arborfs("umount", "--force", mount.path)
        assert not is_mounted(mount.path)
        file.write("finished")
    mount.await_end()
    assert (mounted(repository).main / "open.txt").read_text() == "finished"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_cleanly(mounted, repository, stop):
    mount = mounted(repository)
    (mount.main / "note.txt").write_text("kept")
    os.kill(mount.pid, stop)
    mount.await_end()
    assert not is_mounted(mount.path)
    assert json.loads(arborfs("-C", repository, "status", "--json").stdout)["changes"]


def test_in_the_foreground_it_stays_until_it_is_stopped(repository, place):
    command = [sys.executable, "-m", "fusefs.cli", "mount", "--foreground", str(repository), str(place)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: is_mounted(place) and os.listdir(place), what="the mount")
        assert row_of(place)["pid"] == process.pid
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0 and "Traceback" not in said
        assert not is_mounted(place)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
            arborfs("umount", place, check=False)


# --- calls that cannot be right ---------------------------------------------------------------------------------------


def refused(*words):
    """Exit code and text of a mount that does not come up; nothing may be left of it."""
    done = arborfs("mount", *words, check=False)
    assert done.returncode != 0, f"mounted: {words}"
    assert "Traceback" not in done.stderr
    if is_mounted(words[1]):
        arborfs("umount", words[1])
        pytest.fail(f"exit code {done.returncode}, but mounted: {words}")
    return done.returncode, done.stderr


def test_not_a_repository(tmp_path, place):
    empty = tmp_path / "empty"
    empty.mkdir()
    code, said = refused(empty, place)
    assert code == 3 and str(empty) in said
    assert list(empty.iterdir()) == [], "nothing is written to what is no repository"


def test_a_missing_mount_point(repository, tmp_path):
    code, said = refused(repository, tmp_path / "nowhere")
    assert code in (3, 4) and "nowhere" in said


def test_a_file_as_mount_point(repository, tmp_path):
    (tmp_path / "file").touch()
    code, said = refused(repository, tmp_path / "file")
    assert code == 4 and "file" in said


def test_a_mount_point_inside_the_repository(repository):
    (repository / "inside").mkdir()
    code, said = refused(repository, repository / "inside")
    assert code in (2, 4) and "inside" in said


def test_a_repository_inside_the_mount_point(repository):
    code, _ = refused(repository, repository.parent)
    assert code in (2, 4)


def test_an_unknown_revision(tagged, place):
    code, said = refused(tagged, place, "--ref", "v9")
    assert code == 3 and "v9" in said


def test_an_unknown_branch(tagged, place):
    code, said = refused(tagged, place, "--branch", "nowhere")
    assert code == 3 and "nowhere" in said


def test_a_ref_and_a_branch_exclude_each_other(tagged, place):
    assert refused(tagged, place, "--ref", "v1.0", "--branch", "main")[0] == 2


def test_a_newer_format(repository, place):
    config = repository / ".arborfs" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 99}))
    code, said = refused(repository, place)
    assert code == 4 and "newer" in said


def test_where_something_is_mounted_nothing_else_goes(mounted, repository):
    mount = mounted(repository)
    done = arborfs("mount", repository, mount.path, check=False)
    assert done.returncode == 4 and "already" in done.stderr
    assert "branches" in os.listdir(mount.path)


def test_umount_of_what_is_no_mount(place):
    done = arborfs("umount", place, check=False)
    assert done.returncode == 3 and str(place) in done.stderr


def test_odd_characters_in_the_paths(tmp_path, mounted):
    odd = tmp_path / "with space, comma\\ünd–dash"
    arborfs("init", odd / "repo", "--name", "Ada", "--email", "ada@example.org")
    place = odd / "M"
    place.mkdir()
    arborfs("mount", odd / "repo", place)
    try:
        assert row_of(place)["repository"] == str(odd / "repo")
        assert "branches" in os.listdir(place)
    finally:
        arborfs("umount", place)
    assert os.listdir(place) == []


def test_a_relative_path_is_as_good(repository):
    (repository.parent / "M").mkdir()
    arborfs("mount", repository.name, "M", cwd=repository.parent)
    arborfs("umount", "M/", cwd=repository.parent)
    assert not is_mounted(Path(repository.parent / "M"))
