"""Telling the kernel what other processes changed.

The notices go out from one thread of their own: the kernel may hold them back until a request is answered that the event
loop is working on, so neither a handler nor the loop may ever send one.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
from collections.abc import Callable, Iterator

import trio

from fusefs.view import View
from fusefs.working import Notice

log = logging.getLogger("fusefs")

INTERVAL = 0.05
SLICE = 500
"""Notices made in one go before other requests get a turn."""

EXPECTED = frozenset((errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.ENOTEMPTY, errno.EBADF))
"""The kernel did not know the name or inode any more, or the mount is going away."""

NameNotice = Callable[[int, bytes, int], None]
InodeNotice = Callable[[int, bool], None]


class Notifier:
    """Sends notices from a thread of its own, in order."""

    def __init__(self, name_changed: NameNotice, inode_changed: InodeNotice) -> None:
        self._name_changed = name_changed
        self._inode_changed = inode_changed
        self._queue: queue.SimpleQueue[tuple[Notice, bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def send(self, notice: Notice, *, contents: bool = False) -> None:
        """Tell the kernel, soon; with `contents`, what it has cached of the inode's contents goes too."""
        self._queue.put((notice, contents))

    def stop(self, patience: float) -> None:
        """Send what is waiting and end; after `patience` seconds the rest is dropped with the process."""
        self._queue.put(None)
        self._thread.join(patience)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            notice, contents = item
            try:
                if notice.name:
                    self._name_changed(notice.ino, notice.name, notice.deleted)
                else:
                    self._inode_changed(notice.ino, not contents)
            except OSError as error:
                if error.errno not in EXPECTED:
                    log.warning("the kernel did not take the notice %s: %s", notice, error)


async def watch(view: View, notifier: Notifier) -> None:
    """Look for changes by other processes every 50 ms, for ever."""
    seen = view.engine.generation()
    while True:
        await trio.sleep(INTERVAL)
        seen, changes = view.engine.changes(seen)
        if changes is None or changes:
            await _send(view.rechecked(changes), notifier)


async def _send(notices: Iterator[Notice], notifier: Notifier) -> None:
    for count, notice in enumerate(notices, 1):
        if notice.ino:
            notifier.send(notice)
        if count % SLICE == 0:
            await trio.lowlevel.checkpoint()
