"""Samples as a map-style dataset of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from storage.dataset_reader import Key
from storage.errors import Unsupported
from storage.loaders.columns import Columns, make_columns, own


def make_torch_dataset(
    columns: object, keys: Iterable[Key | Sequence[Key]] | None = None, as_dict: bool = False
) -> Any:
    """A `torch.utils.data.Dataset` over datasets of a read-only checkout: for `DataLoader`, with any number of workers.

    One dataset, or a list of datasets whose samples belong together by key. `keys` are those to take, in that order, or
    for each row a tuple with a key for each dataset; all, in order, if None. A sample is a tensor of its own memory (what
    has no tensor, such as text and times, stays as it is); of several datasets a tuple of these or, `as_dict`, a dict
    by the datasets' names.

    Worker processes, forked or spawned, open the repository themselves, at the same commit; so the dataset can be
    pickled. In the process that made it, it can be read until the checkout is closed.

    WrongType (a TypeError) for what is no dataset or no key; ReadOnly (a PermissionError) for a writer's; without keys NotFound
    (a KeyError) unless all datasets have the same, with keys for one that is not there; Unsupported (a ValueError) for a
    row that has not a key for each dataset, and where PyTorch is not installed; TooFewSamples (a RuntimeError) without any.
    """
    found = make_columns(columns, keys)
    if as_dict and len(set(found.names)) < len(found.names):
        raise Unsupported(f"a dict takes each name once, not {', '.join(found.names)}: leave as_dict out")
    return _rebuilt(found, as_dict)


class _Rows:
    """What the dataset does, whatever PyTorch is: the class below inherits it, and torch's."""

    def __init__(self, columns: Columns, as_dict: bool) -> None:
        self._columns = columns
        self._as_dict = as_dict

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, number: int) -> Any:
        if not -len(self._columns) <= number < len(self._columns):
            raise IndexError(f"there are {len(self._columns)} samples, none of number {number}")
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """The samples of a batch at once: DataLoader asks for this."""
        columns = [_tensors(column) for column in self._columns.read(numbers)]
        if self._as_dict:
            return [dict(zip(self._columns.names, row, strict=True)) for row in zip(*columns, strict=True)]
        return list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0]

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made when it is needed: it has no name by which it could be pickled.
        return _rebuilt, (self._columns, self._as_dict)


def _rebuilt(columns: Columns, as_dict: bool) -> Any:
    return _dataset_class()(columns, as_dict)


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise Unsupported("this needs PyTorch: install arborfs[torch]") from error


@cache
def _dataset_class() -> type[Any]:
    # Inherited here, not above: PyTorch takes seconds to import, and is not everybody's.
    base = _torch().utils.data.Dataset
    return type("TorchDataset", (_Rows, base), {"__doc__": "Samples of commits as tensors."})


@cache
def _kinds() -> frozenset[str]:
    """The dtypes that tensors have, by numpy's names."""
    torch = _torch()
    names = {"bool", "float16", "float32", "float64", "complex64", "complex128"}
    names |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    return frozenset(name for name in names if hasattr(torch, name))


def _tensors(column: Any) -> list[Any]:
    """The samples of a column as tensors. Those of one array share its memory, which is nobody else's."""
    if isinstance(column, list):
        return [_tensor(own(value)) for value in column]
    whole = _tensor(column)
    return list(whole) if whole is column else list(whole.unbind())


def _tensor(value: Any) -> Any:
    """An array as a tensor of the same memory, a dict of arrays as one of tensors; anything else as it is."""
    if isinstance(value, dict):
        return {key: _tensor(each) for key, each in value.items()}
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.newbyteorder("=").name not in _kinds():
        return value
    return _torch().from_numpy(value if dtype.isnative else value.astype(dtype.newbyteorder("=")))
