"""Patterns for paths, as a shell reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from functools import lru_cache

from storage.errors import InvalidName

_SPECIAL = re.compile(r"[*?\[]")
Listing = Callable[[str], Iterable[tuple[str, bool]]]
"""Names in the directory at a relative path, and of each whether it is a directory."""


def globbed(pattern: str, listing: Listing) -> Iterator[tuple[str, bool]]:
    """Relative paths that fit a pattern, each once, and of each whether it is a directory.

    `*`, `?` and `[…]` stand for parts of a name, `**` for any number of directories; a hidden name fits only what begins with
    a dot itself. A pattern that ends in a slash fits directories alone. InvalidName (a ValueError) for an absolute one or one
    with `..`.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if pattern.startswith("/") or ".." in parts:
        raise InvalidName(f"{pattern!r} leads out of the tree: name a pattern for what is below it")
    only_directories = pattern.endswith("/")
    seen: set[str] = set()
    for path, directory in _found("", parts, listing):
        if path and path not in seen and (directory or not only_directories):
            seen.add(path)
            yield path, directory


def _found(at: str, parts: list[str], listing: Listing) -> Iterator[tuple[str, bool]]:
    if not parts:
        yield at, True
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        yield from _found(at, rest, listing)
    for name, directory in listing(at):
        path = f"{at}/{name}" if at else name
        if first == "**":
            if directory and not name.startswith("."):
                yield from _found(path, parts, listing)
            elif not directory and not rest and not name.startswith("."):
                yield path, False
        elif name_fits(name, first):
            if directory:
                yield from _found(path, rest, listing)
            elif not rest:
                yield path, False


def name_fits(name: str, pattern: str) -> bool:
    """Whether a name fits one part of a pattern."""
    if not _SPECIAL.search(pattern):
        return name == pattern
    return (not name.startswith(".") or pattern.startswith(".")) and _compiled(pattern).match(name) is not None


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
