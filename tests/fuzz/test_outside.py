"""A repository's folder made by others: whatever lies in the place of a segment, the index or a lock, opening it touches
nothing outside of the folder, waits for nothing, and either shows what is right or says what is wrong.

Each case runs in a process of its own, for one that waits on a pipe or fills the memory cannot be stopped from inside.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.engine import Engine
from storage.errors import ArborError
from storage.maintenance.verify import verify
from storage.model.names import CONTROL
from storage.model.samples import BytesSource
from tests.conftest import ADA
from tests.fuzz.mutations import FUZZ

SECONDS = 4.0
"""For what takes 100 ms."""
MEMORY = 1 << 30
"""Beside what the tests' own process has."""


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "template"
    with Engine.create(path, ADA) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"f",), BytesSource(b"committed" * 1000))
        tree.commit("one")
        tree.put_file((b"g",), BytesSource(b"staged"))
    return path


@pytest.fixture
def home(template, memory) -> Path:
    """The `.arborfs` of a copy."""
    shutil.copytree(template, memory / "r")
    return memory / "r" / ".arborfs"


@pytest.fixture
def outside(memory) -> Path:
    """A folder that is none of the repository's business."""
    folder = memory / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "folder" / "file").write_bytes(b"precious")
    (folder / "file").write_bytes(b"precious" * 100)
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def use(path: Path) -> str:
    """Open, read, verify, write and commit: `right`, or `told` where the repository says what is wrong."""
    try:
        with Engine.open(path) as engine:
            tree = engine.working_tree("main")
            found = {name: bytes(tree.open((name,))[1].read(0, 1 << 20)) for name, _ in tree.entries(())}
            assert found == {b"f": b"committed" * 1000, b"g": b"staged"}, "wrong data"
            problems = verify(engine)
            tree.put_file((b"new",), BytesSource(b"n" * 5000))
            tree.commit("two")
        return "told" if problems else "right"
    except ArborError as error:
        said = str(error)
    assert said
    assert "None" not in said, f"says nothing: {said}"
    return "told"


@pytest.fixture
def used() -> Callable[[Path], str]:
    """`use`, in a process of its own: another error, a signal or waiting for ever fails the test."""
    return lambda home: in_child(home.parent, SECONDS)


