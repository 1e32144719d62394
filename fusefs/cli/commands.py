"""The group of all commands, the options they share, and how an error becomes an exit code."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from fusefs.cli import (
    back,
    care,
    completion,
    dataset,
    diff,
    doctor,
    history,
    init,
    log,
    merging,
    mounting,
    oplog,
    refs,
    show,
    space,
    stats,
    summary,
    transfer,
    view,
    writer_lock,
)
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


class Commands(click.Group):
    """A group whose commands may raise what the storage raises."""

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
            ctx.exit(transfer.INTERRUPTED)
        except click.Abort as error:
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            ctx.exit(transfer.INTERRUPTED)  # at a question
        except OSError as error:
            click.echo(f"Error: {described(error)}", err=True)
            ctx.exit(1)


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("arborfs"), prog_name="arborfs")
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
    if os.environ.get("NO_COLOR"):
        context.color = False
    context.obj = Location(repository)


for command in (
    init.init,
    mounting.mount,
    mounting.umount,
    mounting.mounts,
    stats.stats,
    history.status,
    log.log,
    history.commit,
    show.show,
    diff.diff,
    merging.merge,
    merging.resolve,
    merging.revert,
    merging.cherry_pick,
    refs.branch,
    refs.checkout,
    refs.tag,
    dataset.dataset,
    view.view,
    summary.summary,
    back.reset,
    back.restore,
    oplog.undo,
    oplog.op,
    transfer.import_,
    transfer.export,
    doctor.doctor,
    care.verify,
    care.rebuild,
    space.du,
    space.gc,
    writer_lock.writer_lock,
    completion.completion,
):
    main.add_command(command)
