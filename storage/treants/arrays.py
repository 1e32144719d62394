"""Arrays as HDF5 files, with the array in one piece: written around it without a copy, read straight from where it lies."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any, BinaryIO

import h5py
import numpy as np

from storage.errors import InvalidInput, Unsupported
from storage.model.chunking import Codec, pack
from storage.model.samples import Array

NAME = "main"
_TEXT = "arborfs.dtype"
"""The attribute with the dtype of texts, which HDF5 keeps as UTF-8."""

PROBED_FROM, PROBES, PROBE = 1 << 20, 16, 1 << 13
"""Arrays from so many bytes on are tried in so many places, so many bytes each."""

# What h5py raises for files that are damaged.
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


def is_plain_array(value: object) -> bool:
    """Whether it is an array that HDF5 holds as it is: no masked one, no matrix, none of Python's objects."""
    return type(value) in (np.ndarray, np.memmap) and not value.dtype.hasobject  # type: ignore[attr-defined]


def encode_array(array: Array) -> tuple[bytes | memoryview, ...]:
    """The pieces of an HDF5 file whose dataset `main` is the array. Unsupported (a ValueError) for a dtype HDF5 does not
    have.
    """
    if array.dtype.kind == "U":
        return (_text_file(array),)
    array = np.asarray(array, order="C")
    if not array.size:
        return (_small_file(array),)
    start = _before(array.dtype, array.shape)
    return start, array.reshape(-1).view(np.uint8).data


def compression(contents: bytes | memoryview | tuple[bytes | memoryview, ...]) -> str:
    """`none` for a long array that looks as if it would not become a tenth smaller: trying takes longer than all else."""
    last = memoryview(contents[-1] if isinstance(contents, tuple) else contents)
    if len(last) < PROBED_FROM:
        return ""
    step = len(last) // PROBES
    probe = b"".join(last[start : start + PROBE] for start in range(0, step * PROBES, step))
    return "none" if pack(probe)[0] is Codec.RAW else ""


def _small_file(array: Array) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        try:
            file.create_dataset(NAME, data=array.astype(_known(array.dtype)))
        except TypeError as error:
            raise _no_type(array.dtype) from error
    return memory.getvalue()


def _text_file(array: Array) -> bytes:
    encoded = np.char.encode(array, "utf-8")
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        kind = h5py.string_dtype("utf-8", max(encoded.dtype.itemsize, 1))
        file.create_dataset(NAME, data=encoded.astype(kind), dtype=kind).attrs[_TEXT] = array.dtype.str
    return memory.getvalue()


def _no_type(dtype: np.dtype[Any]) -> Unsupported:
    return Unsupported(f"arrays of {dtype} cannot be kept in HDF5: convert them to another type, or allow pickles")


def _known(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What h5py takes it for: times are bytes with a name to it."""
    return np.dtype(h5py.opaque_dtype(dtype)) if dtype.kind in "mM" else dtype


@lru_cache(64)
def _before(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What stands before an array that is not empty; nothing stands behind it."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver=("v108", "v108")) as file:
        try:
            kind = h5py.h5t.py_create(_known(dtype), logical=True)
        except TypeError as error:
            raise _no_type(dtype) from error
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)
        space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
        offset = int(h5py.h5d.create(file.id, NAME.encode(), kind, space, layout).get_offset())
    return memory.getvalue()[:offset]


def read_array(file: BinaryIO, where: str, start: int | None = None, stop: int | None = None) -> Array:
    """The array in an HDF5 file, or some of its rows; InvalidInput for a file without one that can be read.

    The file is one that somebody else may have written: never are other files read, or pickles.
    """
    try:
        with h5py.File(file, "r") as opened:
            dataset = _dataset(opened)
            rows = None if start is None and stop is None else slice(start, stop).indices(_length(dataset))[:2]
            if _in_one_piece(dataset):
                return _read_piece(file, dataset, rows)
            found = dataset[()] if rows is None else dataset[rows[0] : max(rows)]
            kept = dataset.attrs.get(_TEXT)
            return np.asarray(found) if kept is None else np.char.decode(found, "utf-8").astype(kept)
    except _UNREADABLE as error:
        raise InvalidInput(f"no array can be read: {error}", where=where) from error


def _length(dataset: h5py.Dataset) -> int:
    if not dataset.shape:
        raise TypeError("a single value has no rows")
    return int(dataset.shape[0])


def _dataset(file: h5py.File) -> h5py.Dataset:
    """`main`, or the only dataset of a file that another program wrote."""
    names = [NAME] if NAME in file else list(file)
    if len(names) != 1 or not isinstance(file.get(names[0], getlink=True), h5py.HardLink):
        raise KeyError(f"it has {len(names)} entries, and none is called {NAME!r}")
    found = file[names[0]]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise TypeError(f"{names[0]!r} is no array")
    if found.is_virtual or found.external:
        raise ValueError(f"{names[0]!r} lies in other files")
    return found


def _in_one_piece(dataset: h5py.Dataset) -> bool:
    """Whether its bytes stand one after the other as numpy has them."""
    if dataset.id.get_offset() is None or dataset.dtype.hasobject or _TEXT in dataset.attrs:
        return False
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    kind = h5py.h5t.py_create(_known(dataset.dtype), logical=True)
    return bool(dataset.id.get_storage_size() == size and dataset.id.get_type().equal(kind))


def _read_piece(file: BinaryIO, dataset: h5py.Dataset, rows: tuple[int, int] | None) -> Array:
    shape = tuple(dataset.shape)
    offset = int(dataset.id.get_offset())
    if rows is not None:
        offset += rows[0] * math.prod(shape[1:]) * dataset.dtype.itemsize
        shape = (max(rows[1] - rows[0], 0), *shape[1:])
    array = np.empty(shape, dataset.dtype)
    rest = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    file.seek(offset)
    while rest:
        read = file.readinto(rest)  # type: ignore[attr-defined]  # a BufferedReader has it
        if not read:
            raise ValueError("the file ends too early")
        rest = rest[read:]
    return array
