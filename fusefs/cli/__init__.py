"""The command line: `arborfs`, and the helper behind `mount -t arborfs`.

One small file per family of commands. This package alone reads the environment (through click's `envvar`),
prints, and turns errors into exit codes; everything below it is handed what it needs.
"""

from fusefs.cli.commands import main

__all__ = ["main"]
