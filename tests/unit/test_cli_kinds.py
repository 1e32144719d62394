"""Datasets of texts, bytes, JSON and of nested samples on the command line."""

import base64

import numpy as np
import pytest

from storage import Repository
from tests.unit.test_cli_hangar import Command


@pytest.fixture
def run(repository):
    return Command(repository)


def put(run, dataset, **values):
    with Repository(run.repository) as repo, repo.checkout(write=True) as checkout:
        for key, value in values.items():
            checkout.datasets[dataset][key] = value


@pytest.mark.parametrize(
    "word, kind, value, shown, told",
    [
        ("STR", "str", "größe\n\x1b[2Jtwo", "größe\n\\x1b[2Jtwo\n", "größe\n\x1b[2Jtwo"),
        ("JSON", "json", {"a": [1, "é"]}, '{\n  "a": [\n    1,\n    "é"\n  ]\n}\n', {"a": [1, "é"]}),
        ("bytes", "bytes", b"\0\x01x", "3 bytes\n00000000  00 01 78\n", base64.b64encode(b"\0\x01x").decode()),
    ],
)
def test_values_that_are_no_arrays_are_made_listed_and_viewed(run, word, kind, value, shown, told):
    made = run.json("dataset", "create", "values", word)
    assert (made["kind"], made["dtype"], made["nested"]) == (kind, None, False)
    put(run, "values", a=value)
    assert run("view", "values", "a") == shown
    assert run.json("view", "values", "a")["value"] == told
    assert run("dataset").splitlines()[1].split() == ["values", kind, "1"]
    assert "no array" in run("view", "values", "a", "--picture", code=2)


def test_texts_have_no_shape(run):
    assert "shape" in run("dataset", "create", "values", "STR", "3", code=2)
    assert "shape" in run("dataset", "create", "values", "STR", "--variable-shape", code=2)


def test_compression_is_chosen_when_a_dataset_is_made(run):
    assert run.json("dataset", "create", "values", "uint8", "3", "--compression", "lz4")["compression"] == "lz4"
    run("dataset", "create", "others", "uint8", "3", "--compression", "rar", code=2)


def test_nested_samples_are_viewed_whole_or_by_one_value(run, tmp_path):
    made = run.json("dataset", "create", "frames", "INT16", "2", "--contains-subsamples")
    assert made["nested"]
    put(run, "frames", first={"x": np.array([1, 2], np.int16), "y": np.array([3, 4], np.int16)})
    assert run("view", "frames", "first") == "x:\nint16 2\n[1 2]\ny:\nint16 2\n[3 4]\n"
    assert run("view", "frames", "first/y") == "int16 2\n[3 4]\n"
    assert run.json("view", "frames", "first")["values"]["x"]["value"] == [1, 2]
    assert run.json("view", "frames", "first/x")["value"] == [1, 2]
    run("view", "frames", "first/z", code=3)
    assert [(row["name"], row["samples"]) for row in run.json("dataset", "list")] == [("frames", 1)]
    run("commit", "-m", "frames")
    run("export", ":frames", tmp_path / "first", "-s", "first")
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["x.npy", "y.npy"]
