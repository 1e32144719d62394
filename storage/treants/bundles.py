"""Ordered sets of Treants, which a bundle knows by their places: a Treant is made when it is asked for."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from storage.errors import ArborError, NotARepository, NotATreant, NotFound, WrongType
from storage.places import Place
from storage.treants.aggregates import AggCategories, AggTags
from storage.treants.grammar import Chosen, choice
from storage.treants.members import Members
from storage.treants.notebook import bundle_html
from storage.treants.spots import Spot, Spots, text_of
from storage.treants.state import GROUP, STATE_NAME, Scalar, State
from storage.treants.trees import Tree
from storage.treants.veg import Veg

if TYPE_CHECKING:
    from storage.labels import Key, Labels
    from storage.treants.treant import Treant

T = TypeVar("T")


class Bundle(Members["Treant", Spot]):
    """Treants in the order in which they were given, each path once.

    Made of Treants, paths of Treants, trees, bundles, views, and lists of such. NotATreant (an OSError) for a path where none
    is, WrongType (a TypeError) for anything else. Tags and categories of many are looked up in the repository's index of them.
    """

    _items: Spots

    def __init__(self, *treants: object) -> None:
        spots: dict[str, Spot] = {}
        for spot in _flat(treants):
            spots.setdefault(text_of(spot), spot)
        self._items = Spots.of(spots.values())

    @classmethod
    def _of(cls, items: Sequence[Spot]) -> Self:
        made = cls.__new__(cls)
        made._items = items if isinstance(items, Spots) else Spots.of(items)
        return made

    def _member(self, item: Spot) -> Treant:
        place, path = item
        text, state = text_of(item), _state(place, path)
        return _kind(state.kind).known(text, Place(Path(text), path, place.files, place.repository), state.file_name)

    def _compressed(self, wanted: Sequence[bool]) -> Self:
        return self._of(self._items.compressed(wanted))

    def _told(self, item: Spot) -> str:
        try:
            return repr(self._member(item))
        except (ArborError, OSError):
            return f"<no Treant: {text_of(item)!r}>"

    @property
    def exists(self) -> list[bool]:
        """Of each member whether its directory is there."""
        return [place.files.is_directory(path) for place, path in self._items]

    def _text(self, item: Spot) -> str:
        return text_of(item).rstrip("/") + "/"

    def _taken(self, other: object) -> Self | None:
        from storage.treants.treant import Treant

        return type(self)(other) if isinstance(other, Treant | Bundle) else None

    def _trees(self) -> Iterable[Tree]:
        return self

    # Labels

    @property
    def tags(self) -> AggTags:
        """The tags of all members."""
        return AggTags(self)

    @tags.setter
    def tags(self, tags: Any) -> None:
        """Give every member those tags, and no others."""
        for member in self:
            member.tags = tags

    @property
    def categories(self) -> AggCategories:
        """The categories of all members."""
        return AggCategories(self)

    @categories.setter
    def categories(self, categories: Any) -> None:
        """Give every member those categories, and no others."""
        for member in self:
            member.categories = categories

    @property
    def uuids(self) -> list[str]:
        """The uuid of each member."""
        return [state.uuid for state in self._states()]

    def get(self, *tags: object, **categories: Scalar) -> Bundle:
        """The members that are chosen by all of these tags (each a text, list, tuple or set as in `tags[…]`) and have these
        values of categories.
        """
        found = self._filtered(list(tags))
        for name, value in categories.items():
            key = ("category", name)
            chosen = found._by_place(lambda labels, _, key=key, value=value: Chosen(labels.having(key, value)))  # type: ignore[misc]
            found = Bundle._of(found._items.among(chosen))
        return found

    def _having(self, expression: object) -> list[bool]:
        """Of each member whether its tags are chosen."""
        return self._items.flags(self._chosen(expression))

    def _filtered(self, expression: object) -> Bundle:
        """The members whose tags are chosen."""
        return Bundle._of(self._items.among(self._chosen(expression)))

    def _chosen(self, expression: object) -> Mapping[Place, Chosen[str]]:
        """The paths whose tags are chosen, for each place; also of those that are no members."""
        wanted = choice(expression)
        return self._by_place(lambda labels, _: wanted.chosen(lambda tag: labels.having(("tag",), tag)))

    def _values(self, name: str) -> Mapping[Place, Iterator[Scalar | None]]:
        """The value of a category of each member, None where it has none: of those at one place one after the other."""
        return self._by_place(lambda labels, paths: _column(labels, ("category", name), paths))

    def _by_place(self, find: Callable[[Labels, Iterable[str]], T]) -> Mapping[Place, T]:
        """What is found once for each place, by the labels of its tree and the paths of the members there, in order."""
        members: dict[Place, list[Sequence[str]]] = {}
        for place, paths in self._items.stretches:
            members.setdefault(place, []).append(paths)
        return {place: find(place.files.labels(), chain.from_iterable(some)) for place, some in members.items()}

    def _states(self) -> list[State]:
        """What each member's state file says. NotATreant where one is no more."""
        return [_state(place, path) for place, path in self._items]

    def _repr_html_(self) -> str:
        return bundle_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """By paths: another process looks there itself."""
        return type(self), tuple(self.abspaths)


