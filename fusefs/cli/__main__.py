"""`python -m fusefs.cli`: the same as `arborfs`, whatever PATH says."""

from fusefs.cli.commands import main

main(prog_name="arborfs")
