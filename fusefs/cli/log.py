"""`arborfs log`: the commits that something stands on, of one path alone, as a list or as a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import click

from fusefs.cli.completion import objects
from fusefs.cli.history import Names, commit_json, commit_text, names_of
from fusefs.cli.location import Location, split_object, tree_path
from fusefs.cli.output import json_option, print_json, printable
from storage.engine import Engine
from storage.errors import NotFound
from storage.model.digest import Digest
from storage.model.graph import beside, draw
from storage.model.history import condensed
from storage.model.names import Path, path_text
from storage.model.records import Commit

Row = tuple[Digest, Commit]


@click.command()
@click.argument("object_", metavar="[REVISION][:PATH]", default="", shell_complete=objects)
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Stop after so many commits.")
@click.option("--oneline", is_flag=True, help="One line per commit.")
@click.option("--graph", is_flag=True, help="Draw beside the commits which of them stand on which.")
@json_option
@click.pass_obj
def log(location: Location, object_: str, limit: int | None, oneline: bool, graph: bool, as_json: bool) -> None:
    """List the commits that REVISION stands on, newest first. With PATH, those that changed what is there.

    REVISION is a branch, a tag, a commit's id or the beginning of one, any of these followed by ~3 or ^2;
    main@{2026-11-01} is where main was then, main@{1} before it last moved. Default: the branch you stand in, else the
    default branch. PATH begins at the top of the tree; the colon may be left out where no revision has that name. A merge
    counts for PATH only if it differs there from all its parents.

    \b
    Example:
      arborfs -C data log -n 3
      arborfs -C data log --graph --oneline v1.0
      arborfs -C data log main:images/0.npy --json
    """
    if graph and as_json:
        raise click.UsageError("--json tells the parents of every commit: it cannot be drawn as well.")
    with location.open() as engine:
        start, path = _meant(engine, location, object_)
        if start is None:
            click.echo("[]" if as_json else "No commits yet.", err=not as_json)
            return
        names = names_of(engine)
        rows = engine.log(start) if path is None else engine.path_log(start, path)
        if path is not None and not as_json:
            rows = _some(rows, path)
        if as_json:
            print_json([commit_json(digest, record, names) for digest, record in islice(rows, limit)])
        elif graph:
            _print_graph(engine, _with_parents(engine, start, rows, path), limit, names, oneline)
        else:
            for number, row in enumerate(islice(rows, limit)):
                click.echo(("\n" if number and not oneline else "") + _text(engine, row, names, oneline))


def _some(rows: Iterator[Row], path: Path) -> Iterator[Row]:
    """The same rows. NotFound where there are none: that is a slip of the pen rather than a history."""
    first = next(rows, None)
    if first is None:
        raise NotFound(f"no commit there ever had {path_text(path)}")
    return chain([first], rows)


def _meant(engine: Engine, location: Location, text: str) -> tuple[Digest | None, Path | None]:
    """The commit to begin at (None before the first one) and the path, from what was given."""
    revision, path = split_object(text)
    try:
        start = engine.resolve(revision) if revision else engine.branches().get(location.branch(engine))
    except NotFound:
        start, other = engine.branches().get(location.branch(engine)), tree_path(text)
        if path is not None or start is None or next(engine.path_log(start, other), None) is None:
            raise
        return start, other
    return start, path or None


def _text(engine: Engine, row: Row, names: Names, oneline: bool) -> str:
    digest, record = row
    if not oneline:
        return commit_text(engine, digest, record, names)
    refs = f" ({', '.join(names[digest])})" if digest in names else ""
    return f"{engine.abbreviation(digest)}{refs} {printable(record.message.partition(chr(10))[0])}"


def _with_parents(
    engine: Engine, start: Digest, rows: Iterable[Row], path: Path | None
) -> Iterator[tuple[Digest, Iterable[Digest]]]:
    """The commits to draw, each with those it is drawn to stand on."""
    if path is None:
        return ((digest, record.parents) for digest, record in rows)
    kept = {digest for digest, _ in rows}
    return iter(condensed([(digest, record.parents) for digest, record in engine.log(start)], kept))


def _print_graph(
    engine: Engine, history: Iterable[tuple[Digest, Iterable[Digest]]], limit: int | None, names: Names, oneline: bool
) -> None:
    known = ((digest, tuple(parents)) for digest, parents in history)
    for drawn in islice(draw(known), limit):
        text = _text(engine, (drawn.key, engine.commit_record(drawn.key)), names, oneline)
        for line in beside(drawn, [*text.splitlines(), *([] if oneline else [""])]):
            click.echo(line)
