"""A branch and an ordinary folder are given the same random calls, and must give the same answers.

The folder lies on the disk of this machine (ext4 or whatever it is), so what is right is not what we believe but what
it does. Left out are the things in which a branch differs on purpose: hard links, times that follow from atime and
ctime, sizes and link counts of directories.
"""

import contextlib
import ctypes
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.calls import answer

LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
NAMES = [
    "a",
    "b",
    "c",
    "dir",
    "dir/a",
    "dir/b",
    "dir/sub",
    "dir/sub/a",
    "link",
    "dir/link",
    "missing/x",
    "a/x",
    "n" * 255,
    "n" * 256,
]
FLAGS = [
    os.O_RDONLY,
    os.O_WRONLY,
    os.O_RDWR,
    os.O_RDWR | os.O_CREAT,
    os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    os.O_WRONLY | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT | os.O_APPEND,
    os.O_RDONLY | os.O_DIRECTORY,
    os.O_RDONLY | os.O_NOFOLLOW,
    os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW,
    os.O_PATH,
]
OPEN_AT_ONCE = 6


class Place:
    """One of the two folders: calls are made in it, and its open files are known by slot."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open: dict[int, int] = {}

    def close_all(self) -> None:
        for descriptor in self.open.values():
            os.close(descriptor)
        self.open.clear()

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"


def told(found: os.stat_result) -> tuple[object, ...]:
    """What stat says, but for what differs on purpose."""
    if stat.S_ISDIR(found.st_mode):
        return found.st_mode, found.st_uid, found.st_gid
    return found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_nlink


def rename2(old: str, new: str, flags: int) -> None:
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def opened(place: Place, slot: int, name: str, flags: int, mode: int) -> str:
    descriptor = os.open(place.path(name), flags, mode)
    if slot in place.open:
        os.close(place.open.pop(slot))
    place.open[slot] = descriptor
    return "opened"


def on_handle(place: Place, slot: int, call: Callable[[int], object]) -> object:
    return call(place.open[slot]) if slot in place.open else "nothing is open there"


def ends_at(descriptor: int) -> int | str:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        return "what the end of a directory is, each file system decides"
    return os.lseek(descriptor, 0, os.SEEK_END)


def closed(place: Place, slot: int) -> object:
    if slot in place.open:
        os.close(place.open.pop(slot))
    return "closed"


def times(place: Place, name: str, when: int) -> object:
    os.utime(place.path(name), ns=(when, when))
    return os.stat(place.path(name)).st_mtime_ns


def step(rng: random.Random) -> tuple[str, Callable[[Place], object]]:
    """A random call, and how to tell it."""
    name, other, slot = rng.choice(NAMES), rng.choice(NAMES), rng.randrange(OPEN_AT_ONCE)
    size, offset, mode = (
        rng.choice([0, 1, 100, 5000, 70_000]),
        rng.choice([0, 1, 4095, 10_000, 200_000]),
        rng.choice([0o600, 0o644, 0o1755, 0o4711, 0o2770]),
    )
    data, flags, when = rng.randbytes(size), rng.choice(FLAGS), rng.randrange(10**18, 2 * 10**18)
    kind = rng.choice([0, 0, 0, NOREPLACE, EXCHANGE])
    calls: dict[str, Callable[[Place], object]] = {
        f"open {name} {flags:o} {mode:o} as {slot}": lambda p: opened(p, slot, name, flags, mode),
        f"write {size} to {slot}": lambda p: on_handle(p, slot, lambda d: os.write(d, data)),
        f"pwrite {size} at {offset} to {slot}": lambda p: on_handle(p, slot, lambda d: os.pwrite(d, data, offset)),
        f"read {size} from {slot}": lambda p: on_handle(p, slot, lambda d: os.read(d, size)),
        f"pread {size} at {offset} from {slot}": lambda p: on_handle(p, slot, lambda d: os.pread(d, size, offset)),
        f"lseek {slot} {offset}": lambda p: on_handle(p, slot, lambda d: os.lseek(d, offset, os.SEEK_SET)),
        f"lseek {slot} to the end": lambda p: on_handle(p, slot, ends_at),
        f"ftruncate {slot} {offset}": lambda p: on_handle(p, slot, lambda d: os.ftruncate(d, offset)),
        f"fstat {slot}": lambda p: on_handle(p, slot, lambda d: told(os.fstat(d))),
        f"fchmod {slot} {mode:o}": lambda p: on_handle(p, slot, lambda d: os.fchmod(d, mode)),
        f"fsync {slot}": lambda p: on_handle(p, slot, os.fsync),
        f"close {slot}": lambda p: closed(p, slot),
        f"truncate {name} {offset}": lambda p: os.truncate(p.path(name), offset),
        f"stat {name}": lambda p: told(os.stat(p.path(name))),
        f"lstat {name}": lambda p: told(os.lstat(p.path(name))),
        f"chmod {name} {mode:o}": lambda p: os.chmod(p.path(name), mode),
        f"chown {name}": lambda p: os.chown(p.path(name), 1000 + slot, 2000 + slot, follow_symlinks=False),
        f"utime {name} {when}": lambda p: times(p, name, when),
        f"mkdir {name} {mode:o}": lambda p: os.mkdir(p.path(name), mode),
        f"mkdir {name}": lambda p: os.mkdir(p.path(name)),
        f"rmdir {name}": lambda p: os.rmdir(p.path(name)),
        f"unlink {name}": lambda p: os.unlink(p.path(name)),
        f"symlink {other} {name}": lambda p: os.symlink(other, p.path(name)),
        f"readlink {name}": lambda p: os.readlink(p.path(name)),
        f"rename {name} {other} {kind}": lambda p: rename2(p.path(name), p.path(other), kind),
        f"listdir {name}": lambda p: sorted(os.listdir(p.path(name))),
        f"listdir of the root {slot}": lambda p: sorted(os.listdir(p.root)),
        f"read {name}": lambda p: Path(p.path(name)).read_bytes(),
        f"overwrite {name}": lambda p: Path(p.path(name)).write_bytes(data),
        f"setxattr {name}": lambda p: os.setxattr(p.path(name), f"user.{slot}", data[:1000], follow_symlinks=True),
        f"getxattr {name}": lambda p: os.getxattr(p.path(name), f"user.{slot}"),
        f"removexattr {name}": lambda p: os.removexattr(p.path(name), f"user.{slot}"),
        f"access {name}": lambda p: os.access(p.path(name), os.R_OK | os.X_OK),
    }
    return rng.choice(list(calls.items()))


def contents(root: Path) -> dict[str, object]:
    """Everything below a folder: kind, mode, owner, and what it holds."""
    found: dict[str, object] = {}
    for folder, directories, names in os.walk(root):
        for name in directories + names:
            path = Path(folder, name)
            mode, held = path.lstat().st_mode, None
            if stat.S_ISLNK(mode):
                held = os.readlink(path)
            elif stat.S_ISREG(mode):
                held = path.read_bytes()
            found[str(path.relative_to(root))] = (told(path.lstat()), held)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_same_calls_give_the_same_answers(mounted, repository, tmp_path, seed):
    mount = mounted(repository)
    (tmp_path / "folder").mkdir()
    rng = random.Random(seed)
    ours, theirs = Place(mount.main), Place(tmp_path / "folder")
    done: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.callback(ours.close_all)
        stack.callback(theirs.close_all)
        for _ in range(700):
            what, call = step(rng)
            done.append(what)
            expected, found = answer(lambda: call(theirs)), answer(lambda: call(ours))
            assert found == expected, f"seed {seed}: " + "; ".join(done[-25:])
    assert contents(mount.main) == contents(tmp_path / "folder")
