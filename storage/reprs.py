"""How checkouts, datasets and metadata show themselves at the prompt, and what they offer to completion.

No sample is read for that and no long list made: the tree tells how many samples there are, of names the first few are
shown. What cannot be known any more (the checkout is closed, the dataset was removed) or cannot be read is said in its place:
nothing here raises for it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Generic, Never, Self, TypeVar, overload

import numpy as np

from storage.errors import ArborError, Closed, NotADirectory, NotFound
from storage.model.dtypes import dtype_of
from storage.model.names import Path, path_text
from storage.model.records import Schema
from storage.model.texts import form, printable, shortened
from storage.session import Session

COMPLETIONS = 1000
"""So many names are offered to completion."""
PAIRED = 20
"""The keys of so many datasets are offered with the names of these."""
LISTED = 50
"""So many datasets are named."""
VALUE_MAX = 120
"""So many characters of a value or a message are shown."""
CLOSED = [("Closed", True)]
"""What is said of anything that belongs to a closed checkout."""


# JSON may be as deep as it likes: what is in a sixth level and below is not looked at.
_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = VALUE_MAX

T = TypeVar("T")


class part(Generic[T]):
    """A property that IPython looks into when it completes what comes after it: `checkout.datasets['im`.

    It calls no getter of a `property` for that, since it cannot know what one does.
    """

    def __init__(self, find: Callable[[Any], T]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: object, kind: type) -> T: ...

    def __get__(self, owner: object, kind: type) -> Self | T:
        """The value for an object, this itself for its class."""
        return self if owner is None else self._find(owner)

    def __set__(self, owner: object, value: object) -> Never:
        """Refused."""
        raise AttributeError("this can only be read")


def checkout_text(kind: str, session: Session, facts: Sequence[tuple[str, object]]) -> str:
    """A checkout in lines."""
    return form(kind, facts if session.is_open else CLOSED, 12)


def datasets_text(session: Session, datasets: Iterable[str]) -> str:
    """The names of datasets in lines."""
    if not session.is_open:
        return "Arborfs Datasets\n    Closed: True"
    found = list(islice(datasets, LISTED + 1))
    names = [f"\n        - {printable(name)}" for name in found[:LISTED]] or ["\n        -"]
    names += ["\n        - … and more"] if len(found) > LISTED else []
    return f"Arborfs Datasets\n    Writeable: {session.writeable}\n    Dataset Names:{''.join(names)}"


def dataset_text(kind: str, session: Session, path: Path, schema: Schema, samples: Mapping[str, Any]) -> str:
    """A dataset in lines: name, schema and number of samples."""
    name, array = ("Dataset Name", printable(path_text(path))), schema.holds == "array"
    if not session.is_open:
        return form(kind, [name, ("Schema Hash", schema.hash), *CLOSED], 16)
    facts = [
        name,
        ("Schema UUID", schema.uuid),
        ("Schema Hash", schema.hash),
        ("Variable Shape", schema.variable),
        ("(max) Shape", schema.shape if array else "none"),
        ("Datatype", dtype_of(schema.dtype).type if array else schema.holds),
        ("Named Samples", schema.named),
        *([("Subsamples", True)] if schema.nested else []),
        ("Access Mode", session.mode),
        ("Num Samples", told(lambda: len(samples))),
    ]
    return form(kind, facts, 16)


def metadata_text(session: Session, keys: Mapping[str, str]) -> str:
    """Metadata in lines: number of keys and access mode."""
    facts = [("Number of Keys", told(lambda: len(keys))), ("Access Mode", session.mode)]
    return form("Metadata", facts if session.is_open else CLOSED, 14)


def completions(names: Iterable[str]) -> list[str]:
    """The first names that can be typed; none where they cannot be had."""
    try:
        return [name for name in islice(names, COMPLETIONS) if name.isprintable()]
    except ArborError:
        return []


def pair_completions(datasets: Mapping[str, Iterable[str]]) -> list[str | tuple[str, str]]:
    """The first names of datasets, and for `checkout["images", "0"]` pairs of the first of them with their first keys."""
    names = completions(datasets)
    offered: list[str | tuple[str, str]] = [*names]
    for name in names[:PAIRED]:
        offered += [(name, key) for key in completions(islice(datasets[name], COMPLETIONS // PAIRED))]
    return offered


def schema_text(schema: Schema) -> str:
    """What a sample looks like, in a few words: `uint8 (28, 28)`."""
    shape = f"up to {schema.shape}" if schema.variable else f"{schema.shape}"
    each = f"{dtype_of(schema.dtype)} {shape}" if schema.holds == "array" else schema.holds
    return f"a dict of {each}" if schema.nested else each


def value_text(value: object) -> str:
    """The beginning of a sample's or an entry's value, in one line."""
    if isinstance(value, np.ndarray):
        some = value.ravel()[:8]
        shown = np.array2string(some, threshold=8, separator=" ", max_line_width=10_000)
        shown = shown[1:-1].strip() if value.ndim == 0 or value.size == 1 else shown
        return shortened(shown[:-1] + " …]" if value.size > some.size else shown, VALUE_MAX)
    return shortened(value if isinstance(value, str) else _SHORT.repr(value), VALUE_MAX)


def told(count: Callable[[], int]) -> int | str:
    """A number, or why there is none."""
    try:
        return count()
    except Closed:
        return "closed"
    except (NotFound, NotADirectory):
        return "none: it was removed"
    except ArborError as error:
        return f"unknown: {shortened(str(error), VALUE_MAX)}"
