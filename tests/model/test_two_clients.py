"""Two mounts, the engine and a write checkout work on one branch in turn, at random: all show what one model says.

Whoever acts sees it at once, and so does the API, which reads what is stored. From the moment the call returned every
other mount is asked again and again, without opening anything that would make it look, until attributes, listings and
contents are those of the model: also of names that were not there a moment ago, of files that were read before and lie
in the page cache, and of files that are open. What was open stays what it was, for ever.
"""

from __future__ import annotations

import copy
import errno
import io
import os
import random
import shutil
import stat
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from storage.checkout import WriterCheckout
from storage.engine import Engine
from storage.errors import ArborError, NothingToCommit
from storage.model.digest import Digest
from storage.model.records import Entry, Kind
from storage.model.samples import BytesSource
from storage.repository import Repository
from storage.worktree import WorkingTree
from tests.conftest import wait_until
from tests.posix.calls import EXCHANGE, renameat2

STEPS = 80
SEEN = 0.2
"""Seconds: the promise. The median is held to it, for the machine may be busy at times."""
SOON = 1.0
"""Seconds for tests of one change, which a busy machine may delay."""
LOST = 5.0
"""Seconds after which a change is not late any more, but lost."""
PAUSE = 0.002
"""Seconds between two looks: a look must not be what slows down the daemons that are looked at."""
HELD = 10
"""Files that are open at a time in each mount."""

FOLDERS = ["d", "e", "d/d", "e/d"]
FILES = ["a", "b", "d", "d/a", "d/b", "e/a", "e/d", "d/d/a", "images/README"]
SAMPLES = ["images/0.npy", "images/1.npy", "images/2.npy"]
SHAPE = (40, 40)
"""Large enough for a chunk of its own: 12.8 kB do not lie in the tree."""
MODES = {"file": [0o600, 0o640, 0o644, 0o755], "dir": [0o700, 0o750, 0o755]}


# What is there


class Seen(NamedTuple):
    """What a client tells of a name. The size is that of files, the target that of links."""

    kind: str
    mode: int
    mtime: int
    size: int = 0
    target: str = ""


def seen_directory(mode: int, mtime: int) -> Seen:
    return Seen("dir", mode, mtime)


@dataclass
class Item:
    """What the model holds under a name."""

    kind: str
    mode: int
    mtime: int = 0
    data: bytes = b""
    target: str = ""

    def seen(self) -> Seen:
        if self.kind == "dir":
            return seen_directory(self.mode, self.mtime)
        return Seen(self.kind, self.mode, self.mtime, len(self.data), self.target)


@dataclass
class Model:
    """What all clients must show. `ever` are all names that were ever asked for: most of them are not there."""

    items: dict[str, Item] = field(default_factory=lambda: {"": Item("dir", 0o755)})
    ever: set[str] = field(default_factory=lambda: {"", *FOLDERS, *FILES, *SAMPLES})
    tip: str = ""
    commits: int = 0
    branches: set[str] = field(default_factory=lambda: {"main"})
    tags: dict[str, str] = field(default_factory=dict)

    def seen(self, path: str) -> Seen | None:
        item = self.items.get(path)
        return item.seen() if item else None

    def kind(self, path: str) -> str:
        return self.items[path].kind if path in self.items else ""

    def below(self, path: str) -> list[str]:
        return [name for name in self.items if name.startswith(f"{path}/")]

    def names(self, folder: str) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.items if name and parent(name) == folder)

    def all(self, kind: str) -> list[str]:
        return [path for path, item in self.items.items() if item.kind == kind]

    def take(self, path: str) -> dict[str, Item]:
        """Take away what is at `path`, with all below it: by the rest of their paths."""
        return {name[len(path) :]: self.items.pop(name) for name in [path, *self.below(path)] if name in self.items}

    def give(self, path: str, items: dict[str, Item]) -> None:
        """Put what was taken elsewhere."""
        self.items |= {path + rest: item for rest, item in items.items()}
        self.ever |= self.items.keys()


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def is_sample(path: str) -> bool:
    return path.startswith("images/") and path.endswith(".npy")


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# Who acts and looks


