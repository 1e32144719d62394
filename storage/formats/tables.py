"""Text tables, `.csv` and `.tsv`, with the names of the columns in their first row.

Columns of whole numbers become int64, of other numbers float64 (an empty cell is NaN), all others text as long as the
longest. Numbers with leading zeros are text: they are codes, not numbers. A file is read twice, first to find out.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import InvalidInput
from storage.formats.base import Item, Options, Stored, natural_file
from storage.formats.columns import column_blocks, columns_as_samples, exported, row_type, rows_as_samples
from storage.formats.npy import require_by
from storage.model.samples import Array

ROWS = 4096
"""Rows taken at a time."""

_NUMBER = re.compile(
    r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)", re.ASCII | re.IGNORECASE
)
_EXACT = 1 << 53  # whole numbers that a float can hold
_DELIMITERS = {".tsv": "\t"}


class CsvFormat:
    """Tables as text."""

    name = "csv"
    suffixes = (".csv", ".tsv")

    def weigh(self, path: Path, options: Options) -> int:
        """Twice the file's size: it is read twice."""
        return 2 * path.stat().st_size

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """One sample a row; or, by column, one array a column."""
        require_by(options, self.name, "row", "column")
        names, kinds, count = _found_out(path, options)
        dtype = row_type(list(zip(names, kinds, strict=True)), options, str(path))
        batches = _batches(path, names, dtype, options)
        if options.by == "column":
            yield from columns_as_samples(batches, dtype, count, natural_file(path), str(path))
        else:
            yield from rows_as_samples(batches, dtype, str(path))

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """A row for each sample; a column for each field, or for each number in the sample."""
        fields = exported(stored, self.name)
        with open(path, "x", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, delimiter=_DELIMITERS.get(path.suffix.lower(), ","), lineterminator="\n")
            writer.writerow([name for name, kind in fields for name in _wide(name, kind)])
            for columns, nbytes in column_blocks(stored, fields):
                cells: list[Sequence[str]] = []
                for name, _ in fields:
                    cells += _cells(columns[name])
                writer.writerows(zip(*cells, strict=True))
                options.meter.advance(nbytes)


def _wide(name: str, kind: np.dtype[Any]) -> list[str]:
    """The columns of a field: several where it holds an array."""
    return [name] if not kind.shape else [f"{name}{i}" for i in range(math.prod(kind.shape))]


def _cells(column: Array) -> list[Sequence[str]]:
    """The texts of one column, or of those that an array makes; numbers in as many digits as they need."""
    if column.ndim > 1:
        flat = column.reshape(len(column), -1)
        return [text for i in range(flat.shape[1]) for text in _cells(flat[:, i])]
    if column.dtype.kind == "S":
        return [[value.decode("utf-8", "backslashreplace") for value in column.tolist()]]
    texts: list[str] = column.astype(np.str_).tolist()
    return [texts]


def _found_out(path: Path, options: Options) -> tuple[list[str], list[Any], int]:
    """Names and dtypes of the columns, and how many rows there are."""
    rows = _rows(path, options)
    names = next(rows, None)
    if names is None:
        raise InvalidInput("the file is empty: the first row names the columns", where=str(path))
    columns = [_Column() for _ in names]
    count = 0
    while batch := list(islice(rows, ROWS)):
        count += len(batch)
        for column, cells in zip(columns, zip(*batch, strict=True), strict=True):
            column.look(cells)
    return names, [column.dtype for column in columns], count


class _Column:
    """What the cells of a column have been so far."""

    def __init__(self) -> None:
        self._width = 1
        self._whole = self._number = True
        self._empty = False
        self._seen = False
        self._least = self._largest = 0

    def look(self, cells: Sequence[str]) -> None:
        """More cells."""
        self._width = max(self._width, *map(len, cells))
        if not self._number:
            return
        filled = [cell for cell in cells if cell]
        self._empty |= len(filled) != len(cells)
        self._seen |= bool(filled)
        if self._whole:
            try:
                numbers = list(map(int, filled))
            except ValueError:
                self._whole = False
            else:
                # As written, or it is none: not 007, not 1_000, not +1.
                self._whole = list(map(str, numbers)) == filled
                self._least, self._largest = min(self._least, *numbers, 0), max(self._largest, *numbers, 0)
        if not self._whole:
            self._number = all(map(_NUMBER.fullmatch, filled))

    @property
    def dtype(self) -> Any:
        """The dtype that holds all of them."""
        if not self._seen or not self._number:
            return f"U{self._width}"
        if not self._whole:
            return "<f8"
        if not self._empty and self._least >= -(1 << 63) and self._largest < 1 << 63:
            return "<i8"
        # A float must not change a number: long ones stay text.
        return "<f8" if max(-self._least, self._largest) <= _EXACT else f"U{self._width}"


def _batches(
    path: Path, names: Sequence[str], dtype: np.dtype[Any], options: Options
) -> Iterator[tuple[Array, Sequence[str] | None]]:
    rows = _rows(path, options)
    if next(rows, None) != list(names):
        raise InvalidInput("the file changed while it was read: its first row", where=str(path))
    while batch := list(islice(rows, ROWS)):
        columns = dict(zip(names, zip(*batch, strict=True), strict=True))
        out = np.empty(len(batch), dtype)
        for name in dtype.names or ():
            try:
                out[name] = _column(columns[name], dtype[name])
            except (ValueError, OverflowError) as error:
                # It was read once already, and all fitted then.
                raise InvalidInput(f"the file changed while it was read: column {name!r}", where=str(path)) from error
        yield out, columns[options.key] if options.key else None


def _column(cells: Sequence[str], dtype: np.dtype[Any]) -> Sequence[str] | list[float]:
    """The cells as what an array of that dtype takes. ValueError for text that is longer than it keeps."""
    if dtype.kind == "f":
        return [float(cell or "nan") for cell in cells]
    if dtype.kind == "U" and max(map(len, cells)) * 4 > dtype.itemsize:
        raise ValueError("a text is too long")
    return cells


def _rows(path: Path, options: Options) -> Iterator[list[str]]:
    """The rows of a file, the names first; all have as many cells as there are names. InvalidInput."""
    number, told, width = 0, 0, -1
    try:
        with open(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=_DELIMITERS.get(path.suffix.lower(), ","), strict=True)
            for row in reader:
                if not row:
                    continue  # an empty line
                if width < 0:
                    width = len(row)
                if len(row) != width:
                    raise InvalidInput(
                        f"the row has {len(row)} cells, there are {width} columns", where=_at(path, reader)
                    )
                if any("\0" in cell for cell in row):
                    raise InvalidInput("a cell holds NUL", where=_at(path, reader))
                number += 1
                if number % ROWS == 0:
                    position = raw.tell()
                    options.meter.advance(position - told)
                    told = position
                yield row
            options.meter.advance(raw.tell() - told)
    except UnicodeDecodeError as error:
        # It is decoded some lines ahead of the reader.
        where = f"{path}, after line {reader.line_num}"
        raise InvalidInput(f"not a table in UTF-8: {error.reason}", where=where) from error
    except csv.Error as error:
        raise InvalidInput(f"not a table: {error}", where=_at(path, reader)) from error


def _at(path: Path, reader: Any) -> str:
    return f"{path}, line {reader.line_num}"
