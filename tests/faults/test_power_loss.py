"""Power loss: whatever was synced is there, byte for byte; everything else is whole, as it was before, or absent.

A script of writes, syncs, commits and changes of refs runs once, over several openings of one repository. After every
system call that changes a file or a name, states that a power loss may leave at that moment are drawn; each is opened
as after a boot, and held against what had been promised by then.
"""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from storage.engine import Engine
from storage.errors import NotARepository
from storage.home import State as IndexState
from storage.maintenance.verify import verify
from storage.metadata import Metadata
from storage.model.digest import Digest
from storage.model.records import Attributes, Schema
from storage.model.samples import BytesSource, canonical_header
from storage.session import Session
from storage.snapshot import Snapshot
from storage.working import WorkingReader
from tests.conftest import ADA
from tests.faults.power import MOODS, PAGE, Disk, State, materialised, rebooted, recorded
from tests.faults.processes import elsewhere

STATES_EACH = 34
HOME = Path("repository", ".arborfs")
SCHEMA = Schema("array", "<i4", (2,), uuid="d", hash="h")

Thing = tuple[bytes | None, int | None, tuple[tuple[bytes, bytes], ...], Schema | None]
"""What lies at a path: contents (None for a directory), mode, extended attributes, schema."""
Tree = dict[tuple[str, ...], Thing]
"""What lies where. The branch comes first, and alone it is the branch's root."""
NOTHING: Thing = (b"nothing is there", None, (), None)
FOLDER: Thing = (None, None, (), None)


def file(data: bytes) -> Thing:
    """An ordinary file."""
    return data, None, (), None


@dataclass(frozen=True)
class Refs:
    """Branches and tags with the messages of their commits, and the default branch."""

    branches: dict[str, str | None]
    tags: dict[str, str]
    head: str


@dataclass
class Promise:
    """What has been acknowledged: trees in the order of the calls, and which of them is safe; refs, which all are."""

    trees: list[Tree] = field(default_factory=lambda: [{("main",): FOLDER}])
    safe: int = 0
    refs: Refs = field(default_factory=lambda: Refs({"main": None}, {}, "main"))
    trying: tuple[Refs, Callable[[Tree], Tree]] | None = None
    """A change of refs that is under way, and what it makes of the trees."""
    commits: dict[str, Tree] = field(default_factory=dict)
    """By message, and entered before the commit is made: there may be one, and if so this is what it holds."""
    renames: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    """Renames since the safe tree. Of what is safe, the one name is there, or the other."""
    in_order: bool = True
    """Whether no record of a file can be missing while a later one is there: only then are renames whole."""

    def allowed(self, path: tuple[str, ...], trees: list[Tree]) -> list[Thing]:
        """What may be found at a path: anything that was there since what is safe.

        Where a rename may be missing and what came after it not, that is found below the old name.
        """
        names = {path}
        for old, new in self.renames if not self.in_order else ():
            names |= {(*old, *name[len(new) :]) for name in names if name[: len(new)] == new}
            names |= {(*new, *name[len(old) :]) for name in names if name[: len(old)] == old}
        return [tree.get(name, NOTHING) for tree in trees for name in names]

    def make_safe(self) -> None:
        self.trees, self.safe, self.renames = self.trees[-1:], 0, []


