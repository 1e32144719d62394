"""Completion in the shell: what may stand where.

A shell asks at every press of a key, so nothing here reads more of a repository than what begins as the word does:
names come out of the tree in order, from the first that fits. Whatever is wrong (no repository, no such branch) there
is nothing to offer, and no message: the command itself will tell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import click
from click.shell_completion import CompletionItem

from fusefs.cli.location import Location, split_object, tree_path
from storage.dataset_reader import known_path
from storage.engine import Engine
from storage.errors import Ambiguous, ArborError, NotFound
from storage.model.digest import hexed
from storage.model.names import CONTROL, Path
from storage.model.records import Entry, Kind
from storage.snapshot import Snapshot
from storage.worktree import WorkingTree

OFFERED = 200
"""Where more names than this fit, the different ways to go on by one character are offered instead."""

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Finder = Callable[[click.Context, Location, Engine, str], Iterable[str]]
Taken = Callable[[bytes, Entry], str | None]
"""What an entry is called where it is offered; None where it is not."""


def _offering(find: Finder) -> Complete:
    """What click asks: words that begin as the one that is being typed; no space comes after one that goes on."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words that fit."""
        location = Location(context.find_root().params.get("repository"))
        try:
            with location.open() as engine:
                words = [word for word in find(context, location, engine, incomplete) if word.startswith(incomplete)]
        except (ArborError, OSError):
            return []
        # One word a line goes to the shell: a name that breaks lines, or is no Unicode, cannot be among them.
        items = [
            CompletionItem(word.removesuffix(_GOES_ON)) for word in words if word.removesuffix(_GOES_ON).isprintable()
        ]
        goes_on = any(word.endswith((_GOES_ON, "/", ":")) for word in words)
        return items + ([CompletionItem("-", type="nospace")] if goes_on else [])

    return complete


_GOES_ON = "\0"
"""Behind a word that is only the beginning of names."""


@_offering
def branches(context: click.Context, location: Location, engine: Engine, incomplete: str) -> Iterable[str]:
    """Branches."""
    return sorted(engine.branches())


@_offering
def tags(context: click.Context, location: Location, engine: Engine, incomplete: str) -> Iterable[str]:
    """Tags."""
    return sorted(engine.tags())


@_offering
def revisions(context: click.Context, location: Location, engine: Engine, incomplete: str) -> Iterable[str]:
    """Branches, tags, and commits by the digits that they begin with."""
    return _revisions(engine, incomplete)


def _revisions(engine: Engine, incomplete: str) -> list[str]:
    named = [name for name in sorted({*engine.branches(), *engine.tags(), "HEAD"}) if name.startswith(incomplete)]
    if named or not re.fullmatch("[0-9a-f]{4,64}", incomplete):
        return named
    try:
        commit = engine.resolve(incomplete)
    except Ambiguous as error:
        return list(error.candidates[:OFFERED])
    short = engine.abbreviation(commit)
    return [short if short.startswith(incomplete) else hexed(commit)]


@_offering
def objects(context: click.Context, location: Location, engine: Engine, incomplete: str) -> Iterable[str]:
    """Revisions, and behind a colon what is in them."""
    revision, path = split_object(incomplete)
    if path is None:
        return _revisions(engine, revision)
    before = incomplete[: len(revision) + 1]
    tree = engine.snapshot(engine.resolve(revision or location.branch(engine)))
    return (before + found for found in _paths(tree, incomplete[len(before) :]))


@_offering
def paths(context: click.Context, location: Location, engine: Engine, incomplete: str) -> Iterable[str]:
    """What is in the branch, or in the revision, that the command is about."""
    return _paths(_tree(context, location, engine), incomplete)


@_offering
def datasets(context: click.Context, location: Location, engine: Engine, incomplete: str) -> Iterable[str]:
    """Datasets, and directories on the way to one."""
    tree = _tree(context, location, engine)
    parent, slash, begun = incomplete.rpartition("/")

    def taken(name: bytes, entry: Entry) -> str | None:
        """Its name if it is a directory, which goes on with a slash if it is no dataset."""
        if not entry.is_directory or name == CONTROL or (entry.schema is not None and entry.schema.is_sample):
            return None
        return os.fsdecode(name) + ("" if entry.schema is not None else "/")

    return (parent + slash + found for found in names(tree, tree_path(parent), begun, taken))


