"""What a mount is asked to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What to mount, where, and how.

    Without `ref` and `branch` the whole repository appears; with `ref` one snapshot stands at the root, read-only;
    with `branch` one working tree. Giving both is a MountError of the daemon. `log` is the file that the daemon
    writes to instead of standard error. `supervise`: a daemon that dies is started again.
    """

    repository: Path
    mountpoint: Path
    ref: str | None = None
    branch: str | None = None
    read_only: bool = False
    allow_other: bool = False
    log: Path | None = None
    debug: bool = False
    supervise: bool = False