@dataclass
class Script:
    """Does things to a repository and keeps the promise; what is safe only counts once a call has returned."""

    path: Path
    engine: Engine
    promise: Promise
    opening: Callable[[], AbstractContextManager[object]] = nullcontext
    """What to do while it is opened."""

    def _change(self, edit: Callable[[Tree], object], call: Callable[[], object]) -> None:
        tree = dict(self.promise.trees[-1])
        edit(tree)
        self.promise.trees.append(tree)
        call()

    def put(self, path: str, data: bytes, branch: str = "main") -> None:
        parts, work = tuple(path.split("/")), self.engine.working_tree(branch)
        self._change(
            lambda t: t.update({(branch, *parts): (data, *t.get((branch, *parts), NOTHING)[1:])}),
            lambda: work.put_file(_names(parts), BytesSource(data)),
        )

    def make(self, path: str, schema: Schema | None = None) -> None:
        parts, work = tuple(path.split("/")), self.engine.working_tree("main")
        self._change(
            lambda t: t.update({("main", *parts): (*FOLDER[:3], schema)}),
            lambda: work.make_directory(_names(parts), attributes=Attributes(schema=schema)),
        )

    def put_sample(self, dataset: str, name: str, first: int) -> None:
        data = first.to_bytes(4, "little") * 2
        self.put(f"{dataset}/{name}.npy", canonical_header("<i4", (2,)) + data)

    def set_attributes(self, path: str, mode: int, value: bytes) -> None:
        parts, work = tuple(path.split("/") if path else ()), self.engine.working_tree("main")

        def edit(tree: Tree) -> None:
            data, _, _, schema = tree[("main", *parts)]
            tree[("main", *parts)] = (data, mode, ((b"user.x", value),), schema)

        self._change(edit, lambda: work.set_attributes(_names(parts), mode=mode, xattrs={b"user.x": value}))

    def set_metadata(self, key: str, text: str) -> None:
        folder, work = ("main", ".arborfs", "metadata"), self.engine.working_tree("main")
        for path in (folder[:2], folder):
            if path not in self.promise.trees[-1]:
                self.make("/".join(path[1:]))
        self._change(
            lambda t: t.update({(*folder, key): file(text.encode())}),
            lambda: Metadata(Session(work)).add(key, text),
        )

    def remove(self, path: str) -> None:
        parts, work = tuple(path.split("/")), self.engine.working_tree("main")
        self._change(lambda t: _take(t, ("main", *parts)), lambda: work.remove_tree(_names(parts)))

    def rename(self, old: str, new: str) -> None:
        one, other = tuple(old.split("/")), tuple(new.split("/"))
        work = self.engine.working_tree("main")

        def edit(tree: Tree) -> None:
            moved = _take(tree, ("main", *one))
            _take(tree, ("main", *other))
            tree.update({("main", *other, *path): thing for path, thing in moved.items()})

        self.promise.renames.append((("main", *one), ("main", *other)))
        self._change(edit, lambda: work.rename(_names(one), _names(other)))

    def sync(self) -> None:
        self.engine.sync()
        self.promise.make_safe()

    def reopen(self) -> None:
        """Close in good order, which syncs, and open again."""
        self.engine.close()
        self.promise.make_safe()
        self.open()

    def open(self) -> None:
        with self.opening():
            self.engine = Engine.open(self.path)
        self.engine._syncer.stop()  # only the script syncs

    def open_without_index(self) -> None:
        """Close; somebody deletes the index; open again."""
        self.engine.close()
        self.promise.make_safe()
        shutil.rmtree(self.path / ".arborfs" / "index")
        self.open()
        assert self.engine.rebuilt

    def _change_refs(self, after: Refs, edit: Callable[[Tree], Tree], call: Callable[[], object]) -> None:
        self.promise.trying = (after, edit)
        call()
        self.promise.trying = None
        self.promise.refs = after
        self.promise.trees = [edit(tree) for tree in self.promise.trees]

    def commit(self, branch: str = "main") -> None:
        refs, message = self.promise.refs, f"commit {len(self.promise.commits)}"
        tree = self.promise.trees[-1]
        self.promise.commits[message] = {path[1:]: thing for path, thing in tree.items() if path[0] == branch}
        self._change_refs(
            Refs({**refs.branches, branch: message}, refs.tags, refs.head),
            lambda tree: tree,
            lambda: self.engine.working_tree(branch).commit(message),
        )
        self.promise.make_safe()

    def _tip(self, branch: str) -> Digest:
        tip = self.engine.branches()[branch]
        assert tip is not None
        return tip

    def tag(self, name: str, branch: str = "main") -> None:
        refs, tip = self.promise.refs, self._tip(branch)
        tags = {**refs.tags, name: refs.branches[branch]}
        self._change_refs(
            Refs(refs.branches, tags, refs.head), lambda tree: tree, lambda: self.engine.create_tag(name, tip)
        )

    def untag(self, name: str) -> None:
        refs = self.promise.refs
        tags = {other: message for other, message in refs.tags.items() if other != name}
        self._change_refs(Refs(refs.branches, tags, refs.head), lambda tree: tree, lambda: self.engine.remove_tag(name))

    def branch(self, name: str) -> None:
        refs = self.promise.refs
        message = refs.branches["main"]
        made = {(name, *path): thing for path, thing in self.promise.commits[message].items()}
        self._change_refs(
            Refs({**refs.branches, name: message}, refs.tags, refs.head),
            lambda tree: {**tree, **made},
            lambda: self.engine.create_branch(name, self._tip("main")),
        )

    def merge(self, name: str, brought: str) -> None:
        """Merge a branch whose only new entry is `brought` into main, which has something of its own."""
        refs, message, tip = self.promise.refs, f"commit {len(self.promise.commits)}", self._tip(name)

        def edit(tree: Tree) -> Tree:
            return {**tree, ("main", brought): tree[name, brought]}

        merged = edit(self.promise.trees[-1])
        self.promise.commits[message] = {path[1:]: thing for path, thing in merged.items() if path[0] == "main"}
        self._change_refs(
            Refs({**refs.branches, "main": message}, refs.tags, refs.head),
            edit,
            lambda: self.engine.merging("main").merge(tip, message),
        )
        self.promise.make_safe()

    def rename_branch(self, old: str, new: str) -> None:
        refs = self.promise.refs
        after = {new if name == old else name: message for name, message in refs.branches.items()}
        self._change_refs(
            Refs(after, refs.tags, new if refs.head == old else refs.head),
            lambda tree: {(new if path[0] == old else path[0], *path[1:]): thing for path, thing in tree.items()},
            lambda: self.engine.rename_branch(old, new),
        )

    def remove_branch(self, name: str) -> None:
        refs = self.promise.refs
        after = {other: message for other, message in refs.branches.items() if other != name}
        self._change_refs(
            Refs(after, refs.tags, refs.head),
            lambda tree: {path: thing for path, thing in tree.items() if path[0] != name},
            lambda: self.engine.remove_branch(name, force=True),
        )

    def undo_commit(self) -> None:
        """Take back the last commit of main: what it took is staged again, and no file changes."""
        refs, parents = self.promise.refs, self.engine.commit_record(self._tip("main")).parents
        before = self.engine.commit_record(parents[0]).message
        after = Refs({**refs.branches, "main": before}, refs.tags, refs.head)
        self._change_refs(after, lambda tree: tree, lambda: self.engine.undo())
        self.promise.make_safe()

    def reset_and_undo(self) -> None:
        """Move main one commit back, drop what is staged there, and bring both back."""
        refs, staged = self.promise.refs, dict(self.promise.trees[-1])
        target = self.engine.commit_record(self._tip("main")).parents[0]
        message = self.engine.commit_record(target).message
        others = {path: thing for path, thing in staged.items() if path[0] != "main"}
        committed = {("main", *path): thing for path, thing in self.promise.commits[message].items()}
        after = Refs({**refs.branches, "main": message}, refs.tags, refs.head)
        self._change_refs(after, lambda tree: others | committed, lambda: self.engine.reset_hard("main", target))
        self.promise.make_safe()
        self._change_refs(refs, lambda tree: dict(staged), lambda: self.engine.undo())
        self.promise.make_safe()

    def set_head(self, name: str) -> None:
        refs = self.promise.refs
        self._change_refs(Refs(refs.branches, refs.tags, name), lambda tree: tree, lambda: self.engine.set_head(name))


