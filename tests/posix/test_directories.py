"""readdir(3) while others change the directory, and positions in it."""

from __future__ import annotations

import ctypes
import os
import random
import stat
from pathlib import Path

import pytest

from tests.posix.calls import LIBC, answer, refused

MANY = 5000


class Dirent(ctypes.Structure):
    """What readdir(3) gives."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


LIBC.opendir.restype = ctypes.c_void_p
LIBC.opendir.argtypes = [ctypes.c_char_p]
LIBC.readdir.restype = ctypes.POINTER(Dirent)
LIBC.telldir.restype = ctypes.c_long
for call in (LIBC.readdir, LIBC.telldir, LIBC.rewinddir, LIBC.closedir):
    call.argtypes = [ctypes.c_void_p]
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Reader:
    """A directory stream of the C library."""

    def __init__(self, folder: Path) -> None:
        self._stream = LIBC.opendir(os.fsencode(folder))
        assert self._stream

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        LIBC.closedir(self._stream)

    def next(self) -> str | None:
        found = LIBC.readdir(self._stream)
        return os.fsdecode(found.contents.name) if found else None

    def rest(self) -> list[str]:
        return list(iter(self.next, None))

    def tell(self) -> int:
        return LIBC.telldir(self._stream)

    def seek(self, position: int) -> None:
        LIBC.seekdir(self._stream, position)

    def rewind(self) -> None:
        LIBC.rewinddir(self._stream)


def test_many_entries_are_listed_once_each(place):
    names = {f"entry{number:05}" for number in range(MANY)}
    for name in names:
        os.mknod(place / name)
    with Reader(place) as reader:
        found = reader.rest()
    assert len(found) == MANY + 2
    assert set(found) == names | {".", ".."}


def test_seeking_to_a_told_position_goes_on_from_there(place):
    for number in range(1500):
        os.mknod(place / f"entry{number}")
    with Reader(place) as reader:
        positions, names = [], []
        while True:
            position, name = reader.tell(), reader.next()
            if name is None:
                break
            positions.append(position)
            names.append(name)
        assert len(set(positions)) == len(names)
        for at in (0, 1, 2, 700, 1499, 3, 1501):
            reader.seek(positions[at])
            assert reader.next() == names[at]
        reader.seek(positions[900])
        assert reader.rest() == names[900:]
        reader.rewind()
        assert reader.rest() == names


def test_rewinding_shows_what_is_there_now(place):
    (place / "old").touch()
    with Reader(place) as reader:
        assert set(reader.rest()) == {".", "..", "old"}
        (place / "new").touch()
        os.unlink(place / "old")
        reader.rewind()
        assert set(reader.rest()) == {".", "..", "new"}


def test_everything_is_removed_while_it_is_listed(place):
    for number in range(2000):
        os.mknod(place / f"entry{number}")
    with Reader(place) as reader:
        while (name := reader.next()) is not None:
            if name not in (".", ".."):
                os.unlink(place / name)
    os.rmdir(place)
    place.mkdir()


def churn(folder: Path, seed: int, stop: int) -> None:
    """Make, rename and remove entries until `stop` can be read."""
    rng = random.Random(seed)
    os.set_blocking(stop, False)
    while True:
        try:
            os.read(stop, 1)
            return
        except BlockingIOError:
            pass
        name, other = (f"entry{rng.randrange(MANY):05}-{seed}" for _ in range(2))
        call = rng.choice(
            [
                lambda name=name: os.mknod(folder / name),
                lambda name=name: os.unlink(folder / name),
                lambda name=name, other=other: os.rename(folder / name, folder / other),
            ]
        )
        answer(call)


def test_what_is_not_touched_is_listed_once_while_others_come_and_go(place):
    names = {f"entry{number:05}" for number in range(0, MANY, 5)}
    for name in names:
        os.mknod(place / name)
    reading, writing = os.pipe()
    children = []
    for seed in (1, 2):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            churn(place, seed, reading)
            os._exit(0)
        children.append(pid)
    try:
        for _ in range(15):
            with Reader(place) as reader:
                found = [name for name in reader.rest() if "-" not in name and not name.startswith(".")]
            assert len(found) == len(set(found))
            assert set(found) == names
    finally:
        os.close(writing)
        ended = [os.waitpid(pid, 0)[1] for pid in children]
        os.close(reading)
    assert ended == [0, 0]


def test_types_and_numbers_agree_with_stat(place):
    (place / "f").touch()
    (place / "d").mkdir()
    (place / "link").symlink_to("f")
    for entry in os.scandir(place):
        found = os.lstat(place / entry.name)
        assert entry.inode() == found.st_ino
        assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(found.st_mode)
        assert entry.is_symlink() == stat.S_ISLNK(found.st_mode)


def test_making_and_what_it_refuses(place):
    (place / "d").mkdir()
    (place / "f").touch()
    (place / "link").symlink_to("nowhere")
    for name in ("d", "f", "link", ".", "d/.."):
        with refused("EEXIST"):
            os.mkdir(f"{place}/{name}")
    with refused("ENOENT"):
        os.mkdir(place / "missing" / "d")
    with refused("ENOTDIR"):
        os.mkdir(place / "f" / "d")


@pytest.mark.parametrize("count", [0, 1, 100])
def test_links_of_a_directory(place, kind, count):
    for number in range(count):
        (place / str(number)).mkdir()
    assert place.stat().st_nlink == (2 + count if kind == "ext4" else 1)
    assert len(os.listdir(place)) == count


def test_a_directory_is_no_file(place):
    (place / "d").mkdir()
    descriptor = os.open(place / "d", os.O_RDONLY)
    try:
        with refused("EISDIR"):
            os.read(descriptor, 1)
        with refused("EBADF"):
            os.write(descriptor, b"x")
        with refused("EINVAL", "EBADF"):
            os.ftruncate(descriptor, 0)
        os.fsync(descriptor)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT):
        with refused("EISDIR"):
            os.open(place / "d", flags)
