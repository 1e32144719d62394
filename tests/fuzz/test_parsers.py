"""Every reader of bytes from outside, given bytes that nobody meant: one of the documented errors, or something that can
be used; never another exception, never memory or time without bound.

The bytes are real ones with some changed, cut out, doubled or joined with others: pure noise gets no further than the
first check.
"""

import io
import string
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.disk.appending import Segment
from storage.disk.segments import Record, RecordKind, SegmentKind, parse_file_header, scan
from storage.errors import Corrupt, InvalidName, InvalidSample, NewerFormat, SchemaMismatch
from storage.model.chunking import ChunkRef, decode_chunks, encode_chunks, pack, unpack
from storage.model.digest import Digest, blake
from storage.model.names import check_key, check_name, check_ref_name
from storage.model.records import (
    Attributes,
    Author,
    Commit,
    Entry,
    Fence,
    Kind,
    RefsRecord,
    Schema,
    StageRecord,
    decode_attributes,
    decode_commit,
    decode_entry,
    decode_refs_record,
    decode_stage_record,
    directory_entry,
    encode_attributes,
    encode_commit,
    encode_head,
    encode_record,
)
from storage.model.samples import BytesSource, array_from, make_schema, parse_header, read_file_form
from storage.stores.merge_record import MergeState, decode_state
from storage.stores.refs import BranchRef, TagRef, decode_tag, encode_tag
from storage.stores.replaying import read_stage_payload
from storage.tree.node import BadNode, Child, Inner, Sums, decode, encode_inner, encode_leaf
from tests.fuzz.mutations import FUZZ, NESTED, mutated

D = blake(b"something")
SCHEMA = make_schema(np.dtype("<f4"), (2, 3), uuid="u")
KEPT = Attributes(mode=0o600, uid=1, xattrs=((b"user.a", b"b"),), shape=(1, 2), schema=SCHEMA)


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version, allow_pickle=False)
    return out.getvalue()


ARRAYS = [
    npy(np.zeros((2, 3), "<f4")),
    npy(np.asfortranarray(np.ones((2, 3), "<f4"))),
    npy(np.zeros((2, 3), "<f4"), (2, 0)),
    npy(np.zeros(5, "U3")),
    npy(np.zeros(2, [("a", "<i4"), ("b", "<f8")])),
]


@FUZZ
@given(mutated(*ARRAYS))
def test_npy_files(data):
    try:
        header, kept = read_file_form(SCHEMA, BytesSource(data), "a sample")
    except (SchemaMismatch, InvalidSample):
        return
    array = array_from(data[header.length :], SCHEMA, kept)
    assert array.shape == (2, 3)
    assert array.dtype == np.dtype("<f4")


@pytest.mark.parametrize(
    "shape",
    [
        "(1152921504606846976,)",
        "(-1, 3)",
        "(2, 3" + ", 1" * 5000 + ")",
        "(" * 200 + ")" * 200,
        "(2.0, 3)",
        "(True, 3)",
        "(10**10000,)",
    ],
)
@pytest.mark.parametrize(
    "descr", ["'<f4'", "'|O'", "'<U99999999999'", "[('a', '<f4')] * 9", "'<f4' if 1 else 0", "__import__('os')"]
)
def test_headers_that_claim_too_much(shape, descr):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = len(text) + 64 - (len(text) + 12) % 64
    data = b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little") + text.ljust(length - 1) + b"\n" + bytes(24)
    tracemalloc.start()
    with pytest.raises((SchemaMismatch, InvalidSample)):
        read_file_form(SCHEMA, BytesSource(data), "a sample")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@FUZZ
@given(mutated(*(array[:80] for array in ARRAYS)))
def test_npy_headers(data):
    try:
        parse_header(data)
    except InvalidSample:
        pass


HEADS = [encode_head(Entry(kind, 5, 7, KEPT)) for kind in Kind] + [encode_head(Entry(Kind.FILE, 2**63, -1))]
ROWS = [(b"%04d" % i, HEADS[i % len(HEADS)], b"v" * (i % 40)) for i in range(60)]
COMMIT = Commit(directory_entry(D, 1, 2, 3), (D, D), Author("a", "b"), 12, "a message", {"k": "v"})
REFS = RefsRecord(
    1, "a", "b", [("branch/x", b"", b"y")], [Fence("x", 1, 2, HEADS[0], b"v", [(1, D)], [(1, b"n", HEADS[0], 3)])]
)
MERGE = MergeState("merge", "dev", D, [D], D, b"", D, "m", 5, [([b"d", b"f"], "both-changed"), ([], "both-added")], [1])
STAGE = StageRecord("main", [(1, D)], [2], [(1, 5, len(encode_leaf(ROWS)))], [(1, HEADS[0])], [])
PAYLOAD = len(encode_record(STAGE)).to_bytes(4, "little") + encode_record(STAGE) + encode_leaf(ROWS)


CHILDREN = [Child(b"%04d" % i, blake(b"%d" % i), Sums(i + 1, i, 2**40 + i)) for i in range(60)]
INNER = [encode_inner(level, CHILDREN[:count]) for level, count in ((1, 1), (1, 2), (2, 60), (255, 3))]


