"""Files that can be merged where both sides of a merge have changed one: which, by their names, and what merges them.

A file merger is a function of three contents, `merge(base, ours, theirs)`; `base` is None where both sides added the file. It
returns the merged contents, or None where the sides contradict each other: then, and where it raises an ArborError or a
ValueError because it cannot read one of them, it is a conflict. Merges call it with the same contents again: it must be pure.

Those that come with arborfs stand in a table. Others are entry points of the group `arborfs.mergers`, whose name is the pattern
of the files' names, as a shell has them: `*.bib = "bibliography:merge"`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from storage.errors import Unsupported

FileMerger = Callable[[bytes | None, bytes, bytes], bytes | None]

GROUP = "arborfs.mergers"
_OURS = {
    "Treant.*.h5": "storage.treants.marking:merge_files",
    "Group.*.h5": "storage.treants.marking:merge_files",
}
"""Pattern → module and name."""


def file_merger(name: bytes) -> FileMerger | None:
    """What merges files of that name, None where nothing does. Ours come first. Unsupported for one that cannot be loaded."""
    text = os.fsdecode(name)
    return next((_loaded(point) for point in _points() if fnmatchcase(text, point.name)), None)


def _points() -> Iterator[EntryPoint]:
    for pattern, place in _OURS.items():
        yield EntryPoint(pattern, place, GROUP)
    yield from _plugins()


@cache
def _plugins() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


@cache
def _loaded(point: EntryPoint) -> FileMerger:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise Unsupported(f"the merger {point.value} of {point.name!r} files cannot be loaded: {error}") from error
    if not callable(found):
        raise Unsupported(f"the merger {point.value} of {point.name!r} files is no function")
    merger: FileMerger = found
    return merger
