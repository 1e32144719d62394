"""`arborfs show`: a commit with its changes, a directory of it, or one entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import click

from fusefs.cli.completion import objects
from fusefs.cli.history import change_json, change_text, commit_json, commit_text, names_of
from fusefs.cli.location import Location, split_object
from fusefs.cli.output import counted, json_option, json_time, local_time, print_json, shown, size_text
from storage.engine import Engine
from storage.model.digest import Digest, hexed
from storage.model.names import Path, path_text
from storage.model.records import Entry, Kind, Schema
from storage.snapshot import Snapshot
from storage.stores.compare import Difference

LISTED = 10
"""More changes of one kind than this in one directory are shown as one line."""

DEFAULT_MODES = {Kind.DIRECTORY: 0o755, Kind.SYMLINK: 0o777}


@click.command()
@click.argument("object_", metavar="[REVISION][:PATH]", default="", shell_complete=objects)
@click.option("--all", "every", is_flag=True, help=f"List every change, also more than {LISTED} in one directory.")
@json_option
@click.pass_obj
def show(location: Location, object_: str, every: bool, as_json: bool) -> None:
    """Show the commit REVISION and what it changed. That is against its first parent; with :PATH, an entry of it is
    shown.

    Of a directory the entries are listed, of a sample or file the facts are told. REVISION is as for log;
    default: the tip of the branch you stand in. A colon alone is the root directory.

    \b
    Example:
      arborfs -C data show main~1
      arborfs -C data show v1.0:images
      arborfs -C data show v1.0:images/0.npy --json
    """
    revision, path = split_object(object_)
    with location.open() as engine:
        digest = engine.resolve(revision or location.branch(engine))
        if path is None:
            _show_commit(engine, digest, every, as_json)
        else:
            _show_entry(engine, engine.snapshot(digest), path, as_json)


def _show_commit(engine: Engine, digest: Digest, every: bool, as_json: bool) -> None:
    record = engine.commit_record(digest)
    changes = engine.diff(record.parents[0] if record.parents else None, digest)
    names = names_of(engine)
    if as_json:
        listed = [change_json(each.path, each.change, _kind(each)) for each in changes]
        print_json(commit_json(digest, record, names) | {"changes": listed})
        return
    click.echo(commit_text(engine, digest, record, names) + "\n")
    for line in _change_lines(changes, LISTED if not every else None):
        click.echo(line)


def _kind(change: Difference) -> Kind:
    entry = change.new or change.old
    assert entry is not None
    return entry.kind


def _change_lines(changes: Iterable[Difference], limit: int | None) -> Iterator[str]:
    """One line per change; what goes past `limit` in one directory is counted instead."""
    seen: Counter[tuple[Path, str]] = Counter()
    for each in changes:
        group = each.path[:-1], each.change
        seen[group] += 1
        if limit is None or seen[group] <= limit:
            yield change_text(each.path, each.change, _kind(each))
    if not seen:
        yield "  no changes"
    if limit is not None:
        for (directory, change), number in seen.items():
            if number > limit:
                yield f"  {change:8} {number - limit:,} more in {shown(directory)}/"


def _show_entry(engine: Engine, snapshot: Snapshot, path: Path, as_json: bool) -> None:
    entry = snapshot.entry(path)
    dataset = snapshot.entry(path[:-1]).schema if path else None
    facts = _facts(path, entry, dataset) | {"commit": hexed(snapshot.commit)}
    if entry.is_directory:
        rows = ((name, below) for name, below in snapshot.entries(path))
        if as_json:
            print_json(facts | {"entries": [_facts((*path, name), row, entry.schema) for name, row in rows]})
            return
        schema = f"dataset of {schema_text(entry.schema)}, " if entry.schema else ""
        click.echo(f"{shown(path)}: {schema}{counted(entry.count, 'entry', 'entries')}, {size_text(entry.size)}")
        for name, below in rows:
            click.echo(f"  {below.kind.name.lower():9} {size_text(below.size):>8}  {shown((name,))}")
        return
    if entry.kind is not Kind.SYMLINK:
        chunks = snapshot.content(entry, dataset).chunks
        facts["chunks"] = [{"digest": hexed(chunk.digest), "size": chunk.length} for chunk in chunks]
    if as_json:
        print_json(facts)
        return
    facts["commit"] = engine.abbreviation(snapshot.commit)
    facts["size"] = f"{entry.size:,} bytes"
    if entry.mtime:
        facts["modified"] = local_time(entry.mtime)
    if "chunks" in facts:
        facts["chunks"] = f"{len(facts['chunks']):,}" if facts["chunks"] else "none: the value lies in the directory"
    for fact, value in facts.items():
        click.echo(f"{fact + ':':10} {value}")


def _facts(path: Path, entry: Entry, dataset: Schema | None) -> dict[str, Any]:
    """What is known of an entry without reading its contents."""
    facts: dict[str, Any] = {"path": path_text(path), "kind": entry.kind.name.lower(), "size": entry.size}
    if entry.mtime:
        facts["modified"] = json_time(entry.mtime)
    mode = entry.attributes.mode
    facts["mode"] = f"{DEFAULT_MODES.get(entry.kind, 0o644) if mode is None else mode:04o}"
    if entry.kind is Kind.SAMPLE and dataset is not None:
        facts["dtype"] = dataset.dtype
        facts["shape"] = list(entry.attributes.shape or dataset.shape)
    elif entry.kind is Kind.SYMLINK and isinstance(entry.value, bytes):
        facts["target"] = entry.value.decode("utf-8", "backslashreplace")
    if entry.schema is not None:
        facts["schema"] = schema_json(entry.schema)
    return facts


def schema_json(schema: Schema) -> dict[str, Any]:
    """What a dataset holds, for programs."""
    return {
        "kind": schema.holds,
        "nested": schema.nested,
        "dtype": schema.dtype if schema.holds == "array" else None,
        "shape": list(schema.shape),
        "variable": schema.variable,
        "compression": schema.compression or None,
    }


def schema_text(schema: Schema) -> str:
    """What a dataset holds, for people."""
    nested = "nested " if schema.nested else ""
    if schema.holds != "array":
        return nested + schema.holds
    shape = " x ".join(map(str, schema.shape)) or "scalars"
    return f"{nested}{schema.dtype} {'at most ' if schema.variable else ''}{shape}"
