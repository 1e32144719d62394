"""Branches, commits and tags as directories, and the `.arborfs/` files of every tree."""

from __future__ import annotations

import errno
import json
import os
import subprocess

import pytest

from storage.engine import Engine
from tests.mount.conftest import refused


def commit(tree, message: str) -> str:
    """Commit through the mount; the new tip."""
    (tree / ".arborfs" / "commit").write_text(message)
    return (tree / ".arborfs" / "commit").read_text().strip()


@pytest.fixture
def history(mount):
    """Three commits on main, each with one more version of `file`; their digests."""
    found = []
    for number in range(3):
        (mount.main / "file").write_text(f"version {number}\n")
        (mount.main / f"only{number}").write_text("x")
        found.append(commit(mount.main, f"commit {number}\n"))
    return found


class TestTop:
    def test_what_is_there(self, mount):
        assert sorted(os.listdir(mount.path)) == ["HEAD", "branches", "commits", "tags"]
        assert os.readlink(mount.path / "HEAD") == "branches/main"
        (mount.path / "HEAD" / "f").write_text("by HEAD")
        assert (mount.main / "f").read_text() == "by HEAD"

    def test_nothing_else_can_be_made_there(self, mount):
        for act in (
            lambda: (mount.path / "x").mkdir(),
            lambda: (mount.path / "x").touch(),
            lambda: (mount.path / "commits" / "x").mkdir(),
            lambda: (mount.path / "tags" / "x").mkdir(),
            lambda: (mount.path / "branches" / "x").touch(),
            lambda: os.rmdir(mount.path / "tags"),
        ):
            with refused(errno.EPERM):
                act()

    def test_between_trees_files_are_copied(self, mount, history):
        (mount.path / "branches" / "other").mkdir()
        with refused(errno.EXDEV):
            os.rename(mount.main / "file", mount.path / "branches" / "other" / "moved")
        subprocess.run(["mv", mount.main / "file", mount.path / "branches" / "other" / "moved"], check=True)
        assert (mount.path / "branches" / "other" / "moved").read_text() == "version 2\n"
        assert not (mount.main / "file").exists()


class TestCommits:
    def test_listing_and_reading(self, mount, history):
        listed = os.listdir(mount.path / "commits")
        assert sorted(listed) == sorted(digest[:16] for digest in history)
        for number, digest in enumerate(history):
            assert (mount.path / "commits" / digest[:16] / "file").read_text() == f"version {number}\n"
            assert (mount.path / "commits" / digest / "file").read_text() == f"version {number}\n"

    def test_revisions_by_name(self, mount, history):
        commits = mount.path / "commits"
        for name, number in (("main", 2), ("HEAD", 2), ("main~1", 1), ("main^", 1), (history[0][:6], 0), ("main~2", 0)):
            assert (commits / name / "file").read_text() == f"version {number}\n", name
        for name in ("main~3", "nothing", "main@{1999-01-01}", "~", "@{", "ffff", "é"):
            assert not (commits / name).exists(), name

    def test_a_name_follows_its_branch_at_once(self, mount, history):
        commits = mount.path / "commits"
        inside = os.open(commits / "main", os.O_RDONLY)
        for number in range(3, 8):
            (mount.main / "file").write_text(f"version {number}\n")
            commit(mount.main, "next\n")
            assert (commits / "main" / "file").read_text() == f"version {number}\n"
        descriptor = os.open("file", os.O_RDONLY, dir_fd=inside)
        assert os.read(descriptor, 100) == b"version 2\n", "what was opened stays what it was"
        os.close(descriptor)
        os.close(inside)

    def test_diff_between_commits(self, mount, history):
        done = subprocess.run(
            ["diff", "-r", "main~1", "main"], cwd=mount.path / "commits", capture_output=True, text=True, check=False
        )
        assert done.stdout == (
            "diff -r main~1/file main/file\n1c1\n< version 1\n---\n> version 2\nOnly in main: only2\n"
        )

    def test_nothing_changes(self, mount, history):
        snapshot = mount.path / "commits" / "main"
        for act in (
            lambda: (snapshot / "new").touch(),
            lambda: (snapshot / "new").mkdir(),
            lambda: os.symlink("x", snapshot / "new"),
            lambda: os.unlink(snapshot / "file"),
            lambda: os.rename(snapshot / "file", snapshot / "else"),
            lambda: os.chmod(snapshot / "file", 0o600),
            lambda: os.truncate(snapshot / "file", 0),
            lambda: open(snapshot / "file", "ab"),
            lambda: os.setxattr(snapshot / "file", "user.x", b"y"),
            lambda: os.utime(snapshot / "file"),
        ):
            with refused(errno.EROFS):
                act()
        assert (snapshot / "file").read_text() == "version 2\n"

    def test_control_files_of_a_snapshot(self, mount, history):
        control = mount.path / "commits" / "main~1" / ".arborfs"
        assert sorted(os.listdir(control)) == ["by", "commit", "diff", "log", "log.json", "stats.json"]
        assert (control / "commit").read_text().strip() == history[1]
        assert [row["message"] for row in json.loads((control / "log.json").read_text())] == ["commit 1", "commit 0"]
        assert (control / "log").read_text().count("\n") == 2
        with refused(errno.EPERM):
            (control / "commit").write_text("no")


