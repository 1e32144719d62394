"""`Files`: many samples of a dataset at once, one in the place of another, folders that become datasets."""

from __future__ import annotations

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
    NotFound,
    ReadOnly,
    Unsupported,
)
from storage.files import Files
from storage.maintenance.verify import verify
from storage.model.samples import make_schema

JSON = make_schema(np.dtype(np.uint8), (), kind="json")
NOW = 1_700_000_000_000_000_000


@pytest.fixture
def tree(repository: Path) -> Iterator[Files]:
    with Repository(repository) as opened:
        files = opened.files()
        files.make_directory("d", schema=JSON)
        yield files
        assert verify(opened._opened()) == []


def put(tree: Files, born: int = NOW, **samples: bytes) -> list[str]:
    names = {f"{name}.json": data for name, data in samples.items()}
    return list(tree.write_samples("d", names, born=("born", dict.fromkeys(names, born))))


def listed(tree: Files) -> dict[str, bytes]:
    return dict(tree.samples("d"))


def births(tree: Files) -> dict[str, bytes | None]:
    return {name: value for name, _, value in tree.list_with("d", "born")}


@pytest.mark.parametrize("committed", [False, True])
def test_many_samples_in_one_step(tree, committed):
    long = b'"' + b"x" * 200_000 + b'"'
    assert put(tree, a=b"1", b=b"[2]", long=long) == []
    if committed:
        tree.commit("first")
    tree.set_attributes("d/a.json", {"colour": b"red"})
    tree.write("d/README", b"no sample")
    tree.write("d/hand.json", b"5")
    put(tree, NOW + 5, a=b"3", c=b"4", hand=b"6")
    assert listed(tree) == {"a.json": b"3", "b.json": b"[2]", "c.json": b"4", "hand.json": b"6", "long.json": long}
    assert tree.count("d") == 5
    assert tree.attributes("d/a.json") == {"born": str(NOW).encode(), "colour": b"red"}
    assert births(tree)["c.json"] == str(NOW + 5).encode() and births(tree)["README"] is None
    assert NOW < int(births(tree)["hand.json"] or 0) < 2 * NOW and births(tree)["hand.json"] != births(tree)["c.json"]
    tree.commit("second")
    assert tree.count("d") == 5 and listed(tree)["a.json"] == b"3"


def test_removing_comes_first_so_that_what_is_put_is_new(tree):
    put(tree, a=b"1", b=b"2")
    left = tree.write_samples(
        "d", {"a.json": b"3"}, born=("born", {"a.json": NOW + 9}), remove=["a.json", "b.json", "nothing.json"]
    )
    assert left == [] and listed(tree) == {"a.json": b"3"} and births(tree) == {"a.json": str(NOW + 9).encode()}


def test_only_instead_of_what_was_read(tree):
    put(tree, a=b"1", b=b"2")
    left = tree.write_samples(
        "d",
        {"a.json": b"10", "b.json": b"20", "c.json": b"30", "e.json": b"40"},
        born=("born", {}),
        instead={"a.json": b"1", "b.json": b"3", "c.json": None, "e.json": b"4"},
    )
    assert sorted(left) == ["b.json", "e.json"]
    assert listed(tree) == {"a.json": b"10", "b.json": b"2", "c.json": b"30"}


@pytest.mark.parametrize(
    "samples, remove, error",
    [
        ({"a.json": b"9", "x.json": b"{"}, [], InvalidSample),
        ({"a.json": b"9", "x.json": b"NaN"}, [], InvalidSample),
        ({"a.json": b"9", "x.json": b""}, [], InvalidSample),
        ({"a.json": b"9", "x.txt": b"1"}, [], Unsupported),
        ({"a.json": b"9", "x/y.json": b"1"}, [], InvalidName),
        ({"a.json": b"9", "folder.json": b"1"}, [], IsADirectory),
        ({"a.json": b"9"}, ["folder.json"], IsADirectory),
    ],
)
def test_what_is_refused_changes_nothing(tree, samples, remove, error):
    put(tree, a=b"1")
    tree.make_directory("d/folder.json")
    with pytest.raises(error):
        tree.write_samples("d", samples, born=("born", dict.fromkeys(samples, NOW)), remove=remove)
    assert listed(tree) == {"a.json": b"1"} and tree.is_directory("d/folder.json")