def files_then_dataset(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files outside, and once there is one, datasets as well: `PATH... DATASET` ends nowhere before its last word."""
    files = [CompletionItem(incomplete, type="file")]
    return files + datasets(context, parameter, incomplete) if context.params.get("dataset") else files


@_offering
def samples(context: click.Context, location: Location, engine: Engine, incomplete: str) -> Iterable[str]:
    """The keys of the dataset that was named."""
    return _samples(_tree(context, location, engine), known_path(context.params.get("dataset")), incomplete)


@_offering
def samples_below(context: click.Context, location: Location, engine: Engine, incomplete: str) -> Iterable[str]:
    """The keys of the dataset that was named as REVISION:PATH."""
    # Where an option still wants its value, click has not yet given the words before it to the arguments.
    revision, path = split_object(context.params.get("object_") or "".join(context.args[:1]))
    tree = engine.snapshot(engine.resolve(revision or location.branch(engine)))
    return _samples(tree, path or (), incomplete)


def _samples(tree: Snapshot | WorkingTree, path: Path, incomplete: str) -> list[str]:
    schema = tree.schema_of(path)
    if schema is None:
        return []
    suffix, nested = os.fsdecode(schema.suffix), schema.nested

    def taken(name: bytes, entry: Entry) -> str | None:
        """The key of a sample."""
        is_sample = entry.schema is not None and entry.schema.is_sample if nested else entry.kind is Kind.SAMPLE
        return os.fsdecode(name).removesuffix(suffix) if is_sample else None

    return names(tree, path, incomplete, taken)


def _tree(context: click.Context, location: Location, engine: Engine) -> Snapshot | WorkingTree:
    """The tree that the command will look at, as far as the words before say."""
    branch = context.params.get("branch")
    return location.tree(engine, f"{branch}+" if branch else context.params.get("revision") or "")


def _paths(tree: Snapshot | WorkingTree, incomplete: str) -> Iterator[str]:
    parent, slash, begun = incomplete.rpartition("/")

    def taken(name: bytes, entry: Entry) -> str:
        """Its name, which goes on with a slash if it is a directory."""
        return os.fsdecode(name) + ("/" if entry.is_directory else "")

    return (parent + slash + found for found in names(tree, tree_path(parent), begun, taken))


def names(tree: Snapshot | WorkingTree, path: Path, begun: str, taken: Taken) -> list[str]:
    """What is taken of a directory and begins with `begun`: at most OFFERED names, else all their different beginnings.

    A beginning ends in NUL. Costs look-ups in the tree for each that is returned, whatever the directory holds.
    """
    behind = _behind(tree, path, begun, os.fsencode(begun), taken)
    found = [word for _, word in islice(behind, OFFERED + 1)]
    try:
        exact = taken(os.fsencode(begun), tree.entry((*path, os.fsencode(begun)))) if begun else None
    except (NotFound, NotADirectoryError):
        exact = None
    if len(found) <= OFFERED:
        return [exact, *found] if exact is not None and exact not in found else found
    while len(ways := list(_ways(tree, path, begun, taken))) == 1:
        begun = ways[0]
    return [way + _GOES_ON for way in ways]


def _behind(
    tree: Snapshot | WorkingTree, path: Path, begun: str, after: bytes, taken: Taken
) -> Iterator[tuple[bytes, str]]:
    """What is taken of the entries behind the name `after`, as long as they begin with `begun`: name, and what it is called."""
    start = os.fsencode(begun)
    for name, entry in tree.entries(path, after):
        if not name.startswith(start):
            return
        if (word := taken(name, entry)) is not None:
            yield name, word


def _ways(tree: Snapshot | WorkingTree, path: Path, begun: str, taken: Taken) -> Iterator[str]:
    """Each different beginning that is one character longer, of those that `_behind` gives."""
    after = os.fsencode(begun)
    last = ""
    while (found := next(_behind(tree, path, begun, after, taken), None)) is not None:
        name, word = found
        way = word[: len(begun) + 1]
        # No UTF-8 has this byte: all names that begin this way come before it. Names that are none are passed one by one.
        after = name if way in (begun, last) else os.fsencode(way) + b"\xff"
        if way != last:
            yield way
        last = way
