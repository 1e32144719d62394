"""What Ctrl-C does while no command is at work: it ends the process at once, without a word.

An exception would do as long as it came through. Where it strikes inside of an import or of the interpreter's end it
is printed, swallowed or made into another one, by whomever.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""


def leave_at_once() -> None:
    """From now on Ctrl-C ends the process with INTERRUPTED, and nothing else runs. No change where it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_again() -> None:
    """Take `leave_at_once` back: Ctrl-C is a KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
