"""The sync interval: staged work survives power loss a few seconds after it was acknowledged."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from storage.errors import ArborError

INTERVAL = 5.0
"""Seconds between an acknowledged change and its sync, at most."""

_logger = logging.getLogger("arborfs.sync")


class Syncer:
    """Calls `sync` at most `interval` seconds after `notice`, from a thread of its own, which ends when idle."""

    def __init__(self, sync: Callable[[], None], interval: float = INTERVAL) -> None:
        self._sync = sync
        self._interval = interval
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._running = 0
        self._thread: threading.Thread | None = None

    def notice(self) -> None:
        """Something was acknowledged that is not synced yet."""
        if self._running == os.getpid():
            return
        with self._lock:
            if self._running == os.getpid() or self._stop.is_set():
                return
            self._running = os.getpid()
            self._thread = threading.Thread(target=self._run, name="arborfs-sync", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        self._stop.wait(self._interval)
        with self._lock:
            # From here on a new change starts a new thread: this sync may come too early for it.
            self._running = 0
            if self._stop.is_set():
                return
        try:
            self._sync()
        except ArborError as error:
            # The next call that promises durability meets the same failure and reports it to its caller.
            _logger.error("staged work could not be synced to disk: %s", error)

    def stop(self) -> None:
        """No more syncs: one that is under way has ended when this returns."""
        with self._lock:
            self._stop.set()
            thread = self._thread
        if thread is not None:
            thread.join()
