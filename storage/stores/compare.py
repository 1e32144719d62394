"""What differs between two trees, each a commit or a branch's working tree: only what differs is read.

Committed directories are compared by their maps: subtrees with equal roots are skipped unread. A staged directory is a
committed one, its base, with rows laid over it, so two directories can differ under a name only where their bases do
or where a row is staged: a comparison costs the changes and the staged rows, never the size of a dataset.

A directory that only one side has is one difference; what is in it is given by `inside`, for those who want to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from storage.model.digest import Digest
from storage.model.names import Path
from storage.model.records import Attributes, Entry, Kind, Schema, decode_entry
from storage.model.samples import file_header
from storage.stores.staging import STAGED_ID, Row
from storage.tree import read
from storage.tree.diff import Change, Stored, diff
from storage.tree.node import EMPTY, Inner, Load

Same = Callable[[Entry, Entry], bool]
"""Whether two files, links or samples hold the same bytes (contents.same_contents)."""

TYPE, SCHEMA, CONTENT = "type", "schema", "content"
MODE, OWNER, MTIME, XATTRS = "mode", "owner", "mtime", "xattrs"
ATTRIBUTES = frozenset((MODE, OWNER, MTIME, XATTRS))


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged directory: the root it is based on, and its rows in the order of their names."""

    base: Digest
    rows: Sequence[tuple[bytes, Row]]


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree as it stood at one moment: its root, and the staged directories in it by id.

    `branch` is the branch whose working tree it is; empty for a commit. `commit` is the commit, or the branch's tip.
    """

    root: Entry
    commit: Digest | None = None
    branch: str = ""
    staged: Mapping[int, Staged] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs: `old` or `new` is None where it was added or removed.

    `aspects` say in what two versions differ: type (file, sample, link, directory), schema (of datasets), content, and
    the attributes mode, owner, mtime, xattrs. `source` is the old path of what was renamed, in itself or with a directory
    above it. The datasets are the schemas
    of the directories in which the old and the new version stand, None for ordinary ones.
    """

    path: Path
    old: Entry | None
    new: Entry | None
    aspects: tuple[str, ...] = ()
    source: Path | None = None
    old_dataset: Schema | None = None
    new_dataset: Schema | None = None

    @property
    def change(self) -> str:
        """added, removed, renamed or changed."""
        if self.source is not None:
            return "renamed"
        return "added" if self.old is None else "removed" if self.new is None else "changed"

    @property
    def kind(self) -> Kind:
        """What it is, or was: never STAGED, which is a directory like any other."""
        entry = self.new or self.old
        assert entry is not None
        return Kind.DIRECTORY if entry.is_directory else entry.kind

    @property
    def only_attributes(self) -> bool:
        """Whether it is there on both sides, with the same contents."""
        return self.old is not None and self.new is not None and ATTRIBUTES.issuperset(self.aspects)


_NOTHING = Staged(EMPTY, ())
_Pair = tuple[bytes, Entry | None, Entry | None]


class _Place(NamedTuple):
    """A path of the new tree, that of the old one, what stands there, and in datasets of which schemas."""

    path: Path
    source: Path
    old: Entry | None
    new: Entry | None
    old_dataset: Schema | None
    new_dataset: Schema | None


