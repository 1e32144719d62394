"""What a commit holds, put back into a working tree."""

import numpy as np
import pytest

from storage.errors import NotADirectory, NotFound, SchemaMismatch
from storage.maintenance.verify import verify
from storage.model.samples import make_schema
from storage.restoring import restore
from tests.unit.test_engine import contents, put


@pytest.fixture
def tree(engine):
    tree = engine.working_tree("main")
    for name in (b"d", b"e"):
        tree.make_directory((name,), mtime=1_000_000_000)
        tree.make_directory((name, b"deep"))
        put(tree, f"{name.decode()}/deep/f", b"first" * 2000)
        put(tree, f"{name.decode()}/g", b"g")
    put(tree, "top", b"top")
    tree.commit("one")
    return tree


@pytest.fixture
def first(engine, tree):
    return engine.snapshot(engine.resolve("main"))


def test_a_file(tree, first):
    put(tree, "d/g", b"changed")
    tree.remove((b"top",))
    restore(tree, first, (b"d", b"g"))
    restore(tree, first, (b"top",))
    assert contents(tree) == contents(first)
    assert tree.status() == []
    assert not tree.is_dirty()


def test_a_directory_comes_whole_and_as_one_row(engine, tree, first):
    put(tree, "d/deep/new", b"goes")
    put(tree, "d/deep/f", b"changed")
    tree.remove((b"d", b"g"))
    tree.commit("two")
    put(tree, "d/another", b"goes")
    size = sum(path.stat().st_size for path in (engine.path / ".arborfs" / "segments").iterdir())
    restore(tree, first, (b"d",))
    assert sum(p.stat().st_size for p in (engine.path / ".arborfs" / "segments").iterdir()) - size < 600
    assert contents(tree) == contents(first)
    assert [(row.change, row.path[-1]) for row in tree.status()] == [
        ("changed", b"f"),
        ("removed", b"new"),
        ("added", b"g"),
    ]
    put(tree, "d/deep/f", b"written over what was restored")
    assert tree.open((b"d", b"deep", b"f"))[1].read(0, 100) == b"written over what was restored"
    assert tree.open((b"d", b"g"))[1].read(0, 100) == b"g"
    committed = engine.snapshot(tree.commit("three"))
    assert contents(committed) == contents(first) | {(b"d", b"deep", b"f"): b"written over what was restored"}
    assert verify(engine) == []


def test_directories_above_come_back_as_they_were(tree, first):
    tree.remove_tree((b"d",))
    restore(tree, first, (b"d", b"deep", b"f"))
    assert [path for path in contents(tree) if path[0] == b"d"] == [(b"d",), (b"d", b"deep"), (b"d", b"deep", b"f")]
    assert tree.entry((b"d",)).attributes == first.entry((b"d",)).attributes


def test_a_file_stands_where_a_directory_is_needed(tree, first):
    tree.remove_tree((b"d",))
    put(tree, "d", b"a file now")
    with pytest.raises(NotADirectory):
        restore(tree, first, (b"d", b"deep", b"f"))
    restore(tree, first, (b"d",))
    assert contents(tree) == contents(first)


def test_what_the_commit_has_not_is_removed_only_when_asked(tree, first):
    put(tree, "d/new", b"new")
    with pytest.raises(NotFound, match="removed"):
        restore(tree, first, (b"d", b"new"))
    restore(tree, first, (b"d", b"new"), remove=True)
    assert contents(tree) == contents(first)
    with pytest.raises(NotFound):
        restore(tree, first, (b"d", b"new"), remove=True)
    with pytest.raises(NotFound):
        restore(tree, first, (b"nowhere", b"new"), remove=True)


def test_everything(engine, tree, first):
    tree.remove_tree((b"d",))
    tree.set_attributes((), mode=0o700)
    put(tree, "e/g", b"changed")
    put(tree, "new", b"new")
    tree.commit("two")
    put(tree, "newer", b"newer")
    restore(tree, first, ())
    assert contents(tree) == contents(first)
    again = engine.snapshot(tree.commit("as it was"))
    assert again.record.root.value == first.record.root.value
    assert again.record.root.attributes == first.record.root.attributes


def test_a_sample_must_fit_the_dataset_that_is_there_now(engine, tree):
    schema = make_schema(np.dtype(np.uint8), (4,), uuid="u")
    tree.make_directory((b"s",))
    tree.set_schema((b"s",), schema)
    entry = tree.sample_entry(schema, np.arange(4, dtype=np.uint8))
    tree.put_rows((b"s",), [(b"0.npy", entry)])
    first = engine.snapshot(tree.commit("samples"))
    bytes_then = bytes(first.open((b"s", b"0.npy"))[1].read(0, 1000))
    tree.remove((b"s", b"0.npy"))
    tree.set_schema((b"s",), make_schema(np.dtype(np.float32), (4,), uuid="v"))
    with pytest.raises(SchemaMismatch):
        restore(tree, first, (b"s", b"0.npy"))
    tree.set_schema((b"s",), None)
    restore(tree, first, (b"s", b"0.npy"))
    assert bytes(tree.open((b"s", b"0.npy"))[1].read(0, 1000)) == bytes_then
    restore(tree, first, (b"s",))
    assert tree.schema_of((b"s",)) == schema
    assert not tree.is_dirty()
