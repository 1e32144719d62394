"""The labels of a branch's working tree, as of now.

    with index.read() as txn:       one transaction: what changed since the last look, and how things stand
        walk ...                    what is not known yet is put down to be read
    walk.finish()                   nodes and values are read
    book.change(...)                and taken in

Every question first compares the generation, which any change by any process raises: one look-up where nothing has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from storage.disk.index import GENERATION, Txn, number_key
from storage.disk.segments import checksum_parts
from storage.errors import ArborError
from storage.labels import keeping
from storage.labels.book import Book, below
from storage.labels.keeping import Kept, Shelf
from storage.labels.labels import Labels
from storage.labels.marks import Marker
from storage.labels.walk import Directory, Mark, Walk, uncollected
from storage.model.digest import Digest
from storage.model.names import Path
from storage.model.records import Entry, Kind, decode_entry
from storage.stores.refs import BranchRef
from storage.stores.staging import decode_change
from storage.stores.transaction import root_of
from storage.tree import read
from storage.tree.node import EMPTY
from storage.working import Parts, staged_id

TRIES = 10
"""So often it is looked again where a commit took away what was being read."""
TOLD = 16
"""So many changes tell a history from another one."""


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
        self._tip: Digest | None = None
        self._unsaved = 0

    def is_current(self) -> bool:
        """Whether nothing has changed since the last look."""
        with self._p.index.read() as txn:
            return self._p.index.number(txn, GENERATION) == self._generation

    def _current(self) -> Book:
        if not self.is_current():
            with uncollected():
                for attempt in range(1, TRIES + 1):
                    if self._look_again(last=attempt == TRIES):
                        break
        return self._book

    def _look_again(self, *, last: bool) -> bool:
        """Take in what has changed. False where a commit took away meanwhile what was to be read."""
        generation = -1
        done = False
        try:
            walk = Walk(self._p, self._marker)
            with self._p.index.read() as txn:
                generation = self._p.index.number(txn, GENERATION)
                root, dirty = self._walked(txn, walk)
            walk.finish()
            if walk.doubtful and not last and self._moved_since(generation):
                return False
            self._take_in(root, dirty)
            done = True
        except ArborError:
            if last or not self._moved_since(generation):
                raise
            return False
        finally:
            if not done:  # what was changed half way, by whatever was in the way, is not to be believed
                self._root, self._generation, self._book = None, -1, Book(self._marker)
        self._generation = generation
        self._save(walk.looked)
        return True

    def _walked(self, txn: Txn, walk: Walk) -> tuple[Directory, list[_Dirty]]:
        """The root of the tree as the walk finds it, and what was changed in it where it is ours still."""
        ref = self._p.refs.branch(txn, self._branch)
        if self._root is None:
            self._take_from_shelf(txn, ref.root_id)
        changes = self._changes(txn, ref.root_id)
        before, self._tip = self._tip, ref.tip
        if changes is None or self._root is None:
            return walk.staged(txn, self._root, ref.root_id, self._root_counts(txn, ref)), []
        dirty = list(self._touched(txn, walk, changes))
        if before != ref.tip:
            self._place(txn, self._root, ref.root_id)
            walk.looked += self._settle(txn, self._root)
        return self._root, dirty

    def _moved_since(self, generation: int) -> bool:
        with self._p.index.read() as txn:
            return self._p.index.number(txn, GENERATION) != generation

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
        """The names that changed by directory (None: all below it); None where they are not known."""
        if self._root is None or self._root.staged != number or self._generation < 0:
            return None
        found: dict[Path, set[bytes] | None] = {}
        since = expected = self._generation
        for key, row in self._p.index.scan(txn, self._p.index.changes, b"", number_key(since)):
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

    def _settle(self, txn: Txn, directory: Directory) -> int:
        """After a commit: note by what our records of staged directories are known from now on; how many were looked at.

        What is in them is what it was, so none is read. Else all would be, once it is too long ago to know what changed.
        """
        looked = 0
        for name, child in directory.children.items():
            entry = self._find(txn, directory, name) if child.staged else None
            if entry is None or not entry.is_directory:
                continue
            self._identify(txn, child, entry)
            looked += 1 + self._settle(txn, child)
        return looked

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
            self._identify(txn, child, entry)
            directory = child
        return directory

    def _identify(self, txn: Txn, directory: Directory, entry: Entry) -> None:
        """Note that a directory of ours is the one that stands there now."""
        if entry.kind is Kind.STAGED:
            self._place(txn, directory, staged_id(entry))
        else:
            directory.staged, directory.base = 0, entry.root

    def _place(self, txn: Txn, directory: Directory, number: int) -> None:
        """Note that a directory of ours is that staged one."""
        row = self._p.staging.directory(txn, number)
        directory.staged, directory.base = number, row.base if row is not None else EMPTY

    def _root_counts(self, txn: Txn, ref: BranchRef) -> bool:
        entry = root_of(self._p.objects, ref.tip)
        row = self._p.staging.directory(txn, ref.root_id)
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
        if self._unsaved < keeping.WORTH or self._root is None:
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
