"""One file, several handles, random calls: whatever is read is what a bytearray says.

Each run is known by its seed, which stands in the test's name and with the last calls in the failure.
"""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

from tests.posix.calls import answer

HANDLES = 3


class Exerciser:
    """A file and its model."""

    def __init__(self, path: Path, seed: int, limit: int, commit: Path | None) -> None:
        self.path = path
        self.rng = random.Random(seed)
        self.limit = limit
        self.commit_file = commit
        self.model = bytearray()
        self.done: list[str] = []
        path.write_bytes(b"")
        self.handles = [os.open(path, os.O_RDWR) for _ in range(HANDLES)]

    @property
    def handle(self) -> int:
        return self.rng.choice(self.handles)

    def place(self, up_to: int) -> tuple[int, int]:
        """An offset and a length, often at the edges of pages and of what the file holds."""
        offset = self.rng.choice([0, self.rng.randrange(up_to + 1), self.rng.randrange(up_to + 1) & ~4095])
        longest = max(self.limit // self.rng.choice([4, 30, 300, 3000]), 1)
        return offset, min(self.rng.randrange(longest) + 1, self.limit - min(offset, self.limit - 1))

    def write(self) -> None:
        offset, length = self.place(min(len(self.model) + 10_000, self.limit - 1))
        data = self.rng.randbytes(length)
        assert os.pwrite(self.handle, data, offset) == length
        self.note(f"write {length} at {offset}")
        if offset > len(self.model):
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset : offset + length] = data

    def append(self) -> None:
        data = self.rng.randbytes(self.rng.randrange(1000) + 1)
        if len(self.model) + len(data) > self.limit:
            return
        self.note(f"append {len(data)}")
        with open(self.path, "ab", buffering=0) as file:
            file.write(data)
        self.model += data

    def read(self) -> None:
        offset, length = self.place(len(self.model))
        self.note(f"read {length} at {offset}")
        assert os.pread(self.handle, length, offset) == self.model[offset : offset + length]

    def read_all(self) -> None:
        self.note("read all")
        assert self.path.read_bytes() == self.model

    def truncate(self) -> None:
        size = self.rng.choice([0, self.rng.randrange(self.limit), self.rng.randrange(len(self.model) + 1)])
        how = self.rng.randrange(3)
        self.note(f"truncate to {size} ({how})")
        if how == 0:
            os.truncate(self.path, size)
        elif how == 1:
            os.ftruncate(self.handle, size)
        else:
            size = 0
            os.close(os.open(self.path, os.O_WRONLY | os.O_TRUNC))
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def map_read(self) -> None:
        if not self.model:
            return
        offset, length = self.place(len(self.model))
        self.note(f"map and read {length} at {offset}")
        with mmap.mmap(self.handle, 0, mmap.MAP_SHARED) as mapped:
            assert mapped[offset : offset + length] == self.model[offset : offset + length]

    def map_write(self) -> None:
        if not self.model:
            return
        offset, length = self.place(len(self.model) - 1)
        length = min(length, len(self.model) - offset)
        data = self.rng.randbytes(length)
        self.note(f"map and write {length} at {offset}")
        with mmap.mmap(self.handle, 0, mmap.MAP_SHARED) as mapped:
            mapped[offset : offset + length] = data
            if self.rng.random() < 0.5:
                mapped.flush()
        self.model[offset : offset + length] = data

    def allocate(self) -> None:
        offset, length = self.place(min(len(self.model), self.limit - 1))
        self.note(f"allocate {length} at {offset}")
        os.posix_fallocate(self.handle, offset, length)
        self.model.extend(bytes(max(offset + length - len(self.model), 0)))

    def copy(self) -> None:
        source, length = self.place(len(self.model))
        target = self.rng.randrange(len(self.model) + 1)
        length = min(length, self.limit - target, len(self.model) - source)
        if length <= 0 or abs(source - target) < length:
            return
        self.note(f"copy {length} from {source} to {target}")
        copied = os.copy_file_range(self.handle, self.handle, length, source, target)
        data = self.model[source : source + copied]
        self.model[target : target + copied] = data

    def reopen(self) -> None:
        at = self.rng.randrange(HANDLES)
        self.note(f"reopen {at}")
        os.close(self.handles[at])
        self.handles[at] = os.open(self.path, os.O_RDWR)

    def reopen_all(self) -> None:
        self.note("reopen all")
        self.close()
        self.handles = [os.open(self.path, os.O_RDWR) for _ in range(HANDLES)]

    def sync(self) -> None:
        self.note("fsync")
        os.fsync(self.handle)

    def stat(self) -> None:
        assert os.fstat(self.handle).st_size == os.stat(self.path).st_size == len(self.model)

    def rename(self) -> None:
        self.note("rename")
        new = self.path.with_name(f"name{self.rng.randrange(5)}")
        os.rename(self.path, new)
        self.path = new

    def commit(self) -> None:
        if self.commit_file is not None:
            self.note("commit")
            # There may be nothing to commit.
            assert answer(lambda: self.commit_file.write_text("turn") and None) in (None, "ENODATA")

    def note(self, what: str) -> None:
        self.done.append(what)

    def step(self) -> None:
        calls = [
            *[self.write] * 6, *[self.read] * 6, *[self.truncate] * 2, *[self.map_read] * 2, *[self.map_write] * 2,
            *[self.reopen] * 2, self.append, self.read_all, self.allocate, self.copy, self.reopen_all, self.sync,
            self.stat, self.rename, self.commit,
        ]  # fmt: skip
        self.rng.choice(calls)()

    def close(self) -> None:
        for handle in self.handles:
            os.close(handle)
        self.handles = []


@pytest.mark.parametrize(
    "seed, limit, steps",
    [*[(seed, 300_000, 500) for seed in range(7)], (100, 3_000_000, 250), (101, 20_000_000, 80)],
)
def test_whatever_is_read_is_what_was_written(place, kind, seed, limit, steps):
    commit = place.parent / ".arborfs" / "commit" if kind == "mount" else None
    exerciser = Exerciser(place / "f", seed, limit, commit)
    try:
        for _ in range(steps):
            exerciser.step()
        exerciser.read_all()
        exerciser.close()
        exerciser.read_all()
    except BaseException as error:
        error.add_note(f"seed {seed}: " + "; ".join(exerciser.done[-30:]))
        raise
    finally:
        exerciser.close()
