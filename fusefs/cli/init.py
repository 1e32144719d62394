"""`arborfs init`: a new repository."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fusefs.cli.output import json_option, print_json
from storage.config import folder
from storage.engine import Engine
from storage.home import delete_data
from storage.model.records import Author


def _asked(given: str | None, question: str, option: str) -> str:
    """What was given, or typed at a terminal; a usage error where nobody is there to type."""
    if given is None and sys.stdin.isatty():
        given = click.prompt(question)
    if not given or not given.strip():
        raise click.UsageError(f"Say who makes the commits: {option} is missing.")
    return given.strip()


@click.command()
@click.argument("path", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--name", envvar="ARBORFS_USER_NAME", show_envvar=True, help="Who makes commits here.")
@click.option("--email", envvar="ARBORFS_USER_EMAIL", show_envvar=True, help="Their address.")
@click.option(
    "--overwrite", is_flag=True, help="Delete the repository that is there first, with all its history, for ever."
)
@json_option
def init(path: Path, name: str | None, email: str | None, overwrite: bool, as_json: bool) -> None:
    """Make a repository in the folder PATH (default: here).

    Everything it keeps goes to PATH/.arborfs. Name and email stand in every commit made in it; on a terminal,
    what is not given is asked for.

    \b
    Example:
      arborfs init data --name "Ada Lovelace" --email ada@example.org
    """
    author = Author(_asked(name, "Your name", "--name"), _asked(email, "Your email address", "--email"))
    if overwrite:
        delete_data(folder(path))
    Engine.create(path, author).close()
    if as_json:
        print_json({"repository": str(path.absolute()), "author": {"name": author.name, "email": author.email}})
    else:
        click.echo(f"Repository made at {path.absolute() / '.arborfs'}")
