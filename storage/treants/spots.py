"""Where the members of a bundle are: by the hundred thousand, without an object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Self, overload

from storage.places import Place
from storage.treants.grammar import Chosen

Spot = tuple[Place, str]
"""A place in a tree, and the path of something in the same tree, at that place or below it."""


class Spots(Sequence[Spot]):
    """Spots in order, kept as stretches: a place, and the paths of those that follow each other at it. It never changes."""

    def __init__(self, stretches: Iterable[tuple[Place, Sequence[str]]]) -> None:
        self.stretches = [(place, paths) for place, paths in stretches if paths]

    @classmethod
    def of(cls, spots: Iterable[Spot]) -> Self:
        """Those spots, once seen from the tops of their trees wherever these have a path: then few places stand for many."""
        tops: dict[tuple[str, int, str | None, str], Place] = {}
        stretches: list[tuple[Place, list[str]]] = []
        for place, path in spots:
            top = _top(place, tops)
            if not stretches or stretches[-1][0] is not top:
                stretches.append((top, []))
            stretches[-1][1].append(path)
        return cls(stretches)

    def __len__(self) -> int:
        """How many there are."""
        return sum(len(paths) for _, paths in self.stretches)

    def __iter__(self) -> Iterator[Spot]:
        """All of them in order."""
        return ((place, path) for place, paths in self.stretches for path in paths)

    @overload
    def __getitem__(self, at: int) -> Spot: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Spot]: ...

    def __getitem__(self, at: int | slice) -> Spot | Sequence[Spot]:
        """One, or those of a slice. IndexError."""
        if isinstance(at, slice):
            return (
                list(self)[at]
                if len(self.stretches) != 1
                else Spots([(self.stretches[0][0], self.stretches[0][1][at])])
            )
        left = at if at >= 0 else at + len(self)
        for place, paths in self.stretches:
            if 0 <= left < len(paths):
                return place, paths[left]
            left -= len(paths)
        raise IndexError(f"there is no member {at}: there are {len(self)}")

    def compressed(self, wanted: Sequence[Any]) -> Spots:
        """Those for which `wanted`, of the same length, is true."""
        found, at = [], 0
        for place, paths in self.stretches:
            found.append((place, list(compress(paths, wanted[at : at + len(paths)]))))
            at += len(paths)
        return Spots(found)

    def among(self, chosen: Mapping[Place, Chosen[str]]) -> Spots:
        """Those whose paths are chosen at their places."""
        return Spots((place, list(chosen[place].among(paths))) for place, paths in self.stretches)

    def flags(self, chosen: Mapping[Place, Chosen[str]]) -> list[bool]:
        """Of each whether its path is chosen at its place."""
        return [found for place, paths in self.stretches for found in chosen[place].flags(paths)]


def text_of(spot: Spot) -> str:
    """The absolute path of a spot."""
    place, path = spot
    below = path[len(place.path) :].lstrip("/")
    return f"{place.given}/{below}" if below else str(place.given)


def _top(place: Place, known: dict[tuple[str, int, str | None, str], Place]) -> Place:
    """The top of the tree that a place is in, the same object for the same one; the place itself where no path leads there."""
    text, files = str(place.given), place.files
    if place.path:
        if not text.endswith(f"/{place.path}"):
            return place
        text = text[: -len(place.path) - 1]
    key = text, id(place.repository), files.branch, "" if files.branch is not None else files.commit_hash
    found = known.get(key)
    if found is None:
        found = known[key] = Place(Path(text), "", files, place.repository) if place.path else place
    return found
