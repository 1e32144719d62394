"""A history drawn as text: one column for each line of descent, joined where lines meet and split where commits were merged."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Drawn(Generic[Key]):
    """One commit as drawn: the lines above it, its own with a star, those below it, and what stands beside text below these."""

    key: Key
    above: list[str]
    line: str
    below: list[str]
    beside: str


def draw(history: Iterable[tuple[Key, Sequence[Key]]]) -> Iterator[Drawn[Key]]:
    r"""Commits with their parents, children first, as lines of text.

    Each column stands for a commit still to come. `|/` and `+---'` end a column in the one on their left: both stood for the
    same commit. `|\` and `+---.` begin one: for the next parent of the commit above. A column on the way is passed over.
    """
    columns: list[Key | None] = []
    ended = -1  # the column of a first commit: another history right below it would look like its past
    for key, parents in history:
        here = columns.index(key) if key in columns else _free(columns, -1, ended)
        above = []
        for other in [i for i, waiting in enumerate(columns) if waiting == key and i != here]:
            above.append(_bridge(columns, here, other, "/", "'"))
            columns[other] = None
        line = _line(columns, here)
        columns[here] = parents[0] if parents else None
        below = []
        for parent in parents[1:]:
            other = _free(columns, here)
            below.append(_bridge(columns, here, other, "\\", "."))
            columns[other] = parent
        while columns and columns[-1] is None:
            columns.pop()
        beside = _line(columns, None)
        ended = -1 if parents else here
        yield Drawn(key, above, line, below, beside)


def beside(drawn: Drawn[Key], text: Sequence[str]) -> Iterator[str]:
    """The lines of a commit as drawn, with the lines of a text (one at least) beside and below its star."""
    yield from drawn.above
    yield f"{drawn.line} {text[0]}"
    yield from drawn.below
    yield from (f"{drawn.beside} {line}".rstrip() for line in text[1:])


def _free(columns: list[Key | None], left: int, taken: int = -1) -> int:
    """The first column behind `left` that waits for nothing and is not `taken`."""
    for i in range(left + 1, len(columns)):
        if columns[i] is None and i != taken:
            return i
    columns += [None] * (1 + (len(columns) == taken))
    return len(columns) - 1


def _line(columns: Sequence[Key | None], star: int | None) -> str:
    marks = ["*" if i == star else " " if waiting is None else "|" for i, waiting in enumerate(columns)]
    return " ".join(marks).rstrip()


def _bridge(columns: Sequence[Key | None], left: int, right: int, slope: str, corner: str) -> str:
    """A line with `right` joined to `left`: by a slope where they are neighbours, else by a dash over what is between."""
    marks = list(" ".join(" " if waiting is None else "|" for waiting in columns))
    marks[2 * left] = "|"
    if right == left + 1:
        marks[2 * left + 1], marks[2 * right] = slope, " "
    else:
        marks[2 * left], marks[2 * right] = "+", corner
        for i in range(2 * left + 1, 2 * right):
            marks[i] = "-" if marks[i] == " " else marks[i]
    return "".join(marks).rstrip()
