"""Which process serves which mount, and as what.

The kernel's list of mounts tells neither, so a daemon leaves a note in its repository, `.arborfs/mounts/PID`,
while it runs. A note names its process by pid, start time and boot, so that one left behind by a crash is
never taken for a later process; whoever finds such a note deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fusefs.mountinfo import Mount
from fusefs.options import MountOptions
from storage.config import folder
from storage.disk.locks import Owner, this_process


class Daemon(msgspec.Struct, frozen=True):
    """A running daemon: its process, its mount point, the one branch or commit it shows (None: all)."""

    process: Owner
    mountpoint: str
    ref: str | None
    branch: str | None


def _notes(repository: Path) -> Path:
    return folder(repository) / "mounts"


@contextmanager
def noted(options: MountOptions) -> Iterator[None]:
    """Leave a note that this process serves a mount, as long as the block runs."""
    me = this_process()
    note = _notes(options.repository) / str(me.pid)
    note.parent.mkdir(exist_ok=True)
    note.write_bytes(msgspec.json.encode(Daemon(me, str(options.mountpoint), options.ref, options.branch)))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def daemon_of(mount: Mount) -> Daemon | None:
    """The running daemon behind a mount; None when it is dead, or was not started by the command line."""
    for note in _notes(mount.repository).glob("*"):
        try:
            daemon = msgspec.json.decode(note.read_bytes(), type=Daemon)
        except (OSError, msgspec.DecodeError):
            continue  # gone, or being written
        if not daemon.process.alive:
            note.unlink(missing_ok=True)
        elif daemon.mountpoint == str(mount.mountpoint):
            return daemon
    return None
