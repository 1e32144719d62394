"""Finding what was renamed among what was removed and added: the same kind and contents under another path.

A directory is renamed as a whole where nothing in it changed: equal roots. One that was renamed and then changed is found
where its parent is on both sides and at least half of it is as it was: it is renamed, and what differs in it is told
besides. Of several candidates for a file or a whole directory the one counts that is alone in having the same name, or
else alone in having the same parent, or else alone; where none is, nothing is told. Empty files and directories are never
taken for renamed: any of them is like any other.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from storage.errors import Corrupt
from storage.model.digest import Digest
from storage.model.names import Path
from storage.model.records import Entry, Kind
from storage.stores.compare import Comparison, Difference, header_of
from storage.tree.node import EMPTY

Identify = Callable[[Entry], Hashable]
"""What is equal for entries that hold the same contents, and for those alone. Corrupt where it cannot be read."""

_Rank = tuple[int, int]
"""Size of a directory, negative, and number of its entries: what both of a pair have in common, least first."""

_STAGED = (-(1 << 64), 0)
"""The rank of a staged directory, which nobody has added up: before all others."""


def with_renames(comparison: Comparison, identify: Identify, path: Path = ()) -> list[Difference]:
    """All differences at and below `path`, by path: added and removed pairs of the same contents as renamed ones.

    Of what is below a renamed directory, only what differs is listed, and read.
    """
    return sorted(_Renames(comparison, identify).found(path), key=lambda difference: difference.path)


class _Renames:
    """The differences of two trees on their way from added and removed ones to renamed ones."""

    def __init__(self, comparison: Comparison, identify: Identify) -> None:
        self._comparison = comparison
        self._identify = identify
        self._gone = _Pool()
        self._come = _Pool()
        self._told: list[Difference] = []

    def found(self, path: Path) -> list[Difference]:
        """All differences, in no order."""
        for difference in self._comparison.surface(path):
            self._take(difference)
        if self._gone.is_empty or self._come.is_empty:
            # Nothing can have been renamed: all is told as it is.
            for difference in (*self._gone.all(), *self._come.all()):
                self._told.append(difference)
                self._told += self._comparison.inside(difference)
            return self._told
        self._match_changed_directories()
        self._match_directories()
        self._match_files()
        return self._told

    def _take(self, difference: Difference) -> None:
        """Take in a difference; what only one side has may yet be matched."""
        if difference.old is None or difference.new is None:
            (self._gone if difference.new is None else self._come).add(difference)
            return
        self._told.append(difference)
        for below in self._comparison.members(difference):
            self._take(below)

    def _open(self, difference: Difference) -> None:
        """Tell of a directory that matches none, so that what is in it is matched in turn."""
        self._told.append(difference)
        for below in self._comparison.members(difference):
            self._take(below)

    def _pair(self, old: Difference, new: Difference) -> None:
        """Tell that the one became the other."""
        assert old.old is not None and new.new is not None
        aspects = self._comparison.aspects(old.old, new.new, old.old_dataset, new.new_dataset)
        self._told.append(Difference(new.path, old.old, new.new, aspects, old.path, old.old_dataset, new.new_dataset))
        if new.new.is_directory:
            for below in self._comparison.within(new.path, old.path, old.old, new.new):
                self._take(below)

    def _match_changed_directories(self) -> None:
        """Match directories that were made from the same one, or else have at least half of their parts in common."""
        removed, added = self._gone.directories, self._come.directories
        pairs = list(_pairs(removed, added, self._base))
        matched = {id(each) for pair in pairs for each in pair}
        left = ([each for each in side if id(each) not in matched] for side in (removed, added))
        pairs += self._similar(*left)
        self._gone.remove({id(old) for old, _ in pairs})
        self._come.remove({id(new) for _, new in pairs})
        for old, new in pairs:
            self._pair(old, new)

    def _base(self, difference: Difference) -> Digest | None:
        comparison = self._comparison
        tree = comparison.old if difference.new is None else comparison.new
        return comparison.base(tree, entry_of(difference))

    def _similar(self, removed: list[Difference], added: list[Difference]) -> Iterator[tuple[Difference, Difference]]:
        """Each added directory with the removed one that it shares most with, if that is half and one alone."""
        holders: dict[object, list[int]] = defaultdict(list)
        sizes = []
        for number, parts in enumerate(map(self._parts, removed if added else ())):
            sizes.append(len(parts))
            for part in parts:
                holders[part].append(number)
        taken: set[int] = set()
        for new in added if removed else ():
            parts = self._parts(new)
            shared = Counter(number for part in parts for number in holders.get(part, ()) if number not in taken)
            (best, common), (_, second) = [*shared.most_common(2), (-1, 0), (-1, 0)][:2]
            if common > second and common * 2 >= max(len(parts), sizes[best]):
                taken.add(best)
                yield removed[best], new

    def _parts(self, difference: Difference) -> frozenset[object]:
        root = self._base(difference)
        return frozenset() if root is None else self._comparison.parts(root)

    def _match_directories(self) -> None:
        """Match directories by their roots; take apart those that match none.

        The largest come first: both of a pair have the same size, so neither has been taken apart when they meet. Of the same
        size, those of few entries come first: a new directory is opened before what was moved into it is given up.
        """
        while ranks := [rank for rank in (self._gone.first, self._come.first) if rank is not None]:
            removed, added = self._gone.take(min(ranks)), self._come.take(min(ranks))
            matched: set[int] = set()
            for old, new in _pairs(removed, added, self._root):
                matched |= {id(old), id(new)}
                self._pair(old, new)
            for difference in (*removed, *added):
                if id(difference) not in matched:
                    self._open(difference)

    def _root(self, difference: Difference) -> Hashable:
        comparison, entry = self._comparison, entry_of(difference)
        root = comparison.whole_root(comparison.old if difference.new is None else comparison.new, entry)
        # Samples of the same bytes are other arrays under another schema.
        return None if root is None or root == EMPTY else (root, entry.schema and entry.schema.hash)

    def _match_files(self) -> None:
        removed, added = self._gone.files, self._come.files
        # Contents are only asked for where the other side has a file of the same kind and length.
        both = {_measure(each) for each in removed} & {_measure(each) for each in added}
        olds, news = ([each for each in side if _measure(each) in both] for side in (removed, added))
        matched: set[int] = set()
        for old, new in _pairs(olds, news, self._contents):
            matched |= {id(old), id(new)}
            self._pair(old, new)
        self._told += [each for each in (*removed, *added) if id(each) not in matched]

    def _contents(self, difference: Difference) -> Hashable:
        entry = entry_of(difference)
        dataset = difference.old_dataset if difference.new is None else difference.new_dataset
        if not entry.size:
            return None
        try:
            return entry.kind, entry.size, header_of(entry, dataset), self._identify(entry)
        except Corrupt:
            return None  # whoever reads it is told


@dataclass(slots=True)
class _Pool:
    """What only one side has: files, and directories with the largest first, of equal ones that of fewer entries."""

    files: list[Difference] = field(default_factory=list)
    _heap: list[tuple[_Rank, int, Difference]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=count)

    def add(self, difference: Difference) -> None:
        """Take in one."""
        entry = entry_of(difference)
        if entry.kind is Kind.DIRECTORY:
            heapq.heappush(self._heap, ((-entry.size, entry.count), next(self._order), difference))
        elif entry.is_directory:
            heapq.heappush(self._heap, (_STAGED, next(self._order), difference))
        else:
            self.files.append(difference)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in here."""
        return not self.files and not self._heap

    def all(self) -> list[Difference]:
        """Everything in here, in no order."""
        return self.files + self.directories

    @property
    def directories(self) -> list[Difference]:
        """The directories, in no order."""
        return [difference for _, _, difference in self._heap]

    @property
    def first(self) -> _Rank | None:
        """The rank of the directory that comes first, None without any."""
        return self._heap[0][0] if self._heap else None

    def take(self, rank: _Rank) -> list[Difference]:
        """The directories of that rank, which nothing comes before; no longer in here."""
        taken = []
        while self.first == rank:
            taken.append(heapq.heappop(self._heap)[2])
        return taken

    def remove(self, found: set[int]) -> None:
        """Take out the directories with these ids."""
        self._heap = [each for each in self._heap if id(each[2]) not in found]
        heapq.heapify(self._heap)