def _names(parts: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in parts)


def _take(tree: Tree, top: tuple[str, ...]) -> Tree:
    """Take what lies at `top` and below it out of a tree."""
    taken = {path[len(top) :]: thing for path, thing in tree.items() if path[: len(top)] == top}
    for path in taken:
        del tree[(*top, *path)]
    return taken


def run(script: Script, rng: random.Random) -> None:
    """Everything that changes a repository: small and large files, names, attributes, commits, branches, a merge, tags."""
    script.make("d")
    script.put("d/small", b"one")
    script.put("large", rng.randbytes(200_000))
    script.sync()
    for number in range(5):
        script.put(f"d/{number}", rng.randbytes(200 * number))
    script.put("d/small", b"two")
    script.commit()
    script.tag("first")
    script.set_attributes("d/small", 0o600, b"v")
    script.remove("d/3")
    script.rename("d/4", "moved")
    script.reopen()
    script.put("large", rng.randbytes(150_000))
    script.rename("d", "e")
    script.put("e/small", b"four")
    script.commit()
    script.branch("other")
    script.put("elsewhere", b"on the other branch", "other")
    script.make("numbers", SCHEMA)
    script.put_sample("numbers", "0", 7)
    script.rename_branch("other", "another")
    script.commit("another")
    script.reopen()
    script.set_metadata("about", "numbers")
    script.set_attributes("numbers", 0o700, b"a dataset")
    script.put_sample("numbers", "1", 8)
    script.sync()
    script.put_sample("numbers", "0", 9)
    script.rename("numbers", "figures")
    script.set_attributes("", 0o750, b"the root")
    script.commit()
    script.merge("another", "elsewhere")
    script.open_without_index()
    script.tag("second")
    script.untag("first")
    script.set_metadata("about", "figures")
    script.set_head("another")
    script.remove("e")
    script.put("last", b"staged", "another")
    script.reopen()
    script.rename("large", "moved")
    script.branch("third")
    script.remove_branch("another") if script.promise.refs.head != "another" else script.set_head("main")
    script.remove_branch("another")
    script.commit()
    script.undo_commit()
    script.put("again", b"staged over the commit that was taken back")
    script.reset_and_undo()
    script.put("end", b"staged and never synced")


