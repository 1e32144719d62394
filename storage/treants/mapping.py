"""One function for many members, in this process or in several."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from functools import partial
from typing import Any

from storage.errors import Unsupported
from storage.pools import worker_pool

SHARES = 4
"""So many portions of the work each process gets, so that all of them end at about the same time."""


def mapped(
    function: Callable[..., Any], members: Sequence[object], processes: int, kwargs: Mapping[str, Any]
) -> list[Any]:
    """`function(member, **kwargs)` of each member, in their order.

    Unsupported (a ValueError) for fewer processes than one, and for a function or arguments that cannot go to another process;
    WorkerDied where one of these ended. What the function raises is raised here, at once: the other processes end.
    """
    if processes < 1:
        raise Unsupported(f"{processes} processes can do nothing: name one or more")
    call = partial(function, **kwargs)
    if processes == 1 or len(members) < 2:
        return list(map(call, members))
    _check_portable(call)
    size = -(-len(members) // (processes * SHARES))
    shares = [members[start : start + size] for start in range(0, len(members), size)]
    with worker_pool(min(processes, len(shares)), "the results are lost") as submit:
        futures = [submit(_each, call, share) for share in shares]
        for future in as_completed(futures):
            future.result()  # the first error, whichever share it is in
        return [result for future in futures for result in future.result()]


def _each(call: Callable[[object], Any], members: Sequence[object]) -> list[Any]:
    return list(map(call, members))


def _check_portable(call: object) -> None:
    try:
        pickle.dumps(call)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Unsupported(
            f"this cannot go to another process: {error}. Name a function that a module defines at its top, and arguments that "
            f"can be pickled, or let one process do it"
        ) from error