def in_child(path: Path, seconds: float) -> str:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: none of them is needed here
        pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            # RLIMIT_DATA and not RLIMIT_AS: the index is mapped as 1 TiB of addresses.
            most = private_bytes() + MEMORY
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            os.write(writing, use(path).encode())
        except BaseException:  # noqa: BLE001  # told to the parent, which fails
            os.write(writing, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        pytest.fail(f"ended by {signal.Signals(os.WTERMSIG(status)).name}")
    assert found in ("right", "told"), found
    return found


def private_bytes() -> int:
    """The memory of this process that RLIMIT_DATA counts."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmData:")[2].split()[0]) * 1024


def without_index(home: Path) -> None:
    shutil.rmtree(home / "index")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def test_nothing_is_in_the_way(home, used, outside):
    before = contents(outside)
    assert used(home) == "right"
    without_index(home)
    assert "told" not in used_again(home)
    assert contents(outside) == before


def used_again(home: Path) -> str:
    """Opened once more after a first use: the new file is there."""
    with Engine.open(home.parent) as engine:
        return "right" if engine.rebuilt and len(list(engine.working_tree("main").entries(()))) == 3 else "told"


Make = Callable[[Path, Path], object]
THINGS: dict[str, Make] = {
    "folder": lambda path, outside: path.mkdir(),
    "empty": lambda path, outside: path.write_bytes(b""),
    "junk": lambda path, outside: path.write_bytes(b"junk" * 100),
    "pipe": lambda path, outside: os.mkfifo(path),
    "link to a file": lambda path, outside: path.symlink_to(outside / "file"),
    "link to a folder": lambda path, outside: path.symlink_to(outside),
    "link to nothing": lambda path, outside: path.symlink_to(outside / "new"),
    "link to itself": lambda path, outside: path.symlink_to(path),
    "endless": lambda path, outside: path.symlink_to("/dev/zero"),
}


def things(*places: str) -> pytest.MarkDecorator:
    """A parameter for each thing that may lie in each of the places."""
    return pytest.mark.parametrize(
        "place, thing", [pytest.param(place, thing, id=f"{place}: {thing}") for place in places for thing in THINGS]
    )


class TestSegments:
    @things("00000009.log", "00000009.journal")
    def test_beside_the_others(self, home, used, outside, place, thing):
        before = contents(outside)
        without_index(home)
        THINGS[thing](home / "segments" / place, outside)
        assert used(home) in ("right", "told")
        assert contents(outside) == before

    @pytest.mark.parametrize(
        "name",
        [
            "x.log",
            ".log",
            "-1.log",
            "fffffffff.log",
            "f" * 40 + ".log",
            "\udcff.journal",
            "..log",
            "1.log.log",
        ],
    )
    def test_under_other_names(self, home, used, name):
        without_index(home)
        (home / "segments" / name).write_bytes(b"junk" * 100)
        assert used(home) in ("right", "told")

    def test_names_of_the_same_number(self, home, used):
        """Which one is met last depends on the disk's file system: by age, either way, or by nothing to be foretold."""
        without_index(home)
        real = home / "segments" / "00000001.log"
        for name in ("1.log", "01.log", "001.log", "0001.log", "0x1.log"):
            real.with_name(name).write_bytes(b"junk" * 100)
        shutil.copytree(home.parent, home.parent.with_name("younger"))
        younger = home.parent.with_name("younger") / ".arborfs" / "segments"
        shutil.copy(real, younger / "copy")
        (younger / real.name).unlink()
        (younger / "copy").rename(younger / real.name)
        assert used(home) == used(younger.parent) == "right"

    @things("00000001.log")
    def test_in_the_place_of_one(self, home, used, outside, place, thing):
        """The index is there, and tells what should be in it."""
        before = contents(outside)
        (home / "segments" / place).unlink()
        THINGS[thing](home / "segments" / place, outside)
        assert used(home) == "told"
        assert contents(outside) == before

    def test_a_missing_one_is_named(self, home):
        (home / "segments" / "00000001.log").unlink()
        with Engine.open(home.parent) as engine, pytest.raises(ArborError, match="missing"):
            engine.working_tree("main").open((b"f",))

    @things("segments")
    def test_in_the_place_of_their_folder(self, home, used, outside, place, thing):
        before = contents(outside)
        without_index(home)
        shutil.rmtree(home / place)
        THINGS[thing](home / place, outside)
        assert used(home) == "told"
        assert contents(outside) == before


class TestOthers:
    @things("index")
    def test_in_the_place_of_the_index(self, home, used, outside, place, thing):
        before = contents(outside)
        without_index(home)
        THINGS[thing](home / place, outside)
        assert used(home) == "right"
        assert contents(outside) == before

    @things("data.mdb")
    def test_in_the_place_of_the_indexs_data(self, home, used, outside, place, thing):
        before = contents(outside)
        (home / "index" / place).unlink()
        THINGS[thing](home / "index" / place, outside)
        assert used(home) == "right"
        assert contents(outside) == before

    @things("index.new", "index.old")
    def test_in_the_place_of_an_index_to_be(self, home, used, outside, place, thing):
        before = contents(outside)
        without_index(home)
        THINGS[thing](home / place, outside)
        assert used(home) in ("right", "told")
        assert contents(outside) == before

    @things("tmp")
    def test_in_the_place_of_the_temporary_folder(self, home, used, outside, place, thing):
        """It is emptied at every start: through a link that would be somebody's folder."""
        before = contents(outside)
        remove(home / place)
        THINGS[thing](home / place, outside)
        assert used(home) in ("right", "told")
        assert contents(outside) == before

    @things("tmp/left")
    def test_in_the_temporary_folder(self, home, used, outside, place, thing):
        before = contents(outside)
        THINGS[thing](home / place, outside)
        assert used(home) == "right"
        assert contents(outside) == before
        assert list((home / "tmp").iterdir()) == []

    @things("lock", "commit.lock", "state.json", "config.json")
    def test_in_the_place_of_a_file(self, home, used, outside, place, thing):
        before = contents(outside)
        remove(home / place)
        THINGS[thing](home / place, outside)
        assert used(home) in ("right", "told")
        assert contents(outside) == before


ODD = ["", ".", "..", "../x", "/etc", "a/../../x", "a\0b", ".arborfs", "x/.arborfs", "segments", "\n", "a" * 300]
texts = st.one_of(st.text(max_size=300), st.sampled_from(ODD), st.text(alphabet="./\0ab", max_size=9))


class TestNames:
    def test_no_name_of_the_api_leads_out_of_the_repository(self, engine, outside):
        """Names of branches, tags and entries: after all attempts the repository's folder holds what it held before."""
        before = contents(outside), layout(engine.path)
        tree = engine.working_tree("main")

        @FUZZ
        @given(texts, texts)
        def examine(name: str, other: str) -> None:
            raw = name.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
            for act in (
                lambda: tree.put_file((raw[0],), BytesSource(b"x")),
                lambda: tree.put_file(raw, BytesSource(b"x")),
                lambda: tree.make_symlink(raw[:1], raw[1]),
                lambda: tree.rename(raw[:1], raw[1:]),
                lambda: engine.create_branch(name),
                lambda: engine.create_tag(name, engine.commits()[0]),
                lambda: engine.rename_branch("main", name) or engine.rename_branch(name, "main"),
            ):
                try:
                    act()
                except ArborError:
                    continue
            for found, entry in list(tree.entries(())):
                assert found not in (b"", b".", b"..")
                assert not {b"/"[0], 0} & set(found)
                assert not entry.is_directory
                tree.remove((found,))
            if name != "main" and name in engine.branches():
                engine.remove_branch(name, force=True)
            if name in engine.tags():
                engine.remove_tag(name)

        tree.put_file((b"first",), BytesSource(b"x"))
        tree.commit("one")
        examine()
        assert (contents(outside), layout(engine.path)) == before

    @pytest.mark.parametrize("name", ODD)
    def test_names_of_branches_and_tags(self, engine, name):
        tree = engine.working_tree("main")
        tree.put_file((b"f",), BytesSource(b"x"))
        tip = tree.commit("one")
        if name == "segments":
            engine.create_branch(name)
            return
        for act in (
            lambda: engine.create_branch(name),
            lambda: engine.create_tag(name, tip),
            lambda: engine.rename_branch("main", name),
        ):
            with pytest.raises(ArborError):
                act()
        assert engine.branches() == {"main": tip}
        assert engine.tags() == {}

    @pytest.mark.parametrize("name", [CONTROL, b"..", b".", b"", b"a/b", b"/", b"a\0b", b"n" * 256])
    def test_names_of_entries_below(self, engine, name):
        """What is reserved at the root is reserved below it, too."""
        tree = engine.working_tree("main")
        tree.make_directory((b"d",))
        tree.put_file((b"f",), BytesSource(b"x"))
        for act in (
            lambda: tree.put_file((b"d", name), BytesSource(b"x")),
            lambda: tree.make_file((b"d", name)),
            lambda: tree.make_directory((b"d", name)),
            lambda: tree.make_symlink((b"d", name), b"x"),
            lambda: tree.rename((b"f",), (b"d", name)),
            lambda: tree.exchange((b"f",), (b"d", name)),
        ):
            with pytest.raises(ArborError):
                act()
        assert list(tree.entries((b"d",))) == []


def layout(path: Path) -> set[str]:
    """The folders of a repository, and its files but for their numbers."""
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.suffix not in (".log", ".journal")} - {
        ".arborfs/commit.lock"
    }
