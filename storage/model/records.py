"""The values everything is made of, and their bytes: entries, attributes, schemas, commits, ref changes.

Formats stand in storage/FORMAT.md. All values are frozen; decoding checks bounds and raises Corrupt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from storage.errors import Corrupt, Unsupported
from storage.model.digest import DIGEST_SIZE, Digest
from storage.model.dtypes import why_no_array
from storage.model.format import MALFORMED

HEAD = struct.Struct("<BBHIQq")
DIRECTORY_VALUE = struct.Struct("<32sQQ")
COMMON = 256
"""Attributes of at most so many bytes are often those of other entries, and kept decoded."""


class Kind(IntEnum):
    """What an entry is. REMOVED and STAGED exist in staging only."""

    REMOVED = 0
    SAMPLE = 1
    FILE = 2
    SYMLINK = 3
    DIRECTORY = 4
    STAGED = 5


_PLAIN_SAMPLE = bytes([Kind.SAMPLE]) + bytes(7)  # no flags, no attributes

CHUNKED = 1
"""Flag: the value is a list of chunks (digest 32 bytes, length u32 each)."""
INDIRECT = 2
"""Flag: the value is the digest of an object that holds the list of chunks."""

KINDS = {int(kind): kind for kind in Kind}
# Naming a member of an enum costs as much as a call, and every look-up comes here.
_DIRECTORY, _STAGED = Kind.DIRECTORY, Kind.STAGED


ARRAY_SUFFIX = b".npy"
_SUFFIXES = {"array": ARRAY_SUFFIX, "str": b".txt", "bytes": b"", "json": b".json"}
_NESTED, _SAMPLE = "/nested", "/sample"
KINDS_OF_DATASETS = frozenset(_SUFFIXES)
"""What the values of a dataset may be."""


class Schema(msgspec.Struct, frozen=True, array_like=True):
    """What the samples of a dataset look like. Its fields in this order are what is stored.

    `kind` is what a sample holds: array, str, bytes or json; with `/nested` behind it samples are directories of such values,
    each with the schema `inner`, of the kind with `/sample`. `dtype` is numpy's `dtype.str` (of what is no array, that of
    bytes); `shape` the shape of every sample, or the largest one where `variable`. `uuid` tells datasets apart, `hash` tells
    schemas apart.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    variable: bool = False
    named: bool = True
    compression: str = ""
    uuid: str = ""
    hash: str = ""

    @property
    def holds(self) -> str:
        """What each value is: array, str, bytes or json."""
        return self.kind.partition("/")[0]

    @property
    def nested(self) -> bool:
        """Whether its samples are directories of values."""
        return self.kind.endswith(_NESTED)

    @property
    def is_sample(self) -> bool:
        """Whether it is that of one sample of a nested dataset, rather than of a dataset."""
        return self.kind.endswith(_SAMPLE)

    @property
    def inner(self) -> Schema:
        """The schema of each sample of a nested dataset."""
        return replace(self, kind=self.holds + _SAMPLE)

    def is_like(self, other: Schema | None) -> bool:
        """Whether the samples of both look the same. Datasets made alike on two branches can be merged: they differ in `uuid`
        and may differ in `compression`, as may the samples of a nested dataset that came from both.
        """
        return other is not None and (self.kind, self.hash) == (other.kind, other.hash)

    @property
    def suffix(self) -> bytes:
        """The ending of a sample's file name; of a nested dataset, one that no name has: no file in it is a sample."""
        return b"/" if self.nested else _SUFFIXES[self.holds]

    @property
    def takes_empty(self) -> bool:
        """Whether a file without any bytes is a whole sample."""
        return not self.nested and self.holds in ("str", "bytes")


class Attributes(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"mode": "m", "uid": "u", "gid": "g", "xattrs": "x", "header": "h", "shape": "s", "schema": "d"},
):
    """What is kept of an entry beside its contents, where it differs from the default.

    `mode` has permission bits only; `header` is an unusual .npy header, kept so that the file reads back the same;
    `shape` is that of a sample of variable shape.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    header: bytes | None = None
    shape: tuple[int, ...] | None = None
    schema: Schema | None = None


PLAIN = Attributes()


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where bytes lie: in segment `segment`, `length` bytes from `offset`; `check` is their checksum where known."""

    segment: int
    offset: int
    length: int
    check: int = 0