def test_elsewhere_it_is_refused(repository, tree):
    tree.make_directory("plain")
    tree.make_directory("arrays", schema=make_schema(np.dtype("f4"), (2,)))
    for directory in ("plain", "arrays"):
        with pytest.raises(Unsupported):
            tree.write_samples(directory, {"a.json": b"1"}, born=("born", {}))
    with pytest.raises(NotFound):
        tree.write_samples("nowhere", {"a.json": b"1"}, born=("born", {}))
    put(tree, a=b"1")
    commit = tree.commit("first")
    with Repository(repository) as opened:
        frozen = opened.files(commit=commit)
        assert listed(frozen) == {"a.json": b"1"} and frozen.count("d") == 1 and births(frozen)["a.json"]
        for change in (
            lambda: put(frozen, a=b"2"),
            lambda: frozen.replace_sample("d/a.json", b"1", b"2", born="born"),
            lambda: frozen.set_schema("d", JSON),
            frozen.sync,
        ):
            with pytest.raises(ReadOnly):
                change()


@pytest.mark.parametrize("committed", [False, True])
def test_one_sample_is_replaced_if_it_holds_what_was_read(tree, committed):
    put(tree, a=b'{"n":1}', text=b'"' + b"x" * 100 + b'"')
    if committed:
        tree.commit("first")
    tree.set_attributes("d/a.json", {"colour": b"red"})
    assert tree.replace_sample("d/a.json", b'{"n":1}', b'{"n":2}', born="born")
    assert not tree.replace_sample("d/a.json", b'{"n":1}', b'{"n":3}', born="born")
    assert not tree.replace_sample("d/nothing.json", b"1", b"2", born="born")
    long = b'"' + b"y" * 100_000 + b'"'
    assert tree.replace_sample("d/text.json", tree.read("d/text.json"), long, born="born")
    assert tree.replace_sample("d/text.json", long, b"17", born="born")
    assert listed(tree) == {"a.json": b'{"n":2}', "text.json": b"17"}
    assert tree.attributes("d/a.json") == {"born": str(NOW).encode(), "colour": b"red"}
    with pytest.raises(InvalidSample):
        tree.replace_sample("d/a.json", b'{"n":2}', b"{", born="born")
    tree.write("d/hand.json", b"1")
    was = tree.info("d/hand.json").mtime
    assert tree.replace_sample("d/hand.json", b"1", b"2", born="born")
    assert births(tree)["hand.json"] == str(was).encode()
    tree.sync()
    assert tree.count("d") == 3


def test_a_folder_becomes_a_dataset_with_its_files(tree):
    tree.write_many({"f/a.json": b"1", "f/b.json": b"[2]", "f/README": b"x", "f/empty.json": b"", "file": b"x"})
    was = tree.info("f/a.json").mtime
    tree.set_schema("f", JSON, born="born")
    assert dict(tree.samples("f")) == {"a.json": b"1", "b.json": b"[2]"} and tree.count("f") == 2
    assert tree.attributes("f/a.json") == {"born": str(was).encode()} and tree.read("f/README") == b"x"
    with pytest.raises(InvalidSample):
        tree.write("f/a.json", b"{")
    with pytest.raises(Exists):
        tree.set_schema("f", JSON)
    with pytest.raises(NotADirectory):
        tree.set_schema("file", JSON)
    tree.write_many({"g/a.json": b"1", "g/b.json": b"{"})
    with pytest.raises(InvalidSample, match=r"g/b\.json"):
        tree.set_schema("g", JSON)
    assert tree.schema("g") is None and tree.schema("f") == JSON


def test_the_top_of_a_branch_may_be_a_dataset(repository, tree):
    tree.set_schema("", JSON)
    tree.write_samples("", {"a.json": b"1"}, born=("born", {"a.json": NOW}))
    with pytest.raises(InvalidSample):
        tree.write("b.json", b"{")
    commit = tree.commit("first")
    tree.write("b.json", b"2")
    with pytest.raises(InvalidSample):
        tree.write("c.json", b"{")
    with Repository(repository) as opened:
        assert opened.files(commit=commit).schema("") == opened.files().schema("") == JSON
        assert dict(opened.files().samples("")) == {"a.json": b"1", "b.json": b"2"} and opened.files().count("") == 2