class Comparison:
    """Two trees side by side. Reads nodes through `load`; holds no more than the trees. Thread-safe."""

    def __init__(self, load: Load, same: Same, old: Tree, new: Tree) -> None:
        self._load = load
        self._same = same
        self.old = old
        self.new = new

    def differences(self, path: Path = ()) -> Iterator[Difference]:
        """All that differs at and below `path`, by path; directories only where they come, go, or change themselves.

        The time of a directory is no difference: it changes with the names in it. Where a dataset has another schema, a
        sample of the same stored bytes is no difference of its own. Nothing where neither has the path.
        """
        for difference in self.surface(path):
            yield difference
            yield from self.inside(difference)

    def surface(self, path: Path = ()) -> Iterator[Difference]:
        """The same, but a directory that only one side has is one difference, whatever is in it."""
        old, old_dataset = self.find(self.old, path)
        new, new_dataset = self.find(self.new, path)
        return self._differing(iter([_Place(path, path, old, new, old_dataset, new_dataset)]))

    def within(self, path: Path, source: Path, old: Entry, new: Entry) -> Iterator[Difference]:
        """What differs in a directory that was at `source` in the old tree and is at `path` in the new one, like surface.

        Nothing of the directory itself.
        """
        return self._differing(self._places(path, source, old, new))

    def inside(self, difference: Difference) -> Iterator[Difference]:
        """What is in a directory that only one side has, at any depth; nothing for other differences."""
        todo = [self.members(difference)]  # a list instead of recursion: directories may lie deeper than Python's stack
        while todo:
            below = next(todo[-1], None)
            if below is None:
                todo.pop()
                continue
            yield below
            if below.kind is Kind.DIRECTORY:
                todo.append(self.members(below))

    def members(self, difference: Difference) -> Iterator[Difference]:
        """What stands right in a directory that only one side has."""
        old, new = difference.old, difference.new
        if old is not None and old.is_directory and not (new is not None and new.is_directory):
            before = difference.source or difference.path
            for name, entry, _ in self._names(self._directory(self.old, old), _NOTHING):
                if entry is not None:  # else a name that came and went again before a commit
                    yield Difference((*before, name), entry, None, old_dataset=old.schema)
        elif new is not None and new.is_directory and not (old is not None and old.is_directory):
            for name, _, entry in self._names(_NOTHING, self._directory(self.new, new)):
                if entry is not None:
                    yield Difference((*difference.path, name), None, entry, new_dataset=new.schema)

    def find(self, tree: Tree, path: Path) -> tuple[Entry | None, Schema | None]:
        """The entry at `path` of one of the two trees, None if there is none, and the schema of its directory."""
        entry, dataset = tree.root, None
        for name in path:
            if not entry.is_directory:
                return None, None
            there, dataset = self._directory(tree, entry), entry.schema
            row = next((row for staged, row in there.rows if staged == name), None)
            found = read.get(self._load, there.base, name) if row is None else None
            below = _staged(row) if row is not None else _committed(found)
            if below is None:
                return None, None
            entry = below
        return entry, dataset

    def whole_root(self, tree: Tree, entry: Entry) -> Digest | None:
        """The root of a directory of which nothing is staged: equal roots hold equal contents. None for others."""
        there = self._directory(tree, entry)
        return None if there.rows else there.base

    def base(self, tree: Tree, entry: Entry) -> Digest | None:
        """The root that a directory was made from, if at least half of it still stands; None for empty and new ones."""
        there = self._directory(tree, entry)
        if there.base == EMPTY or 2 * len(there.rows) > read.sums(self._load, there.base).count:
            return None
        return there.base

    def parts(self, root: Digest) -> frozenset[object]:
        """What directories have in common if one was made from the other: the leaves, or the rows of a small one.

        Costs a walk over the inner nodes.
        """
        node = self._load(root)
        if not isinstance(node, Inner):
            return frozenset(node.rows())
        level = [node]
        while level[0].level > 1:
            below = [self._load(digest) for each in level for digest in each.digests]
            level = [each for each in below if isinstance(each, Inner)]
        return frozenset(digest for each in level for digest in each.digests)

    def _directory(self, tree: Tree, entry: Entry) -> Staged:
        if entry.kind is Kind.DIRECTORY:
            return Staged(entry.root, ())
        assert isinstance(entry.value, bytes)
        return tree.staged.get(int(STAGED_ID.unpack(entry.value)[0]), _NOTHING)

    def _differing(self, places: Iterator[_Place]) -> Iterator[Difference]:
        """What differs at these places, and below those that are directories on both sides."""
        todo = [places]  # no recursion: see inside
        while todo:
            place = next(todo[-1], None)
            if place is None:
                todo.pop()
                continue
            path, source, old, new, old_dataset, new_dataset = place
            if old is None or new is None:
                if old is not None or new is not None:
                    yield Difference(path if old is None else source, old, new, (), None, old_dataset, new_dataset)
                continue
            aspects = self.aspects(old, new, old_dataset, new_dataset)
            if aspects:
                before = None if source == path else source
                yield Difference(path, old, new, aspects, before, old_dataset, new_dataset)
            if old.is_directory and new.is_directory:
                todo.append(self._places(path, source, old, new))

    def _places(self, path: Path, source: Path, old: Entry, new: Entry) -> Iterator[_Place]:
        """Where two directories may differ."""
        for name, one, other in self._names(self._directory(self.old, old), self._directory(self.new, new)):
            yield _Place((*path, name), (*source, name), one, other, old.schema, new.schema)

    def _names(self, old: Staged, new: Staged) -> Iterator[_Pair]:
        """The names under which two directories may differ, in order, with what stands there."""
        changes = diff(self._load, old.base, new.base)
        if not old.rows and not new.rows:
            for name, before, after in changes:
                yield name, _committed(before), _committed(after)
            return
        ours, theirs = dict(old.rows), dict(new.rows)
        for name, before, after in self._with_rows(changes, old.base, sorted(ours.keys() | theirs.keys())):
            one, other = ours.get(name), theirs.get(name)
            yield (
                name,
                _committed(before) if one is None else _staged(one),
                _committed(after) if other is None else _staged(other),
            )

    def _with_rows(self, changes: Iterator[Change], base: Digest, names: Iterable[bytes]) -> Iterator[Change]:
        """The changes of the bases, and for each other name what stands under it in both of them, in order."""
        ahead = next(changes, None)
        for name in names:
            while ahead is not None and ahead[0] < name:
                yield ahead
                ahead = next(changes, None)
            if ahead is not None and ahead[0] == name:
                yield ahead
                ahead = next(changes, None)
            else:
                found = read.get(self._load, base, name)
                yield name, found, found
        if ahead is not None:
            yield ahead
            yield from changes

    def aspects(
        self, old: Entry, new: Entry, old_dataset: Schema | None, new_dataset: Schema | None
    ) -> tuple[str, ...]:
        """In what two versions of a path differ."""
        found = _changed_attributes(old, new)
        if old.is_directory and new.is_directory:
            return (SCHEMA, *found) if old.schema != new.schema else found
        if old.kind is not new.kind:
            return (TYPE, *found)
        same = self._same(old, new) and header_of(old, old_dataset) == header_of(new, new_dataset)
        return found if same else (CONTENT, *found)


def _staged(row: Row) -> Entry | None:
    return None if row.kind is Kind.REMOVED else decode_entry(row.head, row.value)


def _committed(stored: Stored | None) -> Entry | None:
    return None if stored is None else decode_entry(*stored)


def header_of(entry: Entry, dataset: Schema | None) -> bytes:
    """The header of a sample's file form: the same payload under another schema is another file."""
    return file_header(dataset, entry.attributes) if entry.kind is Kind.SAMPLE else b""


def _owner(attributes: Attributes) -> tuple[int | None, int | None]:
    return attributes.uid, attributes.gid


def _changed_attributes(old: Entry, new: Entry) -> tuple[str, ...]:
    one, other = old.attributes, new.attributes
    found = []
    if one.mode != other.mode:
        found.append(MODE)
    if _owner(one) != _owner(other):
        found.append(OWNER)
    if old.mtime != new.mtime and not (old.is_directory or new.is_directory):
        found.append(MTIME)
    if one.xattrs != other.xattrs:
        found.append(XATTRS)
    return tuple(found)
