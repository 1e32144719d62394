"""flock(2), fcntl(2) locks and open file description locks between processes."""

from __future__ import annotations

import fcntl
import os
import struct

import pytest

from tests.posix.calls import answer, in_child

GET, SET = 36, 37  # F_OFD_GETLK, F_OFD_SETLK: the fcntl module has them since Python 3.9 on some systems only


@pytest.fixture
def file(place):
    with open(place / "f", "w+b", buffering=0) as opened:
        opened.write(bytes(100))
        yield opened


def ofd(descriptor: int, kind: int, start: int, length: int) -> object:
    """Try an open file description lock."""
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    return answer(lambda: fcntl.fcntl(descriptor, SET, request) and None)


def test_flock_keeps_other_processes_out(file, place):
    def attempt(kind: int) -> object:
        with open(place / "f", "r+b") as other:
            return answer(lambda: fcntl.flock(other, kind | fcntl.LOCK_NB))

    fcntl.flock(file, fcntl.LOCK_EX)
    assert in_child(lambda: [attempt(fcntl.LOCK_EX), attempt(fcntl.LOCK_SH)]) == ["EAGAIN", "EAGAIN"]
    fcntl.flock(file, fcntl.LOCK_SH)
    assert in_child(lambda: [attempt(fcntl.LOCK_EX), attempt(fcntl.LOCK_SH)]) == ["EAGAIN", None]
    fcntl.flock(file, fcntl.LOCK_UN)
    assert in_child(lambda: attempt(fcntl.LOCK_EX)) is None


def test_flock_belongs_to_the_open_file_and_ends_with_it(file, place):
    other = open(place / "f", "r+b")
    fcntl.flock(other, fcntl.LOCK_EX)
    duplicate = os.dup(other.fileno())
    assert answer(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)) == "EAGAIN"
    other.close()
    assert answer(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)) == "EAGAIN"
    os.close(duplicate)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_ranges_are_locked_between_processes(file, place):
    def attempt(kind: int, length: int, start: int) -> object:
        with open(place / "f", "r+b") as other:
            return answer(lambda: fcntl.lockf(other, kind | fcntl.LOCK_NB, length, start))

    fcntl.lockf(file, fcntl.LOCK_EX, 10, 20)
    assert in_child(
        lambda: [
            attempt(fcntl.LOCK_EX, 20, 0),
            attempt(fcntl.LOCK_EX, 1, 29),
            attempt(fcntl.LOCK_SH, 1, 25),
            attempt(fcntl.LOCK_EX, 0, 30),
        ]
    ) == [None, "EAGAIN", "EAGAIN", None]
    fcntl.lockf(file, fcntl.LOCK_UN, 5, 20)
    assert in_child(lambda: [attempt(fcntl.LOCK_EX, 5, 20), attempt(fcntl.LOCK_EX, 5, 25)]) == [None, "EAGAIN"]


def test_a_processs_range_locks_end_with_it(file, place):
    reading, writing = os.pipe()
    done_reading, done_writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(place / "f", "r+b") as other:
            fcntl.lockf(other, fcntl.LOCK_EX)
            os.write(writing, b"x")
            os.read(done_reading, 1)
        os._exit(0)
    assert os.read(reading, 1) == b"x"
    assert answer(lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)) in ("EAGAIN", "EACCES")
    os.write(done_writing, b"x")
    os.waitpid(pid, 0)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for descriptor in (reading, writing, done_reading, done_writing):
        os.close(descriptor)


def test_waiting_for_a_lock_ends_when_it_is_free(file, place):
    fcntl.flock(file, fcntl.LOCK_EX)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(place / "f", "r+b") as other:
            os.write(writing, b"w")
            fcntl.flock(other, fcntl.LOCK_EX)
            os.write(writing, b"g")
        os._exit(0)
    assert os.read(reading, 1) == b"w"
    fcntl.flock(file, fcntl.LOCK_UN)
    assert os.read(reading, 1) == b"g"
    assert os.waitpid(pid, 0)[1] == 0
    os.close(reading)
    os.close(writing)


def test_open_file_description_locks(file, place):
    with open(place / "f", "r+b", buffering=0) as other:
        assert ofd(file.fileno(), fcntl.F_WRLCK, 0, 10) is None
        assert ofd(other.fileno(), fcntl.F_WRLCK, 5, 1) == "EAGAIN"
        assert ofd(other.fileno(), fcntl.F_WRLCK, 10, 1) is None
        assert in_child(lambda: ofd(other.fileno(), fcntl.F_WRLCK, 0, 1)) == "EAGAIN"
        assert ofd(file.fileno(), fcntl.F_UNLCK, 0, 10) is None
        assert ofd(other.fileno(), fcntl.F_WRLCK, 5, 1) is None


def test_locked_files_are_written_by_whoever_does_not_ask(file, place):
    fcntl.flock(file, fcntl.LOCK_EX)
    (place / "f").write_bytes(b"new")
    assert os.pread(file.fileno(), 10, 0) == b"new"
