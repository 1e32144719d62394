"""rename(2) and renameat2(2) in all forms."""

from __future__ import annotations

import os

import pytest

from tests.posix.calls import EXCHANGE, NOREPLACE, WHITEOUT, refused, renameat2


def test_a_file_takes_a_new_name_with_its_inode(place):
    (place / "a").write_bytes(b"a")
    ino = (place / "a").stat().st_ino
    os.rename(place / "a", place / "b")
    assert os.listdir(place) == ["b"]
    assert (place / "b").stat().st_ino == ino
    assert (place / "b").read_bytes() == b"a"


def test_a_file_goes_over_a_file(place):
    (place / "a").write_bytes(b"a")
    (place / "b").write_bytes(b"bb")
    os.rename(place / "a", place / "b")
    assert os.listdir(place) == ["b"]
    assert (place / "b").read_bytes() == b"a"


def test_a_file_goes_over_a_link_and_not_through_it(place):
    (place / "a").write_bytes(b"a")
    (place / "b").write_bytes(b"b")
    (place / "link").symlink_to("b")
    os.rename(place / "a", place / "link")
    assert not (place / "link").is_symlink()
    assert (place / "link").read_bytes() == b"a"
    assert (place / "b").read_bytes() == b"b"


def test_a_link_moves_and_not_what_it_leads_to(place):
    (place / "b").write_bytes(b"b")
    (place / "link").symlink_to("b")
    (place / "sub").mkdir()
    os.rename(place / "link", place / "sub" / "link")
    assert os.readlink(place / "sub" / "link") == "b"
    assert (place / "b").exists()


def test_to_its_own_name_it_does_nothing(place):
    (place / "a").write_bytes(b"a")
    (place / "d").mkdir()
    (place / "d" / "x").write_bytes(b"x")
    os.rename(place / "a", place / "a")
    os.rename(place / "d", place / "d")
    assert (place / "a").read_bytes() == b"a"
    assert os.listdir(place / "d") == ["x"]


def test_a_directory_moves_with_all_below_it(place):
    (place / "d" / "e" / "f").mkdir(parents=True)
    (place / "d" / "e" / "f" / "x").write_bytes(b"x")
    (place / "other").mkdir()
    os.rename(place / "d", place / "other" / "moved")
    assert (place / "other" / "moved" / "e" / "f" / "x").read_bytes() == b"x"
    assert not (place / "d").exists()


def test_a_directory_goes_over_an_empty_one(place):
    (place / "d").mkdir()
    (place / "d" / "x").write_bytes(b"x")
    (place / "empty").mkdir()
    os.rename(place / "d", place / "empty")
    assert os.listdir(place) == ["empty"]
    assert os.listdir(place / "empty") == ["x"]


def test_a_directory_does_not_go_over_a_full_one(place):
    for name in ("d", "full"):
        (place / name).mkdir()
        (place / name / "x").write_bytes(name.encode())
    with refused("ENOTEMPTY", "EEXIST"):
        os.rename(place / "d", place / "full")
    assert (place / "full" / "x").read_bytes() == b"full"
    assert (place / "d" / "x").read_bytes() == b"d"


def test_kinds_must_agree(place):
    (place / "d").mkdir()
    (place / "f").write_bytes(b"f")
    (place / "link").symlink_to("d")
    with refused("EISDIR"):
        os.rename(place / "f", place / "d")
    with refused("EISDIR"):
        os.rename(place / "link", place / "d")
    with refused("ENOTDIR"):
        os.rename(place / "d", place / "f")
    with refused("ENOTDIR"):
        os.rename(place / "d", place / "link")
    assert sorted(os.listdir(place)) == ["d", "f", "link"]


def test_a_directory_does_not_go_into_itself(place):
    (place / "d" / "e").mkdir(parents=True)
    for inside in ("d/new", "d/e/new"):
        with refused("EINVAL"):
            os.rename(place / "d", place / inside)
    with refused("ENOTEMPTY"):
        os.rename(place / "d" / "e", place / "d")
    assert (place / "d" / "e").is_dir()


def test_what_is_not_there_cannot_be_moved(place):
    (place / "f").write_bytes(b"f")
    with refused("ENOENT"):
        os.rename(place / "missing", place / "f")
    with refused("ENOENT"):
        os.rename(place / "f", place / "missing" / "f")
    with refused("ENOENT"):
        renameat2(place / "f", place / "missing", EXCHANGE)
    with refused("ENOTDIR"):
        os.rename(place / "f", place / "f" / "g")
    with refused("ENOTDIR"):
        os.rename(place / "f", f"{place}/g/")
    assert (place / "f").read_bytes() == b"f"


def test_dots_cannot_be_moved(place):
    (place / "d").mkdir()
    for dots in (".", ".."):
        with refused("EBUSY", "EINVAL"):
            os.rename(f"{place}/d/{dots}", place / "new")
        with refused("EBUSY", "EINVAL", "ENOTEMPTY", "EEXIST"):
            os.rename(place / "d", f"{place}/d/{dots}")


def test_a_directory_may_be_named_with_a_slash_at_its_end(place):
    (place / "d").mkdir()
    os.rename(f"{place}/d/", f"{place}/e/")
    assert os.listdir(place) == ["e"]