class TestTags:
    def test_making_reading_and_removing(self, mount, history):
        tags = mount.path / "tags"
        os.symlink("../commits/main~1", tags / "v1")
        assert os.listdir(tags) == ["v1"]
        assert (tags / "v1" / "file").read_text() == "version 1\n"
        assert (mount.path / "commits" / "v1" / "file").read_text() == "version 1\n"
        with refused(errno.EEXIST):
            os.symlink("../commits/main", tags / "v1")
        with refused(errno.EINVAL):
            os.symlink("../commits/nothing", tags / "v2")
        os.rename(tags / "v1", tags / "v1.0")
        assert (tags / "v1.0" / "file").read_text() == "version 1\n"
        os.rmdir(tags / "v1.0")
        assert os.listdir(tags) == []
        assert not (tags / "v1.0").exists()

    def test_ln_makes_one(self, mount, history):
        subprocess.run(["ln", "-s", f"../commits/{history[0][:16]}", mount.path / "tags" / "first"], check=True)
        assert (mount.path / "tags" / "first" / "file").read_text() == "version 0\n"


class TestBranches:
    def test_making_and_deleting(self, mount, history):
        branches = mount.path / "branches"
        (branches / "dev").mkdir()
        assert sorted(os.listdir(branches)) == ["dev", "main"]
        assert (branches / "dev" / "file").read_text() == "version 2\n"
        (branches / "dev" / "file").write_text("on dev\n")
        assert (branches / "main" / "file").read_text() == "version 2\n"
        with refused(errno.ENOTEMPTY):
            os.rmdir(branches / "dev")
        assert "staged" in (branches / "dev" / ".arborfs" / "errors").read_text()
        commit(branches / "dev", "dev goes on")
        with refused(errno.ENOTEMPTY):
            os.rmdir(branches / "dev")
        os.symlink("../commits/dev", mount.path / "tags" / "kept")
        os.rmdir(branches / "dev")
        assert os.listdir(branches) == ["main"]
        with refused(errno.EBUSY):
            os.rmdir(branches / "main")

    def test_from_a_commit(self, mount, history):
        os.symlink("../commits/main~2", mount.path / "branches" / "old")
        assert (mount.path / "branches" / "old" / "file").read_text() == "version 0\n"
        assert (mount.path / "branches" / "old").is_dir() and not (mount.path / "branches" / "old").is_symlink()

    def test_renaming(self, mount, history):
        branches = mount.path / "branches"
        (branches / "dev").mkdir()
        (branches / "dev" / "d").mkdir()
        with open(branches / "dev" / "d" / "open", "w") as file:
            file.write("before ")
            file.flush()
            os.rename(branches / "dev", branches / "better")
            file.write("and after")
        assert sorted(os.listdir(branches)) == ["better", "main"]
        assert (branches / "better" / "d" / "open").read_text() == "before and after"
        with refused(errno.EEXIST):
            os.rename(branches / "better", branches / "main")

    @pytest.mark.parametrize("name", ["-dash", ".dot", "with space", "ä", "HEAD", ".arborfs"])
    def test_names_that_cannot_be(self, mount, history, name):
        with refused(errno.EINVAL):
            (mount.path / "branches" / name).mkdir()

    def test_several_at_once(self, mount, history):
        for number in range(5):
            (mount.path / "branches" / f"b{number}").mkdir()
        files = [open(mount.path / "branches" / f"b{number}" / "file", "w") for number in range(5)]
        for number, file in enumerate(files):
            file.write(f"branch {number}")
        for file in files:
            file.close()
        for number in range(5):
            assert (mount.path / "branches" / f"b{number}" / "file").read_text() == f"branch {number}"
        assert (mount.main / "file").read_text() == "version 2\n"


