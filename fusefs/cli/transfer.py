"""Bringing files in and out: `import` and `export`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from fusefs.cli.completion import branches, files_then_dataset, objects, samples_below
from fusefs.cli.dataset import require_dataset
from fusefs.cli.interrupts import INTERRUPTED
from fusefs.cli.location import Location, split_object
from fusefs.cli.output import counted, json_option, print_json, printable
from storage.exporting import export_tree
from storage.formats.base import By
from storage.formats.registry import NAMES
from storage.importing import import_files
from storage.session import Session

format_option = click.option(
    "-f", "--format", "format_", default="", metavar="NAME", help=f"One of {', '.join(NAMES)}, or a plug-in's."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress bar, no report.")


class Bar:
    """A progress bar with rate and time left on standard error; nothing where that is no terminal."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def start(self, total: int) -> None:
        """So many bytes will be done; 0 where that is not known."""
        self._bar.total = total or None
        self._bar.refresh()

    def advance(self, nbytes: int) -> None:
        """So many bytes more have been done."""
        self._bar.update(nbytes)


@contextmanager
def _bar(quiet: bool) -> Iterator[Bar | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm  # Not above: every command would wait for it.

    with tqdm(unit="B", unit_scale=True, dynamic_ncols=True, leave=False, file=sys.stderr) as bar:
        yield Bar(bar)


@contextmanager
def _interruptible(context: click.Context, outcome: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"Interrupted: {outcome}.", err=True)
        context.exit(INTERRUPTED)


@click.command("import")
@click.argument(
    "paths",
    metavar="PATH...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    shell_complete=files_then_dataset,
)
@click.argument("dataset")
@format_option
@click.option(
    "--by",
    type=click.Choice(["file", "row", "column"]),
    default=None,
    help="What becomes one sample. Usual: a file for npy, npz (there a member) and images, a row for hdf5, csv and parquet. "
    "By column, each column of a table becomes a dataset below DATASET, with one array; so does each member of an npz, "
    "and by row its rows become samples.",
)
@click.option("--key", default="", metavar="COLUMN", help="The column of a table that holds the keys. Usual: numbers.")
@click.option("--raw", is_flag=True, help="Take files as they are, whatever their ending: the same as --format tree.")
@click.option("--overwrite", is_flag=True, help="Replace what is there already under the same names.")
@click.option("--variable-shape", is_flag=True, help="Samples of a new dataset may differ in shape.")
@click.option("--branch", shell_complete=branches, help="Import into this branch. Default: as for status.")
@quiet_option
@json_option
@click.pass_context
def import_(
    context: click.Context,
    paths: tuple[Path, ...],
    dataset: str,
    format_: str,
    by: str | None,
    key: str,
    raw: bool,
    overwrite: bool,
    variable_shape: bool,
    branch: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Import files and directories into DATASET. All are staged or, after an error or Ctrl-C, none.

    The ending of a file says its format. A directory is taken as it is, its files as they are; with --format, the
    files of that format below it become samples, and its subdirectories datasets below DATASET. A row of a table is
    one sample with a field for each column. DATASET is made with the dtype and shape of the first sample; all others must
    have the same. One that is there is added to: numbered samples go on with the next number.

    \b
    Example:
      arborfs -C data import measurements/ notes
      arborfs -C data import --format image photos/ photos --variable-shape
      arborfs -C data import table.csv people --key name
    """
    location: Location = context.obj
    if raw and format_ not in ("", "tree"):
        raise click.UsageError("--raw and --format exclude each other.")
    with location.open() as engine, _interruptible(context, "nothing was staged"):
        tree = engine.working_tree(branch or location.branch(engine))
        with _bar(quiet) as bar:
            report = import_files(
                tree,
                paths,
                dataset,
                format="tree" if raw else format_,
                by=cast(By, by or ""),
                key=key,
                overwrite=overwrite,
                variable_shape=variable_shape,
                meter=bar,
            )
    if as_json:
        print_json(asdict(report) | {"branch": tree.branch})
    elif not quiet:
        parts = [counted(report.samples, "sample")] if report.samples or not report.files else []
        parts += [counted(report.files, "file")] if report.files else []
        skipped = f" {counted(report.skipped, 'other file')} left out." if report.skipped else ""
        click.echo(f"Staged {' and '.join(parts)} in {printable(dataset)} on branch {tree.branch}.{skipped}")


@click.command()
@click.argument("object_", metavar="[REVISION]:PATH", shell_complete=objects)
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "-s",
    "--sample",
    metavar="KEY",
    shell_complete=samples_below,
    help="Of the dataset PATH, only the sample of that key.",
)
@format_option
@click.option("--staged", is_flag=True, help="REVISION is a branch: export it with what is staged on it.")
@click.option("--force", is_flag=True, help="Replace DEST if it is there.")
@quiet_option
@json_option
@click.pass_context
def export(
    context: click.Context,
    object_: str,
    destination: Path,
    sample: str | None,
    format_: str,
    staged: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write something of a commit to DEST, whole or not at all. That may be a dataset, sample, file or directory.

    The ending of DEST says the format: .npy (a dataset's samples stacked), .npz, .h5, .csv, .parquet, .png and other
    images; without one, files and directories as they look in a mount. REVISION is as for log; default: the tip of the
    branch you stand in. A colon alone is the root directory.

    \b
    Example:
      arborfs -C data export v1.0:images images.npy
      arborfs -C data export :images 0.png -s 0
      arborfs -C data export main~1:notes /tmp/notes
      arborfs -C data export --staged :people people.csv
    """
    location: Location = context.obj
    revision, path = split_object(object_)
    if path is None:
        raise click.UsageError(f"{object_!r} is not :PATH or REVISION:PATH.")
    with location.open() as engine, _interruptible(context, f"{destination} is as it was"):
        revision = revision or location.branch(engine)
        session = Session(engine.working_tree(revision) if staged else engine.snapshot(engine.resolve(revision)))
        if sample is not None:
            schema = require_dataset(session.tree, path)
            path = (*path, os.fsencode(sample) + (b"" if schema.nested else schema.suffix))
        with _bar(quiet) as bar:
            export_tree(session, path, destination, format=format_, force=force, meter=bar)
    if as_json:
        print_json({"path": str(destination)})
    elif not quiet:
        click.echo(f"Wrote {printable(str(destination))}.")