@pytest.mark.parametrize("what", ["file", "directory", "link", "itself"])
def test_noreplace_refuses_what_is_there(place, what):
    (place / "a").write_bytes(b"a")
    match what:
        case "file":
            (place / "b").write_bytes(b"b")
        case "directory":
            (place / "b").mkdir()
        case "link":
            (place / "b").symlink_to("nowhere")
    with refused("EEXIST"):
        renameat2(place / "a", place / ("a" if what == "itself" else "b"), NOREPLACE)
    assert (place / "a").read_bytes() == b"a"
    renameat2(place / "a", place / "c", NOREPLACE)
    assert (place / "c").read_bytes() == b"a"


def test_exchanging_swaps_any_two(place):
    (place / "f").write_bytes(b"f")
    (place / "d" / "e").mkdir(parents=True)
    (place / "d" / "e" / "x").write_bytes(b"x")
    (place / "link").symlink_to("target")
    (place / "other").mkdir()
    inodes = (place / "f").stat().st_ino, (place / "d").stat().st_ino
    renameat2(place / "f", place / "d", EXCHANGE)
    assert (place / "d").read_bytes() == b"f"
    assert (place / "f" / "e" / "x").read_bytes() == b"x"
    assert ((place / "d").stat().st_ino, (place / "f").stat().st_ino) == inodes
    renameat2(place / "link", place / "f", EXCHANGE)
    assert os.readlink(place / "f") == "target"
    assert (place / "link" / "e" / "x").read_bytes() == b"x"
    renameat2(place / "link" / "e", place / "other", EXCHANGE)
    assert (place / "other" / "x").read_bytes() == b"x"
    assert os.listdir(place / "link" / "e") == []
    renameat2(place / "other", place / "other", EXCHANGE)
    assert os.listdir(place / "other") == ["x"]


def test_exchanging_with_what_is_inside_is_refused(place):
    (place / "d" / "e").mkdir(parents=True)
    for one, other in (("d", "d/e"), ("d/e", "d")):
        with refused("EINVAL", "ENOTEMPTY"):
            renameat2(place / one, place / other, EXCHANGE)


def test_flags_that_contradict_are_refused(place):
    (place / "a").write_bytes(b"a")
    (place / "b").write_bytes(b"b")
    for flags in (NOREPLACE | EXCHANGE, WHITEOUT | EXCHANGE, 1 << 10):
        with refused("EINVAL"):
            renameat2(place / "a", place / "b", flags)
    assert (place / "a").read_bytes() == b"a"


def test_whoever_has_the_replaced_file_open_keeps_it(place):
    (place / "a").write_bytes(b"new")
    (place / "b").write_bytes(b"old")
    with open(place / "b", "r+b", buffering=0) as old:
        os.rename(place / "a", place / "b")
        assert old.read() == b"old"
        assert os.fstat(old.fileno()).st_nlink == 0
        old.write(b" and on")
        assert os.pread(old.fileno(), 100, 0) == b"old and on"
        os.fsync(old.fileno())
        os.ftruncate(old.fileno(), 2)
        assert os.fstat(old.fileno()).st_size == 2
    assert (place / "b").read_bytes() == b"new"


def test_an_open_file_is_written_on_under_its_new_name(place):
    with open(place / "a", "wb", buffering=0) as file:
        file.write(b"one ")
        os.rename(place / "a", place / "b")
        file.write(b"two ")
        (place / "a").write_bytes(b"another")
        os.fsync(file.fileno())
        (place / "sub").mkdir()
        os.rename(place / "b", place / "sub" / "c")
        file.write(b"three")
        assert os.fstat(file.fileno()).st_ino == (place / "sub" / "c").stat().st_ino
    assert (place / "sub" / "c").read_bytes() == b"one two three"
    assert (place / "a").read_bytes() == b"another"


def test_open_files_are_exchanged_with_what_is_written_to_them(place):
    with open(place / "a", "wb", buffering=0) as a, open(place / "b", "wb", buffering=0) as b:
        a.write(b"from a")
        b.write(b"from b")
        renameat2(place / "a", place / "b", EXCHANGE)
        a.write(b", on")
        b.write(b", on")
    assert (place / "b").read_bytes() == b"from a, on"
    assert (place / "a").read_bytes() == b"from b, on"


def test_an_open_directory_is_listed_under_its_new_name(place):
    (place / "d").mkdir()
    (place / "d" / "x").touch()
    descriptor = os.open(place / "d", os.O_RDONLY)
    try:
        os.rename(place / "d", place / "e")
        assert os.listdir(descriptor) == ["x"]
        os.close(os.open("y", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        assert sorted(os.listdir(place / "e")) == ["x", "y"]
        assert os.stat("..", dir_fd=descriptor).st_ino == place.stat().st_ino
    finally:
        os.close(descriptor)


def test_a_file_replaced_again_and_again_is_never_missed(place):
    (place / "file").write_bytes(b"0")
    for turn in range(50):
        (place / "new").write_bytes(b"%d" % turn)
        os.rename(place / "new", place / "file")
        assert (place / "file").read_bytes() == b"%d" % turn
    assert os.listdir(place) == ["file"]
