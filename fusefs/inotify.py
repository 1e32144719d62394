"""Being woken when a file is written to: inotify(7), by way of the C library."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

IN_MODIFY = 0x2
EVENTS = 4096


def watching(path: Path) -> int | None:
    """A descriptor that becomes readable when any process writes to the file; None where the system gives none.

    Writes by way of a memory map are not seen.
    """
    library = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            return None
        if library.inotify_add_watch(descriptor, os.fsencode(path), IN_MODIFY) < 0:
            os.close(descriptor)
            return None
    except AttributeError:  # no such system
        return None
    return int(descriptor)


def drain(descriptor: int) -> None:
    """Take in what has happened so far: the descriptor is readable again only after the next write."""
    try:
        while os.read(descriptor, EVENTS):
            pass
    except BlockingIOError:
        pass
