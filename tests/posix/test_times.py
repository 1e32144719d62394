"""utimensat(2), and which times change by themselves. In a mount, atime and ctime show mtime."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.posix.calls import NOFOLLOW, NOW, OMIT, renameat2, utimensat

PAST = 1_000_000_000_000_000_000
CLOCK = 50_000_000
"""Nanoseconds by which the clock that stamps files may lag behind ours."""


@pytest.mark.parametrize(
    "when", [0, 1, 999_999_999, 1_234_567_890_123_456_789, 4_102_444_800_000_000_001, -1_000_000_000]
)
@pytest.mark.parametrize("what", ["file", "link"])
def test_times_are_kept_to_the_nanosecond(place, what, when):
    path = place / what
    path.symlink_to("nowhere") if what == "link" else path.write_bytes(b"x")
    os.utime(path, ns=(when, when), follow_symlinks=False)
    assert os.lstat(path).st_mtime_ns == when


@pytest.mark.parametrize("when", [0, 1, 1_234_567_890_123_456_789, -1_000_000_000])
def test_times_of_a_directory_are_kept(place, kind, when):
    (place / "d").mkdir()
    os.utime(place / "d", ns=(when, when))
    # In a branch, a directory at the very beginning of time is a nanosecond later: 0 stands for no time.
    assert os.stat(place / "d").st_mtime_ns == (when or (kind == "mount"))


@pytest.mark.parametrize("seconds", [20_000_000_000, -20_000_000_000])
def test_times_beyond_what_is_kept_become_the_last_one_that_is(place, seconds):
    with open(place / "f", "wb", buffering=0) as file:
        file.write(b"x")
        utimensat(place / "f", (seconds, 5), (seconds, 5))
        far = os.fstat(file.fileno()).st_mtime_ns
    assert (place / "f").stat().st_mtime_ns == far
    assert abs(far) > 2_100_000_000_000_000_000
    assert (far > 0) == (seconds > 0)
    (place / "d").mkdir()
    utimensat(place / "d", (seconds, 5), (seconds, 5))
    assert (place / "d").stat().st_mtime_ns == far


def test_only_what_is_not_omitted_is_set(place):
    (place / "f").write_bytes(b"x")
    os.utime(place / "f", ns=(PAST, PAST))
    utimensat(place / "f", (5, 5), (0, OMIT))
    assert (place / "f").stat().st_mtime_ns == PAST
    utimensat(place / "f", (0, OMIT), (7, 9))
    assert (place / "f").stat().st_mtime_ns == 7_000_000_009
    utimensat(place / "f", (0, OMIT), (0, OMIT))
    assert (place / "f").stat().st_mtime_ns == 7_000_000_009


def test_now_is_now(place):
    (place / "f").write_bytes(b"x")
    for set_now in (lambda: utimensat(place / "f", (0, OMIT), (0, NOW)), lambda: os.utime(place / "f")):
        os.utime(place / "f", ns=(PAST, PAST))
        before = time.time_ns()
        set_now()
        assert before - CLOCK <= (place / "f").stat().st_mtime_ns <= time.time_ns() + CLOCK


def test_a_links_own_times_are_set(place):
    (place / "f").write_bytes(b"x")
    (place / "link").symlink_to("f")
    os.utime(place / "f", ns=(PAST, PAST))
    utimensat(place / "link", (1, 1), (2, 2), NOFOLLOW)
    assert os.lstat(place / "link").st_mtime_ns == 2_000_000_002
    assert (place / "f").stat().st_mtime_ns == PAST
    utimensat(place / "link", (1, 1), (3, 3))
    assert (place / "f").stat().st_mtime_ns == 3_000_000_003


def test_access_and_change_times(place, kind):
    (place / "f").write_bytes(b"x")
    os.utime(place / "f", ns=(PAST, PAST + 1))
    found = (place / "f").stat()
    if kind == "mount":
        assert found.st_atime_ns == found.st_ctime_ns == found.st_mtime_ns == PAST + 1
    else:
        assert (found.st_atime_ns, found.st_mtime_ns) == (PAST, PAST + 1)


def written(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"new")


CHANGES = {
    "write": written,
    "append": lambda path: path.open("ab").write(b"x") and None,
    "truncate down": lambda path: os.truncate(path, 1),
    "truncate up": lambda path: os.truncate(path, 100),
    "open with O_TRUNC": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("how", CHANGES)
def test_changing_contents_makes_a_file_new(place, how):
    (place / "f").write_bytes(b"contents")
    os.utime(place / "f", ns=(PAST, PAST))
    before = time.time_ns()
    if how == "append":
        with open(place / "f", "ab") as file:
            file.write(b"x")
    else:
        CHANGES[how](place / "f")
    assert (place / "f").stat().st_mtime_ns >= before - CLOCK


def test_other_changes_leave_its_time(place):
    (place / "f").write_bytes(b"contents")
    os.utime(place / "f", ns=(PAST, PAST))
    (place / "f").chmod(0o600)
    os.setxattr(place / "f", "user.a", b"1")
    os.rename(place / "f", place / "g")
    (place / "g").read_bytes()
    with open(place / "g", "r+b") as file:
        os.fsync(file.fileno())
    assert (place / "g").stat().st_mtime_ns == PAST


def test_a_time_set_before_the_close_stays(place):
    with open(place / "f", "wb", buffering=0) as file:
        file.write(b"contents")
        os.utime(file.fileno(), ns=(PAST, PAST))
    assert (place / "f").stat().st_mtime_ns == PAST


def test_a_file_emptied_through_an_open_handle_is_new(place):
    (place / "f").write_bytes(b"contents")
    os.utime(place / "f", ns=(PAST, PAST))
    with open(place / "f", "r+b", buffering=0) as file:
        before = time.time_ns()
        os.ftruncate(file.fileno(), 0)
        assert os.fstat(file.fileno()).st_mtime_ns >= before - CLOCK
    assert (place / "f").stat().st_mtime_ns >= before - CLOCK


def in_directory(place: Path) -> dict[str, object]:
    d = place / "d"
    return {
        "create": lambda: (d / "new").touch(),
        "mkdir": lambda: (d / "newdir").mkdir(),
        "symlink": lambda: (d / "newlink").symlink_to("x"),
        "mknod": lambda: os.mknod(d / "newnode"),
        "unlink": lambda: os.unlink(d / "f"),
        "rmdir": lambda: os.rmdir(d / "e"),
        "rename within": lambda: os.rename(d / "f", d / "g"),
        "rename out": lambda: os.rename(d / "f", place / "g"),
        "rename in": lambda: os.rename(place / "f", d / "g"),
        "rename over": lambda: os.rename(place / "f", d / "f"),
        "exchange": lambda: renameat2(place / "f", d / "e", 2),
    }


@pytest.mark.parametrize("how", in_directory(Path()))
def test_a_directory_is_as_new_as_its_last_change_of_entries(place, how):
    (place / "d" / "e").mkdir(parents=True)
    (place / "d" / "f").write_bytes(b"f")
    (place / "f").write_bytes(b"outer")
    os.utime(place / "d", ns=(PAST, PAST))
    assert (place / "d").stat().st_mtime_ns == PAST
    before = time.time_ns()
    in_directory(place)[how]()
    assert (place / "d").stat().st_mtime_ns >= before - CLOCK


def test_changes_inside_files_leave_the_directorys_time(place):
    (place / "d" / "e").mkdir(parents=True)
    (place / "d" / "f").write_bytes(b"f")
    os.utime(place / "d", ns=(PAST, PAST))
    (place / "d" / "f").write_bytes(b"new contents")
    (place / "d" / "f").chmod(0o600)
    os.truncate(place / "d" / "f", 1)
    os.setxattr(place / "d" / "f", "user.a", b"1")
    (place / "d" / "e" / "g").touch()
    os.utime(place / "d" / "f")
    assert (place / "d").stat().st_mtime_ns == PAST
    (place / "d").chmod(0o700)
    os.rename(place / "d", place / "moved")
    assert (place / "moved").stat().st_mtime_ns == PAST