def usable_node(data: bytes) -> None:
    node = decode(data)
    node.total()
    if isinstance(node, Inner):
        assert all(len(node.digests[i]) == 32 and node.sums(i) and node.before(i) >= 0 for i in range(len(node)))
        assert all(node.child(i).key == node.last_key(i) for i in range(len(node)))
        assert all(-1 <= node.child_at(rank) <= len(node) for rank in (-1, 0, 5, 2**64))
        return
    rows = list(node.rows())
    assert rows == [node.row(i) for i in range(len(node))]
    for key, _, _ in rows:
        node.find(key)


READERS: dict[str, tuple[Callable[[bytes], object], list[bytes], tuple[type[Exception], ...]]] = {
    "entry": (lambda data: decode_entry(data, bytes(48)), HEADS, (Corrupt,)),
    "attributes": (decode_attributes, [encode_attributes(KEPT)], (Corrupt,)),
    "commit": (decode_commit, [encode_commit(COMMIT)], (Corrupt,)),
    "operation": (decode_refs_record, [encode_record(REFS)], (Corrupt,)),
    "staging": (decode_stage_record, [encode_record(STAGE)], (Corrupt,)),
    "staging with rows": (lambda data: read_stage_payload(data, 0), [PAYLOAD], (Corrupt, BadNode)),
    "merge": (decode_state, [MERGE.encode()], (Corrupt,)),
    "chunks": (decode_chunks, [encode_chunks([ChunkRef(D, 5), ChunkRef(D, 2**32 - 1)])], (Corrupt,)),
    "node": (usable_node, [encode_leaf(ROWS), encode_leaf(ROWS[:1]), *INNER], (BadNode,)),
    "inner node": (usable_node, INNER, (BadNode,)),
    "zstd": (lambda data: unpack(1, data, 4000), [bytes(pack(b"x" * 4000)[1])], (Corrupt,)),
    "blosc": (lambda data: unpack(2, data, 4000), [bytes(pack(bytes(4000), 4)[1])], (Corrupt,)),
}


@pytest.mark.parametrize("name", READERS)
def test_stored_bytes(name):
    reader, seeds, errors = READERS[name]

    @FUZZ
    @given(mutated(*seeds))
    def examine(data: bytes) -> None:
        try:
            reader(data)
        except errors:
            pass

    for seed in seeds:
        reader(seed)
    examine()


# 0x91 is a list of one; msgspec passes over fields that it does not know, however deep they go.
DEEP = b"\x91" * NESTED + b"\xc0"


@pytest.mark.parametrize(
    "reader, data",
    [
        (decode_attributes, b"\x81\xa1z" + DEEP),
        (decode_commit, b"\x99" + encode_commit(COMMIT)[1:] + DEEP),
        (decode_refs_record, b"\x97" + encode_record(REFS)[1:] + DEEP),
        (decode_stage_record, b"\x97" + encode_record(STAGE)[1:] + DEEP),
        (decode_tag, b"\x94" + encode_tag(TagRef(D, "message", 5))[1:] + DEEP),
        (decode_state, b"\x9c" + MERGE.encode()[1:] + DEEP),
    ],
    ids=["attributes", "commit", "operation", "staging", "tag", "merge"],
)
def test_unknown_fields_nested_too_deep(reader, data):
    with pytest.raises(Corrupt):
        reader(data)


SCHEMAS = {
    "no dtype": Schema("array", "nonsense", (2,)),
    "no dtype at all": Schema("array", "", (2,)),
    "a list without end": Schema("array", "[" * 1000, (2,)),
    "objects": Schema("array", "|O", (2,)),
    "objects inside": Schema("array", "[('a', '|O')]", (2,)),
    "negative": Schema("array", "<f4", (-1,)),
    "more than there is": Schema("array", "<f4", (1 << 60,)),
    "more dimensions than there are": Schema("array", "<f4", (1,) * 1000),
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_stored_schemas_that_are_none(schema):
    with pytest.raises(Corrupt):
        decode_attributes(encode_attributes(Attributes(schema=schema)))


@pytest.fixture(scope="module")
def segment(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("segment") / "00000001.log"
    made = Segment.create(path, SegmentKind.LOG, 1)
    made.append([Record(RecordKind.CHUNK, [b"x" * n], n, D) for n in (1, 100, 3000)])
    made.close()
    return path.read_bytes()


def test_segments(segment, tmp_path):
    real = {bytes(found.payload or b"") for found in scan(memoryview(segment), tmp_path)}

    @FUZZ
    @given(mutated(segment))
    def examine(data: bytes) -> None:
        try:
            parse_file_header(data, tmp_path)
        except (Corrupt, NewerFormat):
            return
        for found in scan(memoryview(data), tmp_path):
            # Salted with the file and its place: nothing but a record that was written is ever taken for one.
            assert found.payload is None or bytes(found.payload) in real

    examine()


@FUZZ
@given(st.one_of(st.text(), st.text(alphabet="./\0\\" + string.ascii_letters), st.integers(), st.none(), st.binary()))
def test_names(value):
    for check in (check_key, check_ref_name, check_name):
        try:
            checked = check(value)  # type: ignore[operator]
        except (InvalidName, TypeError, AttributeError):
            continue
        if check is check_name:
            assert b"/" not in checked
            assert checked not in (b".", b"..", b"")
        elif check is check_ref_name:
            assert ".." not in checked.split("/")
            assert "\0" not in checked


@FUZZ
@given(mutated(encode_tag(TagRef(D, "message", 5)), BranchRef(Digest(D), 7).encode()))
def test_values_of_refs(data):
    for reader in (decode_tag, BranchRef.decode):
        try:
            reader(data)
        except Corrupt:
            pass
