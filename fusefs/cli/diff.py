"""`arborfs diff`: what differs between two trees, down to the elements of arrays and the lines of texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

import click

from fusefs.cli.completion import paths, revisions
from fusefs.cli.location import Location, tree_path
from fusefs.cli.output import counted, json_option, json_time, print_json, print_table, printable, shown, size_text
from fusefs.cli.show import DEFAULT_MODES, schema_json, schema_text
from storage.engine import Engine
from storage.model.digest import hexed
from storage.model.names import Path, path_text
from storage.model.records import Entry, Kind
from storage.stores.arrays import ArrayDifference, array_difference
from storage.stores.compare import CONTENT, SCHEMA, TYPE, Difference, Tree
from storage.stores.contents import Content

TEXT_MAX = 1 << 17
"""Longer texts are told by their sizes: comparing lines takes more than linear time."""
LINES_MAX = 3000

COLOURS = {"added": "green", "removed": "red", "renamed": "cyan", "changed": "yellow"}
_LINE_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True, slots=True)
class Sides:
    """The two trees that are compared, and what users call them."""

    engine: Engine
    old: Tree
    new: Tree
    old_name: str
    new_name: str

    def before(self, difference: Difference) -> Content:
        """The old version of a file, sample or link."""
        assert difference.old is not None
        path = difference.source or difference.path
        return self.engine.contents(self.old, path, difference.old, difference.old_dataset)

    def after(self, difference: Difference) -> Content:
        """The new version."""
        assert difference.new is not None
        return self.engine.contents(self.new, difference.path, difference.new, difference.new_dataset)


@click.command()
@click.argument("old", metavar="[A", required=False, shell_complete=revisions)
@click.argument("new", metavar="[B", required=False, shell_complete=revisions)
@click.argument("path", metavar="[PATH]]]", default="", shell_complete=paths)
@click.option("--stat", is_flag=True, help="Count the changes in each directory.")
@click.option("--names", is_flag=True, help="List the changed paths only, without reading contents.")
@click.option("--exit-code", is_flag=True, help="End with 1 where anything differs.")
@json_option
@click.pass_context
def diff(
    context: click.Context,
    old: str | None,
    new: str | None,
    path: str,
    stat: bool,
    names: bool,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Tell what must change to come from A to B. With PATH, only what is at and below it.

    PATH begins at the top of the tree, wherever you stand; `.` is everything.

    A and B are revisions as for log, or a branch with a + behind it, which means its working tree, staged work
    included; + alone is the branch you stand in. Without B, A is compared with that working tree; without both, its
    last commit is: that is what is staged. Of arrays it is told how many elements differ, and by how much; of short
    texts the lines. What differs in mode, owner, times or extended attributes alone is told as that.

    \b
    Example:
      arborfs -C data diff
      arborfs -C data diff main~1 main --stat
      arborfs -C data diff v1.0 main+ images --names
    """
    if stat + names + as_json > 1:
        raise click.UsageError("--stat, --names and --json exclude each other.")
    location: Location = context.obj
    with location.open() as engine:
        sides = _sides(location, engine, old, new)
        found = engine.compared(sides.old, sides.new, tree_path(path))
        if as_json:
            _print_json(sides, found)
        elif stat:
            _print_counts(found)
        else:
            _print_changes(sides, found, in_full=not names)
    if exit_code and found:
        context.exit(1)


def _sides(location: Location, engine: Engine, old: str | None, new: str | None) -> Sides:
    here = f"{location.branch(engine)}+"
    named = [here if name in (None, "+") else str(name) for name in (old, new)]
    after = engine.named_tree(named[1])
    if old is None:
        return Sides(engine, engine.committed(after.commit), after, after.branch, here)
    return Sides(engine, engine.named_tree(named[0]), after, named[0], named[1])


# For people


def _print_changes(sides: Sides, found: Sequence[Difference], *, in_full: bool) -> None:
    for difference in found:
        facts = _facts(sides, difference) if in_full else ""
        change = click.style(f"{difference.change:8}", fg=COLOURS[difference.change])
        click.echo(f"{change} {_place(difference)}{': ' if facts else ''}{facts}")
        if in_full and _is_text_change(difference):
            for line in _lines(sides, difference):
                click.echo(click.style(line, fg=_LINE_COLOURS.get(line[:1])))


def _place(difference: Difference) -> str:
    slash = "/" if difference.path and difference.kind is Kind.DIRECTORY else ""
    before = f"{shown(difference.source)}{slash} -> " if difference.source is not None else ""
    return f"{before}{shown(difference.path)}{slash}"


def _facts(sides: Sides, difference: Difference) -> str:
    old, new = difference.old, difference.new
    if old is None or new is None:
        entry = old or new
        assert entry is not None
        if entry.is_directory:
            return schema_text(entry.schema) if entry.schema else ""
        if entry.kind is Kind.SYMLINK:
            return _target(sides.before(difference) if new is None else sides.after(difference))
        return size_text(entry.size)
    told = [_content_fact(sides, difference, old, new)] if not difference.only_attributes else []
    told += [_attribute_text(name, old, new) for name in difference.aspects if name not in (TYPE, SCHEMA, CONTENT)]
    return ", ".join(told)


def _content_fact(sides: Sides, difference: Difference, old: Entry, new: Entry) -> str:
    if TYPE in difference.aspects:
        return f"{_kind(old)} -> {_kind(new)}"
    if SCHEMA in difference.aspects:
        before, after = (schema_text(entry.schema) if entry.schema else "no schema" for entry in (old, new))
        return f"{before} -> {after}" if before != after else "another dataset of the same schema"
    if new.kind is Kind.SYMLINK:
        return f"{_target(sides.before(difference))} -> {_target(sides.after(difference))}"
    array = _array(sides, difference)
    if array is not None:
        return _array_text(array)
    return size_text(new.size) if old.size == new.size else f"{size_text(old.size)} -> {size_text(new.size)}"


