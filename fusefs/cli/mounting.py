"""`mount`, `umount`, `mounts`: the daemon's life seen from outside."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fusefs import mountinfo
from fusefs.cli.daemons import daemon_of, noted
from fusefs.cli.output import json_option, print_json, printable
from fusefs.logs import logging_to
from fusefs.options import MountOptions
from storage.config import folder, read_config
from storage.errors import ArborError, Exists, NotFound

ANSWER_SECONDS = 60.0
"""A mount that has not answered by then has failed. It takes long only where an index is rebuilt first."""

END_SECONDS = 60.0
"""After an unmount the daemon finishes what is staged; longer than this is worth a word."""

LOG_LIMIT = 1 << 20
"""A log longer than this moves aside (one older log is kept) before a daemon writes to it."""


_COURSE = re.compile(r"\S+ \S+ (INFO|DEBUG) ")
"""How a line begins that tells what goes on, not what went wrong."""


class MountFailed(ArborError):
    """The mount did not come up, or did not go away."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code if exit_code > 0 else 1  # a signal ended it


@click.command()
@click.argument("repository", type=click.Path(path_type=Path))
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--ref", metavar="REVISION", help="Only this branch, tag or commit, read-only, as the root of the mount.")
@click.option("--branch", help="Only this branch's working tree as the root of the mount.")
@click.option("--ro", "read_only", is_flag=True, help="Nothing can be written.")
@click.option(
    "--allow-other", is_flag=True, help="Other users may look too (/etc/fuse.conf must say user_allow_other)."
)
@click.option("--supervise", is_flag=True, help="Start the daemon again whenever it dies, until it is unmounted.")
@click.option("--foreground", is_flag=True, help="Stay, and write the log to the terminal; Ctrl-C unmounts.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Where the daemon writes what happens.")
@click.option("--debug", is_flag=True, help="Log every request.")
@click.pass_context
def mount(
    context: click.Context,
    repository: Path,
    mountpoint: Path,
    ref: str | None,
    branch: str | None,
    read_only: bool,
    allow_other: bool,
    supervise: bool,
    foreground: bool,
    log: Path | None,
    debug: bool,
) -> None:
    """Mount REPOSITORY on the folder MOUNTPOINT. The command ends once the mount answers, and a daemon stays.

    What a dead mount has left there is cleared first. The log goes to REPOSITORY/.arborfs/logs/ unless --log
    names a file. `arborfs umount` and SIGTERM both finish what is being written, then unmount. With --supervise
    a daemon that dies is started again, at once and then after longer and longer pauses.

    \b
    Example:
      arborfs mount data /mnt/data
      arborfs mount data /mnt/v1 --ref v1.0
      arborfs mount data /mnt/work --branch experiment
    """
    if ref and branch:
        raise click.UsageError("--ref and --branch exclude each other: a commit is read-only, a branch is not.")
    options = MountOptions(
        repository=repository.resolve(),
        mountpoint=mountinfo.resolved(mountpoint),
        ref=ref,
        branch=branch,
        read_only=read_only,
        allow_other=allow_other,
        log=log.absolute() if log else None,
        debug=debug,
        supervise=supervise,
    )
    if not foreground:
        start(options)
    elif supervise:
        from fusefs.cli.supervisor import Supervisor

        read_config(options.repository)
        with logging_to(options.log, debug=options.debug):
            code = Supervisor(daemon_command(replace(options, supervise=False)), options.mountpoint).run()
        context.exit(code if code >= 0 else 1)
    else:
        _serve(options)


def _serve(options: MountOptions) -> None:
    # Here, because trio and pyfuse3 take longer to import than everything else the command line needs.
    from fusefs.daemon import serve

    read_config(options.repository)
    with noted(options):
        serve(options)


