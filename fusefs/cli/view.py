"""`arborfs view`: one sample as text."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import click
import numpy as np

from fusefs.cli.completion import datasets, revisions, samples
from fusefs.cli.dataset import require_dataset
from fusefs.cli.location import Location
from fusefs.cli.output import counted, json_option, print_json, printable, terminal_width
from fusefs.cli.picture import can_be_drawn, looks_like_image, numbers, picture
from storage.dataset_reader import known_path
from storage.datasets import Datasets
from storage.model.samples import Array
from storage.session import Session

SHOWN_BYTES = 512
"""So much of a value that is plain bytes is shown."""
PLAIN_WIDTH = 100
"""Columns to write for where nobody says how many there are."""


@click.command()
@click.argument("dataset", shell_complete=datasets)
@click.argument("sample", shell_complete=samples)
@click.argument("revision", default="", shell_complete=revisions)
@click.option(
    "--picture/--numbers", "drawn", default=None, help="Draw an array, or write its numbers. Usual: draw images."
)
@json_option
@click.pass_obj
def view(location: Location, dataset: str, sample: str, revision: str, drawn: bool | None, as_json: bool) -> None:
    """Show the value of SAMPLE, a key of DATASET. Of an array dtype, shape and numbers, an image as a small picture,
    texts as they are, JSON indented, bytes in hexadecimal. Of a nested dataset all values of SAMPLE are shown, or
    one as SAMPLE/KEY.

    REVISION is as for log, or a branch with a + behind it: its working tree, staged work included. Default: the working tree
    of the branch you stand in. Pictures are drawn on a terminal, of arrays of bytes with height and width; --picture draws
    any array of two dimensions, and anywhere.

    \b
    Example:
      arborfs -C data view images 0
      arborfs -C data view images 0 v1.0 --numbers
      arborfs -C data view images 0 --json
    """
    with location.open() as engine:
        tree = location.tree(engine, revision)
        require_dataset(tree, known_path(dataset))
        found = Datasets(Session(tree))[dataset]
        key, _, below = sample.partition("/")
        value = found[key] if not below else found[key][below]
        if whole := found.contains_subsamples and not below:
            value = dict(value)
        if as_json:
            told = {"values": {each: value_json(found.kind, value[each]) for each in value}} if whole else None
            print_json({"dataset": dataset, "sample": sample} | (told or value_json(found.kind, value)))
        elif whole:
            for each in value:
                click.echo(f"{printable(each)}:")
                _show(found.kind, value[each], drawn)
        else:
            _show(found.kind, value, drawn)


def _show(kind: str, value: Any, drawn: bool | None) -> None:
    if kind == "array":
        _show_array(value, drawn)
        return
    if drawn is not None:
        raise click.UsageError(f"A sample of kind {kind} is no array: leave --picture and --numbers out.")
    if kind == "bytes":
        click.echo(counted(len(value), "byte"))
        lines = [f"{at:08x}  {value[at : at + 16].hex(' ')}" for at in range(0, min(len(value), SHOWN_BYTES), 16)]
        text = "\n".join(lines + ["…"] * (len(value) > SHOWN_BYTES))
    else:
        text = value if kind == "str" else json.dumps(value, indent=2, ensure_ascii=False)
    for line in text.split("\n"):
        click.echo("\t".join(map(printable, line.split("\t"))))


def value_json(kind: str, value: Any) -> dict[str, Any]:
    """A value for programs; bytes as Base64."""
    if kind == "array":
        return array_json(value)
    return {"kind": kind, "value": base64.b64encode(value).decode() if kind == "bytes" else value}


def _show_array(array: Array, drawn: bool | None) -> None:
    if drawn and not can_be_drawn(array):
        raise click.UsageError(f"An array of {array.dtype} and shape {array.shape} is no picture: leave --picture out.")
    if drawn is None:
        drawn = sys.stdout.isatty() and looks_like_image(array)
    width = terminal_width() or PLAIN_WIDTH
    click.echo(f"{array.dtype} {' x '.join(map(str, array.shape)) or 'scalar'}")
    for line in picture(array, width) if drawn else numbers(array, width).splitlines():
        click.echo(printable(line))


def array_json(array: Array) -> dict[str, Any]:
    """An array for programs: dtype, shape, and its elements as nested lists; what JSON has no words for is text."""
    return {"dtype": array.dtype.str, "shape": list(array.shape), "value": _plain(array)}


def _plain(array: Array) -> Any:
    if array.dtype.kind in "bui" or (array.dtype.kind == "f" and np.isfinite(array).all()):
        return array.tolist()
    return json.loads(json.dumps(array.tolist(), default=_word), parse_constant=str)


def _word(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
