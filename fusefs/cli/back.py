"""Going back to what was committed: `reset` moves a branch, `restore` brings back files."""

from __future__ import annotations

import click

from fusefs.cli.completion import branches, revisions
from fusefs.cli.completion import paths as paths_below
from fusefs.cli.location import Location, tree_path
from fusefs.cli.output import counted, json_option, print_json, printable, shown
from storage.model.digest import hexed
from storage.model.names import path_text
from storage.restoring import restore as restore_entry


@click.command()
@click.argument("revision", default="", shell_complete=revisions)
@click.option("--soft", is_flag=True, help="Leave all files as they are: what differs is staged.")
@click.option("--hard", is_flag=True, help="Drop what is staged on the branch.")
@click.option("--branch", shell_complete=branches, help="The branch to move. Default: as for status.")
@json_option
@click.pass_obj
def reset(location: Location, revision: str, soft: bool, hard: bool, branch: str | None, as_json: bool) -> None:
    """Move a branch to REVISION, its files with it. Default: where it is.

    Exit code 4 while anything is staged on it, unless you say with --soft that the files shall stay, or with --hard that the
    staged work shall go. Either way undo brings everything back.

    \b
    Example:
      arborfs -C data reset main~1
      arborfs -C data reset --hard
    """
    if soft and hard:
        raise click.UsageError("--soft keeps what is staged and --hard drops it: choose one.")
    with location.open() as engine:
        branch = branch or location.branch(engine)
        tip = engine.working_tree(branch).tip()
        target = engine.resolve(revision) if revision else tip
        if target is None and not hard:
            raise click.UsageError(f"Branch {branch} has no commit yet: --hard drops what is staged on it.")
        if soft and target is not None:
            engine.reset_soft(branch, target)
        elif hard or target is None:
            engine.reset_hard(branch, target)
        else:
            engine.reset(branch, target)
        staged = len(engine.working_tree(branch).status())
        if as_json:
            print_json({"branch": branch, "commit": hexed(target) if target else None, "staged": staged})
            return
        if target is None:
            click.echo(f"Branch {branch} is empty")
            return
        title = printable(engine.commit_record(target).message.partition("\n")[0])
        click.echo(f"Branch {branch} is at {engine.abbreviation(target)} {title}")
    if staged:
        click.echo(f"{counted(staged, 'change')} staged")


@click.command()
@click.argument("paths", nargs=-1, required=True, shell_complete=paths_below)
@click.option(
    "--from",
    "revision",
    metavar="REVISION",
    shell_complete=revisions,
    help="Take them from this revision. Default: the branch's tip.",
)
@click.option("--remove", is_flag=True, help="Remove a path that the revision does not have.")
@click.option("--branch", shell_complete=branches, help="The branch to bring them back on. Default: as for status.")
@json_option
@click.pass_obj
def restore(
    location: Location,
    paths: tuple[str, ...],
    revision: str | None,
    remove: bool,
    branch: str | None,
    as_json: bool,
) -> None:
    """Put the files and directories PATHS back as committed. What comes back is staged.

    PATHS begin at the top of the tree, wherever you stand; `.` is everything. A directory comes back whole: what it
    holds beyond what was committed goes, staged or not. No branch moves.

    \b
    Example:
      arborfs -C data restore images/0.npy
      arborfs -C data restore images --from v1.0
    """
    with location.open() as engine:
        branch = branch or location.branch(engine)
        tree = engine.working_tree(branch)
        snapshot = engine.snapshot(engine.resolve(revision or branch))
        restored = [tree_path(path) for path in paths]
        for path in restored:
            restore_entry(tree, snapshot, path, remove=remove)
            if not as_json:
                click.echo(f"Restored {shown(path)} from {engine.abbreviation(snapshot.commit)}")
        if as_json:
            commit = hexed(snapshot.commit)
            print_json({"branch": branch, "commit": commit, "restored": [path_text(path) for path in restored]})
