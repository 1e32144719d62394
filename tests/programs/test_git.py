"""git in a folder of the disk and in a branch: hundreds of small files, renamed over each other, packed and mapped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs.running import git, run

FILES = 200


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A git repository with some history: 200 files in nested directories, one of them a program, and a link."""
    path = tmp_path / "origin"
    for number in range(FILES):
        file = path / f"part{number % 5}" / f"group{number % 4}" / f"deep{number % 3}" / f"file{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{number}\n" * (number + 1))
    (path / "program").write_text("#!/bin/sh\n")
    (path / "program").chmod(0o755)
    (path / "link").symlink_to("part0/group0")
    git(path, "init", "-q", "-b", "trunk")
    for number in range(3):
        (path / "changing").write_text(f"{number}\n" * 100)
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", f"change {number}")
    return path


def status(clone: Path) -> list[str]:
    return git(clone, "status", "--porcelain").splitlines()


def test_git_clone_commit_gc_and_fsck(home, origin):
    run("git", "clone", "-q", "--no-hardlinks", origin, home.path / "clone")
    clone = home.path / "clone"
    assert len(git(clone, "ls-files").split()) == FILES + 3
    assert status(clone) == []
    (clone / "changing").write_text("other\n")
    (clone / "new").write_text("new\n")
    (clone / "part1" / "group1" / "deep1" / "file1").unlink()
    (clone / "program").chmod(0o644)
    assert status(clone) == [" M changing", " D part1/group1/deep1/file1", " M program", "?? new"]
    git(clone, "add", "-A")
    git(clone, "mv", "part0", "moved")
    git(clone, "commit", "-q", "-m", "here")
    git(clone, "switch", "-q", "-c", "side", "HEAD~2")
    git(clone, "switch", "-q", "trunk")
    git(clone, "gc", "-q", "--aggressive", "--prune=now")
    git(clone, "fsck", "--strict", "--full")
    assert status(clone) == []
    git(clone, "push", "-q", origin, "trunk:elsewhere")
    home.commit("a clone")
    clone = home.again() / "clone"
    assert status(clone) == []
    git(clone, "fsck", "--strict", "--full")
    assert git(clone, "log", "--format=%s").splitlines() == ["here", "change 2", "change 1", "change 0"]
    assert git(clone, "diff", "--stat", "HEAD~1", "HEAD", "--", "new").split()[:3] == ["new", "|", "1"]


CHANGE = """\
diff --git a/changed b/changed
--- a/changed
+++ b/changed
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
diff --git a/removed b/removed
deleted file mode 100644
--- a/removed
+++ /dev/null
@@ -1 +0,0 @@
-gone
diff --git a/made/here b/made/here
new file mode 100644
--- /dev/null
+++ b/made/here
@@ -0,0 +1 @@
+new
"""


@pytest.mark.parametrize("program", [["patch", "-p1", "-s"], ["git", "apply", "-"]], ids=["patch", "git apply"])
def test_patches_are_applied(place, program):
    folder = place / "patched"
    folder.mkdir()
    (folder / "changed").write_text("one\ntwo\nthree\n")
    (folder / "changed").chmod(0o755)
    (folder / "removed").write_text("gone\n")
    run(*program, cwd=folder, given=CHANGE, GIT_CEILING_DIRECTORIES=str(place))
    assert (folder / "changed").read_text() == "one\nTWO\nthree\n"
    assert (folder / "changed").stat().st_mode & 0o777 == 0o755
    assert (folder / "made" / "here").read_text() == "new\n"
    assert sorted(path.name for path in folder.iterdir()) == ["changed", "made"]
