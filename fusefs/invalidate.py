"""Telling the kernel what other processes changed.

The notices go out from one thread of their own: the kernel may hold them back until a request is answered that the event
loop is working on, so neither a handler nor the loop may ever send one.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator

import trio

from fusefs.errnos import boundary
from fusefs.inotify import drain, watching
from fusefs.view import View
from fusefs.working import Notice

log = logging.getLogger("fusefs")

INTERVAL = 0.05
"""Seconds between two looks at the index: our own changes wake us as well."""
LOOK_ANYWAY = 2.0
"""Seconds to a look without a wake-up, on file systems that do not tell."""
AGAIN = 1.0
"""Seconds to the next look after one that failed."""
SLICE = 500
"""Notices made in one go before other requests get a turn."""

PATIENCE = 1.0
"""Seconds to wait for the kernel to take notices: it may have to wait for others who hold a directory."""

EXPECTED = frozenset((errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.ENOTEMPTY, errno.EBADF))
"""The kernel did not know the name or inode any more, or the mount is going away."""

NameNotice = Callable[[int, bytes, int], None]
InodeNotice = Callable[[int, bool], None]


class Notifier:
    """Sends notices from a thread of its own, in order."""

    def __init__(self, name_changed: NameNotice, inode_changed: InodeNotice) -> None:
        self._name_changed = name_changed
        self._inode_changed = inode_changed
        self._queue: queue.SimpleQueue[tuple[Notice, bool] | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def send(self, notice: Notice, *, contents: bool = False) -> None:
        """Tell the kernel, soon; with `contents`, what it has cached of the inode's contents goes too."""
        self._queue.put((notice, contents))

    def settle(self) -> None:
        """Wait until what was sent before is told, for a second at most. Never on the event loop."""
        done = threading.Event()
        self._queue.put(done)
        done.wait(PATIENCE)

    def stop(self, patience: float) -> None:
        """Send what is waiting and end; after `patience` seconds the rest is dropped with the process."""
        self._queue.put(None)
        self._thread.join(patience)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            notice, contents = item
            try:
                if notice.name:
                    self._name_changed(notice.ino, notice.name, notice.deleted)
                else:
                    self._inode_changed(notice.ino, not contents)
            except OSError as error:
                if error.errno not in EXPECTED:
                    log.warning("the kernel did not take the notice %s: %s", notice, error)


class Untold(Exception):
    """What others changed could not be taken in; the log says why."""


class Watch:
    """Takes in what other processes change, for ever. What goes wrong is logged and told in the statistics, and tried again."""

    def __init__(self, view: View, notifier: Notifier) -> None:
        self.statistics = view.statistics
        self._view = view
        self._notifier = notifier
        self._seen = view.engine.generation()
        self._missed = False

    async def run(self) -> None:
        """Look when the index is written to, and at most every 50 ms."""
        bell = watching(self._view.engine.index_file)
        if bell is None:
            log.info("inotify is not to be had: looking for changes by other processes every %g s", INTERVAL)
        try:
            while True:
                if not self._missed:
                    await _changed(bell)
                try:
                    await self.take_in_changes()
                    await trio.sleep(INTERVAL)
                except Untold:
                    # It may have been half done: the next time anything counts as changed.
                    self._missed = True
                    await trio.sleep(AGAIN)
        finally:
            if bell is not None:
                os.close(bell)

    @boundary(Untold)
    async def take_in_changes(self) -> None:
        """Tell the kernel what has changed since the last time."""
        seen, changes = self._view.engine.changes(self._seen)
        if self._missed:
            changes = None
        if changes is None or changes:
            await tell(self._view.rechecked(changes), self._notifier)
        self._seen, self._missed = seen, False


async def _changed(bell: int | None) -> None:
    """Return when the index may have changed."""
    if bell is None:
        return
    with trio.move_on_after(LOOK_ANYWAY):
        await trio.lowlevel.wait_readable(bell)
    # Before the look: what is written during it rings again.
    drain(bell)


async def tell(notices: Iterator[Notice], notifier: Notifier) -> None:
    """Send notices as they are made; other requests get a turn in between."""
    for count, notice in enumerate(notices, 1):
        if notice.ino:
            notifier.send(notice)
        if count % SLICE == 0:
            await trio.lowlevel.checkpoint()
