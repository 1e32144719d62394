"""`.arborfs/by/` of every tree: Treants by tag and category, tasks by state, as symbolic links to them.

    by/tag/TAG/PATH                 a link to the directory of each Treant with that tag
    by/category/NAME/VALUE/PATH     the same for a category's value
    by/state/todo/PATH              a link to the file of each task; done/ and aborted/ beside it

PATH is the whole path in one name, tags and values are names, too: see `name_of`. What stands here follows from an index
(storage.labels) that is brought up to date in a thread before a lookup or a listing is answered; a lookup looks for one name,
and a listing takes its names there, too. There are nodes for what the kernel knows and no others.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass

from fusefs.handles import Entries, Listing
from fusefs.layout import LONG, NEVER, Owner, Stat
from fusefs.nodes import Node
from storage.errors import NotFound
from storage.labels import Key, Labels, Scalar
from storage.model.digest import blake
from storage.model.names import MAX_NAME, path_text

TREANT, TASK = "treant", "task"
CATEGORY = "category"
STATES = ("todo", "done", "aborted")
_ABOVE = 2
"""How many directories lie between `by` and the root of its tree, with it."""
_ESCAPED = re.compile(rb"[%/\0]")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_HASHED = b"%~"


def name_of(text: str) -> bytes:
    """A text as a file's name: `%`, `/` and NUL as `%25`, `%2F` and `%00`, `.` and `..` as `%2E` and `%2E%2E`, nothing as `%`.

    What is too long then, or no Unicode, is cut, with `%~` and 32 digits of its digest behind it.
    """
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        return _HASHED + blake(text.encode("utf-8", "surrogatepass")).hex()[:32].encode()
    if data in (b".", b"..", b""):
        return data.replace(b".", b"%2E") or b"%"
    name = _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], data)
    if len(name) > MAX_NAME:
        end = _HASHED + blake(data).hex()[:32].encode()
        return name[: MAX_NAME - len(end)] + end
    return name


def text_of(name: bytes) -> str | None:
    """The text with that name; None where it does not stand in the name, or none has it."""
    data = b"" if name == b"%" else _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), name)
    text = os.fsdecode(data)
    return text if _HASHED not in name and name_of(text) == name else None


def value_text(value: Scalar) -> str:
    """A value as people write it: a text as it is, all else as JSON, whole numbers without a point."""
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


class Here:
    """The tree that a `by` belongs to: `labels` gives those of a sort; what `held` gives is kept while they are read."""

    def __init__(
        self, owner: Owner, when: int, labels: Callable[[str], Labels], held: Callable[[], object] = object
    ) -> None:
        self.owner = owner
        self.when = when
        self._labels = labels
        self._held = held
        self._known: set[str] = set()

    def labels(self, what: str) -> Labels:
        """What is marked as that."""
        return self._labels(what)

    def is_current(self, what: str) -> bool:
        """Whether the labels can be asked at once."""
        return what in self._known and self._labels(what).is_current()

    def look(self, what: str) -> None:
        """Bring the labels up to date. Runs in any thread."""
        held = self._held()
        self._labels(what).look()
        self._known.add(what)
        del held


class ByNode(Node):
    """A node of `by`: found again by its directory as long as the kernel knows it, and never remembered by name."""

    __slots__ = ("here", "name", "parent")

    def __init__(self, here: Here, parent: ByDirectory | None, name: bytes) -> None:
        super().__init__()
        self.here = here
        self.parent = parent
        self.name = name

    def attach(self) -> None:
        """From now on a lookup of the name gives this node."""
        if self.parent is not None:
            self.parent.children[self.name] = self

    def drop(self) -> None:
        """A lookup of the name makes a new node."""
        if self.parent is not None and self.parent.children.get(self.name) is self:
            del self.parent.children[self.name]


class ByDirectory(ByNode):
    """A directory of `by`. What makes its children says what is in it, from what is known of the labels without waiting."""

    __slots__ = ("_contents", "children")

    is_directory = True

    def __init__(self, here: Here, parent: ByDirectory | None, name: bytes, contents: Contents) -> None:
        super().__init__(here, parent, name)
        self.children: dict[bytes, ByNode] = {}
        self._contents = contents

    @property
    def depth(self) -> int:
        """How many directories lead here from the root of the tree."""
        return _ABOVE if self.parent is None else self.parent.depth + 1

    def stat(self) -> Stat:
        """A directory that cannot be changed."""
        owner = self.here.owner
        return Stat(self.ino, stat.S_IFDIR | 0o755, 0, self.here.when, owner.uid, owner.gid, 1, NEVER, NEVER)

    def pending(self) -> Callable[[], object] | None:
        """Looking again, where anything has changed since the last time."""
        what = self._contents.what
        return None if not what or self.here.is_current(what) else lambda: self.here.look(what)

    def child(self, name: bytes) -> Node:
        """A directory of `by`, or a link. NotFound."""
        found = self._contents.find(self, name)
        if found is None:
            raise NotFound(f"there is no {path_text((name,))} here")
        known = self.children.get(name)
        if isinstance(found, str):
            return known if isinstance(known, ByLink) else ByLink(self, name, found)
        return known if isinstance(known, ByDirectory) else ByDirectory(self.here, self, name, found)

    def names(self) -> list[bytes]:
        """The names of what is in it, sorted. Runs in any thread."""
        return sorted(set(self._contents.names(self)))

    def listing(self) -> Listing:
        """A reader of the names."""
        return ByListing(self)


class ByLink(ByNode):
    """A link to what has a label. The same path always has the same name: the link is never another."""

    __slots__ = ("_path",)

    def __init__(self, parent: ByDirectory, name: bytes, path: str) -> None:
        super().__init__(parent.here, parent, name)
        self._path = path

    def stat(self) -> Stat:
        """A link, which may be gone the next time, but stays what it is."""
        owner, size = self.here.owner, len(self.target())
        return Stat(self.ino, stat.S_IFLNK | 0o777, size, self.here.when, owner.uid, owner.gid, 1, NEVER, LONG)

    def target(self) -> bytes:
        """The way to it from the directory that the link is in."""
        assert self.parent is not None
        up = b"../" * self.parent.depth
        return up + os.fsencode(self._path) if self._path else up[:-1]


class ByListing(Listing):
    """Names taken in a thread when a directory is read from the start."""

    def __init__(self, directory: ByDirectory) -> None:
        super().__init__(directory)
        self._directory = directory
        self._names: list[bytes] | None = None

    def pending(self, position: int) -> Callable[[], object] | None:
        """Taking the names."""
        return self._take if position == 0 or self._names is None else None

    def _take(self) -> None:
        job = self._directory.pending()
        if job is not None:
            job()
        self._names = self._directory.names()

    def entries(self, position: int) -> Entries:
        """Name, node and following position; names that went meanwhile are left out."""
        names = self._names or []
        for at in range(position, len(names)):
            try:
                node = self._directory.child(names[at])
            except NotFound:
                continue
            yield names[at], node, at + 1


# What is in them


class Contents:
    """What is in a directory. `what` are the marks that it depends on, empty for none."""

    what: str

    def names(self, directory: ByDirectory) -> Iterable[bytes]:
        """The names, in any order, some perhaps twice."""
        raise NotImplementedError

    def find(self, directory: ByDirectory, name: bytes) -> Contents | str | None:
        """What a name leads to: what is in a directory, the path of something labelled, or nothing."""
        raise NotImplementedError


@dataclass(frozen=True)
class Fixed(Contents):
    """Always the same."""

    inside: Mapping[bytes, Contents]
    what: str = ""

    def names(self, directory: ByDirectory) -> Iterable[bytes]:
        """The names."""
        return self.inside

    def find(self, directory: ByDirectory, name: bytes) -> Contents | None:
        """The directory of that name."""
        return self.inside.get(name)


@dataclass(frozen=True)
class Categories(Contents):
    """A directory for each category."""

    what: str = TREANT

    def names(self, directory: ByDirectory) -> Iterable[bytes]:
        """The names of the categories."""
        return (name_of(key[1]) for key in self._keys(directory))

    def find(self, directory: ByDirectory, name: bytes) -> Contents | None:
        """The values of the category of that name."""
        text = text_of(name)
        if text is None:
            key = next((key for key in self._keys(directory) if name_of(key[1]) == name), None)
        else:
            key = (CATEGORY, text)
        return Values(TREANT, key) if key in directory.here.labels(TREANT).book.labels else None

    def _keys(self, directory: ByDirectory) -> list[Key]:
        return [key for key in list(directory.here.labels(TREANT).book.labels) if key[0] == CATEGORY]


@dataclass(frozen=True)
class Values(Contents):
    """A directory for each value under a key, and for those that are there `always`."""

    what: str
    key: Key
    always: tuple[str, ...] = ()

    def names(self, directory: ByDirectory) -> Iterable[bytes]:
        """The names of the values."""
        values = directory.here.labels(self.what).book.values(self.key)
        return map(name_of, [*self.always, *map(value_text, values)])

    def find(self, directory: ByDirectory, name: bytes) -> Contents | None:
        """What has that value."""
        found = text_of(name) in self.always or _meant(directory.here.labels(self.what), self.key, name)
        return Labelled(self.what, self.key) if found else None


@dataclass(frozen=True)
class Labelled(Contents):
    """A link to each path with a label; the label's value is the directory's name."""

    what: str
    key: Key

    def names(self, directory: ByDirectory) -> Iterable[bytes]:
        """The names of the paths."""
        return (name_of(path) for paths in self._sets(directory) for path in list(paths))

    def find(self, directory: ByDirectory, name: bytes) -> str | None:
        """The path of that name."""
        text = text_of(name)
        for paths in self._sets(directory):
            if text is None:
                found = next((path for path in list(paths) if name_of(path) == name), None)
            else:
                found = text if text in paths else None
            if found is not None:
                return found
        return None

    def _sets(self, directory: ByDirectory) -> Iterator[Set[str]]:
        labels = directory.here.labels(self.what)
        for value in _meant(labels, self.key, directory.name):
            yield labels.book.having(self.key, value)


def _meant(labels: Labels, key: Key, name: bytes) -> list[Scalar]:
    """The values under a key that go by that name, such as 3 and "3"."""
    book, text = labels.book, text_of(name)
    if text is None:
        return [value for value in book.values(key) if name_of(value_text(value)) == name]
    candidates: list[Scalar] = [text]
    with suppress(ValueError, RecursionError):
        parsed = json.loads(text)
        if isinstance(parsed, bool | int | float) and value_text(parsed) == text:
            candidates.append(parsed)
    return [value for value in candidates if book.having(key, value)]


def by_directory(here: Here) -> ByDirectory:
    """`.arborfs/by` of a tree."""
    inside: dict[bytes, Contents] = {
        b"tag": Values(TREANT, ("tag",)),
        b"category": Categories(),
        b"state": Values(TASK, ("state",), STATES),
    }
    return ByDirectory(here, None, b"by", Fixed(inside))
