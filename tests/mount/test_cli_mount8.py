"""`mount -t arborfs` and lines of fstab, through the helper."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.model.samples import BytesSource
from tests.conftest import arborfs, fuse_missing, is_mounted

pytestmark = pytest.mark.skipif(bool(fuse_missing()), reason=fuse_missing())

HELPER = Path(sys.executable).with_name("mount.arborfs")
LINK = Path("/sbin/mount.arborfs")


def installed() -> str:
    """Why mount(8) cannot be tried here; empty where it can."""
    if os.geteuid() != 0:
        return "only root may call mount(8)"
    if not LINK.exists() or os.readlink(LINK) != str(HELPER):
        return f"{LINK} does not lead to this checkout: scripts/setup has not run, or has run elsewhere since"
    return ""


@pytest.fixture
def place(tmp_path):
    """An empty folder, unmounted at the end."""
    folder = tmp_path / "M"
    folder.mkdir()
    yield folder
    if is_mounted(folder):
        arborfs("umount", folder)


@pytest.fixture
def tagged(repository):
    """A repository with a file in a commit that is tagged v1.0."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"greeting.txt",), BytesSource(b"hello"), mtime=0)
        engine.create_tag("v1.0", tree.commit("first"))
    return repository


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command; its output as text."""
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)


def test_the_helper_mounts_a_snapshot(tagged, place):
    done = run(HELPER, tagged, place, "-o", "rw,nosuid,nodev,ref=v1.0")
    assert done.returncode == 0, done.stderr
    assert (place / "greeting.txt").read_text() == "hello"


def test_the_helper_says_what_is_wrong_in_mount8_s_codes(tagged, place, tmp_path):
    unknown = run(HELPER, tagged, place, "-o", "colour=red")
    assert unknown.returncode == 1 and "colour=red" in unknown.stderr
    nothing = run(HELPER, tmp_path, place)
    assert nothing.returncode == 32 and "holds no arborfs repository" in nothing.stderr
    assert not is_mounted(place)


@pytest.mark.skipif(bool(installed()), reason=installed())
def test_mount_8_finds_the_helper(tagged, place):
    done = run("mount", "-t", "arborfs", tagged, place, "-o", "ref=v1.0")
    assert done.returncode == 0, done.stderr
    assert (place / "greeting.txt").read_text() == "hello"
    with pytest.raises(OSError) as refused:
        (place / "new.txt").write_text("no")
    assert refused.value.errno == errno.EROFS
    assert run("umount", place).returncode == 0


@pytest.mark.skipif(bool(installed()), reason=installed())
def test_a_line_of_fstab_works(tagged, place, tmp_path):
    table = tmp_path / "fstab"
    table.write_text(f"{tagged} {place} arborfs branch=main,allow_other,nofail,noauto,x-systemd.requires=/srv 0 0\n")
    done = run("mount", "--fstab", table, place)
    assert done.returncode == 0, done.stderr
    (place / "new.txt").write_text("yes")
    assert (place / "new.txt").read_text() == "yes"
