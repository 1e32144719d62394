"""What is marked in one tree, and with which labels; of a commit, for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator

from storage.errors import DamagedMark, NotFound
from storage.labels import keeping
from storage.labels.book import Book
from storage.labels.keeping import Kept, Shelf
from storage.labels.marks import Key, Marker, Scalar
from storage.labels.walk import Directory, Walk, uncollected
from storage.model.digest import Digest, hexed
from storage.working import Parts


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
        """What is marked, sorted: directories of Treants, files of tasks. A time that depends on how many that are."""
        with self._lock:
            book = self._current()
            return sorted(book.marked if not below else (path for path in self._noted(below) if path in book.marked))

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

    def _noted(self, below: str) -> Iterator[str]:
        """Every path at or below one that has a record."""
        waiting = [(below, self._record(below))]
        if not self._marker.directories:
            yield below  # which may be a file
        while waiting:
            path, directory = waiting.pop()
            if directory is None:
                continue
            yield from (
                [path] if self._marker.directories else [f"{path}/{os.fsdecode(name)}" for name in directory.marks]
            )
            waiting += [(f"{path}/{os.fsdecode(name)}", child) for name, child in directory.children.items()]

    def _record(self, path: str) -> Directory | None:
        """What was found at a path that is a directory, None where there is nothing marked."""
        directory = self._root
        for name in path.split("/") if path else ():
            directory = directory.children.get(os.fsencode(name)) if directory is not None else None
        return directory

    def _kept(self, path: str) -> bytes | None:
        above, _, name = path.rpartition("/")
        directory = self._record(path if self._marker.directories else above)
        if directory is None:
            return None
        marks = directory.marks
        mark = next(iter(marks.values()), None) if self._marker.directories else marks.get(os.fsencode(name))
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
            with uncollected():
                self._read()
        return self._book

    def _read(self) -> None:
        entry = self._p.objects.commit(self._commit).root
        name = hexed(self._commit)[:32]
        kept = self._shelf.get(self._marker, name) or self._shelf.latest(self._marker)
        walk, book = Walk(self._p, self._marker), Book(self._marker)
        root = walk.settled(kept.root if kept is not None else None, entry)
        walk.finish()
        book.change("", None, root)
        if walk.looked >= keeping.WORTH:
            self._shelf.put(self._marker, name, Kept(0, 0, root))
        self._book, self._root = book, root


def _within(paths: Iterable[str], below: str) -> Iterable[str]:
    """Those of the paths that are `below` or begin with it."""
    if not below:
        return paths
    start = f"{below}/"
    return (path for path in paths if path == below or path.startswith(start))
