"""`arborfs writer-lock`: who may write by the Python API, and taking that right away."""

from __future__ import annotations

import click

from fusefs.cli.completion import branches
from fusefs.cli.location import Location
from fusefs.cli.output import json_option, print_json, print_table


@click.command("writer-lock")
@click.option("--force-release", is_flag=True, help="Take the lock away from whoever holds it.")
@click.option("--branch", shell_complete=branches, help="Only the lock of this branch. Default: those of all.")
@json_option
@click.pass_obj
def writer_lock(location: Location, force_release: bool, branch: str | None, as_json: bool) -> None:
    """Tell whether a writer checkout is open. It is one of the Python API, on a branch and in a process that are told.

    The lock of a process that has ended heals itself. --force-release is for one that lives and will never close its
    checkout: two writers on one branch may overwrite each other's samples.

    \b
    Example:
      arborfs -C data writer-lock
      arborfs -C data writer-lock --force-release
    """
    with location.open() as engine:
        if branch is not None:
            engine.working_tree(branch)  # says which branch is not there
        asked = sorted(engine.branches()) if branch is None else [branch]
        owners = {name: owner.pid for name in asked if (owner := engine.writer_held(name)) is not None}
        if force_release:
            engine.force_release_writer(branch)
    if as_json:
        held = [{"branch": name, "pid": pid} for name, pid in owners.items()]
        print_json({"held": held if not force_release else [], "released": held if force_release else []})
    elif force_release:
        click.echo("Success force release of writer lock.")
    else:
        click.echo("Writer lock is held." if owners else "Writer lock is available.")
        print_table((f"  {name}", f"process {pid}") for name, pid in owners.items())
