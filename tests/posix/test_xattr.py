"""Extended attributes. Those that arborfs derives (`user.arborfs.*`) are left out."""

from __future__ import annotations

import ctypes
import os

import pytest

from tests.posix.calls import LIBC, refused

KEPT_BY_EXT4 = 3000
"""Bytes of value that ext4 keeps for certain."""


@pytest.fixture(params=["file", "directory"])
def path(request, place):
    made = place / request.param
    made.mkdir() if request.param == "directory" else made.touch()
    return made


def listed(path) -> set[str]:
    return {name for name in os.listxattr(path) if not name.startswith("user.arborfs.")}


def test_setting_reading_listing_and_removing(path):
    assert listed(path) == set()
    os.setxattr(path, "user.a", b"1")
    os.setxattr(path, "user.b", bytes(range(256)))
    os.setxattr(path, "user.empty", b"")
    assert listed(path) == {"user.a", "user.b", "user.empty"}
    assert os.getxattr(path, "user.b") == bytes(range(256))
    assert os.getxattr(path, "user.empty") == b""
    os.setxattr(path, "user.a", b"a longer one")
    assert os.getxattr(path, "user.a") == b"a longer one"
    os.removexattr(path, "user.a")
    assert listed(path) == {"user.b", "user.empty"}
    with refused("ENODATA"):
        os.getxattr(path, "user.a")
    with refused("ENODATA"):
        os.removexattr(path, "user.a")


def test_flags_tell_creating_from_replacing(path):
    with refused("ENODATA"):
        os.setxattr(path, "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    with refused("EEXIST"):
        os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
    os.setxattr(path, "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.a") == b"3"


@pytest.mark.parametrize("size", [1, 255, 1000, KEPT_BY_EXT4, 4096, 20_000, 65_536])
def test_values_of_any_size(path, kind, size):
    value = os.urandom(size)
    if size > KEPT_BY_EXT4 and kind == "ext4":
        pytest.skip("ext4 keeps no more in its usual form")
    os.setxattr(path, "user.a", value)
    assert os.getxattr(path, "user.a") == value


def test_what_is_too_long_is_refused(path):
    with refused("E2BIG", "ENOSPC"):
        os.setxattr(path, "user.a", bytes(65_537))
    with refused("ERANGE"):
        os.setxattr(path, "user." + "n" * 251, b"")
    os.setxattr(path, "user." + "n" * 250, b"1")
    assert listed(path) == {"user." + "n" * 250}


def test_a_buffer_that_is_too_small_is_told(path):
    os.setxattr(path, "user.a", b"0123456789")
    name = os.fsencode(path)
    small = ctypes.create_string_buffer(3)
    ctypes.set_errno(0)
    assert LIBC.getxattr(name, b"user.a", small, 3) == -1
    assert ctypes.get_errno() == 34  # ERANGE
    assert LIBC.getxattr(name, b"user.a", None, 0) == 10
    ctypes.set_errno(0)
    assert LIBC.listxattr(name, small, 3) == -1
    assert ctypes.get_errno() == 34


def test_many_are_kept(path):
    for number in range(40):
        os.setxattr(path, f"user.number{number}", b"%d" % number)
    assert listed(path) == {f"user.number{number}" for number in range(40)}
    assert os.getxattr(path, "user.number17") == b"17"


def test_they_stay_with_writing_renaming_and_truncating(place):
    (place / "f").write_bytes(b"one")
    os.setxattr(place / "f", "user.a", b"1")
    (place / "f").write_bytes(b"two")
    os.truncate(place / "f", 1)
    os.rename(place / "f", place / "g")
    (place / "g").chmod(0o600)
    assert os.getxattr(place / "g", "user.a") == b"1"


def test_set_on_a_file_that_is_being_written(place):
    with open(place / "f", "wb", buffering=0) as file:
        file.write(b"one")
        os.setxattr(file.fileno(), "user.a", b"1")
        with refused("EEXIST"):
            os.setxattr(file.fileno(), "user.a", b"2", os.XATTR_CREATE)
        file.write(b" two")
        assert os.getxattr(place / "f", "user.a") == b"1"
    assert os.getxattr(place / "f", "user.a") == b"1"
    assert (place / "f").read_bytes() == b"one two"


def test_links_have_none(place):
    (place / "link").symlink_to("nowhere")
    with refused("EPERM"):
        os.setxattr(place / "link", "user.a", b"1", follow_symlinks=False)
    assert os.listxattr(place / "link", follow_symlinks=False) == []


def test_access_lists_are_not_kept(path, kind):
    if kind == "ext4":
        pytest.skip("ext4 keeps them where it was mounted so")
    acl = bytes.fromhex("0200000001000600ffffffff04000400ffffffff20000400ffffffff")
    with refused("ENOTSUP"):
        os.setxattr(path, "system.posix_acl_access", acl)
    with refused("ENOTSUP"):
        os.getxattr(path, "system.posix_acl_access")


def test_names_without_a_namespace_are_refused(path):
    with refused("ENOTSUP"):
        os.setxattr(path, "nonsense", b"1")
    with refused("ENOTSUP"):
        os.setxattr(path, "nonsense.a", b"1")
