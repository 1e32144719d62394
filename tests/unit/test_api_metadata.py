"""Metadata: a dict of texts that is committed with the data."""

from __future__ import annotations

import pytest

from storage.errors import InvalidName, Unsupported


def test_metadata_is_a_dict_of_texts(repo):
    with repo.checkout(write=True) as co:
        metadata = co.metadata
        metadata["b"] = "one"
        assert metadata.add("a", "two\nlines, ümläut") == "a"
        metadata.update({"c": "", "7": "x" * 100_000})
        assert dict(metadata) == {"7": "x" * 100_000, "a": "two\nlines, ümläut", "b": "one", "c": ""}
        assert list(metadata) == metadata._ipython_key_completions_() == ["7", "a", "b", "c"]
        assert metadata[7] == metadata["7"]
        assert metadata.get("nope") is None
        assert "a" in metadata and "nope" not in metadata and 3.5 not in metadata
        assert repr(metadata) == "Arborfs Metadata\n    Number of Keys : 4\n    Access Mode    : a"
        assert metadata.remove("b") == "b"
        assert metadata.pop("c") == ""
        for missing in (lambda: metadata["b"], lambda: metadata.remove("b"), lambda: metadata.__delitem__("b")):
            with pytest.raises(KeyError):
                missing()
        assert len(metadata) == 2


def test_metadata_is_versioned(repo):
    with repo.checkout(write=True) as co:
        co.metadata["k"] = "old"
        first = co.commit("one")
        co.metadata["k"] = "old"
        assert repo.status() == "CLEAN"
        co.metadata["k"] = "new"
        co.metadata["other"] = "text"
        co.commit("two")
        assert list(co.datasets) == []
    with repo.checkout(commit=first) as co:
        assert dict(co.metadata) == {"k": "old"}
    with repo.checkout() as co:
        assert dict(co.metadata) == {"k": "new", "other": "text"}


def test_a_commit_without_metadata_has_none(repo):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("d", shape=1, dtype=int)
        assert dict(co.metadata) == {}
        co.commit("one")
    with repo.checkout() as co:
        assert len(co.metadata) == 0 and "k" not in co.metadata


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "a\0", True, 1.5, None, "k" * 241])
def test_what_cannot_be_a_key(repo, key):
    with repo.checkout(write=True) as co:
        with pytest.raises(InvalidName):
            co.metadata[key] = "text"
        with pytest.raises(ValueError):
            co.metadata[key]
        assert len(co.metadata) == 0


@pytest.mark.parametrize("value", [1, None, b"bytes", ["list"], "\ud800"])
def test_what_cannot_be_a_value(repo, value):
    with repo.checkout(write=True) as co:
        with pytest.raises(Unsupported):
            co.metadata["k"] = value
        assert "k" not in co.metadata
