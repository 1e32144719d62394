"""Several processes change a tree at once, each with random calls; afterwards everybody tells the same tree.

What each did in a folder of its own must be what the same calls make of a folder of the disk. In the folder they share,
who was first decides; there readdir, stat, contents and the Python API must agree, also after a remount.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

from storage.engine import Engine
from storage.model.records import Kind
from tests.conftest import arborfs
from tests.posix.calls import EXCHANGE, NOREPLACE, answer, renameat2

WORKERS = 4
STEPS = 1000
NAMES = ["a", "b", "c", "d1", "d2", "d1/a", "d1/b", "d1/d", "d2/a", "d1/d/a", "d2/d", "link"]

Told = dict[str, tuple[int, int, object]]


def overwrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def append(path: Path, data: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(data)


def step(rng: random.Random, folder: Path) -> Callable[[], object]:
    """A random call in `folder`."""
    one, other = folder / rng.choice(NAMES), folder / rng.choice(NAMES)
    data = rng.randbytes(rng.choice([0, 10, 1000, 100_000]))
    bits, size = rng.choice([0o600, 0o644, 0o755]), rng.choice([0, 5, 5000])
    calls: list[Callable[[], object]] = [
        lambda: overwrite(one, data),
        lambda: overwrite(one, data),
        lambda: append(one, data),
        lambda: os.mkdir(one),
        lambda: os.mkdir(one),
        lambda: os.rmdir(one),
        lambda: os.unlink(one),
        lambda: os.symlink("a", one),
        lambda: os.rename(one, other),
        lambda: renameat2(one, other, EXCHANGE),
        lambda: renameat2(one, other, NOREPLACE),
        lambda: os.truncate(one, size),
        lambda: os.chmod(one, bits),
        lambda: os.setxattr(one, "user.a", b"1"),
        lambda: os.listdir(one),
        lambda: one.read_bytes(),
        lambda: os.lstat(one),
    ]
    return rng.choice(calls)


def work(seed: int, own: Path, common: Path | None) -> None:
    """Random calls in a folder of one's own and in a common one; the own ones do not depend on the others."""
    mine, theirs = random.Random(seed), random.Random(seed + 1000)
    for _ in range(STEPS):
        answer(step(mine, own))
        if common is not None:
            answer(step(theirs, common))


def told(root: Path) -> Told:
    """Path → kind, permissions, and what it holds."""
    found: Told = {}
    for folder, directories, names in os.walk(root):
        assert len(set(directories + names)) == len(directories + names)
        for name in directories + names:
            path = Path(folder, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            held: object = None
            if kind == stat.S_IFLNK:
                held = os.readlink(path)
            elif kind == stat.S_IFREG:
                held = path.read_bytes()
                assert status.st_size == len(path.read_bytes())
            found[str(path.relative_to(root))] = (kind, stat.S_IMODE(status.st_mode), held)
    return found


def told_by_api(repository: Path) -> Told:
    """The same of the working tree of main, by the Python API."""
    found: Told = {}
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")

        def walk(folder: tuple[bytes, ...]) -> None:
            for name, entry in tree.entries(folder):
                path = (*folder, name)
                held: object = None
                if entry.is_directory:
                    kind, usual = stat.S_IFDIR, 0o755
                    walk(path)
                elif entry.kind is Kind.SYMLINK:
                    kind, usual, held = stat.S_IFLNK, 0o777, os.fsdecode(tree.readlink(entry))
                else:
                    kind, usual, held = stat.S_IFREG, 0o644, bytes(tree.open(path)[1].read(0, entry.size))
                mode = usual if entry.attributes.mode is None else entry.attributes.mode
                found[os.fsdecode(b"/".join(path))] = (kind, mode, held)

        walk(())
    return found


def test_a_tree_that_many_change_at_once_stays_whole(mounted, repository, tmp_path):
    mount = mounted(repository)
    (mount.main / "common").mkdir()
    children = []
    for seed in range(WORKERS):
        own = mount.main / f"own{seed}"
        own.mkdir()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work(seed, own, mount.main / "common")
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * WORKERS
    found = told(mount.main)
    assert told_by_api(repository) == found
    for seed in range(WORKERS):
        replayed = tmp_path / f"own{seed}"
        replayed.mkdir()
        work(seed, replayed, None)
        assert told(mount.main / f"own{seed}") == told(replayed), f"seed {seed}"
    (mount.main / ".arborfs" / "commit").write_text("after the storm")
    assert told(mount.main) == found
    assert told(mount.path / "commits" / "main") == found
    mount.unmount()
    arborfs("-C", repository, "verify")
    assert told(mounted(repository).main) == found


def large(rng: random.Random, folder: Path) -> Callable[[], object]:
    """A random call on one of two large files, which are staged beside the requests."""
    one, other = rng.sample([folder / "a", folder / "b"], 2)
    at, size = rng.randrange(12_000_000), rng.choice([0, 3_000_000, 9_000_000, 12_000_000])

    def change() -> None:
        descriptor = os.open(one, os.O_RDWR | os.O_CREAT)
        try:
            os.pwrite(descriptor, rng.randbytes(5000), at)
            if rng.random() < 0.3:
                os.fsync(descriptor)
            assert len(os.pread(descriptor, 5000, at)) <= 5000
        finally:
            os.close(descriptor)

    return rng.choice(
        [
            change,
            change,
            lambda: one.write_bytes(rng.randbytes(1000) * 9000),
            lambda: os.truncate(one, size),
            lambda: os.rename(one, other),
            lambda: renameat2(one, other, EXCHANGE),
            lambda: os.chmod(one, rng.choice([0o600, 0o644])),
            lambda: os.setxattr(one, "user.a", rng.randbytes(3)),
            lambda: os.utime(one),
            lambda: os.unlink(one) if rng.random() < 0.2 else None,
            one.read_bytes,
        ]
    )


def test_large_files_are_changed_while_they_are_staged(mounted, repository):
    mount = mounted(repository)
    children = []
    for seed in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                rng = random.Random(seed)
                for _ in range(40):
                    answer(large(rng, mount.main))
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * WORKERS
    found = told(mount.main)
    assert told_by_api(repository) == found
    mount.unmount()
    arborfs("-C", repository, "verify")
    assert told(mounted(repository).main) == found
