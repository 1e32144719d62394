"""`.arborfs/diff/<revision>/` by shell: what ls, find, cat and diff make of it."""

from __future__ import annotations

import errno
import os
import subprocess

import numpy as np
import pytest


def shell(command: str, folder) -> str:
    """What a command prints, run in a folder; it must not fail, except that diff may find differences."""
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    return done.stdout


def lines(command: str, folder) -> list[str]:
    """The lines that a command prints, sorted."""
    return sorted(shell(command, folder).splitlines())


def fill(tree) -> None:
    """A first commit, `first`, and staged work of every sort over it."""
    shell("mkdir notes old && echo one > notes/a && echo two > notes/b && echo gone > notes/c", tree)
    shell("echo x > old/x && mkdir old/deep && echo y > old/deep/y && echo t > turned && echo same > same", tree)
    np.save(tree / "array.npy", np.arange(5))
    (tree / ".arborfs" / "commit").write_text("first")
    shell("echo second > notes/b && rm notes/c && echo new > notes/d && rm -r old", tree)
    shell("mkdir -p fresh/deep && echo z > fresh/deep/z && rm turned && mkdir turned && echo i > turned/in", tree)
    shell("chmod 600 same", tree)
    np.save(tree / "array.npy", np.arange(6))


@pytest.fixture
def mount(mounted, repository):
    """The whole repository, with that history, mounted."""
    found = mounted(repository)
    fill(found.main)
    return found


class TestWholeRepository:
    def test_what_is_there(self, mount):
        there = mount.main / ".arborfs" / "diff" / "main"
        assert sorted(os.listdir(there)) == ["added", "attributes", "changed", "removed"]
        assert lines("find added removed changed attributes ! -type d", there) == [
            "added/fresh",
            "added/notes/d",
            "attributes/new/same",
            "attributes/old/same",
            "changed/new/array.npy",
            "changed/new/notes/b",
            "changed/new/turned",
            "changed/old/array.npy",
            "changed/old/notes/b",
            "changed/old/turned",
            "removed/notes/c",
            "removed/old",
        ]
        assert all((there / name).is_symlink() for name in lines("find . -mindepth 2 ! -type d", there))

    def test_links_lead_to_both_sides(self, mount):
        there = mount.main / ".arborfs" / "diff" / "main"
        assert shell("cat added/notes/d removed/notes/c changed/old/notes/b changed/new/notes/b", there) == (
            "new\ngone\ntwo\nsecond\n"
        )
        assert shell("cat removed/old/x added/fresh/deep/z changed/old/turned changed/new/turned/in", there) == (
            "x\nz\nt\ni\n"
        )
        assert lines("find -L removed added -type f", there) == [
            "added/fresh/deep/z",
            "added/notes/d",
            "removed/notes/c",
            "removed/old/deep/y",
            "removed/old/x",
        ]
        assert len(np.load(there / "changed/old/array.npy")) == 5
        assert len(np.load(there / "changed/new/array.npy")) == 6
        assert not os.readlink(there / "removed/notes/c").startswith("/")
        assert shell("stat -L -c %a attributes/old/same attributes/new/same", there) == "644\n600\n"

    def test_diff_works_on_it(self, mount):
        there = mount.main / ".arborfs" / "diff" / "main" / "changed"
        assert shell("diff -r old/notes new/notes", there).splitlines()[1:] == ["1c1", "< two", "---", "> second"]
        assert "Binary files old/array.npy and new/array.npy differ" in shell("diff -r old new", there)

    def test_it_is_true_at_once(self, mount):
        there = mount.main / ".arborfs" / "diff" / "main"
        shell("echo later > notes/later", mount.main)
        assert (there / "added/notes/later").read_text() == "later\n"
        shell("rm notes/later && echo two > notes/b", mount.main)
        assert not os.path.lexists(there / "added/notes/later")
        assert lines("find changed/old ! -type d", there) == ["changed/old/array.npy", "changed/old/turned"]
        (mount.main / ".arborfs" / "commit").write_text("second")
        assert lines("find . -mindepth 2 ! -type d", there) == []
        assert "./notes/d" in lines("cd ../main~1/added && find . ! -type d", there)

    def test_what_an_open_directory_shows_follows(self, mount):
        opened = os.open(mount.main / ".arborfs/diff/main/added/notes", os.O_RDONLY)
        try:
            assert os.listdir(opened) == ["d"]
            shell("rm notes/d && echo e > notes/e", mount.main)
            assert os.listdir(opened) == ["e"]
        finally:
            os.close(opened)

    def test_every_tree_has_it(self, mount):
        (mount.main / ".arborfs" / "commit").write_text("second")
        shell("ln -s ../commits/main~1 tags/v1", mount.path)
        for tree, revision in (("commits/main", "v1"), ("commits/main", "main~1"), ("HEAD", "v1")):
            there = mount.path / tree / ".arborfs" / "diff" / revision
            assert shell("cat added/notes/d changed/old/notes/b", there) == "new\ntwo\n"
        back = mount.path / "tags" / "v1" / ".arborfs" / "diff" / "main"
        assert shell("cat removed/notes/d changed/old/notes/b", back) == "new\nsecond\n"
        assert lines("ls", mount.path / "tags/v1/.arborfs/diff") == ["main", "v1"]
        assert lines("find . ! -type d", mount.path / "tags/v1/.arborfs/diff/v1") == []

    def test_nothing_else_is_found_or_made_there(self, mount):
        there = mount.main / ".arborfs" / "diff"
        for name in ("nowhere", "main~9", "main/other", "main/added/nothing", "main/added/notes/d/deeper"):
            assert not os.path.lexists(there / name)
        with pytest.raises(OSError, match=f"Errno {errno.EPERM}]"):
            (there / "main" / "added" / "x").touch()
        with pytest.raises(OSError, match=f"Errno {errno.EPERM}]"):
            os.unlink(there / "main" / "added" / "notes" / "d")

    def test_before_the_first_commit_there_is_nothing_to_compare_with(self, mounted, repository):
        there = mounted(repository).main / ".arborfs" / "diff"
        assert os.listdir(there) == [] and not (there / "main").exists()


