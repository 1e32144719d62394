"""The tags of a Treant: a set of texts that is looked up anew each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from storage.errors import NotInstalled, Unsupported
from storage.treants.grammar import TagAlgebra, is_chosen
from storage.treants.state import State

if TYPE_CHECKING:
    from storage.treants.treant import Treant


class Tags(TagAlgebra):
    """A Treant's tags, sorted. Each change is one atomic step, whoever else changes them at the same time."""

    def __init__(self, treant: Treant) -> None:
        self._treant = treant

    def add(self, *tags: object) -> None:
        """Add tags: texts, or lists, tuples and sets of them. Unsupported (a ValueError) for anything else; then none is
        added.
        """
        fresh = set(flat_tags(tags))
        self._treant.change_state(lambda state: _with(state, {*state.tags, *fresh}))

    def remove(self, *tags: object, all: bool = False) -> None:
        """Remove tags, or `all` of them. Those that are not there need not be."""
        gone = set(flat_tags(tags))
        self._treant.change_state(lambda state: _with(state, () if all else {*state.tags} - gone))

    def clear(self) -> None:
        """Remove all of them."""
        self.remove(all=True)

    def fuzzy(self, tag: str | Iterable[str], threshold: float = 80) -> tuple[str, ...]:
        """Those that are nearly that tag, or one of those: as like as `threshold` says, from 0 to 100. The likest first."""
        return nearly(list(self), tag, threshold)

    def __getitem__(self, expression: object) -> bool:
        """Whether the Treant is chosen by a text, a list (all of it), a tuple (any of it) or a set (not all of it); see
        `storage.treants.grammar`. Unsupported (a ValueError) for anything else.
        """
        return is_chosen(expression, set(self))

    def __contains__(self, tag: object) -> bool:
        """Whether that is one of the tags."""
        return tag in self._treant.state.tags

    def __iter__(self) -> Iterator[str]:
        """The tags in order."""
        return iter(self._treant.state.tags)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._treant.state.tags)

    def __str__(self) -> str:
        """A line for each."""
        return "\n".join(self)

    def __repr__(self) -> str:
        """All of them."""
        return f"<Tags({list(self)!r})>"


def _with(state: State, tags: Iterable[str]) -> State:
    return msgspec.structs.replace(state, tags=tuple(sorted(tags)))


def flat_tags(tags: object) -> Iterator[str]:
    """The texts in nested lists, tuples and sets. Unsupported (a ValueError) for anything else."""
    match tags:
        case str():
            yield str.__str__(tags)  # the text itself of a subclass
        case list() | tuple() | set() | frozenset() | TagAlgebra():
            for tag in tags:
                yield from flat_tags(tag)
        case _:
            raise Unsupported(f"tags are texts, or lists, tuples and sets of texts, not {type(tags).__name__}")


def nearly(tags: Iterable[str], wanted: str | Iterable[str], threshold: float) -> tuple[str, ...]:
    """Those of `tags` that are like one of the wanted ones, the likest first: the share, in per cent, of what is the same."""
    try:
        from rapidfuzz import fuzz
    except ImportError as error:
        raise NotInstalled("searches for what is nearly the same", "treants") from error
    words = [wanted] if isinstance(wanted, str) else list(flat_tags(list(wanted)))
    likeness = {tag: max((fuzz.ratio(tag, word) for word in words), default=0.0) for tag in tags}
    return tuple(sorted((tag for tag in likeness if likeness[tag] >= threshold), key=lambda tag: (-likeness[tag], tag)))
