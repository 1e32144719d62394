"""What is staged, and committing it: `status`, `commit`; and how commits are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import click

from fusefs.cli.completion import branches
from fusefs.cli.location import Location
from fusefs.cli.merging import merging_json, merging_text
from fusefs.cli.message import edited, require_editor
from fusefs.cli.output import counted, json_option, json_time, local_time, print_json, printable, shown
from storage.engine import Engine
from storage.errors import NothingToCommit
from storage.model.digest import Digest, hexed
from storage.model.names import Path, path_text
from storage.model.records import Commit, Kind
from storage.stores.status import StatusRow

Names = Mapping[Digest, list[str]]


LISTED = 100
"""The editor for a commit's message shows so many changes."""


@click.command()
@click.argument("branch", required=False, shell_complete=branches)
@json_option
@click.pass_obj
def status(location: Location, branch: str | None, as_json: bool) -> None:
    """List what is staged on BRANCH, and open conflicts. Default: the branch you stand in, else the default branch.

    Staged work is what was written since the last commit, in a mount or by the Python API. It survives
    unmounting and restarts.

    \b
    Example:
      arborfs -C data status
      arborfs -C data status experiment --json
    """
    with location.open() as engine:
        branch = branch or location.branch(engine)
        changes = engine.working_tree(branch).status()
        tip = engine.branches().get(branch)
        merging = engine.merging(branch)
        under_way, conflicts = merging.under_way(), merging.conflicts()
    if as_json:
        listed = [change_json(row.path, row.change, row.kind) for row in changes]
        told = {"merge": merging_json(under_way, conflicts)} if under_way is not None else {}
        print_json({"branch": branch, "commit": hexed(tip) if tip else None, "changes": listed, **told})
        return
    if under_way is not None:
        click.echo(merging_text(under_way, conflicts))
    click.echo(_staged_text(branch, changes))
    for row in changes:
        click.echo(change_text(row.path, row.change, row.kind))


def _staged_text(branch: str, changes: Sequence[StatusRow]) -> str:
    return f"On branch {branch}, {counted(len(changes), 'change') if changes else 'nothing'} staged."


def change_text(path: Path, change: str, kind: Kind) -> str:
    """One changed path for people; directories end in a slash, but for `.`."""
    return f"  {change:8} {shown(path)}{'/' if path and kind is Kind.DIRECTORY else ''}"


def change_json(path: Path, change: str, kind: Kind) -> dict[str, str]:
    """One changed path for programs."""
    return {"path": path_text(path), "change": change, "kind": kind.name.lower()}


def names_of(engine: Engine) -> Names:
    """Branches and tags by the commit they point to, as `log` and `show` print them."""
    names: dict[Digest, list[str]] = defaultdict(list)
    head = engine.head()
    for branch, tip in sorted(engine.branches().items()):
        if tip is not None:
            names[tip].append(f"HEAD -> {branch}" if branch == head else branch)
    for tag, commit in sorted(engine.tags().items()):
        names[commit].append(f"tag {tag}")
    return names


def commit_text(engine: Engine, digest: Digest, record: Commit, names: Names) -> str:
    """A commit for people: id, author, date, message."""
    refs = f" ({', '.join(names[digest])})" if digest in names else ""
    lines = [f"commit {engine.abbreviation(digest)}{refs}"]
    if len(record.parents) > 1:
        lines.append("Merge:  " + " ".join(engine.abbreviation(parent) for parent in record.parents))
    lines.append(f"Author: {printable(record.author.name)} <{printable(record.author.email)}>")
    lines.append(f"Date:   {local_time(record.time)}")
    lines.append("")
    lines += [f"    {printable(line)}" for line in record.message.splitlines() or [""]]
    lines += [f"    {printable(key)}: {printable(value)}" for key, value in sorted(record.metadata.items())]
    return "\n".join(lines)


def commit_json(digest: Digest, record: Commit, names: Names) -> dict[str, Any]:
    """A commit for programs."""
    return {
        "commit": hexed(digest),
        "parents": [hexed(parent) for parent in record.parents],
        "author": {"name": record.author.name, "email": record.author.email},
        "time": json_time(record.time),
        "message": record.message,
        "metadata": record.metadata,
        "refs": names.get(digest, []),
    }


@click.command()
@click.option(
    "-m",
    "--message",
    "messages",
    multiple=True,
    help="What changed, and why; given again, one more line of that. Default: your editor asks; where a merge is "
    "finished, what that was begun with.",
)
@click.option(
    "--amend", is_flag=True, help="Put this commit in the last one's place; its message stays unless one is given."
)
@click.option("--branch", shell_complete=branches, help="Commit what is staged on this branch. Default: as for status.")
@json_option
@click.pass_obj
def commit(location: Location, messages: tuple[str, ...], amend: bool, branch: str | None, as_json: bool) -> None:
    """Commit everything staged on a branch, and print the id.

    Without -m, $VISUAL or $EDITOR is opened for the message, with the status as comments; an empty one stops the commit,
    with exit code 1. Exit code 4 when nothing is staged. With --amend only this branch moves: other branches
    and tags keep the commit that is replaced, and undo brings it back.

    \b
    Example:
      arborfs -C data commit -m "calibrated the second camera"
      arborfs -C data commit --amend -m "calibrated both cameras"
    """
    message = "\n".join(messages) if messages else None
    if message is not None and not message.strip():
        raise click.UsageError("The message is empty: say what changed.")
    if message is None and not amend and not _ends_merge(location, branch):
        branch, message = _asked(location, branch)
        if not message:
            click.echo("Aborted! Empty commit message: nothing was committed, all is staged as it was.", err=True)
            raise click.exceptions.Exit(1)
    with location.open() as engine:
        branch = branch or location.branch(engine)
        tree = engine.working_tree(branch)
        digest = tree.amend(message) if amend else tree.commit(message or "")
        if as_json:
            print_json({"branch": branch, "commit": hexed(digest)})
        else:
            title = engine.commit_record(digest).message.partition("\n")[0]
            click.echo(f"[{branch} {engine.abbreviation(digest)}] {printable(title)}")


def _ends_merge(location: Location, branch: str | None) -> bool:
    """Whether a commit now would finish a merge, which has a message already."""
    with location.open() as engine:
        return engine.working_tree(branch or location.branch(engine)).merging() is not None


def _asked(location: Location, branch: str | None) -> tuple[str, str]:
    """The branch to commit to, and the message from the user's editor. NothingToCommit before that is opened."""
    require_editor()
    with location.open() as engine:
        branch = branch or location.branch(engine)
        tree = engine.working_tree(branch)
        if not tree.is_dirty():
            raise NothingToCommit(f"nothing is staged on branch {branch!r}")
        changes = tree.status()
    lines = [_staged_text(branch, changes)]
    lines += [change_text(row.path, row.change, row.kind) for row in changes[:LISTED]]
    if len(changes) > LISTED:
        lines.append(f"  and {len(changes) - LISTED:,} more")
    # The repository is closed meanwhile: who writes a message may take a long time over it.
    return branch, edited("\n".join(lines))
