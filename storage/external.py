"""Arrays from files and into files, and shown, by plug-ins: `load`, `save`, `show`, `board_show`.

Each takes the name of a plug-in (`numpy`, `image`, `csv`, or the name of an entry point) or an ending of files that says which;
further keywords are handed to the plug-in. Unsupported (a ValueError) where neither is given, or no plug-in is of that
name or takes that ending; NotProvided (a RuntimeError) for what a plug-in does not do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.errors import Unsupported
from storage.formats import registry
from storage.formats.plugins import BasePlugin, loaded
from storage.model.names import check_key
from storage.model.samples import Array

__all__ = ["BasePlugin", "board_show", "load", "save", "show"]


def load(
    path: str | os.PathLike[str], plugin: str | None = None, extension: str | None = None, **options: Any
) -> Iterator[tuple[Array, str]]:
    """The arrays in a file, each with its key. The file's own ending counts where nothing else is given."""
    file = Path(path)
    chosen = _plugin(plugin, extension or (file.suffix if plugin is None else None), "load")
    return loaded(chosen, file, **options)


def save(
    array: Array,
    folder: str | os.PathLike[str],
    name: str,
    plugin: str | None = None,
    extension: str | None = None,
    **options: Any,
) -> Path:
    """Write an array to a new file in `folder`, named after its key; that file. FileExistsError; ValueError for no key.

    Without an `extension` it ends as the plug-in's first does.
    """
    chosen = _plugin(plugin, extension, "save")
    ending = f".{extension.removeprefix('.')}" if extension else next(iter(chosen.accepts), "")
    return chosen.save(array, Path(folder), check_key(name), ending, **options)


def show(array: Array, plugin: str | None = None, extension: str | None = None, **options: Any) -> str:
    """An array as text for a terminal; `width` says how wide that is."""
    return _plugin(plugin, extension, "show").show(array, **options)


def board_show(array: Array, plugin: str | None = None, extension: str | None = None, **options: Any) -> str:
    """An array as a piece of HTML."""
    return _plugin(plugin, extension, "board_show").board_show(array, **options)


def _plugin(name: str | None, extension: str | None, method: str) -> BasePlugin:
    if not name and not extension:
        raise Unsupported("name a plug-in, or an ending of files that says which")
    found = registry.array_plugins()
    if name:
        chosen = found.get(name)
        if chosen is None:
            raise Unsupported(f"there is no plug-in {name!r}: there are {', '.join(found)}")
    else:
        ending = f".{(extension or '').lower().removeprefix('.')}"
        able = [each for each in found.values() if ending in each.accepts]
        if not able:
            raise Unsupported(f"no plug-in takes files that end in {ending!r}")
        chosen = next((each for each in able if method in each.provides), able[0])
    if method not in chosen.provides:
        raise chosen.missing(method)
    return chosen
