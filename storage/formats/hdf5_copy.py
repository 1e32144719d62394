"""Copying the shape of an HDF5 file: everything in it but the rows of its large datasets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from storage.errors import InvalidInput

TEXTS = 4096
"""Rows of text read at a time."""

LONGEST_TEXT = 4096
"""Text whose longest piece has more bytes stays in the side file: rows have room for the longest."""


def is_rows(dataset: h5py.Dataset) -> bool:
    """Whether a dataset's rows are arrays: of numbers, structures or text of one length."""
    dtype = dataset.dtype
    return bool(dataset.shape) and not dtype.hasobject and dtype.subdtype is None


def is_text(dataset: h5py.Dataset) -> bool:
    """Whether a dataset's rows are text of varying length, which become text as long as the longest."""
    return bool(dataset.shape) and h5py.check_string_dtype(dataset.dtype) is not None and dataset.dtype.hasobject


def is_tracked(group: h5py.Group) -> bool:
    """Whether a group lists its members in the order in which they were made, not by name."""
    return bool(group.id.get_create_plist().get_link_creation_order())


def bare(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype without what h5py notes in it, which `.npy` headers cannot say: the names of an enumeration, for one."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((bare(base), shape))
    if dtype.fields is None:
        return np.dtype(dtype.str)
    names = list(dtype.fields)
    return np.dtype(
        {
            "names": names,
            "formats": [bare(dtype.fields[name][0]) for name in names],
            "offsets": [dtype.fields[name][1] for name in names],
            "itemsize": dtype.itemsize,
        }
    )


def emptied(file: h5py.File) -> dict[int, list[str]]:
    """The datasets of a side file whose rows are kept elsewhere: all names of each, by address."""
    found: dict[int, list[str]] = {}
    waiting, seen = [file["/"]], {address(file["/"])}
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            item = group[name]
            here = address(item)
            if isinstance(item, h5py.Dataset) and (is_rows(item) or (is_text(item) and not item.id.get_storage_size())):
                found.setdefault(here, []).append(f"{group.name.rstrip('/')}/{name}")
            elif isinstance(item, h5py.Group) and here not in seen:
                seen.add(here)
                waiting.append(item)
    return found


def address(item: h5py.HLObject) -> int:
    """Where in its file an object lies."""
    return int(h5py.h5o.get_info(item.id).addr)


def remade(old: h5py.Dataset, names: list[str], shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """A dataset of another shape or dtype in the place of `old`, under all its names, with its attributes and chunks."""
    same = (bare(old.dtype) == dtype or is_text(old)) and len(old.shape) == len(shape)
    if same and old.chunks and all(most is None or n <= most for n, most in zip(shape, old.maxshape, strict=True)):
        old.resize(shape)
        return old
    settings: dict[str, Any] = {}
    if old.chunks is not None and len(old.chunks) == len(shape):
        settings = {
            "chunks": old.chunks,
            "compression": old.compression,
            "compression_opts": old.compression_opts,
            "shuffle": old.shuffle,
        }
    file = old.file
    # Nothing leads to the new one yet, so that the attributes are copied before the old one goes.
    new = file.create_dataset(None, shape, old.dtype if same else dtype, **settings)
    for key in old.attrs:
        _copy_plain(old, new, key)
    for name in names:
        del file[name]
        file[name] = new
    return new


class Copier:
    """Copies one file's groups, attributes, links and small things; the datasets with rows are left empty."""

    def __init__(self, source: h5py.File, target: h5py.File, where: str) -> None:
        self._source = source
        self._target = target
        self._where = where
        self._seen: dict[tuple[int, int], str] = {}
        self._references: list[tuple[str, str]] = []
        self._pointers: list[str] = []

    def copied(self) -> Iterator[h5py.Dataset]:
        """Copy everything; the datasets that were left empty, for their rows to be read."""
        self._note(self._source)
        self._attributes(self._source, self._target)
        # A list instead of recursion: groups may be nested deeper than Python's stack.
        waiting = [self._source["/"]]
        while waiting:
            group = waiting.pop()
            for name in group:
                found = self._member(group, name)
                if isinstance(found, h5py.Group):
                    waiting.append(found)
                elif found is not None:
                    yield found

    def finish(self) -> None:
        """Attributes and datasets that refer to other objects, now that these are there."""
        for name in self._pointers:
            values = self._source[name][()]
            if isinstance(values, h5py.Reference | np.ndarray):  # else there are none
                self._target[name][()] = self._translated(values, name, "")
        for owner, key in self._references:
            attribute = h5py.h5a.open(self._source[owner].id, key.encode())
            values = np.empty(attribute.shape, attribute.dtype)
            attribute.read(values)
            self._target[owner].attrs.create(
                key, self._translated(values, owner, key), attribute.shape, attribute.dtype
            )

    def _member(self, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
        """Copy one member of a group; what of it is still to be done."""
        link = group.get(name, getlink=True)
        target = self._target[group.name]
        full = f"{group.name.rstrip('/')}/{name}"
        if name in (".", "..") or "/" in name:
            raise InvalidInput(f"the name {name!r} would lead elsewhere", where=f"{self._where}, {group.name}")
        if not isinstance(link, h5py.HardLink):
            target[name] = link  # soft and external links, as links
            return None
        item = group[name]
        known = self._note(item, full)
        if known != full:
            target[name] = self._target[known]
            return None
        if isinstance(item, h5py.Group):
            self._attributes(item, target.create_group(name, track_order=is_tracked(item)))
            return item
        if isinstance(item, h5py.Dataset):
            self._require_own(item)
            if is_rows(item) or (is_text(item) and longest_text(item) <= LONGEST_TEXT):
                self._attributes(item, self._empty(item, target, name))
                return item
            if _refers(item.dtype):
                self._attributes(item, self._empty(item, target, name))
                self._pointers.append(full)
                return None
        self._source.copy(item, target, name)
        return None

    def _note(self, item: Any, full: str = "/") -> str:
        """The first name under which this object was met."""
        info = h5py.h5o.get_info(item.id)
        return self._seen.setdefault((info.fileno, info.addr), full)

    def _require_own(self, item: h5py.Dataset) -> None:
        """InvalidInput for a dataset whose data are in other files."""
        if item.is_virtual or item.external:
            raise InvalidInput(
                "its data are in other files, which are not read", where=f"{self._where}, dataset {item.name}"
            )

    def _empty(self, item: h5py.Dataset, target: h5py.Group, name: str) -> h5py.Dataset:
        settings = item.id.get_create_plist()
        # Nothing is to be allocated or filled before there is something to write.
        settings.set_alloc_time(h5py.h5d.ALLOC_TIME_INCR if item.chunks else h5py.h5d.ALLOC_TIME_LATE)
        settings.set_obj_track_times(False)
        if settings.get_layout() == h5py.h5d.COMPACT:
            settings.set_layout(h5py.h5d.CONTIGUOUS)
        made = h5py.h5d.create(
            target.id, name.encode("utf-8", "surrogateescape"), item.id.get_type(), item.id.get_space(), settings
        )
        return h5py.Dataset(made)

    def _attributes(self, item: h5py.HLObject, copy: h5py.HLObject) -> None:
        for key in item.attrs:
            if _refers(h5py.h5a.open(item.id, key.encode()).dtype):
                self._references.append((item.name, key))
            else:
                _copy_plain(item, copy, key)

    def _translated(self, values: Any, owner: str, key: str) -> Any:
        """References to objects of the source as references to those of the target."""
        if isinstance(values, h5py.Reference) and not isinstance(values, h5py.RegionReference):
            if not values:
                return values
            name = h5py.h5r.get_name(values, self._source.id)
            return self._target[name.decode()].ref
        if not isinstance(values, np.ndarray):
            raise InvalidInput(
                "references to parts of datasets cannot be kept", where=f"{self._where}, {owner} {key}".rstrip()
            )
        out = values.copy()
        if values.dtype.names:
            for field in values.dtype.names:
                if _refers(values.dtype[field]):
                    out[field] = self._translated(values[field], owner, key)
            return out
        flat = out.reshape(-1)
        for i, value in enumerate(values.reshape(-1)):
            flat[i] = self._translated(value, owner, key)
        return flat.reshape(values.shape)


def longest_text(dataset: h5py.Dataset) -> int:
    """The bytes of the longest text in a dataset, at least 1. Reads it once, in blocks."""
    longest = 1
    for first in range(0, dataset.shape[0], TEXTS):
        block = dataset[first : first + TEXTS]
        longest = max(longest, max(map(len, block.reshape(-1)), default=0))
    return longest


def _refers(dtype: np.dtype[Any]) -> bool:
    """Whether values of that dtype refer to objects of their file."""
    if dtype.names:
        return any(_refers(dtype[field]) for field in dtype.names)
    inner = h5py.check_vlen_dtype(dtype)
    return h5py.check_ref_dtype(dtype) is not None or (isinstance(inner, np.dtype) and _refers(inner))


def _copy_plain(item: h5py.HLObject, copy: h5py.HLObject, key: str) -> None:
    """Copy an attribute as it is, its type to the letter."""
    attribute = h5py.h5a.open(item.id, key.encode())
    kind, space = attribute.get_type(), attribute.get_space()
    made = h5py.h5a.create(copy.id, key.encode(), kind, space)
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        return
    values = np.empty(attribute.shape, attribute.dtype)
    attribute.read(values)
    made.write(values)
