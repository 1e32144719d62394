"""`mount.arborfs`: what mount(8) runs for `mount -t arborfs REPOSITORY MOUNTPOINT -o …` and for lines of
/etc/fstab.

It is called as `mount.arborfs SPEC DIR [-sfnv] [-N namespace] [-t type] [-o options]` and answers with
mount(8)'s own exit codes, which differ from those of `arborfs`. An fstab line looks like this:

    /srv/data  /mnt/v1  arborfs  ref=v1.0,allow_other,nofail  0  0
"""

from __future__ import annotations

from pathlib import Path

import click

from fusefs import mountinfo
from fusefs.cli.mounting import start
from fusefs.options import MountOptions
from storage.errors import ArborError

USAGE_ERROR, MOUNT_FAILED = 1, 32
"""From mount(8), section EXIT STATUS."""

_GENERIC = """
    auto noauto user nouser users owner group nofail _netdev defaults rw
    exec suid nosuid dev nodev async
    atime noatime relatime norelatime strictatime diratime nodiratime lazytime nolazytime
"""
GENERIC = frozenset(_GENERIC.split())
"""Options that say nothing to a FUSE file system, or that fusermount3 sets anyway (nosuid, nodev)."""

NOT_KEPT = frozenset(("noexec", "sync", "dirsync", "mand", "iversion"))
"""Options that mount(8) may hand on, and that do not hold here: taken, but not in silence."""

IGNORED_PREFIXES = ("x-", "X-", "comment=", "user=")


def parse(spec: str, directory: str, words: tuple[str, ...], *, sloppy: bool) -> MountOptions:
    """The options of a mount from what stood after -o; UsageError for an unknown one, unless `sloppy`."""
    values: dict[str, str] = {}
    flags: set[str] = set()
    for word in (part.strip() for given in words for part in given.split(",")):
        key, equals, value = word.partition("=")
        if not word or word in GENERIC or word.startswith(IGNORED_PREFIXES):
            continue
        if word in NOT_KEPT:
            click.echo(f"mount.arborfs: {word} has no effect here", err=True)
        elif word in ("ro", "allow_other", "debug", "supervise"):
            flags.add(word)
        elif equals and value and key in ("ref", "branch", "log"):
            values[key] = value
        elif not sloppy:
            raise click.UsageError(
                f"unknown option {word!r}: known are ref=, branch=, log=, ro, allow_other, supervise, debug"
            )
    if "ref" in values and "branch" in values:
        raise click.UsageError("ref= and branch= exclude each other: a commit is read-only, a branch is not")
    return MountOptions(
        repository=Path(spec).resolve(),
        mountpoint=mountinfo.resolved(Path(directory)),
        ref=values.get("ref"),
        branch=values.get("branch"),
        read_only="ro" in flags,
        allow_other="allow_other" in flags,
        log=Path(values["log"]).absolute() if "log" in values else None,
        debug="debug" in flags,
        supervise="supervise" in flags,
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("spec", metavar="REPOSITORY")
@click.argument("directory", metavar="MOUNTPOINT")
@click.option(
    "-o",
    "words",
    metavar="OPTIONS",
    multiple=True,
    help="ref=, branch=, log=, ro, allow_other, supervise; generic ones.",
)
@click.option("-s", "sloppy", is_flag=True, help="Ignore options that are not known.")
@click.option("-f", "fake", is_flag=True, help="Check the call, mount nothing.")
@click.option("-n", "no_table", is_flag=True, help="Nothing here: no table of mounts is written anyway.")
@click.option("-v", "verbose", is_flag=True, help="Say what is done.")
@click.option("-t", "kind", metavar="TYPE", help="Nothing here: the type is arborfs.")
@click.option("-N", "namespace", metavar="NAMESPACE", help="Nothing here: mount(8) has entered it already.")
def command(
    spec: str,
    directory: str,
    words: tuple[str, ...],
    sloppy: bool,
    fake: bool,
    no_table: bool,
    verbose: bool,
    kind: str | None,
    namespace: str | None,
) -> None:
    """Mount REPOSITORY on MOUNTPOINT, called by mount(8).

    \b
    Example:
      mount -t arborfs /srv/data /mnt/v1 -o ref=v1.0
    """
    options = parse(spec, directory, words, sloppy=sloppy)
    if verbose:
        click.echo(f"mount.arborfs: {options}")
    if not fake:
        start(options)


def main() -> None:
    """Run the helper, and answer with the exit codes of mount(8)."""
    try:
        command.main(prog_name="mount.arborfs", standalone_mode=False)
    except click.UsageError as error:
        click.echo(f"mount.arborfs: {error.format_message()}", err=True)
        raise SystemExit(USAGE_ERROR) from None
    except click.ClickException as error:
        click.echo(f"mount.arborfs: {error.format_message()}", err=True)
        raise SystemExit(MOUNT_FAILED) from None
    except (ArborError, OSError) as error:
        click.echo(f"mount.arborfs: {error}", err=True)
        raise SystemExit(MOUNT_FAILED) from None
