"""A commit as a tree: nothing in it ever changes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from storage.errors import IsADirectory, NotADirectory, NotFound
from storage.model.cache import Cache
from storage.model.digest import Digest
from storage.model.names import Path, path_text
from storage.model.records import Commit, Entry, Kind, Schema, decode_entry, is_directory_of
from storage.stores.contents import Content, is_here, open_content, payload_of, put_payload_into
from storage.stores.objects import Objects
from storage.tree import read
from storage.tree.node import Load, Row

LARGE = 1 << 18
"""Directories of more entries, whose leaves would not find room in the cache, are listed without keeping them."""
PLACES = 1000
"""So many directories are kept, to be looked into again."""
COUNTED = 1000
"""Bytes that a count takes, about."""


def listing_load(objects: Objects, root: Digest) -> Load:
    """What loads the nodes of the directory with that root to list it."""
    return objects.passing if read.sums(objects.node, root).count > LARGE else objects.node


Counts = Cache[tuple[Digest, Schema], int]
"""How many directories of a schema lie in the committed directory with that root: counted once, and kept."""


def directory_counts(objects: Objects) -> Counts:
    """Counts of what these objects hold."""

    def count(key: tuple[Digest, Schema]) -> tuple[int, int]:
        """The count, and what it weighs in the cache."""
        root, schema = key
        found = read.heads(objects.node, partial(objects.nodes, keep=False), root)
        return sum(is_directory_of(head, schema) for head in found), COUNTED

    return Cache(COUNTED * PLACES, count)


class Snapshot:
    """One commit, read-only. Thread-safe; holds the commit's record and the directories looked into last."""

    def __init__(self, objects: Objects, commit: Digest) -> None:
        self.commit = commit
        self.record: Commit = objects.commit(commit)
        self._objects = objects
        self._directories: dict[Path, Digest] = {}
        self._counts = directory_counts(objects)

    def entry(self, path: Path) -> Entry:
        """The entry at `path`; () is the root. NotFound, NotADirectory."""
        if not path:
            return self.record.root
        root = self._directories.get(path[:-1]) or self._resolve(path[:-1])
        found = read.get(self._objects.node, root, path[-1])
        if found is None:
            raise NotFound(f"there is no {path_text(path)} in commit {self.commit.hex()[:16]}")
        return decode_entry(*found)

    def _resolve(self, path: Path) -> Digest:
        """The root of the directory at `path`, which is kept."""
        root = self.record.root.root
        for depth, name in enumerate(path, 1):
            found = read.get(self._objects.node, root, name)
            if found is None:
                raise NotFound(f"there is no {path_text(path[:depth])} in commit {self.commit.hex()[:16]}")
            entry = decode_entry(*found)
            if entry.kind is not Kind.DIRECTORY:
                raise NotADirectory(f"{path_text(path[:depth])} is not a directory")
            root = entry.root
        if len(self._directories) >= PLACES:
            self._directories.clear()
        self._directories[path] = root
        return root

    def entries(self, path: Path, after: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
        """The entries of a directory in the order of their names, those behind `after` only."""
        for name, head, value in read.rows(self._objects.node, self._directory(path), after):
            yield name, decode_entry(head, value)

    def rows_ahead(self, path: Path) -> Iterator[Row]:
        """Name, head and value of everything in a directory by name, for who will read most of it."""
        root = self._directory(path)
        keep = read.sums(self._objects.node, root).count <= LARGE
        return read.rows_ahead(self._objects.node, partial(self._objects.nodes, keep=keep), root)

    def leaves_ahead(self, path: Path) -> Iterator[tuple[Digest, bytes | memoryview]]:
        """Digest and bytes of the leaves of a directory, in order, for who will take most of their values. None is kept."""
        for digests in read.portions(self._objects.node, self._directory(path)):
            yield from zip(digests, self._objects.get_many(digests), strict=True)

    def rows_of(self, leaf: Digest) -> Iterator[Row]:
        """Name, head and value of everything in a leaf. Corrupt."""
        return read.rows(self._objects.passing, leaf)

    def row(self, path: Path, name: bytes) -> tuple[bytes, bytes] | None:
        """Head and value of what is called `name` in the directory at `path`, None where there is nothing."""
        return read.get(self._objects.node, self._directory(path), name)

    def directories(self, path: Path) -> list[tuple[bytes, Entry]]:
        """The directories in a directory by name; what it holds of committed samples costs nothing."""
        return list(read.directories(self._objects.node, self._directory(path)))

    def names(self, path: Path) -> Iterator[bytes]:
        """The names in a directory, in order."""
        for name, _, _ in read.rows(self._objects.node, self._directory(path)):
            yield name

    def content(self, entry: Entry, dataset: Schema | None = None) -> Content:
        """What a file or sample holds; pass the schema of the directory it is in."""
        assert isinstance(entry.value, bytes)
        return open_content(self._objects, entry, entry.value, dataset)

    def payload(self, entry: Entry) -> bytes | memoryview:
        """What a sample holds, without its header."""
        assert isinstance(entry.value, bytes)
        return payload_of(self._objects, entry.flags, entry.value)

    def put_payload_into(self, room: memoryview, entry: Entry) -> bool:
        """Fill `room` with what a sample holds, which is not kept; False, and nothing else, if that has another length."""
        assert isinstance(entry.value, bytes)
        return put_payload_into(room, self._objects, entry.flags, entry.value)

    def is_here(self, entry: Entry) -> bool:
        """Whether everything that a sample holds is stored here."""
        assert isinstance(entry.value, bytes)
        return is_here(self._objects, entry.flags, entry.value)

    def open(self, path: Path) -> tuple[Entry, Content]:
        """A file or sample and what it holds. IsADirectory for a directory."""
        entry = self.entry(path)
        if entry.is_directory:
            raise IsADirectory(f"{path_text(path)} is a directory")
        return entry, self.content(entry, self.entry(path[:-1]).schema)

    def count_samples(self, path: Path) -> int:
        """How many samples a directory holds."""
        return self.entry(path).samples

    def count_directories(self, path: Path, schema: Schema) -> int:
        """How many directories with that schema lie in a directory: a walk over it, and none again."""
        return self._counts[self._directory(path), schema]

    def schema_of(self, path: Path) -> Schema | None:
        """The schema of a directory, None for an ordinary one."""
        return self.entry(path).schema

    def settled(self, path: Path) -> Digest | None:
        """The root of a directory: everything in it is committed."""
        return self._directory(path)

    @property
    def objects(self) -> Objects:
        """Where contents and nodes are."""
        return self._objects

    def locate(self, directory: Digest, name: bytes) -> tuple[int, Entry]:
        """An entry of the directory with that root, and its rank there. NotFound."""
        found = read.locate(self._objects.node, directory, name)
        if found is None:
            raise NotFound(f"there is no {path_text((name,))} there")
        rank, head, value = found
        return rank, decode_entry(head, value)

    def at(self, directory: Digest, rank: int) -> tuple[bytes, Entry]:
        """The entry of that rank, counted from 0 in the order of names."""
        name, head, value = read.at(self._objects.node, directory, rank)
        return name, decode_entry(head, value)

    def rows(self, directory: Digest, start: int = 0) -> Iterator[tuple[int, bytes, Entry]]:
        """Rank, name and entry of everything in a directory from rank `start` on."""
        load = listing_load(self._objects, directory)
        for rank, (name, head, value) in enumerate(read.rows_at(load, directory, start), start):
            yield rank, name, decode_entry(head, value)

    def _directory(self, path: Path) -> Digest:
        return self._directories.get(path) or self._resolve(path)
