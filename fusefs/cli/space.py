"""The room a repository takes: `du` and `gc`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from fusefs.cli.location import Location, split_object
from fusefs.cli.output import counted, json_option, print_json, printable, shown, size_text
from fusefs.cli.progress import progress, quiet_option
from storage.engine import Engine
from storage.errors import Corrupt
from storage.maintenance.du import Room, overlap, room
from storage.maintenance.gc import SECOND, Collection, Policy
from storage.maintenance.gc import gc as collect
from storage.model.digest import hexed
from storage.model.records import Entry

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Duration(click.ParamType[int]):
    """A time span such as 30d, 12h, 10m or 0, as nanoseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The span in nanoseconds."""
        match = re.fullmatch(r"(\d+)([smhdw]?)", str(value))
        if match is None or (not match[2] and match[1].strip("0")):
            self.fail(f"{value!r} is no time span: write 30d, 12h, 10m or 90s", param, ctx)
        return int(match[1]) * _UNITS[match[2]] * SECOND


@click.command()
@click.option(
    "--keep",
    type=Duration(),
    default="30d",
    show_default=True,
    help="Keep what the operation log of this time can bring back.",
)
@click.option(
    "--grace",
    type=Duration(),
    default="1h",
    show_default=True,
    help="While others have the repository open: delete only what nothing has led to for this time.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@quiet_option
@json_option
@click.pass_context
def gc(context: click.Context, keep: int, grace: int, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """Give the disk back what nothing leads to any more.

    Kept is everything that branches, tags, staged work and open snapshots lead to, and what `arborfs undo` could bring
    back. Others may have the repository mounted and go on working; then a first gc marks what could go, and another one,
    after the grace time, deletes it. Exit code 5 when another gc runs, 6 when something is damaged: then nothing that may
    still be needed is deleted.

    \b
    Example:
      arborfs -C data gc --dry-run
      arborfs -C data gc --keep 7d
    """
    location: Location = context.obj
    with progress("copying", quiet=quiet or as_json) as on_progress:
        done = collect(location.repository(), Policy(keep, grace), dry_run=dry_run, on_progress=on_progress)
    if as_json:
        print_json(_collection_json(done))
    else:
        _print_collection(done)
    if done.compaction.problems:
        context.exit(Corrupt.exit_code)


@click.command()
@click.argument("targets", metavar="[REVISION][:PATH]...", nargs=-1)
@click.option(
    "--stored", is_flag=True, help="Also what each takes in the repository: a walk of it, not a look at a counter."
)
@json_option
@click.pass_obj
def du(location: Location, targets: tuple[str, ...], stored: bool, as_json: bool) -> None:
    """Show the size of commits, or of what is in them.

    One is listed with what is directly in it. Of two it is told how much only the first one needs, how much only the
    other one, and how much they share: bytes of objects (contents and tree nodes, equal ones once), and the same as
    stored, packed. REVISION is as for log; default: the tip of the branch you stand in.

    \b
    Example:
      arborfs -C data du
      arborfs -C data du v1.0:images
      arborfs -C data du v1.0 main
    """
    with location.open() as engine:
        found = [_Target(engine, location, text) for text in targets or ("",)]
        measured = [target.facts(stored) for target in found]
        shared = overlap(engine, found[0].entry, found[1].entry) if len(found) == 2 else None
        listed = list(found[0].children(stored)) if len(found) == 1 else []
        if as_json:
            print_json(
                {
                    "targets": measured,
                    "entries": listed,
                    "overlap": None if shared is None else asdict(shared),
                }
            )
            return
        for facts in [*listed, *measured]:
            click.echo(_facts_line(facts))
        if shared is not None:
            click.echo(f"\n{'':24}{'objects':>10} {'bytes':>10} {'stored':>10}")
            for what, part in (("only in the first", shared.first), ("only in the second", shared.second)):
                click.echo(_room_line(what, part))
            click.echo(_room_line("in both", shared.shared))


class _Target:
    """One argument of du: a commit's tree, or something in it."""

    def __init__(self, engine: Engine, location: Location, text: str) -> None:
        revision, path = split_object(text)
        self._engine = engine
        self._snapshot = engine.snapshot(engine.resolve(revision or location.branch(engine)))
        self._path = path or ()
        self._text = text or shown(self._path)
        self.entry = self._snapshot.entry(self._path)

    def facts(self, stored: bool) -> dict[str, Any]:
        """What is told of it."""
        return self._facts(self._text, self.entry, stored)

    def children(self, stored: bool) -> Iterator[dict[str, Any]]:
        """What is told of each directory directly in it, and of all files there together."""
        if not self.entry.is_directory:
            return
        files = 0
        for name, entry in self._snapshot.entries(self._path):
            if entry.is_directory:
                yield self._facts(shown((*self._path, name)) + "/", entry, stored)
            else:
                files += entry.size
        if files:
            yield {"name": "files in " + shown(self._path) + "/", "bytes": files}

    def _facts(self, name: str, entry: Entry, stored: bool) -> dict[str, Any]:
        facts: dict[str, Any] = {"name": name, "bytes": entry.size}
        if entry.is_directory:
            facts["entries"] = entry.count
        if stored:
            facts["stored"] = room(self._engine, entry).stored
        return facts


def _facts_line(facts: dict[str, Any]) -> str:
    columns = f"{size_text(facts['bytes']):>10}"
    if "stored" in facts:
        columns += f" {size_text(facts['stored']):>10} stored"
    entries = f"  {counted(facts['entries'], 'entry', 'entries')}" if "entries" in facts else ""
    return f"{columns}  {printable(facts['name'])}{entries}"


def _room_line(what: str, part: Room) -> str:
    return f"{what:24}{part.objects:>10,} {size_text(part.bytes):>10} {size_text(part.stored):>10}"


def _collection_json(done: Collection) -> dict[str, Any]:
    compaction = done.compaction
    return {
        "dry_run": done.dry_run,
        "commits": [hexed(commit) for commit in done.commits],
        "deleted": {"objects": done.deleted, "bytes": done.deleted_bytes},
        "waiting": {"objects": done.waiting, "bytes": done.waiting_bytes},
        "pins": done.pins,
        "freed": done.freed,
        "segments": {"rewritten": compaction.rewritten, "removed": compaction.removed, "busy": compaction.busy},
        "problems": [problem.what for problem in compaction.problems],
    }


def _print_collection(done: Collection) -> None:
    deleted, freed = ("would be deleted", "would be freed") if done.dry_run else ("deleted", "freed")
    click.echo(f"{counted(len(done.commits), 'commit')} that nothing leads to.")
    click.echo(f"{counted(done.deleted, 'object')} {deleted}, {size_text(done.freed)} {freed}.")
    if done.waiting:
        click.echo(
            f"{counted(done.waiting, 'object')} of {size_text(done.waiting_bytes)} can go when the grace time is over: "
            "others have the repository open. Run gc again then."
        )
    if done.compaction.busy:
        click.echo(f"{counted(done.compaction.busy, 'file')} could not be made smaller: somebody is writing to it.")
    for problem in done.compaction.problems:
        click.echo(f"{problem.what}\n  {problem.advice}")
