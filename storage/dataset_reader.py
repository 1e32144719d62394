"""A dataset as a dict of arrays: everything that only reads."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from itertools import islice
from pathlib import Path as FilePath
from types import TracebackType
from typing import Any, Self

import numpy as np

from storage.errors import Corrupt, InvalidName, NotADirectory, NotFound, ReadOnly, Unsupported
from storage.model.digest import hexed
from storage.model.dtypes import dtype_of
from storage.model.names import Path, check_key
from storage.model.records import Entry, Kind, Schema
from storage.model.samples import Array, array_from
from storage.session import Session
from storage.snapshot import Snapshot

Key = str | int
"""What samples are called: a text that can name a file, or a non-negative int: its decimal digits."""

COMPLETIONS = 1000
"""So many keys are offered to IPython's completion."""

_READ_ONLY = "This checkout is read-only. Check out with write=True to change data."


@dataclass(frozen=True, slots=True)
class Origin:
    """A dataset of a commit, as another process finds it: the repository's folder, 64 hexadecimal digits, the name."""

    repository: FilePath
    commit: str
    dataset: str


class DatasetDataReader(Mapping[str, Array]):
    """The samples of one dataset by key, in the order of their keys' bytes.

    Arrays read are always fresh, writeable memory: no later change of the dataset shows in them, and changing
    them changes nothing stored. Thread-safe.
    """

    def __init__(self, session: Session, path: Path, schema: Schema) -> None:
        self._session = session
        self._path = path
        self._schema = schema
        self._suffix = schema.suffix
        self._dtype = dtype_of(schema.dtype)

    @property
    def name(self) -> str:
        """The dataset's name; nested ones have slashes in it."""
        return dataset_name(self._path)

    @property
    def schema(self) -> Schema:
        """What its samples look like."""
        return self._schema

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of every sample."""
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

    @property
    def origin(self) -> Origin:
        """Where another process finds the same samples. Unsupported for one of a branch."""
        tree = self._session.tree
        if not isinstance(tree, Snapshot):
            raise Unsupported(f"the dataset {self.name!r} of a branch changes: only those of commits can be reopened")
        return Origin(self._session.path, hexed(tree.commit), self.name)

    def __getitem__(self, key: Key) -> Array:
        """The sample under `key`. KeyError where there is none; ValueError for what cannot be a key."""
        name = self._file_name(key)
        entry = self._find(name)
        if entry is None:
            raise NotFound(f"no sample {key!r} in dataset {self.name!r}")
        return self._array(name, entry)

    def __contains__(self, key: object) -> bool:
        """Whether there is a sample under `key`."""
        try:
            name = self._file_name(key)
        except InvalidName:
            return False
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        """The keys, in order."""
        for name, _ in self._rows():
            yield self._key(name)

    def __len__(self) -> int:
        """How many samples there are; costs no walk over them."""
        return self._session.tree.count_samples(self._path)

    def values(self) -> ValuesView[Array]:
        """The samples, in the order of their keys; each is read when its turn comes."""
        return _Values(self)

    def items(self) -> ItemsView[str, Array]:
        """Keys and samples, in the order of the keys; each is read when its turn comes."""
        return _Items(self)

    def pairs(self) -> Iterator[tuple[str, Array]]:
        """Keys and samples one after the other, faster than asking for each key."""
        for name, entry in self._rows():
            yield self._key(name), self._array(name, entry)

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

    def __setitem__(self, key: Key, data: Array) -> None:
        """ReadOnly."""
        raise ReadOnly(_READ_ONLY)

    def __delitem__(self, key: Key) -> None:
        """ReadOnly."""
        raise ReadOnly(_READ_ONLY)

    def add(self, data: Array, name: Key | None = None) -> str:
        """ReadOnly."""
        raise ReadOnly(_READ_ONLY)

    def update(self, other: Mapping[Any, Array] | Iterable[tuple[Any, Array]] = (), /, **more: Array) -> None:
        """ReadOnly."""
        raise ReadOnly(_READ_ONLY)

    def remove(self, name: Key) -> str:
        """ReadOnly."""
        raise ReadOnly(_READ_ONLY)

    def pop(self, key: Key, *default: Any) -> Any:
        """ReadOnly."""
        raise ReadOnly(_READ_ONLY)

    def __repr__(self) -> str:
        """Name, schema and number of samples."""
        schema = self._schema
        return (
            f"Arborfs {type(self).__name__}\n"
            f"    Dataset Name     : {self.name}\n"
            f"    Schema UUID      : {schema.uuid}\n"
            f"    Schema Hash      : {schema.hash}\n"
            f"    Variable Shape   : {schema.variable}\n"
            f"    (max) Shape      : {schema.shape}\n"
            f"    Datatype         : {self._dtype.type}\n"
            f"    Named Samples    : {schema.named}\n"
            f"    Access Mode      : {self._session.mode}\n"
            f"    Num Samples      : {len(self)}"
        )

    def _ipython_key_completions_(self) -> list[str]:
        return list(islice(self, COMPLETIONS))

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
        return name[: -len(self._suffix)].decode("utf-8", "surrogateescape")

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

    def _array(self, name: bytes, entry: Entry) -> Array:
        tree = self._session.tree
        try:
            payload = tree.payload(entry)
        except Corrupt:
            # A commit by another process takes staged values out of their journal: look where they are now.
            again = self._find(name)
            if again is None or again == entry:
                raise
            entry, payload = again, tree.payload(again)
        return array_from(payload, self._schema, entry.attributes)


class _Values(ValuesView[Array]):
    """The values of a dataset."""

    _mapping: DatasetDataReader

    def __iter__(self) -> Iterator[Array]:
        """Each sample, read when its turn comes."""
        for _, array in self._mapping.pairs():
            yield array

    def __contains__(self, value: object) -> bool:
        """Whether some sample equals `value`; reads all of them."""
        return any(np.array_equal(array, value) for array in self)  # type: ignore[arg-type]


class _Items(ItemsView[str, Array]):
    """The keys and values of a dataset."""

    _mapping: DatasetDataReader

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        """Each key and its sample, read when its turn comes."""
        return self._mapping.pairs()

    def __contains__(self, item: object) -> bool:
        """Whether the sample of that key equals that value."""
        if not isinstance(item, tuple) or len(item) != 2 or item[0] not in self._mapping:
            return False
        return np.array_equal(self._mapping[item[0]], item[1])


def dataset_name(path: Path) -> str:
    """A dataset's name from the path of its directory."""
    return b"/".join(path).decode("utf-8", "surrogateescape")


def dataset_path(name: object) -> Path:
    """The directory of a dataset called `name`; InvalidName unless each part can name a directory."""
    if not isinstance(name, str):
        raise InvalidName(f"Dataset name `{name!r}` is not suitable: use a str.")
    path = []
    for part in name.split("/"):
        try:
            path.append(check_key(part).encode())
        except InvalidName as error:
            raise InvalidName(f"Dataset name `{name[:256]}` is not suitable: {error}") from error
    return tuple(path)
