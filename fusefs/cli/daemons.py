"""Which process serves which mount, and as what: the notes of storage/mounts.py, left and found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from fusefs.mountinfo import Mount
from fusefs.options import MountOptions
from storage.disk.locks import this_process
from storage.mounts import LiveMount, live_mounts, notes


@contextmanager
def noted(options: MountOptions) -> Iterator[None]:
    """Leave a note that this process serves a mount, as long as the block runs."""
    me = this_process()
    note = notes(options.repository) / str(me.pid)
    note.parent.mkdir(exist_ok=True)
    note.write_bytes(msgspec.json.encode(LiveMount(me, str(options.mountpoint), options.ref, options.branch)))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def daemon_of(mount: Mount) -> LiveMount | None:
    """The running daemon behind a mount; None when it is dead, or was not started by the command line."""
    found = (note for note in live_mounts(mount.repository) if note.mountpoint == str(mount.mountpoint))
    return next(found, None)
