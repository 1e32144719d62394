"""Maps built from rows in any order are the maps that one edit would make."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import Corrupt, Exists, NotFound
from storage.model.chunking import INLINE_MAX, MANY, STAGED_INLINE_MAX, Codec, pack_many, unpack_many
from storage.model.digest import blake
from storage.model.records import Attributes, Entry, Kind, decode_entry, encode_head, sample_head
from storage.model.samples import BytesSource
from storage.stores import building
from storage.stores.building import MapBuilder, apply_edits
from storage.tree import read
from storage.tree.cut import Cutter
from storage.tree.edit import build, edit
from storage.tree.node import EMPTY, encode_leaf, uniform_values

HEAD = encode_head(Entry(Kind.FILE, 5))
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(
    names=st.lists(st.binary(min_size=1, max_size=6), unique=True, max_size=60),
    batch=st.integers(min_value=300, max_value=3000),
)
def test_any_order_and_any_batches_give_the_same_root(engine, names, batch):
    rows = [(name, HEAD, name * 3) for name in names]
    before = building.BATCH_BYTES
    building.BATCH_BYTES = batch  # a handful of rows
    try:
        builder = MapBuilder(engine.objects)
        for row in rows:
            builder.add([row], len(row[2]))
        root, sums = builder.finish()
    finally:
        building.BATCH_BYTES = before
    expected, _ = apply_edits(engine.objects, EMPTY, [(key, (head, value)) for key, head, value in sorted(rows)])
    assert root == expected
    assert sums.count == len(rows)
    assert list(read.rows(engine.objects.node, root)) == sorted(rows)


def built(names: list[bytes], head: bytes, size: int, values: bytes):
    """Root, sums and nodes of a map that is built at once."""
    building, fresh = build(names, head, size, lambda first, last: values[first * size : last * size]), []
    while True:
        try:
            fresh += next(building)
        except StopIteration as end:
            return *end.value, fresh


@QUICK
@given(
    numbers=st.lists(st.tuples(st.integers(0, 10**9), st.integers(17, 30_000)), min_size=300, max_size=1200),
    portion=st.integers(1, 1200),
)
def test_many_items_are_cut_where_few_at_a_time_are(numbers, portion):
    """The ends of many are computed at once; of less than 256, one after the other."""
    keys, sizes = [b"%d" % number for number, _ in numbers], [size for _, size in numbers]
    slow, fast = Cutter(0), Cutter(0)
    few = [at + end for at in range(0, len(keys), 100) for end in slow.ends(keys[at : at + 100], sizes[at : at + 100])]
    many = []
    for at in range(0, len(keys), portion):
        many += [at + end for end in fast.ends(keys[at : at + portion], sizes[at : at + portion])]
    assert many == few


@QUICK
@given(
    names=st.lists(st.binary(min_size=1, max_size=40), unique=True, min_size=1, max_size=120),
    size=st.sampled_from([0, 1, 8, 300, 4096]),
)
def test_a_map_of_uniform_rows_is_what_edits_give_and_shows_its_values(engine, names, size):
    names = sorted(names)
    head = sample_head(size, 5)
    values = [bytes([i % 251]) * size for i in range(len(names))]
    root, sums, fresh = built(names, head, size, b"".join(values))
    rows = list(zip(names, values, strict=True))
    assert (root, sums, fresh) == edit(engine.objects.node, EMPTY, [(name, (head, value)) for name, value in rows])
    engine.objects.put_nodes(fresh)
    leaves = engine.objects.get_many([digest for _, _, digest in read.leaves(engine.objects.node, root)])
    assert b"".join(uniform_values(leaf, size) for leaf in leaves) == b"".join(values)
    assert leaves == [engine.objects.get(digest) for _, _, digest in read.leaves(engine.objects.node, root)]


@pytest.mark.parametrize(
    "row",
    [
        (b"b", sample_head(9, 5), b"8 bytes!" + b"!"),
        (b"b", encode_head(Entry(Kind.FILE, 8)), b"8 bytes!"),
        (b"b", encode_head(Entry(Kind.SAMPLE, 8, 5, flags=1)), b"8 bytes!"),
        (b"b", encode_head(Entry(Kind.SAMPLE, 8, 5, Attributes(mode=0o600))), b"8 bytes!"),
        (b"b", encode_head(Entry(Kind.SAMPLE, 8, 5, Attributes(mode=0o600))), b"8"),
    ],
)
def test_a_leaf_with_another_row_among_uniform_ones_shows_no_values(row):
    around = [(name, sample_head(8, 5), b"8 bytes!") for name in (b"a", b"c")]
    assert uniform_values(encode_leaf(around), 8) == b"8 bytes!" * 2
    assert uniform_values(encode_leaf(sorted([*around, row])), 8) is None


def test_many_objects_are_packed_in_threads_and_damage_is_told(engine):
    data = [bytes([i % 7, i // 7]) * 500 for i in range(2 * MANY)] + [os.urandom(1000), b"short"]
    nodes = [(blake(each), each) for each in data]
    engine.objects.put_nodes(nodes)
    digests = [digest for digest, _ in nodes]
    assert engine.objects.get_many(digests) == data
    with pytest.raises(NotFound):
        engine.objects.get_many([*digests, blake(b"elsewhere")])
    frames = pack_many(data)
    assert {codec for codec, _ in frames} == {Codec.ZSTD, Codec.RAW}
    assert (
        unpack_many([(codec, memoryview(packed), len(d)) for (codec, packed), d in zip(frames, data, strict=True)])
        == data
    )
    codec, packed = frames[3]
    for wrong, length in ((memoryview(packed)[:-2], 1000), (memoryview(packed), 999), (memoryview(b"junk" * 9), 1000)):
        with pytest.raises(Corrupt):
            unpack_many([(codec, wrong, length)])


@pytest.mark.parametrize("apart", [False, True])
def test_a_name_that_comes_twice_is_refused(engine, monkeypatch, apart):
    if apart:  # in two batches, which only meet at the end
        monkeypatch.setattr(building, "BATCH_BYTES", 1)
    builder = MapBuilder(engine.objects)
    builder.add([(b"b", HEAD, b"1")], 1)

    def rest():
        builder.add([(b"a", HEAD, b"1")], 1)
        builder.add([(b"b", HEAD, b"2")], 1)
        builder.finish()

    with pytest.raises(Exists, match="b comes twice"):
        rest()


@pytest.mark.parametrize(
    "size", [0, 1, INLINE_MAX, INLINE_MAX + 1, STAGED_INLINE_MAX, STAGED_INLINE_MAX + 1, 3 * STAGED_INLINE_MAX]
)
@pytest.mark.parametrize("start", [0, 100])
@pytest.mark.parametrize("wrapped", [False, True])
def test_contents_of_any_size_read_back(engine, size, start, wrapped):
    data = bytes(i * 7 % 251 for i in range(size + start))
    builder = MapBuilder(engine.objects)
    head = encode_head(Entry(Kind.FILE, size))
    contents = BytesSource(memoryview(data)) if wrapped else data
    builder.add_contents(b"name", head, contents, start, 8)
    root, _ = builder.finish()
    entry = decode_entry(*read.get(engine.objects.node, root, b"name"))
    tree = engine.working_tree("main")
    assert bytes(tree.content(entry).read(0, size)) == data[start:]
    # As a commit would keep it: nothing but short values in leaves.
    assert len(entry.value) <= INLINE_MAX


@QUICK
@given(names=st.sets(st.binary(min_size=1, max_size=3), max_size=200), key=st.binary(min_size=1, max_size=4))
def test_a_rank_counts_the_keys_before(engine, names, key):
    rows = [(name, HEAD, bytes(300)) for name in sorted(names)]
    root, _ = apply_edits(engine.objects, EMPTY, [(name, (head, value)) for name, head, value in rows])
    for each in (key, *sorted(names)[::17]):
        assert read.rank(engine.objects.node, root, each) == sum(name < each for name in names)
