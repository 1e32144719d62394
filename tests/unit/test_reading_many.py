"""Reading many samples of a commit at once, in order and by key, gives what reading them one by one from a branch gives."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.engine import Engine
from storage.errors import Closed, Corrupt
from storage.model.digest import blake
from storage.model.records import Attributes, Author, Entry, Kind, encode_head, sample_head
from storage.model.samples import BytesSource
from storage.stacking import Stacker
from storage.stores.building import apply_edits
from storage.tree import read
from storage.tree.node import EMPTY, Child, Inner, Sums, encode_inner, encode_leaf

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COUNT = 1500


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A map of three levels, its rows, and where it is kept."""
    folder = tmp_path_factory.mktemp("large")
    Engine.create(folder, Author("Ada", "ada@example.org")).close()
    with Engine.open(folder) as engine:
        rows = [(b"%05d" % (2 * i), sample_head(4096, 5), bytes([i % 251]) * 4096) for i in range(COUNT)]
        root = apply_edits(engine.objects, EMPTY, [(key, (head, value)) for key, head, value in rows])[0]
        yield engine.objects, root, rows


def test_rows_come_in_order_through_all_levels(large):
    objects, root, rows = large
    top = objects.node(root)
    assert isinstance(top, Inner) and top.level == 2
    assert list(read.rows_ahead(objects.node, objects.nodes, root)) == rows
    objects.empty_caches()
    assert list(read.rows_ahead(objects.node, objects.nodes, root)) == rows
    assert list(read.rows_ahead(objects.node, objects.nodes, EMPTY)) == []


def test_leaves_are_found_with_the_samples_before_them(large):
    objects, root, rows = large
    keys = [key for key, _, _ in rows]
    found = read.leaves(objects.node, root)
    assert [before for before, _, _ in found] == [keys.index(objects.node(digest).key(0)) for _, _, digest in found]
    assert [count for _, count, _ in found] == [len(objects.node(digest)) for _, _, digest in found]
    (leaf,) = read.leaves(objects.node, found[0][2])
    assert leaf == found[0]
    assert read.leaves(objects.node, EMPTY) == []


@pytest.mark.parametrize("plain", [True, False])
def test_a_stack_over_nodes_that_contradict_each_other_is_refused(repo, plain):
    """Two leaves whose counts are exchanged in the node above: each sample would have another's place."""
    rows = [(b"%03d.npy" % i, sample_head(4096, 5), bytes([i]) * 4096) for i in range(30)]
    if not plain:
        head = encode_head(Entry(Kind.SAMPLE, 4096, attributes=Attributes(mode=0o600)))
        rows = [(name, head, value) for name, _, value in rows]
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("d", shape=(4096,), dtype="u1")
        objects = co._session.tree.objects
        nodes = {blake(raw): raw for raw in (encode_leaf(rows[:10]), encode_leaf(rows[10:]))}
        true = [
            Child(part[-1][0], digest, Sums(len(part), len(part), 4096 * len(part)))
            for digest, part in zip(nodes, (rows[:10], rows[10:]), strict=True)
        ]
        wrong = [true[0]._replace(sums=true[1].sums), true[1]._replace(sums=true[0].sums)]
        for children in (true, wrong):
            raw = encode_inner(1, children)
            nodes[blake(raw)] = raw
        objects.put_nodes(list(nodes.items()))
        good, bad = list(nodes)[2:]

        def stacked(root):
            stacker = Stacker(co._session.tree, (b"d",), co["d"].schema, np.dtype("u1"))
            out = np.zeros((30, 4096), "u1")
            for place, entry in stacker._sliced(read.leaves(objects.node, root), out):
                out[place] = np.frombuffer(entry.value, "u1")
            return out

        assert (stacked(good) == np.arange(30, dtype="u1")[:, None]).all()
        with pytest.raises(Corrupt):
            stacked(bad)


