"""Where work runs: on the event loop, or in a thread.

What answers from memory, and small changes, run on the loop: reaching a thread costs more than they do. Reads that must
decode, large files being staged, commits and syncs go to threads. One large change runs at a time.

Invariants:

* A change that runs on the loop changes storage and nodes without an await in between.
* While a file is staged in a thread it is in `_busy`: nobody writes to it, and it is neither moved nor removed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import trio

from fusefs.handles import Handle
from fusefs.placed import Placed
from fusefs.working import WorkingDirectory
from fusefs.working_file import WorkingFile
from storage.errors import SchemaMismatch

T = TypeVar("T")
READERS = 8
AHEAD = 4
WINDOW = 16 << 20
"""Bytes kept ready ahead of a sequential reader: above what the kernel itself asks for ahead."""


class Lanes:
    """The lanes of one mount."""

    def __init__(self) -> None:
        self._changes = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(READERS)
        self._ahead = trio.CapacityLimiter(AHEAD)
        self._busy: dict[WorkingFile, trio.Event] = {}
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Reading ahead begins: its tasks live in `nursery`."""
        self._nursery = nursery

    async def read(self, job: Callable[[], T]) -> T:
        """Run a read in a thread."""
        return await trio.to_thread.run_sync(job, limiter=self._readers)

    async def change(self, job: Callable[[], T]) -> T:
        """Run a large change in a thread, one at a time."""
        return await trio.to_thread.run_sync(job, limiter=self._changes)

    async def stage(self, file: WorkingFile) -> None:
        """Stage what was written to a file."""
        await self.idle(file)
        if not file.unstaged:
            return
        if file.light:
            file.stage()
            return
        job = file.staging()
        done = self._busy[file] = trio.Event()
        try:
            entry = await self.change(job)
            file.staged(entry)
        except SchemaMismatch as error:
            file.refused(error)
            raise
        finally:
            del self._busy[file]
            done.set()

    async def idle(self, node: object) -> None:
        """Wait until neither `node` nor anything below it is being staged in a thread."""
        while self._busy:
            for file, done in self._busy.items():
                if file is node or (isinstance(node, WorkingDirectory) and _is_below(file, node)):
                    await done.wait()
                    break
            else:
                return

    def read_ahead(self, handle: Handle, offset: int) -> None:
        """Keep what a sequential reader asks for next, from `offset` on, coming into memory, several chunks a task."""
        start = max(handle.fetched, offset)
        if self._nursery is None or start > offset + WINDOW // 2:
            return
        handle.fetched = offset + WINDOW
        job = handle.ahead(start, handle.fetched)
        if job is not None:
            self._nursery.start_soon(self._fetch, job)

    async def _fetch(self, job: Callable[[], None]) -> None:
        with suppress(Exception):  # whoever reads the chunk is told, and the mount lives on
            await trio.to_thread.run_sync(job, limiter=self._ahead)


def _is_below(node: Placed, directory: WorkingDirectory) -> bool:
    above = node.parent
    while above is not None:
        if above is directory:
            return True
        above = above.parent
    return False