class TestControl:
    def test_hidden_but_there(self, mount, history):
        assert ".arborfs" not in os.listdir(mount.main)
        names = [
            "by",
            "commit",
            "conflicts",
            "diff",
            "errors",
            "errors.json",
            "log",
            "log.json",
            "merge",
            "rejected",
            "stats.json",
            "status",
            "status.json",
        ]
        assert sorted(os.listdir(mount.main / ".arborfs")) == names

    def test_status(self, mount, history):
        control = mount.main / ".arborfs"
        assert (control / "status").read_text() == ""
        (mount.main / "d").mkdir()
        (mount.main / "d" / "new").touch()
        (mount.main / "file").write_text("changed")
        (mount.main / "only0").unlink()
        assert (control / "status").read_text() == ("added    d\nadded    d/new\nchanged  file\nremoved  only0\n")
        rows = json.loads((control / "status.json").read_text())
        assert {row["path"]: row["change"] for row in rows}["only0"] == "removed"

    def test_a_name_cannot_break_the_line_of_the_status(self, mount, history):
        (mount.main / "a\nremoved  b").touch()
        control = mount.main / ".arborfs"
        assert (control / "status").read_text() == "added    a\\nremoved  b\n"
        assert json.loads((control / "status.json").read_text())[0]["path"] == "a\nremoved  b"

    def test_committing_by_shell(self, mount, history):
        (mount.main / "x").touch()
        subprocess.run(["sh", "-c", 'echo "a message" > .arborfs/commit'], cwd=mount.main, check=True)
        assert "a message" in (mount.main / ".arborfs" / "log").read_text().splitlines()[0]
        rows = json.loads((mount.main / ".arborfs" / "log.json").read_text())
        assert [row["message"] for row in rows] == ["a message", "commit 2", "commit 1", "commit 0"]

    def test_nothing_to_commit_is_told_to_the_writer(self, mount, history):
        with refused(errno.ENODATA):
            (mount.main / ".arborfs" / "commit").write_text("nothing")
        done = subprocess.run(
            ["sh", "-c", "echo m > .arborfs/commit"], cwd=mount.main, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0

    def test_committing_changes_nothing_in_the_tree(self, mount, history):
        (mount.main / "x").write_bytes(b"x" * 100_000)
        before = {path.name: path.stat() for path in mount.main.iterdir()}
        commit(mount.main, "frozen")
        assert {path.name: path.stat() for path in mount.main.iterdir()} == before
        assert (mount.main / "x").read_bytes() == b"x" * 100_000

    def test_the_metadata_entry_of_the_tree_is_not_shown(self, mounted, repository):
        with Engine.open(repository) as engine:
            tree = engine.working_tree("main")
            tree.make_directory((b".arborfs",))
            (tree.make_directory((b"plain",)))
            tree.commit("with metadata")
        mount = mounted(repository)
        assert os.listdir(mount.main) == ["plain"]
        assert os.listdir(mount.path / "commits" / "main") == ["plain"]
        assert "log" in os.listdir(mount.main / ".arborfs")


class TestOptions:
    def test_a_snapshot_at_the_root(self, mounted, repository, mount, history):
        place = mounted(repository, "--ref", "main~1").path
        assert sorted(os.listdir(place)) == ["file", "only0", "only1"]
        assert (place / "file").read_text() == "version 1\n"
        assert (place / ".arborfs" / "commit").read_text().strip() == history[1]
        for act in (
            lambda: (place / "x").touch(),
            lambda: (place / "file").write_text("no"),
            lambda: os.unlink(place / "file"),
        ):
            with refused(errno.EROFS):
                act()
        assert os.statvfs(place).f_flag & os.ST_RDONLY

    def test_a_branch_at_the_root(self, mounted, repository, mount, history):
        place = mounted(repository, "--branch", "main").path
        assert sorted(os.listdir(place)) == ["file", "only0", "only1", "only2"]
        (place / "new").write_text("by branch")
        commit(place, "from the branch mount")
        assert (mount.path / "commits" / "main" / "new").read_text() == "by branch"

    def test_read_only(self, mounted, repository, mount, history):
        place = mounted(repository, "--ro").path
        assert (place / "branches" / "main" / "file").read_text() == "version 2\n"
        for act in (
            lambda: (place / "branches" / "x").mkdir(),
            lambda: (place / "branches" / "main" / "file").write_text("no"),
        ):
            with refused(errno.EROFS):
                act()
