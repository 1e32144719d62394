"""What a repository tells about itself: `summary`, `log`, and how it looks in a notebook."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from storage import html
from storage.config import folder
from storage.dataset_reader import dataset_name
from storage.datasets import dataset_paths
from storage.engine import Engine
from storage.errors import NotFound
from storage.html import Html
from storage.metadata import FOLDER
from storage.model.digest import Digest, hexed
from storage.model.dtypes import dtype_of
from storage.model.graph import beside, draw
from storage.model.names import Path
from storage.model.records import Schema
from storage.model.texts import first_line, printable, size_text
from storage.snapshot import Snapshot

NO_COMMITS = "No commits made"
BRANCHES = 12
"""So many branches and tags are named in a notebook."""
LOG_LINES = 10
"""So many lines of the log."""
_SECOND = 1_000_000_000


def summary_text(engine: Engine, commit: Digest | None) -> str:
    """What a commit holds, and where the repository stands."""
    if commit is None:
        return NO_COMMITS
    snapshot = engine.snapshot(commit)
    return "\n".join([*_repository_lines(engine), "", *_commit_lines(engine, snapshot), "", *_content_lines(snapshot)])


def _repository_lines(engine: Engine) -> list[str]:
    return [
        "Summary of Contents Contained in Data Repository",
        "",
        "==================",
        "| Repository Info",
        "|-----------------",
        f"|  Directory: {folder(engine.path)}",
        f"|  Disk Usage: {size_text(engine.disk_usage())}",
    ]


def _commit_lines(engine: Engine, snapshot: Snapshot) -> list[str]:
    record = snapshot.record
    return [
        "===================",
        "| Commit Details",
        "-------------------",
        f"|  Commit: {engine.abbreviation(snapshot.commit)}",
        f"|  Created: {time.asctime(time.localtime(record.time // _SECOND))}",
        f"|  By: {printable(record.author.name)}",
        f"|  Email: {printable(record.author.email)}",
        f"|  Message: {record.message!r}",
    ]


def _content_lines(snapshot: Snapshot) -> list[str]:
    datasets = [(path, schema, _values(snapshot, path, schema)) for path, schema in dataset_paths(snapshot)]
    lines = [
        "==================",
        "| DataSets",
        "|-----------------",
        f"|  Number of Named Datasets: {len(datasets)}",
        "|",
    ]
    for path, schema, count in datasets:
        lines += _dataset_lines(dataset_name(path), schema, count)
    try:
        keys = snapshot.entry(FOLDER).count
    except NotFound:
        keys = 0
    if datasets:
        lines.pop()
    return [
        *lines,
        "",
        "==================",
        "| Metadata:",
        "|-----------------",
        f"|  Number of Keys: {keys}",
    ]


def _values(snapshot: Snapshot, path: Path, schema: Schema) -> int:
    """How many values a dataset holds; of a nested one, all samples' together."""
    if not schema.nested:
        return snapshot.count_samples(path)
    return sum(entry.samples for _, entry in snapshot.entries(path) if entry.is_directory)


def _dataset_lines(name: str, schema: Schema, count: int) -> list[str]:
    return [
        f"|  * Dataset Name: {printable(name)}",
        f"|    Num Arrays: {count}",
        "|    Details:",
        f"|    - schema_uuid: {schema.uuid}",
        f"|    - schema_hash: {schema.hash}",
        f"|    - schema_dtype: {dtype_of(schema.dtype).num if schema.holds == 'array' else schema.holds}",
        f"|    - schema_is_var: {schema.variable}",
        f"|    - schema_max_shape: {list(schema.shape)}",
        f"|    - schema_is_named: {schema.named}",
        *(["|    - schema_is_nested: True"] if schema.nested else []),
        "|",
    ]


def log(
    engine: Engine, commit: Digest | None, return_contents: bool, *, show_time: bool = True, show_user: bool = True
) -> dict[str, Any] | None:
    """Print the history of a commit; or only return it for programs, where that is asked for."""
    if return_contents:
        return log_contents(engine, commit)
    print(log_text(engine, commit, show_time=show_time, show_user=show_user))
    return None


