"""How far the tasks of a tracker are: counted, and gone through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from storage.model.tasks import read_task

T = TypeVar("T")


class Counts(NamedTuple):
    """How many tasks there are: all, done, begun at least once, given up (and not done), neither done nor given up; and how
    often any was begun.
    """

    total: int
    done: int
    tried: int
    aborted: int
    todo: int
    tries: int


def count(files: Iterable[bytes]) -> Counts:
    """Counts of the tasks in these files; what is no task counts as one that was never begun."""
    total = done = tried = aborted = tries = 0
    for data in files:
        total += 1
        try:
            task = read_task(data)
        except ValueError:
            continue
        done += task.done
        aborted += task.state == "aborted"
        tried += task.tries > 0
        tries += task.tries
    return Counts(total, done, tried, aborted, total - done - aborted, tries)


def fraction(part: int, whole: int) -> float:
    """The share, 0.0 of nothing."""
    return part / whole if whole else 0.0


def percent(share: float, decimals: int) -> str:
    """As in `34.70 %`."""
    return f"{100 * share:.{decimals}f} %"


class Tasks(Generic[T]):
    """Tasks, or their keys or values, to be gone through once or again: each is looked at when its turn comes.

    `len` says how many there are now. With `progress` a bar on standard error says how far it is.
    """

    def __init__(self, each: Callable[[], Iterator[T]], size: Callable[[], int], *, progress: bool = False) -> None:
        self._each = each
        self._size = size
        self._progress = progress

    def __iter__(self) -> Iterator[T]:
        """One after the other."""
        if not self._progress:
            return self._each()
        from tqdm import tqdm  # Not above: only bars need it.

        return iter(tqdm(self._each(), total=len(self), unit="task", dynamic_ncols=True))

    def __len__(self) -> int:
        """How many there are now. Reads all tasks."""
        return self._size()
