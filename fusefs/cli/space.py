"""The room a repository takes: `gc`."""

from __future__ import annotations

import re
from typing import Any

import click

from fusefs.cli.location import Location
from fusefs.cli.output import counted, json_option, print_json, size_text
from fusefs.cli.progress import progress, quiet_option
from storage.errors import Corrupt
from storage.maintenance.gc import SECOND, Collection, Policy
from storage.maintenance.gc import gc as collect
from storage.model.digest import hexed

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
