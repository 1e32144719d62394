"""Checkouts, stacks, bulk updates, schemas that widen, pickles: what people do with whole datasets."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from storage.engine import Engine
from storage.errors import Closed, Conflict, DatasetExists, SchemaMismatch, WriterLockHeld
from storage.filling import LEAST
from storage.model.chunking import Codec
from storage.model.records import CHUNKED
from storage.model.samples import BytesSource
from storage.repository import Repository
from storage.stores.objects import object_place
from storage.tree.edit import edit
from storage.tree.node import EMPTY
from tests.conftest import wait_until
from tests.unit.test_building import built

COUNT = 5000
ROWS = np.random.default_rng(7).integers(0, 1000, (COUNT, 3), dtype="i4")
KEYS = [str(number) for number in range(COUNT)]


def filled(co, name="d", **more):
    dataset = co.datasets.init_dataset(name, prototype=ROWS[0], **more)
    dataset.update(KEYS, ROWS)
    return dataset


def by_key(dataset):
    return ROWS[[int(key) for key in dataset]]


def test_an_update_with_an_array_is_what_single_ones_give(repo, co):
    dataset = filled(co)
    assert len(dataset) == COUNT > LEAST
    assert (dataset["17"] == ROWS[17]).all()
    single = co.datasets.init_dataset("single", prototype=ROWS[0])
    with single:
        for key, row in zip(KEYS, ROWS, strict=True):
            single[key] = row
    assert list(single) == list(dataset)
    assert (single.stack() == dataset.stack()).all()
    co.commit("m")
    assert (repo.checkout()["d"].stack() == by_key(dataset)).all()
    with Repository(repo.path) as again:
        assert again.status() == "CLEAN"


def test_an_update_with_an_array_changes_what_differs(co):
    dataset = filled(co)
    co.commit("m")
    dataset.update(KEYS, ROWS)
    assert not co._session.working_tree.is_dirty()
    changed = ROWS.copy()
    changed[5:8] += 1
    dataset.update(KEYS, changed)
    assert [key.key for key in co.diff.staged().diff.mutated.samples] == ["5", "6", "7"]
    tree = co._session.working_tree
    tree.set_attributes((b"d", b"9.npy"), mode=0o600)
    changed[9] += 1
    dataset.update(KEYS, changed)
    assert tree.entry((b"d", b"9.npy")).attributes.mode == 0o600
    assert (dataset["9"] == changed[9]).all()
    twice = [*KEYS[:-1], "0"]
    dataset.update(twice, changed)
    assert (dataset["0"] == changed[-1]).all()


def test_an_update_with_an_array_refuses_what_does_not_fit(co):
    dataset = co.datasets.init_dataset("d", prototype=ROWS[0])
    for keys, rows in ((KEYS, ROWS[1:]), (KEYS, ROWS.astype("i8")), (KEYS, ROWS[:, :2]), ([*KEYS[1:], True], ROWS),
                       ([*KEYS[1:], ""], ROWS), ([*KEYS[1:], "a/b"], ROWS), (KEYS, list(ROWS))):  # fmt: skip
        with pytest.raises(ValueError):
            dataset.update(keys, rows)
    assert len(dataset) == 0
    dataset.update([], ROWS[:0])
    dataset.update(range(3), ROWS[:3])
    assert list(dataset) == ["0", "1", "2"]


def test_a_map_built_of_columns_is_the_one_that_edits_give():
    names = sorted(key.encode() + b".npy" for key in KEYS)
    head = bytes(range(24))
    values = ROWS.tobytes()
    root, sums, fresh = built(names, head, 12, values)
    edits = [(name, (head, values[12 * i : 12 * (i + 1)])) for i, name in enumerate(names)]
    expected_root, expected_sums, expected = edit({}.__getitem__, EMPTY, edits)
    assert (root, sums, dict(fresh)) == (expected_root, expected_sums, dict(expected))


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("columns", [3, 2000])
def test_stacks_hold_all_samples_or_those_asked_for(repo, co, staged, columns):
    rows = np.random.default_rng(1).normal(size=(40, columns))
    dataset = co.datasets.init_dataset("d", prototype=rows[0])
    for number, row in enumerate(rows):
        dataset[number] = row
    order = [int(key) for key in dataset]
    if not staged:
        co.commit("m")
        dataset = repo.checkout()["d"]
    assert (dataset.stack() == rows[order]).all()
    assert (np.asarray(dataset) == rows[order]).all()
    assert np.asarray(dataset, "f4").dtype == np.float32
    assert (dataset[["0", "1", 39, "1"]] == rows[[0, 1, 39, 1]]).all()
    out = np.zeros((2, columns))
    assert dataset.stack(["7", "3"], out=out) is out
    assert (out == rows[[7, 3]]).all()
    assert dataset.stack([]).shape == (0, columns)
    for wrong in (np.zeros((3, columns)), np.zeros((2, columns), "f4"), [0]):
        with pytest.raises(SchemaMismatch):
            dataset.stack(["7", "3"], out=wrong)
    for missing in (["no"], ["0", "zzz"], ["0", "", "1"]):
        with pytest.raises((KeyError, ValueError)):
            dataset.stack(missing)


def test_stacks_leave_out_other_files_and_keep_odd_headers_apart(repo, co):
    dataset = filled(co)
    tree = co._session.working_tree
    np.lib.format.write_array(out := io.BytesIO(), np.full(3, 9, "i4"), version=(2, 0))
    tree.put_file((b"d", b"500.npy"), BytesSource(out.getvalue()))
    tree.put_file((b"d", b"README"), BytesSource(b"as long as 3"))  # 12 bytes, as each sample has
    co.commit("m")
    stacked = repo.checkout()["d"].stack()
    expected = by_key(dataset).copy()
    expected[list(dataset).index("500")] = 9
    assert (stacked == expected).all()


def test_stacks_of_varying_shapes_and_of_no_arrays(co):
    varying = co.datasets.init_dataset("v", prototype=ROWS[0], variable_shape=True)
    assert varying.stack().shape == (0, 3)
    varying["a"], varying["b"] = ROWS[0], ROWS[1]
    assert (varying.stack(["b", "a"]) == ROWS[[1, 0]]).all()
    varying["c"] = ROWS[0, :2]
    with pytest.raises(SchemaMismatch, match="differ in shape"):
        varying.stack()
    with pytest.raises(SchemaMismatch):
        co.datasets.init_dataset("t", kind="str").stack()


def test_arrays_of_commits_are_views_and_those_of_branches_are_not(repo, co):
    dataset = filled(co)
    co.commit("m")
    mine = dataset["0"]
    mine[:] = 0
    assert (dataset["0"] == ROWS[0]).all()
    view = repo.checkout()["d", "0"]
    assert not view.flags.writeable
    assert not view.flags.owndata
    dataset["0"] = ROWS[1]
    assert (view == ROWS[0]).all()


def test_a_reader_can_look_at_what_is_staged(repo, co):
    dataset = filled(co)
    with repo.checkout(staged=True) as looking:
        assert (looking["d", "1"] == ROWS[1]).all()
        dataset["later"] = ROWS[0]
        assert "later" in looking["d"]
        assert looking.branch_name == "main"
        assert looking.commit_hash == ""
        for change in (lambda: looking["d"].append(ROWS[0]), lambda: looking.datasets.init_dataset("x", 1, int)):
            with pytest.raises(PermissionError):
                change()
        with pytest.raises(PermissionError):
            pickle.dumps(looking["d"])
    for wrong in ({"write": True}, {"commit": "main"}, {"tag": "x"}):
        with pytest.raises(ValueError):
            repo.checkout(staged=True, **wrong)


def test_commits_bear_metadata(repo, co, capsys):
    co.datasets.init_dataset("d", 1, int)
    with pytest.raises(ValueError):
        co.commit("m", metadata={"accuracy": 0.9})
    commit = co.commit("m", metadata={"accuracy": "0.9", "run": "7"})
    assert repo.log(return_contents=True)["specs"][commit]["commit_metadata"] == {"accuracy": "0.9", "run": "7"}
    capsys.readouterr()
    repo.log()
    assert capsys.readouterr().out.endswith(": m {accuracy=0.9} {run=7}\n")


def test_renaming_a_dataset_is_one_row(co):
    filled(co)
    co.datasets.init_dataset("taken", 1, int)
    co.commit("m")
    found = co.datasets.rename("d", "below/e")
    assert (found["3"] == ROWS[3]).all()
    assert sorted(co) == ["below/e", "taken"]
    tree = co._session.working_tree
    assert len(tree.status()) <= 4
    with pytest.raises(DatasetExists):
        co.datasets.rename("below/e", "taken")
    with pytest.raises(KeyError):
        co.datasets.rename("d", "e")
    with pytest.raises(ValueError):
        co.datasets.rename("taken", "a//b")


@pytest.mark.parametrize("nested", [False, True])
def test_widening_keeps_every_value(repo, co, nested):
    dataset = co.datasets.init_dataset("d", prototype=ROWS[0], contains_subsamples=nested)
    for number in range(20):
        dataset[number] = {"x": ROWS[number]} if nested else ROWS[number]
    co.commit("m")
    wide = co.datasets.widen("d", dtype="f8", max_shape=(5,))
    assert (wide.dtype, wide.shape, wide.variable_shape) == (np.dtype("f8"), (5,), True)
    for number in range(20):
        found = wide[number]["x"] if nested else wide[number]
        assert (found.dtype, found.tolist()) == (np.dtype("f8"), ROWS[number].tolist())
    wide["new"] = {"x": np.ones(5)} if nested else np.ones(5)
    for narrow in ({"dtype": "i4"}, {"dtype": "f4"}, {"max_shape": (4,)}, {"max_shape": (5, 1)}):
        with pytest.raises(SchemaMismatch):
            co.datasets.widen("d", **narrow)
    with pytest.raises(KeyError):
        dataset["0"] = {"x": ROWS[0]} if nested else ROWS[0]
    co.commit("wide")
    assert (repo.checkout()["d"].schema.uuid, len(wide)) == (dataset.schema.uuid, 21)
    assert repo.checkout(commit="main~1")["d"].dtype == ROWS.dtype
    widest = co.datasets.widen("d", max_shape=9)
    assert widest.shape == (9,)
    assert len(co._session.working_tree.status()) == (22 if nested else 1)


def codecs_of(co, *path):
    """How the chunks of a value are packed."""
    tree = co._session.working_tree
    entry = tree.entry(path)
    assert entry.flags & CHUNKED
    chunks = [entry.value[at : at + 32] for at in range(0, len(entry.value), 36)]
    with tree._p.index.read() as txn:
        rows = [txn.get(chunk, db=tree._p.index.objects) for chunk in chunks]
    return {Codec(object_place(row)[2]) for row in rows}


LONG = np.tile(np.arange(100, dtype="i4"), 5000)


def test_hg_61_compression_is_that_of_the_dataset(co):
    codecs: dict[str, set[Codec]] = {}
    for compression in ("", "none", "lz4", "zstd"):
        dataset = co.datasets.init_dataset(f"d{compression}", prototype=LONG, compression=compression)
        dataset["k"] = LONG + len(codecs)
        assert (dataset["k"] == LONG + len(codecs)).all()
        assert dataset.compression == compression
        codecs[compression] = codecs_of(co, f"d{compression}".encode(), b"k.npy")
    assert codecs == {"": {Codec.BLOSC}, "none": {Codec.RAW}, "lz4": {Codec.BLOSC}, "zstd": {Codec.ZSTD}}


@pytest.mark.parametrize("nested", [False, True])
def test_hg_51_compression_can_be_changed_for_what_is_to_come(repo, co, nested):
    def put(key, array):
        co["d"][key] = {"x": array} if nested else array

    def codec(key):
        return codecs_of(co, b"d", *((key.encode(), b"x.npy") if nested else (f"{key}.npy".encode(),)))

    dataset = co.datasets.init_dataset("d", prototype=LONG, compression="none", contains_subsamples=nested)
    put("old", LONG)
    co.commit("one")
    uuid = dataset.schema.uuid
    changed = co.datasets.recompress("d", "zstd")
    assert (changed.compression, changed.schema.uuid, changed.schema.hash) == ("zstd", uuid, dataset.schema.hash)
    put("new", LONG + 1)
    assert (codec("old"), codec("new")) == ({Codec.RAW}, {Codec.ZSTD})
    if nested:
        co["d", "old"]["y"] = LONG + 2
        assert codecs_of(co, b"d", b"old", b"y.npy") == {Codec.ZSTD}
    co.commit("two")
    with repo.checkout() as reader:
        found = reader["d", "old", "x"] if nested else reader["d", "old"]
        assert (found == LONG).all() and list(reader["d"]) == ["new", "old"]
    for name, compression, error in (("d", "gzip", ValueError), ("d", None, ValueError), ("no", "zstd", KeyError)):
        with pytest.raises(error):
            co.datasets.recompress(name, compression)
    with pytest.raises(PermissionError):
        repo.checkout().datasets.recompress("d", "zstd")
    assert co.diff.status() == "CLEAN"


def look(dataset, keys):
    return [dataset[key].tolist() for key in keys]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_hg_56_readers_work_in_other_processes_and_threads(repo, co, start):
    filled(co)
    pairs = co.datasets.init_dataset("p", prototype=ROWS[0], contains_subsamples=True)
    pairs["s"] = {"0": ROWS[0], "1": ROWS[1]}
    co.commit("m")
    reader = repo.checkout()
    dataset, sample = reader["d"], reader["p", "s"]
    expected = ROWS[:50].tolist()
    assert look(pickle.loads(pickle.dumps(sample)), ["0", "1"]) == expected[:2]
    assert len(pickle.dumps(dataset)) < 1000
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(look, [dataset] * 8, [KEYS[:50]] * 8))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start)) as pool:
        assert list(pool.map(look, [dataset] * 3, [KEYS[:50]] * 3)) == [expected] * 3
        assert list(pool.map(look, [reader["p"]["s"]], [["0"]])) == [expected[:1]]
    for writing in (co["d"], co["p"], co["p", "s"]):
        with pytest.raises(PermissionError):
            pickle.dumps(writing)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_hg_56_checkouts_to_read_and_repositories_travel_too(repo, co, start):
    filled(co)
    commit = co.commit("m")
    reader = repo.checkout()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start)) as pool:
        assert pool.submit(look_around, repo, reader).result() == (commit, ROWS[7].tolist(), ["main"])
    co["d"]["7"] = ROWS[8]
    co.commit("later")
    assert (pickle.loads(pickle.dumps(reader))["d", "7"] == ROWS[7]).all(), "it stays at its commit"
    reader.close()
    for what in (co, repo.checkout(staged=True), reader):
        with pytest.raises(PermissionError):
            pickle.dumps(what)


@pytest.mark.parametrize("end", ["checkout", "repository"])
def test_hg_10_a_forked_process_that_closes_leaves_the_lock_where_it_is(repo, co, end):
    dataset = filled(co)
    closing = co.close if end == "checkout" else repo.close
    child = multiprocessing.get_context("fork").Process(target=closing)
    child.start()
    child.join()
    assert child.exitcode == 0
    with pytest.raises(WriterLockHeld, match=rf"'main' is written by process {os.getpid()}\b"):
        repo.checkout(write=True)
    dataset["after"] = ROWS[0]
    co.commit("m")
    assert co.close() and not repo.writer_lock_held


def look_around(repo, reader):
    return reader.commit_hash, reader["d", "7"].tolist(), repo.list_branches()


def test_what_is_dropped_frees_its_lock(repo):
    dataset = repo.checkout(write=True).datasets.init_dataset("d", 3, "i4")
    gc.collect()
    dataset["kept"] = ROWS[0]
    with pytest.raises(WriterLockHeld):
        repo.checkout(write=True)
    del dataset
    gc.collect()
    wait_until(lambda: not repo.writer_lock_held, what="the lock of a checkout that was dropped")
    with repo.checkout(write=True) as co:
        assert list(co["d"]) == ["kept"]


def test_a_process_that_ends_without_closing_leaves_all_in_order(repository):
    script = (
        "import sys; from storage.repository import Repository\n"
        "repo = Repository(sys.argv[1]); co = repo.checkout(write=True)\n"
        "co.datasets.init_dataset('t', kind='str')['a'] = 'text'\n"
    )
    subprocess.run([sys.executable, "-c", script, str(repository)], check=True, stdout=subprocess.DEVNULL)
    with Repository(repository) as repo:
        assert not repo.writer_lock_held
        with repo.checkout(write=True) as co:
            assert co["t", "a"] == "text"


def test_widening_gives_way_to_changes_meanwhile(co, monkeypatch):
    filled(co)
    tree = co._session.working_tree
    graft = tree.graft

    def late(*arguments):
        co["d"]["meanwhile"] = ROWS[0]
        graft(*arguments)

    monkeypatch.setattr(tree, "graft", late)
    with pytest.raises(Conflict):
        co.datasets.widen("d", dtype="i8")
    assert (co["d"].dtype, len(co["d"])) == (np.dtype("i4"), COUNT + 1)


def test_a_repository_that_is_dropped_with_its_writer_is_closed_behind_it(repository, capfd):
    for _ in range(20):
        co = Repository(repository).checkout(write=True)
        assert co.is_open
        del co
        gc.collect()
        with Repository(repository) as repo:
            wait_until(lambda repo=repo: not repo.writer_lock_held, what="the lock of a checkout that was dropped")
    assert "Traceback" not in capfd.readouterr().err


def test_a_repository_that_is_closed_in_the_middle_of_a_call_says_so(repository):
    """As by another thread: it is the index that everything stands on, which is no longer there."""
    engine = Engine.open(repository)
    index = engine._index

    def closed_between():
        with index.read() as txn:
            engine.close()
            return txn.get(b"k", db=index.meta)

    with pytest.raises(Closed, match="another thread"):
        closed_between()
    for use in (index.read, index.write):
        with pytest.raises(Closed, match="another thread"), use():
            pass
    with Repository(repository) as again:
        assert again.verify_repo_integrity()


def test_hg_44_datasets_are_not_made_or_removed_while_samples_wait_in_a_batch(co):
    images = co.datasets.init_dataset("images", shape=(2,), dtype=np.uint8)
    co.datasets.init_dataset("other", shape=(2,), dtype=np.uint8)
    with images:
        images["a"] = np.array([1, 2], np.uint8)
        for use in (
            lambda: co.datasets.init_dataset("more", shape=(2,), dtype=np.uint8),
            lambda: co.datasets.remove_dset("other"),
            lambda: co.datasets.__delitem__("images"),
            lambda: co.datasets.rename("other", "elsewhere"),
            lambda: co.datasets.widen("other", dtype=np.uint16),
            lambda: co.datasets.recompress("other", "zstd"),
        ):
            with pytest.raises(PermissionError, match="inside a `with` block"):
                use()
    assert list(co.datasets) == ["images", "other"] and images["a"].tolist() == [1, 2]
    co.datasets.remove_dset("other")