def _kind(entry: Entry) -> str:
    return "directory" if entry.is_directory else entry.kind.name.lower()


def _target(link: Content) -> str:
    return printable(bytes(link.read(0, link.size)).decode("utf-8", "backslashreplace"))


def _attribute_text(name: str, old: Entry, new: Entry) -> str:
    if name == "mode":
        return f"mode {_mode(old)} -> {_mode(new)}"
    return name


def _mode(entry: Entry) -> str:
    mode = entry.attributes.mode
    kind = Kind.DIRECTORY if entry.is_directory else entry.kind
    return f"{DEFAULT_MODES.get(kind, 0o644) if mode is None else mode:04o}"


def _array(sides: Sides, difference: Difference) -> ArrayDifference | None:
    """The numeric summary of a changed array, None for what is none."""
    entry = difference.new
    if entry is None or CONTENT not in difference.aspects or entry.kind not in (Kind.SAMPLE, Kind.FILE):
        return None
    if entry.kind is Kind.FILE and not difference.path[-1].endswith(b".npy"):
        return None
    return array_difference(sides.before(difference), sides.after(difference))


def _array_text(array: ArrayDifference) -> str:
    told = []
    if array.old_shape != array.new_shape:
        told.append(f"shape {_shape(array.old_shape)} -> {_shape(array.new_shape)}")
    if array.old_dtype != array.new_dtype:
        told.append(f"dtype {array.old_dtype} -> {array.new_dtype}")
    if array.differing is not None:
        largest = "" if array.largest is None else f", at most by {array.largest:.6g}"
        if isinstance(array.largest, int):
            largest = f", at most by {array.largest:,}"
        told.append(f"{array.differing:,} of {counted(array.elements, 'element')} differ{largest}")
    return ", ".join(told) or "another order of the elements in the file"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _is_text_change(difference: Difference) -> bool:
    entry = difference.new
    return entry is not None and entry.kind is Kind.FILE and CONTENT in difference.aspects


def _lines(sides: Sides, difference: Difference) -> Iterator[str]:
    """The lines that differ, as `diff -u` gives them; none where one version is long or no text."""
    before, after = _text(sides.before(difference)), _text(sides.after(difference))
    if before is None or after is None or max(len(before), len(after)) > LINES_MAX:
        return
    old_label = f"{sides.old_name}:{shown(difference.source or difference.path)}"
    new_label = f"{sides.new_name}:{shown(difference.path)}"
    for line in unified_diff(before, after, old_label, new_label):
        yield "\t".join(printable(part) for part in line.removesuffix("\n").split("\t"))
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"


def _text(content: Content) -> list[str] | None:
    """The lines of a short text with their ends, None for anything else."""
    if content.size > TEXT_MAX:
        return None
    raw = bytes(content.read(0, content.size))
    try:
        return None if b"\0" in raw else raw.decode().splitlines(keepends=True)
    except UnicodeDecodeError:
        return None


def _print_counts(found: Sequence[Difference]) -> None:
    """A line for each directory with changes, and one for all."""
    places: dict[Path, Counter[str]] = {}
    total: Counter[str] = Counter()
    for difference in found:
        what = "attributes" if difference.change == "changed" and difference.only_attributes else difference.change
        places.setdefault(difference.path[:-1], Counter())[what] += 1
        total[what] += 1
    print_table((shown(place) + "/", _counts(places[place])) for place in sorted(places))
    click.echo(f"{counted(len(found), 'change')}{': ' if found else ''}{_counts(total)}")


def _counts(counts: Counter[str]) -> str:
    order = ("added", "removed", "renamed", "changed", "attributes")
    told = [(what, counts[what]) for what in order if counts[what]]
    return ", ".join(f"{number:,} {'attributes only' if what == 'attributes' else what}" for what, number in told)


# For programs


def _print_json(sides: Sides, found: Sequence[Difference]) -> None:
    named = ((sides.old_name, sides.old), (sides.new_name, sides.new))
    old, new = (
        {"name": name, "commit": hexed(t.commit) if t.commit else None, "branch": t.branch} for name, t in named
    )
    print_json({"old": old, "new": new, "changes": [_json(sides, difference) for difference in found]})


def _json(sides: Sides, difference: Difference) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": path_text(difference.path),
        "change": difference.change,
        "kind": difference.kind.name.lower(),
        "aspects": list(difference.aspects),
        "only_attributes": difference.only_attributes,
    }
    if difference.source is not None:
        row["source"] = path_text(difference.source)
    row["old"], row["new"] = (_entry_json(entry) for entry in (difference.old, difference.new))
    array = _array(sides, difference)
    if array is not None:
        row["array"] = _array_json(array)
    return row


def _entry_json(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    facts: dict[str, Any] = {"kind": _kind(entry), "mode": _mode(entry)}
    if not entry.is_directory:
        facts["size"] = entry.size
        facts["modified"] = json_time(entry.mtime) if entry.mtime else None
    if entry.schema is not None:
        facts["schema"] = schema_json(entry.schema)
    return facts


def _array_json(array: ArrayDifference) -> dict[str, Any]:
    largest = array.largest
    # JSON has no words for NaN and the infinities.
    finite = largest if largest is None or math.isfinite(largest) else str(largest)
    return {
        "old": {"dtype": str(array.old_dtype), "shape": list(array.old_shape)},
        "new": {"dtype": str(array.new_dtype), "shape": list(array.new_shape)},
        "elements": array.elements,
        "differing": array.differing,
        "largest": finite,
    }
