"""The end of a process by SIGTERM, which Python lets happen without another line of it being run."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def end_in_good_order() -> None:
    """Let SIGTERM end this process as `sys.exit(143)` does, so that what is registered for its end is done, as at Ctrl-C.

    Only where nobody has said what SIGTERM shall do, and in the main thread: others cannot say it.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
