"""The command line, run in this process on real repositories."""

from __future__ import annotations

import json

import click
from click.testing import CliRunner

from fusefs.cli.commands import main
from storage.engine import Engine
from storage.model.samples import BytesSource


def run(*words, **settings):
    return CliRunner().invoke(main, list(map(str, words)), **settings)


class Cli:
    """Runs commands on one repository; the last answer stays readable."""

    def __init__(self, repository):
        self.repository = repository

    def __call__(self, *words, code=0):
        result = CliRunner().invoke(main, ["-C", str(self.repository), *words], catch_exceptions=False)
        assert result.exit_code == code, f"{words} ended with {result.exit_code}: {result.output}"
        return result.output

    def json(self, *words):
        return json.loads(self(*words, "--json"))


def stage(repository, name, data=b"x", branch="main"):
    """Write one file to the top of a branch."""
    engine = Engine.open(repository)
    engine.working_tree(branch).put_file((name.encode(),), BytesSource(data), mtime=1_700_000_000_000_000_000)
    engine.close()


def committed(cli, name, message="one more"):
    """The id of a commit that adds the file `name`."""
    stage(cli.repository, name)
    return cli.json("commit", "-m", message)["commit"]


def all_commands(command, words=()):
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from all_commands(command.get_command(context, name), (*words, name))
