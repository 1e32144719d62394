"""Merging: `merge`, `resolve`, `revert`, `cherry-pick`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from fusefs.cli.completion import branches, revisions
from fusefs.cli.location import Location, tree_path
from fusefs.cli.output import counted, json_option, print_json, printable, shown
from storage.engine import Engine
from storage.errors import OpenConflicts
from storage.merging import CHOICES, Choice, Conflict, MergeResult, MergeState, Outcome
from storage.model.digest import hexed
from storage.model.names import path_text

message_option = click.option(
    "-m", "--message", default="", help="The commit's message. Default: one that says what is done."
)
branch_option = click.option(
    "--branch", shell_complete=branches, help="The branch that changes. Default: as for status."
)
parent_option = click.option(
    "--parent", type=click.IntRange(min=1), help="Of a merge: the parent that it is compared with."
)
strict_option = click.option("--strict", is_flag=True, help="Where there are conflicts, change nothing.")


def merging_text(state: MergeState, conflicts: Sequence[Conflict]) -> str:
    """A merge that is under way, for people."""
    if not conflicts:
        return f"The {state.what} of {state.theirs} is under way, all conflicts are resolved: commit it."
    lines = [f"The {state.what} of {state.theirs} is under way, {counted(len(conflicts), 'open conflict')}:"]
    lines += [f"  {conflict.word:18} {shown(conflict.path)}" for conflict in conflicts]
    return "\n".join(lines)


def merging_json(state: MergeState, conflicts: Sequence[Conflict]) -> dict[str, Any]:
    """A merge that is under way, for programs."""
    return {"what": state.what, "theirs": state.theirs, "conflicts": conflicts_json(conflicts)}


def conflicts_json(conflicts: Sequence[Conflict]) -> list[dict[str, str]]:
    """Open conflicts for programs."""
    return [{"path": path_text(conflict.path), "conflict": conflict.word} for conflict in conflicts]


@click.command()
@click.argument("revision", required=False, shell_complete=revisions)
@message_option
@branch_option
@click.option("--abort", is_flag=True, help="Give up the merge (or revert, or cherry-pick) that is under way.")
@strict_option
@json_option
@click.pass_obj
def merge(
    location: Location,
    revision: str | None,
    message: str,
    branch: str | None,
    abort: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Merge REVISION, mostly a branch, into the one you stand in.

    Different entries never conflict. Where both sides changed the same, the merge stays under way and exit code 4 says
    so: status lists the conflicts, a mount has every side as a file in .arborfs/conflicts/. Resolve each one by writing
    or removing that path, or with resolve; then commit. --abort puts everything back.

    \b
    Example:
      arborfs -C data merge experiment -m "take the calibration over"
      arborfs -C data resolve images/7.npy --theirs
      arborfs -C data commit -m "merge experiment"
    """
    if abort is (revision is not None):
        raise click.UsageError("Name a REVISION to merge, or give --abort.")
    with location.open() as engine:
        branch = branch or location.branch(engine)
        merging = engine.merging(branch)
        if revision is None:
            merging.abort()
            if as_json:
                print_json({"branch": branch, "outcome": "aborted"})
            else:
                click.echo(f"Aborted: {branch} is as it was before.")
            return
        theirs = engine.resolve(revision)
        _report(engine, branch, merging.merge(theirs, message, name=revision, leave_open=not strict), as_json)


@click.command()
@click.argument("revision", shell_complete=revisions)
@message_option
@branch_option
@parent_option
@strict_option
@json_option
@click.pass_obj
def revert(
    location: Location,
    revision: str,
    message: str,
    branch: str | None,
    parent: int | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Take back what the commit REVISION changed. It becomes a new commit of the branch you stand in.

    What was changed again since then is a conflict; those are resolved as for merge.

    \b
    Example:
      arborfs -C data revert main~2
    """
    with location.open() as engine:
        branch = branch or location.branch(engine)
        commit = engine.resolve(revision)
        result = engine.merging(branch).revert(commit, message, parent=parent, leave_open=not strict)
        _report(engine, branch, result, as_json)


@click.command("cherry-pick")
@click.argument("revision", shell_complete=revisions)
@message_option
@branch_option
@parent_option
@strict_option
@json_option
@click.pass_obj
def cherry_pick(
    location: Location,
    revision: str,
    message: str,
    branch: str | None,
    parent: int | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Make the changes of the commit REVISION once more. They become a new commit of the branch you stand in.

    Message and author are those of REVISION. Conflicts are resolved as for merge; a commit without -m has both then, too.

    \b
    Example:
      arborfs -C data cherry-pick experiment~1
    """
    with location.open() as engine:
        branch = branch or location.branch(engine)
        commit = engine.resolve(revision)
        result = engine.merging(branch).cherry_pick(commit, message, parent=parent, leave_open=not strict)
        _report(engine, branch, result, as_json)


def _report(engine: Engine, branch: str, result: MergeResult, as_json: bool) -> None:
    """Print what became of it; OpenConflicts, for exit code 4, where conflicts are left."""
    if as_json:
        tip, listed = hexed(result.commit) if result.commit else None, conflicts_json(result.conflicts)
        print_json({"branch": branch, "outcome": str(result.outcome), "commit": tip, "conflicts": listed})
    elif result.commit is None or result.outcome is Outcome.ALREADY:
        click.echo(f"Nothing to do: {branch} has all of it.")
    elif not result.conflicts:
        title = printable(engine.commit_record(result.commit).message.partition("\n")[0])
        note = "fast-forward: " if result.outcome is Outcome.FAST_FORWARD else ""
        click.echo(f"[{branch} {engine.abbreviation(result.commit)}] {note}{title}")
    else:
        for conflict in result.conflicts:
            click.echo(f"  {conflict.word:18} {shown(conflict.path)}")
    if result.conflicts:
        many = counted(len(result.conflicts), "conflict")
        raise OpenConflicts(f"{many} on {branch}: resolve and commit, or give --abort to merge", result.conflicts)


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--ours", "choice", flag_value="ours", help="Take what the branch had before the merge.")
@click.option("--theirs", "choice", flag_value="theirs", help="Take what is merged into it.")
@click.option("--delete", "choice", flag_value="delete", help="Remove it.")
@branch_option
@json_option
@click.pass_obj
def resolve(
    location: Location, paths: tuple[str, ...], choice: Choice | None, branch: str | None, as_json: bool
) -> None:
    """Settle conflicts of the merge that is under way. Each PATH is one that status lists, from the top of the tree.

    \b
    Example:
      arborfs -C data resolve images/7.npy --theirs
    """
    if choice not in CHOICES:
        raise click.UsageError("Say how: --ours, --theirs or --delete.")
    with location.open() as engine:
        branch = branch or location.branch(engine)
        merging = engine.merging(branch)
        resolved = [tree_path(path) for path in paths]
        for path in resolved:
            merging.resolve(path, choice)
        left = merging.conflicts()
    if as_json:
        print_json({"branch": branch, "resolved": list(map(path_text, resolved)), "conflicts": conflicts_json(left)})
    else:
        told = f"{counted(len(left), 'conflict')} left." if left else "All conflicts are resolved: commit the merge."
        click.echo(told)
