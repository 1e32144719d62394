"""Something stored, as those who export it see it: a directory, a dataset, a sample, a file or a link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from storage.dataset_reader import DatasetDataReader
from storage.errors import NotFound
from storage.model.names import Path, path_text
from storage.model.records import Entry, Kind
from storage.model.samples import Array, array_from, canonical_header
from storage.session import Session
from storage.snapshot import Snapshot
from storage.stores.contents import Content
from storage.working import WorkingReader


class Stored:
    """One entry of a commit or working tree."""

    def __init__(self, session: Session, path: Path, entry: Entry | None = None) -> None:
        self._session = session
        self.path = path
        self.entry = entry if entry is not None else session.tree.entry(path)

    @property
    def name(self) -> str:
        """Its path, for messages."""
        return path_text(self.path) if self.path else "the whole tree"

    @property
    def dataset(self) -> DatasetDataReader | None:
        """The dataset of arrays that it is, None for anything else."""
        schema = self.entry.schema
        return None if schema is None or schema.kind != "array" else DatasetDataReader(self._session, self.path, schema)

    @property
    def array(self) -> Array | None:
        """The array that it is as a sample of a dataset, None for anything else."""
        if self.entry.kind is not Kind.SAMPLE:
            return None
        tree = self._session.tree
        schema = tree.schema_of(self.path[:-1])
        assert schema is not None
        if schema.holds != "array":
            return None
        return array_from(tree.payload(self.entry), schema, self.entry.attributes)

    @property
    def target(self) -> bytes:
        """Where a symbolic link leads."""
        tree: Snapshot | WorkingReader = self._session.tree
        if isinstance(tree, WorkingReader):
            return tree.readlink(self.entry)
        assert isinstance(self.entry.value, bytes)
        return self.entry.value

    def open(self) -> Content:
        """The contents of a file or sample."""
        return self._session.tree.open(self.path)[1]

    def children(self) -> Iterator[tuple[bytes, Stored]]:
        """What is in a directory, by name."""
        for name, entry in self._session.tree.entries(self.path):
            path = (*self.path, name)
            yield name, Stored(self._session, path, entry)

    def lookup(self) -> Callable[[str], Array] | None:
        """A quick way to a committed dataset's samples by key; None where something may be staged."""
        tree, schema = self._session.tree, self.entry.schema
        if not isinstance(tree, Snapshot) or schema is None:
            return None
        root, suffix = self.entry.root, schema.suffix

        def found(key: str) -> Array:
            """The sample of that key."""
            _, entry = tree.locate(root, key.encode() + suffix)
            return array_from(tree.payload(entry), schema, entry.attributes)

        return found

    def child(self, name: bytes) -> Stored | None:
        """What has that name in a directory, None where nothing has."""
        try:
            return Stored(self._session, (*self.path, name))
        except NotFound:
            return None


def row_keys(dataset: DatasetDataReader) -> range | None:
    """The keys of a dataset that numbers its samples from 0 on, as a range; None for any other."""
    highest = count = 0
    for key in dataset:
        if not (key.isascii() and key.isdigit()) or (key[0] == "0" and key != "0"):
            return None
        count += 1
        highest = max(highest, int(key))
    return range(count) if highest == count - 1 or count == 0 else None


def sample_size(dataset: DatasetDataReader) -> int:
    """The bytes of a sample's file form, in a dataset of fixed shape: what entries count, and meters are told."""
    nbytes = dataset.dtype.itemsize * int(np.prod(dataset.shape, dtype=np.int64))
    return len(canonical_header(dataset.schema.dtype, dataset.shape)) + nbytes


def blocks(stored: Stored, nbytes: int) -> Iterator[tuple[list[str], Array]]:
    """The samples of a dataset of fixed shape as stacked arrays of about `nbytes` bytes, with their keys.

    Numbered samples come by number, others in the order of their keys' bytes.
    """
    dataset = stored.dataset
    assert dataset is not None
    shape, dtype = dataset.shape, dataset.dtype
    size = max(1, nbytes // max(1, dtype.itemsize * int(np.prod(shape, dtype=np.int64))))
    numbers = row_keys(dataset)
    samples = dataset.pairs() if numbers is None else _numbered(stored, dataset, numbers)
    while batch := list(islice(samples, size)):
        block = np.empty((len(batch), *shape), dtype)
        for number, (_, array) in enumerate(batch):
            block[number] = array
        yield [key for key, _ in batch], block


def _numbered(stored: Stored, dataset: DatasetDataReader, numbers: range) -> Iterator[tuple[str, Array]]:
    found = stored.lookup()
    for number in numbers:
        key = str(number)
        yield key, dataset[key] if found is None else found(key)
