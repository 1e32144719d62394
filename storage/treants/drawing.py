"""Directories as trees of lines. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

_MIDDLE, _LAST = ("+-- ", "|   "), ("+-- ", "    ")


def drawn(top: str, listing: Callable[[str], Sequence[tuple[str, bool]]], depth: int | None = None) -> Iterator[str]:
    """The lines of a tree headed by `top`, so many levels deep (all of them unless `depth` says).

    `listing` gives the names in the directory at a relative path, and of each whether it is a directory, marked by a slash.
    """
    yield top
    if depth is None or depth > 0:
        yield from _below("", "", listing, depth)


def _below(
    path: str, indent: str, listing: Callable[[str], Sequence[tuple[str, bool]]], depth: int | None
) -> Iterator[str]:
    names = listing(path)
    deeper = None if depth is None else depth - 1
    for number, (name, directory) in enumerate(names, 1):
        first, others = _LAST if number == len(names) else _MIDDLE
        yield f"{indent}{first}{name}{'/' if directory else ''}"
        if directory and deeper != 0:
            yield from _below(f"{path}/{name}" if path else name, indent + others, listing, deeper)
