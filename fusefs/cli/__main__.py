"""`python -m fusefs.cli`: the same as `arborfs`, whatever PATH says."""

from fusefs.cli import main

main()
