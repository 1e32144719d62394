"""`doctor`: what is wrong with this machine or a repository, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from fusefs import mountinfo
from fusefs.checkup import examine_logs, examine_machine, examine_mounts, examine_place
from fusefs.cli.location import Location
from fusefs.cli.output import json_option, print_json, printable
from storage.errors import NotARepository
from storage.maintenance.checkup import Finding, Verdict, examine


@click.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@json_option
@click.pass_context
def doctor(context: click.Context, path: Path | None, as_json: bool) -> None:
    """Say what is wrong with mounts and repositories here. That is this machine, its mounts and the repository at PATH;
    and what to do.

    PATH is a repository or a mount of one; without it the repository is found as for other commands, and need not
    be there. Changes nothing, and reads little: `verify` reads all of a repository. Exit code 1 when something is
    in the way.

    \b
    Example:
      arborfs doctor data
    """
    findings = list(_findings(_repository(context.obj, path)))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.verdict.upper() if finding.verdict is not Verdict.FINE else 'ok':8} ", nl=False)
            click.echo(printable(finding.what))
            if finding.advice:
                click.echo(f"{'':9}{printable(finding.advice)}")
    if any(finding.verdict is Verdict.PROBLEM for finding in findings):
        context.exit(1)


def _findings(repository: Path | None) -> Iterator[Finding]:
    yield from examine_machine()
    yield from examine_mounts()
    if repository is not None:
        yield from examine_place(repository)
        yield from examine(repository)
        yield from examine_logs(repository)


def _repository(location: Location, path: Path | None) -> Path | None:
    if path is not None:
        mount = mountinfo.mounted_at(path)
        return path.absolute() if mount is None else mount.repository
    try:
        return location.repository()
    except NotARepository:
        return None
