"""Rows of the index whose bytes were changed: right data, or a documented error that says so; committed contents are
never wrong. The index can always be made anew, so whatever its rows say, `rebuild` brings everything back.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.disk.appending import Segment
from storage.disk.segments import Record, RecordKind
from storage.engine import Engine
from storage.errors import ArborError, Corrupt
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.digest import blake
from storage.model.records import HEAD, Attributes, Commit, Kind, directory_entry, encode_commit
from storage.model.samples import BytesSource, make_schema
from storage.stores.staging import ROW, decode_row
from tests.conftest import ADA
from tests.fuzz.mutations import ON_DISK, mutated

TABLES = ("meta", "objects", "commits", "refs", "operations", "staged", "directories", "changes", "ends", "journals")
Files = dict[tuple[bytes, ...], bytes]


def sample() -> bytes:
    out = io.BytesIO()
    np.save(out, np.ones((2, 3), "<f4"))
    return out.getvalue()


# Enough for several leaves and a node above them.
COMMITTED: Files = {(b"%03d" % i,): b"%3d" % i * 200 for i in range(80)} | {
    (b"chunk",): bytes(range(256)) * 300,
    (b"d", b"f"): b"in d",
    (b"set", b"a.npy"): sample(),
}
STAGED: Files = {(b"short",): b"short", (b"long",): b"long" * 100, (b"d", b"g"): b"g" * 100}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """Two commits, a tag, a second branch and staged work of every kind."""
    path = tmp_path_factory.mktemp("rows") / "template"
    with Engine.create(path, ADA) as engine:
        tree = engine.working_tree("main")
        tree.make_directory((b"d",))
        schema = make_schema(np.dtype("<f4"), (2, 3), uuid="u")
        tree.make_directory((b"set",), attributes=Attributes(schema=schema))
        for name, data in COMMITTED.items():
            tree.put_file(name, BytesSource(data))
        tree.put_file((b"001",), BytesSource(b"old"))
        tree.commit("one")
        tree.put_file((b"001",), BytesSource(COMMITTED[b"001",]))
        engine.create_tag("v1", tree.commit("two"), "message")
        engine.create_branch("other")
        for name, data in STAGED.items():
            tree.put_file(name, BytesSource(data))
        tree.remove((b"002",))
        tree.make_symlink((b"link",), b"target")
        tree.make_directory((b"new",))
    return path


def index_of(path: Path) -> lmdb.Environment:
    return lmdb.open(str(path / ".arborfs" / "index"), max_dbs=len(TABLES), map_size=1 << 30)


def rows_of(path: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every row, by table."""
    found = {}
    with index_of(path) as environment:
        for table in TABLES:
            with environment.begin(db=environment.open_db(table.encode())) as txn:
                found[table] = list(txn.cursor())
    return found


def change(path: Path, table: str, key: bytes, value: bytes) -> None:
    with index_of(path) as environment:
        database = environment.open_db(table.encode())
        with environment.begin(write=True) as txn:
            txn.put(key, value, db=database)
    # As if it were an index too large for a checksum, or damaged while it is open: else it would simply be made anew.
    state = path / ".arborfs" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"checksum": ""}))


def read(tree, name: tuple[bytes, ...]) -> bytes:
    content = tree.open(name)[1]
    return bytes(content.read(0, content.size))


def walk(tree, path: tuple[bytes, ...] = ()) -> Iterator[tuple[bytes, ...]]:
    for name, entry in tree.entries(path):
        yield (*path, name)
        if entry.is_directory:
            yield from walk(tree, (*path, name))


def uses(engine: Engine) -> Iterator[Callable[[], object]]:
    """Everything that reads the index, then everything that writes it."""
    tree = engine.working_tree("main")
    yield from (engine.branches, engine.tags, engine.head, engine.commits, engine.operations, engine.generation)
    yield from (lambda: engine.changes(0), lambda: engine.changes(max(engine.generation() - 3, 0)))
    for revision in ("main~1", "v1", "HEAD", "main@{2100-01-01}"):
        yield lambda: [record.message for _, record in engine.log(engine.resolve(revision))]
    yield from (tree.status, tree.is_dirty, tree.tip, lambda: tree.count_samples((b"set",)))
    yield lambda: [tree.entry(path) for path in walk(tree)]
    yield lambda: verify(engine)
    yield lambda: engine.release_writer("main", engine.acquire_writer("main"))
    yield lambda: tree.put_file((b"more",), BytesSource(b"more" * 100))
    yield lambda: tree.put_file((b"d", b"more"), BytesSource(b"x"))
    yield lambda: tree.rename((b"d",), (b"e",))
    yield lambda: tree.rename((b"e",), (b"d",))
    yield lambda: tree.remove((b"more",))
    yield lambda: engine.create_branch("third")
    yield lambda: engine.rename_branch("third", "fourth")
    yield lambda: engine.create_tag("v2", engine.resolve("v1"))
    yield lambda: engine.remove_tag("v2")
    yield lambda: engine.remove_branch("other")
    yield lambda: tree.commit("three")
    yield engine.sync


def examined(path: Path) -> None:
    """Use the repository in every way: only documented errors, and what is committed reads right or not at all."""
    try:
        engine = Engine.open(path)
    except ArborError:
        return
    try:
        for name, data in COMMITTED.items():
            with suppress(ArborError):
                assert read(engine.snapshot(engine.resolve("v1")), name) == data
        with suppress(ArborError):
            for use in uses(engine):
                with suppress(ArborError):
                    use()
    finally:
        with suppress(ArborError):  # what cannot be synced says so
            engine.close()


