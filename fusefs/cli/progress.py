"""One line on a terminal that says how far long work is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from fusefs.cli.output import size_text

INTERVAL = 0.2
"""Seconds between two states of the line."""

Progress = Callable[[int, int], None]

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
"""Gives a command the flag --quiet."""


@contextmanager
def progress(doing: str, *, quiet: bool) -> Iterator[Progress | None]:
    """A callback for bytes done, of how many; None where nobody looks: `quiet`, or standard error is no terminal.

    The line is gone when the block ends.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    line = _Line(doing)
    try:
        yield line.show
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


class _Line:
    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._start = time.monotonic()
        self._next = 0.0

    def show(self, done: int, total: int) -> None:
        """Write the line anew, unless it is young."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL
        rate = done / max(now - self._start, 0.001)
        share = f"{100 * done // total:3} %" if total else ""
        text = f"{self._doing} {share} {size_text(done)} of {size_text(total)}, {size_text(int(rate))}/s"
        click.echo(f"\r{text}\x1b[K", nl=False, err=True)
