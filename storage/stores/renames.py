"""Finding what was renamed among what was removed and added: the same kind and contents under another path.

A directory is renamed as a whole where nothing in it changed: equal roots. Of several candidates the one counts that is
alone in having the same name, or else alone in having the same parent, or else alone; where none is, nothing is told.
Empty files and directories are never taken for renamed: any of them is like any other.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from storage.errors import Corrupt
from storage.model.names import Path
from storage.model.records import Entry, Kind
from storage.stores.compare import Comparison, Difference, header_of
from storage.tree.node import EMPTY

Identify = Callable[[Entry], Hashable]
"""What is equal for entries that hold the same contents, and for those alone. Corrupt where it cannot be read."""

_UNKNOWN = 1 << 64
"""The size of a staged directory, which nobody has added up."""


def with_renames(comparison: Comparison, identify: Identify, path: Path = ()) -> list[Difference]:
    """All differences at and below `path`, by path: added and removed pairs of the same contents as renamed ones.

    What is below a directory that was renamed as a whole is not listed, nor read.
    """
    changed: list[Difference] = []
    gone, come = _Pool(), _Pool()
    for difference in comparison.surface(path):
        if difference.old is not None and difference.new is not None:
            changed.append(difference)
            for below in comparison.members(difference):
                (gone if below.new is None else come).add(below)
        else:
            (gone if difference.new is None else come).add(difference)
    changed += _directories(comparison, gone, come)
    changed += _files(comparison, identify, gone.files, come.files)
    return sorted(changed, key=lambda difference: difference.path)


@dataclass(slots=True)
class _Pool:
    """What only one side has: files, and directories with the largest first."""

    files: list[Difference] = field(default_factory=list)
    directories: list[tuple[int, int, Difference]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=count)

    def add(self, difference: Difference) -> None:
        """Take in one."""
        entry = _entry(difference)
        if not entry.is_directory:
            self.files.append(difference)
        else:
            size = entry.size if entry.kind is Kind.DIRECTORY else _UNKNOWN
            heapq.heappush(self.directories, (-size, next(self._order), difference))

    @property
    def largest(self) -> int:
        """The size of the largest directory, -1 without any."""
        return -self.directories[0][0] if self.directories else -1

    def take(self, size: int) -> list[Difference]:
        """The directories of that size, no longer in here."""
        taken = []
        while self.largest == size:
            taken.append(heapq.heappop(self.directories)[2])
        return taken


def _directories(comparison: Comparison, gone: _Pool, come: _Pool) -> Iterator[Difference]:
    """Match directories by their roots; take apart those that match none, so that what is in them is matched in turn.

    The largest come first: both of a pair have the same size, so neither has been taken apart when they meet.
    """
    while (size := max(gone.largest, come.largest)) >= 0:
        removed, added = gone.take(size), come.take(size)
        matched: set[int] = set()
        for old, new in _pairs(removed, added, lambda each: _root(comparison, each)):
            matched |= {id(old), id(new)}
            yield _renamed(comparison, old, new)
        for pool, side in ((gone, removed), (come, added)):
            for difference in side:
                if id(difference) not in matched:
                    yield difference
                    for below in comparison.members(difference):
                        pool.add(below)


def _root(comparison: Comparison, difference: Difference) -> Hashable:
    tree = comparison.old if difference.new is None else comparison.new
    entry = _entry(difference)
    root = comparison.whole_root(tree, entry)
    # Samples of the same bytes are other arrays under another schema.
    return None if root is None or root == EMPTY else (root, entry.schema and entry.schema.hash)


def _files(
    comparison: Comparison, identify: Identify, removed: Sequence[Difference], added: Sequence[Difference]
) -> Iterator[Difference]:
    # Contents are only asked for where the other side has a file of the same kind and length.
    both = {_measure(each) for each in removed} & {_measure(each) for each in added}
    matched: set[int] = set()
    olds, news = ([each for each in side if _measure(each) in both] for side in (removed, added))
    for old, new in _pairs(olds, news, lambda each: _contents(identify, each)):
        matched |= {id(old), id(new)}
        yield _renamed(comparison, old, new)
    yield from (each for each in (*removed, *added) if id(each) not in matched)


def _measure(difference: Difference) -> tuple[int, int]:
    entry = _entry(difference)
    return entry.kind, entry.size


def _contents(identify: Identify, difference: Difference) -> Hashable:
    entry = _entry(difference)
    dataset = difference.old_dataset if difference.new is None else difference.new_dataset
    if not entry.size:
        return None
    try:
        return entry.kind, entry.size, header_of(entry, dataset), identify(entry)
    except Corrupt:
        return None  # whoever reads it is told


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


def _renamed(comparison: Comparison, old: Difference, new: Difference) -> Difference:
    assert old.old is not None and new.new is not None
    aspects = comparison.aspects(old.old, new.new, old.old_dataset, new.new_dataset)
    return Difference(new.path, old.old, new.new, aspects, old.path, old.old_dataset, new.new_dataset)


def _entry(difference: Difference) -> Entry:
    entry = difference.old or difference.new
    assert entry is not None
    return entry