# gc=False: an entry is in no cycle, and a mount may hold a million of them.
class Entry(msgspec.Struct, frozen=True, gc=False):
    """One name's worth of a directory.

    `size` is in bytes: of the file form (samples, files), of the target (symlinks), of everything below
    (directories). `mtime` is in nanoseconds since 1970, 0 where none is kept. `value` is the payload, a list of
    chunks, a target or a directory's root; a Place while it lies in a journal.
    """

    kind: Kind
    size: int = 0
    mtime: int = 0
    attributes: Attributes = PLAIN
    flags: int = 0
    value: bytes | Place = b""

    @property
    def is_directory(self) -> bool:
        """Whether names can stand below this entry."""
        return self.kind is _DIRECTORY or self.kind is _STAGED

    @property
    def schema(self) -> Schema | None:
        """The schema of a directory that is a dataset."""
        return self.attributes.schema

    @property
    def root(self) -> Digest:
        """Root of a committed directory's map."""
        assert isinstance(self.value, bytes)
        return Digest(self.value[:DIGEST_SIZE])

    @property
    def count(self) -> int:
        """How many entries a committed directory has."""
        assert isinstance(self.value, bytes)
        return int(DIRECTORY_VALUE.unpack(self.value)[1])

    @property
    def samples(self) -> int:
        """How many of them are samples."""
        assert isinstance(self.value, bytes)
        return int(DIRECTORY_VALUE.unpack(self.value)[2])


def directory_entry(
    root: Digest, count: int, samples: int, size: int, *, mtime: int = 0, attributes: Attributes = PLAIN
) -> Entry:
    """The entry of a committed directory with that root."""
    value = DIRECTORY_VALUE.pack(root, count, samples)
    return Entry(Kind.DIRECTORY, size, mtime, attributes, 0, value)


_encoder = msgspec.msgpack.Encoder()
_attributes_decoder = msgspec.msgpack.Decoder(Attributes)


def encode_attributes(attributes: Attributes) -> bytes:
    """Attributes as bytes; nothing for the default ones."""
    return b"" if attributes is PLAIN or attributes == PLAIN else _encoder.encode(attributes)


def decode_attributes(data: bytes) -> Attributes:
    """The attributes that encode_attributes wrote; Corrupt for anything else."""
    if not data:
        return PLAIN
    return _known_attributes(data) if len(data) <= COMMON else _decode_attributes(data)


@lru_cache(maxsize=4096)
def _known_attributes(data: bytes) -> Attributes:
    """Most entries have the attributes of others."""
    return _decode_attributes(data)


def _decode_attributes(data: bytes) -> Attributes:
    try:
        found = _attributes_decoder.decode(data)
    except MALFORMED as error:
        raise Corrupt(f"attributes cannot be read: {error}") from error
    if encode_attributes(found) != data:
        raise Corrupt("attributes are not written as they must be")
    # numpy ends the process over some that are none.
    schema = found.schema
    if schema is not None and (why := _why_no_schema(schema)):
        raise Corrupt(f"a schema cannot be read: {why}")
    return found


def _why_no_schema(schema: Schema) -> str:
    holds, slash, layout = schema.kind.partition("/")
    if holds not in _SUFFIXES or slash + layout not in ("", _NESTED, _SAMPLE):
        return f"{schema.kind[:80]!r} is no kind of dataset"
    return why_no_array(schema.dtype, schema.shape, variable=schema.variable)


def encode_head(entry: Entry) -> bytes:
    """Everything of an entry but its value."""
    extra = encode_attributes(entry.attributes)
    return HEAD.pack(entry.kind, entry.flags, 0, len(extra), entry.size, entry.mtime) + extra


def sample_head(size: int, mtime: int) -> bytes:
    """The head of a plain inline sample of `size` bytes in its file form."""
    return HEAD.pack(Kind.SAMPLE, 0, 0, 0, size, mtime)


def is_plain_sample(head: bytes) -> bool:
    """Whether it is the head of a sample whose value is its contents, and of which nothing else is kept."""
    return len(head) == HEAD.size and head.startswith(_PLAIN_SAMPLE)


def is_directory_of(head: bytes, schema: Schema) -> bool:
    """Whether it is the head of a directory with a schema like that one, staged or committed. Corrupt."""
    return head[0] in (_DIRECTORY, _STAGED) and schema.is_like(decode_attributes(head[HEAD.size :]).schema)


def decode_entry(head: bytes, value: bytes | Place) -> Entry:
    """The entry that encode_head wrote, with its value; Corrupt for anything else."""
    try:
        kind, flags, zero, extra, size, mtime = HEAD.unpack_from(head)
        known = KINDS[kind]
    except (struct.error, KeyError) as error:
        raise Corrupt("the head of an entry cannot be read") from error
    if zero or extra != len(head) - HEAD.size:
        raise Corrupt("the head of an entry has the wrong length")
    if known is _DIRECTORY and len(value if isinstance(value, bytes) else b"") != DIRECTORY_VALUE.size:
        raise Corrupt("the entry of a directory has the wrong length")
    attributes = decode_attributes(head[HEAD.size :]) if extra else PLAIN
    return Entry(known, size, mtime, attributes, flags, value)


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes commits."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Commit:
    """A frozen state of everything: the root directory, where it came from, who, when and why.

    `time` is wall-clock nanoseconds since 1970. Parents come in order, the first one is the branch's own past.
    """

    root: Entry
    parents: tuple[Digest, ...]
    author: Author
    time: int
    message: str
    metadata: dict[str, str] = field(default_factory=dict)


