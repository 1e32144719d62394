"""Ordered sets of what has a path: what a View and a Bundle have in common."""

from __future__ import annotations

import operator
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import compress
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import numpy as np

from storage.errors import NotFound, Unsupported, WrongType
from storage.treants.data_of_many import AggData
from storage.treants.leaves import Leaf
from storage.treants.mapping import mapped
from storage.treants.trees import Limbs, Tree
from storage.treants.veg import Veg

if TYPE_CHECKING:
    from storage.treants.views import View

M = TypeVar("M", bound=Veg)
I = TypeVar("I")  # noqa: E741  # an item: what is kept of a member

SHOWN = 20
"""So many members are named at the prompt."""


class Members(Generic[M, I]):
    """Members in the order in which they were added, each path once. It never changes: what chooses or adds makes another."""

    _items: Sequence[I]

    @classmethod
    def _of(cls, items: Sequence[I]) -> Self:
        """Made of items that are there once each."""
        made = cls.__new__(cls)
        made._items = items
        return made

    @abstractmethod
    def _member(self, item: I) -> M:
        """The member that an item stands for."""

    @abstractmethod
    def _text(self, item: I) -> str:
        """The absolute path of an item."""

    @abstractmethod
    def _taken(self, other: object) -> Self | None:
        """Whatever can be added, as one of this class; None for anything else."""

    @abstractmethod
    def _trees(self) -> Iterable[Tree]:
        """Those of the members that are directories."""

    # A sequence

    def __len__(self) -> int:
        """How many members there are."""
        return len(self._items)

    def __iter__(self) -> Iterator[M]:
        """The members in order."""
        return map(self._member, self._items)

    def __contains__(self, member: object) -> bool:
        """Whether something of that path is a member."""
        return isinstance(member, Veg) and member.abspath in set(self.abspaths)

    @overload
    def __getitem__(self, key: int) -> M: ...

    @overload
    def __getitem__(self, key: slice | str | Sequence[int] | Sequence[bool] | np.ndarray) -> Self: ...

    def __getitem__(self, key: Any) -> M | Self:
        """The member at a position; those of a slice, of a list or array of positions or of bools (as many as there are
        members), or of a name.

        NotFound (a KeyError) where nobody has that name, IndexError, Unsupported (a ValueError) for a wrong number of bools,
        WrongType (a TypeError).
        """
        if isinstance(key, slice):
            return self._of(self._items[key])
        if isinstance(key, str):
            return self._named(key)
        if isinstance(key, list | tuple | np.ndarray):
            return self._picked(list(key))
        return self._member(self._items[_position(key)])

    def _picked(self, keys: list[Any]) -> Self:
        """By positions, or by as many bools."""
        if keys and {bool, np.bool_}.issuperset(map(type, keys)):
            if len(keys) != len(self._items):
                raise Unsupported(f"{len(keys)} bools for {len(self._items)} members: one for each is needed")
            return self._compressed(keys)
        places = range(len(self._items))
        return self._of([self._items[at] for at in dict.fromkeys(places[_position(key)] for key in keys)])

    def _compressed(self, wanted: Sequence[bool]) -> Self:
        return self._of(list(compress(self._items, wanted)))

    def _named(self, name: str) -> Self:
        found = [item for item, known in zip(self._items, self.names, strict=True) if known == name]
        if not found:
            raise NotFound(f"no member is named {name!r}")
        return self._of(found)

    # A set

    def _combined(self, other: object, keep: Callable[[Self], Iterable[I]]) -> Self:
        taken = self._taken(other)
        if taken is None:
            return NotImplemented  # type: ignore[no-any-return]  # as Python wants it
        kept: dict[str, I] = {}
        for item in keep(taken):
            kept.setdefault(self._text(item), item)
        return self._of(list(kept.values()))

    def __or__(self, other: object) -> Self:
        """The members, then the other's that are not among them."""
        return self._combined(other, lambda taken: (*self._items, *taken._items))

    __add__ = __or__

    def __and__(self, other: object) -> Self:
        """The members that are the other's, too."""
        return self._combined(other, lambda taken: self._split(taken, inside=True))

    def __sub__(self, other: object) -> Self:
        """The members that are not the other's."""
        return self._combined(other, lambda taken: self._split(taken, inside=False))

    def __xor__(self, other: object) -> Self:
        """The members that are not the other's, then the other's that are not among them."""
        return self._combined(
            other, lambda taken: (*self._split(taken, inside=False), *taken._split(self, inside=False))
        )

    def _split(self, other: Self, *, inside: bool) -> list[I]:
        known = set(other.abspaths)
        return [item for item in self._items if (self._text(item) in known) is inside]

    def __eq__(self, other: object) -> bool:
        """Whether both have the same members, in any order."""
        return set(self.abspaths) == set(other.abspaths) if isinstance(other, Members) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as it is with sets

    # Of all members

    @property
    def abspaths(self) -> list[str]:
        """The absolute path of each member; those of directories end in a slash."""
        return list(map(self._text, self._items))

    @property
    def relpaths(self) -> list[str]:
        """The path of each member as seen from the current directory; those of directories end in a slash."""
        return [os.path.relpath(text) + "/" * text.endswith("/") for text in self.abspaths]

    @property
    def names(self) -> list[str]:
        """The name of each member."""
        return [text.rstrip("/").rpartition("/")[2] for text in self.abspaths]

    @property
    def exists(self) -> list[bool]:
        """Of each member whether it is there."""
        return [member.exists for member in self]

    def map(self, function: Callable[..., Any], processes: int = 1, **kwargs: Any) -> list[Any] | None:
        """What `function(member, **kwargs)` returns for each member, in their order; None where it returns None for all.

        With more `processes` than one, so many are started and share the work: the function must be one that they can
        import, not a lambda, and members go there by path. The first error, of a member or of a process (WorkerDied), ends it
        and is raised here.
        """
        results = mapped(function, list(self), processes, kwargs)
        return None if all(result is None for result in results) else results

    def globfilter(self, pattern: str) -> Self:
        """The members whose names fit a pattern of `*`, `?` and `[…]`."""
        return self[[fnmatchcase(name, pattern) for name in self.names]]

    # Below the members

    def leaves(self, hidden: bool = False) -> View:
        """The files in all members that are directories. TreeNotFound (an OSError) where one is not there."""
        return self._views(tree.leaves(hidden) for tree in self._trees())

    def trees(self, hidden: bool = False) -> View:
        """The directories in all members that are directories. TreeNotFound (an OSError) where one is not there."""
        return self._views(tree.trees(hidden) for tree in self._trees())

    def children(self, hidden: bool = False) -> View:
        """What is in all members that are directories. TreeNotFound (an OSError) where one is not there."""
        return self._views(tree.children(hidden) for tree in self._trees())

    def glob(self, pattern: str) -> View:
        """What is below the members and fits a pattern, as `Tree.glob` has it."""
        return self._views(tree.glob(pattern) for tree in self._trees())

    def parents(self) -> View:
        """The directories that the members are in."""
        return self._views(member.parent for member in self)

    def draw(self, depth: int | None = None, hidden: bool = False) -> None:
        """Print each member that is a directory as a tree, as `Tree.draw` does."""
        for tree in self._trees():
            tree.draw(depth, hidden)

    @property
    def loc(self) -> LimbsOfAll:
        """What is at a path below each member that is a directory: `view.loc["a"]` is a View."""
        return LimbsOfAll([tree.loc for tree in self._trees()])

    @property
    def treeloc(self) -> LimbsOfAll:
        """The trees at a path below each member that is a directory."""
        return LimbsOfAll([tree.treeloc for tree in self._trees()])

    @property
    def leafloc(self) -> LimbsOfAll:
        """The leaves at a path below each member that is a directory."""
        return LimbsOfAll([tree.leafloc for tree in self._trees()])

    @property
    def data(self) -> AggData:
        """The data of all members that are directories."""
        return AggData(self)

    @staticmethod
    def _views(members: Iterable[object]) -> View:
        from storage.treants.views import View  # a View has members

        return View(*members)

    def __repr__(self) -> str:
        """The members, the first of many."""
        shown = [self._told(item) for item in self._items[:SHOWN]]
        more = len(self) - len(shown)
        return f"<{type(self).__name__}([{', '.join(shown)}{f', … {more:,} more' if more else ''}])>"

    __str__ = __repr__

    def _told(self, item: I) -> str:
        return repr(self._member(item))


class LimbsOfAll:
    """What is at a path, or at several, below each of many trees."""

    def __init__(self, limbs: Sequence[Limbs[Tree] | Limbs[Leaf] | Limbs[Tree | Leaf]]) -> None:
        self._limbs = limbs

    def __getitem__(self, path: str | os.PathLike[str] | list[str] | tuple[str, ...]) -> View:
        """A View of what is there below each, there or not."""
        return Members._views(limbs[path] for limbs in self._limbs)


def _position(key: object) -> int:
    try:
        return operator.index(key)  # type: ignore[arg-type]
    except TypeError:
        raise WrongType(f"members are chosen by position, slice, bools or name, not by {key!r:.80}") from None
