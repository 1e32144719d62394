"""Nested datasets: every sample is a dict of values, a directory of files in a mount."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from storage.dataset_reader import DatasetDataReader, Key, dataset_name, picked
from storage.dataset_writer import DatasetDataWriter, file_names
from storage.errors import NotFound, SchemaMismatch
from storage.model.names import Path, check_key
from storage.model.records import Entry, Kind, Schema
from storage.model.samples import Array
from storage.session import Session


class SubsampleReader(DatasetDataReader):
    """The values of one sample of a nested dataset by key."""

    @property
    def sample(self) -> str:
        """The sample's key."""
        return self._path[-1].decode("utf-8", "surrogateescape")

    @property
    def data(self) -> dict[str, Any]:
        """All values by key, read now."""
        return dict(self.pairs())

    def __reduce__(self) -> tuple[Any, ...]:
        """As of a dataset; the sample's key travels, too."""
        return picked, ((dataset_name(self._path[:-1]), self.sample), *self._session.address())

    def __getitem__(self, key: Any) -> Any:
        """One value; for `...` a dict of all, for a slice one of those at these places in the order of keys.

        For a list of keys as in a dataset. KeyError where there is none.
        """
        if key is ...:
            return self.data
        if isinstance(key, slice):
            return {each: self[each] for each in list(self)[key]}
        return super().__getitem__(key)


class SubsampleWriter(SubsampleReader, DatasetDataWriter):
    """The values of one sample of a nested dataset by key, to read and to change. Without values there is no sample."""

    def entries_of(self, values: Mapping[Key, Any]) -> list[tuple[bytes, Entry]]:
        """File names and entries of values that all fit, their contents stored. SchemaMismatch, InvalidName; then none is."""
        checked = {check_key(key): self._checked(value, f"{self.sample}/{key}") for key, value in values.items()}
        tree = self._session.working_tree
        rows = []
        for key, value in checked.items():
            (name,) = file_names([key], self._suffix.decode())
            path = (*self._path, name)
            if isinstance(value, bytes):
                rows.append((name, tree.value_entry(self._schema, value, path)))
            else:
                rows.append((name, tree.sample_entry(self._schema, value, replaces=path)))
        return rows

    def remove(self, name: Key) -> str:
        """Remove a value and return its key; the last one with the sample itself. KeyError where there is none."""
        with self._lock:
            self.flush()
            if name in self and not any(True for _ in islice(self._session.tree.entries(self._path), 1, 2)):
                self._session.working_tree.remove_tree(self._path)
                return str(name)
            return super().remove(name)


class NestedDatasetReader(DatasetDataReader):
    """The samples of one nested dataset by key: each a dict of values."""

    _accessor: type[SubsampleReader] = SubsampleReader

    def __init__(self, session: Session, path: Path, schema: Schema) -> None:
        super().__init__(session, path, schema)
        self._inner = schema.inner
        self._suffix = b""  # a sample is a directory, named by its key alone

    @property
    def num_subsamples(self) -> int:
        """How many values all samples have together; costs a walk over the samples, not over their values."""
        tree = self._session.tree
        counts = (
            entry.samples if entry.kind is Kind.DIRECTORY else tree.count_samples((*self._path, name))
            for name, entry in self._rows()
        )
        return sum(counts)

    def __len__(self) -> int:
        """How many samples there are. Those of a commit are walked over once; on a branch, what is staged each time."""
        return self._session.tree.count_directories(self._path, self._inner)

    def _rows(self) -> Iterator[tuple[bytes, Entry]]:
        for name, entry in self._session.tree.entries(self._path):
            if entry.is_directory and self._inner.is_like(entry.schema):
                yield name, entry

    def _find(self, name: bytes) -> Entry | None:
        try:
            entry = self._session.tree.entry((*self._path, name))
        except NotFound:
            self._session.tree.schema_of(self._path)  # NotFound where the dataset itself is gone
            return None
        return entry if entry.is_directory and self._inner.is_like(entry.schema) else None

    def _is_here(self, name: bytes, entry: Entry) -> bool:
        return not self._value_at(name, entry).contains_remote_references

    def _value_at(self, name: bytes, entry: Entry) -> SubsampleReader:
        assert entry.schema is not None
        return self._accessor(self._session, (*self._path, name), entry.schema)


class NestedDatasetWriter(NestedDatasetReader, DatasetDataWriter):
    """The samples of one nested dataset by key, to read and to change. Every change is staged when the call returns."""

    _accessor = SubsampleWriter

    def add(self, data: Any, name: Key | None = None) -> str:
        """Put the values of the dict `data` into the sample `name`, and return its key; others in it stay.

        Without a name in a dataset of unnamed samples the key is generated. SchemaMismatch (a ValueError) for what is not fit.
        """
        key = self._new_key() if name is None else check_key(name)
        self.update({key: data})
        return key

    def require(self, data: Any) -> None:
        """SchemaMismatch (a ValueError) unless the dict `data` would be a sample here, InvalidName where samples need names."""
        self._entries(self._new_key(), data)

    def append(self, data: Any) -> str:
        """Stage the dict `data` as a sample under a generated key, and return that."""
        return self.add(data, self._generated())

    def update(self, other: Any = (), /, *arrays: Array, **more: Any) -> None:
        """Stage the values of many samples as one change: all are checked before any is written; all are staged or none.

        Takes a mapping of keys to dicts, or pairs, and keywords.
        """
        self._session.require_open()
        if arrays:
            raise SchemaMismatch(f"dataset {self.name!r} is nested: give dicts of values, not the rows of an array")
        pairs = list(other.items() if isinstance(other, Mapping) else other) + list(more.items())
        inner = self._schema.inner
        with self._session.working_tree.storing():
            rows: dict[bytes, dict[bytes, Entry]] = {}
            for key, values in pairs:
                name = check_key(key).encode()
                rows.setdefault(name, {}).update(self._entries(check_key(key), values))
            with self._lock:
                self._writeable_tree().put_nested(
                    self._path, {name: list(entries.items()) for name, entries in rows.items()}, inner
                )

    def _entries(self, key: str, values: Any) -> list[tuple[bytes, Entry]]:
        """File names and entries of the values of one sample, their contents stored. SchemaMismatch."""
        if not isinstance(values, Mapping) or not values:
            found = "an empty one" if isinstance(values, Mapping) else type(values).__name__
            raise SchemaMismatch(
                f"sample {key[:64]!r} must be a dict of at least one value, not {found}", expected="dict", found=found
            )
        return SubsampleWriter(self._session, (*self._path, key.encode()), self._schema.inner).entries_of(values)

    def remove(self, name: Key) -> str:
        """Remove a sample with all its values, and return its key; KeyError where there is none."""
        with self._lock:
            file = self._file_name(name)
            if self._find(file) is None:
                raise NotFound(f"no sample {name!r} in dataset {self.name!r}")
            self._session.working_tree.remove_tree((*self._path, file))
        return str(name)

    def pop(self, key: Key, *default: Any) -> Any:
        """Remove a sample and return its values as a dict. Where there is none, the default; KeyError without one."""
        with self._lock:
            try:
                values = self[key].data
            except KeyError:
                if default:
                    return default[0]
                raise
            self.remove(key)
        return values
