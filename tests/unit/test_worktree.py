"""The working tree: what the calls of a file system do to it."""

import contextlib
import os
import threading

import numpy as np
import pytest

from storage.engine import Engine
from storage.errors import (
    Exists,
    InvalidName,
    InvalidSample,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NothingToCommit,
    SchemaMismatch,
)
from storage.model.names import Path, check_key
from storage.model.records import Attributes, Kind
from storage.model.samples import BytesSource, array_from, canonical_header, make_schema
from storage.worktree import WorkingTree

SCHEMA = make_schema(np.dtype("<f4"), (2, 3), uuid="u")


@pytest.fixture
def tree(engine):
    return engine.working_tree("main")


def put(tree, text: str, data: bytes, **options):
    return tree.put_file(path(text), BytesSource(data), **options)


def path(text: str) -> Path:
    return tuple(part.encode() for part in text.split("/") if part)


def get(tree, text: str) -> bytes:
    content = tree.open(path(text))[1]
    return bytes(content.read(0, content.size))


def names(tree, text: str = "") -> list[str]:
    return [name.decode() for name, _ in tree.entries(path(text))]


def npy(array: np.ndarray) -> bytes:
    return canonical_header(array.dtype.str, array.shape) + array.tobytes()


def test_files_and_directories_come_and_go(tree):
    tree.make_directory(path("d"))
    put(tree, "d/a", b"one")
    put(tree, "d/a", b"two")
    assert get(tree, "d/a") == b"two"
    with pytest.raises(Exists):
        tree.make_directory(path("d"))
    with pytest.raises(NotEmpty):
        tree.remove_directory(path("d"))
    with pytest.raises(IsADirectory):
        tree.remove(path("d"))
    with pytest.raises(IsADirectory):
        put(tree, "d", b"")
    with pytest.raises(NotADirectory):
        put(tree, "d/a/b", b"")
    tree.remove(path("d/a"))
    tree.remove_directory(path("d"))
    with pytest.raises(NotFound):
        tree.entry(path("d"))
    assert not tree.is_dirty()


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"n" * 256, b".arborfs"])
def test_bad_names_are_refused(tree, name):
    with pytest.raises(InvalidName):
        tree.put_file((name,) if name != b".arborfs" else (b"d", name), BytesSource(b""))
    assert names(tree) == []


@pytest.mark.parametrize("key", [True, 1.5, "", ".", "..", "a/b", "a\0", -1, "k" * 241, "\udc80", None, ".arborfs"])
def test_bad_keys_are_refused(key):
    with pytest.raises(InvalidName):
        check_key(key)


def test_long_names_of_any_bytes_are_kept(tree):
    name = bytes(set(range(1, 256)) - {0x2F})[:250] + b"\xff"
    tree.put_file((name,), BytesSource(b"x"))
    tree.commit("odd")
    assert [found for found, _ in tree.entries(())] == [name]


def test_rename_moves_a_directory_in_one_row_and_follows_committed_contents(tree):
    tree.make_directory(path("a"))
    tree.make_directory(path("a/b"))
    put(tree, "a/b/f", b"deep")
    tree.commit("one")
    tree.rename(path("a"), path("z"))
    assert get(tree, "z/b/f") == b"deep"
    assert {row.path: row.change for row in tree.status()} == {(b"a",): "removed", (b"z",): "added"}
    put(tree, "z/b/g", b"more")
    tree.rename(path("z/b"), path("b"))
    tree.commit("two")
    assert names(tree, "b") == ["f", "g"]
    assert names(tree, "z") == []


def test_rename_over_existing_entries(tree):
    for name in ("d", "e", "full"):
        tree.make_directory(path(name))
    put(tree, "full/x", b"")
    put(tree, "f", b"f")
    put(tree, "g", b"g")
    with pytest.raises(Exists):
        tree.rename(path("f"), path("g"), replace=False)
    with pytest.raises(IsADirectory):
        tree.rename(path("f"), path("d"))
    with pytest.raises(NotADirectory):
        tree.rename(path("d"), path("f"))
    with pytest.raises(NotEmpty):
        tree.rename(path("d"), path("full"))
    with pytest.raises(InvalidName):
        tree.rename(path("full"), path("full/inside"))
    tree.rename(path("f"), path("g"))
    tree.rename(path("full"), path("e"))
    assert names(tree) == ["d", "e", "g"]
    assert get(tree, "g") == b"f"
    assert names(tree, "e") == ["x"]


