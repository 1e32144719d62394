"""Texts for people, from values that may be hostile or huge: bounded, and never more than one line where one was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

FIELD_MAX = 80
"""So many characters of a text are shown in a repr of one line."""


def printable(text: str) -> str:
    """Text that cannot move the cursor or break the line: control characters and broken Unicode come escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int) -> str:
    """The text made printable, its beginning alone where it has more than `most` characters."""
    return printable(text) if len(text) <= most else printable(text[: most - 1]) + "…"


def first_line(text: str, most: int = 200) -> str:
    """The first line of a text, made printable and cut as `shortened` does."""
    return shortened(text[: most + 1].partition("\n")[0], most)


def size_text(size: float) -> str:
    """A number of bytes for people, in decimal units: `46.13 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.2f} {unit}"
        size /= 1000
    return f"{size:.2f} PB"


def form(title: str, facts: Iterable[tuple[str, object]], width: int) -> str:
    """A title with one line below it for each fact, their colons under each other: labels have `width` characters."""
    return "\n".join([f"Arborfs {title}", *(f"    {label:{width}} : {value}" for label, value in facts)])


def short_fields(values: NamedTuple) -> str:
    """A named tuple in one line, each field by its name, long texts cut and long lists counted."""
    fields = zip(values._fields, values, strict=True)
    return f"{type(values).__name__}({', '.join(f'{name}={_short(value)}' for name, value in fields)})"


def _short(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= FIELD_MAX else value[: FIELD_MAX - 1] + "…")
    if isinstance(value, tuple):
        some = [_short(each) for each in value[:3]]
        return f"({', '.join(some)}{',' * (len(value) == 1)}{f', … {len(value):,} in all' if len(value) > 3 else ''})"
    return repr(value)
