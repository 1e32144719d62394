"""The command line: `arborfs`, and the helper behind `mount -t arborfs`.

One small file per family of commands. This package alone reads the environment (through click's `envvar`),
prints, and turns errors into exit codes; everything below it is handed what it needs.
"""

from fusefs.cli import interrupts


def main() -> None:
    """Run `arborfs` on this process's arguments; ends the process."""
    interrupts.leave_at_once()
    from fusefs.cli.commands import main as commands  # here: what takes long comes after Ctrl-C is seen to

    try:
        commands(prog_name="arborfs")
    finally:
        interrupts.leave_at_once()  # all is done but the interpreter's own end
