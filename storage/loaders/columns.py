"""Datasets side by side: row by row the samples that belong together, in whatever process they are asked for.

Worker processes carry nothing over a fork: neither LMDB nor descriptors nor locks. They, and those that were given a
pickled copy, open the repository themselves, at the same commits, when they read the first row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from storage.dataset_reader import DatasetDataReader, Key
from storage.errors import NotFound, ReadOnly, TooFewSamples, Unsupported, WrongType
from storage.model.chunking import INLINE_MAX
from storage.model.digest import blake, hexed

Batch = Any
"""Samples of one column: an array with a first axis more, or a list where they cannot be stacked."""


class Columns:
    """Datasets of commits whose samples belong together by key. Thread-safe; can be pickled, and carried over a fork."""

    def __init__(self, readers: Sequence[DatasetDataReader], keys: Sequence[tuple[str, ...]]) -> None:
        self.keys = keys
        self.names = tuple(reader.name for reader in readers)
        self.stackable = tuple(_stackable(reader) for reader in readers)
        """Whether all samples of a column are arrays of one shape."""
        # How to open each of them again, found out while the checkout is open.
        self._recipes = tuple(reader.__reduce__() for reader in readers)
        self._opened = {os.getpid(): tuple(readers)}

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.keys)

    def read(self, numbers: Sequence[int]) -> tuple[Batch, ...]:
        """The rows of those numbers, column by column. One array is fresh memory; samples in a list may not be: see `own`.

        Closed, in the process that the datasets come from, once their checkout is closed.
        """
        return tuple(
            _samples(reader, [self.keys[number][column] for number in numbers])
            for column, reader in enumerate(self.here())
        )

    def fingerprint(self) -> str:
        """Tells these keys in this order, of datasets of these names, from others. Says nothing of what the samples hold."""
        parts = [*self.names, "", *(key for row in self.keys for key in row)]
        return hexed(blake("\0".join(parts).encode("utf-8", "surrogateescape")))[:32]

    def here(self) -> tuple[DatasetDataReader, ...]:
        """The datasets, opened by this process."""
        process = os.getpid()
        found = self._opened.get(process)
        if found is None:
            # Without a lock, which a fork may carry over as it was: who comes second gives way.
            found = self._opened.setdefault(process, tuple(reopen(*where) for reopen, where in self._recipes))
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is open in this process."""
        return self.__dict__ | {"_opened": {}}


def _stackable(reader: DatasetDataReader) -> bool:
    return reader.column_layout == "flat" and reader.schema_type == "fixed_shape"


def _samples(reader: DatasetDataReader, keys: list[str]) -> Batch:
    # Long samples are chunks of their own, which a stack decodes in threads. Loaders have processes or threads already:
    # one by one 64 of 256 KiB took 11 ms, stacked 30.
    if _stackable(reader) and reader.dtype.itemsize * math.prod(reader.shape) <= INLINE_MAX:
        return reader.stack(keys)
    return [reader[key] for key in keys]


def own(value: Any) -> Any:
    """A sample as writeable memory of its own; of a nested dataset, as a dict of such."""
    if isinstance(value, DatasetDataReader):
        return {key: own(each) for key, each in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def make_columns(columns: object, keys: Iterable[Key | Sequence[Key]] | None) -> Columns:
    """Check what a user has given to a loader, and put it side by side.

    `columns` is a dataset of a read-only checkout or a list of such. `keys` are the keys to take, in that order, or for
    each row a tuple with a key for each dataset; all, in order, if None.

    WrongType (a TypeError) for what is no dataset or no key, ReadOnly (a PermissionError) for a branch's, which may change;
    without keys Unsupported (a ValueError) for nested datasets beside others and NotFound (a KeyError) unless all have the
    same keys; with keys NotFound for one that is not there and Unsupported for a row that has not a key for each
    dataset; TooFewSamples (a RuntimeError) without any.
    """
    readers = _checked_readers(columns)
    found = _common_keys(readers) if keys is None else _checked_keys(readers, keys)
    if not found:
        raise TooFewSamples(f"there is no sample in {', '.join(each.name for each in readers)}", wanted=1, found=0)
    return Columns(readers, found)


def _checked_readers(columns: object) -> list[DatasetDataReader]:
    given = [columns] if isinstance(columns, DatasetDataReader) else columns
    if not isinstance(given, list | tuple) or not given:
        raise WrongType(f"columns must be a dataset or a list of datasets, not {_described(columns)}")
    for each in given:
        if not isinstance(each, DatasetDataReader):
            raise WrongType(f"columns must be datasets, not {_described(each)}")
        if each.iswriteable:
            raise ReadOnly(
                f"the dataset {each.name!r} is a writer's, and may change: take it from a read-only checkout"
            )
    return list(given)


def _described(value: object) -> str:
    return f"an empty {type(value).__name__}" if isinstance(value, list | tuple) and not value else type(value).__name__


def _common_keys(readers: Sequence[DatasetDataReader]) -> list[tuple[str, ...]]:
    first, *others = readers
    if len({reader.column_layout for reader in readers}) > 1:
        layouts = ", ".join(f"{reader.name!r} is {reader.column_layout}" for reader in readers)
        raise Unsupported(f"the datasets are laid out differently: {layouts}; name the keys to take")
    keys = list(first)
    for other in others:
        if differing := set(other).symmetric_difference(keys):
            example = min(differing)
            raise NotFound(
                f"{first.name!r} and {other.name!r} have not the same keys: {len(differing)} are in one only, "
                f"such as {example!r}; name the keys to take"
            )
    return [(key,) * len(readers) for key in keys]


def _checked_keys(readers: Sequence[DatasetDataReader], keys: Iterable[Key | Sequence[Key]]) -> list[tuple[str, ...]]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise WrongType(f"keys must be a list of keys, not {type(keys).__name__}")
    rows: list[tuple[str, ...]] = []
    for given in keys:
        row = tuple(given) if isinstance(given, list | tuple) else (given,) * len(readers)
        if len(row) != len(readers):
            raise Unsupported(f"the row {given!r} has {len(row)} keys, there are {len(readers)} datasets")
        rows.append(tuple(_checked_key(reader, key) for reader, key in zip(readers, row, strict=True)))
    return rows


def _checked_key(reader: DatasetDataReader, key: object) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise WrongType(f"keys are str or int, not {type(key).__name__}")
    if key not in reader:
        raise NotFound(f"no sample {key!r} in dataset {reader.name!r}")
    return str(key)