class ByMount:
    """A client that uses a tree of a mount: a branch's, or a commit's."""

    def __init__(self, root: Path, top: Path) -> None:
        self.root = root
        self.top = top

    def write(self, path: str, data: bytes) -> None:
        (self.root / path).write_bytes(data)

    def rewrite(self, path: str, data: bytes, mtime: int) -> None:
        with (self.root / path).open("r+b") as file:
            file.write(data)
            file.flush()
            os.utime(file.fileno(), ns=(mtime, mtime))

    def append(self, path: str, data: bytes) -> None:
        with (self.root / path).open("ab") as file:
            file.write(data)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self.root / path, size)

    def chmod(self, path: str, mode: int) -> None:
        (self.root / path).chmod(mode)

    def utime(self, path: str, mtime: int) -> None:
        os.utime(self.root / path, ns=(mtime, mtime), follow_symlinks=False)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def rename(self, old: str, new: str) -> None:
        (self.root / old).rename(self.root / new)

    def exchange(self, one: str, other: str) -> None:
        renameat2(self.root / one, self.root / other, EXCHANGE)

    def mkdir(self, path: str) -> None:
        (self.root / path).mkdir()

    def rmdir(self, path: str) -> None:
        (self.root / path).rmdir()

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(self.root / path)

    def symlink(self, path: str, target: str) -> None:
        (self.root / path).symlink_to(target)

    def commit(self) -> str:
        (self.root / ".arborfs" / "commit").write_text("by a mount")
        return (self.root / ".arborfs" / "commit").read_text().strip()

    def branch(self, name: str) -> None:
        (self.top / "branches" / name).mkdir()

    def unbranch(self, name: str) -> None:
        (self.top / "branches" / name).rmdir()

    def tag(self, name: str, commit: str) -> None:
        (self.top / "tags" / name).symlink_to(f"../commits/{commit}")

    def untag(self, name: str) -> None:
        (self.top / "tags" / name).rmdir()

    def lstat(self, path: str) -> Seen | None:
        try:
            found = os.lstat(self.root / path)
            target = os.readlink(self.root / path) if stat.S_ISLNK(found.st_mode) else ""
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return Seen("a link that became something else", 0, 0)
        mode, mtime = stat.S_IMODE(found.st_mode), found.st_mtime_ns
        if stat.S_ISDIR(found.st_mode):
            return seen_directory(mode, mtime)
        return Seen("link", mode, mtime, 0, target) if target else Seen("file", mode, mtime, found.st_size)

    def names(self, folder: str) -> list[str]:
        return sorted(os.listdir(self.root / folder))

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def refs(self, model: Model) -> bool:
        """Whether branches, tags and commits are those of the model: by name first, for a listing makes a mount look."""
        tags = {name: self._tag(name) for name in ("t", "u")}
        by_name = {name for name in ("main", "x", "y") if (self.top / "branches" / name).is_dir()}
        if by_name != model.branches or {name: tag for name, tag in tags.items() if tag} != model.tags:
            return False
        if (self.root / ".arborfs" / "commit").read_text().strip() != model.tip:
            return False
        if model.tip and (self.top / "commits" / "main" / ".arborfs" / "commit").read_text().strip() != model.tip:
            return False
        return (
            set(os.listdir(self.top / "branches")) == model.branches
            and set(os.listdir(self.top / "tags")) == model.tags.keys()
            and len(os.listdir(self.top / "commits")) == model.commits
        )

    def _tag(self, name: str) -> str:
        try:
            return (self.top / "tags" / name / ".arborfs" / "commit").read_text().strip()
        except FileNotFoundError:
            return ""


