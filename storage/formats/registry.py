"""All formats by name: those that come with arborfs, and plug-ins.

A plug-in is an entry point of the group `arborfs.formats` that leads to an object with the interface of
`storage.formats.base.Format`, or to a `storage.formats.plugins.BasePlugin`. Plug-ins are looked for only where no format
of our own will do: none can take the place of one of those.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from storage.errors import NotFound, Unsupported
from storage.formats.base import Format
from storage.formats.plugins import BasePlugin, PluginFormat, first_party
from storage.formats.tree import TREE

GROUP = "arborfs.formats"
NAMES = ("tree", "npy", "npz", "hdf5", "image", "csv", "parquet")
"""The formats that come with arborfs."""


@cache
def formats() -> dict[str, Format]:
    """The formats that come with arborfs, by name."""
    # Not above: what they stand on takes longer to import than most commands take in all.
    from storage.formats.hdf5 import Hdf5Format
    from storage.formats.images import ImageFormat
    from storage.formats.npy import NpyFormat, NpzFormat
    from storage.formats.parquet import ParquetFormat
    from storage.formats.tables import CsvFormat

    ours: list[Format] = [TREE, NpyFormat(), NpzFormat(), Hdf5Format(), ImageFormat(), CsvFormat(), ParquetFormat()]
    return {each.name: each for each in ours}


@cache
def plugins() -> dict[str, Format]:
    """The formats of other packages. Unsupported, naming the entry point, for one that cannot be loaded."""
    found: dict[str, Format] = {}
    for point in entry_points(group=GROUP):
        try:
            loaded = point.load()
        except (ImportError, AttributeError) as error:
            raise Unsupported(f"the format {point.name!r} of {point.value} cannot be loaded: {error}") from error
        if isinstance(loaded, BasePlugin):
            found[point.name] = PluginFormat(point.name, loaded)
            continue
        wanting = [part for part in ("name", "suffixes", "weigh", "load", "save") if not hasattr(loaded, part)]
        if wanting:
            raise Unsupported(f"the format {point.name!r} of {point.value} has no {', '.join(wanting)}")
        found[loaded.name] = loaded
    return found


def array_plugins() -> dict[str, BasePlugin]:
    """The plug-ins for single arrays by name; ours first: none can take the place of one of those. Unsupported."""
    ours = first_party()
    return ours | {
        name: each.plugin for name, each in plugins().items() if isinstance(each, PluginFormat) and name not in ours
    }


def named(name: str) -> Format:
    """The format of that name. NotFound."""
    found = formats().get(name) or plugins().get(name)
    if found is None:
        raise NotFound(f"there is no format {name!r}: there are {', '.join([*formats(), *plugins()])}")
    return found


def for_suffix(path: Path) -> Format:
    """The format whose files end as `path` does. Unsupported."""
    suffix = path.suffix.lower()
    for known in (formats, plugins):
        for each in known().values():
            if suffix and suffix in each.suffixes:
                return each
    raise Unsupported(
        f"{path}: no format is known for {suffix or 'a name without an ending'}; the format tree takes files as they are"
    )
