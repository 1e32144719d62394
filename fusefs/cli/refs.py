"""Names for commits: `branch` and `tag`."""

from __future__ import annotations

from typing import Any

import click

from fusefs.cli.completion import branches, revisions, tags
from fusefs.cli.location import Location
from fusefs.cli.output import counted, json_option, json_time, list_by_default, print_json, print_table, printable
from storage.engine import Engine
from storage.model.digest import Digest, hexed
from storage.stores.refs import TagRef


def _row(engine: Engine, mark: str, name: str, commit: Digest | None, note: str = "") -> tuple[str, str]:
    if commit is None:
        return f"{mark} {name}", "(no commit yet)"
    title = printable(engine.commit_record(commit).message.partition("\n")[0])
    return f"{mark} {name}", f"{engine.abbreviation(commit)} {title}{note}"


def _start(engine: Engine, location: Location, revision: str | None) -> Digest | None:
    """The commit a new name shall point to; None where nothing was named and the branch has no commit yet."""
    if revision is not None:
        return engine.resolve(revision)
    return engine.branches().get(location.branch(engine))


@click.group(invoke_without_command=True)
@click.option(
    "-d",
    "merged",
    metavar="NAME",
    shell_complete=branches,
    help="Delete a branch whose commits are in another branch or a tag.",
)
@click.option(
    "-D",
    "forced",
    metavar="NAME",
    shell_complete=branches,
    help="Delete a branch, also when its commits or staged work are nowhere else.",
)
@json_option
@click.pass_context
def branch(context: click.Context, merged: str | None, forced: str | None, as_json: bool) -> None:
    """List, make, delete and rename branches. Without a subcommand, list them.

    \b
    Example:
      arborfs -C data branch
      arborfs -C data branch create experiment v1.0
      arborfs -C data branch -d experiment
    """
    given = [merged is not None, forced is not None, context.invoked_subcommand is not None]
    if sum(given) > 1:
        raise click.UsageError("Do one thing at a time: -d, -D or a subcommand.")
    if merged is not None or forced is not None:
        context.invoke(delete_branch, name=merged or forced, force=forced is not None, as_json=as_json)
    else:
        list_by_default(context, list_branches, as_json)


@branch.command("list")
@json_option
@click.pass_obj
def list_branches(location: Location, as_json: bool = False) -> None:
    """List the branches; a star marks the default one.

    \b
    Example:
      arborfs -C data branch list --json
    """
    with location.open() as engine:
        tips, head = engine.branches(), engine.head()
        if as_json:
            rows = [
                {"name": name, "commit": hexed(tip) if tip else None, "default": name == head}
                for name, tip in sorted(tips.items())
            ]
            print_json(rows)
            return
        print_table(_row(engine, "*" if name == head else " ", name, tip) for name, tip in sorted(tips.items()))


@branch.command("create")
@click.argument("name")
@click.argument("revision", required=False, shell_complete=revisions)
@json_option
@click.pass_obj
def create_branch(location: Location, name: str, revision: str | None, as_json: bool) -> None:
    """Make the branch NAME at REVISION. Default: the branch you stand in.

    What is staged stays where it is staged: the new branch begins at the commit.

    \b
    Example:
      arborfs -C data branch create experiment main~1
    """
    with location.open() as engine:
        start = _start(engine, location, revision)
        engine.create_branch(name, start)
        _tell(engine, "Created", name, start, as_json)


def _tell(engine: Engine, done: str, branch: str, commit: Digest | None, as_json: bool) -> None:
    if as_json:
        print_json({"name": branch, "commit": hexed(commit) if commit else None})
    else:
        click.echo(f"{done} BRANCH: {branch} HEAD: {engine.abbreviation(commit) if commit else 'no commit yet'}")


@branch.command("delete")
@click.argument("name", shell_complete=branches)
@click.option("-f", "--force", is_flag=True, help="Also when its commits or staged work are nowhere else.")
@json_option
@click.pass_obj
def delete_branch(location: Location, name: str, force: bool, as_json: bool) -> None:
    """Delete the branch NAME. Its commits must be in another branch or a tag, unless --force is given.

    Undo brings it back, with what was staged on it.

    \b
    Example:
      arborfs -C data branch delete experiment
    """
    with location.open() as engine:
        tip = engine.branches().get(name)
        engine.remove_branch(name, force=force)
        _tell(engine, "Deleted", name, tip, as_json)