def log_text(engine: Engine, commit: Digest | None, *, show_time: bool = True, show_user: bool = True) -> str:
    """A commit and its ancestors, newest first, one line each, beside a graph of which of them stand on which."""
    if commit is None:
        return NO_COMMITS
    return "\n".join(_log_lines(engine, commit, show_time=show_time, show_user=show_user))


def _log_lines(engine: Engine, commit: Digest, *, show_time: bool, show_user: bool) -> Iterator[str]:
    for drawn in draw((digest, record.parents) for digest, record in engine.log(commit)):
        record = engine.commit_record(drawn.key)
        when = time.strftime("%d%b%Y %H:%M:%S", time.localtime(record.time // _SECOND))
        shown = f" ({when})" if show_time else ""
        shown += f" ({printable(record.author.name)})" if show_user else ""
        facts = "".join(f" {{{printable(name)}={first_line(text)}}}" for name, text in record.metadata.items())
        yield from beside(drawn, [f"{engine.abbreviation(drawn.key)}{shown}: {first_line(record.message)}{facts}"])


def repository_html(engine: Engine) -> Html:
    """A repository for a notebook: where it is, its branches and tags, and the last commits of its default branch."""
    head, branches, tags = engine.head(), engine.branches(), engine.tags()
    facts = [
        ("Path", str(engine.path)),
        ("Default Branch", head),
        ("Tags", _some(tags)),
        ("Disk Usage", size_text(engine.disk_usage())),
    ]
    rows = [_branch_row(engine, name, branches[name]) for name in [head, *sorted(branches.keys() - {head})][:BRANCHES]]
    more = f"… and {len(branches) - BRANCHES:,} more" if len(branches) > BRANCHES else ""
    parts = [html.facts(facts), html.table(("Branch", "Commit", "Last Message", ""), rows, more)]
    if tip := branches[head]:
        drawn = list(islice(_log_lines(engine, tip, show_time=True, show_user=True), LOG_LINES + 1))
        parts += [html.lines(drawn[:LOG_LINES]), html.below("…" if len(drawn) > LOG_LINES else "")]
    return html.card(engine.path.name, "Arborfs Repository", *parts)


def _branch_row(engine: Engine, name: str, tip: Digest | None) -> tuple[object, ...]:
    staged = html.faint("staged changes" if engine.working_tree(name).is_dirty() else "")
    if tip is None:
        return html.code(name), html.faint("no commit yet"), "", staged
    return (
        html.code(name),
        html.code(engine.abbreviation(tip)),
        first_line(engine.commit_record(tip).message, 80),
        staged,
    )


def _some(names: Collection[str]) -> str:
    """How many names there are, and the first ones."""
    listed = ", ".join(sorted(names)[:BRANCHES])
    return f"{len(names):,}" + (f": {listed}" if names else "") + (", …" if len(names) > BRANCHES else "")


def log_contents(engine: Engine, commit: Digest | None) -> dict[str, Any]:
    """The same for programs.

    `head`; `order`: the commits, newest first; `ancestors`: commit → its parents; `specs`: commit → time
    (seconds since 1970), message, user, email, metadata; `branch_heads`: commit → the branches that end there.
    """
    history = list(engine.log(commit)) if commit is not None else []
    heads: dict[str, list[str]] = defaultdict(list)
    for branch, tip in sorted(engine.branches().items()):
        if tip is not None:
            heads[hexed(tip)].append(branch)
    order = [hexed(digest) for digest, _ in history]
    return {
        "head": hexed(commit) if commit is not None else "",
        "ancestors": {hexed(digest): [hexed(p) for p in record.parents] for digest, record in history},
        "specs": {
            hexed(digest): {
                "commit_time": record.time / _SECOND,
                "commit_message": record.message,
                "commit_user": record.author.name,
                "commit_email": record.author.email,
                "commit_metadata": dict(record.metadata),
            }
            for digest, record in history
        },
        "order": order,
        "branch_heads": {commit: heads[commit] for commit in order if commit in heads},
    }
