"""Tables: what `.csv` and `.parquet` files have in common. A row is a sample: one structured value, a field a column."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from storage.errors import InvalidInput, Unsupported
from storage.formats.base import BLOCK_BYTES, FileSource, Item, Options, Samples, Silent, Stored
from storage.formats.npy import require_fixed
from storage.formats.stored import blocks, row_keys, sample_size
from storage.model.samples import Array

KEY = "key"
"""The column that keys are exported as, where they are more than numbers."""


def row_type(fields: Sequence[tuple[str, Any]], options: Options, where: str) -> np.dtype[Any]:
    """The dtype of a row: a field for each column but that of the keys. InvalidInput for names that cannot be."""
    names = [name for name, *_ in fields]
    for name in names:
        if not name or names.count(name) > 1:
            raise InvalidInput(f"the column name {name!r} is {'empty' if not name else 'there twice'}", where=where)
        if not name.isprintable() or any(ord(c) > 255 for c in name):
            raise InvalidInput(f"the column name {name!r} has characters outside of Latin-1", where=where)
    if options.key and options.key not in names:
        raise InvalidInput(
            f"there is no column {options.key!r} for the keys: there are {', '.join(names)}", where=where
        )
    kept = [field for field in fields if field[0] != options.key]
    if not kept:
        raise InvalidInput("there is no column beside that of the keys", where=where)
    return np.dtype(kept)


def rows_as_samples(
    batches: Iterable[tuple[Array, Sequence[str] | None]], dtype: np.dtype[Any], where: str
) -> Iterator[Item]:
    """One sample a row. A table without rows makes an empty dataset."""
    first = 1
    yield Samples(np.empty(0, dtype), (), where, first=first)
    for rows, keys in batches:
        assert rows.dtype == dtype
        yield Samples(rows, keys, where, first=first)
        first += len(rows)


def columns_as_samples(
    batches: Iterable[tuple[Array, Sequence[str] | None]], dtype: np.dtype[Any], count: int, key: str, where: str
) -> Iterator[Item]:
    """One array a column: a dataset below for each, with one sample. The columns wait in files meanwhile."""
    spools: dict[str, IO[bytes]] = {}
    try:
        for name in dtype.names or ():
            spools[name] = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
            kind = dtype[name]
            described = {"descr": npy.dtype_to_descr(kind.base), "fortran_order": False, "shape": (count, *kind.shape)}
            npy.write_array_header_1_0(spools[name], described)
        for rows, _ in batches:
            for name, spool in spools.items():
                spool.write(rows[name].tobytes())
        for name, spool in spools.items():
            spool.flush()
            size = os.fstat(spool.fileno()).st_size
            source = FileSource(spool.fileno(), size, where, Silent())
            yield Samples(source, [key], f"{where}, column {name!r}", dataset=(name.encode(),))
    finally:
        for spool in spools.values():
            spool.close()


def exported(stored: Stored, name: str) -> list[tuple[str, Any]]:
    """The columns of a dataset that can be a table: names and dtypes. Unsupported for anything else."""
    dataset = stored.dataset
    if dataset is None:
        raise Unsupported(f"{stored.name} is not a dataset: it has no {name} form")
    require_fixed(dataset, name)
    fields: list[tuple[str, Any]] = []
    dtype = dataset.dtype
    if dtype.names:
        if dataset.shape:
            raise Unsupported(f"the samples of {dataset.name!r} have fields and the shape {dataset.shape}")
        for field in dtype.names:
            kind = dtype[field]
            if kind.names or (kind.kind == "V" and not kind.shape):
                raise Unsupported(f"the field {field!r} of {dataset.name!r} holds {kind}, which no column can")
            fields.append((field, kind))
    else:
        width = int(np.prod(dataset.shape, dtype=np.int64))
        fields = [("value", dtype)] if not dataset.shape else [(f"c{i}", dtype) for i in range(width)]
    if row_keys(dataset) is None:
        if any(field == KEY for field, _ in fields):
            raise Unsupported(f"{dataset.name!r} has a column {KEY!r} of its own: its keys would be lost")
        fields.insert(0, (KEY, np.dtype(np.str_)))
    return fields


def column_blocks(stored: Stored, fields: Sequence[tuple[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Some rows at a time, as one array for each column; and how many bytes the samples have."""
    dataset = stored.dataset
    assert dataset is not None
    for keys, block in blocks(stored, BLOCK_BYTES):
        columns: dict[str, Any] = {}
        flat = block if block.dtype.names else block.reshape(len(block), -1)
        number = 0
        for name, _ in fields:
            if name == KEY and fields[0][0] == KEY and (not block.dtype.names or name not in block.dtype.names):
                columns[name] = np.array(keys, dtype=np.str_)
            elif block.dtype.names:
                columns[name] = flat[name]
            else:
                columns[name] = flat[:, number]
                number += 1
        yield columns, sample_size(dataset) * len(keys)
