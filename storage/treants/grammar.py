"""How tags are chosen, and the algebra of sets of tags. Pure.

A choice is written as a text or built of Python's own values, nested as deep as one likes:

* a text is a tag, or words joined by `and`, `or`, `not` and parentheses: `"elm and (old or not tall)"`. `not` binds most, `or`
  least. A tag that would be read otherwise stands in quotes. A text that is no such sentence is a tag as it stands;
* a list is chosen by what fulfils all of it, a tuple by what fulfils at least one part of it;
* a set is chosen by what does not fulfil all of it: `{"elm"}` is everything but elms.
"""

from __future__ import annotations

import operator
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import filterfalse
from typing import Any, Generic, TypeVar

from storage.errors import Unsupported

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chosen(Generic[T]):
    """Some, or (`others`) everyone but them: so that nobody has to know who everyone is."""

    some: Set[T]
    others: bool = False

    def among(self, candidates: Iterable[T]) -> Iterator[T]:
        """The candidates that are chosen."""
        return (
            filterfalse(self.some.__contains__, candidates)
            if self.others
            else filter(self.some.__contains__, candidates)
        )

    def flags(self, candidates: Iterable[T]) -> Iterator[bool]:
        """Of each candidate whether it is chosen."""
        found = map(self.some.__contains__, candidates)
        return map(operator.not_, found) if self.others else found

    def __invert__(self) -> Chosen[T]:
        """Everyone else."""
        return Chosen(self.some, not self.others)

    def __and__(self, other: Chosen[T]) -> Chosen[T]:
        """Who is chosen by both."""
        if self.others and other.others:
            return Chosen(self.some | other.some, True)
        if self.others:
            return Chosen(other.some - self.some)
        return Chosen(self.some - other.some if other.others else self.some & other.some)


@dataclass(frozen=True, slots=True)
class Tagged:
    """What carries one tag."""

    tag: str

    def chosen(self, having: Callable[[str], Set[T]]) -> Chosen[T]:
        """Who is chosen, where `having` tells who carries a tag."""
        return Chosen(having(self.tag))


@dataclass(frozen=True, slots=True)
class All:
    """What fulfils all parts: everything where there are none."""

    parts: tuple[Choice, ...]

    def chosen(self, having: Callable[[str], Set[T]]) -> Chosen[T]:
        """Who is chosen, where `having` tells who carries a tag."""
        everyone: Chosen[T] = Chosen(frozenset(), True)
        return reduce(operator.and_, (part.chosen(having) for part in self.parts), everyone)


@dataclass(frozen=True, slots=True)
class Either:
    """What fulfils a part: nothing where there are none."""

    parts: tuple[Choice, ...]

    def chosen(self, having: Callable[[str], Set[T]]) -> Chosen[T]:
        """Who is chosen, where `having` tells who carries a tag."""
        return ~All(tuple(Without(part) for part in self.parts)).chosen(having)


@dataclass(frozen=True, slots=True)
class Without:
    """What does not fulfil a part."""

    part: Choice

    def chosen(self, having: Callable[[str], Set[T]]) -> Chosen[T]:
        """Who is chosen, where `having` tells who carries a tag."""
        return ~self.part.chosen(having)


Choice = Tagged | All | Either | Without


def choice(expression: object) -> Choice:
    """A choice as a value. Unsupported (a ValueError) for anything but texts, lists, tuples and sets of such."""
    match expression:
        case str():
            return _read(expression)
        case list():
            return All(tuple(map(choice, expression)))
        case tuple():
            return Either(tuple(map(choice, expression)))
        case set() | frozenset():
            return Without(All(tuple(map(choice, expression))))
    raise Unsupported(
        f"tags are chosen by a text, a list (all of it), a tuple (any of it) or a set (not all of it), "
        f"not by {type(expression).__name__} {expression!r:.80}"
    )


def is_chosen(expression: object, tags: Set[str]) -> bool:
    """Whether something with these tags is chosen. Unsupported (a ValueError) as for `choice`."""
    return next(choice(expression).chosen(lambda tag: {tag in tags}).flags((True,)))


# Texts

_TOKEN = re.compile(r"""\s*(?:([()])|"([^"]*)"|'([^']*)'|([^\s()"'][^\s()]*))""")
_WORDS = ("and", "or", "not")


class _NoSentence(Exception):
    """The text is a tag as it stands."""


@lru_cache(256)
def _read(text: str) -> Choice:
    try:
        return _Reader(text).sentence()
    except (_NoSentence, RecursionError):
        return Tagged(text)


class _Reader:
    """Reads one text: words, operators (as `and`, `or`, `not`, parentheses) and where in them it is."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def sentence(self) -> Choice:
        """The choice that the whole text says. _NoSentence."""
        found = self._either()
        if self._at < len(self._tokens):
            raise _NoSentence
        return found

    def _either(self) -> Choice:
        parts = [self._all()]
        while self._takes("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Choice:
        parts = [self._one()]
        while self._takes("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Choice:
        if self._takes("not"):
            return Without(self._one())
        if self._takes("("):
            inner = self._either()
            if not self._takes(")"):
                raise _NoSentence
            return inner
        if self._at == len(self._tokens) or self._tokens[self._at][1]:
            raise _NoSentence
        self._at += 1
        return Tagged(self._tokens[self._at - 1][0])

    def _takes(self, operator: str) -> bool:
        found = self._tokens[self._at : self._at + 1] == [(operator, True)]
        self._at += found
        return found


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Words and operators in order; of each, whether it is an operator."""
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise _NoSentence
        at = found.end()
        parenthesis, double, single, word = found.groups()
        if parenthesis or word in _WORDS:
            yield parenthesis or word, True
        else:
            yield next(part for part in (double, single, word) if part is not None), False


# Algebra


class TagAlgebra:
    """The operators of sets for what iterates over tags: with sets, lists and each other, from either side.

    Results are plain sets and bools; TypeError for other operands.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """The tags, each once."""

    def __and__(self, other: object) -> set[str]:
        """The tags in both."""
        return self._with(other, set.__and__)

    def __or__(self, other: object) -> set[str]:
        """The tags in either."""
        return self._with(other, set.__or__)

    def __xor__(self, other: object) -> set[str]:
        """The tags in only one of both."""
        return self._with(other, set.__xor__)

    def __sub__(self, other: object) -> set[str]:
        """The tags that are not in the other."""
        return self._with(other, set.__sub__)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __rsub__(self, other: object) -> set[str]:
        """The other's tags that are not in this."""
        return self._with(other, lambda mine, yours: yours - mine)

    def __lt__(self, other: object) -> bool:
        """Whether the other has all of them, and more."""
        return self._with(other, set.__lt__)

    def __le__(self, other: object) -> bool:
        """Whether the other has all of them."""
        return self._with(other, set.__le__)

    def __gt__(self, other: object) -> bool:
        """Whether it has all of the other's, and more."""
        return self._with(other, set.__gt__)

    def __ge__(self, other: object) -> bool:
        """Whether it has all of the other's."""
        return self._with(other, set.__ge__)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same tags."""
        return self._with(other, set.__eq__)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _with(self, other: object, operation: Callable[[set[Any], set[Any]], T]) -> T:
        if not isinstance(other, TagAlgebra | set | frozenset | list):
            return NotImplemented  # type: ignore[no-any-return]  # as Python wants it
        return operation(set(self), set(other))
