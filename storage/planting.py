"""Directories built beside the working tree, and laid over what is there.

Nothing of a new directory is staged while it is built: its contents and nodes are stored under their digests, where
nothing leads to them. `storage.worktree.WorkingTree.graft` then puts the whole of it into the tree as one row. So
work that fails, is interrupted or killed leaves the tree exactly as it was.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from msgspec.structs import replace

from storage.errors import Exists, IsADirectory, NameTaken, NotADirectory, SchemaMismatch
from storage.model.chunking import INLINE_MAX, ChunkRef
from storage.model.deltas import DELTA_MIN
from storage.model.dtypes import dtype_of
from storage.model.names import Path, check_name, path_text
from storage.model.records import (
    PLAIN,
    Attributes,
    Entry,
    Kind,
    Schema,
    decode_entry,
    directory_entry,
    encode_head,
    sample_head,
)
from storage.model.samples import (
    HEADER_MAX,
    Array,
    Source,
    canonical_header,
    check_array,
    make_schema,
    parse_header,
    read_file_form,
)
from storage.stores.building import MapBuilder, apply_edits
from storage.stores.contents import chunks_of
from storage.stores.objects import Objects
from storage.tree import read
from storage.tree.edit import Edit
from storage.tree.node import EMPTY


class Planting:
    """A directory that is being built, over `old`, which is there already, if anything is.

    It becomes a dataset with the first sample, whose dtype and shape all others must have; with `variable` their shapes
    may differ, and the schema gives the largest. Over a dataset, that one's schema holds. Not thread-safe.
    """

    def __init__(self, objects: Objects, path: Path, old: Entry | None, *, variable: bool, stamp: int) -> None:
        self.path = path
        self.schema = old.schema if old is not None and old.is_directory else None
        self.attributes = PLAIN
        self.mtime = stamp
        self.samples = old.samples if old is not None and old.kind is Kind.DIRECTORY else 0
        self._objects = objects
        self._old = old
        self._given = self.schema is not None
        self._variable = variable
        self._stamp = stamp
        self._map = MapBuilder(objects, path)
        self._below: dict[bytes, Planting] = {}

    def below(self, name: bytes) -> Planting:
        """The directory of that name, begun if it has not been. InvalidName."""
        found = self._below.get(name)
        if found is None:
            old = child_of(self._objects, self._old, check_name(name))
            path = (*self.path, name)
            found = Planting(self._objects, path, old, variable=self._variable, stamp=self._stamp)
            if old is None and self.schema is not None and self.schema.nested:
                found.schema, found._given = self.schema.inner, True
            self._below[name] = found
        return found

    def close(self, name: bytes) -> None:
        """Nothing more will come into the directory of that name: its rows need no more memory."""
        entry = self._below.pop(name).finish()
        assert isinstance(entry.value, bytes)
        self._map.add([(name, encode_head(entry), entry.value)], len(entry.value))

    def add_rows(self, keys: Sequence[str], rows: Array, what: str) -> None:
        """Add samples that are the rows of one array. SchemaMismatch."""
        shape = rows.shape[1:]
        schema = self._fitting(rows.dtype, shape, what)
        nbytes = rows.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        raw = rows.tobytes()
        names = [key.encode() + schema.suffix for key in keys]
        values = [raw[at : at + nbytes] for at in range(0, len(raw), nbytes)] if nbytes else [b""] * len(keys)
        size = len(canonical_header(schema.dtype, shape)) + nbytes
        if nbytes <= INLINE_MAX and not schema.variable:
            head = sample_head(size, self._stamp)
            self._map.add(zip(names, repeat(head, len(names)), values, strict=True), len(raw))
            return
        kept = Attributes(shape=shape) if schema.variable else PLAIN
        head = encode_head(Entry(Kind.SAMPLE, size, self._stamp, kept))
        for name, value in zip(names, values, strict=True):
            self._map.add_contents(name, head, value, 0, rows.dtype.itemsize)

    def add_source(self, key: str, source: Source, what: str) -> None:
        """Add a sample that is in a `.npy` file. InvalidSample, SchemaMismatch."""
        header = parse_header(source.read(0, HEADER_MAX))
        schema = self._fitting(header.dtype, header.shape, what)
        self._add_sample(key.encode() + schema.suffix, source, self._stamp, PLAIN, what)

    def add_file(self, name: bytes, source: Source, mtime: int, attributes: Attributes, what: str) -> None:
        """Add a file; in a dataset one with the name of a sample must be one. InvalidName, SchemaMismatch."""
        check_name(name)
        if self.schema is not None and name.endswith(self.schema.suffix) and (source.size or self.schema.takes_empty):
            self._add_sample(name, source, mtime, attributes, what)
            return
        head = encode_head(Entry(Kind.FILE, source.size, mtime, attributes))
        self._map.add_contents(name, head, source, 0, 1, self._replaced(name, source))

    def add_link(self, name: bytes, target: bytes, mtime: int) -> None:
        """Add a symbolic link. InvalidName."""
        head = encode_head(Entry(Kind.SYMLINK, len(target), mtime))
        self._map.add([(check_name(name), head, target)], len(target))

    def finish(self) -> Entry:
        """The directory's entry; everything in it is stored. NameTaken if a name came twice."""
        for name in sorted(self._below):
            self.close(name)
        root, sums = self._map.finish()
        schema = self.schema
        if schema is not None and not self._given:
            # What tells it from other datasets, and for shapes that vary the hash with the largest one.
            schema = make_schema(dtype_of(schema.dtype), schema.shape, variable=schema.variable, uuid=uuid.uuid4().hex)
        attributes = replace(self.attributes, schema=schema)
        return directory_entry(root, sums.count, sums.samples, sums.size, mtime=self.mtime, attributes=attributes)

    def _add_sample(self, name: bytes, source: Source, mtime: int, attributes: Attributes, what: str) -> None:
        assert self.schema is not None
        header, found = read_file_form(self.schema, source, what)
        kept = replace(attributes, header=found.header, shape=found.shape)
        head = encode_head(Entry(Kind.SAMPLE, source.size, mtime, kept))
        before = self._replaced(name, source)
        self._map.add_contents(name, head, source, header.length, header.dtype.itemsize, before)

    def _replaced(self, name: bytes, source: Source) -> Sequence[ChunkRef]:
        """The chunks of the file that is there already: what stays alike need not be stored twice."""
        old = child_of(self._objects, self._old, name) if source.size > DELTA_MIN else None
        return chunks_of(self._objects, old, old.value) if old is not None and isinstance(old.value, bytes) else ()

    def _fitting(self, dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> Schema:
        """The schema, made from the first sample, or widened where shapes may vary. SchemaMismatch, Unsupported."""
        schema = self.schema
        if schema is None:
            schema = make_schema(dtype, shape, variable=self._variable)
        elif self._variable and not self._given and len(shape) == len(schema.shape):
            largest = tuple(map(max, shape, schema.shape))
            if largest != schema.shape:
                schema = replace(schema, shape=largest)
        try:
            check_array(schema, dtype, shape, what)
        except SchemaMismatch as error:
            if not self._given and not schema.variable and len(shape) == len(schema.shape) and dtype == schema.dtype:
                error.args = (f"{error}. A dataset of variable shape takes both.",)
            raise
        self.schema = schema
        return schema


def child_of(objects: Objects, directory: Entry | None, name: bytes) -> Entry | None:
    """The entry of that name in a committed directory, None where there is none."""
    if directory is None or directory.kind is not Kind.DIRECTORY:
        return None
    found = read.get(objects.node, directory.root, name)
    return None if found is None else decode_entry(*found)


def around(objects: Objects, name: bytes, entry: Entry) -> Entry:
    """A new directory that holds nothing but `entry`, a directory, under that name."""
    assert isinstance(entry.value, bytes)
    builder = MapBuilder(objects)
    builder.add([(name, encode_head(entry), entry.value)], len(entry.value))
    root, sums = builder.finish()
    return directory_entry(root, sums.count, sums.samples, sums.size, mtime=entry.mtime)


def merged(objects: Objects, parts: Sequence[Entry], path: Path) -> Entry:
    """The directory `path` with what is in all of them, otherwise like the first. NameTaken if a name is in two of them."""
    builder = MapBuilder(objects, path)
    for part in parts:
        builder.add_map(part.root)
    root, sums = builder.finish()
    mtime, attributes = parts[0].mtime, parts[0].attributes
    return directory_entry(root, sums.count, sums.samples, sums.size, mtime=mtime, attributes=attributes)


def overlaid(objects: Objects, old: Entry | None, new: Entry, path: Path, *, overwrite: bool) -> Entry:
    """A directory with what is in `new` laid over what is in `old`; both are stored in full.

    What is the same stays as it is, and the answer is `old` itself if all of it is; directories of one name become one.
    Exists where something else has the name, unless `overwrite`; IsADirectory, NotADirectory where one is a directory and
    the other not; SchemaMismatch for datasets whose samples look different.
    """
    if old is None:
        return new
    if not old.is_directory:
        raise NotADirectory(f"{path_text(path)} is there already, and is not a directory")
    schema = _common_schema(objects, old, new, path)
    if old.root == EMPTY:
        root, sums = new.root, read.sums(objects.node, new.root)
    else:
        root, sums = apply_edits(objects, old.root, _edits(objects, old, new, path, overwrite))
    if root == old.root and schema == old.schema:
        return old
    attributes = replace(old.attributes, schema=schema)
    return directory_entry(root, sums.count, sums.samples, sums.size, mtime=time.time_ns(), attributes=attributes)


def _common_schema(objects: Objects, old: Entry, new: Entry, path: Path) -> Schema | None:
    if old.schema is None and new.schema is not None and old.root != EMPTY:
        for name, head, _ in read.rows(objects.node, old.root):
            if name.endswith(new.schema.suffix) and head[0] == Kind.FILE:
                raise Exists(f"{path_text((*path, name))} is there already as a file, and would be a sample")
    if old.schema is not None and new.schema is not None and old.schema.hash != new.schema.hash:
        raise SchemaMismatch(
            f"{path_text(path)} holds other samples than those to come",
            expected=f"{old.schema.dtype} {old.schema.shape}",
            found=f"{new.schema.dtype} {new.schema.shape}",
        )
    return old.schema or new.schema


def _edits(objects: Objects, old: Entry, new: Entry, path: Path, overwrite: bool) -> Iterator[Edit]:
    for name, head, value in read.rows(objects.node, new.root):
        found = read.get(objects.node, old.root, name)
        if found is None:
            yield name, (head, value)
            continue
        before, after = decode_entry(*found), decode_entry(head, value)
        here = (*path, name)
        if after.is_directory:
            merged = overlaid(objects, before, after, here, overwrite=overwrite)
            assert isinstance(merged.value, bytes)
            yield name, (encode_head(merged), merged.value)
        elif before.is_directory:
            raise IsADirectory(f"{path_text(here)} is there already, and is a directory")
        elif not _same(before, after):
            if not overwrite:
                text = f"{path_text(here)} is there already, and is not the same: overwrite it, or choose another name"
                raise NameTaken(text, path=here)
            yield name, (head, value)


def _same(a: Entry, b: Entry) -> bool:
    """Whether two entries hold the same."""
    contents = (a.kind, a.size, a.flags, a.value) == (b.kind, b.size, b.flags, b.value)
    return contents and (a.attributes.header, a.attributes.shape) == (b.attributes.header, b.attributes.shape)
