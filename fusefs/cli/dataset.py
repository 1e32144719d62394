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
from storage.dataset_reader import dataset_name, known_path
from storage.datasets import Datasets, dataset_paths
from storage.errors import NotFound
from storage.model.chunking import COMPRESSIONS
from storage.model.names import Path
from storage.model.records import KINDS_OF_DATASETS, Schema
from storage.session import Session
from storage.snapshot import Snapshot
from storage.working import WorkingReader


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def dataset(context: click.Context, as_json: bool) -> None:
    """List, make, rename and remove datasets. Without a subcommand, list them.

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
    """List the datasets of REVISION. Each comes with its schema and the number of its samples.

    REVISION is as for log, or a branch with a + behind it: its working tree, staged work included. Default: the working
    tree of the branch you stand in.

    \b
    Example:
      arborfs -C data dataset list
      arborfs -C data dataset list v1.0 --json
    """
    with location.open() as engine:
        datasets = Datasets(Session(location.tree(engine, revision)))
        found = [(name, each.schema, len(each)) for name, each in datasets.items()]
    if as_json:
        print_json([_json(*row) for row in found])
    elif found:
        rows = [(printable(name), schema_text(schema), f"{count:,}") for name, schema, count in found]
        print_table(rows, ("dataset", "schema", "samples"))
    else:
        click.echo("No datasets.", err=True)


def _json(name: str, schema: Schema, samples: int) -> dict[str, Any]:
    return {"name": name, "samples": samples} | schema_json(schema)


def _values(context: click.Context, parameter: click.Parameter, text: str) -> np.dtype[Any] | str:
    """A dtype by any name that numpy knows, or the kind of values that are no arrays; in upper case as well."""
    if text.lower() in KINDS_OF_DATASETS - {"array"}:
        return text.lower()
    for name in (text, text.lower()):
        try:
            dtype = np.dtype(name)
        except (TypeError, ValueError, SyntaxError):
            continue
        if dtype.itemsize:  # 0 is that of a text whose length is not told
            return dtype
    raise click.BadParameter(f"{text!r} is no dtype: name one as uint8, float32 or U10, or STR, BYTES or JSON.")


@dataset.command("create")
@click.argument("name")
@click.argument("values", metavar="DTYPE", callback=_values)
@click.argument("shape", nargs=-1, type=click.IntRange(min=1))
@click.option("--variable-shape", is_flag=True, help="Samples may be smaller than SHAPE in every dimension.")
@click.option(
    "--contains-subsamples", is_flag=True, help="Each sample holds any number of such values, by keys of their own."
)
@click.option(
    "--compression",
    type=click.Choice(sorted(filter(None, COMPRESSIONS))),
    help="How values above 4 kB are packed. Default: what fits the values.",
)
@click.option("--branch", shell_complete=branches, help="Make it on this branch. Default: as for status.")
@json_option
@click.pass_obj
def create_dataset(
    location: Location,
    name: str,
    values: np.dtype[Any] | str,
    shape: tuple[int, ...],
    variable_shape: bool,
    contains_subsamples: bool,
    compression: str | None,
    branch: str | None,
    as_json: bool,
) -> None:
    """Make the empty dataset NAME. Its samples are arrays of DTYPE and SHAPE; without a SHAPE, single values.

    A name with slashes makes a dataset below another one or below a directory. DTYPE is any name that numpy knows: UINT8,
    float32, complex64, datetime64[ns], U10; or STR, BYTES or JSON, for samples that are texts, bytes, or what JSON can say.

    \b
    Example:
      arborfs -C data dataset create masks UINT8 28 28
      arborfs -C data dataset create lidar/points float32 100000 3 --variable-shape
      arborfs -C data dataset create captions STR --contains-subsamples
    """
    with location.open() as engine:
        branch = branch or location.branch(engine)
        datasets = Datasets(Session(engine.working_tree(branch)))
        with redirect_stdout(io.StringIO()):  # it says shape and dtype, for those at a Python prompt
            made = datasets.init_dataset(
                name,
                (shape or None) if isinstance(values, str) else shape,
                None if isinstance(values, str) else values,
                variable_shape=variable_shape,
                contains_subsamples=contains_subsamples,
                kind=values if isinstance(values, str) else "array",
                compression=compression or "",
            )
        if as_json:
            print_json({"branch": branch} | _json(name, made.schema, 0))
        else:
            click.echo(f"Initialized Dataset: {printable(name)}")


@dataset.command("remove")
@click.argument("name", shell_complete=datasets)
@click.option("--branch", shell_complete=branches, help="Remove it from this branch. Default: as for status.")
@json_option
@click.pass_obj
def remove_dataset(location: Location, name: str, branch: str | None, as_json: bool) -> None:
    """Remove the dataset NAME with its samples. Datasets inside of it stay; commits keep theirs.

    \b
    Example:
      arborfs -C data dataset remove images
    """
    with location.open() as engine:
        branch = branch or location.branch(engine)
        Datasets(Session(engine.working_tree(branch))).remove_dset(name)
    if as_json:
        print_json({"branch": branch, "name": name})
    else:
        click.echo(f"Successfully removed dataset: {printable(name)}")


@dataset.command("rename")
@click.argument("old", shell_complete=datasets)
@click.argument("new")
@click.option("--branch", shell_complete=branches, help="Rename it on this branch. Default: as for status.")
@json_option
@click.pass_obj
def rename_dataset(location: Location, old: str, new: str, branch: str | None, as_json: bool) -> None:
    """Give the dataset OLD the name NEW, with all that is in it. Costs the same whatever its size.

    \b
    Example:
      arborfs -C data dataset rename images photos
    """
    with location.open() as engine:
        branch = branch or location.branch(engine)
        tree = engine.working_tree(branch)
        require_dataset(tree, known_path(old))
        Datasets(Session(tree)).rename(old, new)
    if as_json:
        print_json({"branch": branch, "old": old, "new": new})
    else:
        click.echo(f"Dataset {printable(old)} is now {printable(new)}")


def require_dataset(tree: Snapshot | WorkingReader, path: Path) -> Schema:
    """The schema of the dataset at `path`; NotFound, with the names of others, where there is none."""
    try:
        schema = tree.schema_of(path)
    except (NotFound, NotADirectoryError):
        schema = None
    if schema is None or schema.is_sample:
        known = [dataset_name(other) for other, _ in dataset_paths(tree)]
        told = f"there are {', '.join(known[:10])}{', …' if len(known) > 10 else ''}" if known else "there are none"
        raise NotFound(f"there is no dataset {dataset_name(path)!r}: {told}")
    return schema
