"""How checkouts, datasets and metadata look in a notebook.

It costs no more for a large dataset than for a small one: of names and samples the first few are shown, and a sample is read
only where it is small. What cannot be read is said in its place, as in `storage.reprs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any, Protocol

import numpy as np

from storage import html
from storage.errors import ArborError, NotFound
from storage.html import Html
from storage.model.dtypes import dtype_of
from storage.model.names import Path, path_text
from storage.model.pictures import curve, is_curve, is_image, thumbnail
from storage.model.records import Entry, Kind, Schema
from storage.model.samples import ARRAYS
from storage.model.texts import size_text
from storage.reprs import CLOSED, LISTED, schema_text, told, value_text
from storage.session import Session
from storage.snapshot import Snapshot
from storage.working import WorkingReader

KEYS = 6
"""So many samples are shown, or keys of metadata."""
VALUE_MAX = 80
"""So many characters of each."""
WALKED = 20_000
"""So many entries of a dataset are looked at in search of samples among side files."""
READ_MAX = 4 << 20
"""A sample of more bytes is not read to be shown."""
SERIES = 128
"""So many samples of one number each are drawn as one curve."""

_NUMBERS = "buif"


class Shown(Sized, Protocol):
    """What is shown of a dataset among others."""

    @property
    def schema(self) -> Schema:
        """What its samples look like."""


def checkout_html(
    kind: str, session: Session, facts: Sequence[tuple[str, object]], datasets: Mapping[str, Shown], folder: Path
) -> Html:
    """A checkout for a notebook, with its datasets and the metadata that stand in `folder`."""
    if not session.is_open:
        return html.card("Checkout", f"Arborfs {kind}", html.facts(CLOSED))
    parts = [html.facts(facts), _datasets_table(datasets)]
    pairs = _metadata_rows(session, folder)
    if pairs:
        parts.append(_metadata_table(session, folder, pairs))
    return html.card("Checkout", f"Arborfs {kind}", *parts)


def datasets_html(session: Session, datasets: Mapping[str, Shown]) -> Html:
    """All datasets for a notebook."""
    if not session.is_open:
        return html.card("Datasets", "Arborfs Datasets", html.facts(CLOSED))
    return html.card("Datasets", f"Arborfs Datasets, {_access(session)}", _datasets_table(datasets))


def dataset_html(kind: str, session: Session, path: Path, schema: Schema, samples: Mapping[str, Any]) -> Html:
    """A dataset for a notebook: schema, number of samples and the first ones, as pictures and curves where they are such."""
    facts = [("Samples", schema_text(schema))]
    parts = []
    if not session.is_open:
        facts += [("Closed", "True")]
    else:
        count = told(lambda: len(samples))
        facts += [("Number of Samples", f"{count:,}" if isinstance(count, int) else count)]
        if isinstance(count, int):
            facts += _size(session.tree, path, schema, count)
            parts = _previews(session.tree, path, schema, samples, count)
        facts += [("Schema Hash", schema.hash), ("Access", _access(session))]
    return html.card(path_text(path), f"Arborfs {kind}", html.facts(facts), *parts)


def metadata_html(session: Session, folder: Path) -> Html:
    """The metadata that stand in `folder`, for a notebook."""
    if not session.is_open:
        return html.card("Metadata", "Arborfs Metadata", html.facts(CLOSED))
    table = _metadata_table(session, folder, _metadata_rows(session, folder))
    return html.card("Metadata", f"Arborfs Metadata, {_access(session)}", table)


def _access(session: Session) -> str:
    return "to read and write" if session.writeable else "to read"


def _size(tree: Snapshot | WorkingReader, path: Path, schema: Schema, count: int) -> list[tuple[str, str]]:
    """How many bytes the samples have; nothing where only reading all of them would tell."""
    entry = tree.entry(path)
    if schema.kind in ARRAYS and not schema.variable:
        return [("Size", size_text(count * dtype_of(schema.dtype).itemsize * math.prod(schema.shape)))]
    return [("Size", size_text(entry.size))] if entry.kind is Kind.DIRECTORY else []


def _datasets_table(datasets: Mapping[str, Shown]) -> Html:
    names = list(islice(datasets, LISTED + 1))
    rows = [(html.code(name), *_told(datasets, name)) for name in names[:LISTED]]
    more = "… and more" if len(names) > LISTED else "" if rows else "no datasets yet"
    return html.table(("Dataset", "Samples", "Each"), rows, more)


def _told(datasets: Mapping[str, Shown], name: str) -> tuple[str, str]:
    """How many samples a dataset has, and what each is."""
    try:
        dataset = datasets[name]
    except NotFound:
        return "", "its name is not valid Unicode"  # made in a mount, and to be renamed there
    return _number(told(lambda: len(dataset))), schema_text(dataset.schema)


def _number(count: int | str) -> str:
    return f"{count:,}" if isinstance(count, int) else count


def _previews(
    tree: Snapshot | WorkingReader, path: Path, schema: Schema, samples: Mapping[str, Any], count: int
) -> list[Html]:
    """The first samples: a row of pictures, or a curve, and a table."""
    if schema.nested:
        return [_nested_table(samples, count)]
    rows = list(islice(_sample_rows(tree, path, schema), SERIES))
    values = {key: _value(samples, key, entry) for key, entry in rows[:KEYS]}
    pictures = {key: value for key, value in values.items() if _is_picture(value)}
    parts = [html.gallery((key, thumbnail(value)) for key, value in pictures.items())] if pictures else []
    if _is_number(schema):
        parts.append(_series(samples, rows))
    heads = _form_heads(schema)
    if len(pictures) == len(values) and values and not heads:
        return [*parts, html.below(_more(count, len(values)))]
    cells = [
        (html.code(key), *_form_cells(entry, schema), "" if key in pictures else _value_cell(values[key]))
        for key, entry in rows[:KEYS]
    ]
    return [*parts, html.table(("Key", *heads, "" if pictures else "Value"), cells, _more(count, len(cells)))]


def _nested_table(samples: Mapping[str, Any], count: int) -> Html:
    """The first samples of a nested dataset: which values each has."""
    cells = [(html.code(key), *_keys_of(samples, key)) for key in islice(samples, KEYS)]
    return html.table(("Key", "Values", ""), cells, _more(count, len(cells)))


def _keys_of(samples: Mapping[str, Any], key: str) -> tuple[str, object]:
    """How many values a sample has, and the keys of the first ones."""
    try:
        values = samples[key]
        first = list(islice(values, KEYS + 1))
        return _number(told(lambda: len(values))), html.code(", ".join(first[:KEYS]) + ", …" * (len(first) > KEYS))
    except ArborError as error:
        return "", html.faint(f"cannot be read: {error}")


def _more(count: int, shown: int) -> str:
    return f"… and {count - shown:,} more" if count > shown else "" if shown else "no samples yet"


def _is_number(schema: Schema) -> bool:
    """Whether every sample is one number."""
    fixed = schema.kind in ARRAYS and not schema.variable
    return fixed and dtype_of(schema.dtype).kind in _NUMBERS and math.prod(schema.shape) == 1


def _form_heads(schema: Schema) -> tuple[str, ...]:
    """In what samples differ beside their values."""
    if schema.kind in ARRAYS:
        return ("Shape", "File") if schema.variable else ()
    return ("File",)


def _form_cells(entry: Entry, schema: Schema) -> tuple[str, ...]:
    shape = entry.attributes.shape if entry.attributes.shape is not None else schema.shape
    told = {"Shape": str(shape), "File": size_text(entry.size)}
    return tuple(told[head] for head in _form_heads(schema))


def _sample_rows(tree: Snapshot | WorkingReader, path: Path, schema: Schema) -> Iterator[tuple[str, Entry]]:
    for name, entry in islice(tree.entries(path), WALKED):
        if entry.kind is Kind.SAMPLE:
            yield name.removesuffix(schema.suffix).decode("utf-8", "surrogateescape"), entry


def _value(samples: Mapping[str, Any], key: str, entry: Entry) -> Any:
    """A sample, or what to say in its place."""
    if entry.size > READ_MAX:
        return html.faint(f"{size_text(entry.size)}: too large to be shown here")
    try:
        return samples[key]
    except ArborError as error:
        return html.faint(f"cannot be read: {error}")


def _is_picture(value: object) -> bool:
    return isinstance(value, np.ndarray) and is_image(value.dtype, value.shape)


def _value_cell(value: object) -> Html:
    if isinstance(value, Html):
        return value
    if isinstance(value, np.ndarray) and is_curve(value.dtype, value.shape):
        return Html(curve(value)) or html.code(value_text(value), VALUE_MAX)
    return html.code(value_text(value), VALUE_MAX)


def _series(samples: Mapping[str, Any], rows: Sequence[tuple[str, Entry]]) -> Html:
    """Samples of one number each as one curve."""
    values = [_value(samples, key, entry) for key, entry in rows]
    numbers = [value.ravel() for value in values if isinstance(value, np.ndarray)]
    drawn = curve(np.concatenate(numbers)) if numbers else ""
    return Html(f"<div>{drawn} {html.faint(f'the first {len(numbers):,} samples')}</div>" if drawn else "")


def _metadata_rows(session: Session, folder: Path) -> list[tuple[bytes, Entry]]:
    try:
        rows = [row for row in islice(session.tree.entries(folder), KEYS + 1) if row[1].kind is Kind.FILE]
    except NotFound:
        return []
    return rows


def _metadata_table(session: Session, folder: Path, rows: Sequence[tuple[bytes, Entry]]) -> Html:
    tree = session.tree
    cells = []
    for name, entry in rows[:KEYS]:
        beginning = bytes(tree.content(entry).read(0, min(entry.size, 4 * html.TEXT_MAX)))
        cells.append((html.code(path_text((name,))), html.text(beginning.decode(errors="replace"), VALUE_MAX)))
    more = "… and more" if len(rows) > KEYS else "" if cells else "no metadata yet"
    return html.table(("Metadata", "Value"), cells, more)
