"""How many samples there are, and which are here: told without reading them."""

from __future__ import annotations

import numpy as np
import pytest

from storage.model.samples import BytesSource

TWO = np.array([1, 2], "i4")
LONG = np.random.default_rng(0).integers(0, 255, 300_000).astype("u1")


def require_counts(dataset, samples: dict[str, int]) -> None:
    """Fail unless it says of itself what a walk over it gives."""
    walked = {key: len(value.data) for key, value in dataset.items()}
    assert walked == samples
    assert (len(dataset), dataset.num_subsamples) == (len(samples), sum(samples.values()))


def test_a_nested_dataset_knows_its_length_wherever_its_samples_are(repo):
    with repo.checkout(write=True) as co:
        nested = co.datasets.init_dataset("n", shape=(2,), dtype="i4", contains_subsamples=True)
        require_counts(nested, {})
        samples = {f"{i:04d}": 1 + i % 3 for i in range(700)}
        nested.update({key: {str(i): TWO for i in range(count)} for key, count in samples.items()})
        require_counts(nested, samples)
        co._session.working_tree.put_file((b"n", b"README"), BytesSource(b"a side file"), mtime=1)
        co.commit("one")
        require_counts(nested, samples)
        del nested["0003"], nested["0500"]
        nested["0007"]["more"] = TWO
        nested["new"] = {"a": TWO}
        changed = {key: count for key, count in samples.items() if key not in ("0003", "0500")} | {"new": 1}
        changed["0007"] += 1
        require_counts(nested, changed)
        nested["0003"] = {"again": TWO}
        require_counts(nested, dict(sorted((changed | {"0003": 1}).items())))
        del nested["0003"]
    with repo.checkout() as co:
        require_counts(co["n"], samples)
    with repo.checkout(write=True) as co:
        co.commit("two")
        require_counts(co["n"], changed)
    with repo.checkout() as co:
        require_counts(co["n"], changed)


def test_a_commit_is_walked_over_once_for_the_length_of_a_nested_dataset(repo, monkeypatch):
    with repo.checkout(write=True) as co:
        nested = co.datasets.init_dataset("n", shape=(2,), dtype="i4", contains_subsamples=True)
        nested.update({f"{i:04d}": {"a": TWO} for i in range(700)})
        co.commit("one")
    with repo.checkout() as co:
        objects = co._session.tree.objects
        assert len(co["n"]) == 700
        loaded = []
        read = type(objects).get_many
        monkeypatch.setattr(
            type(objects), "get_many", lambda self, digests: loaded.extend(digests) or read(self, digests)
        )
        assert len(co["n"]) == 700
        assert not loaded
        objects.empty_caches()
        assert len(list(co["n"])) == 700
        assert co["n"].num_subsamples == 700


def lose(repo, dataset, key: str) -> None:
    """Forget where the contents of a sample lie, as if they had never come here."""
    tree = dataset._session.tree
    (chunk,) = tree.open((*dataset._path, key.encode() + dataset._suffix))[1].chunks
    index = tree.objects._index
    with index.write() as txn:
        assert txn.delete(chunk.digest, db=index.objects)
    tree.objects.empty_caches()


def test_hg_44_hg_50_hg_57_samples_whose_contents_are_elsewhere_are_told_apart(repo):
    with repo.checkout(write=True) as co:
        flat = co.datasets.init_dataset("flat", shape=LONG.shape, dtype="u1", variable_shape=True)
        flat.update({"a": LONG, "b": LONG[::-1].copy(), "c": LONG[:5]})
        nested = co.datasets.init_dataset("nested", prototype=LONG, contains_subsamples=True)
        nested.update({"s": {"x": LONG}, "t": {"y": LONG ^ 1, "z": LONG}})
        assert not flat.contains_remote_references and flat.remote_reference_keys == ()
        co.commit("m")
        assert co.datasets.contains_remote_references == {"flat": False, "nested": False}
        assert list(flat.keys(local=True)) == ["a", "b", "c"]
    with repo.checkout() as co:
        flat, nested = co["flat"], co["nested"]
        lose(repo, flat, "b")
        lose(repo, nested["t"], "y")
        assert (flat.contains_remote_references, flat.remote_reference_keys) == (True, ("b",))
        assert (nested.contains_remote_references, nested.remote_reference_keys) == (True, ("t",))
        assert nested["t"].remote_reference_keys == ("y",) and not nested["s"].contains_remote_references
        assert co.datasets.contains_remote_references == {"flat": True, "nested": True}
        assert co.datasets.remote_sample_keys == {"flat": ("b",), "nested": ("t",)}
        here = flat.keys(local=True)
        assert (list(here), len(here), "a" in here, "b" in here, "no" in here) == (["a", "c"], 2, True, False, False)
        assert list(flat) == list(flat.keys()) == ["a", "b", "c"]
        assert [value.size for value in flat.values(local=True)] == [LONG.size, 5]
        assert [(key, value.size) for key, value in flat.items(local=True)] == [("a", LONG.size), ("c", 5)]
        assert list(nested.keys(local=True)) == ["s"]
        with pytest.raises(KeyError):
            flat["b"]
        with pytest.raises(KeyError):
            list(flat.values())


def test_hg_50_what_a_batch_keeps_back_is_here(repo):
    with repo.checkout(write=True) as co:
        flat = co.datasets.init_dataset("flat", prototype=LONG)
        with flat:
            flat["a"] = LONG
            assert "a" in flat.keys(local=True) and "b" not in flat.keys(local=True)
            assert list(flat.keys(local=True)) == ["a"]


def test_hg_50_a_sample_kept_as_a_delta_is_here_only_with_what_it_stands_on(repo):
    changed = LONG.copy()
    changed[1000:1100] = 7
    with repo.checkout(write=True) as co:
        flat = co.datasets.init_dataset("flat", prototype=LONG)
        flat["a"] = LONG
        co.commit("one")
        flat["b"], flat["a"] = LONG, changed
        co.commit("two")
        tree = co._session.working_tree
        (chunk,) = tree.open((b"flat", b"a.npy"))[1].chunks
        assert tree.objects.delta(chunk.digest) is not None
        assert flat.remote_reference_keys == ()
        lose(repo, flat, "b")
        assert flat.remote_reference_keys == ("a", "b")