class ByEngine:
    """A client that uses the engine, upon which the Python API stands."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.tree: WorkingTree = engine.working_tree("main")

    def write(self, path: str, data: bytes) -> None:
        self.tree.put_file(parts(path), BytesSource(data))

    def rewrite(self, path: str, data: bytes, mtime: int) -> None:
        self.tree.put_file(parts(path), BytesSource(data), mtime=mtime)

    def append(self, path: str, data: bytes) -> None:
        self.write(path, self.read(path) + data)

    def truncate(self, path: str, size: int) -> None:
        self.write(path, self.read(path)[:size].ljust(size, b"\0"))

    def chmod(self, path: str, mode: int) -> None:
        self.tree.set_attributes(parts(path), mode=mode)

    def utime(self, path: str, mtime: int) -> None:
        self.tree.set_attributes(parts(path), mtime=mtime)

    def remove(self, path: str) -> None:
        self.tree.remove(parts(path))

    def rename(self, old: str, new: str) -> None:
        self.tree.rename(parts(old), parts(new))

    def exchange(self, one: str, other: str) -> None:
        self.tree.exchange(parts(one), parts(other))

    def mkdir(self, path: str) -> None:
        self.tree.make_directory(parts(path))

    def rmdir(self, path: str) -> None:
        self.tree.remove_directory(parts(path))

    def remove_tree(self, path: str) -> None:
        self.tree.remove_tree(parts(path))

    def symlink(self, path: str, target: str) -> None:
        self.tree.make_symlink(parts(path), target.encode())

    def commit(self) -> str:
        return self.tree.commit("by the engine").hex()

    def branch(self, name: str) -> None:
        self._engine.create_branch(name)

    def unbranch(self, name: str) -> None:
        self._engine.remove_branch(name)

    def tag(self, name: str, commit: str) -> None:
        self._engine.create_tag(name, self._engine.resolve(commit))

    def untag(self, name: str) -> None:
        self._engine.remove_tag(name)

    def lstat(self, path: str) -> Seen | None:
        try:
            entry = self.tree.entry(parts(path))
        except (ArborError, KeyError, OSError):
            return None
        return self._seen(entry)

    def _seen(self, entry: Entry) -> Seen:
        mode = entry.attributes.mode
        if entry.is_directory:
            return seen_directory(0o755 if mode is None else mode, entry.mtime)
        if entry.kind is Kind.SYMLINK:
            return Seen("link", 0o777 if mode is None else mode, entry.mtime, 0, self.tree.readlink(entry).decode())
        return Seen("file", 0o644 if mode is None else mode, entry.mtime, entry.size)

    def mtime(self, path: str) -> int:
        return self.tree.entry(parts(path)).mtime

    def names(self, folder: str) -> list[str]:
        return sorted(name.decode() for name, _ in self.tree.entries(parts(folder)) if name != b".arborfs")

    def read(self, path: str) -> bytes:
        content = self.tree.open(parts(path))[1]
        return bytes(content.read(0, content.size))

    def refs(self, model: Model) -> bool:
        tip = self.tree.tip()
        return (
            self._engine.branches().keys() == model.branches
            and {name: commit.hex() for name, commit in self._engine.tags().items()} == model.tags
            and len(self._engine.commits()) == model.commits
            and (tip.hex() if tip else "") == model.tip
        )


def parts(path: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in path.split("/")) if path else ()


class ByCheckout:
    """A client that knows datasets and their samples only, as most users of the Python API do."""

    def __init__(self, checkout: WriterCheckout) -> None:
        self._checkout = checkout

    @property
    def _images(self) -> object:
        return self._checkout.datasets["images"]

    def write(self, path: str, data: bytes) -> None:
        self._images[Path(path).stem] = np.load(io.BytesIO(data))

    def remove(self, path: str) -> None:
        del self._images[Path(path).stem]

    def commit(self) -> str:
        return self._checkout.commit("by a checkout")

    def samples(self) -> dict[str, bytes]:
        return {f"images/{key}.npy": npy(array) for key, array in self._images.items()}


Client = ByMount | ByEngine | ByCheckout


# What the clients do


WEIGHTS = {
    "write": 5, "rewrite": 2, "append": 2, "truncate": 2, "chmod": 2, "utime": 2, "remove": 2, "rename": 3,
    "exchange": 1, "mkdir": 3, "rmdir": 1, "remove_tree": 0.5, "symlink": 2, "commit": 1.5, "branch": 0.5,
    "unbranch": 0.5, "tag": 0.5, "untag": 0.5,
}  # fmt: skip
"""The calls, and how often each is made."""


@dataclass
class Op:
    """One call: its names, which of them have a new time by it, and what else follows from it."""

    what: str
    path: str = ""
    other: str = ""
    touched: tuple[str, ...] = ()
    own: bool = False
    """Whether it changes contents of a file in its place, for those who have it open in the same mount."""
    moves: bool = False
    """Whether another directory may stand under a name now."""


class Hand:
    """Chooses a call that POSIX allows, makes a client do it, and the model too."""

    def __init__(self, rng: random.Random, model: Model) -> None:
        self._rng = rng
        self._model = model
        self._serial = 0

    def act(self, client: Client) -> Op:
        """One call by `client`, whatever the model allows."""
        kinds = ["write", "remove", "commit"] if isinstance(client, ByCheckout) else list(WEIGHTS)
        weights = None if isinstance(client, ByCheckout) else list(WEIGHTS.values())
        while True:
            what = self._rng.choices(kinds, weights)[0]
            op: Op | None = getattr(self, f"_{what}")(client)
            if op is not None:
                return op

    def _pick(self, paths: list[str]) -> str | None:
        return self._rng.choice(paths) if paths else None

    def _fresh(self, size: int) -> bytes:
        """Contents that were never there before."""
        self._serial += 1
        return (b"%08d" % self._serial)[-size:] + self._rng.randbytes(max(0, size - 8))

    def _sample(self) -> bytes:
        self._serial += 1
        return npy(np.full(SHAPE, self._serial, dtype="<f8") + np.arange(SHAPE[1]))

    def _has_place(self, path: str) -> bool:
        return self._model.kind(parent(path)) == "dir"

    def _write(self, client: Client) -> Op | None:
        path = self._rng.choice(SAMPLES if isinstance(client, ByCheckout) else FILES + SAMPLES)
        if not self._has_place(path) or self._model.kind(path) not in ("", "file"):
            return None
        data = self._sample() if is_sample(path) else self._fresh(self._rng.choice([8, 5000, 200_000]))
        client.write(path, data)
        if path in self._model.items:
            self._model.items[path].data = data
            return Op("write", path, touched=(path,), own=True)
        self._model.items[path] = Item("file", 0o644, data=data)
        return Op("write", path, touched=(path, parent(path)))

    def _rewrite(self, client: ByMount | ByEngine) -> Op | None:
        """Other contents of the same size, with the time of those before."""
        path = self._pick([path for path in self._model.all("file") if self._model.items[path].data])
        if path is None:
            return None
        item = self._model.items[path]
        item.data = self._sample() if is_sample(path) else self._fresh(len(item.data))
        client.rewrite(path, item.data, item.mtime)
        return Op("rewrite", path, own=True)

    def _plain(self) -> str | None:
        return self._pick([path for path in self._model.all("file") if not is_sample(path)])

    def _append(self, client: ByMount | ByEngine) -> Op | None:
        if (path := self._plain()) is None:
            return None
        data = self._fresh(self._rng.choice([8, 3000]))
        client.append(path, data)
        self._model.items[path].data += data
        return Op("append", path, touched=(path,), own=True)

    def _truncate(self, client: ByMount | ByEngine) -> Op | None:
        if (path := self._plain()) is None:
            return None
        item = self._model.items[path]
        size = self._rng.choice([n for n in (0, 3, len(item.data) // 2, len(item.data) + 1000) if n != len(item.data)])
        client.truncate(path, size)
        item.data = item.data[:size].ljust(size, b"\0")
        return Op("truncate", path, touched=(path,), own=True)

    def _chmod(self, client: ByMount | ByEngine) -> Op | None:
        path = self._rng.choice([path for path, item in self._model.items.items() if item.kind != "link"])
        item = self._model.items[path]
        item.mode = self._rng.choice([mode for mode in MODES[item.kind] if mode != item.mode])
        client.chmod(path, item.mode)
        return Op("chmod", path)

    def _utime(self, client: ByMount | ByEngine) -> Op | None:
        path = self._rng.choice(list(self._model.items))
        self._model.items[path].mtime = self._rng.randrange(10**18, 2 * 10**18)
        client.utime(path, self._model.items[path].mtime)
        return Op("utime", path)

    def _remove(self, client: Client) -> Op | None:
        samples = [path for path in SAMPLES if path in self._model.items]
        others = [] if isinstance(client, ByCheckout) else self._model.all("file") + self._model.all("link")
        path = self._pick(samples + others)
        if path is None:
            return None
        client.remove(path)
        del self._model.items[path]
        return Op("remove", path, touched=(parent(path),))

    def _rename(self, client: ByMount | ByEngine) -> Op | None:
        old = self._rng.choice(list(self._model.items))
        new = self._rng.choice(sorted(self._model.ever))
        if "" in (old, new) or "images" in (old, new) or new == old or new.startswith(f"{old}/"):
            return None
        if not self._has_place(new) or (is_sample(new) and not is_sample(old)) or not self._may_replace(old, new):
            return None
        client.rename(old, new)
        self._model.take(new)
        self._model.give(new, self._model.take(old))
        moves = self._model.kind(new) == "dir"
        return Op("rename", old, new, touched=(parent(old), parent(new)), moves=moves)

    def _may_replace(self, old: str, new: str) -> bool:
        if self._model.kind(old) == "dir":
            return self._model.kind(new) in ("", "dir") and not self._model.below(new)
        return self._model.kind(new) != "dir"

    def _exchange(self, client: ByMount | ByEngine) -> Op | None:
        one, other = self._rng.choices([path for path in self._model.items if not path.startswith("images")], k=2)
        if "" in (one, other) or other == one or f"{one}/".startswith(f"{other}/") or other.startswith(f"{one}/"):
            return None
        client.exchange(one, other)
        first, second = self._model.take(one), self._model.take(other)
        self._model.give(one, second)
        self._model.give(other, first)
        return Op("exchange", one, other, touched=(parent(one), parent(other)))

    def _mkdir(self, client: ByMount | ByEngine) -> Op | None:
        path = self._rng.choice(FOLDERS)
        if not self._has_place(path) or path in self._model.items:
            return None
        client.mkdir(path)
        self._model.items[path] = Item("dir", 0o755)
        return Op("mkdir", path, touched=(path, parent(path)), moves=True)

    def _folder(self) -> str | None:
        return self._pick([path for path in self._model.all("dir") if path not in ("", "images")])

    def _rmdir(self, client: ByMount | ByEngine) -> Op | None:
        path = self._folder()
        if path is None or self._model.below(path):
            return None
        client.rmdir(path)
        self._model.take(path)
        return Op("rmdir", path, touched=(parent(path),), moves=True)

    def _remove_tree(self, client: ByMount | ByEngine) -> Op | None:
        if (path := self._folder()) is None:
            return None
        client.remove_tree(path)
        self._model.take(path)
        return Op("remove_tree", path, touched=(parent(path),), moves=True)

    def _symlink(self, client: ByMount | ByEngine) -> Op | None:
        path = self._rng.choice(FILES)
        if not self._has_place(path) or path in self._model.items:
            return None
        self._serial += 1
        target = self._rng.choice(["nowhere/%d", "/absolute/%d", "x/" * 300 + "%d"]) % self._serial
        client.symlink(path, target)
        self._model.items[path] = Item("link", 0o777, target=target)
        return Op("symlink", path, touched=(path, parent(path)))

    def _commit(self, client: Client) -> Op | None:
        try:
            self._model.tip = client.commit()
        except NothingToCommit:
            return None
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return None
        self._model.commits += 1
        return Op("commit")

    def _branch(self, client: ByMount | ByEngine) -> Op | None:
        name = self._rng.choice("xy")
        if name in self._model.branches:
            return None
        client.branch(name)
        self._model.branches.add(name)
        return Op("branch", name)

    def _unbranch(self, client: ByMount | ByEngine) -> Op | None:
        name = self._pick(sorted(self._model.branches - {"main"}))
        if name is None:
            return None
        client.unbranch(name)
        self._model.branches.remove(name)
        return Op("unbranch", name)

    def _tag(self, client: ByMount | ByEngine) -> Op | None:
        name = self._rng.choice("tu")
        if name in self._model.tags or not self._model.tip:
            return None
        client.tag(name, self._model.tip)
        self._model.tags[name] = self._model.tip
        return Op("tag", name)

    def _untag(self, client: ByMount | ByEngine) -> Op | None:
        name = self._pick(sorted(self._model.tags))
        if name is None:
            return None
        client.untag(name)
        del self._model.tags[name]
        return Op("untag", name)


# What was open


@dataclass
class Held:
    """An open file: what it must go on showing, and whether the name it was opened by still leads to it."""

    descriptor: int
    path: str
    data: bytes
    attached: bool = True

    def check(self, told: str) -> None:
        size = os.fstat(self.descriptor).st_size
        found = os.pread(self.descriptor, len(self.data) + 1, 0)
        assert (size, found == self.data) == (len(self.data), True), f"{self.path}, {self.attached=}: {told}"


class Holder:
    """Keeps files open in one mount. Changes made in place through that mount show in them, all others never do."""

    def __init__(self, rng: random.Random, mount: ByMount) -> None:
        self._rng = rng
        self._mount = mount
        self._held: list[Held] = []

    def open_some(self, model: Model) -> None:
        """Open a file, closing another where there are too many: most are held for many calls by everybody."""
        files = model.all("file")
        if not files:
            return
        if len(self._held) == HELD:
            os.close(self._held.pop(self._rng.randrange(HELD)).descriptor)
        path = self._rng.choice(files)
        descriptor = os.open(self._mount.root / path, os.O_RDONLY)
        self._held.append(Held(descriptor, path, model.items[path].data))

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop().descriptor)

    def check(self, told: str) -> None:
        for held in self._held:
            held.check(told)

    def follow(self, op: Op, mine: bool, model: Model) -> None:
        """Take in what a call means for what is open here; `mine` tells that it was made through this mount."""
        for held in [held for held in self._held if held.attached]:
            if op.own and held.path == op.path:
                held.attached = mine
                held.data = model.items[op.path].data if mine else held.data
            elif op.what in ("remove", "remove_tree", "rmdir"):
                held.attached = not is_at(held.path, op.path)
            elif op.what in ("rename", "exchange"):
                self._moved(held, op, mine)

    @staticmethod
    def _moved(held: Held, op: Op, mine: bool) -> None:
        for old, new in ((op.path, op.other), (op.other, op.path)):
            if is_at(held.path, old):
                held.attached = mine and (op.what == "exchange" or old == op.path)
                held.path = new + held.path[len(old) :]
                return


def is_at(path: str, place: str) -> bool:
    """Whether `path` is `place` or below it."""
    return path == place or path.startswith(f"{place}/")


# Looking


def looks(client: Client, model: Model) -> list[Callable[[], bool]]:
    """Questions to a client, in an order in which none makes the answer to a later one come about.

    Attributes by name come first: a listing brings fresh ones along, and opening a file makes a mount look for itself.
    """
    if isinstance(client, ByCheckout):
        wanted = {path: item.data for path, item in model.items.items() if is_sample(path)}
        return [lambda: client.samples() == wanted]
    return [
        lambda: all(client.lstat(path) == model.seen(path) for path in model.ever),
        lambda: client.refs(model),
        lambda: all(client.names(folder) == model.names(folder) for folder in model.all("dir")),
        lambda: all(client.read(path) == model.items[path].data for path in model.all("file")),
    ]


def differences(client: Client, model: Model) -> str:
    """What a client shows otherwise, for whoever reads that a test failed."""
    if isinstance(client, ByCheckout):
        return f"samples {sorted(client.samples())}"
    pairs = [(path, client.lstat(path), model.seen(path)) for path in sorted(model.ever)]
    told = [f"{path}: {found}, not {wanted}" for path, found, wanted in pairs if found != wanted]
    try:
        told += [f"listing of {folder!r}" for folder in model.all("dir") if client.names(folder) != model.names(folder)]
        told += [f"contents of {path}" for path in model.all("file") if client.read(path) != model.items[path].data]
    except (ArborError, OSError) as error:
        told.append(repr(error))
    return "; ".join(told) or f"refs, or what is right by now: {model.tip=} {model.branches=} {model.tags=}"


@dataclass
class Waiting:
    """A client that has not seen everything yet: the questions whose answers are still to become right."""

    client: Client
    left: list[Callable[[], bool]]

    def look(self) -> bool:
        while self.left and self.left[0]():
            del self.left[0]
        return not self.left


def seen_by(clients: dict[str, Client], model: Model, since: float, told: str) -> dict[str, float]:
    """Seconds after `since` when each client had seen what the model holds; all of them are asked in turn."""
    waiting = {name: Waiting(client, looks(client, model)) for name, client in clients.items()}
    delays: dict[str, float] = {}
    while True:
        for name in [name for name, one in waiting.items() if one.look()]:
            delays[name] = time.monotonic() - since
            del waiting[name]
        if not waiting:
            return delays
        if time.monotonic() > since + LOST:
            late = {name: differences(one.client, model) for name, one in waiting.items()}
            pytest.fail(f"{late}\nafter {told}")
        time.sleep(PAUSE)


# The test


class Play:
    """One random run: the clients, the model, what is open, what was told and how long it took to be seen."""

    def __init__(self, seed: int, mounts: dict[str, ByMount], engine: ByEngine, checkout: ByCheckout) -> None:
        self.rng = random.Random(seed)
        self.model = Model()
        self.mounts = mounts
        self.engine = engine
        self.clients: dict[str, Client] = {**mounts, "engine": engine, "checkout": checkout}
        self.holders = {name: Holder(self.rng, mount) for name, mount in mounts.items()}
        self.hand = Hand(self.rng, self.model)
        self.frozen: dict[str, Model] = {}
        self.delays: dict[str, list[float]] = defaultdict(list)
        self._told = [f"seed {seed}"]

    @property
    def told(self) -> str:
        return "; ".join([self._told[0], *self._told[1:][-12:]])

    def begin(self) -> None:
        """The branch as it is before the first call: an empty dataset."""
        self.model.items["images"] = Item("dir", 0o755)
        for path in ("", "images"):
            self.model.items[path].mtime = self.engine.mtime(path)
        seen_by(self.clients, self.model, time.monotonic(), self.told)

    def step(self) -> None:
        """One to three calls by one client, seen by itself at once and by the others soon."""
        who = self.rng.choice(list(self.clients))
        for holder in self.holders.values():
            holder.open_some(self.model)
        ops = [self._act(who) for _ in range(self.rng.choice([1, 1, 1, 2, 3]))]
        since = time.monotonic()
        self._check_open()
        early = self._opened_at_once(who, ops[0]) if len(ops) == 1 else ""
        at_once = {name: self.clients[name] for name in {who, "engine", "checkout"}}
        for name, client in at_once.items():
            assert Waiting(client, looks(client, self.model)).look(), (
                f"{name}: {differences(client, self.model)}\nafter {self.told}"
            )
        others = {name: client for name, client in self.clients.items() if name not in at_once}
        delays = seen_by(others, self.model, since, self.told)
        for delay in [delay for name, delay in delays.items() if name != early]:
            self.delays[ops[-1].what].append(delay)
        self._check_open()

    def _act(self, who: str) -> Op:
        before = time.time_ns()
        op = self.hand.act(self.clients[who])
        after = time.time_ns()
        self._told.append(f"{op.what} {op.path} {op.other} by {who}")
        self._stamp(op, before, after)
        for name, holder in self.holders.items():
            holder.follow(op, name == who, self.model)
        if op.what == "commit":
            self._freeze()
        return op

    def _stamp(self, op: Op, before: int, after: int) -> None:
        """Learn the times that a call gave: they lie within it."""
        for path in op.touched:
            found = self.engine.mtime(path)
            assert before <= found <= after, f"{path} has a time {found - before} ns after the call: {self.told}"
            self.model.items[path].mtime = found

    def _freeze(self) -> None:
        """A commit is found whole by its name as soon as there is one."""
        assert not self.engine.tree.is_dirty(), self.told
        self.frozen[self.model.tip] = copy.deepcopy(self.model)
        self.check_commit(self.model.tip, self.rng.choice(list(self.mounts)))

    def check_commit(self, commit: str, name: str) -> None:
        """A commit shows in a mount what the working tree held when it was made."""
        model, top = self.frozen[commit], self.mounts[name].top
        client = ByMount(top / "commits" / commit, top)
        attributes, _, listings, contents = looks(client, model)
        assert attributes() and listings() and contents(), (
            f"{differences(client, model)}\nof a commit after {self.told}"
        )

    def _opened_at_once(self, who: str, op: Op) -> str:
        """Now and then open what was changed in another mount, at once: that is never stale. That mount's name."""
        others = [name for name in self.mounts if name != who]
        if not op.own or self.rng.random() < 0.6:
            return ""
        name = self.rng.choice(others)
        assert self.mounts[name].read(op.path) == self.model.items[op.path].data, f"stale in {name}: {self.told}"
        return name

    def _check_open(self) -> None:
        for name, holder in self.holders.items():
            holder.check(f"open in {name} after {self.told}")

    def end(self) -> None:
        """Every commit is what it was, in every mount; how long changes took to be seen."""
        for commit in self.frozen:
            for name in self.mounts:
                self.check_commit(commit, name)
        print()
        self.delays["all"] = [delay for delays in self.delays.values() for delay in delays]
        for what, delays in self.delays.items():
            middle, most = statistics.median(delays), max(delays)
            print(f"{what:<12} {len(delays):4} seen after {middle * 1e3:4.0f} ms, {most * 1e3:4.0f} ms at most")
        assert statistics.median(self.delays["all"]) < SEEN


