"""Parquet tables, through pyarrow where it is installed.

Columns of numbers, truth values, times, text, bytes, and lists of one length of numbers. Nothing that is missing can be
kept: a null is refused, with its row. Text becomes as long as the longest in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import InvalidInput, Unsupported
from storage.formats.base import Item, Options, Stored, natural_file
from storage.formats.columns import column_blocks, columns_as_samples, exported, row_type, rows_as_samples
from storage.formats.npy import require_by
from storage.model.samples import Array

ROWS = 8192


class ParquetFormat:
    """Tables as columns."""

    name = "parquet"
    suffixes = (".parquet", ".pq")

    def weigh(self, path: Path, options: Options) -> int:
        """The file's size."""
        return path.stat().st_size

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """One sample a row; or, by column, one array a column."""
        require_by(options, self.name, "row", "column")
        arrow = _arrow()
        where = str(path)
        try:
            with _opened(path) as file:
                fields = [(field.name, *_kind(file, field, where)) for field in file.schema_arrow]
                dtype = row_type(fields, options, where)
                weight = path.stat().st_size / max(1, file.metadata.num_rows)
                batches = _batches(file, dtype, options, where, weight)
                if options.by == "column":
                    count = file.metadata.num_rows
                    yield from columns_as_samples(batches, dtype, count, natural_file(path), where)
                else:
                    yield from rows_as_samples(batches, dtype, where)
        except (arrow.ArrowException, OSError) as error:
            raise InvalidInput(f"the table cannot be read: {error}", where=where) from error

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """A row for each sample; a column for each field, or for each number in the sample."""
        arrow = _arrow()
        fields = exported(stored, self.name)
        try:
            schema = arrow.schema([(name, _arrow_type(arrow, kind)) for name, kind in fields])
        except (arrow.ArrowException, NotImplementedError) as error:
            raise Unsupported(f"{stored.name} has no {self.name} form: {error}") from error
        with import_module("pyarrow.parquet").ParquetWriter(path, schema) as writer:
            for columns, nbytes in column_blocks(stored, fields):
                arrays = [_arrow_array(arrow, columns[name], schema.field(name).type) for name, _ in fields]
                writer.write_batch(arrow.record_batch(arrays, schema=schema))
                options.meter.advance(nbytes)


def _arrow() -> Any:
    """pyarrow. Unsupported where it is not installed."""
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise Unsupported("parquet files need pyarrow: install arborfs[parquet]") from error


def _opened(path: Path) -> Any:
    arrow = _arrow()
    try:
        return import_module("pyarrow.parquet").ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InvalidInput(f"not a whole .parquet file: {error}", where=str(path)) from error


def _kind(file: Any, field: Any, where: str) -> tuple[Any, ...]:
    """The dtype of a column and, for lists, the shape of a cell. Unsupported."""
    arrow = _arrow()
    types = arrow.types
    kind = field.type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return (f"U{_longest(file, field.name, 'utf8_length')}",)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return (f"S{_longest(file, field.name, 'binary_length')}",)
    listed = types.is_fixed_size_list(kind)
    plain = _plain(kind.value_type if listed else kind)
    if plain is None:
        raise Unsupported(f"{where}: column {field.name!r} holds {field.type}, which arrays do not")
    return (plain, (kind.list_size,)) if listed else (plain,)


def _plain(kind: Any) -> np.dtype[Any] | None:
    """The dtype of numbers, truth values and times; None for anything else."""
    types = _arrow().types
    if types.is_timestamp(kind) and kind.tz is None:
        return np.dtype(f"M8[{kind.unit}]")
    if types.is_date32(kind):
        return np.dtype("M8[D]")
    if types.is_duration(kind):
        return np.dtype(f"m8[{kind.unit}]")
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        number: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return number
    return None


def _longest(file: Any, column: str, measure: str) -> int:
    """The length of the longest text in a column, at least 1."""
    compute = import_module("pyarrow.compute")
    longest = 1
    for batch in file.iter_batches(ROWS, columns=[column]):
        values = batch.column(0)
        if _arrow().types.is_dictionary(values.type):
            values = values.dictionary_decode()
        longest = max(longest, compute.max(getattr(compute, measure)(values)).as_py() or 1)
    return longest


def _batches(
    file: Any, dtype: np.dtype[Any], options: Options, where: str, weight: float
) -> Iterator[tuple[Array, Sequence[str] | None]]:
    first = 1
    for batch in file.iter_batches(ROWS):
        out = np.empty(batch.num_rows, dtype)
        keys: Sequence[str] | None = None
        for field, column in zip(batch.schema, batch.columns, strict=True):
            missing = _missing(column)
            if missing is not None:
                raise InvalidInput(f"column {field.name!r} has no value there", where=f"{where}, row {first + missing}")
            if field.name == options.key:
                keys = [str(value) for value in column.to_pylist()]
            else:
                out[field.name] = _values(column, dtype[field.name])
        yield out, keys
        options.meter.advance(int(batch.num_rows * weight))
        first += batch.num_rows


def _missing(column: Any) -> int | None:
    """The first row of a column that holds a null, in itself or in its list; None where none does."""
    if column.null_count:
        return int(column.is_null().index(True).as_py())
    if not _arrow().types.is_fixed_size_list(column.type):
        return None
    # A list that is whole can hold nulls all the same, which as numbers would be anything.
    inner = column.flatten()
    return int(inner.is_null().index(True).as_py()) // column.type.list_size if inner.null_count else None


def _values(column: Any, kind: np.dtype[Any]) -> Array:
    types = _arrow().types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind.shape:
        flat: Array = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), *kind.shape)
    if kind.kind in "US":
        values: list[Any] = column.to_pylist()
        empty = "\0" if kind.kind == "U" else b"\0"
        if any(value.endswith(empty) for value in values):
            raise Unsupported("a text ends with NUL, which arrays of text do not keep")
        return np.array(values, kind)
    array: Array = column.to_numpy(zero_copy_only=False)
    return array


def _arrow_type(arrow: Any, kind: np.dtype[Any]) -> Any:
    if kind.shape:
        return arrow.list_(arrow.from_numpy_dtype(kind.base), int(np.prod(kind.shape, dtype=np.int64)))
    if kind.kind == "U":
        return arrow.string()
    return arrow.binary() if kind.kind == "S" else arrow.from_numpy_dtype(kind.newbyteorder("="))


def _arrow_array(arrow: Any, column: Array, kind: Any) -> Any:
    if column.ndim > 1:
        return arrow.FixedSizeListArray.from_arrays(arrow.array(np.ascontiguousarray(column).ravel()), kind.list_size)
    if column.dtype.kind in "US":
        return arrow.array(column.tolist(), type=kind)
    return arrow.array(np.ascontiguousarray(column.astype(column.dtype.newbyteorder("="))), type=kind)
