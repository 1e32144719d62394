"""The categories of a Treant: names with a value each, looked up anew each time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

import msgspec

from storage.errors import NotFound, Unsupported, WrongType
from storage.treants.state import Scalar, State

if TYPE_CHECKING:
    from storage.treants.treant import Treant


class Categories:
    """A Treant's categories: texts to values, which are bool, int, float or str.

    Each change is one atomic step, whoever else changes them at the same time; what is refused changes nothing.
    """

    def __init__(self, treant: Treant) -> None:
        self._treant = treant

    def add(self, categories: Mapping[str, Scalar | None] | Categories | None = None, /, **more: Scalar | None) -> None:
        """Set categories, from a mapping and by name; None removes one that is there (Unsupported, a ValueError, else).

        WrongType (a TypeError) for names that are no texts, and values of other types.
        """
        changes = checked({**dict(categories or {}), **more})
        self._treant.change_state(lambda state: _replaced(state, changes))

    def remove(self, *keys: str) -> None:
        """Remove categories. Those that are not there need not be."""
        self._treant.change_state(lambda state: _without(state, keys))

    def clear(self) -> None:
        """Remove all of them."""
        self._treant.change_state(lambda state: _without(state, tuple(state.categories)))

    @overload
    def __getitem__(self, key: str) -> Scalar: ...

    @overload
    def __getitem__(self, key: list[str]) -> list[Scalar]: ...

    @overload
    def __getitem__(self, key: set[str]) -> dict[str, Scalar]: ...

    def __getitem__(self, key: object) -> Scalar | list[Scalar] | dict[str, Scalar]:
        """The value of one, a list of those of a list of names, a dict of those of a set of names.

        NotFound (a KeyError) where one is not there, WrongType (a TypeError) for anything else.
        """
        values = self._treant.state.categories
        match key:
            case str():
                return _value(values, key)
            case list():
                return [_value(values, name) for name in key]
            case set() | frozenset():
                return {name: _value(values, name) for name in sorted(key)}
        raise WrongType(f"a category is named by a text, or a list or set of texts, not by {type(key).__name__}")

    def __setitem__(self, key: str, value: Scalar | None) -> None:
        """Set one; None removes it."""
        self.add({key: value})

    def __delitem__(self, key: str) -> None:
        """Remove one. NotFound (a KeyError) if it is not there."""

        def without(state: State) -> State:
            """The state without it."""
            _value(state.categories, key)
            return _without(state, (key,))

        self._treant.change_state(without)

    def keys(self) -> list[str]:
        """The names, in the order in which they were added."""
        return list(self._treant.state.categories)

    def values(self) -> list[Scalar]:
        """The values, in that order."""
        return list(self._treant.state.categories.values())

    def items(self) -> list[tuple[str, Scalar]]:
        """Names and values, in that order."""
        return list(self._treant.state.categories.items())

    def __contains__(self, key: object) -> bool:
        """Whether there is one of that name."""
        return key in self._treant.state.categories

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.keys())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._treant.state.categories)

    def __eq__(self, other: object) -> bool:
        """Whether the other, a dict or the categories of a Treant, has the same names and values."""
        if not isinstance(other, dict | Categories):
            return NotImplemented
        return self._treant.state.categories == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # they change

    def __str__(self) -> str:
        """A line for each."""
        return "\n".join(f"{key}: {value}" for key, value in self.items())

    def __repr__(self) -> str:
        """All of them."""
        return f"<Categories({dict(self.items())!r})>"


def checked(categories: Mapping[Any, Any]) -> dict[str, Scalar | None]:
    """Names and values as they are stored. WrongType (a TypeError) naming the first that cannot be."""
    return {_checked_name(name): _checked_value(name, value) for name, value in categories.items()}


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise WrongType(f"the name of a category is a text, not {type(name).__name__} {name!r:.80}")
    return str.__str__(name)


def _checked_value(name: object, value: object) -> Scalar | None:
    # No subclasses, of numpy for one: they would not come back as such.
    if isinstance(value, str):
        return str.__str__(value)
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise WrongType(f"the category {name!r} can be a bool, an int, a float or a str, not {type(value).__name__}")


def _value(values: Mapping[str, Scalar], key: str) -> Scalar:
    if key not in values:
        raise NotFound(f"there is no category {key!r}")
    return values[key]


def _replaced(state: State, changes: Mapping[str, Scalar | None]) -> State:
    for name, value in changes.items():
        if value is None and name not in state.categories:
            raise Unsupported(f"there is no category {name!r}, so None cannot remove it")
    kept = {name: value for name, value in {**state.categories, **changes}.items() if value is not None}
    return msgspec.structs.replace(state, categories=kept)


def _without(state: State, keys: tuple[str, ...]) -> State:
    kept = {name: value for name, value in state.categories.items() if name not in keys}
    return msgspec.structs.replace(state, categories=kept)