@pytest.fixture
def umask() -> Iterator[None]:
    """New files are 644 and new directories 755, as where the API makes them."""
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("umask")
def test_all_clients_see_what_one_model_says(mounted, repository, seed):
    tops = {name: mounted(repository).path for name in ("mount A", "mount B")}
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.open(repository))
        checkout = stack.enter_context(Repository(repository)).checkout(write=True)
        checkout.datasets.init_dataset("images", shape=SHAPE, dtype=np.float64)
        mounts = {name: ByMount(top / "branches" / "main", top) for name, top in tops.items()}
        play = Play(seed, mounts, ByEngine(engine), ByCheckout(checkout))
        for holder in play.holders.values():
            stack.callback(holder.close)
        play.begin()
        for _ in range(STEPS):
            play.step()
        play.end()


def test_a_directorys_time_is_the_same_everywhere(mounted, repository):
    """What is written into a file changes no directory; and the mount that writes shows what the others do."""
    one, other = mounted(repository).main, mounted(repository).main
    (one / "d").mkdir()
    (one / "d" / "f").write_bytes(b"first")
    wait_until(lambda: (other / "d" / "f").exists())
    before = (one / "d").stat().st_mtime_ns
    (one / "d" / "f").write_bytes(b"second, longer")
    wait_until(lambda: (other / "d" / "f").stat().st_size == 14)
    with Engine.open(repository) as engine:
        stored = engine.working_tree("main").entry((b"d",)).mtime
    assert [(one / "d").stat().st_mtime_ns, (other / "d").stat().st_mtime_ns, stored] == [before] * 3