class TestOneTree:
    @pytest.fixture(params=["--branch", "--ref"])
    def there(self, request, mounted, repository):
        """`.arborfs/diff/<first commit>` of a mount that shows one tree, at whose root it stands."""
        with_history = mounted(repository)
        fill(with_history.main)
        (with_history.main / ".arborfs" / "commit").write_text("second")
        with_history.unmount()
        return mounted(repository, request.param, "main").path / ".arborfs" / "diff" / "main~1"

    def test_the_old_side_is_shown_in_place(self, there):
        assert shell("cat added/notes/d removed/notes/c changed/old/notes/b changed/new/notes/b", there) == (
            "new\ngone\ntwo\nsecond\n"
        )
        assert lines("find removed", there) == [
            "removed",
            "removed/notes",
            "removed/notes/c",
            "removed/old",
            "removed/old/deep",
            "removed/old/deep/y",
            "removed/old/x",
        ]
        assert shell("cat removed/old/deep/y changed/old/turned changed/new/turned/in", there) == "y\nt\ni\n"
        assert len(np.load(there / "changed/old/array.npy")) == 5

    def test_diff_works_on_it(self, there):
        assert shell("diff -r changed/old/notes changed/new/notes", there).splitlines()[1:] == [
            "1c1",
            "< two",
            "---",
            "> second",
        ]

    def test_it_cannot_be_changed(self, there):
        for name in ("removed/notes/c", "changed/old/notes/b"):
            with pytest.raises(OSError, match=f"Errno {errno.EROFS}]"):
                (there / name).write_text("x")
