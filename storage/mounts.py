"""Which mounts of a repository there are on this machine, and what they say of the directories in them.

The kernel's list of mounts does not tell which process serves which, and as what, so a daemon leaves a note in its repository,
`.arborfs/mounts/PID`, while it runs. A note names its process by pid, start time and boot, so that one left behind by a crash
is never taken for a later process; whoever finds such a note deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from storage.config import folder
from storage.disk.locks import Owner
from storage.model.format import MALFORMED

PLACE = "user.arborfs.place"
"""The extended attribute of a mounted directory that tells its Where, as JSON; it is never listed."""


class Where(msgspec.Struct, frozen=True):
    """What the mount says of a directory: the repository's folder and id, the branch or commit, and the path in its tree.

    Neither branch nor commit in directories that are in no tree, such as the top of a mount.
    """

    repository: str
    id: str
    branch: str | None = None
    commit: str | None = None
    path: str = ""


class LiveMount(msgspec.Struct, frozen=True):
    """A running daemon: its process, its mount point, the one branch or commit it shows (None: all)."""

    process: Owner
    mountpoint: str
    ref: str | None
    branch: str | None


def notes(repository: Path) -> Path:
    """The folder of a repository that daemons leave their notes in."""
    return folder(repository) / "mounts"


def live_mounts(repository: Path) -> Iterator[LiveMount]:
    """The mounts of the repository in that folder whose daemons run on this machine."""
    for note in sorted(notes(repository).glob("*")):
        try:
            found = msgspec.json.decode(note.read_bytes(), type=LiveMount)
        except (OSError, *MALFORMED):
            continue  # gone, or being written
        if found.process.alive:
            yield found
        else:
            note.unlink(missing_ok=True)