def test_a_new_mode_leaves_a_directorys_time(mounted, repository):
    main = mounted(repository).main
    (main / "d").mkdir()
    (main / "d" / "f").touch()
    before = (main / "d").stat().st_mtime_ns
    (main / "d").chmod(0o700)
    assert (main / "d").stat().st_mtime_ns == before


SIZES = (5, 5000, 200_000)
"""In a row of the index, in a journal, in chunks."""


def test_other_contents_of_the_same_size_and_time_are_seen(mounted, repository):
    """As a restored backup or `cp -p` may leave them."""
    main = mounted(repository).main
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for number, size in product(range(3), SIZES):
            data = b"%d" % number * size
            tree.put_file((b"f%d" % size,), BytesSource(data), mtime=10**18)
            tree.make_file((mark := b"mark %d %d" % (number, size),))
            wait_until(lambda mark=mark: (main / mark.decode()).exists())
            assert (main / f"f{size}").read_bytes() == data


def test_a_time_set_by_others_leaves_what_is_open(mounted, repository):
    """New mode or mtime is the same inode, which can be written on to."""
    main = mounted(repository).main
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for size in SIZES:
            path = main / f"f{size}"
            path.write_bytes(bytes(size))
            with path.open("r+b", buffering=0) as file:
                number = os.fstat(file.fileno()).st_ino
                tree.set_attributes((path.name.encode(),), mtime=10**18)
                wait_until(lambda path=path: path.stat().st_mtime_ns == 10**18)
                assert path.stat().st_ino == number
                file.write(b"more!")
            assert path.read_bytes()[:5] == b"more!"


