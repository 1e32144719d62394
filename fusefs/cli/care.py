"""Looking after a repository: `verify` and `rebuild`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from fusefs.cli.location import Location
from fusefs.cli.output import counted, json_option, print_json
from fusefs.cli.progress import progress, quiet_option
from storage.errors import Corrupt
from storage.maintenance.rebuild import Problem
from storage.maintenance.rebuild import rebuild as rebuild_index
from storage.maintenance.verify import verify as find_problems


def _report(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(f"{problem.what}\n  {problem.digest} at {problem.where}\n  {problem.advice}")


@click.command()
@quiet_option
@json_option
@click.pass_context
def verify(context: click.Context, quiet: bool, as_json: bool) -> None:
    """Read all that the repository holds, and check its digests. The index is held against what it was made from.

    Changes nothing. Others may go on working; `gc` waits. Exit code 6 when something is damaged; what, where and what
    to do is printed.

    \b
    Example:
      arborfs -C data verify
    """
    with context.obj.open() as engine:
        with progress("reading", quiet=quiet or as_json) as on_progress:
            problems = find_problems(engine, on_progress)
        commits = len(engine.commits())
    if as_json:
        print_json([asdict(problem) for problem in problems])
    else:
        _report(problems)
        verdict = counted(len(problems), "problem") if problems else "everything is as it was stored"
        click.echo(f"{counted(commits, 'commit')} checked: {verdict}.")
    if problems:
        context.exit(Corrupt.exit_code)


@click.command()
@quiet_option
@json_option
@click.pass_context
def rebuild(context: click.Context, quiet: bool, as_json: bool) -> None:
    """Make the index anew from the segments, which hold everything.

    Nothing is lost, staged work included. It happens by itself when the index is missing or the machine went
    down without closing the repository; this command is for doubts about a disk. Nobody else may have the
    repository open.

    \b
    Example:
      arborfs -C data rebuild
    """
    location: Location = context.obj
    with progress("reading", quiet=quiet or as_json) as on_progress:
        report = rebuild_index(location.repository(), on_progress)
    if as_json:
        print_json(asdict(report))
    else:
        _report(report.problems)
        click.echo(
            f"Index rebuilt: {counted(report.records, 'record')}, {counted(report.commits, 'commit')}, "
            f"{counted(report.staged, 'staged row')}."
        )
    if report.problems:
        context.exit(Corrupt.exit_code)
