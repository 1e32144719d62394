"""Datasets and their samples: making, adding, reading, removing, and everything that is refused."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from storage.errors import InvalidName, SchemaMismatch
from storage.model.samples import BytesSource
from storage.repository import Repository

ONE = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def co(repository: Path):
    with Repository(repository) as repo, repo.checkout(write=True) as writer:
        yield writer


@pytest.fixture
def dataset(co):
    return co.datasets.init_dataset("d", prototype=ONE)


def test_init_says_what_it_made(co, capsys):
    co.datasets.init_dataset("a", prototype=ONE)
    co.datasets.init_dataset("b", shape=(2, 3), dtype="f4")
    co.datasets.init_dataset("c", 5, int, variable_shape=True)
    assert capsys.readouterr().out.splitlines() == [
        "Dataset prototype shape: (2, 3), dtype: float32",
        "Dataset provided shape: (2, 3), dtype: float32",
        "Dataset provided shape: (5,), dtype: int64 + variable_shape",
    ]
    a, b, c = (co.datasets[name] for name in "abc")
    assert (a.dtype, a.shape, a.variable_shape) == (ONE.dtype, (2, 3), False)
    assert a.named_samples and a.iswriteable
    assert (a.schema.hash, a.name) == (b.schema.hash, "a")
    assert len({a.schema.uuid, b.schema.uuid, c.schema.uuid}) == 3
    assert re.fullmatch("[0-9a-f]{32}", a.schema.uuid)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": "a/"},
        {"name": "/a"},
        {"name": "a//b"},
        {"name": "../a"},
        {"name": ".arborfs"},
        {"name": "a\0b"},
        {"name": "a" * 241},
        {"name": 3},
        {"name": "a", "prototype": [1, 2]},
        {"name": "a", "prototype": None},
        {"name": "a", "prototype": None, "shape": (2,)},
        {"name": "a", "prototype": None, "dtype": int},
        {"name": "a", "shape": (2, 3)},
        {"name": "a", "dtype": int},
        {"name": "a", "prototype": np.zeros((2, 0))},
        {"name": "a", "prototype": np.array([object()])},
        {"name": "a", "prototype": None, "shape": (2,), "dtype": object},
        {"name": "a", "prototype": None, "shape": (2,), "dtype": "no such type"},
        {"name": "a", "prototype": None, "shape": (-2,), "dtype": int},
        {"name": "a", "prototype": None, "shape": (True,), "dtype": int},
        {"name": "a", "prototype": None, "shape": (2.0,), "dtype": int},
        {"name": "a", "variable_shape": True, "max_shape": (2, 2)},
        {"name": "a", "variable_shape": True, "max_shape": (2, 3, 1)},
        {"name": "a", "max_shape": (9, 9)},
        {"name": "a", "compression": "no such codec"},
    ],
)
def test_what_cannot_be_a_dataset_is_a_value_error(co, arguments):
    with pytest.raises(ValueError):
        co.datasets.init_dataset(**{"prototype": ONE} | arguments)
    assert list(co.datasets) == []


def test_a_name_is_taken_once(co, dataset):
    dataset["README"] = ONE
    tree = co._session.working_tree
    tree.put_file((b"notes",), BytesSource(b"text"), mtime=1)
    tree.make_directory((b"folder",), mtime=1)
    tree.put_file((b"folder", b"x.npy"), BytesSource(b"text"), mtime=1)
    for name in ("d", "notes", "notes/inside", "folder"):
        with pytest.raises(LookupError):
            co.datasets.init_dataset(name, prototype=ONE)
    assert list(co.datasets) == ["d"]
    assert len(dataset) == 1


def test_an_ordinary_directory_becomes_a_dataset(co):
    tree = co._session.working_tree
    tree.make_directory((b"folder",), mtime=1)
    tree.put_file((b"folder", b"README"), BytesSource(b"text"), mtime=1)
    folder = co.datasets.init_dataset("folder", prototype=ONE)
    folder["a"] = ONE
    assert list(folder) == ["a"]
    assert tree.content(tree.entry((b"folder", b"README"))).read(0, 9) == b"text"


def test_nested_names_are_directories_and_datasets_may_stand_in_datasets(co):
    for name in ("subjects/leafy", "subjects", "subjects/leafy/deep/er", "other"):
        co.datasets.init_dataset(name, prototype=ONE)["k"] = np.full_like(ONE, len(name))
    names = ["other", "subjects", "subjects/leafy", "subjects/leafy/deep/er"]
    for _ in range(2):
        assert list(co.datasets) == co.datasets._ipython_key_completions_() == names
        assert len(co.datasets) == 4
        assert [dataset["k"][0, 0] for dataset in co.datasets.values()] == [len(name) for name in names]
        assert [len(dataset) for dataset in co.datasets.values()] == [1, 1, 1, 1]
        assert repr(co.datasets).endswith("Dataset Names:" + "".join(f"\n        - {name}" for name in names))
        if co._session.working_tree.is_dirty():
            co.commit("once staged, once committed")


def test_datasets_are_a_mapping(co, dataset):
    assert "d" in co.datasets
    for missing in ("e", "d/e", "", "d/", 3, None, "\0"):
        assert missing not in co.datasets
    assert co.datasets.get("e") is None
    assert co.datasets.get("d") is co.datasets["d"] is dataset
    with pytest.raises(KeyError, match="there is no dataset 'e'"):
        co.datasets["e"]
    assert co.datasets.iswriteable


def test_removing_a_dataset_takes_its_samples_not_the_datasets_inside(co, dataset):
    dataset["a"] = ONE
    inside = co.datasets.init_dataset("d/inside", prototype=ONE)
    inside["b"] = ONE
    co.commit("both")
    assert co.datasets.remove_dset("d") == "d"
    assert list(co.datasets) == ["d/inside"]
    assert list(inside) == ["b"]
    del co.datasets["d/inside"]
    assert list(co.datasets) == []
    for name in ("d", "d/inside"):
        with pytest.raises(KeyError):
            del co.datasets[name]
    co.commit("none")
    with pytest.raises(KeyError):
        co.datasets["d"]
    again = co.datasets.init_dataset("d", shape=1, dtype="u1")
    assert list(again) == []


def test_an_accessor_of_a_removed_dataset_does_not_write_into_its_successor(co, dataset):
    del co.datasets["d"]
    with pytest.raises(KeyError):
        dataset["a"] = ONE
    successor = co.datasets.init_dataset("d", shape=1, dtype="u1")
    with pytest.raises(KeyError, match="not what it was"):
        dataset["a"] = ONE
    assert list(successor) == []


def test_samples_are_a_mapping(dataset):
    two = ONE + 1
    dataset["a"] = ONE
    assert dataset.add(data=two, name="b") == "b"
    assert dataset.add(two, 10) == "10"
    dataset[7] = ONE
    assert list(dataset) == list(dataset.keys()) == ["10", "7", "a", "b"]
    assert dataset._ipython_key_completions_() == ["10", "7", "a", "b"]
    assert len(dataset) == len(dataset.keys()) == len(dataset.values()) == len(dataset.items()) == 4
    assert "7" in dataset and 7 in dataset and "8" not in dataset and 8 not in dataset
    assert np.array_equal(dataset[7], ONE) and np.array_equal(dataset["10"], two)
    assert dataset.get("nope") is None
    assert dataset.get("nope", 3) == 3
    with pytest.raises(KeyError, match="no sample 'nope' in dataset 'd'"):
        dataset["nope"]
    assert any(value is not None for value in dataset.values())
    assert two in dataset.values() and two + 1 not in dataset.values()
    assert ("a", ONE) in dataset.items() and ("a", two) not in dataset.items()
    assert dataset == dataset and dataset != {}
    assert {dataset: 1}[dataset] == 1


def test_removing_samples(co, dataset):
    dataset.update({str(i): ONE + i for i in range(6)})
    co.commit("six")
    dataset["new"] = ONE
    del dataset["0"]
    assert dataset.remove(1) == "1"
    assert np.array_equal(dataset.pop("2"), ONE + 2)
    assert np.array_equal(dataset.pop("new"), ONE)
    assert dataset.pop("new", None) is None
    assert list(dataset) == ["3", "4", "5"]
    for missing in (lambda: dataset.pop("0"), lambda: dataset.remove("0"), lambda: dataset.__delitem__("0")):
        with pytest.raises(KeyError):
            missing()
    co.commit("three")
    assert len(dataset) == 3


def test_what_cannot_be_a_key_is_a_value_error(dataset):
    for key in (True, 1.5, -1, "", ".", "..", "a/b", "a\0b", "k" * 241, "ä" * 121, ".arborfs", b"a", None, "\ud800"):
        if key is not None:
            with pytest.raises(InvalidName):
                dataset.add(ONE, key)
        with pytest.raises(InvalidName):
            dataset[key] = ONE
        with pytest.raises(InvalidName):
            dataset.update([("good", ONE), (key, ONE)])
        assert key not in dataset
    for key in (True, 1.5, -1, "", ".", "..", "a/b"):
        with pytest.raises(ValueError):
            dataset[key]
    assert len(dataset) == 0


def test_none_as_a_key_is_no_missing_name(dataset):
    with pytest.raises(ValueError, match="needs a name"):
        dataset.add(ONE)


ODD_KEYS = ["k" * 240, "ä" * 120, "-", "a b", "ünï.npy", ".hidden", "\n", "a.npy", "0" * 60, "²"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_that_are_fine(co, dataset, key):
    with dataset:
        dataset[key] = ONE
    dataset["other"] = ONE
    co.commit("one")
    assert set(dataset) == {key, "other"}
    assert np.array_equal(dataset[key], ONE)


@pytest.mark.parametrize(
    "value, found",
    [
        ([[0, 1, 2], [3, 4, 5]], "list"),
        (3.0, "float"),
        (np.float32(3), "float32"),
        (None, "NoneType"),
        (ONE.astype(np.float64), "float64"),
        (ONE.astype(">f4"), ">f4"),
        (ONE.astype(np.int32), "int32"),
        (ONE.T, "(3, 2)"),
        (ONE[0], "(3,)"),
        (ONE[:, :2], "(2, 2)"),
        (ONE[np.newaxis], "(1, 2, 3)"),
        (np.ma.masked_array(ONE, ONE > 2), "MaskedArray"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_and_nothing_changes(dataset, value, found):
    dataset["a"] = ONE
    for batch in (nullcontext(), dataset):
        with batch, pytest.raises(SchemaMismatch) as refused:
            dataset["a"] = value
        assert refused.value.found == found
        assert refused.value.expected
        assert isinstance(refused.value, ValueError)
    with pytest.raises(SchemaMismatch, match=re.escape("'b'")):
        dataset.update({"good": ONE, "b": value})
    assert {key: array.tolist() for key, array in dataset.items()} == {"a": ONE.tolist()}


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (300, 400)])
def test_any_memory_layout_is_taken_and_copied(dataset, co, shape, batch):
    wide = np.arange(shape[0] * shape[1] * 4, dtype=np.float32).reshape(shape[0] * 2, shape[1] * 2)
    dataset = co.datasets.init_dataset("e", shape=shape, dtype=np.float32)
    layouts = {
        "strided": wide[::2, ::2],
        "fortran": np.asfortranarray(wide[: shape[0], : shape[1]]),
        "backwards": wide[shape[0] - 1 :: -1, shape[1] - 1 :: -1],
        "own": wide[: shape[0], : shape[1]].copy(),
    }
    expected = {key: array.copy() for key, array in layouts.items()}
    if batch:
        with dataset:
            dataset.update(layouts)
            wide[:] = layouts["own"][:] = -1
    else:
        dataset.update(layouts)
        wide[:] = layouts["own"][:] = -1
    for key, array in expected.items():
        assert np.array_equal(dataset[key], array)


@pytest.mark.parametrize("size", [3, 5000])
def test_arrays_read_are_fresh_and_ones_own(co, size):
    dataset = co.datasets.init_dataset("e", shape=size, dtype="i8")
    dataset["a"] = np.arange(size)
    for _ in range(2):
        first, second = dataset["a"], next(iter(dataset.values()))
        assert first.flags.writeable and first.flags.c_contiguous
        first[:] = -1
        second[:] = -2
        assert np.array_equal(dataset["a"], np.arange(size))
        kept = dataset["a"]
        dataset["a"] = np.arange(size) + 1
        assert np.array_equal(kept, np.arange(size))
        dataset["a"] = np.arange(size)
        if co._session.working_tree.is_dirty():
            co.commit("now read from the commit")


DTYPES = ["?", "u1", "<i2", ">i4", "<f2", "<f8", "<c16", "S5", "U5", "M8[s]", "i4,f8"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_come_back_as_they_are(co, dtype):
    array = np.zeros((3,), dtype)
    dataset = co.datasets.init_dataset("e", prototype=array)
    if dtype == "U5":
        array = np.array(["a", "äö", ""], dtype)
    else:
        array = np.frombuffer(b"\1" * array.nbytes, array.dtype)
    dataset["a"] = array
    co.commit("one")
    found = dataset["a"]
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


def test_a_single_number_is_an_array_too(co):
    dataset = co.datasets.init_dataset("e", shape=(), dtype=float)
    dataset["a"] = np.array(2.5)
    assert dataset["a"].shape == ()
    assert dataset["a"] == 2.5


def test_variable_shapes(co):
    dataset = co.datasets.init_dataset("v", prototype=ONE, variable_shape=True, max_shape=(1000, 1000))
    shapes = [(1, 1), (2, 3), (1000, 1000), (0, 5), (1, 1000)]
    with dataset:
        for i, shape in enumerate(shapes[:3]):
            dataset[i] = np.full(shape, i, np.float32)
    dataset.update({str(i): np.full(shapes[i], i, np.float32) for i in (3, 4)})
    for wrong in ((1001, 1), (1, 1001), (1,), (1, 1, 1)):
        with pytest.raises(SchemaMismatch, match="at most"):
            dataset["x"] = np.zeros(wrong, np.float32)
    for _ in range(2):
        assert [array.shape for array in dataset.values()] == shapes
        assert all((array == i).all() for i, array in enumerate(dataset.values()))
        if co._session.working_tree.is_dirty():
            co.commit("once staged, once committed")
    assert "(max) Shape      : (1000, 1000)" in repr(dataset)


def test_unnamed_samples_get_keys_in_order_of_time(co):
    dataset = co.datasets.init_dataset("e", prototype=ONE, samples_are_named=False)
    with dataset:
        keys = [dataset.add(ONE + i) for i in range(50)]
    keys += [dataset.add(ONE + i) for i in range(50, 60)]
    assert list(dataset) == keys
    assert [array[0, 0] for array in dataset.values()] == list(range(60))
    assert dataset.add(ONE, "named") == "named"


@pytest.mark.parametrize("shape", [(2, 3), (200, 300)])
def test_the_same_data_again_change_nothing(co, shape):
    dataset = co.datasets.init_dataset("e", shape=shape, dtype="f4")
    data = np.random.default_rng(1).random(shape, np.float32)
    dataset["a"] = data
    co.commit("one")
    dataset["a"] = data.copy()
    dataset.update(a=data)
    with dataset:
        dataset["a"] = data
    assert not co._session.working_tree.is_dirty()
    dataset["a"] = data + 1
    assert co._session.working_tree.is_dirty()


def test_an_empty_file_from_a_mount_is_no_sample_yet(co, dataset):
    co._session.working_tree.put_file((b"d", b"a.npy"), BytesSource(b""), mtime=1)
    assert list(dataset) == [] and "a" not in dataset and len(dataset) == 0
    with pytest.raises(KeyError):
        dataset["a"]
    dataset["a"] = ONE
    assert list(dataset) == ["a"]


def test_names_that_only_a_mount_can_give_are_read_like_others(co, dataset):
    tree = co._session.working_tree
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }"
    file = header.ljust(127) + b"\n" + np.asfortranarray(ONE).tobytes(order="F")
    for name in (b"\xff\xfe.npy", b"l" * 251 + b".npy"):
        tree.put_file((b"d", name), BytesSource(file), mtime=1)
    assert len(dataset) == 2
    for key in dataset:
        assert key in dataset
        assert np.array_equal(dataset[key], ONE)
        del dataset[key]
    assert list(dataset) == []


def test_datasets_are_found_without_looking_at_samples(repository, monkeypatch):
    """Among 20,000 samples that fill many leaves of the tree, committed and then staged upon."""
    with Repository(repository) as repo:
        with repo.checkout(write=True) as co:
            outer = co.datasets.init_dataset("outer", shape=(), dtype=np.int64)
            outer.update({f"{number:05}": np.array(number) for number in range(20_000)})
            co.datasets.init_dataset("outer/00777inner", shape=(), dtype=np.int64)
            assert list(co.datasets) == ["outer", "outer/00777inner"]
            co.commit("one")
            del outer["00776"]
            outer["00001"] = np.array(7)
            assert list(co.datasets) == ["outer", "outer/00777inner"] and len(outer) == 19_999
            outer["20000"] = np.array(7)
            co.datasets.init_dataset("outer/2", shape=(), dtype=np.int64)
            del co.datasets["outer/00777inner"]
            assert list(co.datasets) == ["outer", "outer/2"] and len(outer) == 20_000
            co.commit("two")
        reader = repo.checkout()
        objects, loaded = reader._session.tree._objects, []
        load = objects.node
        monkeypatch.setattr(objects, "node", lambda digest: loaded.append(digest) or load(digest))
        assert list(reader.datasets) == ["outer", "outer/2"]
        assert len(set(loaded)) < 10