def found(tree: WorkingReader | Snapshot, path: tuple[bytes, ...] = ()) -> Iterator[tuple[tuple[str, ...], Thing]]:
    """Everything that a tree holds, its root included."""
    entry = tree.entry(path)
    kept = (entry.attributes.mode, entry.attributes.xattrs, entry.attributes.schema)
    text = tuple(part.decode() for part in path)
    if entry.is_directory:
        yield text, (None, *kept)
        for name, _ in tree.entries(path):
            yield from found(tree, (*path, name))
    else:
        content = tree.open(path)[1]
        yield text, (bytes(content.read(0, content.size)), *kept)


def message_of(engine: Engine, digest: Digest | None) -> str | None:
    """The message of a commit."""
    return None if digest is None else engine.commit_record(digest).message


def refs_of(engine: Engine) -> Refs:
    """The refs as they are."""
    branches = {name: message_of(engine, tip) for name, tip in engine.branches().items()}
    return Refs(branches, {name: str(message_of(engine, at)) for name, at in engine.tags().items()}, engine.head())


def check(engine: Engine, promise: Promise) -> None:
    """A repository after a power loss and a boot: is everything there that was promised?"""
    refs, trees = refs_of(engine), promise.trees
    if promise.trying is not None and refs == promise.trying[0]:
        trees = [promise.trying[1](tree) for tree in trees]
    else:
        assert refs == promise.refs
    there: Tree = {}
    for branch in refs.branches:
        there.update({(branch, *name): thing for name, thing in found(engine.working_tree(branch))})
    for path in there.keys() | {path for tree in trees for path in tree}:
        assert there.get(path, NOTHING) in promise.allowed(path, trees), path
    for old, new in promise.renames:
        if promise.in_order and old[0] in refs.branches and old in trees[0] and new not in trees[0]:
            assert (old in there) != (new in there), f"{old} renamed to {new}: both are there, or none"
    check_commits(engine, promise)
    assert verify(engine) == []
    work = engine.working_tree(refs.head)
    work.put_file((b"after",), BytesSource(b"the power came back"))
    assert engine.snapshot(work.commit("after")).entry((b"after",)).size == 19


