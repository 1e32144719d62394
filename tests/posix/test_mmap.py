"""mmap(2): shared maps agree with read and write, both ways."""

from __future__ import annotations

import faulthandler
import mmap
import os

import pytest

from tests.posix.calls import in_child, refused

PAGE = mmap.PAGESIZE
DATA = os.urandom(5 * PAGE + 100)


@pytest.fixture
def file(place):
    (place / "f").write_bytes(DATA)
    with open(place / "f", "r+b", buffering=0) as opened:
        yield opened


def shared(file, length: int = 0) -> mmap.mmap:
    return mmap.mmap(file.fileno(), length, mmap.MAP_SHARED)


def test_what_is_written_to_the_map_is_read_from_the_file(file, place):
    with shared(file) as mapped:
        mapped[10:15] = b"HELLO"
        mapped[PAGE - 2 : PAGE + 2] = b"over"
        assert os.pread(file.fileno(), 5, 10) == b"HELLO"
        with open(place / "f", "rb") as other:
            assert other.read()[PAGE - 2 : PAGE + 2] == b"over"


def test_what_is_written_to_the_file_is_read_from_the_map(file):
    with shared(file) as mapped:
        assert mapped[:] == DATA
        os.pwrite(file.fileno(), b"WRITTEN", PAGE - 3)
        assert mapped[PAGE - 3 : PAGE + 4] == b"WRITTEN"
        mapped[PAGE - 2 : PAGE] = b"--"
        os.pwrite(file.fileno(), b"XX", PAGE)
        assert mapped[PAGE - 3 : PAGE + 4] == b"W--XXEN"


@pytest.mark.parametrize("how", ["msync", "unmap", "close first"])
def test_it_is_stored(place, how):
    (place / "f").write_bytes(DATA)
    file = open(place / "f", "r+b", buffering=0)
    mapped = shared(file)
    if how == "close first":
        file.close()
    mapped[100:105] = b"12345"
    if how == "msync":
        mapped.flush()
        assert (place / "f").read_bytes()[100:105] == b"12345"
    mapped.close()
    file.close()
    assert (place / "f").read_bytes() == DATA[:100] + b"12345" + DATA[105:]


def test_private_maps_keep_to_themselves(file, place):
    with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        mapped[0:3] = b"xyz"
        assert os.pread(file.fileno(), 3, 0) == DATA[:3]
    assert (place / "f").read_bytes() == DATA


def test_processes_share_a_map(file, place):
    with shared(file) as mapped:

        def job() -> bytes:
            with open(place / "f", "r+b", buffering=0) as other, shared(other) as theirs:
                theirs[0:5] = b"child"
                mapped[5:9] = b"both"
                return bytes(theirs[0:9])

        assert in_child(job) == b"childboth"
        assert mapped[0:9] == b"childboth"
    assert (place / "f").read_bytes() == b"childboth" + DATA[9:]


def test_a_file_cut_under_a_map_is_an_error_beyond_its_end(file):
    with shared(file) as mapped:
        mapped[4 * PAGE] = 7
        os.ftruncate(file.fileno(), PAGE + 10)
        assert mapped[:PAGE] == DATA[:PAGE]
        assert mapped[PAGE + 10 : 2 * PAGE] == bytes(PAGE - 10)
        assert in_child(lambda: mapped[3 * PAGE], before=faulthandler.disable) == "SIGBUS"
        os.ftruncate(file.fileno(), 5 * PAGE)
        assert mapped[4 * PAGE] == 0
        assert os.pread(file.fileno(), 10, 4 * PAGE) == bytes(10)


def test_what_is_written_to_the_map_behind_the_end_is_not_kept(place):
    (place / "f").write_bytes(b"short")
    with open(place / "f", "r+b", buffering=0) as file, shared(file) as mapped:
        mapped[0:1] = b"S"
        file.seek(0, os.SEEK_END)
        file.write(b"er")
        assert mapped.size() == 7
    assert (place / "f").read_bytes() == b"Shorter"


def test_an_unlinked_file_stays_mapped(file, place):
    with shared(file) as mapped:
        os.unlink(place / "f")
        file.close()
        mapped[0:3] = b"new"
        mapped.flush()
        assert mapped[0:6] == b"new" + DATA[3:6]
    assert os.listdir(place) == []


def test_a_renamed_file_stays_mapped(file, place):
    with shared(file) as mapped:
        os.rename(place / "f", place / "g")
        mapped[0:3] = b"new"
    file.close()
    assert (place / "g").read_bytes() == b"new" + DATA[3:]


def test_a_large_file_is_changed_here_and_there(place):
    size = 12_000_000
    data = bytearray(os.urandom(1 << 20) * 12)[:size]
    (place / "f").write_bytes(data)
    with open(place / "f", "r+b", buffering=0) as file, shared(file) as mapped:
        for at in range(0, size - 10, 1_234_567):
            mapped[at : at + 10] = data[at : at + 10] = b"0123456789"
    assert (place / "f").read_bytes() == data


def test_maps_need_the_right_to_write(place):
    (place / "f").write_bytes(DATA)
    with open(place / "f", "rb") as file, refused("EACCES"):
        mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED)
