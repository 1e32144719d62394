"""The operation log: `op log`, `op restore`, `undo`."""

from __future__ import annotations

from typing import Any

import click

from fusefs.cli.location import Location
from fusefs.cli.output import counted, json_option, json_time, list_by_default, local_time, print_json, printable
from storage.stores.revisions import Operation

SHOWN_DIGITS = 16


def moved_lines(changes: list[tuple[str, str, str]]) -> list[str]:
    """A line for each ref that moved: from where to where."""
    return [f"  {name:20} {_place(old)} -> {_place(new)}" for name, old, new in changes if old != new]


def _place(value: str) -> str:
    if not value:
        return "nothing"
    if len(value) == 64:
        return value[:SHOWN_DIGITS] if value.strip("0") else "no commit yet"
    return value


def operation_json(operation: Operation) -> dict[str, Any]:
    """One operation for programs."""
    return {
        "number": operation.number,
        "time": json_time(operation.time),
        "author": operation.author,
        "description": operation.description,
        "moved": [{"ref": name, "old": old or None, "new": new or None} for name, old, new in operation.changes],
    }


@click.group("op", invoke_without_command=True)
@json_option
@click.pass_context
def op(context: click.Context, as_json: bool) -> None:
    """The operation log: whatever moved a branch, a tag or HEAD. Without a subcommand, list it.

    \b
    Example:
      arborfs -C data op log -n 5
      arborfs -C data op restore 12
    """
    list_by_default(context, op_log, as_json)


@op.command("log")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Stop after so many operations.")
@json_option
@click.pass_obj
def op_log(location: Location, limit: int | None = None, as_json: bool = False) -> None:
    """List the operations, newest first. Number, time, author, what was done, and what moved.

    \b
    Example:
      arborfs -C data op log -n 5
      arborfs -C data op log --json
    """
    with location.open() as engine:
        operations = engine.operations(limit)
    if as_json:
        print_json([operation_json(operation) for operation in operations])
        return
    for each in operations:
        click.echo(f"{each.number:5}  {local_time(each.time)}  {printable(each.author)}  {printable(each.description)}")
        for line in moved_lines(each.changes):
            click.echo("     " + line)


@op.command("restore")
@click.argument("number", type=click.IntRange(min=1))
@json_option
@click.pass_obj
def op_restore(location: Location, number: int, as_json: bool) -> None:
    """Bring branches, tags and HEAD back to operation NUMBER. All are then as they were after it.

    Files in working trees stay as they are: what differs from the tips is staged afterwards. Removed branches come back with
    what was staged on them. This is an operation, too: undo takes it back.

    \b
    Example:
      arborfs -C data op restore 12
    """
    with location.open() as engine:
        engine.restore_operation(number)
        made = engine.operations(1)[0]
    if as_json:
        print_json(operation_json(made))
        return
    moved = made.changes
    click.echo(f"As after operation {number} again, {counted(len(moved), 'ref')} moved")
    for line in moved_lines(moved):
        click.echo(line)


@click.command()
@click.argument("number", type=click.IntRange(min=1), required=False)
@json_option
@click.pass_obj
def undo(location: Location, number: int | None, as_json: bool) -> None:
    """Take back the last operation, whatever it was. Or operation NUMBER of the operation log; undo again to do it
    again.

    What a commit took comes back as staged work: no file changes. A deleted branch comes back with what was staged on it,
    and so does what a reset dropped. Exit code 5 where a branch or tag has moved since: nothing is changed then.

    \b
    Example:
      arborfs -C data undo
      arborfs -C data undo 12
    """
    with location.open() as engine:
        undone = engine.undo(number)
        made = engine.operations(1)[0]
    if as_json:
        print_json({"undone": operation_json(undone), "made": operation_json(made)})
        return
    click.echo(f"Undone: {undone.number} {printable(undone.description)}")
    for line in moved_lines(made.changes):
        click.echo(line)
