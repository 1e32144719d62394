"""Datasets of every kind, flat and nested, named after the lines of the list of what hangar has (sections 1.3 and 1.4)."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.engine import Engine
from storage.errors import Closed, InvalidName, InvalidSample, SchemaMismatch, Unsupported
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource
from storage.repository import Repository

TWO = np.array([1, 2], "i4")


def pairs(co, **more):
    return co.datasets.init_dataset("pairs", shape=(2,), dtype="i4", contains_subsamples=True, **more)


def test_hg_40_keys_lead_to_datasets_samples_and_values(co):
    flat = co.datasets.init_dataset("flat", prototype=TWO)
    nested = pairs(co)
    flat["a"], flat["b"], nested["s"] = TWO, TWO + 1, {"x": TWO, "y": TWO * 2}
    assert co["flat"] is flat
    assert co["flat", "a"].tolist() == [1, 2]
    assert co["pairs", "s", "y"].tolist() == [2, 4]
    assert {key: value.tolist() for key, value in co["pairs", "s", ...].items()} == {"x": [1, 2], "y": [2, 4]}
    assert [value.tolist() for value in co[("flat", "b"), ("pairs", "s", "x")]] == [[2, 3], [1, 2]]
    for missing in ("no", ("flat", "no"), ("pairs", "s", "no"), ("flat", "a", "x"), (("flat", "a"), ("flat", "no"))):
        with pytest.raises(KeyError):
            co[missing]
        with pytest.raises(KeyError):
            co.get(missing, except_missing=True)
    assert co.get(("flat", "no"), 7) == 7
    assert co.get((("flat", "a"), ("flat", "no")), None)[1] is None
    assert (len(co), list(co), "flat" in co, "no" in co) == (2, ["flat", "pairs"], True, False)
    assert list(co.keys()) == [name for name, _ in co.items()] == [each.name for each in co.values()]
    with pytest.raises(ValueError):
        co["pairs", "s", "x", "more"]


def test_hg_40_a_list_of_keys_gives_a_list(co):
    flat = co.datasets.init_dataset("flat", prototype=TWO)
    flat["a"], flat["b"] = TWO, TWO + 1
    both = [("flat", "b"), ("flat", "a")]
    for found in (co[both], co[tuple(both)], co.get(both), co.get(both, except_missing=True)):
        assert [value.tolist() for value in found] == [[2, 3], [1, 2]]
    assert co[["flat"]] == [flat] and co[[]] == []
    with pytest.raises(KeyError):
        co.get([*both, ("flat", "no")], except_missing=True)
    with pytest.raises(KeyError):
        co[[*both, ("flat", "no")]]


def test_hg_40_the_log_of_what_is_checked_out(repo, co, capsys):
    assert co.log() is None
    assert capsys.readouterr().out == "No commits made\n"
    co.datasets.init_dataset("t", kind="str")
    first = co.commit("one")
    co["t"]["a"] = "x"
    second = co.commit("two")
    capsys.readouterr()
    co.log(show_time=False, show_user=False)
    assert capsys.readouterr().out == f"* {second[:16]}: two\n* {first[:16]}: one\n"
    assert co.log(return_contents=True) == repo.log(return_contents=True)
    for reader in (repo.checkout(commit=first), repo.checkout(staged=True), co):
        told = reader.log(return_contents=True)
        assert told["head"] == reader.commit_hash and first in told["order"]
        reader.close()
        with pytest.raises(Closed):
            reader.log()


def test_hg_40_closed_checkouts_refuse_everything(repo):
    with repo.checkout(write=True) as co:
        flat, nested = co.datasets.init_dataset("flat", prototype=TWO), pairs(co)
        flat["a"], nested["s"] = TWO, {"x": TWO}
        sample = nested["s"]
        co.commit("m")
    reader = repo.checkout()
    read = reader["flat"], reader["pairs"], reader["pairs", "s"]
    reader.close()
    for each in (flat, nested, sample, *read):
        for use in (
            lambda d: d["a"], lambda d: d["x"], len, list, lambda d: "a" in d, lambda d: d.get("a"), lambda d: dict(d.items()),
            lambda d: list(d.values()), lambda d: d.append(TWO), lambda d: d.add(TWO, "q"), lambda d: d.update({"q": TWO}),
            lambda d: d.pop("a"), lambda d: d.remove("a"), lambda d: d.__setitem__("q", TWO), lambda d: d.__delitem__("a"),
            lambda d: d[["a"]], lambda d: d.__enter__(),
        ):  # fmt: skip
            with pytest.raises(PermissionError):
                use(each)
    for each in (co, reader):
        for use in (lambda c: c["flat"], lambda c: c.get("flat"), len, list, lambda c: "flat" in c, lambda c: c.keys()):
            with pytest.raises(Closed):
                use(each)


def test_hg_41_kinds_and_what_cannot_be_one(co, capsys):
    for kind in ("str", "bytes", "json"):
        dataset = co.datasets.init_dataset(kind, kind=kind)
        assert (dataset.kind, dataset.column_layout, dataset.schema_type) == (kind, "flat", "variable_shape")
    assert capsys.readouterr().out.splitlines()[0] == "Dataset provided kind: str"
    for wrong in ({"kind": "str", "shape": 2}, {"kind": "json", "dtype": int}, {"kind": "bytes", "variable_shape": True},
                  {"kind": "ndarray"}, {"kind": "str", "compression": "gzip"}, {"prototype": np.zeros((2, 0))}):  # fmt: skip
        with pytest.raises(ValueError):
            co.datasets.init_dataset("wrong", **wrong)
    with pytest.raises(LookupError):
        co.datasets.init_dataset("str", kind="json")
    assert list(co) == ["bytes", "json", "str"]


def test_hg_41_a_dtype_without_a_length_is_refused(co):
    for dtype in ("U", str, "S", bytes, "V"):
        with pytest.raises(ValueError, match="says not how long"):
            co.datasets.init_dataset("wrong", shape=(2,), dtype=dtype)
    assert list(co) == []


def test_hg_41_names_that_cannot_be_are_told_once(co):
    for name in ("", "a//b", "a/..", ".arborfs", "x" * 241, "\ud800"):
        with pytest.raises(InvalidName) as caught:
            co.datasets.init_dataset(name, kind="str")
        assert str(caught.value).count("is not suitable") == 1 and str(caught.value).startswith("Dataset name ")
    with pytest.raises(InvalidName, match="Metadata key"):
        co.metadata["a/b"] = "x"


def test_hg_50_what_a_dataset_says_of_itself(co):
    nested = pairs(co, compression="zstd")
    assert (nested.kind, nested.column_layout, nested.schema_type) == ("array", "nested", "fixed_shape")
    assert (nested.dtype, nested.shape, nested.compression) == (np.dtype("i4"), (2,), "zstd")
    assert nested.contains_subsamples and nested.iswriteable
    text = co.datasets.init_dataset("text", kind="str")
    assert not text.contains_subsamples


@pytest.mark.parametrize(
    "kind, values",
    [
        ("str", ["", "plain", "Grüße 🌲\n", "x" * 200_000]),
        ("bytes", [b"", b"\0\xff", bytes(range(256)) * 1000]),
        ("json", [None, True, 1, 2.5, "text", [], {"a": [1, {"b": None}]}, ["ä" * 5000]]),
    ],
)
def test_hg_51_values_of_every_kind_come_back_equal(repo, kind, values):
    with repo.checkout(write=True) as co:
        dataset = co.datasets.init_dataset("d", kind=kind)
        for number, value in enumerate(values):
            dataset[number] = value
        assert [dataset[number] for number in range(len(values))] == values
        co.commit("m")
        assert [dataset[number] for number in range(len(values))] == values
        assert dataset[["1", "0"]] == [values[1], values[0]]
        assert (dataset.pop("0"), dataset.get("0", "gone"), len(dataset)) == (values[0], "gone", len(values) - 1)
    with repo.checkout() as reader:
        assert list(reader["d"].values()) == values
        assert list(reader["d"].keys(local=True)) == [str(number) for number in range(len(values))]
        with pytest.raises(PermissionError):
            reader["d"].append(values[0])


def test_hg_51_flat_datasets_append_and_update(co):
    dataset = co.datasets.init_dataset("d", kind="str")
    first, second = dataset.append("one"), dataset.append("two")
    assert first < second
    assert list(dataset.values()) == ["one", "two"]
    with pytest.raises(ValueError):
        dataset.update({"a": "fine", "b": 3})
    assert "a" not in dataset
    dataset.update({"a": "A"}, b="B")
    dataset.update([("c", "C")])
    with dataset:
        dataset["d"] = "D"
        assert dataset["d"] == "D"
    assert [dataset[key] for key in "abcd"] == list("ABCD")
    del dataset["a"]
    with pytest.raises(KeyError):
        del dataset["a"]


def test_hg_51_what_no_update_takes(co):
    dataset = co.datasets.init_dataset("d", prototype=TWO)
    rows = np.stack([TWO, TWO])
    for keys, arrays, more in (
        ("ab", [rows], {}),
        (["a", "b"], [rows, rows], {}),
        (["a", "b"], [rows], {"c": TWO}),
        (["a"], [rows], {}),
        (["a", "b"], [TWO.tolist()], {}),
        (3, [], {}),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            dataset.update(keys, *arrays, **more)
        assert "_update_rows" not in str(caught.value)
    with pytest.raises(TypeError, match="letter by letter"):
        dataset.stack("ab")
    assert len(dataset) == 0


def test_hg_52_keys_that_cannot_be_are_refused_and_ints_are_their_digits(co):
    text, nested = co.datasets.init_dataset("t", kind="str"), pairs(co)
    for key in (True, False, -1, 1.0, None, "", ".", "..", "a/b", "a\0b", b"a", "a" * 241, 10**240, 10**5000):
        with pytest.raises(InvalidName):
            text[key] = "x"
        with pytest.raises(InvalidName):
            nested[key] = {"x": TWO}
        with pytest.raises(InvalidName):
            nested["s"] = {key: TWO}
    text[1], nested[2] = "one", {3: TWO}
    assert text["1"] == "one"
    assert co["pairs", "2", 3].tolist() == [1, 2]
    assert list(nested) == ["2"]
    longest = 10**240 - 1
    text[longest] = "digits"
    assert text[str(longest)] == text.pop(longest) == "digits"


def test_hg_52_what_waits_in_a_batch_is_found_by_the_same_keys(co):
    text = co.datasets.init_dataset("t", kind="str")
    with text:
        text["-1"], text[7] = "minus one", "seven"
        for key in (-1, True, 10**5000):
            assert key not in text
            with pytest.raises(InvalidName):
                text[key]
        assert (text["-1"], text["7"], text[7]) == ("minus one", "seven", "seven")


@given(key=st.one_of(st.text(max_size=80), st.integers(-9, 10**9), st.booleans()), value=st.text(max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hg_52_any_key_is_refused_or_comes_back(repo, co, key, value):
    text = co.datasets["t"] if "t" in co else co.datasets.init_dataset("t", kind="str")
    try:
        text[key] = value
    except InvalidName:
        assert key not in text
        return
    assert list(text) == [str(key)]
    assert text[key] == text[str(key)] == value
    commit = co.commit("m")
    with repo.checkout(commit=commit) as reader:
        assert dict(reader["t"].items()) == {str(key): value}
    del text[key]
    co.commit("without")


@pytest.mark.parametrize(
    "kind, wrong",
    [
        ("str", [b"bytes", 3, None, "\ud800", TWO]),
        ("bytes", ["text", 3, None, [1], TWO]),
        ("json", [float("nan"), {1: 2}, (1, 2), {"a": (1,)}, b"x", object(), {"a"}, "\ud800", TWO]),
    ],
)
def test_hg_53_values_that_do_not_fit_are_refused(co, kind, wrong):
    dataset = co.datasets.init_dataset("d", kind=kind)
    for value in wrong:
        with pytest.raises(SchemaMismatch):
            dataset["a"] = value
    assert len(dataset) == 0


@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "c8", "c16", ">i4", "M8[s]", "m8[ns]",
     "S5", "U3", [("a", "i4"), ("b", "f8", (2,))]],
)  # fmt: skip
def test_hg_54_every_dtype_comes_back_in_flat_and_nested_datasets(repo, dtype):
    raw = np.random.default_rng(0).integers(0, 2, 6 * np.dtype(dtype).itemsize, dtype="u1")
    array = np.frombuffer(raw.tobytes(), dtype).reshape(2, 3)
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("flat", prototype=array)["k"] = array
        co.datasets.init_dataset("nested", prototype=array, contains_subsamples=True)["k"] = {"x": array}
        co.datasets.init_dataset("variable", prototype=array, variable_shape=True)["k"] = array[:1]
        co.commit("m")
    with repo.checkout() as co:
        for found in (co["flat", "k"], co["nested", "k", "x"], co["flat"].stack()[0]):
            assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())
        assert co["variable", "k"].tobytes() == array[:1].tobytes()


def test_hg_54_fields_that_no_file_can_say_are_refused(co):
    for offsets in ([4, 0], [0, 0]):
        dtype = np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": offsets, "itemsize": 16})
        for described in ({"shape": (2,), "dtype": dtype}, {"prototype": np.zeros(2, dtype)}):
            with pytest.raises(Unsupported, match="repack_fields"):
                co.datasets.init_dataset("d", **described)
        packed = co.datasets.init_dataset("p", prototype=np.zeros(2, [("a", "i4"), ("b", "i4")]))
        with pytest.raises(SchemaMismatch):
            packed["k"] = np.zeros(2, dtype)
        del co.datasets["p"]
    assert list(co.datasets) == []


def test_hg_55_nested_samples_are_dicts(co):
    nested = pairs(co)
    nested["s"] = {"a": TWO, "b": TWO + 1}
    nested.update({"t": {"0": TWO}}, u={"0": TWO})
    sample = nested["s"]
    assert (sample.sample, len(sample), list(sample), list(nested)) == ("s", 2, ["a", "b"], ["s", "t", "u"])
    assert sample["a"].tolist() == [1, 2]
    assert list(sample[...]) == list(sample.data) == ["a", "b"]
    assert list(sample[1:]) == ["b"]
    assert sample.get("no") is None
    sample["c"] = TWO
    sample.update({"d": TWO})
    generated = sample.append(TWO * 5)
    assert sample.pop(generated).tolist() == [5, 10]
    assert sample.stack(["d", "a"]).shape == (2, 2)
    nested["s"] = {"a": TWO * 3}
    assert sample["a"].tolist() == [3, 6]
    assert (len(nested), nested.num_subsamples) == (3, 6)
    assert nested.pop("t")["0"].tolist() == [1, 2]
    del nested["u"]
    for key in ("t", "u"):
        with pytest.raises(KeyError):
            nested[key]
    assert {key: list(each.data) for key, each in nested.items()} == {"s": ["a", "b", "c", "d"]}


def test_hg_55_the_last_value_takes_its_sample_along(repo, co):
    nested = pairs(co)
    nested["s"], nested["t"] = {"a": TWO, "b": TWO}, {"a": TWO}
    co.commit("m")
    del nested["s"]["a"]
    assert list(nested) == ["s", "t"]
    nested["s"].pop("b")
    assert list(nested) == ["t"]
    assert not co._session.tree.entry((b"pairs",)).schema.is_sample
    with pytest.raises(KeyError):
        nested["s"]
    co.commit("gone")
    assert list(repo.checkout()["pairs"]) == ["t"]


def test_hg_55_updates_of_nested_datasets_are_all_or_nothing(co):
    nested = pairs(co)
    for wrong in ({"s": {"a": TWO}, "t": {"b": [1, 2]}}, {"s": {"a": TWO}, "t": {}}, {"s": {"a": TWO}, "t": TWO}):
        with pytest.raises(SchemaMismatch):
            nested.update(wrong)
    with pytest.raises(SchemaMismatch):
        nested.update(["s"], TWO.reshape(1, 2))
    assert list(nested) == []


def test_hg_55_nested_kinds(co):
    for kind, value in (("str", "text"), ("bytes", b"\0"), ("json", {"a": [1]})):
        nested = co.datasets.init_dataset(kind, kind=kind, contains_subsamples=True, samples_are_named=False)
        key = nested.append({"x": value})
        assert nested[key].data == {"x": value}
        assert co[kind, key, "x"] == value


def test_hg_70_differences_name_the_values_of_nested_samples(repo, co):
    nested = pairs(co)
    nested["s"] = {"a": TWO, "b": TWO}
    co.commit("one")
    nested["s"] = {"a": TWO + 1}
    nested["new"] = {"x": TWO}
    del nested["s"]["b"]
    found = co.diff.staged().diff
    assert [tuple(key) for key in found.added.samples] == [("pairs", "new/x")]
    assert [tuple(key) for key in found.deleted.samples] == [("pairs", "s/b")]
    assert [tuple(key) for key in found.mutated.samples] == [("pairs", "s/a")]
    assert not (found.added.schema or found.added.files or found.mutated.schema)


def test_hg_74_nested_samples_merge_value_by_value(repo, co):
    nested = pairs(co)
    nested["s"] = {"a": TWO}
    co.commit("base")
    repo.create_branch("other")
    with repo.checkout(write=True, branch="other") as other:
        other["pairs", "s"]["b"] = TWO + 1
        other.commit("theirs")
    nested["s"] = {"c": TWO + 2}
    co.commit("ours")
    co.merge("both", "other")
    assert list(nested["s"]) == ["a", "b", "c"]


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_hg_74_nested_datasets_that_both_sides_made_alike_become_one(repo, co, compression):
    co.metadata["some"] = "thing"
    co.commit("base")
    repo.create_branch("other")
    with repo.checkout(write=True, branch="other") as other:
        theirs = pairs(other, compression=compression)
        theirs["t"], theirs["both"] = {"x": TWO}, {"there": TWO}
        other.commit("theirs")
    ours = pairs(co)
    ours["s"], ours["both"] = {"x": TWO + 1}, {"here": TWO}
    co.commit("ours")
    co.merge("both", "other")
    merged = co["pairs"]
    assert {key: sorted(sample) for key, sample in merged.items()} == {
        "both": ["here", "there"],
        "s": ["x"],
        "t": ["x"],
    }
    for key in merged:  # what came from either side can be changed like any other
        merged[key] = {"more": TWO}
        merged[key]["x"] = TWO
    assert merged.num_subsamples == 8
    del merged["t"]["x"]
    assert merged.pop("t")["more"].tolist() == [1, 2]
    wide = co.datasets.widen("pairs", dtype="i8")
    assert {key: sample["x"].dtype.str for key, sample in wide.items()} == {"both": "<i8", "s": "<i8"}
    co.commit("wide")
    assert repo.verify_repo_integrity()


def test_files_in_the_tree_are_checked_by_kind(co):
    tree = co._session.working_tree
    for kind in ("str", "json", "bytes"):
        co.datasets.init_dataset(kind, kind=kind)
    with pytest.raises(InvalidSample, match="is not JSON"):
        tree.put_file((b"json", b"a.json"), BytesSource(b'{"a": NaN}'))
    with pytest.raises(InvalidSample, match="UTF-8"):
        tree.put_file((b"str", b"a.txt"), BytesSource(b"\xff"))
    tree.put_file((b"json", b"a.json"), BytesSource(b' {"a":\n1} '))
    tree.put_file((b"str", b"a.txt"), BytesSource(b""))
    tree.put_file((b"bytes", b"any.name"), BytesSource(b"\xff"))
    assert (co["json", "a"], co["str", "a"], co["bytes", "any.name"]) == ({"a": 1}, "", b"\xff")
    assert tree.open((b"json", b"a.json"))[1].read(0, 99) == b' {"a":\n1} '


def test_hg_06_samples_have_names_or_get_them(co):
    named = co.datasets.init_dataset("named", prototype=TWO)
    assert named.add(data=TWO, name="0") == "0"
    with pytest.raises(ValueError):
        named.add(TWO)
    before = co._session.working_tree.entry((b"named", b"0.npy"))
    named["0"] = TWO.copy()
    assert co._session.working_tree.entry((b"named", b"0.npy")) == before
    unnamed = co.datasets.init_dataset("unnamed", prototype=TWO, samples_are_named=False)
    keys = [unnamed.add(TWO + n) for n in range(20)]
    assert keys == sorted(set(keys)) == list(unnamed)


def test_hg_15_one_key_for_samples_of_several_datasets(co):
    for kind in ("str", "json"):
        co.datasets.init_dataset(kind, kind=kind, samples_are_named=False)
    pairs(co, samples_are_named=False)
    key = co.datasets.add({"str": "a", "json": [1], "pairs": {"x": TWO}})
    assert (co["str", key], co["json", key], co["pairs", key, "x"].tolist()) == ("a", [1], [1, 2])
    for wrong in ({"str": "b", "json": {1}}, {"str": "b", "pairs": {}}, {}):
        with pytest.raises(ValueError):
            co.datasets.add(wrong)
    with pytest.raises(KeyError):
        co.datasets.add({"str": "b", "no": 1})
    assert [len(dataset) for dataset in co.values()] == [1, 1, 1]


def test_hg_42_commit_reset_and_close(repo, co):
    with pytest.raises(RuntimeError, match="No changes made in staging area"):
        co.commit("nothing")
    text = co.datasets.init_dataset("t", kind="str")
    with text:
        text["a"] = "in a batch"
        commit = co.commit("m")
    assert repo.checkout(commit=commit)["t", "a"] == "in a batch"
    with pytest.raises(RuntimeError):
        co.reset_staging_area()
    text["b"] = "dropped"
    assert co.reset_staging_area() == commit
    assert list(co["t"]) == ["a"]
    assert co.close()


def test_hg_43_what_is_staged_stays_for_the_next_writer(repo):
    with repo.checkout(write=True) as co:
        pairs(co)["s"] = {"x": TWO}
    with repo.checkout(write=True) as co:
        assert co["pairs", "s", "x"].tolist() == [1, 2]


def test_hg_44_datasets_are_a_dict_that_can_lose_some(co):
    nested = pairs(co)
    nested["s"] = {"x": TWO}
    co.datasets.init_dataset("t", kind="str")
    assert co.datasets.iswriteable
    assert co.datasets.remove_dset("pairs") == "pairs"
    del co.datasets["t"]
    assert list(co.datasets) == []
    with pytest.raises(KeyError):
        nested["s"]


@pytest.mark.parametrize("given", [b"im\xff", b"x" * 255, b"above/" + b"\xfe" * 250])
def test_hg_44_names_that_a_mount_gave_are_names_here(repo, co, given):
    tree = co._session.working_tree
    co.datasets.init_dataset("images", prototype=TWO)["0"] = TWO
    tree.make_directory((b"above",))
    tree.rename((b"images",), tuple(given.split(b"/")))
    (name,) = co.datasets
    assert name in co.datasets and dict(co.items())[name]["0"].tolist() == [1, 2]
    co[name]["1"] = TWO
    co.commit("m")
    with repo.checkout() as reader:
        assert reader[name, "1"].tolist() == pickle.loads(pickle.dumps(reader[name]))["1"].tolist() == [1, 2]
    assert co.datasets.widen(name, dtype="i8")["1"].dtype == np.int64
    for wrong in (name + "x", name[:-1], "/", f"{name}/..", "\ud800", "a\0b", 3, None):
        assert wrong not in co.datasets
    renamed = co.datasets.rename(name, "images")
    assert list(renamed) == ["0", "1"] and co.datasets.remove_dset("images") == "images"


def test_hg_44_datasets_can_be_removed_while_they_are_listed(co):
    for name in ("a", "a/inner", "b", "c/d/e"):
        co.datasets.init_dataset(name, kind="str")
    for name in co.datasets:
        del co.datasets[name]
    assert list(co.datasets) == []
    for name in ("a", "b", "c"):
        co.datasets.init_dataset(name, kind="str")
    names = iter(co.datasets)
    assert next(names) == "a"
    del co.datasets["b"]
    assert list(names) == ["c"]


def test_hg_29_kinds_and_nested_samples_are_verified_and_rebuilt(repository):
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        for kind, value in (("str", "ä" * 3000), ("bytes", b"\0" * 90_000), ("json", ["a" * 5000])):
            co.datasets.init_dataset(kind, kind=kind, compression="zstd")["k"] = value
        pairs(co)["s"] = {"x": TWO}
        co.commit("m")
        pairs_staged = co["pairs"]
        pairs_staged["t"] = {"x": TWO}
    shutil.rmtree(repository / ".arborfs" / "index")
    with Repository(repository) as repo, repo.checkout(staged=True) as co:
        assert (co["str", "k"], co["json", "k"]) == ("ä" * 3000, ["a" * 5000])
        assert list(co["pairs"]) == ["s", "t"]
    with Engine.open(repository) as engine:
        assert not verify(engine)


def test_hg_13_the_summary_tells_of_every_kind(repo, co, capsys):
    co.datasets.init_dataset("text", kind="str")["a"] = "x"
    nested = pairs(co)
    nested["s"], nested["t"] = {"a": TWO, "b": TWO}, {"a": TWO}
    co.commit("m")
    repo.summary()
    text = capsys.readouterr().out
    assert "Dataset Name: pairs\n|    Num Arrays: 3" in text
    assert "Dataset Name: text\n|    Num Arrays: 1" in text
    assert "schema_dtype: str" in text
    assert "schema_dtype: 5" in text
