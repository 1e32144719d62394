"""`arborfs summary`: what a commit holds, and how large the repository is."""

from __future__ import annotations

from typing import Any

import click

from fusefs.cli.completion import revisions
from fusefs.cli.history import commit_json, names_of
from fusefs.cli.location import Location
from fusefs.cli.output import json_option, print_json
from fusefs.cli.show import schema_json
from storage.config import folder
from storage.dataset_reader import dataset_name
from storage.datasets import dataset_paths
from storage.engine import Engine
from storage.model.digest import Digest
from storage.reports import summary_text


@click.command()
@click.argument("revision", default="", shell_complete=revisions)
@json_option
@click.pass_obj
def summary(location: Location, revision: str, as_json: bool) -> None:
    """Sum up the repository and what REVISION holds. That is its datasets, their schemas and numbers of samples.

    REVISION is as for log; default: the tip of the branch you stand in.

    \b
    Example:
      arborfs -C data summary
      arborfs -C data summary v1.0 --json
    """
    with location.open() as engine:
        commit = engine.resolve(revision) if revision else engine.branches().get(location.branch(engine))
        if as_json:
            print_json(_json(engine, commit))
        else:
            click.echo(summary_text(engine, commit))


def _json(engine: Engine, commit: Digest | None) -> dict[str, Any]:
    told: dict[str, Any] = {"directory": str(folder(engine.path)), "disk_usage": engine.disk_usage()}
    if commit is None:
        return told | {"commit": None, "datasets": []}
    snapshot = engine.snapshot(commit)
    datasets = [
        {"name": dataset_name(path), "samples": snapshot.count_samples(path)} | schema_json(schema)
        for path, schema in dataset_paths(snapshot)
    ]
    return told | {"commit": commit_json(commit, snapshot.record, names_of(engine)), "datasets": datasets}
