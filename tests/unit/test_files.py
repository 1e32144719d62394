"""`Repository.files`: the tree of a branch or commit by path."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storage import Repository
from storage.errors import (
    Exists,
    InvalidName,
    InvalidSample,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NothingToCommit,
    ReadOnly,
)
from storage.files import FileInfo, Files
from storage.model.samples import PiecesSource, make_schema


@pytest.fixture
def tree(repository: Path) -> Iterator[Files]:
    with Repository(repository) as opened:
        yield opened.files()


def test_files_are_written_listed_and_read(tree):
    tree.make_directory("a/b", parents=True)
    tree.write("a/b/one", b"1")
    tree.write("a/two", b"22")
    assert [(name, info.kind, info.size) for name, info in tree.list("a")] == [
        ("b", "directory", 0),
        ("two", "file", 2),
    ]
    assert tree.read("/a//b/./one") == b"1"
    assert tree.info("a/two").mtime > 0
    assert isinstance(tree.info(""), FileInfo) and tree.info("").is_directory
    assert tree.exists("a/b") and tree.is_directory("a/b") and not tree.is_directory("a/two")
    assert not tree.exists("a/two/three") and not tree.exists("x/y")


def test_a_commit_keeps_what_was_there_and_refuses_changes(repository, tree):
    tree.write("x", b"old")
    commit = tree.commit("first")
    tree.write("x", b"new")
    with Repository(repository) as opened:
        look_at_a_commit(opened.files(commit=commit), tree, commit)


def look_at_a_commit(before, tree, commit):
    assert (before.read("x"), tree.read("x")) == (b"old", b"new")
    assert before.branch is None and before.commit_hash == commit == tree.commit_hash
    with pytest.raises(ReadOnly, match="never changes"):
        before.write("x", b"")
    tree.commit("second")
    with pytest.raises(NothingToCommit):
        tree.commit("nothing")


def test_opening_reads_pieces_of_long_files_and_keeps_the_version(tree):
    data = np.random.default_rng(1).integers(0, 255, 3 << 20, np.uint8).tobytes()
    tree.write("long", data)
    with tree.open("long") as file:
        tree.write("long", b"short")
        file.seek(1 << 20)
        assert file.read(100) == data[1 << 20 : (1 << 20) + 100]
        file.seek(-5, 2)
        assert file.read() == data[-5:]
        assert file.seek(0) == 0 and file.read() == data
        with pytest.raises(ValueError):
            file.seek(-1)
    assert tree.read("long") == b"short"


@pytest.mark.parametrize(
    "use, error",
    [
        (lambda tree: tree.read("nothing"), NotFound),
        (lambda tree: tree.read("file/below"), NotADirectory),
        (lambda tree: tree.read("folder"), IsADirectory),
        (lambda tree: tree.read(""), IsADirectory),
        (lambda tree: tree.write("folder", b""), IsADirectory),
        (lambda tree: tree.write("no/folder", b""), NotFound),
        (lambda tree: tree.write("../up", b""), InvalidName),
        (lambda tree: tree.write("a\0b", b""), InvalidName),
        (lambda tree: tree.write("x" * 256, b""), InvalidName),
        (lambda tree: tree.make_directory("folder"), Exists),
        (lambda tree: tree.make_directory("file", parents=True), NotADirectory),
        (lambda tree: tree.make_directory("file/x", parents=True), NotADirectory),
        (lambda tree: tree.rename("folder", "file"), Exists),
        (lambda tree: tree.rename("empty", "folder", replace=True), NotEmpty),
        (lambda tree: tree.write_many({"new": b"", "folder": b""}), IsADirectory),
        (lambda tree: tree.write_many({"new": b"", "file/x": b""}), NotADirectory),
        (lambda tree: tree.edit("folder", lambda old: b""), IsADirectory),
        (lambda tree: tree.edit("no/folder", lambda old: b""), NotFound),
    ],
)
def test_what_is_refused_changes_nothing(tree, use, error):
    tree.write("file", b"data")
    tree.make_directory("folder")
    tree.make_directory("empty")
    tree.write("folder/inside", b"data")
    with pytest.raises(error):
        use(tree)
    assert [name for name, _ in tree.list()] == ["empty", "file", "folder"]
    assert tree.read("folder/inside") == tree.read("file") == b"data"


def test_many_files_are_one_step_and_keep_their_attributes(tree):
    tree.write("old", b"1")
    tree.set_attributes("old", {"colour": b"red", "size": b"big"})
    tree.set_attributes("old", {"size": None})
    tree.write_many({"old": b"2", "d/e/new": b"3", "gone": None, "nowhere/gone": None})
    tree.write_many({"old": b"4"})
    assert (tree.read("old"), tree.read("d/e/new")) == (b"4", b"3")
    assert tree.attributes("old") == {"colour": b"red"}
    tree.write_many({"old": None, "d/e/new": None})
    assert [name for name, _ in tree.list()] == ["d"]
    assert list(tree.list("d/e")) == []


def test_many_files_may_need_something_there_or_not_there(tree):
    tree.write_many({"a/b/x": b"1"}, new="a/b")
    for taken in ("a", "a/b", "a/b/x", ""):
        with pytest.raises(Exists):
            tree.write_many({"a/y": b"2", "z": b"2"}, new=taken)
    tree.write_many({"a/y": b"2"}, needs="a/b/x")
    for missing in ("a/c", "a/b/x/y", "q/r"):
        with pytest.raises(NotFound):
            tree.write_many({"a/y": b"3", "z": b"3"}, needs=missing)
    assert tree.read("a/y") == b"2" and not tree.exists("z")


def test_pieces_are_written_as_one(tree):
    numbers = np.random.default_rng(1).standard_normal(1 << 20)
    pieces = (b"head", memoryview(b""), memoryview(numbers), b"tail")
    joined = b"".join(bytes(memoryview(piece).cast("B")) if len(piece) else b"" for piece in pieces)
    tree.write("one", pieces)
    tree.write_many({"d/many": pieces, "empty": (), "small": (b"a", b"b")})
    assert tree.read("one") == tree.read("d/many") == joined
    assert (tree.read("empty"), tree.read("small")) == (b"", b"ab")
    source = PiecesSource((b"abc", b"", b"defg"))
    for start in range(9):
        for size in range(9):
            assert bytes(source.read(start, size)) == b"abcdefg"[start : start + size]


def test_only_empty_directories_are_removed_as_such(tree):
    tree.write_many({"a/b/x": b"1"})
    with pytest.raises(NotEmpty):
        tree.remove_directory("a/b")
    with pytest.raises(NotADirectory):
        tree.remove_directory("a/b/x")
    tree.remove("a/b/x")
    tree.remove_directory("a/b")
    assert list(tree.list("a")) == []
    with pytest.raises(NotFound):
        tree.remove_directory("a/b")


def test_in_a_dataset_samples_must_fit(tree):
    tree.make_directory("numbers", schema=make_schema(np.dtype("f4"), (2,)))
    with pytest.raises(InvalidSample):
        tree.write("numbers/x.npy", b"no array")
    with pytest.raises(InvalidSample):
        tree.write_many({"numbers/README": b"text", "numbers/x.npy": b"no array"})
    tree.write_many({"numbers/README": b"text"})
    assert [name for name, _ in tree.list("numbers")] == ["README"]


def test_removing_and_moving(tree):
    tree.write_many({"a/b/c": b"1", "x": b"2", "y": b"3"})
    tree.rename("a/b", "b")
    tree.rename("x", "y", replace=True)
    tree.remove("a")
    assert tree.read("b/c") == b"1" and tree.read("y") == b"2"
    assert [name for name, _ in tree.list()] == ["b", "y"]
    tree.remove("b")
    tree.remove("y")
    assert list(tree.list()) == []


def _count(path: str, times: int) -> None:
    with Repository(path) as repository:
        tree = repository.files()
        for _ in range(times):
            tree.edit("count", lambda old: str(int(old or 0) + 1).encode())


def test_edits_by_processes_and_threads_are_never_lost(repository, tree):
    work = multiprocessing.get_context("spawn").Process(target=_count, args=(str(repository), 60))
    work.start()

    def add() -> None:
        for _ in range(60):
            tree.edit("count", lambda old: str(int(old or 0) + 1).encode())

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(5):
        tree.write("other", str(number).encode())
        tree.commit("in between")
    for thread in threads:
        thread.join()
    work.join()
    assert work.exitcode == 0
    assert tree.read("count") == b"180"


def test_an_edit_may_remove_and_may_refuse(tree):
    assert tree.edit("f", lambda old: None) is None
    assert tree.edit("f", lambda old: b"1") == b"1"
    with pytest.raises(ZeroDivisionError):
        tree.edit("f", lambda old: bytes(1 // 0))
    assert tree.read("f") == b"1"
    assert tree.edit("f", lambda old: None) is None
    assert not tree.exists("f")


def test_a_lock_is_held_alone(tree):
    inside = []

    def enter() -> None:
        with tree.locked("mine"):
            inside.append(1)
            assert len(inside) == 1
            inside.pop()

    with tree.locked("mine"), tree.locked("another"):
        threads = [threading.Thread(target=enter) for _ in range(4)]
        for thread in threads:
            thread.start()
        inside.append(1)
        inside.pop()
    for thread in threads:
        thread.join()
    assert inside == []


def test_what_is_not_to_be_packed_is_stored_as_it_is(repository, tree):
    def stored() -> int:
        return sum(file.stat().st_size for file in (repository / ".arborfs" / "segments").glob("*.log"))

    data = b"the same again and again" * 50_000
    tree.write_many({"packed": data})
    packed = stored()
    tree.write_many({"plain": data[::-1]}, compression="none")
    assert packed < len(data) / 2 and stored() - packed >= len(data)
    assert tree.read("plain") == data[::-1]
