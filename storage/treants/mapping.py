"""One function for many members, in this process or in several."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from storage.errors import Unsupported, WorkerDied

SHARES = 4
"""So many portions of the work each process gets, so that all of them end at about the same time."""


def mapped(
    function: Callable[..., Any], members: Sequence[object], processes: int, kwargs: Mapping[str, Any]
) -> Iterator[Any]:
    """`function(member, **kwargs)` of each member, in their order.

    Unsupported (a ValueError) for fewer processes than one, and for a function or arguments that cannot go to another process;
    WorkerDied where one of these ended. What the function raises is raised here; the work that nobody has begun is dropped.
    """
    if processes < 1:
        raise Unsupported(f"{processes} processes can do nothing: name one or more")
    call = partial(function, **kwargs)
    if processes == 1 or len(members) < 2:
        yield from map(call, members)
        return
    _check_portable(call)
    # Spawned, so that they carry nothing over: threads and locks that this process holds would not work in a fork of it.
    pool = ProcessPoolExecutor(min(processes, len(members)), multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(call, members, chunksize=-(-len(members) // (processes * SHARES)))
    except BrokenProcessPool as error:
        raise WorkerDied(
            "a worker process has ended before its work was done: it was killed, or could not begin. A program that maps "
            "does so below `if __name__ == '__main__':`"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _check_portable(call: object) -> None:
    try:
        pickle.dumps(call)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Unsupported(
            f"this cannot go to another process: {error}. Name a function that a module defines at its top, and arguments that "
            f"can be pickled, or let one process do it"
        ) from error
