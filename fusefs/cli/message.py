"""The message of a commit: as given, or as the user's editor leaves it."""

from __future__ import annotations

import os
import sys

import click

COMMENT = "#"

_HELP = """\
Write above what changed, and why.
Lines that begin with # are left out; without any others, nothing is committed.
"""


def require_editor() -> None:
    """UsageError where no editor is named, and there is no terminal to look for one."""
    if not (os.environ.get("VISUAL") or os.environ.get("EDITOR") or sys.stdin.isatty()):
        raise click.UsageError("Say what changed with -m, or set EDITOR to a program to write it with.")


def edited(status: str) -> str:
    """What the user wrote in $VISUAL or $EDITOR, with the status before their eyes; empty where they wrote nothing.

    ClickException where the editor fails.
    """
    comments = "".join(f"{COMMENT} {line}".rstrip() + "\n" for line in (_HELP + "\n" + status).splitlines())
    # What is read is the file of that name, so that an editor may put another one in its place.
    return message_in(click.edit("\n" + comments, require_save=False) or "")


def message_in(text: str) -> str:
    """A text without its comments, and without blank lines around it."""
    lines = (line.rstrip() for line in text.splitlines() if not line.startswith(COMMENT))
    return "\n".join(lines).strip("\n")