def fresh(template: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    return place


def test_the_examination_sees_what_is_there(template, memory):
    """Nothing is changed: everything works, and everything is right."""
    path = fresh(template, memory / "whole")
    with Engine.open(path) as engine:
        assert not engine.rebuilt
        tree = engine.working_tree("main")
        there = {
            name: read(tree, name) for name in walk(tree) if not tree.entry(name).is_directory and name != (b"link",)
        }
        assert there == {name: data for name, data in (COMMITTED | STAGED).items() if name != (b"002",)}
        for use in uses(engine):
            use()
    assert all(rows_of(template)[table] for table in TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_changed_rows(template, memory, table):
    rows = rows_of(template)[table]

    @ON_DISK
    @given(st.data())
    def examine(data: st.DataObject) -> None:
        key, value = data.draw(st.sampled_from(rows))
        path = fresh(template, memory / "changed")
        change(path, table, key, data.draw(mutated(value)))
        examined(path)

    examine()


@pytest.mark.parametrize("kind, length", [(Kind.STAGED, 200), (Kind.FILE, 8)])
def test_a_value_that_must_stand_in_the_row_and_does_not(kind, length):
    with pytest.raises(Corrupt):
        decode_row(ROW.pack(1, 7, 100, length, 0) + HEAD.pack(kind, 0, 0, 0, 0, 0))


WORTHLESS = [b"", b"\xff", b"\xff" * 200]


@pytest.mark.parametrize("value", WORTHLESS, ids=["empty", "a byte", "200 bytes"])
@pytest.mark.parametrize("table", TABLES)
def test_a_rebuild_brings_everything_back(template, memory, table, value):
    """Whatever the rows of a table say."""
    path = fresh(template, memory / "worthless")
    for key, _ in rows_of(path)[table]:
        change(path, table, key, value)
    assert rebuild(path).problems == []
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        expected = {name: data for name, data in (COMMITTED | STAGED).items() if name != (b"002",)}
        assert {name: read(tree, name) for name in expected} == expected
        assert engine.tags().keys() == {"v1"}
        assert verify(engine) == []


def test_rows_that_changed_places(template, memory):
    """Two objects of one kind whose rows are exchanged: neither is what its name says."""
    path = fresh(template, memory / "exchanged")
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        for name in (b"x", b"y"):
            tree.put_file((name,), BytesSource(name * 100_000))
        tree.commit("three")
        x, y = (tree.open((name,))[1].chunks[0].digest for name in (b"x", b"y"))
    rows = dict(rows_of(path)["objects"])
    change(path, "objects", x, rows[y])
    change(path, "objects", y, rows[x])
    with Engine.open(path) as engine, pytest.raises(ArborError):
        read(engine.working_tree("main"), (b"x",))


def test_a_branch_that_leads_nowhere(template, memory):
    path = fresh(template, memory / "nowhere")
    value = dict(rows_of(path)["refs"])[b"branch/main"]
    change(path, "refs", b"branch/main", value[:32] + (99).to_bytes(8, "little"))
    with Engine.open(path) as engine, pytest.raises(ArborError):
        assert list(engine.working_tree("main").entries(()))


def test_a_changed_byte_in_a_short_staged_value(template, memory):
    path = fresh(template, memory / "short")
    key, value = next((key, value) for key, value in rows_of(path)["staged"] if key.endswith(b"short"))
    change(path, "staged", key, value[:-1] + b"X")
    with Engine.open(path) as engine, pytest.raises(ArborError):
        read(engine.working_tree("main"), (b"short",))


NEGATIVE = encode_commit(Commit(directory_entry(blake(b""), 0, 0, 0), (), ADA, -1, "before 1970"))
FOREIGN = {
    "a commit": Record(RecordKind.COMMIT, [b"junk"], 4, blake(b"junk")),
    "a packed commit": Record(RecordKind.COMMIT, [b"junk"], 4, blake(b"junk"), codec=77),
    "a commit from before 1970": Record(RecordKind.COMMIT, [NEGATIVE], len(NEGATIVE), blake(NEGATIVE)),
    "a node": Record(RecordKind.NODE, [b"junk"], 4, blake(b"junk")),
    "an operation": Record(RecordKind.REFS, [b"junk"], 4, sequence=2**63),
    "an operation at the end of time": Record(RecordKind.REFS, [b"junk"], 4, sequence=2**64 - 1),
    "staging": Record(RecordKind.STAGE, [b"junk" * 9], 36, sequence=2**63),
    "nothing": Record(RecordKind.STAGE, [b""], 0, sequence=2**63),
    "a chunk": Record(RecordKind.CHUNK, [b"junk"], 5, blake(b"junk")),
}


@pytest.mark.parametrize("record", FOREIGN.values(), ids=FOREIGN)
def test_a_record_that_makes_no_sense_costs_only_itself(template, memory, record):
    """Its checksums are right: it was written so. A rebuild passes over it and brings everything else back."""
    path = fresh(template, memory / "foreign")
    log = path / ".arborfs" / "segments" / "00000001.log"
    segment = Segment.adopt(log, lambda: log.stat().st_size)
    assert segment is not None
    segment.append([record])
    segment.close()
    rebuild(path)
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        expected = {name: data for name, data in (COMMITTED | STAGED).items() if name != (b"002",)}
        assert {name: read(tree, name) for name in expected} == expected
        tree.commit("three")
        assert len(list(engine.log(engine.resolve("main")))) == 3
