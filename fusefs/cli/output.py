"""How values look on the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from storage.model.names import Path as TreePath
from storage.model.names import path_text
from storage.model.names import printable as printable

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Give a command the flag --json, handed to it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs to read.")(command)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def shown(path: TreePath) -> str:
    """A path of a tree for people: `.` for the root."""
    return printable(path_text(path)) or "."


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
