"""open(2): flags in all combinations, what creation does, and appending from several places at once."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import subprocess

import pytest

from tests.posix.calls import answer, in_child, refused

ACCESS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR]
OPTIONS = [os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW]


def expected(what: str, flags: int) -> object:
    """What open(2) says of something that is there or not, whatever the file system."""
    writes = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
    makes = bool(flags & os.O_CREAT)
    if what == "missing":
        return "opened" if makes else "ENOENT"
    if makes and flags & os.O_EXCL:
        return "EEXIST"
    if what == "link":
        if flags & os.O_NOFOLLOW:
            return "ENOTDIR" if flags & os.O_DIRECTORY else "ELOOP"
        what = "file"
    if what == "directory":
        return "EISDIR" if makes or writes else "opened"
    return "ENOTDIR" if flags & os.O_DIRECTORY else "opened"


@pytest.mark.parametrize("what", ["missing", "file", "directory", "link"])
def test_every_combination_of_flags_does_what_it_should(place, what):
    for number, (access, *options) in enumerate(itertools.product(ACCESS, *[(0, option) for option in OPTIONS])):
        flags = access | sum(options)
        if flags & os.O_CREAT and flags & os.O_DIRECTORY:
            continue  # What that means has changed with kernels.
        path = place / f"{what}{number}"
        match what:
            case "file":
                path.write_bytes(b"contents")
            case "directory":
                path.mkdir()
            case "link":
                (place / f"target{number}").write_bytes(b"contents")
                path.symlink_to(f"target{number}")

        def opened(path=path, flags=flags) -> str:
            os.close(os.open(path, flags, 0o644))
            return "opened"

        assert answer(opened) == expected(what, flags), f"{what} {flags:o}"
        if what in ("file", "link") and expected(what, flags) == "opened":
            assert path.read_bytes() == (b"" if flags & os.O_TRUNC else b"contents"), f"{flags:o}"


def test_a_link_to_nowhere_is_created_through(place):
    (place / "link").symlink_to("target")
    with refused("EEXIST"):
        os.open(place / "link", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with refused("ENOENT"):
        os.open(place / "link", os.O_WRONLY)
    os.close(os.open(place / "link", os.O_CREAT | os.O_WRONLY))
    assert sorted(os.listdir(place)) == ["link", "target"]


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_the_umask_takes_bits_from_what_is_made(place, umask):
    os.umask(umask)
    os.close(os.open(place / "f", os.O_CREAT | os.O_WRONLY, 0o6666))
    os.mkdir(place / "d", 0o1777)
    os.umask(0o022)
    assert stat.S_IMODE((place / "f").stat().st_mode) == 0o6666 & ~umask
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o1777 & ~umask


def test_a_file_made_read_only_can_be_written_by_its_maker(place):
    descriptor = os.open(place / "f", os.O_CREAT | os.O_RDWR, 0o400)
    os.write(descriptor, b"contents")
    os.close(descriptor)
    assert (place / "f").read_bytes() == b"contents"
    assert stat.S_IMODE((place / "f").stat().st_mode) == 0o400


def test_creating_what_is_there_leaves_its_mode_and_owner(place):
    (place / "f").touch()
    (place / "f").chmod(0o640)
    os.close(os.open(place / "f", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o777))
    assert stat.S_IMODE((place / "f").stat().st_mode) == 0o640


def test_only_what_was_asked_for_may_be_done(place):
    (place / "f").write_bytes(b"contents")
    reading, writing = os.open(place / "f", os.O_RDONLY), os.open(place / "f", os.O_WRONLY)
    try:
        with refused("EBADF"):
            os.write(reading, b"x")
        with refused("EBADF"):
            os.read(writing, 1)
        with refused("EINVAL", "EBADF"):
            os.ftruncate(reading, 0)
    finally:
        os.close(reading)
        os.close(writing)


def test_appending_goes_to_the_end_from_every_handle(place):
    one = os.open(place / "f", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    other = os.open(place / "f", os.O_RDWR | os.O_APPEND)
    plain = os.open(place / "f", os.O_RDWR)
    try:
        os.write(one, b"a")
        os.write(other, b"b")
        os.write(plain, b"X")
        os.write(one, b"c")
        os.lseek(other, 0, os.SEEK_SET)
        os.write(other, b"d")
        assert os.lseek(other, 0, os.SEEK_CUR) == 4
        assert os.pread(plain, 10, 0) == b"Xbcd"
        os.ftruncate(plain, 1)
        os.write(one, b"e")
        assert os.pread(plain, 10, 0) == b"Xe"
    finally:
        for descriptor in (one, other, plain):
            os.close(descriptor)
    assert (place / "f").read_bytes() == b"Xe"


def test_processes_append_without_losing_anything(place):
    def append(mark: bytes) -> None:
        descriptor = os.open(place / "f", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for number in range(100):
            os.write(descriptor, b"%s%03d\n" % (mark, number))
        os.close(descriptor)

    children = []
    for mark in (b"a", b"b", b"c"):
        pid = os.fork()
        if pid == 0:
            append(mark)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    lines = (place / "f").read_bytes().splitlines()
    assert sorted(lines) == sorted(b"%s%03d" % (mark, n) for mark in (b"a", b"b", b"c") for n in range(100))


def test_two_who_create_exclusively_do_not_both_win(place):
    def attempts() -> list[bool]:
        won = []
        for number in range(100):
            try:
                os.close(os.open(place / f"f{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                won.append(True)
            except FileExistsError:
                won.append(False)
        return won

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, bytes(attempts()))
        os._exit(0)
    ours = attempts()
    theirs = list(os.read(reading, 1000))
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    assert all(a + b == 1 for a, b in zip(ours, theirs, strict=True))


def test_a_file_without_a_name_is_made_or_refused(place, kind):
    def made() -> str:
        descriptor = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.write(descriptor, b"x")
        os.close(descriptor)
        return "made"

    assert answer(made) == ("made" if kind == "ext4" else "ENOTSUP")
    assert os.listdir(place) == []


def test_a_path_descriptor_gives_stat_only(place):
    (place / "f").write_bytes(b"contents")
    descriptor = os.open(place / "f", os.O_PATH)
    try:
        assert os.fstat(descriptor).st_size == 8
        with refused("EBADF"):
            os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def test_an_inherited_descriptor_shares_its_position(place):
    descriptor = os.open(place / "f", os.O_CREAT | os.O_RDWR)
    try:
        assert in_child(lambda: os.write(descriptor, b"child ")) == 6
        os.write(descriptor, b"parent")
        assert os.pread(descriptor, 100, 0) == b"child parent"
    finally:
        os.close(descriptor)


def test_programs_run_and_are_not_written_meanwhile(place):
    shutil.copy("/bin/cat", place / "program")
    with subprocess.Popen([place / "program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        with refused("ETXTBSY"):
            os.open(place / "program", os.O_WRONLY)
        assert running.communicate(b"through the pipe")[0] == b"through the pipe"
    with open(place / "program", "r+b"), refused("ETXTBSY"):
        subprocess.run([place / "program"], check=False)
    (place / "program").chmod(0o600)
    with refused("EACCES"):
        subprocess.run([place / "program"], check=False)


def test_synchronous_writes_are_there(place):
    descriptor = os.open(place / "f", os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    os.write(descriptor, b"contents")
    assert (place / "f").read_bytes() == b"contents"
    os.close(descriptor)
