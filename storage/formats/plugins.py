"""Plug-ins for single arrays: what loads them from a file, saves them to one, and shows them.

A plug-in is an entry point of the group `arborfs.formats` that leads to a `BasePlugin`; `arborfs import` and `export` take it,
too. (One that leads to a `storage.formats.base.Format` reads and writes whole datasets, and shows nothing.) Those for
numpy's files, images and csv come with arborfs. Use them through `storage.external`.
"""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import NotProvided, Unsupported
from storage.formats.base import Item, Options, Samples, Stored, natural_file
from storage.model.samples import Array

METHODS = ("load", "save", "show", "board_show")
"""What a plug-in may provide."""

Loaded = tuple[Array, str] | Iterable[tuple[Array, str]]


class BasePlugin:
    """What plug-ins inherit. `provides` are those of METHODS that it has, `accepts` the endings of its files.

    Unsupported (a ValueError) for a method that there is not, or without any.
    """

    def __init__(self, provides: Collection[str], accepts: Collection[str]) -> None:
        if isinstance(provides, str) or not provides or not set(provides) <= set(METHODS):
            raise Unsupported(f"a plug-in provides some of {', '.join(METHODS)}, not {provides!r}")
        if isinstance(accepts, str):
            raise Unsupported(f"what a plug-in accepts are endings of files, such as ['.npy'], not {accepts!r}")
        self.provides = frozenset(provides)
        self.accepts = tuple(f".{each.lower().removeprefix('.')}" for each in accepts)

    @staticmethod
    def sample_name(path: Path) -> str:
        """The key of the sample that a file holds: its name without the ending."""
        return natural_file(path)

    def load(self, path: Path, **options: Any) -> Loaded:
        """The array in a file and its key, or several of these. NotProvided, here and below, where a plug-in has none."""
        raise self.missing("load")

    def save(self, array: Array, folder: Path, name: str, extension: str, **options: Any) -> Path:
        """Write an array to a new file in a folder, named after its key; that file."""
        raise self.missing("save")

    def show(self, array: Array, **options: Any) -> str:
        """The array as text, for a terminal `width` characters wide."""
        raise self.missing("show")

    def board_show(self, array: Array, **options: Any) -> str:
        """The array as a piece of HTML, for a page."""
        raise self.missing("board_show")

    def missing(self, method: str) -> NotProvided:
        """The error that says so."""
        provided = ", ".join(each for each in METHODS if each in self.provides)
        return NotProvided(f"{type(self).__name__} has no {method}: it provides {provided}")


class PluginFormat:
    """A plug-in as a format, for `arborfs import` and `export`."""

    def __init__(self, name: str, plugin: BasePlugin) -> None:
        self.name = name
        self.plugin = plugin

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the plug-in accepts."""
        return self.plugin.accepts

    def weigh(self, path: Path, options: Options) -> int:
        """The file's size."""
        return path.stat().st_size

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """What the plug-in loads, each array a sample."""
        for array, name in loaded(self.plugin, path):
            yield Samples(array[None], [name], str(path))
        options.meter.advance(path.stat().st_size)

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """A sample as the plug-in saves it. Unsupported for anything else."""
        array = stored.array
        if array is None:
            raise Unsupported(f"{stored.name} is no array: {self.name} saves single ones")
        made = self.plugin.save(array, path.parent, path.name.removesuffix(path.suffix), path.suffix)
        if made != path:
            made.rename(path)


def loaded(plugin: BasePlugin, path: Path, **options: Any) -> Iterator[tuple[Array, str]]:
    """What a plug-in loads from a file, one by one. NotProvided."""
    if "load" not in plugin.provides:
        raise plugin.missing("load")
    found = plugin.load(path, **options)
    yield from [found] if isinstance(found, tuple) else found


class _Numpy(BasePlugin):
    """numpy's own files, one array in each."""

    def __init__(self) -> None:
        super().__init__(METHODS, [".npy"])

    def load(self, path: Path, **options: Any) -> Loaded:
        """The array. Never unpickled: ValueError for one of Python objects."""
        return np.load(path, allow_pickle=False), self.sample_name(path)

    def save(self, array: Array, folder: Path, name: str, extension: str, **options: Any) -> Path:
        """As `numpy.save`, but never over a file that is there."""
        path = folder / f"{name}{extension}"
        with open(path, "xb") as out:
            np.save(out, array, allow_pickle=False)
        return path

    def show(self, array: Array, *, width: int = 80, **options: Any) -> str:
        """dtype, shape and numbers; of a large array those at its edges."""
        numbers = np.array2string(array, max_line_width=width, threshold=200, edgeitems=3)
        return f"{array.dtype} {array.shape}\n{numbers}"

    def board_show(self, array: Array, **options: Any) -> str:
        """The same, as it stands."""
        return f"<pre>{html.escape(self.show(array, **options))}</pre>"