def check_commits(engine: Engine, promise: Promise) -> None:
    """Every commit that is there holds what it should, and there is none that was never tried."""
    for digest in engine.commits():
        message = str(message_of(engine, digest))
        assert dict(found(engine.snapshot(digest))) == promise.commits[message], message


def is_clean(path: Path) -> bool:
    """Whether the index may be trusted after a boot."""
    try:
        return msgspec.json.decode((path / HOME / "state.json").read_bytes(), type=IndexState).clean
    except (OSError, msgspec.MsgspecError):
        return False


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: thousands of repositories are opened, and nothing here depends on the disk."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None, prefix="arborfs-power-"
    ) as name:
        (Path(name) / "disk").mkdir()
        yield Path(name)


class Losses:
    """Loses power again and again, `each` times after every call, and looks at what is left."""

    def __init__(self, memory: Path, disk: Disk, seed: int, look: Callable[[Path, bool], object], each: int) -> None:
        self._left, self._disk, self._look, self._each = memory / "left", disk, look, each
        self._rng = random.Random(seed)
        self.seen: Counter[str] = Counter()
        disk.on_change = self.lose_power

    @contextmanager
    def none(self) -> Iterator[None]:
        """No power is lost meanwhile."""
        self._disk.on_change = lambda: None
        yield
        self._disk.on_change = self.lose_power

    def lose_power(self) -> None:
        drawn: list[State] = []
        for _ in range(self._each):
            moods = self._rng.choice(MOODS), self._rng.choice(MOODS)
            state = self._disk.left(moods, self._rng)
            if state in drawn:
                continue
            drawn.append(state)
            self._left.mkdir()
            materialised(state, self._left)
            self.seen["states"] += 1
            self.seen["with an index"] += str(HOME / "index" / "data.mdb") in state
            self.seen["clean"] += is_clean(self._left)
            with rebooted():
                try:
                    self._look(self._left, moods[1] != "some")
                except Exception as error:
                    self._disk.on_change = lambda: None  # what is undone on the way out is of no interest
                    raise AssertionError(f"state {self.seen['states']}: {error}") from error
            shutil.rmtree(self._left)


def opened(left: Path) -> Engine:
    """A repository opened as after a boot: an index that may be wrong is not trusted."""
    clean = is_clean(left)
    engine = Engine.open(left / "repository")
    assert clean or engine.rebuilt, "an index that was not closed in good order was trusted"
    return engine


SEED = int(os.environ.get("POWER_SEED", "1"))


def test_whatever_a_power_loss_leaves_keeps_the_promises(memory):
    print(f"seed {SEED}")
    repository, promise = memory / "disk" / "repository", Promise()
    Engine.create(repository, ADA).close()

    def look(left: Path, in_order: bool) -> None:
        promise.in_order = in_order
        with opened(left) as engine:
            losses.seen["trusted"] += not engine.rebuilt
            check(engine, promise)

    with recorded(memory / "disk") as disk:
        losses = Losses(memory, disk, SEED, look, STATES_EACH)
        script = Script(repository, None, promise, losses.none)
        script.open()
        run(script, random.Random(SEED))
        disk.on_change = lambda: None
        script.engine.close()
    print(dict(losses.seen))
    assert losses.seen["states"] >= 2000
    assert losses.seen["with an index"] >= 500
    assert losses.seen["trusted"] >= 5
    assert disk.elsewhere == set()


