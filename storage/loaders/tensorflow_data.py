"""Samples as a tf.data.Dataset of TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from storage.dataset_reader import DatasetDataReader, Key
from storage.errors import Unsupported
from storage.loaders.batches import make_numpy_dataset
from storage.loaders.columns import make_columns


def make_tensorflow_dataset(
    columns: object, keys: Iterable[Key | Sequence[Key]] | None = None, shuffle: bool = False
) -> Any:
    """A `tf.data.Dataset` over datasets of a read-only checkout: a tensor for each sample, a tuple of them for several.

    With `shuffle` every epoch has an order of its own. To be read in the process that made it, until the checkout is closed.
    Errors as of `make_torch_dataset`; Unsupported (a ValueError) where TensorFlow is not installed.
    """
    found = make_columns(columns, keys)
    samples = make_numpy_dataset(columns, keys, shuffle=shuffle)
    tensorflow = _tensorflow()
    specs = tuple(_spec(tensorflow, reader) for reader in found.here())

    def rows() -> Iterator[Any]:
        """The samples of one epoch."""
        return iter(samples)

    return tensorflow.data.Dataset.from_generator(rows, output_signature=specs if len(specs) > 1 else specs[0])


def _spec(tensorflow: Any, reader: DatasetDataReader) -> Any:
    """What samples of a dataset are to TensorFlow. Unsupported."""
    if reader.column_layout != "flat" or reader.kind not in ("array", "str", "bytes"):
        raise Unsupported(f"samples of {reader.name!r} are no tensors: only arrays, texts and bytes are")
    if reader.kind != "array":
        return tensorflow.TensorSpec((), tensorflow.string)
    shape = [None] * len(reader.shape) if reader.variable_shape else reader.shape
    return tensorflow.TensorSpec(shape, tensorflow.as_dtype(reader.dtype))


def _tensorflow() -> Any:
    try:
        return import_module("tensorflow")
    except ImportError as error:
        raise Unsupported("this needs TensorFlow: install the package tensorflow") from error