class _Commit(msgspec.Struct, array_like=True, frozen=True):
    head: bytes
    value: bytes
    parents: list[bytes]
    name: str
    email: str
    time: int
    message: str
    metadata: dict[str, str]


_commit_decoder = msgspec.msgpack.Decoder(_Commit)


def encode_commit(commit: Commit) -> bytes:
    """A commit as the bytes whose digest names it. Metadata is sorted, so that equal commits are equal bytes.

    Unsupported for what is no text.
    """
    assert isinstance(commit.root.value, bytes)
    for text in (
        commit.message,
        commit.author.name,
        commit.author.email,
        *commit.metadata.keys(),
        *commit.metadata.values(),
    ):
        if not isinstance(text, str):
            raise Unsupported(f"a commit's message, author and metadata must be text, not {type(text).__name__}")
    record = _Commit(
        encode_head(commit.root),
        commit.root.value,
        list(commit.parents),
        commit.author.name,
        commit.author.email,
        commit.time,
        commit.message,
        dict(sorted(commit.metadata.items())),
    )
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError as error:
        raise Unsupported(f"a commit's message, author and metadata must be text: {error}") from error


def decode_commit(data: bytes) -> Commit:
    """The commit that encode_commit wrote; Corrupt for anything else."""
    try:
        c = _commit_decoder.decode(data)
    except MALFORMED as error:
        raise Corrupt(f"a commit cannot be read: {error}") from error
    root = decode_entry(c.head, c.value)
    if root.kind is not Kind.DIRECTORY or any(len(parent) != DIGEST_SIZE for parent in c.parents):
        raise Corrupt("a commit cannot be read: its root or a parent is malformed")
    if c.time < 0:
        raise Corrupt("a commit cannot be read: its time is before 1970")
    parents = tuple(Digest(parent) for parent in c.parents)
    commit = Commit(root, parents, Author(c.name, c.email), c.time, c.message, c.metadata)
    if encode_commit(commit) != data:
        raise Corrupt("a commit is not written as it must be")
    return commit


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One ref's change: `old` and `new` are the ref's stored bytes, empty where it did not or will not exist."""

    name: str
    old: bytes
    new: bytes


class Fence(msgspec.Struct, array_like=True, frozen=True):
    """What a change of a branch did to its staged work.

    Rows staged on `branch` up to and including sequence number `upto` are settled (committed or dropped).
    `bases` gives the directories that stay staged their new base root; `rows` are rows that keep them in place
    (directory id, name, head, staged id); `root` is the root directory's entry that the branch now stands on.
    """

    branch: str
    root_id: int
    upto: int
    head: bytes
    value: bytes
    bases: list[tuple[int, bytes]]
    rows: list[tuple[int, bytes, bytes, int]]


class RefsRecord(msgspec.Struct, array_like=True, frozen=True):
    """One operation on refs, as written to the log: the operation log is these records in order.

    `kept` are working trees as they stood before the operation put others in their place or removed their branches: id of the
    branch's root, and the entry of the directory that holds what was committed and staged (head, value).
    """

    time: int
    author: str
    description: str
    updates: list[tuple[str, bytes, bytes]]
    fences: list[Fence]
    dropped: list[tuple[str, int]] = []
    kept: list[tuple[int, bytes, bytes]] = []


class StageRecord(msgspec.Struct, array_like=True, frozen=True):
    """The head of one staging change; the rows of each directory follow it as encoded leaves.

    `created` lists new staged directories (id, base root), `dropped` ids that are gone with all below them,
    `groups` (directory id, mtime in ns to give it or 0, length of its leaf) in the order of the leaves;
    `attributes` are new heads of a branch's root directory (root id, head).
    """

    branch: str
    created: list[tuple[int, bytes]]
    dropped: list[int]
    groups: list[tuple[int, int, int]]
    attributes: list[tuple[int, bytes]]
    paths: list[tuple[list[bytes], list[bytes] | None]]


_refs_decoder = msgspec.msgpack.Decoder(RefsRecord)
_stage_decoder = msgspec.msgpack.Decoder(StageRecord)


def encode_record(record: RefsRecord | StageRecord) -> bytes:
    """A record of the log as msgpack."""
    return _encoder.encode(record)


def decode_refs_record(data: bytes) -> RefsRecord:
    """The operation that encode_record wrote; Corrupt for anything else."""
    try:
        return _refs_decoder.decode(data)
    except MALFORMED as error:
        raise Corrupt(f"an operation record cannot be read: {error}") from error


def decode_stage_record(data: bytes | memoryview) -> StageRecord:
    """The staging change that encode_record wrote; Corrupt for anything else."""
    try:
        return _stage_decoder.decode(data)
    except MALFORMED as error:
        raise Corrupt(f"a staging record cannot be read: {error}") from error