@branch.command("rename")
@click.argument("old", shell_complete=branches)
@click.argument("new")
@json_option
@click.pass_obj
def rename_branch(location: Location, old: str, new: str, as_json: bool) -> None:
    """Give the branch OLD the name NEW. What is staged on it goes along.

    \b
    Example:
      arborfs -C data branch rename experiment calibrated
    """
    with location.open() as engine:
        engine.rename_branch(old, new)
        tip = engine.branches()[new]
    if as_json:
        print_json({"old": old, "new": new, "commit": hexed(tip) if tip else None})
    else:
        click.echo(f"Branch {old} is now {new}")


@branch.command("default")
@click.argument("name", shell_complete=branches)
@json_option
@click.pass_obj
def default_branch(location: Location, name: str, as_json: bool) -> None:
    """Make NAME the default branch: the one that HEAD points to. The same as checkout.

    \b
    Example:
      arborfs -C data branch default calibrated
    """
    with location.open() as engine:
        moved = _head_moved(engine, name)
    if as_json:
        print_json(moved)
    else:
        click.echo(f"The default branch is now {name}")


def _head_moved(engine: Engine, branch: str) -> dict[str, Any]:
    """Make `branch` the default one. For programs: that, the branch that was left, and the number of changes staged there."""
    left = engine.head()
    engine.set_head(branch)
    return {"branch": branch, "left": left, "staged": len(engine.working_tree(left).status())}


@click.command()
@click.argument("branch", shell_complete=branches)
@json_option
@click.pass_obj
def checkout(location: Location, branch: str, as_json: bool) -> None:
    """Make BRANCH the one that HEAD points to. Commands work on it where none is named.

    What is staged stays staged on its own branch: nothing has to be committed first, and no file changes. In a mount,
    commands go on working on the branch whose directory you stand in.

    \b
    Example:
      arborfs -C data checkout experiment
    """
    with location.open() as engine:
        moved = _head_moved(engine, branch)
    if as_json:
        print_json(moved)
        return
    click.echo(f"Writer checkout head set to branch: {branch}")
    if moved["staged"] and moved["left"] != branch:
        click.echo(f"{counted(moved['staged'], 'change')} staged on {moved['left']} stay there.")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def tag(context: click.Context, as_json: bool) -> None:
    """List, make and delete tags; without a subcommand, list them.

    \b
    Example:
      arborfs -C data tag
      arborfs -C data tag create v1.0 -m "as in the paper"
      arborfs -C data tag delete v1.0
    """
    list_by_default(context, list_tags, as_json)


@tag.command("list")
@json_option
@click.pass_obj
def list_tags(location: Location, as_json: bool = False) -> None:
    """List the tags, each with its commit and its message.

    \b
    Example:
      arborfs -C data tag list --json
    """
    with location.open() as engine:
        found = {name: engine.tag(name) for name in sorted(engine.tags())}
        if as_json:
            print_json([_tag_json(name, tag) for name, tag in found.items()])
            return
        print_table(_row(engine, " ", name, Digest(tag.digest), _note(tag)) for name, tag in found.items())


def _note(tag: TagRef) -> str:
    message = printable(tag.message.partition("\n")[0])
    return f"  [{message}]" if message else ""


def _tag_json(name: str, tag: TagRef) -> dict[str, str]:
    return {"name": name, "commit": hexed(Digest(tag.digest)), "message": tag.message, "time": json_time(tag.time)}


@tag.command("create")
@click.argument("name")
@click.argument("revision", required=False, shell_complete=revisions)
@click.option("-m", "--message", default="", help="Why this commit has a name.")
@json_option
@click.pass_obj
def create_tag(location: Location, name: str, revision: str | None, message: str, as_json: bool) -> None:
    """Name the commit REVISION NAME, for good. Default: the tip of the branch you stand in.

    \b
    Example:
      arborfs -C data tag create v1.0 main -m "as in the paper"
    """
    with location.open() as engine:
        commit = _start(engine, location, revision)
        if commit is None:
            commit = engine.resolve(location.branch(engine))  # says that there is no commit yet
        engine.create_tag(name, commit, message)
        if as_json:
            print_json(_tag_json(name, engine.tag(name)))
        else:
            click.echo(f"Tag {name} made at {engine.abbreviation(commit)}")


@tag.command("delete")
@click.argument("name", shell_complete=tags)
@json_option
@click.pass_obj
def delete_tag(location: Location, name: str, as_json: bool) -> None:
    """Delete the tag NAME; the commit stays.

    \b
    Example:
      arborfs -C data tag delete v1.0
    """
    with location.open() as engine:
        gone = engine.tag(name)
        engine.remove_tag(name)
    if as_json:
        print_json(_tag_json(name, gone))
    else:
        click.echo(f"Tag {name} deleted")
