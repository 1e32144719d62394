"""The group of all commands, the options they share, and how an error becomes an exit code."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from fusefs.cli.interrupts import INTERRUPTED, raise_again
from fusefs.cli.location import Location
from storage.errors import ArborError

EXIT_CODES = """\b
Exit codes:
  0  done
  1  the system refused: a mount, a file, a process; or a message was left empty
  2  the call cannot be right: change it
  3  something that was named is not there
  4  right call, wrong moment: the text says what to do first
  5  someone else holds it: wait, or take it over
  6  bytes on the disk are wrong or cannot be kept
  130  interrupted by Ctrl-C
"""


def described(error: OSError) -> str:
    """What the system said, and about which file."""
    said = error.strerror or str(error)
    return f"{error.filename}: {said}" if error.filename else said


COMMANDS = {
    "init": "init:init",
    "mount": "mounting:mount",
    "umount": "mounting:umount",
    "mounts": "mounting:mounts",
    "stats": "stats:stats",
    "status": "history:status",
    "log": "log:log",
    "commit": "history:commit",
    "show": "show:show",
    "diff": "diff:diff",
    "merge": "merging:merge",
    "resolve": "merging:resolve",
    "revert": "merging:revert",
    "cherry-pick": "merging:cherry_pick",
    "branch": "refs:branch",
    "checkout": "refs:checkout",
    "tag": "refs:tag",
    "dataset": "dataset:dataset",
    "view": "view:view",
    "summary": "summary:summary",
    "reset": "back:reset",
    "restore": "back:restore",
    "undo": "oplog:undo",
    "op": "oplog:op",
    "import": "transfer:import_",
    "export": "transfer:export",
    "tracker": "tracker:tracker",
    "doctor": "doctor:doctor",
    "verify": "care:verify",
    "rebuild": "care:rebuild",
    "du": "space:du",
    "gc": "space:gc",
    "writer-lock": "writer_lock:writer_lock",
    "completion": "shells:completion",
}
"""Each command's module in this package, and its name there. What is not called is not imported: that would take longer
than most commands do.
"""


class Commands(click.Group):
    """A group whose commands may raise what the storage raises."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None where there is none."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(import_module(f"fusefs.cli.{module}"), name)
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, or complete what a shell asks for."""
        if "_ARBORFS_COMPLETE" in os.environ:
            import_module("fusefs.cli.shells")  # ours take the place of click's
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours or of the system becomes a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except ArborError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise  # click ends quietly when the reader of our output has left
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except click.Abort as error:
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            ctx.exit(INTERRUPTED)  # at a question
        except OSError as error:
            click.echo(f"Error: {described(error)}", err=True)
            ctx.exit(1)


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="arborfs", prog_name="arborfs")
@click.option(
    "-C",
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="ARBORFS_REPOSITORY",
    show_envvar=True,
    help="The repository's folder. Default: the working directory, or the nearest parent that holds one; "
    "in a mount, the repository that is mounted.",
)
@click.pass_context
def main(context: click.Context, repository: Path | None) -> None:
    """A versioned dataset repository that you mount.

    \b
    Example:
      arborfs init data --name "Ada Lovelace" --email ada@example.org
      arborfs mount data /mnt/data
      cp -r measurements /mnt/data/branches/main/
      arborfs -C data commit -m "first measurements"
      arborfs umount /mnt/data
    """
    raise_again()  # the command is imported, and from here on may have something to finish
    if os.environ.get("NO_COLOR"):
        context.color = False
    context.obj = Location(repository)