def script_without_refs(path: Path) -> tuple[Script, Promise]:
    """A repository with a commit and staged work, closed in good order, and what is promised of it."""
    promise = Promise()
    script = Script(path, Engine.open(path), promise)
    for number in range(30):
        script.put(f"{number}", b"committed %d" % number * 20)
    script.commit()
    script.put("3", b"staged")
    script.remove("4")
    script.make("d")
    script.rename("5", "d/5")
    script.engine.close()
    promise.make_safe()
    return script, promise


def test_power_lost_while_it_is_opened(memory):
    """An index that was closed in good order is trusted until it says otherwise: so it must be as it was.

    Every mix is tried of the pages that opening changes, with the state.json that is safe when it changes the first one.
    """
    path, left = memory / "disk" / "repository", memory / "left"
    Engine.create(path, ADA).close()
    script, promise = script_without_refs(path)
    tried = 0
    for number in range(12):
        script.open()
        script.put(f"{number}", b"staged again %d" % number)
        if number % 3 == 2:
            script.commit()
        script.engine.close()
        promise.make_safe()
        with_old, with_new, state = _before_and_after_opening(path, memory)
        changed = [at for at in range(0, len(with_old), PAGE) if with_old[at : at + PAGE] != with_new[at : at + PAGE]]
        for kept in subsets(changed):
            mixed = bytearray(with_old)
            for at in kept:
                mixed[at : at + PAGE] = with_new[at : at + PAGE]
            shutil.copytree(path, left)
            (left / ".arborfs" / "index" / "data.mdb").write_bytes(mixed)
            (left / ".arborfs" / "state.json").write_bytes(state)
            # LMDB may end a process that gives it pages which do not belong together.
            told = f"opening {number}, of the changed pages {changed} only {kept} were written"
            assert elsewhere(lambda: _looked_at(left, promise)) is None, told
            shutil.rmtree(left)
            tried += 1
    assert tried >= 100


def _looked_at(left: Path, promise: Promise) -> None:
    with rebooted(), Engine.open(left) as engine:
        check(engine, promise)


def _before_and_after_opening(path: Path, memory: Path) -> tuple[bytes, bytes, bytes]:
    """The index's data file, closed in good order and opened, and what is safe of state.json when it changes."""
    folder = memory / "copy"
    shutil.copytree(path, folder / "repository")
    data = folder / HOME / "index" / "data.mdb"
    before = data.read_bytes()
    states: list[bytes] = []

    def note() -> None:
        if data.read_bytes() != before:
            safe = disk.left(("nothing", "nothing"), random.Random(1))
            states.append(safe[str(HOME / "state.json")] or b"")

    with recorded(folder) as disk:
        disk.on_change = note
        with Engine.open(folder / "repository"):
            note()
            after = data.read_bytes()
            disk.on_change = lambda: None
    shutil.rmtree(folder)
    return before.ljust(len(after), b"\0"), after, states[0]


def subsets(items: list[int]) -> Iterator[tuple[int, ...]]:
    """Every set that can be made of the items."""
    for size in range(len(items) + 1):
        yield from combinations(items, size)


def test_power_lost_while_it_is_made(memory):
    """There is a whole repository, or none, and then it can be made; after that call it is there."""

    def look(left: Path, in_order: bool) -> None:
        try:
            engine = opened(left)
        except NotARepository:
            assert not made
            engine = Engine.create(left / "repository", ADA)
        with engine:
            check(engine, Promise())

    made = False
    with recorded(memory / "disk") as disk:
        losses = Losses(memory, disk, SEED, look, 20)
        engine = Engine.create(memory / "disk" / "repository", ADA)
        disk.settle(memory / "disk")
        disk.settle(memory / "disk" / "repository")
        made = True
        losses.lose_power()
        disk.on_change = lambda: None
        engine.close()
    assert losses.seen["states"] >= 50