def test_exchange_swaps_files_and_directories(tree):
    tree.make_directory(path("d"))
    put(tree, "d/in", b"in")
    put(tree, "f", b"f")
    tree.exchange(path("d"), path("f"))
    assert get(tree, "d") == b"f"
    assert get(tree, "f/in") == b"in"


def test_attributes_are_kept_across_commits(tree):
    put(tree, "f", b"x", attributes=Attributes(mode=0o640, uid=5), mtime=123)
    tree.make_directory(path("d"))
    tree.commit("one")
    tree.set_attributes(path("f"), gid=7, xattrs={b"user.a": b"1", b"user.b": b"2"})
    tree.set_attributes(path("f"), xattrs={b"user.a": None})
    tree.set_attributes(path("d"), mode=0o700, mtime=77)
    tree.set_attributes((), mode=0o711, mtime=99)
    for _ in range(2):
        entry, directory, root = tree.entry(path("f")), tree.entry(path("d")), tree.entry(())
        a = entry.attributes
        assert (a.mode, a.uid, a.gid, a.xattrs, entry.mtime) == (0o640, 5, 7, ((b"user.b", b"2"),), 123)
        assert (directory.attributes.mode, directory.mtime) == (0o700, 77)
        assert (root.attributes.mode, root.mtime) == (0o711, 99)
        tree.commit("two") if tree.is_dirty() else None
    put(tree, "f", b"new contents")
    assert tree.entry(path("f")).attributes.mode == 0o640


def test_a_file_in_a_dataset_must_be_a_sample(tree):
    tree.make_directory(path("set"), attributes=Attributes(schema=SCHEMA))
    good = np.arange(6, dtype="<f4").reshape(2, 3)
    put(tree, "set/a.npy", npy(good))
    for bad in (npy(good.astype("<f8")), npy(good.reshape(3, 2)), npy(good)[:-1], npy(good) + b"x", b"junk"):
        with pytest.raises(SchemaMismatch):
            put(tree, "set/a.npy", bad)
    with pytest.raises(InvalidSample):
        put(
            tree,
            "set/a.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}" + b" " * 60,
        )
    assert tree.entry(path("set/a.npy")).kind is Kind.SAMPLE
    assert get(tree, "set/a.npy") == npy(good)
    put(tree, "set/README", b"plain")
    assert tree.entry(path("set/README")).kind is Kind.FILE
    assert tree.count_samples(path("set")) == 1


def test_an_unusual_header_is_kept(tree):
    tree.make_directory(path("set"), attributes=Attributes(schema=SCHEMA))
    array = np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3))
    header = canonical_header("<f4", (2, 3)).replace(b"False", b"True ")
    put(tree, "set/f.npy", header + array.tobytes(order="F"))
    tree.commit("one")
    assert get(tree, "set/f.npy") == header + array.tobytes(order="F")
    entry = tree.entry(path("set/f.npy"))
    assert np.array_equal(array_from(tree.payload(entry), SCHEMA, entry.attributes), array)


def test_moving_into_and_out_of_a_dataset_keeps_the_bytes_and_checks_them(tree):
    tree.make_directory(path("set"), attributes=Attributes(schema=SCHEMA))
    data = npy(np.ones((2, 3), "<f4"))
    put(tree, "x.npy", data)
    put(tree, "bad.npy", b"not an array")
    with pytest.raises(SchemaMismatch):
        tree.rename(path("bad.npy"), path("set/bad.npy"))
    assert get(tree, "bad.npy") == b"not an array"
    tree.rename(path("x.npy"), path("set/x.npy"))
    assert tree.entry(path("set/x.npy")).kind is Kind.SAMPLE
    tree.commit("in")
    tree.rename(path("set/x.npy"), path("out"))
    assert tree.entry(path("out")).kind is Kind.FILE
    assert get(tree, "out") == data
    assert tree.count_samples(path("set")) == 0


