"""Import: files from outside become samples and files of a branch, all of them or none.

What is imported is stored beside the working tree (`storage.planting`) and put into it at the end as one change.
An error, Ctrl-C or `kill -9` before that leaves the branch as it was; what was stored by then is unreachable,
and space to be collected.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from storage.dataset_reader import dataset_path
from storage.errors import (
    ArborError,
    Conflict,
    InvalidName,
    NameTaken,
    NotADirectory,
    NotFound,
    SchemaMismatch,
    Unsupported,
)
from storage.formats import registry
from storage.formats.base import By, File, Folder, Format, Item, Link, Meter, Options, Samples, Silent
from storage.formats.tree import TREE
from storage.model.names import Path as TreePath
from storage.model.names import check_key, path_text
from storage.model.records import ARRAY_SUFFIX, Entry
from storage.planting import Planting, around, overlaid
from storage.worktree import WorkingTree

TRIES = 5
"""So many times what was imported is laid over a directory that others change meanwhile."""


@dataclass(slots=True)
class ImportReport:
    """What an import brought: samples, files kept as they are, and files that were no input of the format."""

    dataset: str
    samples: int = 0
    files: int = 0
    skipped: int = 0


def import_files(
    tree: WorkingTree,
    paths: Sequence[str | os.PathLike[str]],
    dataset: str,
    *,
    format: str = "",
    by: By = "",
    key: str = "",
    overwrite: bool = False,
    variable_shape: bool = False,
    meter: Meter | None = None,
) -> ImportReport:
    """Import files and directories into `dataset`, as one change: see `WriterCheckout.import_files`."""
    options = Options(by, key, variable_shape, meter or Silent())
    inputs = [(Path(path), _format(Path(path), format)) for path in paths]
    if meter is not None:
        meter.start(sum(chosen.weigh(file, options) for path, chosen in inputs for file, _ in _files(path, chosen)))
    skipped: list[Path] = []
    items = _items(inputs, options, skipped.append)
    try:
        report = import_items(tree, items, dataset, overwrite=overwrite, variable_shape=variable_shape)
    except NameTaken as error:
        # Remembering where each name came from would cost memory for every sample: the inputs are read again instead.
        again = _items(inputs, replace(options, meter=Silent()), lambda _: None)
        raise _with_places(error, _taker(tree, dataset, overwrite), again) from None
    report.skipped = len(skipped)
    return report


def import_items(
    tree: WorkingTree, items: Iterable[Item], dataset: str, *, overwrite: bool = False, variable_shape: bool = False
) -> ImportReport:
    """Import what `items` gives into `dataset`, as one change; what it raises ends the import, with nothing staged.

    InvalidName, SchemaMismatch, Unsupported, naming what is to blame; Exists where a name is taken, unless `overwrite`;
    NameTaken where two items have one name; Conflict where others change the dataset again and again.
    """
    with tree.storing():
        taker = _taker(tree, dataset, overwrite, variable_shape)
        for item in items:
            taker.take(item)
        _plant(tree, taker.planting.path, taker.planting.finish(), overwrite)
    return taker.report


def _taker(tree: WorkingTree, dataset: str, overwrite: bool, variable_shape: bool = False) -> _Taker:
    """What takes items for a dataset. NotADirectory where there is a file of that name."""
    target = dataset_path(dataset)
    old, _ = tree.folded(target)
    if old is not None and not old.is_directory:
        raise NotADirectory(f"{dataset} is there already, and is a file")
    planting = Planting(tree.objects, target, old, variable=variable_shape, stamp=time.time_ns())
    return _Taker(planting, ImportReport(dataset), overwrite)


def _with_places(error: NameTaken, taker: _Taker, items: Iterable[Item]) -> NameTaken:
    """The same error; its text names the files and rows that the name came from."""
    below = error.path[len(taker.planting.path) :]
    found = (place for item in items for path, place in taker.names(item) if path == below)
    places = list(islice(found, 2))
    if len(places) == 1:
        error.args = (f"{places[0]}: {error}",)
    elif places:
        text = f"{places[1]}: {path_text(error.path)} came from {places[0]} already: each needs a name of its own"
        error.args = (text,)
    return error


def _items(inputs: Sequence[tuple[Path, Format]], options: Options, skip: Callable[[Path], None]) -> Iterator[Item]:
    """What is in all inputs. Errors of a format name the file."""
    for path, chosen in inputs:
        for file, prefix in _files(path, chosen, skip):
            try:
                for item in chosen.load(file, options):
                    yield _below(item, prefix)
            except (InvalidName, SchemaMismatch, Unsupported) as error:
                raise _located(error, str(file)) from error.__cause__


def _format(path: Path, name: str) -> Format:
    """The format of an input: the one that is named, else the one of its suffix. Unsupported, NotFound."""
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    if name:
        return registry.named(name)
    return TREE if path.is_dir() else registry.for_suffix(path)


def _files(
    path: Path, chosen: Format, skip: Callable[[Path], None] = lambda _: None
) -> Iterator[tuple[Path, TreePath]]:
    """The files of a format: the one at `path`, or all below that directory, each with the directories it is in."""
    if chosen is TREE or not path.is_dir():
        yield path, ()
        return
    with os.scandir(path) as entries:
        found = sorted((os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_directory in found:
        here = path / os.fsdecode(name)
        if is_directory:
            yield from ((file, (name, *prefix)) for file, prefix in _files(here, chosen, skip))
        elif here.suffix.lower() in chosen.suffixes and not here.is_symlink():
            yield here, ()
        else:
            skip(here)


def _below(item: Item, prefix: TreePath) -> Item:
    if not prefix:
        return item
    if isinstance(item, Samples):
        return replace(item, dataset=(*prefix, *item.dataset))
    return replace(item, path=(*prefix, *item.path))


class _Taker:
    """Puts what formats hand over where it belongs. Errors name the file and the row."""

    def __init__(self, planting: Planting, report: ImportReport, overwrite: bool) -> None:
        self.report = report
        self.planting = planting
        self._overwrite = overwrite
        self._numbered: dict[TreePath, int] = {}

    def take(self, item: Item) -> None:
        """Take one item. InvalidName, SchemaMismatch, Unsupported: with the file that is to blame."""
        try:
            if isinstance(item, Samples):
                self._samples(item)
            elif isinstance(item, File):
                directory = self._directory(item.path[:-1])
                directory.add_file(item.path[-1], item.source, item.mtime, item.attributes, item.where)
                self.report.files += 1
            elif isinstance(item, Link):
                self._directory(item.path[:-1]).add_link(item.path[-1], item.target, item.mtime)
                self.report.files += 1
            else:
                self._folder(item)
        except (InvalidName, SchemaMismatch, Unsupported) as error:
            raise _located(error, item.where) from error.__cause__

    def names(self, item: Item) -> Iterator[tuple[TreePath, str]]:
        """The paths that the item would have below the dataset, and where each comes from; nothing is taken."""
        if not isinstance(item, Samples):
            yield item.path, item.where
            return
        values = item.values
        directory = self._directory(item.dataset)
        count = len(values) if isinstance(values, Sequence | np.ndarray) else 1
        for number, key in enumerate(self._keys(item, directory, count)):
            yield (*item.dataset, key.encode() + ARRAY_SUFFIX), item.place(number)

    def _directory(self, path: TreePath) -> Planting:
        directory = self.planting
        for name in path:
            directory = directory.below(name)
        return directory

    def _folder(self, item: Folder) -> None:
        directory = self._directory(item.path)
        directory.attributes, directory.mtime = item.attributes, item.mtime
        if item.path:
            self._directory(item.path[:-1]).close(item.path[-1])

    def _samples(self, item: Samples) -> None:
        for name in item.dataset:
            check_key(name.decode("utf-8", "surrogateescape"))
        directory = self._directory(item.dataset)
        values = item.values
        if isinstance(values, np.ndarray):
            directory.add_rows(self._keys(item, directory, len(values)), values, item.place(0))
            self.report.samples += len(values)
        elif isinstance(values, Sequence):
            keys = self._keys(item, directory, len(values))
            for number, (key, array) in enumerate(zip(keys, values, strict=True)):
                directory.add_rows([key], array[None], item.place(number))
            self.report.samples += len(values)
        else:
            directory.add_source(self._keys(item, directory, 1)[0], values, item.where)
            self.report.samples += 1

    def _keys(self, item: Samples, directory: Planting, count: int) -> Sequence[str]:
        if item.keys is not None:
            return [_checked(key, item, number) for number, key in enumerate(item.keys)]
        first = self._numbered.get(item.dataset, 0 if self._overwrite else directory.samples)
        self._numbered[item.dataset] = first + count
        return list(map(str, range(first, first + count)))


def _checked(key: str, item: Samples, number: int) -> str:
    try:
        return check_key(key)
    except InvalidName as error:
        raise _located(error, item.place(number)) from None


def _located(error: ArborError, where: str) -> ArborError:
    """The same error; its text names the file."""
    text = str(error)
    if where not in text:
        error.args = (f"{where}: {text}",)
    return error


def _plant(tree: WorkingTree, target: TreePath, new: Entry, overwrite: bool) -> None:
    """Lay what was imported over what is there. Conflict when others keep changing that."""
    for attempt in range(TRIES):
        place, old, since = _where(tree, target)
        entry = overlaid(tree.objects, old, new, target, overwrite=overwrite) if place == target else new
        if entry is old:
            return  # all of it is there
        for name in reversed(target[len(place) :]):
            entry = around(tree.objects, name, entry)
        try:
            tree.graft(place, entry, since)
            return
        except (Conflict, NotFound):
            if attempt == TRIES - 1:
                raise


def _where(tree: WorkingTree, target: TreePath) -> tuple[TreePath, Entry | None, int]:
    """The place to put the dataset, or the topmost directory around it that is missing, and what is there."""
    for depth in range(1, len(target)):
        try:
            above = tree.entry(target[:depth])
        except NotFound:
            old, since = tree.folded(target[:depth])
            if old is not None:
                continue  # made by somebody else just now
            return target[:depth], None, since
        if not above.is_directory:
            raise NotADirectory(f"{path_text(target[:depth])} is a file: there can be nothing below it")
    old, since = tree.folded(target)
    return target, old, since
