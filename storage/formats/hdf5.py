"""HDF5 files: their datasets become datasets, a sample a row, and their groups directories; and back.

What a row cannot hold — attributes, chunking, compression, links, single values, lists of varying length — stays in
HDF5's own form, in a side file `.skeleton.h5` beside the datasets: the file as it was, its large datasets emptied.
An export fills that in again, so that it gives a file equal to the first one.

Nothing is read from other files: external links are kept as links, datasets whose data lie elsewhere are refused.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from storage.dataset_reader import DatasetDataReader
from storage.errors import ArborError, InvalidInput, Unsupported
from storage.formats.base import BLOCK_BYTES, File, FileSource, Item, Options, Samples, Silent, Stored, regular_file
from storage.formats.hdf5_copy import (
    TEXTS,
    Copier,
    address,
    bare,
    emptied,
    is_rows,
    is_text,
    is_tracked,
    longest_text,
    remade,
)
from storage.formats.npy import require_by, require_fixed
from storage.formats.stored import blocks, row_keys, sample_size
from storage.formats.tree import save_file
from storage.model.names import Path as TreePath
from storage.model.names import check_key, path_text
from storage.model.samples import Array

SKELETON = b".skeleton.h5"
KEYS = ".keys"
"""A dataset whose samples have names is followed by one of this ending with the names."""

OURS = "arborfs.keys"
"""The attribute that tells such a dataset from one that is only called so."""

_CHUNK_MAX = 64 << 20
# What h5py raises for files that are damaged.
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


class Hdf5Format:
    """HDF5 files."""

    name = "hdf5"
    suffixes = (".h5", ".hdf5", ".he5", ".nc")

    def weigh(self, path: Path, options: Options) -> int:
        """What the rows of all datasets take in memory."""
        fd, _ = regular_file(path)
        os.close(fd)
        try:
            with h5py.File(path, "r") as file:
                found: dict[int, int] = {}
                file.visititems(lambda _, item: _note_size(item, found))
                return sum(found.values())
        except _UNREADABLE as error:
            raise InvalidInput(f"the file cannot be read: {error}", where=str(path)) from error

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """A dataset for each one in the file, row by row; then the side file."""
        require_by(options, self.name, "row")
        fd, known = regular_file(path)
        os.close(fd)
        where = str(path)
        with tempfile.TemporaryDirectory(prefix="arborfs-") as folder:
            skeleton = Path(folder) / "skeleton.h5"
            try:
                with (
                    h5py.File(path, "r") as file,
                    h5py.File(skeleton, "w", track_order=is_tracked(file["/"])) as copy,
                ):
                    copier = Copier(file, copy, where)
                    for dataset in copier.copied():
                        yield from _rows(dataset, where, options)
                    copier.finish()
            except ArborError:
                raise
            except _UNREADABLE as error:
                raise InvalidInput(f"the file cannot be read: {error}", where=where) from error
            fd, side = regular_file(skeleton)
            try:
                yield File((SKELETON,), FileSource(fd, side.st_size, where, Silent()), where, known.st_mtime_ns)
            finally:
                os.close(fd)

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """A directory with all datasets below it; or one dataset, under its own name."""
        if not stored.entry.is_directory:
            raise Unsupported(
                f"{stored.name} is neither a dataset nor a directory of datasets: it has no {self.name} form"
            )
        skeleton = stored.child(SKELETON) if stored.dataset is None else None
        if skeleton is not None:
            save_file(skeleton, path, options)
        try:
            with h5py.File(path, "r+" if skeleton is not None else "x") as file:
                stale = emptied(file)
                if stored.dataset is not None:
                    _fill(stored, file, _name(stored.path[-1]), stale, options)
                else:
                    _fill_group(stored, file, stale, options)
                for name in chain.from_iterable(stale.values()):  # removed since the import
                    del file[name]
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, ArborError):
                raise  # not the library's: damage, or what it was told to refuse
            raise Unsupported(f"{stored.name} has no {self.name} form: {error}") from error


def _note_size(item: object, found: dict[int, int]) -> None:
    if isinstance(item, h5py.Dataset) and (is_rows(item) or is_text(item)):
        found[address(item)] = item.nbytes


def _rows(dataset: h5py.Dataset, where: str, options: Options) -> Iterator[Item]:
    """The rows of a dataset, in blocks that begin where its chunks do."""
    parts = dataset.name.lstrip("/").split("/")
    path: TreePath = tuple(check_key(part).encode("utf-8", "surrogateescape") for part in parts)
    place = f"{where}, dataset {dataset.name}"
    count = dataset.shape[0]
    text = f"S{longest_text(dataset)}" if is_text(dataset) else ""
    step = TEXTS if text else _step(dataset)
    names = _names(dataset)
    for first in range(0, max(count, 1), step):
        end = min(first + step, count)
        try:
            found = dataset[first:end]
        except (OSError, RuntimeError) as error:
            raise InvalidInput(f"rows {first} to {end} cannot be read: {error}", where=place) from error
        block = np.ascontiguousarray(found.astype(text) if text else found)
        keys: Sequence[str] = names[first:end] if names is not None else list(map(str, range(first, end)))
        yield Samples(block.view(bare(block.dtype)), keys, place, dataset=path, first=first)
        options.meter.advance(found.nbytes)


def _step(dataset: h5py.Dataset) -> int:
    """How many rows are read at a time."""
    nbytes: int = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    step = max(1, BLOCK_BYTES // max(1, nbytes))
    rows: int = int(dataset.chunks[0]) if dataset.chunks else 1
    return -(-step // rows) * rows if rows * nbytes <= _CHUNK_MAX else step


def _names(dataset: h5py.Dataset) -> list[str] | None:
    """The names of the rows, where an export has put them beside the dataset."""
    beside = dataset.file.get(dataset.name + KEYS)
    if not isinstance(beside, h5py.Dataset) or OURS not in beside.attrs or beside.shape != dataset.shape[:1]:
        return None
    return list(beside.asstr()[...])


def _fill_group(stored: Stored, group: h5py.Group, stale: dict[int, list[str]], options: Options) -> None:
    for name, child in stored.children():
        if name == SKELETON:
            continue
        text = _name(name)
        if child.dataset is not None:
            _fill(child, group, text, stale, options)
        elif child.entry.is_directory:
            _unlink(group, text)
            _fill_group(child, group.require_group(text), stale, options)
        else:
            raise Unsupported(f"{child.name} is a file: it has no place in an HDF5 file")


def _name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise Unsupported(f"the name {path_text((name,))} is not UTF-8: it cannot stand in an HDF5 file") from error


def _fill(stored: Stored, group: h5py.Group, name: str, stale: dict[int, list[str]], options: Options) -> None:
    """Write a dataset's samples as rows, into the emptied one where there is one that fits."""
    dataset = stored.dataset
    assert dataset is not None
    require_fixed(dataset, "HDF5")
    if dataset.dtype.kind == "U":
        raise Unsupported(f"{dataset.name!r} holds {dataset.dtype}: HDF5 has text as bytes only")
    target = _target(dataset, group, name, stale)
    names: list[str] = []
    numbered = row_keys(dataset) is not None
    first = 0
    for keys, block in blocks(stored, BLOCK_BYTES):
        target[first : first + len(keys)] = _fitted(block, target)
        first += len(keys)
        names += () if numbered else keys
        options.meter.advance(sample_size(dataset) * len(keys))
    if not numbered:
        if name + KEYS in group:
            del group[name + KEYS]
        group.create_dataset(name + KEYS, data=names, dtype=h5py.string_dtype()).attrs[OURS] = True


def _fitted(block: Array, target: h5py.Dataset) -> Array:
    """The rows as the target takes them: its dtype may say more than ours, as that its bytes are UTF-8."""
    if is_text(target):
        return block.astype(object)
    return block.view(target.dtype) if bare(target.dtype) == block.dtype else block


def _unlink(group: h5py.Group, name: str) -> None:
    """Remove a soft or external link of that name: what it leads to may be in another file, and is never written to."""
    if isinstance(group.get(name, getlink=True), h5py.SoftLink | h5py.ExternalLink):
        del group[name]


def _target(dataset: DatasetDataReader, group: h5py.Group, name: str, stale: dict[int, list[str]]) -> Any:
    shape = (len(dataset), *dataset.shape)
    _unlink(group, name)
    found = group.get(name)
    if found is None:
        return group.create_dataset(name, shape, dataset.dtype)
    if not isinstance(found, h5py.Dataset):
        raise Unsupported(f"{dataset.name!r} was a group when it was imported")
    names = stale.pop(address(found), [found.name])
    fits = bare(found.dtype) == dataset.dtype or (is_text(found) and dataset.dtype.kind == "S")
    return found if found.shape == shape and fits else remade(found, names, shape, dataset.dtype)
