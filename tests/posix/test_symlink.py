"""symlink(2) and readlink(2)."""

from __future__ import annotations

import os

import pytest

from tests.posix.calls import refused


@pytest.mark.parametrize("length", [1, 59, 60, 255, 1000, 4094, 4095])
def test_targets_of_any_length(place, length):
    target = ("0123456789" * 410)[:length]
    os.symlink(target, place / "link")
    assert os.readlink(place / "link") == target
    assert os.lstat(place / "link").st_size == length


def test_targets_are_any_bytes(place):
    target = bytes(byte for byte in range(1, 256))
    os.symlink(target, os.fsencode(place / "link"))
    assert os.readlink(os.fsencode(place / "link")) == target


def test_what_is_too_long_or_empty_is_refused(place):
    with refused("ENAMETOOLONG"):
        os.symlink("x" * 4096, place / "link")
    with refused("ENOENT"):
        os.symlink("", place / "link")
    with refused("ENAMETOOLONG"):
        os.symlink("x", place / ("n" * 256))
    assert os.listdir(place) == []


def test_what_is_there_is_not_replaced(place):
    (place / "f").touch()
    (place / "d").mkdir()
    (place / "link").symlink_to("nowhere")
    for name in ("f", "d", "link"):
        with refused("EEXIST"):
            os.symlink("x", place / name)


def test_only_links_have_a_target(place):
    (place / "f").touch()
    (place / "d").mkdir()
    for name in ("f", "d"):
        with refused("EINVAL"):
            os.readlink(place / name)
    with refused("ENOENT"):
        os.readlink(place / "missing")


def test_links_lead_on_relative_absolute_and_up(place):
    (place / "d").mkdir()
    (place / "f").write_bytes(b"f")
    (place / "d" / "up").symlink_to("../f")
    (place / "absolute").symlink_to(place / "f")
    (place / "chain").symlink_to("d/up")
    (place / "dlink").symlink_to("d")
    for name in ("d/up", "absolute", "chain", "dlink/up"):
        assert (place / name).read_bytes() == b"f"
    (place / "dlink" / "made").touch()
    assert sorted(os.listdir(place / "d")) == ["made", "up"]


def test_circles_end(place):
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    for call in (os.stat, os.listdir, lambda path: os.open(path, os.O_RDONLY)):
        with refused("ELOOP"):
            call(place / "a")
    with refused("ELOOP"):
        os.stat(place / "a" / "x")


def test_forty_links_are_followed_and_not_more(place):
    (place / "0").write_bytes(b"end")
    for number in range(1, 43):
        (place / str(number)).symlink_to(str(number - 1))
    assert (place / "40").read_bytes() == b"end"
    with refused("ELOOP"):
        (place / "41").read_bytes()
