"""unlink(2) and rmdir(2): of what is open, and what they refuse."""

from __future__ import annotations

import os
import stat

from tests.posix.calls import refused


def test_an_unlinked_file_lives_on_while_it_is_open(place):
    with open(place / "f", "w+b", buffering=0) as file:
        file.write(b"one")
        ino = os.fstat(file.fileno()).st_ino
        os.unlink(place / "f")
        found = os.fstat(file.fileno())
        assert (found.st_nlink, found.st_size, found.st_ino) == (0, 3, ino)
        file.write(b" two")
        assert os.pread(file.fileno(), 100, 0) == b"one two"
        os.ftruncate(file.fileno(), 1)
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), ns=(5, 7_000_000_001))
        found = os.fstat(file.fileno())
        assert (found.st_size, stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (1, 0o600, 7_000_000_001)
    assert os.listdir(place) == []


def test_attributes_of_an_unlinked_file_can_be_changed(place):
    (place / "f").write_bytes(b"f")
    os.setxattr(place / "f", "user.before", b"1")
    with open(place / "f", "r+b", buffering=0) as file:
        os.unlink(place / "f")
        assert os.getxattr(file.fileno(), "user.before") == b"1"
        os.setxattr(file.fileno(), "user.after", b"2")
        os.removexattr(file.fileno(), "user.before")
        assert os.getxattr(file.fileno(), "user.after") == b"2"
        kept = {name for name in os.listxattr(file.fileno()) if not name.startswith("user.arborfs.")}
        assert kept == {"user.after"}
        for name in os.listxattr(file.fileno()):
            os.getxattr(file.fileno(), name)


def test_an_unlinked_file_is_opened_again_through_its_descriptor(place):
    with open(place / "f", "w+b", buffering=0) as file:
        file.write(b"contents")
        os.unlink(place / "f")
        again = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDWR)
        os.pwrite(again, b"C", 0)
        os.close(again)
        assert os.pread(file.fileno(), 100, 0) == b"Contents"
    assert os.listdir(place) == []


def test_several_unlinked_files_of_one_name_are_kept_apart(place):
    files = []
    for turn in range(5):
        file = open(place / "f", "w+b", buffering=0)
        file.write(b"%d" % turn)
        os.unlink(place / "f")
        files.append(file)
    assert len({os.fstat(file.fileno()).st_ino for file in files}) == 5
    for turn, file in enumerate(files):
        assert os.pread(file.fileno(), 10, 0) == b"%d" % turn
        file.close()


def test_a_link_is_unlinked_and_not_what_it_leads_to(place):
    (place / "f").write_bytes(b"f")
    (place / "link").symlink_to("f")
    (place / "d").mkdir()
    (place / "dlink").symlink_to("d")
    os.unlink(place / "link")
    with refused("ENOTDIR"):
        os.rmdir(place / "dlink")
    os.unlink(place / "dlink")
    assert sorted(os.listdir(place)) == ["d", "f"]


def test_a_link_that_is_held_is_read_on(place):
    (place / "link").symlink_to("somewhere")
    descriptor = os.open(place / "link", os.O_PATH | os.O_NOFOLLOW)
    try:
        os.unlink(place / "link")
        assert os.readlink("", dir_fd=descriptor) == "somewhere"
        assert os.fstat(descriptor).st_nlink == 0
    finally:
        os.close(descriptor)


def test_directories_are_removed_with_rmdir_only(place):
    (place / "d").mkdir()
    (place / "f").write_bytes(b"f")
    with refused("EISDIR", "EPERM"):
        os.unlink(place / "d")
    with refused("ENOTDIR"):
        os.rmdir(place / "f")
    with refused("ENOTDIR"):
        os.unlink(f"{place}/f/")
    os.rmdir(f"{place}/d/")
    assert os.listdir(place) == ["f"]


def test_full_directories_stay(place):
    (place / "d" / "e").mkdir(parents=True)
    with refused("ENOTEMPTY", "EEXIST"):
        os.rmdir(place / "d")
    os.rmdir(place / "d" / "e")
    (place / "d" / ".hidden").touch()
    with refused("ENOTEMPTY", "EEXIST"):
        os.rmdir(place / "d")
    os.unlink(place / "d" / ".hidden")
    os.rmdir(place / "d")
    assert os.listdir(place) == []


def test_dots_are_refused(place):
    (place / "d").mkdir()
    with refused("EINVAL"):
        os.rmdir(f"{place}/d/.")
    with refused("ENOTEMPTY", "EEXIST"):
        os.rmdir(f"{place}/d/..")
    for dots in (".", ".."):
        with refused("EISDIR", "EPERM", "EINVAL", "EBUSY"):
            os.unlink(f"{place}/d/{dots}")


def test_what_is_not_there(place):
    (place / "f").touch()
    for call in (os.unlink, os.rmdir):
        with refused("ENOENT"):
            call(place / "missing")
        with refused("ENOENT"):
            call(place / "missing" / "f")
        with refused("ENOTDIR"):
            call(place / "f" / "g")


def test_a_removed_directory_that_is_open_is_empty(place):
    (place / "d").mkdir()
    descriptor = os.open(place / "d", os.O_RDONLY)
    try:
        os.rmdir(place / "d")
        assert os.listdir(descriptor) == []
        assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
        for call in (
            lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor),
            lambda: os.mkdir("x", dir_fd=descriptor),
            lambda: os.symlink("x", "x", dir_fd=descriptor),
            lambda: os.stat("x", dir_fd=descriptor),
        ):
            with refused("ENOENT"):
                call()
        os.fchmod(descriptor, 0o700)
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o700
        os.setxattr(descriptor, "user.a", b"1")
        assert os.getxattr(descriptor, "user.a") == b"1"
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def test_a_directory_made_again_is_another_one(place):
    (place / "d").mkdir()
    descriptor = os.open(place / "d", os.O_RDONLY)
    try:
        os.rmdir(place / "d")
        (place / "d").mkdir()
        (place / "d" / "x").touch()
        assert os.listdir(descriptor) == []
        assert os.fstat(descriptor).st_ino != (place / "d").stat().st_ino
    finally:
        os.close(descriptor)
