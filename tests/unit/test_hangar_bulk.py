"""Bulk import by generator functions in several processes (HG-92)."""

import functools
import pickle

import numpy as np
import pytest

from storage import Repository, errors
from storage.bulk import UDF_Return, run_bulk_import
from storage.engine import Engine
from storage.maintenance.verify import verify
from tests.unit import bulk_functions as functions

ALL = ["images", "labels", "ragged"]


@pytest.fixture
def repo(repository):
    with Repository(repository) as repo:
        with repo.checkout(write=True) as co:
            co.datasets.init_dataset("images", shape=(20, 30), dtype=np.float32)
            co.datasets.init_dataset("labels", shape=(1,), dtype=np.int64)
            co.datasets.init_dataset("ragged", shape=(9,), dtype=np.int16, variable_shape=True)
            co.datasets["labels"]["old"] = np.array([-1])
            co.datasets["labels"]["3"] = np.array([-3])
            co.commit("empty")
        yield repo


@pytest.fixture
def unchanged(repo):
    """The branch and what is staged on it are as they were."""
    with repo.checkout(write=True) as co:
        co.datasets["labels"]["staged"] = np.array([5])
    before = state(repo)
    yield
    assert state(repo) == before
    with Engine.open(repo.path) as engine:
        assert not verify(engine)
    repo.checkout(write=True).close()  # the writer lock is free


def state(repo):
    with repo.checkout(write=True) as co:
        return co.commit_hash, co.diff.staged(), {name: list(co.datasets[name]) for name in co.datasets}


def test_hg92_all_samples_of_all_calls_become_one_commit(repo):
    before = repo.checkout().commit_hash
    calls = [{"first": first, "count": 5} for first in range(0, 50, 5)]
    commit = run_bulk_import(repo, "main", ALL, functions.numbers, calls, ncpus=2)
    with repo.checkout() as co:
        assert co.commit_hash == commit
        images, labels, ragged = (co.datasets[name] for name in ALL)
        assert len(images) == 50 and len(labels) == 51 and len(ragged) == 50
        for number in range(50):
            assert (images[str(number)] == number).all() and images[str(number)].shape == (20, 30)
            assert labels[number].tolist() == [number]
            assert ragged[f"r{number}"].tolist() == [number] * (number % 7 + 1)
        assert labels["old"].tolist() == [-1]
    assert list(repo.log(return_contents=True)["ancestors"][commit]) == [before]
    with Engine.open(repo.path) as engine:
        assert not verify(engine)


def test_hg92_the_same_samples_whatever_the_number_of_processes(repo):
    calls = [{"first": first, "count": 3} for first in range(0, 30, 3)]
    found = []
    for number in (1, 3):
        repo.create_branch(f"with{number}")
        run_bulk_import(repo, f"with{number}", ALL, functions.numbers, calls, ncpus=number)
        with repo.checkout(branch=f"with{number}") as co:
            found.append({name: [(k, v.tolist()) for k, v in co.datasets[name].items()] for name in ALL})
    assert found[0] == found[1]


def test_hg92_without_autocommit_it_is_staged_beside_what_is(repo):
    with repo.checkout(write=True) as co:
        co.datasets["labels"]["staged"] = np.array([5])
    before = repo.checkout().commit_hash
    done = run_bulk_import(repo, "main", ALL, functions.numbers, [{"first": 1, "count": 2}], autocommit=False)
    assert done == "" and repo.checkout().commit_hash == before
    with repo.checkout(write=True) as co:
        assert {key: int(value[0]) for key, value in co.datasets["labels"].items()} == {
            "1": 1, "2": 2, "3": -3, "old": -1, "staged": 5,
        }  # fmt: skip


def test_hg92_autocommit_takes_nothing_else_along(repo, unchanged):
    with pytest.raises(RuntimeError, match="something is staged"):
        run_bulk_import(repo, "main", ["labels"], functions.process, [{"key": "1"}])


def test_hg92_nested_datasets_come_in_one_change(repo):
    with repo.checkout(write=True) as co:
        for name in ("images/deep/a", "images/deep/b", "images/c"):
            co.datasets.init_dataset(name, shape=(1,), dtype=np.int64)
        co.datasets["images/c"]["old"] = np.array([0])
        co.commit("nested")
    names = ["images/deep/a", "labels", "images", "images/deep/b", "images/c"]
    calls = [{"column": name, "key": "7", "data": np.array([7])} for name in names if name != "images"]
    calls.append({"column": "images", "key": "7", "data": np.full((20, 30), 7, np.float32)})
    run_bulk_import(repo, "main", names, functions.one, calls, ncpus=2)
    with repo.checkout() as co:
        assert all(co.datasets[name]["7"].max() == 7 for name in names)
        assert co.datasets["images/c"]["old"].tolist() == [0] and len(co.datasets) == 6


