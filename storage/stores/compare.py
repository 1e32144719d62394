"""What differs between two committed trees: only subtrees with different roots are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from storage.model.digest import Digest
from storage.model.names import Path
from storage.model.records import Entry, Kind, decode_entry
from storage.tree.diff import diff
from storage.tree.node import EMPTY, Inner, Leaf

Load = Callable[[Digest], Leaf | Inner]


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs: `old` or `new` is None where it was added or removed."""

    path: Path
    old: Entry | None
    new: Entry | None

    @property
    def change(self) -> str:
        """added, removed or changed."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"


def differences(load: Load, old: Digest, new: Digest, path: Path = ()) -> Iterator[Difference]:
    """Files, samples and links that differ, by path; directories only where they come, go, or change themselves."""
    for name, before, after in diff(load, old, new):
        one = None if before is None else decode_entry(*before)
        other = None if after is None else decode_entry(*after)
        here = (*path, name)
        one_root, other_root = _root(one), _root(other)
        both = one_root is not None and other_root is not None
        if not both or _facts(one) != _facts(other):
            yield Difference(here, one, other)
        if one_root is not None or other_root is not None:
            yield from differences(load, one_root or EMPTY, other_root or EMPTY, here)


def _root(entry: Entry | None) -> Digest | None:
    return entry.root if entry is not None and entry.kind is Kind.DIRECTORY else None


def _facts(entry: Entry | None) -> object:
    return None if entry is None else entry.attributes
