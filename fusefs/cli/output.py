"""How values look on the terminal and as JSON."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from storage.model.names import Path as TreePath
from storage.model.names import path_text
from storage.model.texts import printable as printable

Command = TypeVar("Command", bound=Callable[..., Any])

NARROWEST = 8
"""A column of a table is not made narrower than this many cells, however narrow the terminal is."""
_GAP = "  "
_ELLIPSIS = "…"


def json_option(command: Command) -> Command:
    """Give a command the flag --json, handed to it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs to read.")(command)


def list_by_default(context: click.Context, listing: click.Command, as_json: bool) -> None:
    """What a group does: without a subcommand it lists."""
    if context.invoked_subcommand is None:
        context.invoke(listing, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"Put --json behind {context.invoked_subcommand}.")


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def shown(path: TreePath) -> str:
    """A path of a tree for people: `.` for the root."""
    return printable(path_text(path))


def moment(nanoseconds: int) -> datetime:
    """A time of the repository, in UTC, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def local_time(nanoseconds: int) -> str:
    """A time for people, in the zone of this machine."""
    return moment(nanoseconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def json_time(nanoseconds: int) -> str:
    """A time for programs: ISO 8601, UTC."""
    return moment(nanoseconds).isoformat()


def size_text(size: int) -> str:
    """A number of bytes in three digits or so: 192 B, 3.4 kB, 1.2 GB."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 1000 or unit == "TB":
            break
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 change`, `3 changes`, `1,797 changes`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: two for wide East Asian characters, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """The text in at most `width` cells: what is too much goes from its middle, and … stands there."""
    if cells(text) <= width:
        return text
    tail = _beginning(text[::-1], (width - 1) // 2)[::-1]
    return _beginning(text, width - 1 - cells(tail)) + _ELLIPSIS + tail


def _beginning(text: str, width: int) -> str:
    """As many characters from the left as fit."""
    taken = 0
    for position, character in enumerate(text):
        taken += _cells(character)
        if taken > width:
            return text[:position]
    return text


def terminal_width() -> int | None:
    """How many columns standard output has; None where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(rows: Iterable[Sequence[str]], headings: Sequence[str] = ()) -> None:
    """Rows under one another on standard output, shortened to the terminal's width; whole where it is no terminal."""
    for line in table_lines(rows, headings, terminal_width()):
        click.echo(line)


def table_lines(rows: Iterable[Sequence[str]], headings: Sequence[str] = (), width: int | None = None) -> list[str]:
    """The lines of a table; with `width`, none takes more cells as long as its columns can be made narrow enough.

    All rows have the same number of columns; none of them holds control characters.
    """
    table = ([list(headings)] if headings else []) + [list(row) for row in rows]
    if not table:
        return []
    widths = [max(map(cells, column)) for column in zip(*table, strict=True)]
    if width is not None:
        widths = fitted(widths, width - len(_GAP) * (len(widths) - 1))
        table = [[shortened(cell, least) for cell, least in zip(row, widths, strict=True)] for row in table]
    return [_GAP.join(map(_padded, row, widths)).rstrip() for row in table]


def fitted(widths: Sequence[int], room: int) -> list[int]:
    """Column widths that sum up to at most `room`: the widest give way first, down to NARROWEST."""
    low, high = NARROWEST, max(NARROWEST, *widths)
    while low < high:  # the greatest limit on each column with which all of them fit
        limit = (low + high + 1) // 2
        low, high = (limit, high) if sum(min(n, limit) for n in widths) <= room else (low, limit - 1)
    found = [min(n, low) for n in widths]
    spare = room - sum(found)
    for i, wanted in enumerate(widths):
        more = max(0, min(wanted - found[i], spare))
        found[i] += more
        spare -= more
    return found


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))