def _kind(kind: str) -> type[Treant]:
    """The class of a Treant of that kind, which has bundles itself."""
    if kind == GROUP:
        from storage.treants.group import Group

        return Group
    from storage.treants.treant import Treant

    return Treant


def _state(place: Place, path: str) -> State:
    """What the state file of the Treant at a path in a tree says."""
    try:
        state = place.files.labels().state(path)
    except NotFound:
        raise NotATreant(f"{text_of((place, path))} is no Treant") from None
    assert isinstance(state, State)
    return state


def _column(labels: Labels, key: Key, paths: Iterable[str]) -> Iterator[Scalar | None]:
    """The value that each path has under a key, None where it has none; then those of others."""
    # A dict keeps the order of what was in it first, and others come after them: no look-up for each of 100,000 paths.
    found: dict[str, Scalar | None] = dict.fromkeys(paths)
    for value in labels.values(key):
        found |= dict.fromkeys(labels.having(key, value), value)
    return iter(found.values())


def _flat(treants: Iterable[object]) -> Iterator[Spot]:
    for treant in treants:
        match treant:
            case Bundle():
                yield from treant._items
            case Veg() | str() | os.PathLike():
                yield _spot(treant)
            case Members() | list() | tuple() | set() | frozenset() | Iterator():
                yield from _flat(treant)
            case _:
                raise WrongType(f"a Bundle is made of Treants and paths, not of {type(treant).__name__} {treant!r:.80}")


def _spot(path: str | os.PathLike[str]) -> Spot:
    """Where a Treant is, named by its directory or its state file."""
    tree = path if isinstance(path, Tree) else Tree._at(Veg(path)._text, None)
    if STATE_NAME.fullmatch(tree.name):
        tree = tree.parent
    if not tree.exists:
        raise NotATreant(f"{tree.abspath} is no Treant: no directory is there")
    try:
        place = tree.place
    except (NotARepository, NotFound):
        raise NotATreant(f"{tree.abspath} is no Treant: it is in no repository") from None
    _state(place, place.path)
    return place, place.path


def grouped(bundle: Bundle, names: Sequence[str]) -> dict[tuple[Scalar, ...], Bundle]:
    """The members by their values of several categories, each group in the bundle's order; without those that lack one."""
    columns = [bundle._values(name) for name in names]
    rows = {place: zip(*(column[place] for column in columns), strict=False) for place, _ in bundle._items.stretches}
    groups: dict[tuple[Scalar, ...], list[tuple[Place, list[str]]]] = {}
    for place, paths in bundle._items.stretches:
        here: defaultdict[tuple[Scalar | None, ...], list[str]] = defaultdict(list)
        for path, key in zip(paths, rows[place], strict=False):  # the rows go on with the next stretch at that place
            here[key].append(path)
        for key, some in here.items():
            if None not in key:
                groups.setdefault(key, []).append((place, some))  # type: ignore[arg-type]
    return {group: Bundle._of(Spots(stretches)) for group, stretches in groups.items()}