def test_listing_is_safe_while_the_tree_changes(tree):
    for i in range(1500):
        put(tree, f"{i:05}", b"")
    listing = tree.entries(())
    seen = [next(listing)[0] for _ in range(600)]
    for i in range(0, 1500, 2):
        tree.remove(path(f"{i:05}"))
    seen += [name for name, _ in listing]
    assert len(seen) == len(set(seen))
    assert {f"{i:05}".encode() for i in range(1, 1500, 2)} <= set(seen)


def test_a_small_change_in_a_big_file_stores_little(engine, tree):
    data = bytearray(os.urandom(12 << 20))
    put(tree, "big", bytes(data))
    tree.commit("one")
    base = tree.open(path("big"))[1]
    before = engine.disk_usage()
    data[5_000_000:5_000_010] = b"0123456789"
    reads: list[int] = []

    class Edited(BytesSource):
        def read(self, offset, size):
            reads.append(size)
            return self.data[offset : offset + size]

    source = Edited(bytes(data), base, ((5_000_000, 5_000_010),))
    tree.put_file(path("big"), source)
    tree.commit("two")
    assert get(tree, "big") == data
    assert engine.disk_usage() - before < 6 << 20
    assert len(reads) <= 2
    again = tree.put_file(path("copy"), BytesSource(bytes(data)))
    assert again.value == tree.entry(path("big")).value  # the same chunks as cutting everything


def test_growing_and_shrinking_a_big_file_by_its_base_gives_the_same_chunks(tree):
    data = os.urandom(6 << 20)
    put(tree, "f", data)
    for new, dirty in ((data + b"tail" * 1000, ((len(data), len(data) + 4000),)), (data[: 3 << 20], ()), (data, ())):
        base = tree.open(path("f"))[1]
        source = BytesSource(new, base, dirty if len(new) > base.size or not dirty else ())
        if len(new) > base.size and not dirty:
            source = BytesSource(new, base, ((base.size, len(new)),))
        edited = tree.put_file(path("f"), source)
        whole = tree.put_file(path("whole"), BytesSource(new))
        assert edited.value == whole.value
        assert get(tree, "f") == new


def test_commit_without_changes_is_refused(tree):
    with pytest.raises(NothingToCommit):
        tree.commit("nothing")
    put(tree, "f", b"x")
    tree.commit("one")
    put(tree, "g", b"x")
    tree.remove(path("g"))
    with pytest.raises(NothingToCommit):
        tree.commit("nothing")


def test_of_many_who_make_a_file_one_succeeds(engine):
    """Making is one change: nobody comes in between looking and making."""
    made: list[int] = []

    def make(tree: WorkingTree) -> None:
        for number in range(100):
            with contextlib.suppress(Exists):
                tree.make_file((b"%d" % number,))
                made.append(number)

    with Engine.open(engine.path) as other:
        trees = [engine.working_tree("main"), other.working_tree("main")]
        threads = [threading.Thread(target=make, args=(tree,)) for tree in trees]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(made) == list(range(100))
    assert trees[0].entry((b"7",)).size == 0


def test_what_is_written_again_as_it_was_is_no_change(engine):
    """A commit makes a chunk of what lies in a journal as it came: the same contents all the same."""
    tree = engine.working_tree("main")
    for size in (1, 100, 5000, 60_000):
        tree.put_file((b"%d" % size,), BytesSource(b"x" * size), mtime=1)
    tree.commit("all sizes")
    for size in (1, 100, 5000, 60_000):
        tree.put_file((b"%d" % size,), BytesSource(b"x" * size), mtime=1)
    assert tree.status() == []
    assert not tree.is_dirty()
    tree.put_file((b"5000",), BytesSource(b"y" + b"x" * 4999), mtime=1)
    assert [row.path for row in tree.status()] == [(b"5000",)]


def test_a_directory_is_not_moved_over_the_one_that_it_is_in(engine):
    """It is not empty, also where nothing in it has been staged yet."""
    tree = engine.working_tree("main")
    for path in ((b"d",), (b"d", b"e")):
        tree.make_directory(path)
    tree.put_file((b"d", b"f"), BytesSource(b"x"))
    tree.commit("one")
    for path in ((b"d", b"e"), (b"d", b"f")):
        with pytest.raises(NotEmpty):
            tree.rename(path, (b"d",))
    assert tree.status() == []
    assert tree.entry((b"d", b"f")).size == 1
