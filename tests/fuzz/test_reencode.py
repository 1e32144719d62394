"""What a decoder lets through stands for the same bytes: else one thing would have two names, and a copy another digest."""

from __future__ import annotations

import pytest
from hypothesis import given

from storage.errors import Corrupt
from storage.model.chunking import ChunkRef, decode_chunks, encode_chunks
from storage.model.digest import NO_DIGEST, blake
from storage.model.records import (
    Author,
    Commit,
    Entry,
    Kind,
    decode_attributes,
    decode_commit,
    decode_entry,
    directory_entry,
    encode_attributes,
    encode_commit,
    encode_head,
)
from storage.stores.refs import BranchRef, TagRef, decode_tag, encode_tag
from storage.tree.node import BadNode, Child, Leaf, Sums, check_order, decode, encode_inner, encode_leaf
from tests.fuzz.mutations import FUZZ, mutated

D = blake(b"something")
COMMITS = [
    Commit(directory_entry(D, 1, 2, 3), (D, D), Author("a", "b"), 12, "a message", {"k": "v", "l": "w"}),
    Commit(directory_entry(D, 0, 0, 0), (), Author("", ""), 2**63, "", {}),
]
ROWS = [(b"%04d" % i, encode_head(Entry(Kind.FILE, i, 7)), b"v" * (i % 40)) for i in range(60)]
CHILDREN = [Child(b"%04d" % i, blake(b"%d" % i), Sums(i, i, i)) for i in range(60)]


@FUZZ
@given(mutated(encode_leaf(ROWS), encode_leaf(ROWS[:2]), encode_leaf([])))
def test_leaves(data):
    try:
        node = decode(data)
        check_order(node)
    except BadNode:
        return
    assert isinstance(node, Leaf)
    assert encode_leaf(list(node.rows())) == data


@FUZZ
@given(mutated(encode_inner(1, CHILDREN), encode_inner(1, CHILDREN[:2]), encode_inner(7, CHILDREN[:1])))
def test_inner_nodes(data):
    try:
        node = decode(data)
    except BadNode:
        return
    assert not isinstance(node, Leaf)
    assert encode_inner(node.level, [node.child(i) for i in range(len(node))]) == data


@FUZZ
@given(mutated(BranchRef(D, 7).encode(), BranchRef(None, 2**64 - 1).encode()))
def test_branches(data):
    try:
        ref = BranchRef.decode(data)
    except Corrupt:
        return
    assert ref.encode() == data


@FUZZ
@given(mutated(encode_chunks([ChunkRef(D, 5), ChunkRef(NO_DIGEST, 2**32 - 1)])))
def test_lists_of_chunks(data):
    try:
        chunks = decode_chunks(data)
    except Corrupt:
        return
    assert encode_chunks(chunks) == data


def same_commit(data: bytes) -> None:
    try:
        found = decode_commit(data)
    except Corrupt:
        return
    assert encode_commit(found) == data


def same_tag(data: bytes) -> None:
    try:
        found = decode_tag(data)
    except Corrupt:
        return
    assert encode_tag(found) == data


def same_head(data: bytes) -> None:
    try:
        found = decode_entry(data, bytes(48))
    except Corrupt:
        return
    assert encode_head(found) == data


def same_attributes(data: bytes) -> None:
    try:
        found = decode_attributes(data)
    except Corrupt:
        return
    assert encode_attributes(found) == data


HEADS = [encode_head(Entry(kind, 5, 7)) for kind in Kind]
COMMIT, TAG = encode_commit(COMMITS[0]), encode_tag(TagRef(D, "message", 5))
READERS = {
    "commit": (decode_commit, encode_commit, [encode_commit(commit) for commit in COMMITS]),
    "tag": (decode_tag, encode_tag, [TAG, encode_tag(TagRef(D, "", 2**40))]),
    "head": (lambda data: decode_entry(data, bytes(48)), encode_head, HEADS),
}


@pytest.mark.parametrize("name", READERS)
def test_records(name):
    """What was decoded is told whole by its encoding. That there is only one is another matter: see below."""
    reader, writer, seeds = READERS[name]

    @FUZZ
    @given(mutated(*seeds))
    def examine(data: bytes) -> None:
        try:
            found = reader(data)
        except Corrupt:
            return
        again = writer(found)
        assert reader(again) == found
        assert writer(reader(again)) == again

    for seed in seeds:
        assert writer(reader(seed)) == seed
    examine()


# The same values, written differently: by what, and the bytes.
OTHERWISE = {
    "a longer number": (same_commit, COMMIT.replace(b"\x0c\xa9a message", b"\xcd\x00\x0c\xa9a message")),
    "a longer text": (same_commit, COMMIT.replace(b"\xa9a message", b"\xd9\x09a message")),
    "unsorted metadata": (same_commit, COMMIT.replace(b"\xa1k\xa1v\xa1l\xa1w", b"\xa1l\xa1w\xa1k\xa1v")),
    "metadata twice": (same_commit, COMMIT.replace(b"\x82\xa1k\xa1v", b"\x83\xa1k\xa1x\xa1k\xa1v")),
    "one field more": (same_commit, b"\x99" + COMMIT[1:] + b"\xc0"),
    "one field more in a tag": (same_tag, b"\x94" + TAG[1:] + b"\xc0"),
    "an unknown attribute": (same_attributes, b"\x82\xa1m\x07\xa1z\xc0"),
    "a default attribute": (same_attributes, b"\x81\xa1m\xc0"),
    "no attributes, written out": (same_attributes, b"\x80"),
    "the zero of a head": (same_head, HEADS[2][:2] + b"\x01" + HEADS[2][3:]),
}


@pytest.mark.parametrize("same, data", OTHERWISE.values(), ids=OTHERWISE)
def test_another_way_to_write_the_same(same, data):
    same(data)


def test_the_variants_above_are_variants():
    assert not {COMMIT, TAG, *HEADS} & {data for _, data in OTHERWISE.values()}


def test_commits_from_before_1970():
    with pytest.raises(Corrupt):
        decode_commit(COMMIT.replace(b"\x0c\xa9a message", b"\xff\xa9a message"))


def test_tags_of_something_that_is_no_digest():
    with pytest.raises(Corrupt):
        decode_tag(encode_tag(TagRef(b"short", "message", 5)))
