"""Going back while the branch is mounted: the mount shows the new contents, and nothing open is torn."""

from __future__ import annotations

import errno
import os
import time

import pytest

from tests.conftest import arborfs
from tests.mount.conftest import put, soon


@pytest.fixture
def tree(mount, other):
    """Two commits: f, d/g and gone; then f and d/g changed, gone removed, new made."""
    tree = other.working_tree("main")
    tree.make_directory((b"d",))
    for name in ("f", "d/g", "gone"):
        put(tree, name, b"one")
    tree.commit("one")
    put(tree, "f", b"two")
    put(tree, "d/g", b"two")
    put(tree, "new", b"two")
    tree.remove((b"gone",))
    tree.commit("two")
    soon(lambda: shown(mount) == TWO)
    return tree


ONE = {"f": b"one", "d/g": b"one", "gone": b"one"}
TWO = {"f": b"two", "d/g": b"two", "new": b"two"}


def shown(mount, branch: str = "main") -> dict[str, bytes]:
    """All files, by path, as they are read through the mount."""
    top = mount.path / "branches" / branch
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                with open(path, "rb") as file:
                    found[os.path.relpath(path, top)] = file.read()
            except FileNotFoundError:
                continue  # the walk is older than the change
    return found


def test_a_reset_is_seen(mount, other, tree):
    other.reset("main", other.resolve("main~1"))
    soon(lambda: shown(mount) == ONE)
    assert (mount.main / ".arborfs" / "status").read_text() == ""
    other.undo()
    soon(lambda: shown(mount) == TWO)


def test_a_hard_reset_drops_what_the_mount_staged_and_undo_brings_it_back(mount, other, tree):
    (mount.main / "f").write_bytes(b"by the mount")
    (mount.main / "d" / "mine").write_bytes(b"mine")
    other.reset_hard("main", other.resolve("main"))
    soon(lambda: shown(mount) == TWO)
    other.undo()
    soon(lambda: shown(mount) == TWO | {"f": b"by the mount", "d/mine": b"mine"})


def test_an_undone_commit_changes_no_file(mount, other, tree):
    number = (mount.main / "f").stat().st_ino
    with open(mount.main / "f", "r+b", buffering=0) as file:
        other.undo()
        soon(lambda: (mount.main / ".arborfs" / "status").read_text().count("\n") == 4)
        assert file.read() == b"two"
        file.write(b" and written on")
    assert (mount.main / "f").stat().st_ino == number
    assert shown(mount) == TWO | {"f": b"two and written on"}
    (mount.main / ".arborfs" / "commit").write_text("again")
    assert (mount.main / ".arborfs" / "status").read_text() == ""
    assert [commit.message for _, commit in other.log(other.resolve("main"))] == ["again", "one"]


def test_open_files_read_on_what_they_opened(mount, other, tree):
    with open(mount.main / "f", "rb", buffering=0) as old, open(mount.main / "new", "rb", buffering=0) as gone:
        other.reset("main", other.resolve("main~1"))
        soon(lambda: (mount.main / "f").read_bytes() == b"one")
        soon(lambda: not (mount.main / "new").exists())
        assert (old.read(), gone.read()) == (b"two", b"two")


def test_writing_to_a_file_that_a_reset_replaced_fails(mount, other, tree):
    with open(mount.main / "f", "r+b", buffering=0) as mine:
        other.reset("main", other.resolve("main~1"))
        soon(lambda: (mount.main / "f").read_bytes() == b"one")
        with pytest.raises(OSError, match=f"Errno {errno.ESTALE}]"):
            mine.write(b"lost?")
    assert shown(mount) == ONE


def test_what_is_being_written_wins_at_close_over_a_reset(mount, other, tree):
    with open(mount.main / "f", "wb", buffering=0) as mine:
        mine.write(b"mine")
        other.reset("main", other.resolve("main~1"))
        soon(lambda: (mount.main / "d" / "g").read_bytes() == b"one")
    assert shown(mount) == ONE | {"f": b"mine"}
    assert [row.path for row in tree.status()] == [(b"f",)]


def test_restored_files_and_directories_are_seen(mount, other, tree):
    (mount.main / "d" / "mine").write_bytes(b"mine")
    arborfs("-C", other.path, "restore", "d", "gone", "--from", "main~1")
    soon(lambda: shown(mount) == TWO | {"d/g": b"one", "gone": b"one"})
    arborfs("-C", other.path, "restore", ".")
    soon(lambda: shown(mount) == TWO)


def test_a_removed_branch_comes_back_with_its_staged_work(mount, other, tree):
    os.mkdir(mount.path / "branches" / "side")
    (mount.path / "branches" / "side" / "staged").write_bytes(b"staged on side")
    other.remove_branch("side", force=True)
    soon(lambda: not (mount.path / "branches" / "side").exists())
    arborfs("-C", other.path, "undo")
    soon(lambda: (mount.path / "branches" / "side").exists())
    soon(lambda: shown(mount, "side") == TWO | {"staged": b"staged on side"})


def test_a_branch_that_goes_and_comes_back_at_once_is_shown_as_it_is(mount, other, tree):
    os.mkdir(mount.path / "branches" / "side")
    (mount.path / "branches" / "side" / "f").write_bytes(b"staged on side")
    other.reset_hard("side", other.resolve("main~1"))
    other.remove_branch("side", force=True)
    other.undo()
    soon(lambda: shown(mount, "side") == ONE)
    (mount.path / "branches" / "side" / "f").write_bytes(b"goes on")
    assert other.working_tree("side").open((b"f",))[1].read(0, 100) == b"goes on"


def test_two_mounts_see_an_undo(mounted, mount, other, tree):
    second = mounted(other.path)
    arborfs("-C", other.path, "reset", "main~1")
    for each in (mount, second):
        soon(lambda each=each: shown(each) == ONE)
    arborfs("-C", other.path, "undo")
    for each in (mount, second):
        soon(lambda each=each: shown(each) == TWO)


def test_it_takes_less_than_200_ms(mount, other, tree):
    """Median of many, for the machine may be busy."""
    commits = [other.resolve("main"), other.resolve("main~1")]
    times = []
    for number in range(15):
        data = (b"one", b"two")[number % 2]
        other.reset("main", commits[(number + 1) % 2])
        start = time.monotonic()
        soon(lambda data=data: (mount.main / "f").stat().st_size == 3 and (mount.main / "f").read_bytes() == data)
        soon(lambda data=data: (mount.main / "d" / "g").read_bytes() == data)
        times.append(time.monotonic() - start)
    assert sorted(times)[len(times) // 2] < 0.2
