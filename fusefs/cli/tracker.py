"""`tracker`: how far the tasks of a tracker are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from fusefs.cli.output import counted, json_option, print_json
from storage.pods.progress import Counts, fraction, percent
from storage.pods.tasks import TaskReader
from storage.pods.tracker import ProgressTracker

BAR = 40
"""Characters."""


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-f", "--follow", is_flag=True, help="Go on until no task is left to do, with a line for each change.")
@click.option("--interval", default=1.0, show_default=True, metavar="SECONDS", help="How often --follow looks.")
@json_option
def tracker(path: Path, follow: bool, interval: float, as_json: bool) -> None:
    """Show how far the tracker at PATH is, also while workers run.

    PATH is in a mount or in a repository's folder. Tried are tasks that were begun at least once; what is neither done nor
    given up is still to do. With --follow and --json an object is printed for each change.

    \b
    Example:
      arborfs tracker data/tasks
      arborfs tracker data/tasks --follow
    """
    tasks = ProgressTracker(path, mode="r")
    before = None
    while True:
        counts = tasks.counts()
        if counts != before:
            if as_json:
                print_json(_facts(tasks, counts))
            else:
                click.echo(_line(counts))
        before = counts
        if not follow or not counts.todo:
            return
        time.sleep(max(interval, 0.01))


def _facts(tasks: TaskReader, counts: Counts) -> dict[str, Any]:
    return {"path": tasks.path, **counts._asdict(), "fraction_done": fraction(counts.done, counts.total)}


def _line(counts: Counts) -> str:
    share = fraction(counts.done, counts.total)
    bar = "█" * int(BAR * share)
    tried = f"{counts.tried:,} tried, {counted(counts.tries, 'time')} in all"
    return (
        f"{bar:·<{BAR}} {percent(share, 1)}: {counts.done:,} of {counted(counts.total, 'task')} done, "
        f"{counts.todo:,} to do, {counts.aborted:,} given up; {tried}"
    )
