"""`scripts/demo` is run as a reader would run it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import arborfs, fuse_missing, mount_lines

DEMO = Path(__file__).parents[2] / "scripts" / "demo"

pytestmark = pytest.mark.skipif(bool(fuse_missing()), reason=fuse_missing())


def demo(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The demo, with its temporary files below `folder`."""
    return subprocess.run(
        [DEMO, *words],
        capture_output=True,
        text=True,
        timeout=280,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(folder)} | environment,
    )


def mounts_below(folder: Path) -> list[str]:
    """The mount points of arborfs below a folder."""
    places = [line.split()[1] for line in mount_lines()]
    return [place for place in places if place.startswith(f"{folder}/")]


def test_the_demo_does_the_main_job_and_leaves_nothing(tmp_path):
    done = demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        "1,797 images of (8, 8)",
        "label: [2]",
        "all the same",
        "sources and pictures",
        "Only in M/commits/main: README",
        "a README; one picture fewer",
        "Read-only file system",
        "everything is as it was stored",
        "nothing is left mounted",
    ):
        assert told in done.stdout, f"{told!r} is missing in:\n{done.stdout}{done.stderr}"
    assert not mounts_below(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_fails_leaves_nothing_mounted(tmp_path):
    # A cmp that finds a difference where there is none, half way through.
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "cmp").write_text("#!/bin/sh\nexit 1\n")
    (broken / "cmp").chmod(0o755)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = demo(temporary, PATH=f"{broken}:{os.environ['PATH']}")
    assert done.returncode == 1 and "demo: FAILED" in done.stderr
    assert not mounts_below(temporary)
    assert list(temporary.iterdir()) == []


def test_the_demo_can_keep_its_mount(tmp_path):
    done = demo(tmp_path, "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    (place,) = mounts_below(tmp_path)
    try:
        assert f"arborfs umount {place}" in done.stdout
        assert (Path(place) / "HEAD" / "README").read_text().startswith("digits")
    finally:
        arborfs("umount", place)
    assert not mounts_below(tmp_path)


def test_the_demo_refuses_words_it_does_not_know(tmp_path):
    done = demo(tmp_path, "--kep")
    assert done.returncode == 2 and "--keep" in done.stdout