def test_what_was_committed_to_a_new_repository_is_there(memory):
    """Also the folders that were made for it."""
    promise = Promise()

    def look(left: Path, in_order: bool) -> None:
        with opened(left) as engine:
            check(engine, promise)

    with recorded(memory / "disk") as disk:
        path = memory / "disk" / "repository"
        script = Script(path, Engine.create(path, ADA), promise)
        script.put("file", b"data")
        script.commit()
        Losses(memory, disk, SEED, look, 20).lose_power()
        disk.on_change = lambda: None
        script.engine.close()


def test_a_rename_is_whole_also_where_the_record_before_it_is_lost(repository):
    """Blocks of a file may be written in any order: the first record behind what is safe may be the one that is lost."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.make_directory((b"d",))
        tree.put_file((b"d", b"other"), BytesSource(b"x"))
        tree.commit("one")
        tree.put_file((b"file",), BytesSource(b"staged and synced"))
        engine.sync()
        journal = max((repository / ".arborfs" / "segments").glob("*.journal"))
        start = journal.stat().st_size
        tree.put_file((b"d", b"new"), BytesSource(b"y"))
        stop = journal.stat().st_size
        tree.rename((b"file",), (b"d", b"file"))
    with journal.open("r+b") as file:
        file.seek(start)
        file.write(bytes(stop - start))
    shutil.rmtree(repository / ".arborfs" / "index")
    with Engine.open(repository) as engine:
        names = {path for path, _ in found(engine.working_tree("main"))}
        assert (("file",) in names) != (("d", "file") in names)


@contextmanager
def killed(path: Path) -> Iterator[Script]:
    """A repository in which somebody does things and is killed: nothing is closed in good order."""
    copy = path.parent / "copy"
    script, _ = script_without_refs(path)
    script.open()
    yield script
    shutil.copytree(path, copy)
    script.engine.close()
    shutil.rmtree(path)
    copy.rename(path)


def older(data: Path) -> None:
    """The index as it was closed in good order the last time, marked with the stamp of today's."""
    data.write_bytes((data.parents[3] / "older.mdb").read_bytes())


def torn(data: Path) -> None:
    """Every other page is that of the older one."""
    now, before = data.read_bytes(), (data.parents[3] / "older.mdb").read_bytes()
    for at in range(0, len(before), 8192):
        now = now[:at] + before[at : at + 4096] + now[at + 4096 :]
    data.write_bytes(now)


def garbage(data: Path) -> None:
    """Nothing that it was."""
    data.write_bytes(random.Random(1).randbytes(data.stat().st_size))


@pytest.mark.parametrize("damage", [older, torn, garbage, lambda data: None], ids=["older", "torn", "garbage", "whole"])
def test_an_index_of_another_boot_is_not_trusted(repository, damage):
    with killed(repository) as script:
        shutil.copy(repository / ".arborfs" / "index" / "data.mdb", repository.parent / "older.mdb")
        script.put("3", b"staged later")
        script.commit()
        script.put("new", b"staged last")
        script.sync()
    assert not is_clean(repository.parent)
    damage(repository / ".arborfs" / "index" / "data.mdb")
    with rebooted(), Engine.open(repository) as engine:
        assert engine.rebuilt
        check(engine, script.promise)


def test_an_index_of_this_boot_is_trusted(repository):
    """What a killed process leaves is whole: the kernel has it."""
    with killed(repository) as script:
        script.put("new", b"staged last")
        script.promise.make_safe()
    assert not is_clean(repository.parent)
    with Engine.open(repository) as engine:
        assert not engine.rebuilt
        check(engine, script.promise)


def test_an_index_that_was_closed_in_good_order_is_trusted_in_another_boot(repository):
    _, promise = script_without_refs(repository)
    assert is_clean(repository.parent)
    with rebooted(), Engine.open(repository) as engine:
        assert not engine.rebuilt
        check(engine, promise)
