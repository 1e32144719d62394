"""Plain paths: where in which repository they lead, on a real mount and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from storage import Repository, places
from storage.errors import InvalidName, NotADirectory, NotARepository, NotEmpty, NotFound, ReadOnly
from storage.places import place_of
from tests.conftest import Mounts, wait_until


@pytest.fixture(autouse=True)
def letting_go() -> Iterator[None]:
    yield
    places.let_go()


def test_a_path_in_a_repositorys_folder_is_on_its_default_branch(repository, monkeypatch):
    place = place_of(repository / "lab" / "sprout")
    assert (place.files.branch, place.path, place.given) == ("main", "lab/sprout", repository / "lab" / "sprout")
    assert place.writeable and place.mounted() is None
    assert place_of(repository).path == ""
    monkeypatch.chdir(repository)
    assert place_of("./x/../y").path == "y"
    assert place_of("y").repository is place.repository
    place.files.write_many({"lab/sprout": b"1"})
    with Repository(repository) as opened:
        assert opened.files().read("lab/sprout") == b"1"


def test_anywhere_else_a_repository_is_made_when_asked_for(tmp_path):
    with pytest.raises(NotARepository, match="in no repository"):
        place_of(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    place = place_of(tmp_path / "new", make=True)
    assert (place.path, place.files.branch) == ("", "main")
    assert os.listdir(tmp_path / "new") == [".arborfs"]
    place.files.write("x", b"1")
    assert len(place.files.commit("by somebody")) == 64
    assert place_of(tmp_path / "new" / "x").path == "x"


def test_what_is_in_the_way_is_named(tmp_path, repository):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "data").write_text("x")
    with pytest.raises(NotADirectory, match="is a file"):
        place_of(tmp_path / "file", make=True)
    with pytest.raises(NotEmpty, match="arborfs import"):
        place_of(tmp_path / "full", make=True)
    assert os.listdir(tmp_path / "full") == ["data"]
    with pytest.raises(InvalidName, match="own files"):
        place_of(repository / ".arborfs" / "segments")


def test_a_repository_made_anew_in_the_same_place_is_another(tmp_path):
    first = place_of(tmp_path / "r", make=True)
    first.files.write("x", b"1")
    places.let_go()
    subprocess.run(["rm", "-r", tmp_path / "r"], check=True)
    second = place_of(tmp_path / "r", make=True)
    assert not second.files.exists("x")


def test_only_mounts_are_asked_where_they_lead(tmp_path):
    try:
        os.setxattr(tmp_path, "user.arborfs.place", b'{"repository": "/nowhere", "id": "x", "branch": "main"}')
    except OSError:
        pytest.skip("the file system of the temporary folder keeps no extended attributes")
    place = place_of(tmp_path / "x", make=True)
    assert place.repository.path == tmp_path / "x"


def test_what_is_made_by_a_path_in_a_mount_is_seen_there_at_once(repository, mounted: Mounts):
    mount = mounted(repository)
    for number in range(20):
        place = place_of(mount.main / f"wood{number}" / "deep" / "x")
        place.files.write_many({place.path: b"1"})
        assert (mount.main / f"wood{number}" / "deep" / "x").read_bytes() == b"1"


def test_links_and_mounts_below_a_branch_are_followed(tmp_path, repository, mounted: Mounts):
    mount = mounted(repository)
    (mount.main / "a" / "b").mkdir(parents=True)
    (mount.main / "link").symlink_to("a")
    (tmp_path / "outside").symlink_to(mount.main / "link")
    assert place_of(mount.main / "link" / "b" / "new").path == "a/b/new"
    assert place_of(tmp_path / "outside" / "b").path == "a/b"
    assert place_of(mount.path / "HEAD" / "new").path == "new"
    (tmp_path / "elsewhere").mkdir()
    (mount.main / "away").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotARepository):
        place_of(mount.main / "away" / "x")


def test_a_path_in_a_mount_is_that_branch_or_commit(repository, mounted: Mounts):
    mount = mounted(repository)
    main = mount.path / "branches" / "main"
    (main / "lab" / "deep").mkdir(parents=True)
    place = place_of(main / "lab" / "deep" / "new" / "x")
    assert (place.files.branch, place.path) == ("main", "lab/deep/new/x")
    assert place.repository.path == repository
    assert place.mounted() == main / "lab" / "deep" / "new" / "x"
    place.files.make_directory("lab/deep/new")
    place.files.write("lab/deep/new/x", b"1")
    seen = main / "lab" / "deep" / "new" / "x"
    wait_until(lambda: seen.exists() and seen.read_bytes() == b"1", what="the mount to show what was written")
    commit = place.files.commit("first")

    frozen = place_of(mount.path / "commits" / commit[:16] / "lab" / "deep" / "new")
    assert (frozen.files.branch, frozen.files.commit_hash, frozen.path) == (None, commit, "lab/deep/new")
    assert frozen.files.read("lab/deep/new/x") == b"1" and not frozen.writeable
    with pytest.raises(ReadOnly):
        frozen.files.write("lab/x", b"")
    mounted_at = frozen.mounted()
    assert mounted_at is not None and (mounted_at / "x").read_bytes() == b"1"

    with pytest.raises(NotFound, match="no branch and no commit"):
        place_of(mount.path / "nothing")
    with pytest.raises(NotFound, match="no branch and no commit"):
        place_of(mount.path / "branches" / "nobody" / "x")
    with pytest.raises(InvalidName, match="own files"):
        place_of(main / ".arborfs" / "status")
    assert "user.arborfs.place" not in os.listxattr(main / "lab")
    assert json.loads(os.getxattr(main / "lab", "user.arborfs.place"))["path"] == "lab"


def test_a_renamed_directory_and_branch_lead_where_they_are_now(repository, mounted: Mounts):
    mount = mounted(repository)
    main = mount.path / "branches" / "main"
    (main / "a" / "b").mkdir(parents=True)
    here = os.open(main / "a" / "b", os.O_RDONLY)
    try:
        (main / "a").rename(main / "z")
        found = place_of(f"/proc/self/fd/{here}")
        assert (found.files.branch, found.path) == ("main", "z/b")
    finally:
        os.close(here)


@pytest.mark.parametrize("options", [["--branch", "main"], ["--ref", "main"]])
def test_mounts_of_one_tree(repository, mounted: Mounts, options):
    with Repository(repository) as opened:
        opened.files().write_many({"d/x": b"1"})
        commit = opened.files().commit("first")
    mount = mounted(repository, *options)
    place = place_of(mount.path / "d" / "x")
    assert place.path == "d/x" and place.files.read("d/x") == b"1"
    assert place.files.commit_hash == commit
    assert place.writeable == (options[0] == "--branch")
    assert place.mounted() == (mount.path / "d" / "x" if place.writeable else None)


def test_a_child_process_opens_its_own(repository):
    place = place_of(repository)
    place.files.write("x", b"1")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if place_of(repository).files.read("x") == b"1" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


MAKE = """
import sys
from storage.places import place_of
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    place_of(f"{sys.argv[1]}/{number}", make=True).files.edit("n", lambda old: b"1" + (old or b""))
"""


def test_several_processes_make_one_at_once(tmp_path):
    command = [sys.executable, "-W", "error", "-c", MAKE, str(tmp_path)]
    makers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for maker in makers:
            assert maker.stdout.readline() == "ready\n"
        for maker in makers:
            maker.stdin.write("go\n")
            maker.stdin.flush()
        assert [maker.communicate(timeout=60) for maker in makers] == [("", "")] * 4
    finally:
        for maker in makers:
            maker.kill()
            maker.communicate()
    assert [place_of(tmp_path / str(number)).files.read("n") for number in range(10)] == [b"1111"] * 10


def test_nothing_has_to_be_closed_at_the_end(tmp_path):
    program = f"""
from storage.places import place_of
place = place_of({str(tmp_path / "new")!r}, make=True)
place.files.write("x", b"1")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert place_of(tmp_path / "new").files.read("x") == b"1"
