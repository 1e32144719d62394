"""A dataset as a dict of values: everything that only reads."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from itertools import starmap
from types import TracebackType
from typing import Any, NoReturn, Self, overload

import numpy as np

from storage import notebook, reprs
from storage.dataset_views import Items, Local, Values
from storage.errors import Corrupt, InvalidName, NotADirectory, NotFound, ReadOnly, SchemaMismatch, WrongType
from storage.model.dtypes import dtype_of
from storage.model.names import Path, check_key, check_name
from storage.model.records import Attributes, Entry, Kind, Schema, decode_entry, is_plain_sample
from storage.model.samples import ARRAYS, Array, array_from
from storage.model.values import decode_value
from storage.session import Reopen, Session
from storage.snapshot import Snapshot
from storage.stacking import Stacker
from storage.tree.node import Row, uniform_values

Key = str | int
"""What samples are called: a text that can name a file, or a non-negative int: its decimal digits."""

_SAMPLE = int(Kind.SAMPLE)
_READ_ONLY = "This checkout is read-only. Check out with write=True to change data."


class DatasetDataReader(Mapping[str, Any]):
    """The samples of one dataset by key, in the order of their keys' bytes: arrays, str, bytes, or what JSON can say.

    No later change of the dataset shows in an array that was read. Those of a commit are views of the bytes as they were read,
    not to be written to; those of a branch are memory of their own, and changing them changes nothing stored. Thread-safe.
    Those of a commit can be pickled: path, commit and name travel, and the repository is opened again where they arrive.
    """

    def __init__(self, session: Session, path: Path, schema: Schema) -> None:
        self._session = session
        self._path = path
        self._schema = schema
        self._suffix = schema.suffix
        self._dtype = dtype_of(schema.dtype)
        self._shape = schema.shape
        self._holds = schema.holds
        self._copies = not session.committed
        # How many bytes make an array by themselves; where they do not, none.
        plain = self._holds == "array" and not schema.variable and not self._dtype.hasobject
        self._nbytes = self._dtype.itemsize * math.prod(schema.shape) if plain else -1

    def __reduce__(self) -> tuple[Any, ...]:
        """Path, commit and name. ReadOnly (a PermissionError) for those of a branch, which may change meanwhile."""
        return picked, (self.name, *self._session.address())

    @property
    def name(self) -> str:
        """The dataset's name; nested ones have slashes in it."""
        return dataset_name(self._path)

    @property
    def schema(self) -> Schema:
        """What its samples look like."""
        return self._schema

    @property
    def kind(self) -> str:
        """What every value is: `array`, `str`, `bytes` or `json`."""
        return self._schema.holds

    @property
    def column_layout(self) -> str:
        """`nested` where samples are dicts of values, else `flat`."""
        return "nested" if self._schema.nested else "flat"

    @property
    def schema_type(self) -> str:
        """`variable_shape` or `fixed_shape`; what is no array has no fixed one."""
        return "variable_shape" if self._schema.variable or self._schema.holds != "array" else "fixed_shape"

    @property
    def contains_subsamples(self) -> bool:
        """Whether every sample is a dict of values."""
        return self._schema.nested

    @property
    def compression(self) -> str:
        """How long values are compressed: empty where that is up to arborfs."""
        return self._schema.compression

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of every sample; of what is no array, that of bytes."""
        return self._dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of every sample, or the largest one allowed where shapes vary."""
        return self._schema.shape

    @property
    def variable_shape(self) -> bool:
        """Whether samples may differ in shape."""
        return self._schema.variable

    @property
    def named_samples(self) -> bool:
        """Whether every sample is given its key, rather than a generated one."""
        return self._schema.named

    @property
    def iswriteable(self) -> bool:
        """Whether samples can be added, replaced and removed here."""
        return self._session.writeable

    @overload
    def __getitem__(self, key: Key) -> Any: ...

    @overload
    def __getitem__(self, key: Sequence[Key]) -> Any: ...

    def __getitem__(self, key: Key | Sequence[Key]) -> Any:
        """The sample under `key`; for a list of keys, those samples: arrays as one array, other values as a list.

        KeyError where there is none; ValueError for what cannot be a key.
        """
        if isinstance(key, list):
            return self.stack(key) if self._schema.kind in ARRAYS else [self[each] for each in key]
        name = self._file_name(key)
        tree = self._session.tree
        row = tree.row(self._path, name) if isinstance(tree, Snapshot) else None
        if row is not None and row[0][0] == _SAMPLE:
            return self._value_of(name, *row)
        entry = self._find(name)
        if entry is None:
            raise NotFound(f"no sample {key!r} in dataset {self.name!r}")
        return self._value_at(name, entry)

    def stack(self, keys: Iterable[Key] | None = None, out: Array | None = None) -> Array:
        """All samples, or those of `keys` in their order, as one array of shape (samples, *shape); much faster than one by one.

        With `out`, an array of just that shape and dtype, they are put there. KeyError for a key that is not there;
        SchemaMismatch (a ValueError) unless all are arrays of one shape.
        """
        if self._schema.kind not in ARRAYS:
            what = (
                "nested: stack the values of one sample"
                if self._schema.nested
                else f"of {self.kind}, and not of arrays"
            )
            raise SchemaMismatch(f"dataset {self.name!r} cannot be stacked: it is {what}", found=self._schema.kind)
        if isinstance(keys, str):
            raise WrongType(
                f"the keys to stack are a list, not the text {keys[:64]!r}: a text would be taken letter by letter"
            )
        names = None if keys is None else [self._file_name(key) for key in keys]
        if self._schema.variable:
            return self._stacked(
                list(self.values()) if keys is None else [self[self._key(n)] for n in names or ()], out
            )
        stacker = Stacker(self._session.tree, self._path, self._schema, self._dtype)
        return stacker.all(out) if names is None else stacker.some(names, out)

    def _stacked(self, arrays: list[Array], out: Array | None) -> Array:
        """Arrays of a dataset whose shapes may vary as one array."""
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise SchemaMismatch(f"samples of dataset {self.name!r} differ in shape: {sorted(shapes)[:5]}")
        if not arrays:
            return np.empty((0, *self._schema.shape), self._dtype)
        return np.stack(arrays, out=out)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """What `stack` gives, for `numpy.asarray(dataset)`. ValueError for `copy=False`."""
        if copy is False:
            raise SchemaMismatch("a dataset cannot become an array without copying its samples")
        stacked = self.stack()
        return stacked if dtype is None else stacked.astype(dtype, copy=False)

    def __contains__(self, key: object) -> bool:
        """Whether there is a sample under `key`."""
        try:
            name = self._file_name(key)
        except InvalidName:
            return False
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        """The keys, in order."""
        for name in self._names():
            yield self._key(name)

    def __len__(self) -> int:
        """How many samples there are; costs no walk over them."""
        return self._session.tree.count_samples(self._path)

    def keys(self, local: bool = False) -> KeysView[str]:
        """The keys, in order; with `local` those of samples whose contents are here."""
        return KeysView(Local(self)) if local else super().keys()

    def values(self, local: bool = False) -> ValuesView[Any]:
        """The samples, in the order of their keys; each is read when its turn comes. `local` as of `keys`."""
        return ValuesView(Local(self)) if local else Values(self)

    def items(self, local: bool = False) -> ItemsView[str, Any]:
        """Keys and samples, in the order of the keys; each is read when its turn comes. `local` as of `keys`."""
        return ItemsView(Local(self)) if local else Items(self)

    @property
    def contains_remote_references(self) -> bool:
        """Whether the contents of some sample are not here; costs a walk over the samples, which reads none."""
        return any(not here for _, here in self.places())

    @property
    def remote_reference_keys(self) -> tuple[str, ...]:
        """The keys of samples whose contents are not here, in order; costs as much."""
        return tuple(key for key, here in self.places() if not here)

    def places(self) -> Iterator[tuple[str, bool]]:
        """The keys, in order, each with whether the contents of its sample are here. Reads no contents."""
        for name, entry in self._rows():
            yield self._key(name), self._is_here(name, entry)

    def is_here(self, key: object) -> bool:
        """Whether there is a sample under `key`, and its contents are here."""
        if key not in self:
            return False
        name = self._file_name(key)
        entry = self._find(name)
        # What a batch keeps back has no entry yet: it is in memory.
        return entry is None or self._is_here(name, entry)

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """Keys and samples one after the other, faster than asking for each key."""
        for name, value in self._samples():
            yield self._key(name), value

    def __eq__(self, other: object) -> bool:
        """Whether it is this very accessor: comparing samples would read everything."""
        return self is other

    __hash__ = object.__hash__

    def __enter__(self) -> Self:
        """Begin many reads."""
        self._session.require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End many reads."""

    def __setitem__(self, key: Key, data: Any) -> None:
        """ReadOnly."""
        self._refuse()

    def __delitem__(self, key: Key) -> None:
        """ReadOnly."""
        self._refuse()

    def add(self, data: Any, name: Key | None = None) -> str:
        """ReadOnly."""
        self._refuse()

    def append(self, data: Any) -> str:
        """ReadOnly."""
        self._refuse()

    def update(self, other: Any = (), /, *arrays: Array, **more: Any) -> None:
        """ReadOnly."""
        self._refuse()

    def require(self, data: Any) -> None:
        """ReadOnly."""
        self._refuse()

    def remove(self, name: Key) -> str:
        """ReadOnly."""
        self._refuse()

    def pop(self, key: Key, *default: Any) -> Any:
        """ReadOnly."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        self._session.require_open()
        raise ReadOnly(_READ_ONLY)

    def __repr__(self) -> str:
        """Name, schema and number of samples."""
        return reprs.dataset_text(type(self).__name__, self._session, self._path, self._schema, self)

    def _repr_html_(self) -> str:
        return notebook.dataset_html(type(self).__name__, self._session, self._path, self._schema, self)

    def _ipython_key_completions_(self) -> list[str]:
        return reprs.completions(self)

    def _file_name(self, key: object) -> bytes:
        """The file that holds the sample `key`; InvalidName for what cannot be a key.

        Allows more than `check_key` does for new samples: a mount may have given longer names, or other
        bytes.
        """
        if not isinstance(key, str) or key in ("", ".", "..") or "/" in key or "\0" in key:
            key = check_key(key)
        try:
            return key.encode("utf-8", "surrogateescape") + self._suffix
        except UnicodeEncodeError as error:
            raise InvalidName(f"Sample name `{key!r}` is not suitable: it is not valid Unicode.") from error

    def _key(self, name: bytes) -> str:
        return name.removesuffix(self._suffix).decode("utf-8", "surrogateescape")

    def _find(self, name: bytes) -> Entry | None:
        """The sample's entry, None where there is none. An empty file made in a mount is none yet."""
        try:
            entry = self._session.tree.entry((*self._path, name))
        except (NotFound, NotADirectory):
            return None
        return entry if entry.kind is Kind.SAMPLE else None

    def _rows(self) -> Iterator[tuple[bytes, Entry]]:
        for name, entry in self._session.tree.entries(self._path):
            if entry.kind is Kind.SAMPLE:
                yield name, entry

    def _names(self) -> Iterator[bytes]:
        """File names, in order."""
        rows = self._committed()
        if rows is None:
            return (name for name, _ in self._rows())
        return (name for name, head, _ in rows if head[0] == _SAMPLE)

    def _samples(self) -> Iterator[tuple[bytes, Any]]:
        """File names and values, in order; each is read when its turn comes."""
        rows = self._committed()
        if rows is None:
            return ((name, self._value_at(name, entry)) for name, entry in self._rows())
        return ((name, self._value_of(name, head, value)) for name, head, value in rows if head[0] == _SAMPLE)

    def samples_in_order(self) -> Iterator[Any]:
        """The values, in order; each is read when its turn comes."""
        tree = self._session.tree
        if self._nbytes <= 0 or not isinstance(tree, Snapshot):
            yield from (value for _, value in self._samples())
            return
        for digest, leaf in tree.leaves_ahead(self._path):
            block = uniform_values(leaf, self._nbytes)
            if block is None:
                rows = [row for row in tree.rows_of(digest) if row[1][0] == _SAMPLE]
                yield from starmap(self._value_of, rows)
                continue
            values = bytes(block)
            for at in range(0, len(values), self._nbytes):
                self._session.require_open()
                # Not a view of the leaf: that would keep its neighbours in memory as long as it.
                yield np.ndarray(self._shape, self._dtype, values[at : at + self._nbytes])

    def _committed(self) -> Iterator[Row] | None:
        """The rows of the dataset's directory in a commit; None for a branch, and where samples are directories."""
        tree = self._session.tree
        return tree.rows_ahead(self._path) if isinstance(tree, Snapshot) and not self._schema.nested else None

    def _is_here(self, name: bytes, entry: Entry) -> bool:
        """Whether the contents of that sample are here."""
        return self._session.tree.is_here(entry)

    def _value_of(self, name: bytes, head: bytes, value: bytes) -> Any:
        """The value of a sample of a commit: in most cases without taking its entry apart."""
        self._session.require_open()
        if is_plain_sample(head):
            if len(value) == self._nbytes:
                return np.ndarray(self._shape, self._dtype, value)
            if self._holds != "array":
                return decode_value(self._holds, value)
        return self._value_at(name, decode_entry(head, value))

    def _value_at(self, name: bytes, entry: Entry) -> Any:
        tree = self._session.tree
        try:
            payload = tree.payload(entry)
        except Corrupt:
            # A commit by another process takes staged values out of their journal: look where they are now.
            again = self._find(name)
            if again is None or again == entry:
                raise
            entry, payload = again, tree.payload(again)
        return self._decoded(payload, entry.attributes)

    def _decoded(self, payload: bytes | memoryview, attributes: Attributes) -> Any:
        """The value that a sample's payload holds."""
        if self._holds != "array":
            return decode_value(self._holds, payload)
        return array_from(payload, self._schema, attributes, copy=self._copies)


def picked(keys: str | tuple[str, ...], reopen: Reopen, path: str, commit: str) -> Any:
    """A dataset of a commit, or a sample of a nested one: what a pickled one becomes."""
    return reopen(path, commit)[keys]


def dataset_name(path: Path) -> str:
    """A dataset's name from the path of its directory."""
    return b"/".join(path).decode("utf-8", "surrogateescape")


def known_path(name: object) -> Path:
    """The directory of a dataset that may be there; InvalidName for what cannot be a path.

    Allows more than `dataset_path`: a mount may have given it a longer name, or other bytes.
    """
    try:
        path = name.encode("utf-8", "surrogateescape").split(b"/") if isinstance(name, str) else []
        return tuple(map(check_name, path)) or dataset_path(name)
    except UnicodeEncodeError:
        return dataset_path(name)


def dataset_path(name: object) -> Path:
    """The directory of a new dataset called `name`; InvalidName unless each part can name a directory."""
    if not isinstance(name, str):
        raise InvalidName(f"Dataset name `{name!r}` is not suitable: use a str.")
    what = f"Dataset name `{name[:256]}`: its part" if "/" in name else "Dataset name"
    return tuple(check_key(part, what).encode() for part in name.split("/"))
