"""The prolly map against a dict: the same contents give the same root, whatever the history."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.model.digest import blake
from storage.tree.diff import diff
from storage.tree.edit import edit
from storage.tree.node import EMPTY, BadNode, Inner, decode, encode_leaf
from storage.tree.read import at, get, locate, rows, rows_at, sums

KEYS = st.one_of(st.integers(0, 3000).map(lambda i: b"%d" % i), st.binary(min_size=1, max_size=12))
VALUES = st.one_of(st.binary(max_size=20), st.integers(0, 4096).map(bytes))


def head(value: bytes) -> bytes:
    """A head as entries have it: a sample of that many bytes."""
    return struct.pack("<BBHIQq", 1, 0, 0, 0, len(value), 0)


class Store:
    """Nodes by digest, and nothing else: a node that was not written cannot be read."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.loads = 0

    def load(self, digest):
        self.loads += 1
        return decode(self.nodes[digest])

    def edit(self, root, edits: dict):
        changes = [(key, None if edits[key] is None else (head(edits[key]), edits[key])) for key in sorted(edits)]
        root, totals, fresh = edit(self.load, root, changes)
        for digest, raw in fresh:
            assert blake(raw) == digest
            self.nodes[digest] = raw
        return root, totals


def listed(store, root) -> dict:
    return {key: value for key, _, value in rows(store.load, root)}


def numbers(start: int, stop: int, step: int = 1) -> dict:
    return {b"%06d" % i: b"v%d" % i * (i % 40) for i in range(start, stop, step)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(KEYS, st.none() | VALUES, max_size=60), max_size=6), st.integers(0, 4000))
def test_any_history_gives_the_root_of_building_from_scratch(batches, size):
    store, model = Store(), numbers(0, size)
    root, _ = store.edit(EMPTY, model)
    for batch in batches:
        root, totals = store.edit(root, batch)
        model.update(batch)
        model = {key: value for key, value in model.items() if value is not None}
        assert totals == sums(store.load, root)
        assert totals == (len(model), len(model), sum(map(len, model.values())))
    assert listed(store, root) == model
    assert list(listed(store, root)) == sorted(model)
    assert store.edit(EMPTY, model)[0] == root
    assert store.edit(root, dict.fromkeys(model))[0] == EMPTY


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(KEYS, st.none() | VALUES, max_size=80), st.integers(0, 3000), st.integers(0, 3000))
def test_a_diff_applied_to_the_old_gives_the_new(batch, start, stop):
    store = Store()
    old, _ = store.edit(EMPTY, numbers(start, 3000))
    new, _ = store.edit(old, batch | dict.fromkeys(numbers(start, stop, 7)))
    found = list(diff(store.load, old, new))
    assert [key for key, _, _ in found] == sorted({key for key, _, _ in found})
    before, after = listed(store, old), listed(store, new)
    for key, one, other in found:
        assert one != other
        assert (None if one is None else one[1]) == before.get(key)
    assert store.edit(old, {key: None if other is None else other[1] for key, _, other in found})[0] == new
    assert {key for key, _, _ in found} == {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=16, max_size=18), st.binary(max_size=3)), min_size=1, max_size=9), st.data()
)
def test_leaves_of_the_same_keys_tell_in_which_rows_they_differ(before, data):
    heads, values = ({len(row[column]) for row in before} for column in (0, 1))
    drawn = [
        st.sampled_from(sorted(each)).flatmap(lambda n: st.binary(min_size=n, max_size=n)) for each in (heads, values)
    ]
    after = [tuple(data.draw(st.just(old) | new) for old, new in zip(row, drawn, strict=True)) for row in before]
    one, other = (
        decode(encode_leaf([(b"%d" % key, *row) for key, row in enumerate(rows)])) for rows in (before, after)
    )
    alike = all(list(map(len, row)) == list(map(len, new)) for row, new in zip(before, after, strict=True))
    differing = [key for key, row in enumerate(before) if row != after[key]]
    assert one.changed(other) == (differing if alike else None)
    assert one.changed(decode(encode_leaf([(b"other", bytes(16), b"")]))) is None


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 2999)))
def test_a_diff_of_rows_that_keep_their_length(changed):
    store = Store()
    model = {b"%06d" % i: b"%06d" % i for i in range(3000)}
    old, _ = store.edit(EMPTY, model)
    new, _ = store.edit(old, {b"%06d" % i: b"x%05d" % i for i in changed})
    assert [key for key, _, _ in diff(store.load, old, new)] == [b"%06d" % i for i in sorted(changed)]


@pytest.mark.parametrize("size", [0, 1, 50, 5000])
def test_reading_by_key_rank_and_position(size):
    store, model = Store(), numbers(0, size)
    root, _ = store.edit(EMPTY, model)
    keys = sorted(model)
    for position in range(0, size, max(size // 50, 1)):
        key = keys[position]
        assert get(store.load, root, key) == (head(model[key]), model[key])
        assert locate(store.load, root, key) == (position, head(model[key]), model[key])
        assert at(store.load, root, position)[0] == key
        assert [row[0] for row, _ in zip(rows_at(store.load, root, position), range(9), strict=False)] == keys[
            position:
        ][:9]
        assert next((row[0] for row in rows(store.load, root, key)), None) == (keys[position + 1 :] or [None])[0]
    assert get(store.load, root, b"missing") is None
    assert locate(store.load, root, b"missing") is None


def test_one_change_in_many_touches_a_path_only():
    store = Store()
    root, _ = store.edit(EMPTY, {b"%06d" % i: b"x" * 100 for i in range(60_000)})
    assert isinstance(store.load(root), Inner)
    before, store.loads = len(store.nodes), 0
    store.edit(root, {b"031415": b"changed"})
    assert len(store.nodes) - before <= 8
    assert store.loads <= 40


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_node_is_refused_or_read_within_bounds(data):
    store = Store()
    root, _ = store.edit(EMPTY, numbers(0, data.draw(st.sampled_from([3, 2000]))))
    raw = bytearray(store.nodes[data.draw(st.sampled_from([root, *list(store.nodes)[:3]]))])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 400)))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    with contextlib.suppress(BadNode):
        node = decode(bytes(raw))
        for i in range(len(node)):
            node.child(i) if isinstance(node, Inner) else node.row(i)


def test_the_empty_map_is_the_digest_of_the_empty_leaf():
    assert blake(encode_leaf([])) == EMPTY


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, 2999), st.integers(0, 2**38) | st.none(), min_size=1, max_size=60))
def test_rows_of_the_same_lengths_replace_others_where_they_stand(changes):
    """Kind and size, which the sums are made of, may change in them; rows that go move the ends of nodes."""

    def row(number, version):
        kind, value = (1, 3)[version % 2], b"%013d" % version
        return b"%06d" % number, (struct.pack("<BBHIQq", kind, 0, 0, 0, version * 2**25, 0), value)

    store = Store()
    old, _, fresh = edit(store.load, EMPTY, [row(i, 0) for i in range(3000)])
    store.nodes |= dict(fresh)
    edits = [row(i, changes[i]) if changes[i] is not None else (b"%06d" % i, None) for i in sorted(changes)]
    new, totals, fresh = edit(store.load, old, edits)
    store.nodes |= dict(fresh)
    standing = [row(i, changes.get(i, 0)) for i in range(3000) if changes.get(i, 0) is not None]
    assert (new, totals) == edit(store.load, EMPTY, standing)[:2]
    assert totals == sums(store.load, new)
    assert [(key, stored) for key, *stored in rows(store.load, new)] == [(key, list(kept)) for key, kept in standing]