def swap(tree: WorkingTree, old: bytes, new: bytes) -> None:
    tree.exchange((old,), (new,))


def publish(tree: WorkingTree, old: bytes, new: bytes) -> None:
    tree.rename((old,), (b"kept",))
    tree.rename((new,), (old,))


def replant(tree: WorkingTree, old: bytes, new: bytes) -> None:
    tree.remove_tree((old,))
    tree.make_directory((old,))
    tree.put_file((old, b"f"), BytesSource(b"the new one"))


def test_another_directory_in_its_place(mounted, repository):
    """What another process puts in a directory's place, in one go, is seen with all below it."""
    main = mounted(repository).main
    with Engine.open(repository) as engine:
        for change in (swap, publish, replant):
            old, new = main / f"{change.__name__} old", main / f"{change.__name__} new"
            for folder, data in ((old, b"old"), (new, b"the new one")):
                folder.mkdir()
                (folder / "f").write_bytes(data)
            (old / "gone").touch()
            change(engine.working_tree("main"), old.name.encode(), new.name.encode())
            expect_the_new_one(old)


def expect_the_new_one(folder: Path) -> None:
    wait_until(lambda: not (folder / "gone").exists(), seconds=SOON)
    wait_until(lambda: (folder / "f").stat().st_size == 11, seconds=SOON)
    assert (folder / "f").read_bytes() == b"the new one"
    assert os.listdir(folder) == ["f"]


