"""Rebuild on demand: throw the index away and make it again from the segments."""

from __future__ import annotations

import os
from pathlib import Path

from storage.config import folder, read_config
from storage.disk.locks import Presence
from storage.errors import BranchInUse
from storage.home import bind_index
from storage.stores.recovery import Progress, RebuildReport, rebuild_index
from storage.stores.replaying import Problem

__all__ = ["Problem", "RebuildReport", "rebuild"]


def rebuild(path: str | os.PathLike[str], on_progress: Progress | None = None) -> RebuildReport:
    """Make the index of the repository in `path` again. Nobody else may have it open: BranchInUse.

    Everything that was acknowledged is there afterwards, staged work included. `on_progress` is called with the bytes of
    segments read, of how many.
    """
    where = Path(path).absolute()
    read_config(where)
    reports: list[RebuildReport] = []
    presence = Presence(folder(where) / "lock")

    def work() -> None:
        """Rebuild, with the repository to ourselves."""
        reports.append(rebuild_index(folder(where), on_progress))
        bind_index(folder(where))

    try:
        presence.enter(work)
        if not reports:
            raise BranchInUse(f"{where} is open in another process: unmount or close it, then rebuild")
    finally:
        presence.leave(lambda: None)
    return reports[0]
