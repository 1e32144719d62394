"""truncate(2), ftruncate(2) and holes."""

from __future__ import annotations

import os

import pytest

from tests.posix.calls import refused

DATA = bytes(range(256)) * 40


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, len(DATA) - 1, len(DATA), len(DATA) + 1, 300_000])
def test_to_any_size_by_name_and_by_handle(place, size):
    (place / "a").write_bytes(DATA)
    os.truncate(place / "a", size)
    with open(place / "b", "w+b", buffering=0) as file:
        file.write(DATA)
        os.ftruncate(file.fileno(), size)
        assert os.fstat(file.fileno()).st_size == size
    wanted = DATA[:size].ljust(size, b"\0")
    assert (place / "a").read_bytes() == wanted
    assert (place / "b").read_bytes() == wanted


@pytest.mark.parametrize("length", [10_000, 3_000_000, 12_000_000])
def test_what_was_cut_off_does_not_come_back(place, length):
    (place / "f").write_bytes(b"\xff" * length)
    with open(place / "f", "r+b", buffering=0) as file:
        os.ftruncate(file.fileno(), 5000)
        os.ftruncate(file.fileno(), length)
        os.pwrite(file.fileno(), b"end", length)
    found = (place / "f").read_bytes()
    assert found == b"\xff" * 5000 + bytes(length - 5000) + b"end"


@pytest.mark.parametrize("length", [10_000, 12_000_000])
def test_nor_does_what_the_same_handle_wrote(place, length):
    with open(place / "f", "w+b", buffering=0) as file:
        file.write(b"\xff" * length)
        os.ftruncate(file.fileno(), 5000)
        os.ftruncate(file.fileno(), length // 2)
        os.pwrite(file.fileno(), b"end", length)
        assert os.pread(file.fileno(), length, 0) == b"\xff" * 5000 + bytes(length - 5000)
    assert (place / "f").read_bytes() == b"\xff" * 5000 + bytes(length - 5000) + b"end"


def test_holes_are_zeros(place):
    with open(place / "f", "w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"a", 100_000)
        os.pwrite(file.fileno(), b"b", 20_000_000)
        assert os.pread(file.fileno(), 3, 99_999) == b"\0a\0"
        assert os.fstat(file.fileno()).st_size == 20_000_001
    with open(place / "f", "rb") as file:
        assert file.read(100_000) == bytes(100_000)
        file.seek(20_000_000 - 1)
        assert file.read() == b"\0b"


def test_the_position_of_a_handle_stays(place):
    with open(place / "f", "w+b", buffering=0) as file:
        file.write(b"0123456789")
        os.ftruncate(file.fileno(), 4)
        assert file.read() == b""
        file.write(b"x")
    assert (place / "f").read_bytes() == b"0123" + bytes(6) + b"x"


def test_other_handles_see_it(place):
    (place / "f").write_bytes(DATA)
    with open(place / "f", "rb", buffering=0) as reader:
        os.truncate(place / "f", 10)
        assert os.fstat(reader.fileno()).st_size == 10
        assert reader.read() == DATA[:10]
        os.truncate(place / "f", 12)
        assert os.pread(reader.fileno(), 100, 0) == DATA[:10] + b"\0\0"


def test_what_cannot_be_truncated(place):
    (place / "d").mkdir()
    (place / "f").write_bytes(DATA)
    (place / "loop").symlink_to("loop")
    for path, error in ((place / "d", "EISDIR"), (place / "missing", "ENOENT"), (place / "f" / "x", "ENOTDIR")):
        with refused(error):
            os.truncate(path, 0)
    with refused("ELOOP"):
        os.truncate(place / "loop", 0)
    with refused("EINVAL"):
        os.truncate(place / "f", -1)
    with open(place / "f", "rb") as reader, refused("EINVAL", "EBADF"):
        os.ftruncate(reader.fileno(), 0)
    assert (place / "f").read_bytes() == DATA


def test_beyond_what_the_disk_allows(place):
    (place / "f").write_bytes(DATA)
    for size in (1 << 62, (1 << 63) - 1):
        with refused("EFBIG", "EINVAL"):
            os.truncate(place / "f", size)
    with open(place / "f", "r+b", buffering=0) as file:
        with refused("EFBIG", "EINVAL"):
            os.ftruncate(file.fileno(), 1 << 62)
        with refused("EFBIG", "EINVAL"):
            os.pwrite(file.fileno(), b"x", 1 << 62)
        assert os.fstat(file.fileno()).st_size == len(DATA)
        os.pwrite(file.fileno(), b"x", 0)
    assert (place / "f").read_bytes() == b"x" + DATA[1:]


def test_a_link_is_followed(place):
    (place / "f").write_bytes(DATA)
    (place / "link").symlink_to("f")
    os.truncate(place / "link", 3)
    assert (place / "f").read_bytes() == DATA[:3]
    assert os.lstat(place / "link").st_size == 1
