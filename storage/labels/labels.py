"""What is marked in one tree, and with which labels, as of now.

    with parts.index.read() as txn:        one transaction: what changed since, and how things stand
        walk ...                           what is not known yet is put down to be read
    walk.finish()                          nodes and values are read
    book.change(...)                       and taken in

Every question first compares the generation, which any change by any process raises: one look-up where nothing has changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from storage.disk.index import GENERATION, Txn, number_key
from storage.disk.segments import checksum_parts
from storage.errors import ArborError, DamagedMark, NotFound
from storage.labels.book import Book, below
from storage.labels.keeping import Kept, Shelf
from storage.labels.marks import Key, Marker, Scalar
from storage.labels.walk import Directory, Mark, Walk
from storage.model.digest import Digest, hexed
from storage.model.names import Path
from storage.model.records import Entry, Kind, decode_entry
from storage.stores.staging import decode_change
from storage.stores.transaction import root_of
from storage.tree import read
from storage.tree.node import EMPTY
from storage.working import Parts, staged_id

TRIES = 10
"""So often it is looked again where a commit took away what was being read."""
WORTH = 2000
"""What took so many nodes and rows to find is kept for the next process."""
TOLD = 16
"""So many changes tell a history from another one."""


class Labels:
    """What is marked in a branch as it stands, or in a commit. Thread-safe.

    Paths are texts from the top of the tree; `below` leaves out what is not at that path or below it. Every call answers as of
    now, whoever changed the tree. A key is what a label is about: `("tag",)`, `("category", name)`, `("state",)`.
    NotFound where the branch is gone; Corrupt where a directory cannot be read.
    """

    def __init__(self, parts: Parts, marker: Marker, shelf: Shelf) -> None:
        self._p = parts
        self._marker = marker
        self._shelf = shelf
        self._lock = threading.RLock()
        self._generation = -1
        self._root: Directory | None = None
        self._book = Book(marker)

    # Questions

    def marked(self, below: str = "") -> list[str]:
        """What is marked, sorted: directories of Treants, files of tasks."""
        with self._lock:
            return sorted(_within(self._current().marked, below))

    def having(self, key: Key, value: Scalar, below: str = "") -> set[str]:
        """What has that label. A time that depends on how many that are, not on how many others there are."""
        with self._lock:
            return set(_within(self._current().having(key, value), below))

    def keys(self) -> list[Key]:
        """The keys of all labels, sorted."""
        with self._lock:
            return sorted(self._current().labels)

    def values(self, key: Key) -> list[Scalar]:
        """The values that anything has under a key."""
        with self._lock:
            return self._current().values(key)

    def state(self, path: str) -> object:
        """What marks that path says: of a Treant its `State`. NotFound where nothing does; DamagedMark."""
        with self._lock:
            book = self._current()
            kept = self._kept(path) if path in book.marked else None
            if kept is not None:
                return self._marker.state(kept)
            if path in book.damaged:
                raise DamagedMark(book.damaged[path], where=path)
            raise NotFound(f"{path or 'the top of the tree'} is not marked as a {self._marker.name}")

    def damaged(self, below: str = "") -> dict[str, str]:
        """The paths whose marks cannot be read, or contradict each other, with the reason. They count as not marked."""
        with self._lock:
            found = self._current().damaged
            return {path: found[path] for path in _within(found, below)}

    def _kept(self, path: str) -> bytes | None:
        names = tuple(os.fsencode(name) for name in path.split("/")) if path else ()
        directory = self._root
        for name in names if self._marker.directories else names[:-1]:
            directory = directory.children.get(name) if directory is not None else None
        if directory is None:
            return None
        marks = directory.marks
        mark = next(iter(marks.values()), None) if self._marker.directories else marks.get(names[-1])
        return None if mark is None else mark.kept

    # For those who look without waiting

    @property
    def book(self) -> Book:
        """How things stood at the last look: for those who may not wait, once `is_current` has said yes."""
        return self._book

    def is_current(self) -> bool:
        """Whether nothing has changed since the last look."""
        raise NotImplementedError

    def look(self) -> None:
        """Look again where anything has changed."""
        with self._lock:
            self._current()

    def _current(self) -> Book:
        raise NotImplementedError


class CommitLabels(Labels):
    """Those of a commit, which never change."""

    def __init__(self, parts: Parts, marker: Marker, shelf: Shelf, commit: Digest) -> None:
        super().__init__(parts, marker, shelf)
        self._commit = commit

    def is_current(self) -> bool:
        """Whether it was read."""
        return self._root is not None

    def _current(self) -> Book:
        if self._root is None:
            self._read()
        return self._book

    def _read(self) -> None:
        entry = self._p.objects.commit(self._commit).root
        name = hexed(self._commit)[:32]
        kept = self._shelf.get(self._marker, name)
        walk, book = Walk(self._p, self._marker), Book(self._marker)
        root = walk.settled(kept.root if kept is not None else None, entry)
        walk.finish()
        book.change("", None, root)
        if walk.looked >= WORTH:
            self._shelf.put(self._marker, name, Kept(0, 0, root))
        self._book, self._root = book, root


class _Dirty(NamedTuple):
    """Names that may mean something else now, in a directory of ours, with what they meant."""

    path: str
    directory: Directory
    marks: dict[bytes, Mark]
    children: dict[bytes, Directory | None]


class BranchLabels(Labels):
    """Those of a branch's working tree."""

    def __init__(self, parts: Parts, marker: Marker, shelf: Shelf, branch: str) -> None:
        super().__init__(parts, marker, shelf)
        self._branch = branch
        self._unsaved = 0

    def is_current(self) -> bool:
        """Whether nothing has changed since the last look."""
        with self._p.index.read() as txn:
            return self._p.index.number(txn, GENERATION) == self._generation

    def _current(self) -> Book:
        if not self.is_current():
            for _ in range(TRIES - 1):
                if self._look_again(last=False):
                    return self._book
            self._look_again(last=True)
        return self._book

    def _look_again(self, *, last: bool) -> bool:
        """Take in what has changed. False where a commit took away meanwhile what was to be read."""
        walk, generation = Walk(self._p, self._marker), -1
        try:
            with self._p.index.read() as txn:
                generation = self._p.index.number(txn, GENERATION)
                number = self._p.refs.branch(txn, self._branch).root_id
                if self._root is None:
                    self._take_from_shelf(txn, number)
                changes = self._changes(txn, number)
                if changes is None:
                    dirty = []
                    root = walk.staged(txn, self._root, number, self._root_counts(txn, number))
                else:
                    assert self._root is not None
                    root, dirty = self._root, list(self._touched(txn, walk, changes))
            walk.finish()
        except ArborError:
            self._forget()
            if last or not self._moved_since(generation):
                raise
            return False
        if walk.doubtful and not last and self._moved_since(generation):
            self._forget()
            return False
        self._take_in(root, dirty)
        self._generation = generation
        self._save(walk.looked)
        return True

    def _moved_since(self, generation: int) -> bool:
        with self._p.index.read() as txn:
            return self._p.index.number(txn, GENERATION) != generation

    def _forget(self) -> None:
        """What was changed half way is not to be believed."""
        self._root, self._generation, self._book = None, -1, Book(self._marker)

    def _take_in(self, root: Directory, dirty: list[_Dirty]) -> None:
        if root is not self._root:
            # A new one where all is new: nobody waits for it.
            book = Book(self._marker) if self._root is None else self._book
            book.change("", self._root, root)
            self._book, self._root = book, root
        for each in dirty:
            marks = each.directory.marks
            if not self._marker.directories:
                marks = {name: marks[name] for name in each.children if name in marks}
            self._book.change_marks(each.path, each.marks, marks)
            for name, child in each.children.items():
                self._book.change(below(each.path, name), child, each.directory.children.get(name))

    # What has changed

    def _changes(self, txn: Txn, number: int) -> dict[Path, set[bytes] | None] | None:
        """The names that changed by directory (None: all below it); None where that is too long ago to know."""
        if self._root is None or self._root.staged != number or self._generation < 0:
            return None
        found: dict[Path, set[bytes] | None] = {}
        since = expected = self._generation
        for key, row in self._p.index.scan(txn, self._p.index.changes, b"", number_key(max(since, 0))):
            expected += 1
            if int.from_bytes(key, "big") != expected:
                return None
            for branch, path, names in decode_change(row):
                if branch != self._branch:
                    continue
                if not path and not names and self._marker.within is not None:
                    return None  # the attributes of the root itself
                if names is None or names:
                    known = found.setdefault(tuple(path), set())
                    found[tuple(path)] = None if names is None or known is None else known | set(names)
        missed = expected != self._p.index.number(txn, GENERATION)
        return None if missed or found.get((), ()) is None else found

    def _touched(self, txn: Txn, walk: Walk, changes: dict[Path, set[bytes] | None]) -> Iterator[_Dirty]:
        """Look at every name that changed, those above before those below, of which they may tell already."""
        walked: set[Path] = set()
        named: dict[Path, set[bytes]] = {}
        for path, names in changes.items():
            where, meant = (path[:-1], set(path[-1:])) if names is None else (path, names)
            named[where] = named.get(where, set()) | meant
        for path in sorted(named, key=len):
            if any(path[:depth] in walked for depth in range(1, len(path) + 1)):
                continue
            directory = self._directory(txn, path)
            if directory is not None:  # else it is gone, which one above it tells
                yield self._looked_at(txn, walk, directory, path, named[path])
                walked.update((*path, name) for name in named[path])

    def _looked_at(self, txn: Txn, walk: Walk, directory: Directory, path: Path, names: set[bytes]) -> _Dirty:
        marks, children = directory.marks, directory.children
        # Two in one directory are another thing than one; of files that mark themselves there may be a million.
        all_marks = self._marker.directories
        before = dict(marks) if all_marks else {name: marks[name] for name in names if name in marks}
        found = _Dirty(os.fsdecode(b"/".join(path)), directory, before, {name: children.get(name) for name in names})
        for name in names:
            known = marks.pop(name, None), children.pop(name, None)
            walk.entry(txn, directory, name, self._find(txn, directory, name), known)
        return found

    def _directory(self, txn: Txn, path: Path) -> Directory | None:
        """Our record of the directory at `path`, made where there was no mark in it; None where there is no directory."""
        directory = self._root
        assert directory is not None
        self._place(txn, directory, directory.staged)
        for name in path:
            entry = self._find(txn, directory, name)
            if entry is None or not entry.is_directory:
                return None
            child = directory.children.get(name)
            if child is None:
                counts = self._marker.counts(entry.attributes)
                child = directory.children[name] = Directory(0, EMPTY, counts, {}, {})
            if entry.kind is Kind.STAGED:
                self._place(txn, child, staged_id(entry))
            else:
                child.staged, child.base = 0, entry.root
            directory = child
        return directory

    def _place(self, txn: Txn, directory: Directory, number: int) -> None:
        """Note that a directory of ours is that staged one."""
        row = self._p.staging.directory(txn, number)
        directory.staged, directory.base = number, row.base if row is not None else EMPTY

    def _root_counts(self, txn: Txn, number: int) -> bool:
        entry = root_of(self._p.objects, self._p.refs.branch(txn, self._branch).tip)
        row = self._p.staging.directory(txn, number)
        if row is not None and row.head:
            entry = decode_entry(row.head, entry.value)
        return self._marker.counts(entry.attributes)

    def _find(self, txn: Txn, directory: Directory, name: bytes) -> Entry | None:
        row = self._p.staging.row(txn, directory.staged, name) if directory.staged else None
        if row is not None:
            return None if row.kind is Kind.REMOVED else decode_entry(row.head, row.value)
        found = read.get(self._p.objects.node, Digest(directory.base), name)
        return None if found is None else decode_entry(*found)

    # Between processes

    def _take_from_shelf(self, txn: Txn, number: int) -> None:
        """Begin with what was kept. Where the changes since are known, those are all that is to be looked at."""
        kept = self._shelf.get(self._marker, f"{number:x}")
        if kept is None:
            return
        self._book.change("", None, kept.root)
        self._root = kept.root
        if kept.generation and kept.check == self._history(txn, kept.generation):
            self._generation = kept.generation

    def _save(self, looked: int) -> None:
        """Keep it for the next process, where finding it again would take long."""
        self._unsaved += looked
        if self._unsaved < WORTH or self._root is None:
            return
        with self._p.index.read() as txn:
            check = self._history(txn, self._generation)
        self._shelf.put(self._marker, f"{self._root.staged:x}", Kept(self._generation, check, self._root))
        self._unsaved = 0

    def _history(self, txn: Txn, generation: int) -> int:
        """What tells the latest changes up to that one from any others; 0 where they are not known."""
        start = number_key(max(generation - TOLD, 0))
        rows: list[bytes | memoryview] = []
        for key, row in self._p.index.scan(txn, self._p.index.changes, b"", start):
            if key > number_key(generation):
                break
            rows += (key, row)
        return checksum_parts(rows) if rows and rows[-2] == number_key(generation) else 0


def _within(paths: Iterable[str], below: str) -> Iterable[str]:
    """Those of the paths that are `below` or begin with it."""
    if not below:
        return paths
    start = f"{below}/"
    return (path for path in paths if path == below or path.startswith(start))
