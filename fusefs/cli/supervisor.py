"""`arborfs mount --supervise`: a process that serves nothing itself, and starts the daemon again when it dies.

The dead mount stays until the next daemon is about to take its place: meanwhile programs get ENOTCONN, and nothing is
written into the folder below. A daemon that ends in good order (unmounted, or told to end) is not started again.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from fusefs import mountinfo
from fusefs.checkup import answers

log = logging.getLogger("fusefs")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 60.0
STABLE_SECONDS = 60.0
"""A daemon that has served for so long may die again: the pauses begin anew."""
POLL = 0.05


def pause(failures: int) -> float:
    """Seconds to wait before the next start after so many deaths in a row, the first one included."""
    return float(min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE))


class Supervisor:
    """Keeps one daemon running."""

    def __init__(self, command: Sequence[str], mountpoint: Path) -> None:
        self._command = command
        self._mountpoint = mountpoint
        self._daemon: subprocess.Popen[bytes] | None = None
        self._ending = False

    def run(self) -> int:
        """Start the daemon, and again whenever it dies; the exit code of the one that ended for good.

        A daemon that never served, because something is wrong with the call, is not started again.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        failures = 0
        while True:
            started = time.monotonic()
            code, served = self._serve()
            if code == 0 or self._ending or not (served or failures):
                return code
            failures = 1 if time.monotonic() - started > STABLE_SECONDS else failures + 1
            log.warning(
                "the daemon of %s died (%s): starting it again in %g s", self._mountpoint, _cause(code), pause(failures)
            )
            if not self._waited(pause(failures)):
                mountinfo.clear_dead(self._mountpoint)
                return 0
            if served and mountinfo.mounted_at(self._mountpoint) is None:
                log.info("%s was unmounted meanwhile", self._mountpoint)
                return 0

    def _serve(self) -> tuple[int, bool]:
        """Run one daemon to its end; its exit code, and whether its mount came up."""
        # A session of its own: Ctrl-C is for the supervisor, which passes it on.
        daemon = self._daemon = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        if self._ending:
            daemon.terminate()
        served = False
        while not served and daemon.poll() is None:
            mount = mountinfo.mounted_at(self._mountpoint)
            served = mount is not None and answers(mount) is True
            time.sleep(POLL)
        return daemon.wait(), served

    def _waited(self, seconds: float) -> bool:
        """Wait; False at once when the supervisor is told to end."""
        until = time.monotonic() + seconds
        while not self._ending and time.monotonic() < until:
            time.sleep(POLL)
        return not self._ending

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.send_signal(number)


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
