"""`arborfs dataset`: make, list, rename and remove datasets."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any

import click
import numpy as np

from fusefs.cli.completion import branches, datasets, revisions
from fusefs.cli.location import Location
from fusefs.cli.output import json_option, list_by_default, print_json, print_table, printable
from fusefs.cli.show import schema_json, schema_text
from storage.dataset_reader import dataset_name, dataset_path
from storage.datasets import Datasets, dataset_paths
from storage.errors import NotFound
from storage.model.names import Path
from storage.model.records import Schema
from storage.session import Session
from storage.snapshot import Snapshot
from storage.worktree import WorkingTree


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def dataset(context: click.Context, as_json: bool) -> None:
    """List, make, rename and remove datasets; without a subcommand, list them.

    What is made, renamed or removed is staged: a commit keeps it.

    \b
    Example:
      arborfs -C data dataset create masks UINT8 28 28
      arborfs -C data dataset
    """
    list_by_default(context, list_datasets, as_json)


@dataset.command("list")
@click.argument("revision", default="", shell_complete=revisions)
@json_option
@click.pass_obj
def list_datasets(location: Location, revision: str = "", as_json: bool = False) -> None:
    """List the datasets of REVISION, each with its schema and the number of its samples.

    REVISION is as for log, or a branch with a + behind it: its working tree, staged work included. Default: the working
    tree of the branch you stand in.

    \b
    Example:
      arborfs -C data dataset list
      arborfs -C data dataset list v1.0 --json
    """
    with location.open() as engine:
        tree = location.tree(engine, revision)
        found = [(path, schema, tree.count_samples(path)) for path, schema in dataset_paths(tree)]
    if as_json:
        print_json([_json(*row) for row in found])
    elif found:
        rows = [(printable(dataset_name(path)), schema_text(schema), f"{count:,}") for path, schema, count in found]
        print_table(rows, ("dataset", "schema", "samples"))
    else:
        click.echo("No datasets.", err=True)


def _json(path: Path, schema: Schema, samples: int) -> dict[str, Any]:
    return {"name": dataset_name(path), "samples": samples} | schema_json(schema)


def _dtype(context: click.Context, parameter: click.Parameter, text: str) -> np.dtype[Any]:
    """A dtype by any name that numpy knows, in upper case as well."""
    for name in (text, text.lower()):
        try:
            dtype = np.dtype(name)
        except (TypeError, ValueError, SyntaxError):
            continue
        if dtype.itemsize:  # 0 is that of a text whose length is not told
            return dtype
    raise click.BadParameter(f"{text!r} is no dtype: name one as uint8, float32, bool, datetime64[ns] or U10.")


@dataset.command("create")
@click.argument("name")
@click.argument("dtype", callback=_dtype)
@click.argument("shape", nargs=-1, type=click.IntRange(min=1))
@click.option("--variable-shape", is_flag=True, help="Samples may be smaller than SHAPE in every dimension.")
@click.option("--branch", shell_complete=branches, help="Make it on this branch. Default: as for status.")
@json_option
@click.pass_obj
def create_dataset(
    location: Location,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    variable_shape: bool,
    branch: str | None,
    as_json: bool,
) -> None:
    """Make the empty dataset NAME, whose samples are arrays of DTYPE and SHAPE; without a SHAPE, single values.

    A name with slashes makes a dataset below another one or below a directory. DTYPE is any name that numpy knows: UINT8,
    float32, complex64, datetime64[ns], U10.

    \b
    Example:
      arborfs -C data dataset create masks UINT8 28 28
      arborfs -C data dataset create lidar/points float32 100000 3 --variable-shape
      arborfs -C data dataset create temperatures float64
    """
    with location.open() as engine:
        branch = branch or location.branch(engine)
        datasets = Datasets(Session(engine.working_tree(branch)))
        with redirect_stdout(io.StringIO()):  # it says shape and dtype, for those at a Python prompt
            made = datasets.init_dataset(name, shape, dtype, variable_shape=variable_shape)
        if as_json:
            print_json({"branch": branch} | _json(dataset_path(name), made.schema, 0))
        else:
            click.echo(f"Initialized Dataset: {printable(name)}")


@dataset.command("remove")
@click.argument("name", shell_complete=datasets)
@click.option("--branch", shell_complete=branches, help="Remove it from this branch. Default: as for status.")
@click.pass_obj
def remove_dataset(location: Location, name: str, branch: str | None) -> None:
    """Remove the dataset NAME with its samples; datasets inside of it stay. Commits keep theirs.

    \b
    Example:
      arborfs -C data dataset remove images
    """
    with location.open() as engine:
        Datasets(Session(engine.working_tree(branch or location.branch(engine)))).remove_dset(name)
    click.echo(f"Successfully removed dataset: {printable(name)}")


@dataset.command("rename")
@click.argument("old", shell_complete=datasets)
@click.argument("new")
@click.option("--branch", shell_complete=branches, help="Rename it on this branch. Default: as for status.")
@click.pass_obj
def rename_dataset(location: Location, old: str, new: str, branch: str | None) -> None:
    """Give the dataset OLD the name NEW, with all that is in it; costs the same whatever its size.

    \b
    Example:
      arborfs -C data dataset rename images photos
    """
    source, target = dataset_path(old), dataset_path(new)
    with location.open() as engine:
        tree = engine.working_tree(branch or location.branch(engine))
        require_dataset(tree, source)
        _make_parents(tree, target)
        tree.rename(source, target, replace=False)
    click.echo(f"Dataset {printable(old)} is now {printable(new)}")


def require_dataset(tree: Snapshot | WorkingTree, path: Path) -> Schema:
    """The schema of the dataset at `path`; NotFound, with the names of others, where there is none."""
    try:
        schema = tree.schema_of(path)
    except (NotFound, NotADirectoryError):
        schema = None
    if schema is None:
        known = [dataset_name(other) for other, _ in dataset_paths(tree)]
        told = f"there are {', '.join(known[:10])}{', …' if len(known) > 10 else ''}" if known else "there are none"
        raise NotFound(f"there is no dataset {dataset_name(path)!r}: {told}")
    return schema


def _make_parents(tree: WorkingTree, path: Path) -> None:
    """Make the directories above `path` that are not there."""
    for depth in range(1, len(path)):
        try:
            tree.entry(path[:depth])
        except NotFound:
            tree.make_directory(path[:depth])
