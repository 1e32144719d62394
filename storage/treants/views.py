"""Ordered sets of trees and leaves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Self

from storage.errors import WrongType
from storage.treants.leaves import Leaf
from storage.treants.members import Members
from storage.treants.trees import Tree
from storage.treants.veg import Veg


class View(Members[Veg, Veg]):
    """Trees and leaves in the order in which they were given, each path once.

    Made of trees, leaves, paths (a Tree where a directory is or the path ends in a slash, else a Leaf), views, bundles, and
    lists of such. WrongType (a TypeError) for anything else.
    """

    def __init__(self, *members: object) -> None:
        self._items = list(dict.fromkeys(_flat(members)))

    def _member(self, item: Veg) -> Veg:
        return item

    def _text(self, item: Veg) -> str:
        return item.abspath

    def _taken(self, other: object) -> Self | None:
        if isinstance(other, Veg | Members):
            return type(self)(other)
        return None

    def _trees(self) -> Iterable[Tree]:
        return (member for member in self._items if isinstance(member, Tree))

    @property
    def membertrees(self) -> View:
        """The members that are trees."""
        return View._of(list(self._trees()))

    @property
    def memberleaves(self) -> View:
        """The members that are leaves."""
        return View._of([member for member in self._items if isinstance(member, Leaf)])

    def make(self) -> Self:
        """Make all members that are not there. Returns itself."""
        for member in self._items:
            if isinstance(member, Tree | Leaf):
                member.make()
        return self


def _flat(members: Iterable[object]) -> Iterator[Veg]:
    for member in members:
        match member:
            case Tree() | Leaf():
                yield member
            case Veg() | str() | os.PathLike():
                text = os.fspath(member)
                tree = Tree._at(Veg(text)._text, None)
                yield tree if text.endswith("/") or tree.exists else Leaf._at(tree._text, tree._place)
            case Members() | list() | tuple() | set() | frozenset() | Iterator():
                yield from _flat(member)
            case _:
                raise WrongType(
                    f"a View is made of trees, leaves and paths, not of {type(member).__name__} {member!r:.80}"
                )
