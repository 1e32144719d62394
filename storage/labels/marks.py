"""What marks a directory or a file, and the labels that it gives. Values alone.

A marker says which files mark something, by the pattern of their names, and how their contents are read. Those that come
with arborfs stand in a table by name, and are imported when they are first asked for: what labels mean is nothing that
the index of them has to know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import nan

from storage.errors import NotFound
from storage.model.records import Attributes

Key = tuple[str, ...]
"""What a label is about: `("tag",)`, `("category", "sex")`, `("state",)`."""
Scalar = bool | int | float | str
Label = tuple[Key, Scalar]
"""A key and its value."""
Token = str | tuple[bool, Scalar]

_NAN: Token = (False, nan)  # which is the same as itself only as an object

_MARKERS = {
    "treant": "storage.treants.marking:TREANTS",
    "task": "storage.pods.marking:TASKS",
}
"""The module of each marker and its name there."""


@dataclass(frozen=True)
class Marker:
    """Which files mark something, and what they say. Its functions are pure.

    `pattern` matches whole names. `directories`: what is marked is the directory that the file is in, of which it must be the
    only such file; else it is the file itself. `samples`: samples of datasets mark, and nothing else does; else samples do not.
    `within` says in which directories, by the attributes of a directory; None: in all.
    `read` makes of a file's contents what is kept of them, an ArborError or ValueError where they are damaged; `state` is what
    that says, `labels` its labels. `version` changes when `read` comes to give something else.
    """

    name: str
    pattern: re.Pattern[bytes]
    read: Callable[[bytes], bytes]
    state: Callable[[bytes], object]
    labels: Callable[[bytes], Iterable[Label]]
    directories: bool = True
    samples: bool = False
    within: Callable[[Attributes], bool] | None = None
    version: int = 1

    def counts(self, attributes: Attributes) -> bool:
        """Whether files in a directory with these attributes mark anything."""
        return self.within is None or self.within(attributes)


@cache
def marker_named(name: str) -> Marker:
    """The marker of that name. NotFound."""
    if name not in _MARKERS:
        raise NotFound(f"nothing marks a {name!r}: there are {', '.join(_MARKERS)}")
    module, _, attribute = _MARKERS[name].partition(":")
    marker: Marker = getattr(import_module(module), attribute)
    return marker


def token(value: Scalar) -> Token:
    """A value as the key of a dict: 1 and 1.0 are one, True is another, and so is "1"."""
    if type(value) is str:
        return value
    return _NAN if value != value else (type(value) is bool, value)


def value_of(token: Token) -> Scalar:
    """The value of a token."""
    return token if isinstance(token, str) else token[1]
