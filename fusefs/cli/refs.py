"""Names for commits: `branch` and `tag`."""

from __future__ import annotations

import click

from fusefs.cli.location import Location
from fusefs.cli.output import json_option, json_time, print_json, printable
from storage.engine import Engine
from storage.model.digest import Digest, hexed
from storage.stores.refs import TagRef


def _line(engine: Engine, mark: str, name: str, width: int, commit: Digest | None) -> str:
    if commit is None:
        return f"{mark} {name:{width}}  (no commit yet)"
    title = printable(engine.commit_record(commit).message.partition("\n")[0])
    return f"{mark} {name:{width}}  {engine.abbreviation(commit)} {title}"


def _start(engine: Engine, location: Location, revision: str | None) -> Digest | None:
    """The commit a new name shall point to; None where nothing was named and the branch has no commit yet."""
    if revision is not None:
        return engine.resolve(revision)
    return engine.branches().get(location.branch(engine))


@click.group(invoke_without_command=True)
@click.option("-d", "merged", metavar="NAME", help="Delete a branch whose commits are in another branch or a tag.")
@click.option(
    "-D", "forced", metavar="NAME", help="Delete a branch, also when its commits or staged work are nowhere else."
)
@click.pass_context
def branch(context: click.Context, merged: str | None, forced: str | None) -> None:
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
        context.invoke(delete_branch, name=merged or forced, force=forced is not None)
    elif context.invoked_subcommand is None:
        context.invoke(list_branches)


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
        width = max(map(len, tips), default=0)
        for name, tip in sorted(tips.items()):
            click.echo(_line(engine, "*" if name == head else " ", name, width, tip))


@branch.command("create")
@click.argument("name")
@click.argument("revision", required=False)
@click.pass_obj
def create_branch(location: Location, name: str, revision: str | None) -> None:
    """Make the branch NAME at REVISION. Default: the branch you stand in.

    What is staged stays where it is staged: the new branch begins at the commit.

    \b
    Example:
      arborfs -C data branch create experiment main~1
    """
    with location.open() as engine:
        start = _start(engine, location, revision)
        engine.create_branch(name, start)
        click.echo(f"Branch {name} made at {engine.abbreviation(start) if start else 'no commit yet'}")


@branch.command("delete")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also when its commits or staged work are nowhere else.")
@click.pass_obj
def delete_branch(location: Location, name: str, force: bool) -> None:
    """Delete the branch NAME. Its commits must be in another branch or a tag, unless --force is given.

    Undo brings it back, with what was staged on it.

    \b
    Example:
      arborfs -C data branch delete experiment
    """
    with location.open() as engine:
        engine.remove_branch(name, force=force)
    click.echo(f"Branch {name} deleted")


@branch.command("rename")
@click.argument("old")
@click.argument("new")
@click.pass_obj
def rename_branch(location: Location, old: str, new: str) -> None:
    """Give the branch OLD the name NEW. What is staged on it goes along.

    \b
    Example:
      arborfs -C data branch rename experiment calibrated
    """
    with location.open() as engine:
        engine.rename_branch(old, new)
    click.echo(f"Branch {old} is now {new}")


@branch.command("default")
@click.argument("name")
@click.pass_obj
def default_branch(location: Location, name: str) -> None:
    """Make NAME the default branch: the one that HEAD points to.

    \b
    Example:
      arborfs -C data branch default calibrated
    """
    with location.open() as engine:
        engine.set_head(name)
    click.echo(f"The default branch is now {name}")


@click.group(invoke_without_command=True)
@click.pass_context
def tag(context: click.Context) -> None:
    """List, make and delete tags; without a subcommand, list them.

    \b
    Example:
      arborfs -C data tag
      arborfs -C data tag create v1.0 -m "as in the paper"
      arborfs -C data tag delete v1.0
    """
    if context.invoked_subcommand is None:
        context.invoke(list_tags)


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
        tags = {name: engine.tag(name) for name in sorted(engine.tags())}
        if as_json:
            print_json([_tag_json(name, found) for name, found in tags.items()])
            return
        width = max(map(len, tags), default=0)
        for name, found in tags.items():
            message = printable(found.message.partition("\n")[0])
            click.echo(_line(engine, " ", name, width, Digest(found.digest)) + (f"  [{message}]" if message else ""))


def _tag_json(name: str, tag: TagRef) -> dict[str, str]:
    return {"name": name, "commit": hexed(Digest(tag.digest)), "message": tag.message, "time": json_time(tag.time)}


@tag.command("create")
@click.argument("name")
@click.argument("revision", required=False)
@click.option("-m", "--message", default="", help="Why this commit has a name.")
@click.pass_obj
def create_tag(location: Location, name: str, revision: str | None, message: str) -> None:
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
        click.echo(f"Tag {name} made at {engine.abbreviation(commit)}")


@tag.command("delete")
@click.argument("name")
@click.pass_obj
def delete_tag(location: Location, name: str) -> None:
    """Delete the tag NAME; the commit stays.

    \b
    Example:
      arborfs -C data tag delete v1.0
    """
    with location.open() as engine:
        engine.remove_tag(name)
    click.echo(f"Tag {name} deleted")