def start(options: MountOptions) -> None:
    """Start a daemon and return when its mount answers; MountFailed, in its words, if it ends instead."""
    read_config(options.repository)  # before a log is written there: it may be no repository, or a newer one
    mountinfo.clear_dead(options.mountpoint)
    if mountinfo.mounted_at(options.mountpoint) is not None:
        raise Exists(f"something is mounted at {options.mountpoint} already: unmount it first")
    log = options.log or default_log(options)
    log.parent.mkdir(exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_name(log.name + ".old"))
    # Everything the daemon says goes to the log, also what the interpreter or a C library prints at the last gasp.
    with log.open("ab") as output:
        before = output.tell()
        daemon = subprocess.Popen(
            daemon_command(replace(options, log=None)),  # its output is the log
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + ANSWER_SECONDS
    while not mountinfo.wait_ready(options.mountpoint, options.repository, time.monotonic() + 0.05):
        if daemon.poll() is not None:
            raise MountFailed(_words(log, before) or f"the daemon ended; see {log}", daemon.returncode)
        if time.monotonic() > deadline:
            daemon.terminate()
            raise MountFailed(f"the mount did not answer within {ANSWER_SECONDS:g} s; see {log}", 1)
    # It outlives this process on purpose: Python need not warn that it was not waited for.
    daemon.returncode = 0


def _words(log: Path, start: int) -> str:
    """What a daemon that ended wrote to its log since it had `start` bytes, without the course of events."""
    with log.open("rb") as said:
        said.seek(start)
        lines = said.read().decode(errors="replace").splitlines()
    return "\n".join(line.removeprefix("Error: ") for line in lines if not _COURSE.match(line)).strip()


def daemon_command(options: MountOptions) -> list[str]:
    """The command that mounts with these options in the foreground."""
    words = [sys.executable, "-m", "fusefs.cli", "mount", "--foreground"]
    words += [str(options.repository), str(options.mountpoint)]
    values = {"--ref": options.ref, "--branch": options.branch, "--log": options.log}
    words += [f"{option}={value}" for option, value in values.items() if value]
    flags = {
        "--ro": options.read_only,
        "--allow-other": options.allow_other,
        "--debug": options.debug,
        "--supervise": options.supervise,
    }
    return words + [flag for flag, wanted in flags.items() if wanted]


def default_log(options: MountOptions) -> Path:
    """The log of the daemon at this mount point: one each, since it has one daemon at a time."""
    name = str(options.mountpoint).strip("/").replace("-", "--").replace("/", "-")
    return folder(options.repository) / "logs" / f"{name[-200:]}.log"


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Also while files are open there: they go on until they are closed.")
def umount(mountpoint: Path, force: bool) -> None:
    """Take the mount at MOUNTPOINT away. Waits until its daemon has stored everything and ended.

    Staged work stays staged: it is there again at the next mount, and in the Python API.

    \b
    Example:
      arborfs umount /mnt/data
    """
    mount = mountinfo.mounted_at(mountpoint)
    if mount is None:
        raise NotFound(f"no arborfs mount at {mountpoint}")
    daemon = daemon_of(mount)
    try:
        mountinfo.unmount(mountpoint, lazy=force)
    except mountinfo.MountError as error:
        if "busy" not in str(error):
            raise
        raise mountinfo.MountError(f"{error}; close what is open there, or say --force") from error
    if daemon is None or force:
        return
    deadline = time.monotonic() + END_SECONDS
    while daemon.process.alive:
        if time.monotonic() > deadline:
            raise MountFailed(f"unmounted, but the daemon (process {daemon.process.pid}) is still at work", 1)
        time.sleep(0.01)


@click.command()
@json_option
def mounts(as_json: bool) -> None:
    """List the arborfs mounts of this machine.

    \b
    Example:
      arborfs mounts --json
    """
    rows = [_row(mount) for mount in mountinfo.mounts()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        traits = ["read-only" if row["read_only"] else "read-write"]
        traits += [f"{key} {row[key]}" for key in ("ref", "branch") if row[key]]
        if row["pid"] is not None:
            traits.append(f"process {row['pid']}")
        elif not row["alive"]:
            traits.append("DEAD: mount or umount clears it")
        click.echo(f"{printable(row['repository'])} on {printable(row['mountpoint'])} ({', '.join(traits)})")


def _row(mount: mountinfo.Mount) -> dict[str, Any]:
    daemon = daemon_of(mount)
    return {
        "repository": str(mount.repository),
        "mountpoint": str(mount.mountpoint),
        "ref": daemon.ref if daemon else None,
        "branch": daemon.branch if daemon else None,
        "read_only": mount.read_only,
        "pid": daemon.process.pid if daemon else None,
        "alive": daemon is not None or not mountinfo.is_dead(mount.mountpoint),
    }