@QUICK
@given(numbers=st.lists(st.integers(min_value=-1, max_value=2 * COUNT + 1), max_size=60))
def test_keys_are_looked_up_by_leaf_whether_they_are_there_or_not(large, numbers):
    objects, root, rows = large
    keys = sorted(b"%05d" % number if number >= 0 else b"" for number in numbers)
    found = []
    for leaf, places in read.grouped(objects.node, objects.nodes, root, keys):
        found += [None if place < 0 or leaf is None else leaf.row(place) for place in places]
    there = {row[0]: row for row in rows}
    assert found == [there.get(key) for key in keys]
    places = [place for _, some in read.grouped(objects.node, objects.nodes, EMPTY, keys) for place in some]
    assert places == [-1] * len(keys)


def test_nodes_are_kept_only_if_they_are_wanted(large):
    objects, root, _ = large
    digests = [digest for _, _, digest in read.leaves(objects.node, root)][:5]
    objects.empty_caches()
    passing = objects.nodes(digests, keep=False)
    kept = objects.nodes(digests)
    assert [node.raw for node in passing] == [node.raw for node in kept]
    assert all(a is not b for a, b in zip(passing, kept, strict=True))
    assert all(a is b for a, b in zip(objects.nodes(digests, keep=False), kept, strict=True))


def npy(array) -> BytesSource:
    file = io.BytesIO()
    np.save(file, array)
    return BytesSource(file.getvalue())