def test_hg92_texts_bytes_json_and_nested_samples(repo):
    with repo.checkout(write=True) as co:
        for kind in ("str", "bytes", "json"):
            co.datasets.init_dataset(kind, kind=kind)
        co.datasets.init_dataset("pairs", shape=(2,), dtype=np.float64, contains_subsamples=True)
        co.datasets["pairs"]["0"] = {"left": np.zeros(2), "other": np.ones(2)}
        co.commit("kinds")
    values = {
        "str": ["", "grüße"], "bytes": [b"", b"\0\xff" * 100_000], "json": [None, {"a": [1, 2.5, "x"]}],
        "pairs": [{"left": np.array([1.5, 2])}, {1: np.array([0.0, 1])}],
    }  # fmt: skip
    calls = [
        {"column": name, "key": str(number), "data": value}
        for name, column in values.items()
        for number, value in enumerate(column)
    ]
    run_bulk_import(repo, "main", list(values), functions.one, calls, ncpus=2)
    with repo.checkout() as co:
        for name in ("str", "bytes", "json"):
            assert [co.datasets[name][str(number)] for number in range(2)] == values[name]
        pairs = {key: {inner: value.tolist() for inner, value in co.datasets["pairs"][key].items()} for key in "01"}
        assert pairs == {"0": {"left": [1.5, 2], "other": [1, 1]}, "1": {"1": [0, 1]}}
    with Engine.open(repo.path) as engine:
        assert not verify(engine)


@pytest.mark.parametrize(
    "column, data, told",
    [
        ("str", 5, "of type int, the dataset holds str"),
        ("json", {1}, "cannot be written as JSON"),
        ("pairs", np.zeros(2), "not a dict of at least one value"),
        ("pairs", {}, "not a dict of at least one value"),
        ("pairs", {"left": np.zeros(3)}, "'left' has shape"),
        ("pairs", {"a/b": np.zeros(2)}, "not suitable"),
    ],
)
def test_hg92_other_values_that_do_not_fit(repo, column, data, told):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("str", kind="str")
        co.datasets.init_dataset("json", kind="json")
        co.datasets.init_dataset("pairs", shape=(2,), dtype=np.float64, contains_subsamples=True)
        co.commit("kinds")
    with pytest.raises(ValueError, match=told):
        run_bulk_import(repo, "main", [column], functions.one, [{"column": column, "key": "1", "data": data}])
    assert repo.status() == "CLEAN"


def test_hg92_the_same_contents_are_stored_once(repo):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("pixels", shape=(64, 64), dtype=np.float64)
        co.commit("pixels")
    calls = [{"key": str(number)} for number in range(40)]
    run_bulk_import(repo, "main", ["pixels"], functions.same_pixels, calls, ncpus=2)
    with repo.checkout() as co:
        assert len(co.datasets["pixels"]) == 40
    segments = (repo.path / ".arborfs" / "segments").glob("*.log")
    # Two processes may store the same at the same moment, but not 40 times.
    assert sum(file.stat().st_size for file in segments) < 10 * 64 * 64 * 8


def test_hg92_a_function_that_yields_by_chance(repo, unchanged):
    with pytest.raises(TypeError, match="called twice with {'key': '1'} does not yield the same"):
        run_bulk_import(repo, "main", ["labels"], functions.by_chance, [{"key": "1"}], autocommit=False)


def test_hg92_a_function_that_yields_more_the_next_time(repo, unchanged, tmp_path):
    (tmp_path / "calls").mkdir()
    with pytest.raises(TypeError, match="does not yield the same twice"):
        run_bulk_import(
            repo, "main", ["labels"], functions.sometimes_more, [{"folder": str(tmp_path / "calls")}],
            ncpus=1, autocommit=False,
        )  # fmt: skip


def inside():
    def generator(key):
        yield UDF_Return("labels", key, np.array([1]))

    return generator


def test_hg92_garbage_collected_meanwhile_is_none_of_what_was_stored(repo):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("pixels", shape=(64, 64), dtype=np.float64)
        co.commit("pixels")
    calls = [{"number": number, "repository": str(repo.path)} for number in range(10)]
    run_bulk_import(repo, "main", ["images", "pixels"], functions.collecting, calls, ncpus=1)
    with repo.checkout() as co:
        for number in range(10):
            assert np.array_equal(co["pixels"][str(number)], np.random.default_rng(number).random((64, 64)))
    with Engine.open(repo.path) as engine:
        assert not verify(engine)


