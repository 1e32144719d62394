"""Names: their length, their bytes, and slashes at their end."""

from __future__ import annotations

import os

import pytest

from tests.posix.calls import refused


def test_255_bytes_are_a_name_and_256_are_not(place):
    longest = place / ("n" * 255)
    longest.write_bytes(b"x")
    os.rename(longest, place / ("m" * 255))
    assert os.listdir(place) == ["m" * 255]
    too_long = place / ("n" * 256)
    for call in (
        lambda: os.stat(too_long),
        lambda: too_long.write_bytes(b""),
        lambda: os.mkdir(too_long),
        lambda: os.symlink("x", too_long),
        lambda: os.rename(place / ("m" * 255), too_long),
        lambda: os.unlink(too_long),
        lambda: os.rmdir(too_long),
        lambda: os.mknod(too_long),
        lambda: os.truncate(too_long, 0),
        lambda: os.stat(too_long / "below"),
    ):
        with refused("ENAMETOOLONG"):
            call()


def test_the_length_is_counted_in_bytes(place):
    (place / ("ä" * 127)).touch()
    with refused("ENAMETOOLONG"):
        (place / ("ä" * 128)).touch()


def test_every_byte_but_slash_and_nul(place):
    names = {bytes([byte]) for byte in range(1, 256)} - {b"/", b"."}
    names |= {b"a" + bytes([byte]) + b"b" for byte in range(1, 256)} - {b"a/b"}
    names |= {b"...", b" ", b"-rf", b"a\nb", b"\xff\xfe", b"*", b"~"}
    folder = os.fsencode(place)
    for name in names:
        descriptor = os.open(folder + b"/" + name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(descriptor, name)
        os.close(descriptor)
    assert set(os.listdir(folder)) == names
    for name in names:
        with open(folder + b"/" + name, "rb") as file:
            assert file.read() == name


def test_case_and_composition_tell_names_apart(place):
    names = ["a", "A", "é", "e\u0301", "ﬁ", "fi"]
    for name in names:
        (place / name).write_text(name)
    assert sorted(os.listdir(place)) == sorted(names)
    assert [(place / name).read_text() for name in names] == names


def test_a_slash_at_the_end_means_a_directory(place):
    (place / "f").write_bytes(b"f")
    (place / "d").mkdir()
    (place / "link").symlink_to("d")
    assert os.stat(f"{place}/d/").st_ino == os.lstat(f"{place}/link/").st_ino
    for call in (
        lambda: os.stat(f"{place}/f/"),
        lambda: os.open(f"{place}/f/", os.O_RDONLY),
        lambda: os.truncate(f"{place}/f/", 0),
        lambda: os.rename(place / "f", f"{place}/g/"),
        lambda: os.unlink(f"{place}/f/"),
        lambda: os.chmod(f"{place}/f/", 0o600),
    ):
        with refused("ENOTDIR"):
            call()
    with refused("EISDIR"):
        os.open(f"{place}/new/", os.O_CREAT | os.O_WRONLY)
    os.mkdir(f"{place}/e/")
    assert sorted(os.listdir(place)) == ["d", "e", "f", "link"]


def test_long_paths_end_at_4096_bytes(place):
    deep = place
    while len(str(deep)) < 3700:
        deep /= "d" * 200
        os.mkdir(deep)
    (deep / "f").write_bytes(b"deep")
    assert (deep / "f").read_bytes() == b"deep"
    with refused("ENAMETOOLONG"):
        os.stat(str(deep) + "/." * 300)


@pytest.mark.parametrize("depth", [60])
def test_deep_trees_go_beyond_any_path(place, depth):
    descriptor = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 100, dir_fd=descriptor)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    assert os.listdir(descriptor) == ["f"]
    os.close(descriptor)


def test_the_reserved_name_is_the_mounts_own(place, kind):
    if kind == "ext4":
        (place / ".arborfs").touch()
        return
    for call in (
        lambda: (place / ".arborfs").touch(),
        lambda: (place / ".arborfs").mkdir(),
        lambda: (place / ".arborfs").symlink_to("x"),
    ):
        with refused("EINVAL"):
            call()