def filled(co, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A dataset `d` in which samples are kept in every way there is; its samples in order."""
    rng = np.random.default_rng(0)
    samples = {f"{i:05d}": rng.integers(0, 1000, shape).astype("i2") for i in range(1200)}
    dataset = co.datasets.init_dataset("d", shape=shape, dtype="i2")
    dataset.update(samples)
    tree = co._session.working_tree
    for i in (300, 301, 900):  # headers of their own
        tree.put_file((b"d", b"%05d.npy" % i), npy(np.array(samples[f"{i:05d}"], order="F")), mtime=1)
    tree.put_file((b"d", b"00310.npy"), npy(samples["00310"]), mtime=1, attributes=Attributes(mode=0o600))
    tree.put_file((b"d", b"00500.txt"), BytesSource(b"a side file"), mtime=1)
    tree.put_file((b"d", b"00600x.npy"), BytesSource(b""), mtime=1)
    return samples


@pytest.mark.parametrize("shape", [(2, 3), (5,), (), (40, 60)])
def test_every_way_of_reading_gives_the_same(repo, shape):
    with repo.checkout(write=True) as co:
        samples = filled(co, shape)
        co.commit("m")
        on_branch = list(co["d"].values())
    wanted = np.stack(list(samples.values()))
    keys = list(samples)
    with repo.checkout() as co:
        dataset = co["d"]
        assert np.array_equal(np.stack(on_branch), wanted)
        assert np.array_equal(np.stack(list(dataset.values())), wanted)
        assert np.array_equal(np.stack([dataset[key] for key in keys]), wanted)
        assert [key for key, _ in dataset.items()] == list(dataset) == keys
        assert np.array_equal(dataset.stack(), wanted)
        picked = [keys[i] for i in (301, 5, 1199, 310, 5, 0, 900, 299)]
        assert np.array_equal(dataset.stack(picked), [samples[key] for key in picked])
        assert np.array_equal(dataset.stack(keys[::-1]), wanted[::-1])
        for array in (*dataset.values(), dataset[keys[7]]):
            assert (type(array), array.shape, array.dtype) == (np.ndarray, shape, np.dtype("i2"))
            assert not array.flags.writeable
        for missing in ("00600x", "00500.txt", "no"):
            with pytest.raises(KeyError):
                dataset[missing]
            with pytest.raises(KeyError):
                dataset.stack([keys[0], missing])


@pytest.mark.parametrize("dtype", ["i2", "<M8[s]", [("a", "u1"), ("b", "<f4")], "U3", "c16"])
def test_a_stack_is_put_where_it_was_wanted_whatever_the_dtype(repo, dtype):
    wanted = np.zeros((500, 3), dtype)
    if wanted.dtype.names is None:
        wanted[:] = np.arange(1500).reshape(500, 3).astype(dtype)
    else:
        wanted["b"] = np.arange(1500).reshape(500, 3)
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("d", prototype=wanted[0]).update([f"{i:03d}" for i in range(500)], wanted)
        co.commit("m")
    with repo.checkout() as co:
        for out in (np.empty((500, 3), dtype), np.empty((500, 6), dtype)[:, ::2], np.empty((3, 500), dtype).T):
            assert co["d"].stack(out=out) is out
            assert np.array_equal(out, wanted)
            out[:] = np.zeros(1, dtype)
            assert co["d"].stack([f"{i:03d}" for i in range(500)], out=out) is out
            assert np.array_equal(out, wanted)


def long_samples(dtype: str, count: int, noise: int) -> np.ndarray:
    """Samples of several chunks each; those of the second half are nearly those of the first."""
    first = np.random.default_rng(1).integers(0, noise, (2, count)).astype(dtype)
    second = first.copy()
    second[:, 100:200] = 1
    return np.concatenate([first, second])


@pytest.mark.parametrize("compression", ["", "none", "zstd"])
@pytest.mark.parametrize("dtype, noise", [("i4", 50), ("u1", 4), ("u1", 256)])
def test_long_samples_are_unpacked_where_they_are_wanted(repo, dtype, noise, compression):
    wanted = long_samples(dtype, 3_000_000 // np.dtype(dtype).itemsize, noise)
    keys = list("abcd")
    with repo.checkout(write=True) as co:
        dataset = co.datasets.init_dataset("d", prototype=wanted[0], compression=compression)
        dataset.update(dict(zip("ab", wanted[:2], strict=True)))
        co.commit("one")
        dataset.update(dict(zip("ab", wanted[2:], strict=True)))
        dataset.update(dict(zip("cd", wanted[:2], strict=True)))
        assert np.array_equal(dataset.stack(), wanted[[2, 3, 0, 1]])
        co.commit("two")
    with repo.checkout() as co:
        objects, dataset = co._session.tree.objects, co["d"]
        chunks = [chunk for key in keys for chunk in co._session.tree.open((b"d", key.encode() + b".npy"))[1].chunks]
        assert len(chunks) >= 8
        for _ in range(2):
            out = np.empty((4, 2, wanted.shape[1]), dtype)[:, 0]
            assert np.array_equal(dataset.stack(out=out), wanted[[2, 3, 0, 1]])
            assert np.array_equal(dataset[["c", "a"]], wanted[[0, 2]])
            # The second time from memory, which reading them one by one leaves them in.
            assert np.array_equal([dataset[key] for key in keys], wanted[[2, 3, 0, 1]])
        objects.empty_caches()
        assert dataset.stack().nbytes == wanted.nbytes
        deltas = any(objects.delta(chunk.digest) for chunk in chunks)
        assert deltas != bool(compression)
        # What deltas are against may be: many may be against the same.
        assert deltas or not any(chunk.digest in objects._chunks for chunk in chunks)


def test_a_sample_whose_list_of_chunks_is_too_short_is_not_read_as_another(repo):
    wanted = np.arange(40_000, dtype="i4")
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("d", prototype=wanted)["a"] = wanted
        co.commit("one")
    with repo.checkout() as co:
        tree = co._session.tree
        entry = tree.entry((b"d", b"a.npy"))
        with pytest.raises(Corrupt):
            tree.objects.put_into(memoryview(bytearray(100)), tree.open((b"d", b"a.npy"))[1].chunks[0].digest)
        co["d"]["a"]
        with pytest.raises(Corrupt):
            tree.objects.put_into(memoryview(bytearray(100)), tree.open((b"d", b"a.npy"))[1].chunks[0].digest)
        assert not tree.put_payload_into(memoryview(bytearray(100)), entry)
        room = bytearray(wanted.nbytes)
        assert tree.put_payload_into(memoryview(room), entry) and room == wanted.tobytes()


def test_reading_ends_when_the_checkout_is_closed(repo):
    with repo.checkout(write=True) as co:
        filled(co, (2, 3))
        co.commit("m")
    co = repo.checkout()
    values = iter(co["d"].values())
    next(values)
    co.close()
    with pytest.raises(Closed):
        next(values)
