"""Giving a dataset a wider schema: a dtype that holds every value of the old one, a larger maximum shape, other compression."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace

from storage.errors import SchemaMismatch
from storage.model.dtypes import dtype_of
from storage.model.names import Path
from storage.model.records import Entry, Kind, Schema, decode_entry, directory_entry, encode_head
from storage.model.samples import array_from, make_schema
from storage.stores.building import apply_edits
from storage.tree import read
from storage.tree.edit import Edit
from storage.worktree import WorkingTree


def wider_schema(schema: Schema, dtype: np.dtype[Any] | None, max_shape: tuple[int, ...] | None) -> Schema:
    """The schema with that dtype and that largest shape, where they are given; SchemaMismatch where they would be narrower."""
    if schema.holds != "array":
        raise SchemaMismatch(
            f"samples of kind {schema.holds} have neither dtype nor shape to widen", found=schema.holds
        )
    old = dtype_of(schema.dtype)
    new = old if dtype is None else dtype
    if not np.can_cast(old, new, "safe"):
        raise SchemaMismatch(f"dtype {new} cannot hold every value of {old}", expected=str(old), found=str(new))
    largest = schema.shape if max_shape is None else max_shape
    if len(largest) != len(schema.shape) or any(n < least for n, least in zip(largest, schema.shape, strict=True)):
        raise SchemaMismatch(
            f"max_shape {largest} has no room for samples of shape {schema.shape}",
            expected=str(schema.shape),
            found=str(largest),
        )
    return make_schema(
        new,
        largest,
        variable=schema.variable or largest != schema.shape,
        named=schema.named,
        compression=schema.compression,
        uuid=schema.uuid,
        kind=schema.kind,
    )


def widen(tree: WorkingTree, path: Path, old: Schema, new: Schema) -> None:
    """Give the dataset at `path` a wider schema, as one row. Conflict if others change it meanwhile; then nothing is changed.

    One row and nothing else where samples stay as they are; otherwise every sample is stored anew.
    """
    if not old.nested and _keeps_samples(old, new):
        tree.set_schema(path, new)
        return
    with tree.storing():
        entry, since = tree.folded(path)
        assert entry is not None
        tree.graft(path, _widened(tree, entry, old, new), since)


def _keeps_samples(old: Schema, new: Schema) -> bool:
    """Whether a sample is stored in the same way under both: each has its shape with it where shapes vary."""
    return old.dtype == new.dtype and old.variable == new.variable


def _widened(tree: WorkingTree, directory: Entry, old: Schema, new: Schema) -> Entry:
    """A stored directory of samples under the schema `old` as one under `new`."""
    root, sums = apply_edits(tree.objects, directory.root, _edits(tree, directory, old, new))
    attributes = replace(directory.attributes, schema=new)
    return directory_entry(root, sums.count, sums.samples, sums.size, mtime=time.time_ns(), attributes=attributes)


def _edits(tree: WorkingTree, directory: Entry, old: Schema, new: Schema) -> Iterator[Edit]:
    for name, head, value in read.rows(tree.objects.node, directory.root):
        entry = decode_entry(head, value)
        if entry.kind is Kind.SAMPLE and not _keeps_samples(old, new):
            entry = _converted(tree, entry, old, new)
        elif old.nested and entry.is_directory and old.inner.is_like(entry.schema):
            entry = _widened(tree, entry, old.inner, new.inner)
        else:
            continue
        assert isinstance(entry.value, bytes)
        yield name, (encode_head(entry), entry.value)


def _converted(tree: WorkingTree, entry: Entry, old: Schema, new: Schema) -> Entry:
    array = array_from(tree.payload(entry), old, entry.attributes, copy=False)
    wide = tree.sample_entry(new, array.astype(dtype_of(new.dtype)), entry.mtime)
    kept = entry.attributes
    attributes = replace(kept, header=None, shape=wide.attributes.shape)
    return replace(wide, attributes=attributes)