class _Images(BasePlugin):
    """Images, through Pillow: height x width x channels."""

    _RAMP = " .:-=+*#%@"

    def __init__(self) -> None:
        from storage.formats.images import ImageFormat

        super().__init__(METHODS, ImageFormat.suffixes)

    def load(self, path: Path, **options: Any) -> Loaded:
        """The pixels. InvalidInput (a ValueError) for what is no image."""
        from storage.formats.images import load_image

        return load_image(path), self.sample_name(path)

    def save(self, array: Array, folder: Path, name: str, extension: str, **options: Any) -> Path:
        """The image in the format of that ending. Unsupported (a ValueError) for what is none."""
        from storage.formats.images import save_image

        path = folder / f"{name}{extension}"
        save_image(array, path, name)
        return path

    def show(self, array: Array, *, width: int = 80, **options: Any) -> str:
        """The image in letters, darker and brighter, at most `width` wide; a letter is twice as high as wide."""
        grey = self._grey(array)
        high, wide = grey.shape
        columns = min(width, wide)
        rows = max(1, round(high * columns / wide / 2))
        small = grey[np.ix_(np.arange(rows) * high // rows, np.arange(columns) * wide // columns)]
        span = float(small.max()) - float(small.min()) or 1.0
        shades = ((small - small.min()) / span * (len(self._RAMP) - 1)).round().astype(int)
        return "\n".join("".join(self._RAMP[shade] for shade in row).rstrip() for row in shades.tolist())

    def board_show(self, array: Array, **options: Any) -> str:
        """The image itself, as a PNG inside the text."""
        from storage.formats.images import png

        data = base64.b64encode(png(array, "the sample")).decode()
        return f'<img alt="{array.shape[1]} x {array.shape[0]} pixels" src="data:image/png;base64,{data}">'

    @staticmethod
    def _grey(array: Array) -> Array:
        if array.ndim not in (2, 3) or not array.size or array.dtype.kind not in "buif":
            raise Unsupported(f"an array of {array.dtype} {array.shape} is no image: that is height x width x channels")
        pixels = array.astype(np.float64)
        # Of grey with transparency the grey, of colours with it the colours.
        return pixels if pixels.ndim == 2 else pixels[..., : 1 if pixels.shape[2] < 3 else 3].mean(axis=2)


class _Csv(BasePlugin):
    """Text tables: an array of rows of numbers or texts, or of a structured dtype, whose fields are columns with names."""

    def __init__(self) -> None:
        super().__init__(METHODS, [".csv"])

    def load(self, path: Path, **options: Any) -> Loaded:
        """The whole table as one array with a field for each column: see `storage.formats.tables`."""
        from storage.formats.tables import CsvFormat

        blocks = [item.values for item in CsvFormat().load(path, Options(by="row")) if isinstance(item, Samples)]
        return np.concatenate(blocks), self.sample_name(path)  # type: ignore[arg-type]

    def save(self, array: Array, folder: Path, name: str, extension: str, **options: Any) -> Path:
        """The names of the columns and a row for each of the array. Unsupported (a ValueError) for what has no columns."""
        path = folder / f"{name}{extension}"
        rows = self._rows(array)
        with open(path, "x", newline="", encoding="utf-8") as out:
            csv.writer(out, lineterminator="\n").writerows(rows)
        return path

    def show(self, array: Array, *, width: int = 80, **options: Any) -> str:
        """The first rows in columns, no line longer than `width`."""
        rows = self._rows(array[:20])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip()[:width] for row in rows]
        return "\n".join(lines + [f"… {len(array) - 20:,} rows more"] * (len(array) > 20))

    def board_show(self, array: Array, **options: Any) -> str:
        """The first rows as a table."""
        out = io.StringIO()
        for number, row in enumerate(self._rows(array[:20])):
            tag = "td" if number else "th"
            out.write(f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>")
        return f"<table>{out.getvalue()}</table>"

    @staticmethod
    def _rows(array: Array) -> list[Sequence[str]]:
        """The names of the columns, then the cells."""
        if array.dtype.names and array.ndim == 1:
            return [array.dtype.names, *([str(cell) for cell in row] for row in array.tolist())]
        if array.dtype.names or array.ndim != 2:
            raise Unsupported(f"an array of {array.dtype} {array.shape} is no table: that has rows of columns")
        return [[str(n) for n in range(array.shape[1])], *([str(cell) for cell in row] for row in array.tolist())]


def first_party() -> dict[str, BasePlugin]:
    """The plug-ins that come with arborfs, by name."""
    return {"numpy": _Numpy(), "image": _Images(), "csv": _Csv()}
