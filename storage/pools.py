"""Worker processes: spawned, undisturbed by Ctrl-C, and gone when whoever started them is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from storage.errors import WorkerDied


@contextmanager
def worker_pool(processes: int, outcome: str) -> Iterator[Callable[..., Future[Any]]]:
    """A function that runs another one in a process of the pool. WorkerDied, which says what the `outcome` then is.

    The processes are spawned, so that they carry nothing over; they end at once when the block raises or this process is gone.
    """
    context = multiprocessing.get_context("spawn")
    line, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, _live_while_open, (line,))

    def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """The future of that call."""
        # Ctrl-C at a terminal reaches all processes: the workers, started here, inherit that it does not concern them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return pool.submit(function, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield submit
    except BaseException as error:
        held.close()
        if isinstance(error, BrokenProcessPool):
            raise WorkerDied(
                f"a worker process has ended before its work was done, and {outcome}: it was killed, or could not begin. A "
                f"program that starts such work does so below `if __name__ == '__main__':`"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        line.close()


def _live_while_open(line: Connection) -> None:
    """End this process when the other end of `line` is closed: the work has failed, or the process that gave it is gone."""

    def wait() -> None:
        """Return never."""
        line.poll(None)  # nothing is ever sent: what comes is the end
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="arborfs-lifeline").start()