def test_attributes_of_a_branchs_root_are_seen(mounted, repository):
    main = mounted(repository).main
    main.stat()
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.set_attributes((), mode=0o700)
        wait_until(lambda: main.stat().st_mode & 0o777 == 0o700, seconds=SOON)
        tree.set_attributes((), mtime=10**18)
        wait_until(lambda: main.stat().st_mtime_ns == 10**18, seconds=SOON)


def remake(engine: Engine, new: Digest) -> None:
    engine.remove_branch("remake")
    engine.create_branch("remake", new)


def rename(engine: Engine, new: Digest) -> None:
    engine.create_branch("other", new)
    engine.rename_branch("rename", "old")
    engine.rename_branch("other", "rename")


def test_another_branch_of_the_same_name(mounted, repository):
    """What another process puts in a branch's place, in one go, is seen with all below it."""
    top = mounted(repository).path
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.make_directory((b"d",))
        for change in (remake, rename):
            tree.put_file((b"d", b"f"), BytesSource(b"old"))
            tree.make_file((b"d", b"gone"))
            engine.create_branch(change.__name__, tree.commit("the old one"))
            inside = top / "branches" / change.__name__ / "d"
            assert ((inside / "f").read_bytes(), (inside / "gone").exists()) == (b"old", True)
            tree.put_file((b"d", b"f"), BytesSource(b"the new one"))
            tree.remove((b"d", b"gone"))
            change(engine, tree.commit("the new one"))
            expect_the_new_one(inside)
