"""Two mounts and the Python API work on one branch in turn, at random: all three show what one model says.

What one of them changed the others show within the time promised, in listings, sizes, modes and contents, also of
files they had open or had read before; and what they had open they read on as it was.
"""

import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.model.samples import BytesSource
from storage.worktree import WorkingTree

STEPS = 120
PATIENCE = 5.0
"""Seconds after which a change is not late any more, but lost. What is promised is 0.2 on a machine that is not busy."""

NAMES = ["a", "b", "c", "d/a", "d/b", "e/a"]
Tree = dict[str, bytes]


class ByMount:
    """A client that uses a mount."""

    def __init__(self, main: Path) -> None:
        self.main = main

    def write(self, name: str, data: bytes) -> None:
        (self.main / name).write_bytes(data)

    def append(self, name: str, data: bytes) -> None:
        with (self.main / name).open("ab") as file:
            file.write(data)

    def remove(self, name: str) -> None:
        (self.main / name).unlink()

    def rename(self, old: str, new: str) -> None:
        (self.main / old).rename(self.main / new)

    def commit(self) -> None:
        (self.main / ".arborfs" / "commit").write_text("a message")

    def tree(self) -> Tree:
        found = {}
        for folder in ("", "d", "e"):
            for name in os.listdir(self.main / folder):
                path = self.main / folder / name
                if not path.is_dir():
                    size, data = path.stat().st_size, path.read_bytes()
                    if size != len(data):
                        raise BlockingIOError("what stat says is not yet what is read")
                    found[f"{folder}/{name}".lstrip("/")] = data
        return found


class ByEngine:
    """A client that uses the engine, as the Python API does."""

    def __init__(self, tree: WorkingTree) -> None:
        self._tree = tree

    def write(self, name: str, data: bytes) -> None:
        self._tree.put_file(path(name), BytesSource(data))

    def append(self, name: str, data: bytes) -> None:
        content = self._tree.open(path(name))[1]
        self.write(name, bytes(content.read(0, content.size)) + data)

    def remove(self, name: str) -> None:
        self._tree.remove(path(name))

    def rename(self, old: str, new: str) -> None:
        self._tree.rename(path(old), path(new))

    def commit(self) -> None:
        self._tree.commit("a message")

    def tree(self) -> Tree:
        found = {}
        for folder in ((), (b"d",), (b"e",)):
            for name, entry in self._tree.entries(folder):
                if not entry.is_directory:
                    content = self._tree.open((*folder, name))[1]
                    found[b"/".join((*folder, name)).decode()] = bytes(content.read(0, content.size))
        return found


def path(name: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in name.split("/"))


def seen_after(look: Callable[[], Tree], wanted: Tree) -> float | None:
    """Seconds until a client sees what the model says; None if it never does."""
    started = time.monotonic()
    while time.monotonic() < started + PATIENCE:
        try:
            if look() == wanted:
                return time.monotonic() - started
        except OSError:
            continue  # a name that another client has just taken away, or a size from before
    return None


@pytest.mark.parametrize("seed", range(3))
def test_all_clients_see_what_one_model_says(mounted, repository, seed):
    rng = random.Random(seed)
    one, other = mounted(repository), mounted(repository)
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.make_directory((b"d",))
        tree.make_directory((b"e",))
        clients = {"mount A": ByMount(one.main), "mount B": ByMount(other.main), "engine": ByEngine(tree)}
        model: Tree = {}
        told, delays = [], []
        assert seen_after(clients["mount A"].tree, model) is not None
        for _ in range(STEPS):
            who = rng.choice(list(clients))
            client, name, target, data = (
                clients[who],
                rng.choice(NAMES),
                rng.choice(NAMES),
                rng.randbytes(rng.choice([5, 5000, 200_000])),
            )
            open_files = {}
            for mount in (one, other):
                if name in model and rng.random() < 0.5:
                    open_files[(mount.main / name).open("rb", buffering=0)] = model[name]
            what = rng.choice(["write", "write", "append", "remove", "rename", "commit"])
            told.append(f"{what} {name} {target} by {who}")
            if what == "write":
                client.write(name, data)
                model[name] = data
            elif what == "append" and name in model:
                client.append(name, data)
                model[name] += data
            elif what == "remove" and name in model:
                client.remove(name)
                del model[name]
            elif what == "rename" and name in model and name != target:
                client.rename(name, target)
                model[target] = model.pop(name)
            elif what == "commit" and tree.is_dirty():
                client.commit()
            for looker, another in clients.items():
                delay = seen_after(another.tree, model)
                assert delay is not None, f"seed {seed}: {looker} does not see it: {'; '.join(told[-8:])}"
                delays.append(delay)
            for file, before in open_files.items():
                # Written to in place by the mount where it is open, a file shows that; replaced, it stays what it was.
                assert file.read(len(before) + 1)[: len(before)] in (before, model.get(name, before)[: len(before)]), (
                    told[-8:]
                )
                file.close()
    print(f"seen after {statistics.median(delays) * 1e3:.0f} ms in the middle, {max(delays) * 1e3:.0f} ms at most")
