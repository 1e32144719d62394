"""All datasets of a checkout by name."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import DTypeLike

from storage import notebook, reprs
from storage.dataset_reader import DatasetDataReader, dataset_name, dataset_path, known_path
from storage.dataset_writer import DatasetDataWriter
from storage.errors import DatasetExists, Exists, InvalidName, NotADirectory, NotFound, SchemaMismatch, Unsupported
from storage.model.chunking import COMPRESSIONS
from storage.model.names import CONTROL, Path
from storage.model.records import KINDS_OF_DATASETS, Attributes, Schema
from storage.model.samples import Array, make_schema
from storage.nested_datasets import NestedDatasetReader, NestedDatasetWriter
from storage.session import Session
from storage.snapshot import Snapshot
from storage.widening import widen, wider_schema
from storage.working import WorkingReader
from storage.worktree import WorkingTree


class Datasets(Mapping[str, DatasetDataReader]):
    """A dict of datasets. Nested ones have slashes in their names, as their directories have in a mount.

    Inside a `with` block of any dataset none is made, removed, renamed or given another schema: InBatch (a PermissionError).
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, DatasetDataReader] = {}

    def init_dataset(
        self,
        name: str,
        shape: int | Sequence[int] | None = None,
        dtype: DTypeLike | None = None,
        prototype: Array | None = None,
        *,
        samples_are_named: bool = True,
        variable_shape: bool = False,
        max_shape: int | Sequence[int] | None = None,
        compression: str = "",
        kind: str = "array",
        contains_subsamples: bool = False,
    ) -> DatasetDataReader:
        """Make an empty dataset and return it; it is staged at once.

        Its samples are arrays that look like `prototype`, or have `shape` and `dtype`; or of another `kind`: `str`, `bytes`,
        `json`. With `contains_subsamples` each sample is a dict of such values. `compression` is for values above 4 kB: `none`,
        `lz4`, `zstd`; what fits the values where it is left out. With `variable_shape` every
        dimension may be smaller than that, or than `max_shape` where it is given. Directories on the way to
        a nested name are made. An ordinary directory of that name becomes the dataset, unless it holds
        files that would be samples.

        ValueError: a name, shape or dtype that cannot be; LookupError: the name is taken.
        """
        tree = self._session.tree_for_datasets()
        path = dataset_path(name)
        _require_compression(compression)
        if kind not in KINDS_OF_DATASETS:
            raise Unsupported(
                f"there is no kind {kind!r} of dataset: use one of {', '.join(sorted(KINDS_OF_DATASETS))}"
            )
        if kind == "array":
            found_shape, found_dtype = _described(shape, dtype, prototype)
        elif any(given is not None for given in (shape, dtype, prototype, max_shape)) or variable_shape:
            raise Unsupported(f"samples of kind {kind} have neither shape nor dtype: leave those out")
        else:
            found_shape, found_dtype = (), np.dtype(np.uint8)
        schema = make_schema(
            found_dtype,
            _largest_shape(found_shape, max_shape, variable_shape),
            variable=bool(variable_shape),
            named=bool(samples_are_named),
            compression=compression,
            uuid=uuid.uuid4().hex,
            kind=kind + "/nested" * bool(contains_subsamples),
        )
        _make(tree, path, schema)
        if kind != "array":
            print(f"Dataset provided kind: {kind}")
            return self[name]
        source = "provided" if prototype is None else "prototype"
        variable = " + variable_shape" if variable_shape else ""
        print(f"Dataset {source} shape: {found_shape}, dtype: {found_dtype}{variable}")
        return self[name]

    def __getitem__(self, name: str) -> DatasetDataReader:
        """The dataset called `name`; KeyError where there is none."""
        schema = self._schema(name)
        if schema is None:
            raise NotFound(f"there is no dataset {name!r}")
        known = self._known.get(name)
        if known is None or known.schema != schema:
            # One object for each dataset: a batch begun on one is seen by whoever asks for the dataset again.
            known = self._known[name] = self._accessor(schema)(self._session, known_path(name), schema)
        return known

    def _accessor(self, schema: Schema) -> type[DatasetDataReader]:
        if self._session.writeable:
            return NestedDatasetWriter if schema.nested else DatasetDataWriter
        return NestedDatasetReader if schema.nested else DatasetDataReader

    def rename(self, name: str, new: str) -> DatasetDataReader:
        """Give a dataset another name, and return it; one row is staged, whatever it holds. Directories on the way are made.

        KeyError where there is none; LookupError: the new name is taken; ValueError for what cannot be a name.
        """
        tree = self._session.tree_for_datasets()
        path, target = known_path(name), dataset_path(new)
        if self._schema(name) is None:
            raise NotFound(f"there is no dataset {name!r}")
        _make_above(tree, target)
        try:
            tree.rename(path, target, replace=False)
        except Exists as error:
            raise DatasetExists(f"{new!r} is there already") from error
        self._known.pop(name, None)
        return self[new]

    def widen(
        self, name: str, dtype: DTypeLike | None = None, max_shape: int | Sequence[int] | None = None
    ) -> DatasetDataReader:
        """Let a dataset of arrays hold more, and return it: another dtype, a larger maximum shape, or both.

        One row is staged. Where shapes vary already and the dtype stays, that is all; otherwise every sample is stored anew.
        SchemaMismatch (a ValueError) for what could not hold every sample there may be; KeyError where there is no dataset.
        """
        tree, schema = self._session.tree_for_datasets(), self._schema(name)
        if schema is None:
            raise NotFound(f"there is no dataset {name!r}")
        wider = wider_schema(
            schema, None if dtype is None else np.dtype(dtype), None if max_shape is None else _shape(max_shape)
        )
        widen(tree, known_path(name), schema, wider)
        return self[name]

    def recompress(self, name: str, compression: str) -> DatasetDataReader:
        """Let values above 4 kB be compressed otherwise from now on, as `init_dataset` says, and return the dataset.

        One row is staged; values that are there stay as they are. KeyError where there is no dataset,
        ValueError for no such compression.
        """
        tree, schema = self._session.tree_for_datasets(), self._schema(name)
        if schema is None:
            raise NotFound(f"there is no dataset {name!r}")
        _require_compression(compression)
        widen(tree, known_path(name), schema, replace(schema, compression=compression))
        return self[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is a dataset called `name`."""
        return self._schema(name) is not None

    def __iter__(self) -> Iterator[str]:
        """The names of all datasets, those inside another one after it."""
        for path, _ in dataset_paths(self._session.tree):
            yield dataset_name(path)

    def __len__(self) -> int:
        """How many datasets there are."""
        return sum(1 for _ in self)

    @property
    def iswriteable(self) -> bool:
        """Whether datasets can be made and removed here."""
        return self._session.writeable

    @property
    def contains_remote_references(self) -> dict[str, bool]:
        """For each dataset, whether the contents of some of its samples are not here; costs a walk over all samples."""
        return {name: self[name].contains_remote_references for name in self}

    @property
    def remote_sample_keys(self) -> dict[str, tuple[str, ...]]:
        """For each dataset, the keys of samples whose contents are not here; costs as much."""
        return {name: self[name].remote_reference_keys for name in self}

    def add(self, samples: Mapping[str, Any]) -> str:
        """Stage one sample in each of several datasets of unnamed samples, under one generated key, and return that.

        All are checked before any is staged. KeyError for a dataset that is not there, ValueError for what does not fit.
        """
        self._session.working_tree  # noqa: B018 - raises Closed, ReadOnly
        datasets = [(self[name], data) for name, data in samples.items()]
        if not datasets:
            raise Unsupported("give at least one sample, by the name of its dataset")
        for dataset, data in datasets:
            dataset.require(data)
        (first, data), *others = datasets
        key = first.add(data)
        for dataset, data in others:
            dataset.add(data, key)
        return key

    def remove_dset(self, name: str) -> str:
        """Remove a dataset with its samples and side files, and return its name; commits keep theirs.

        Datasets and directories inside of it stay. KeyError where there is none.
        """
        tree = self._session.tree_for_datasets()
        if self._schema(name) is None:
            raise NotFound(f"there is no dataset {name!r}")
        path = known_path(name)
        nested = {below for below, _ in directories(tree, path)}
        if nested:
            tree.remove_many(path, [found for found, _ in tree.entries(path) if found not in nested])
            tree.set_schema(path, None)
        else:
            tree.remove_tree(path)
        self._known.pop(name, None)
        return name

    def __delitem__(self, name: str) -> None:
        """Remove a dataset, as remove_dset does."""
        self.remove_dset(name)

    def __eq__(self, other: object) -> bool:
        """Whether it is this very object."""
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """Names of the datasets, and whether they can be changed."""
        return reprs.datasets_text(self._session, self)

    def _repr_html_(self) -> str:
        return notebook.datasets_html(self._session, self)

    def _ipython_key_completions_(self) -> list[str]:
        return reprs.completions(self)

    def _schema(self, name: object) -> Schema | None:
        try:
            schema = self._session.tree.schema_of(known_path(name))
            return None if schema is None or schema.is_sample else schema
        except (NotFound, NotADirectory, InvalidName):
            self._session.require_open()
            return None


def directories(tree: Snapshot | WorkingReader, path: Path) -> Iterator[tuple[bytes, Schema | None]]:
    """The directories right below `path`, by name, with their schemas; arborfs' own are left out."""
    schema = tree.schema_of(path)
    if schema is not None and schema.nested:
        return  # what is in there are its samples
    for name, entry in tree.directories(path):
        if path or name != CONTROL:
            yield name, entry.schema


def dataset_paths(tree: Snapshot | WorkingReader) -> Iterator[tuple[Path, Schema]]:
    """All datasets of a tree, outer ones before those inside."""
    # A list instead of recursion: directories may be nested deeper than Python's stack.
    waiting: list[tuple[Path, Schema | None]] = [((), None)]
    while waiting:
        path, schema = waiting.pop()
        try:
            # Before it is handed out: whoever gets it may remove it.
            waiting += reversed([((*path, name), nested) for name, nested in directories(tree, path)])
        except (NotFound, NotADirectory):
            continue  # removed since its name was read
        if schema is not None:
            yield path, schema


def _require_compression(compression: object) -> None:
    if compression not in COMPRESSIONS:
        known = ", ".join(filter(None, COMPRESSIONS))
        raise Unsupported(
            f"there is no compression {compression!r}: use one of {known}, or '' for what fits the values"
        )


def _described(
    shape: int | Sequence[int] | None, dtype: DTypeLike | None, prototype: object
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the samples of a new dataset."""
    if prototype is not None:
        if shape is not None or dtype is not None:
            raise Unsupported("give either a prototype, or shape and dtype, not both")
        if not isinstance(prototype, np.ndarray):
            raise SchemaMismatch(
                f"the prototype is of type {type(prototype).__name__}, not numpy.ndarray",
                expected="numpy.ndarray",
                found=type(prototype).__name__,
            )
        found: tuple[tuple[int, ...], np.dtype[Any]] = prototype.shape, prototype.dtype
    elif shape is None or dtype is None:
        raise Unsupported("a dataset needs a prototype, or shape and dtype")
    else:
        try:
            found = _shape(shape), np.dtype(dtype)
        except TypeError as error:
            raise Unsupported(f"{dtype!r} is not a dtype: {error}") from error
    if found[1].itemsize == 0:
        raise Unsupported(
            f"dtype {found[1]} says not how long a value is: use one as '{found[1].char}10', or kind=\"str\""
        )
    if math.prod(found[0]) == 0:
        raise Unsupported(f"shape {found[0]} holds nothing: every dimension must be at least 1")
    return found


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0 for n in sizes):
        raise Unsupported(f"{shape!r} is not a shape: use non-negative ints")
    return tuple(int(n) for n in sizes)


def _largest_shape(shape: tuple[int, ...], limit: int | Sequence[int] | None, variable: bool) -> tuple[int, ...]:
    """The shape for the schema: that of all samples, or the largest one."""
    if limit is None:
        return shape
    if not variable:
        raise Unsupported("max_shape is for datasets of variable shape: add variable_shape=True")
    largest = _shape(limit)
    if len(largest) != len(shape) or any(n < least for n, least in zip(largest, shape, strict=True)):
        raise Unsupported(f"max_shape {largest} is too small for samples of shape {shape}")
    return largest


def _make_above(tree: WorkingTree, path: Path) -> None:
    """Make the directories above that of a dataset where they are missing. DatasetExists where one cannot be."""
    for depth in range(1, len(path)):
        try:
            above = tree.entry(path[:depth])
        except NotFound:
            tree.make_directory(path[:depth], mtime=time.time_ns())
            continue
        what = f"dataset {dataset_name(path)!r} cannot be: {dataset_name(path[:depth])!r}"
        if not above.is_directory:
            raise DatasetExists(f"{what} is a file")
        if above.schema is not None and (above.schema.nested or above.schema.is_sample):
            raise DatasetExists(f"{what} holds nested samples, and no datasets")


def _make(tree: WorkingTree, path: Path, schema: Schema) -> None:
    """Make the directory of a new dataset, and those above it."""
    name = dataset_name(path)
    _make_above(tree, path)
    try:
        there = tree.entry(path)
    except NotFound:
        tree.make_directory(path, attributes=Attributes(schema=schema), mtime=time.time_ns())
        return
    if there.schema is not None:
        raise DatasetExists(f"there is already a dataset {name!r}")
    if not there.is_directory:
        raise DatasetExists(f"{name!r} is a file")
    taken = [entry for entry, _ in tree.entries(path) if entry.endswith(schema.suffix)]
    if taken:
        raise DatasetExists(f"the directory {name!r} already holds {len(taken)} files that would be samples")
    tree.set_schema(path, schema)