@pytest.mark.parametrize(
    "udf, calls, told",
    [
        (functions.no_generator, [{"key": "1"}], "must be a generator function"),
        (lambda key: (yield key), [{"key": "1"}], "is a lambda or inside another function"),
        (inside(), [{"key": "1"}], "is a lambda or inside another function"),
        (functools.partial(inside(), key="1"), [{}], "is a lambda or inside another function"),
        (functions.one, [{"column": "labels"}], "missing a required argument: 'key'"),
        (functions.process, [{"key": "1"}, {"name": "1"}], "cannot be called with {'name': '1'}"),
        (functions.process, [{"key": lambda: 1}], "in another process"),
        (functions.process, ["1"], "must be dicts, not str"),
        (functions.process, {"key": "1"}, "must be a list of dicts"),
        (functions.yielding, [{"what": ("labels", "1", np.array([1]))}], "must yield UDF_Return"),
    ],
)
def test_hg92_what_is_no_function_or_no_call(repo, unchanged, udf, calls, told):
    with pytest.raises(TypeError, match=told):
        run_bulk_import(repo, "main", ["labels"], udf, calls, autocommit=False)


@pytest.mark.parametrize(
    "column, key, data, told",
    [
        ("images", "1", np.array([1]), "the columns are labels"),
        ("labels", "a/b", np.array([1]), "not suitable"),
        ("labels", True, np.array([1]), "not suitable"),
        ("labels", "1", np.array([1, 2]), "shape"),
        ("labels", "1", np.array([1.0]), "float64"),
        ("labels", "1", [1], "is of type list"),
    ],
)
def test_hg92_what_does_not_fit(repo, unchanged, column, key, data, told):
    calls = [{"column": "labels", "key": "fits", "data": np.array([1])}, {"column": column, "key": key, "data": data}]
    with pytest.raises(ValueError, match=told):
        run_bulk_import(repo, "main", ["labels"], functions.one, calls, ncpus=1, autocommit=False)


def test_hg92_columns_and_branches_that_are_not_there(repo, unchanged):
    with pytest.raises(ValueError, match="no dataset 'other'"):
        run_bulk_import(repo, "main", ["labels", "other"], functions.process, [{"key": "1"}])
    with pytest.raises(ValueError, match="elsewhere"):
        run_bulk_import(repo, "elsewhere", ["labels"], functions.process, [{"key": "1"}])
    for wrong in ("labels", []):
        with pytest.raises(TypeError, match="column_names"):
            run_bulk_import(repo, "main", wrong, functions.process, [{"key": "1"}])


def test_hg92_a_key_that_comes_twice(repo, unchanged):
    calls = [{"key": str(number % 30)} for number in range(31)]
    with pytest.raises(ValueError, match="images/0.npy comes twice"):
        run_bulk_import(repo, "main", ["images"], functions.same, calls, ncpus=2, autocommit=False)


def test_hg92_an_error_of_a_call_is_raised_here(repo, unchanged):
    calls = [{"number": number} for number in range(30)]
    with pytest.raises(ZeroDivisionError, match="seven") as caught:
        run_bulk_import(repo, "main", ["labels"], functions.failing, calls, ncpus=2, autocommit=False)
    assert "called with {'number': 7}" in caught.value.__notes__[0]


def test_hg92_a_worker_that_is_killed(repo, unchanged):
    calls = [{"number": number} for number in range(30)]
    with pytest.raises(RuntimeError, match="worker process has ended"):
        run_bulk_import(repo, "main", ["labels"], functions.killed, calls, ncpus=2, autocommit=False)


def test_hg92_another_writer(repo):
    with repo.checkout(write=True), pytest.raises(PermissionError):
        run_bulk_import(repo, "main", ["labels"], functions.process, [{"key": "1"}])


def test_hg92_no_calls_and_nothing_new(repo):
    assert run_bulk_import(repo, "main", ["labels"], functions.process, []) == ""
    call = [{"column": "labels", "key": "old", "data": np.array([-1])}]
    assert run_bulk_import(repo, "main", ["labels"], functions.one, call) == ""


def every_error(kind=errors.ArborError):
    for below in kind.__subclasses__():
        yield below
        yield from every_error(below)


def test_every_error_travels_between_processes():
    for error in (
        errors.Conflict("branch/main", "a", "b"),
        errors.TooFewSamples("few", wanted=3, found=1),
        errors.MergeConflict("both", ["x"]),
        errors.Corrupt("damaged", digest="12", where="there"),
        errors.Ambiguous("12", ["1234", "1256"]),
        errors.SchemaMismatch("no", expected="a", found="b"),
    ):
        error.add_note("a note")
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and str(copy) == str(error) and copy.__dict__ == error.__dict__
    for kind in set(every_error()):
        error = kind.__new__(kind, "text")
        assert type(pickle.loads(pickle.dumps(error))) is kind
