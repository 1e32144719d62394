"""Error numbers that belong to no other file here, and what branches, commits and tags refuse."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.posix.calls import answer, refused


def test_a_file_is_no_directory(place):
    (place / "f").touch()
    for call in (
        lambda: os.stat(place / "f" / "x"),
        lambda: os.listdir(place / "f"),
        lambda: os.mkdir(place / "f" / "x"),
        lambda: os.unlink(place / "f" / "x"),
        lambda: os.symlink("x", place / "f" / "x"),
        lambda: os.open(place / "f" / "x", os.O_CREAT | os.O_WRONLY),
        lambda: os.chdir(place / "f"),
        lambda: os.utime(place / "f" / "x"),
        lambda: os.setxattr(place / "f" / "x", "user.a", b""),
    ):
        with refused("ENOTDIR"):
            call()


def test_nothing_is_found_below_what_is_missing(place):
    for call in (
        lambda: os.stat(place / "missing"),
        lambda: os.stat(place / "missing" / "x"),
        lambda: os.open(place / "missing" / "x", os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir(place / "missing" / "x"),
        lambda: os.symlink("x", place / "missing" / "x"),
        lambda: os.listdir(place / "missing"),
        lambda: os.utime(place / "missing"),
        lambda: os.getxattr(place / "missing", "user.a"),
    ):
        with refused("ENOENT"):
            call()


def test_descriptors_that_are_closed_or_of_the_wrong_kind(place):
    descriptor = os.open(place / "f", os.O_CREAT | os.O_RDWR)
    with refused("EINVAL"):
        os.lseek(descriptor, -1, os.SEEK_SET)
    with refused("EINVAL"):
        os.pread(descriptor, 1, -1)
    with refused("ENOTDIR"):
        os.stat("x", dir_fd=descriptor)
    os.close(descriptor)
    for call in (os.fstat, os.fsync, lambda d: os.read(d, 1), lambda d: os.write(d, b"x")):
        with refused("EBADF"):
            call(descriptor)


def test_pipes_cannot_be_sought(place, kind):
    if kind == "mount":
        with refused("EPERM"):
            os.mkfifo(place / "pipe")
        return
    os.mkfifo(place / "pipe")
    descriptor = os.open(place / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with refused("ESPIPE"):
        os.lseek(descriptor, 0, os.SEEK_SET)
    os.close(descriptor)


def test_special_files_and_hard_links(place, kind):
    """A branch keeps files, directories and symbolic links, and a file has one name."""
    (place / "f").touch()
    attempts = {
        "link": lambda: os.link(place / "f", place / "g"),
        "pipe": lambda: os.mkfifo(place / "pipe"),
        "socket": lambda: os.mknod(place / "socket", stat.S_IFSOCK | 0o600),
        "file": lambda: os.mknod(place / "file", stat.S_IFREG | 0o600),
    }
    if os.getuid() == 0:
        attempts["device"] = lambda: os.mknod(place / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    found = {name: answer(call) for name, call in attempts.items()}
    expected = dict.fromkeys(attempts, None if kind == "ext4" else "EPERM") | {"file": None}
    assert found == expected


def test_a_socket_is_bound_where_the_place_allows_it(place, kind, monkeypatch):
    monkeypatch.chdir(place)
    with socket.socket(socket.AF_UNIX) as opened:
        # bind(2) says so for a file system that refuses.
        assert answer(lambda: opened.bind("s")) == (None if kind == "ext4" else "EPERM")


def test_links_to_what_cannot_be_linked(place):
    (place / "d").mkdir()
    (place / "f").touch()
    with refused("EPERM"):
        os.link(place / "d", place / "e")
    with refused("ENOENT"):
        os.link(place / "missing", place / "e")
    with refused("EEXIST"):
        os.link(place / "f", place / "d")


@pytest.fixture
def tagged(shared) -> Path:
    """The mount point of a repository with a commit (tagged v1) of a file, a directory and a link."""
    if not (shared.path / "tags" / "v1").exists():
        (shared.main / "kept" / "d").mkdir(parents=True)
        (shared.main / "kept" / "f").write_bytes(b"kept")
        (shared.main / "kept" / "link").symlink_to("f")
        os.setxattr(shared.main / "kept" / "f", "user.a", b"1")
        (shared.main / ".arborfs" / "commit").write_text("first")
        os.symlink("../commits/main", shared.path / "tags" / "v1")
        os.mkdir(shared.path / "branches" / "other")
    return shared.path


@pytest.mark.parametrize("where", ["commits/main", "tags/v1"])
def test_what_is_committed_does_not_change(tagged, where):
    kept = tagged / where / "kept"
    for call in (
        lambda: (kept / "new").touch(),
        lambda: (kept / "f").write_bytes(b"x"),
        lambda: os.open(kept / "f", os.O_RDWR),
        lambda: os.open(kept / "f", os.O_RDONLY | os.O_TRUNC),
        lambda: os.truncate(kept / "f", 0),
        lambda: os.mkdir(kept / "new"),
        lambda: os.symlink("x", kept / "new"),
        lambda: os.mknod(kept / "new"),
        lambda: os.unlink(kept / "f"),
        lambda: os.rmdir(kept / "d"),
        lambda: os.rename(kept / "f", kept / "g"),
        lambda: os.chmod(kept / "f", 0o600),
        lambda: os.chown(kept / "f", 1, 1),
        lambda: os.utime(kept / "f"),
        lambda: os.setxattr(kept / "f", "user.b", b"1"),
        lambda: os.removexattr(kept / "f", "user.a"),
        lambda: os.chmod(kept, 0o700),
    ):
        with refused("EROFS"):
            call()
    for path in (kept / "f", kept / "d", kept / "link"):
        with refused("EEXIST"):
            os.mkdir(path)
    assert (kept / "f").read_bytes() == b"kept"
    assert os.getxattr(kept / "f", "user.a") == b"1"
    assert sorted(os.listdir(kept)) == ["d", "f", "link"]


def test_between_trees_nothing_is_renamed(tagged):
    main, other, tag = tagged / "branches" / "main", tagged / "branches" / "other", tagged / "tags" / "v1"
    for old, new, numbers in (
        (main / "kept" / "f", other / "f", ["EXDEV"]),
        (main / "kept" / "d", other / "d", ["EXDEV"]),
        (main / "kept" / "f", other / "kept" / "f", ["EXDEV"]),
        (tag / "kept" / "f", main / "f", ["EXDEV", "EROFS"]),
        (main / "kept" / "f", tag / "kept" / "f", ["EXDEV", "EROFS"]),
    ):
        with refused(*numbers):
            os.rename(old, new)
    with refused("EXDEV", "EPERM"):
        os.link(main / "kept" / "f", other / "f")
    assert os.listdir(other / "kept")
    subprocess.run(["mv", other / "kept" / "f", main / "moved"], check=True)
    assert (main / "moved").read_bytes() == b"kept"
    (other / "kept" / "f").write_bytes(b"kept")


def test_what_stands_above_the_branches_is_fixed(tagged):
    for call in (
        lambda: (tagged / "file").touch(),
        lambda: os.mkdir(tagged / "directory"),
        lambda: os.rmdir(tagged / "branches"),
        lambda: os.unlink(tagged / "HEAD"),
        lambda: os.rename(tagged / "branches", tagged / "twigs"),
        lambda: (tagged / "branches" / "file").touch(),
        lambda: os.chmod(tagged / "branches", 0o700),
    ):
        found = answer(call)
        assert found in ("EPERM", "EROFS", "EACCES", "EBUSY", "EXDEV", "ENOTEMPTY"), found
    assert errno.errorcode[errno.EPERM] == answer(lambda: (tagged / "file").touch())
