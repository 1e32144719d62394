"""Samples of several datasets under one key, generated for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.dataset_reader import DatasetDataReader
from storage.errors import InvalidName, Unsupported


def add_together(datasets: Mapping[str, DatasetDataReader], values: Mapping[str, Any]) -> str:
    """Stage a sample in each of the named datasets, and return the key that all of them have got.

    InvalidName (a ValueError) for datasets of named samples, KeyError for those that are not there, SchemaMismatch for what
    does not fit: after any error none of the samples is there.
    """
    chosen = [(datasets[name], value) for name, value in values.items()]
    if not chosen:
        raise Unsupported("give at least one dataset with its sample")
    for dataset, _ in chosen:
        if dataset.named_samples:
            raise InvalidName(f"A sample of dataset {dataset.name!r} needs a name: its samples are named.")
    key, done = None, list[DatasetDataReader]()
    try:
        for dataset, value in chosen:
            key = dataset.add(value, key)
            done.append(dataset)
    except BaseException:
        # The key is new: whatever is under it was put there just now.
        for dataset in done:
            dataset.remove(str(key))
        raise
    return str(key)