def _measure(difference: Difference) -> tuple[int, int]:
    entry = entry_of(difference)
    return entry.kind, entry.size


def _pairs(
    removed: Iterable[Difference], added: Iterable[Difference], key: Callable[[Difference], Hashable]
) -> Iterator[tuple[Difference, Difference]]:
    """Pairs of equal keys (None: like nothing), as the head of this module says."""
    groups: dict[Hashable, tuple[list[Difference], list[Difference]]] = defaultdict(lambda: ([], []))
    for side, differences in enumerate((removed, added)):
        for difference in differences:
            found = key(difference)
            if found is not None:
                groups[found][side].append(difference)
    for olds, news in groups.values():
        for like in (lambda path: path[-1:], lambda path: path[:-1], lambda path: ()):
            yield from _unique(olds, news, like)


def _unique(
    olds: list[Difference], news: list[Difference], like: Callable[[Path], Path]
) -> Iterator[tuple[Difference, Difference]]:
    """Pairs that are alone in being alike, taken out of both lists."""
    if not olds or not news:
        return
    sides: dict[Path, tuple[list[Difference], list[Difference]]] = defaultdict(lambda: ([], []))
    for side, differences in enumerate((olds, news)):
        for difference in differences:
            sides[like(difference.path)][side].append(difference)
    found = [(one[0], other[0]) for one, other in sides.values() if len(one) == len(other) == 1]
    taken = {id(each) for pair in found for each in pair}
    olds[:] = [each for each in olds if id(each) not in taken]
    news[:] = [each for each in news if id(each) not in taken]
    yield from found


def entry_of(difference: Difference) -> Entry:
    """The version of an entry that only one side has."""
    entry = difference.old or difference.new
    assert entry is not None
    return entry
