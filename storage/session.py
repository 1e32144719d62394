"""What a checkout shares with its datasets and metadata: the tree they look at, and whether it is open."""

from __future__ import annotations

import multiprocessing
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Protocol

from storage.errors import Closed, InBatch, ReadOnly
from storage.model.digest import hexed
from storage.snapshot import Snapshot
from storage.working import WorkingReader
from storage.worktree import WorkingTree

Reopen = Callable[[str, str], Any]
"""Opens the repository in a folder again, and checks a commit of it out."""


@dataclass(frozen=True, slots=True)
class Home:
    """Whose session it is: the repository, which stays open as long as anything got from it is used, and where it is."""

    owner: object
    path: Path
    reopen: Reopen


CLOSED = (
    "Unable to operate on past checkout objects which have been closed. "
    "No operation occurred. Please use a new checkout."
)


def when_dropped(thing: object, action: Callable[[], None]) -> weakref.finalize[[int, Callable[[], None]], object]:
    """Do `action` once nobody can use `thing` any more, or when the process ends; calling what this returns does it at once."""
    finalizer = weakref.finalize(thing, _let_go, os.getpid(), action)
    if multiprocessing.parent_process() is not None:
        # Such a process ends without what is registered for the end of the interpreter.
        Finalize(thing, finalizer, exitpriority=0)
    return finalizer


def _let_go(pid: int, action: Callable[[], None]) -> None:
    if os.getpid() != pid:
        return  # a process forked from it: what this lets go of is not its own
    if threading.current_thread() is not threading.main_thread() or threading.main_thread().is_alive():
        # The collector may have called in the middle of a transaction of this thread, which the action would wait for.
        threading.Thread(target=action).start()
    else:
        action()  # at the end of the process, where no thread begins any more


class Batch(Protocol):
    """Something that keeps changes back for a moment."""

    def flush(self) -> None:
        """Stage what was kept back."""

    def finish(self) -> None:
        """Stage what was kept back, and end the batch."""


class Session:
    """One checkout's view of the repository, from opening to closing. Thread-safe as far as the engine is."""

    def __init__(self, tree: Snapshot | WorkingReader, home: Home | None = None) -> None:
        self._tree = tree
        self._home = home
        self._open = True
        self._batches: list[Batch] = []

    @property
    def writeable(self) -> bool:
        """Whether changes are possible here at all."""
        return isinstance(self._tree, WorkingTree)

    @property
    def committed(self) -> bool:
        """Whether it is a commit that is looked at: nothing in it ever changes."""
        return isinstance(self._tree, Snapshot)

    def address(self) -> tuple[Reopen, str, str]:
        """How to find it again: what checks it out, from its folder and its commit. ReadOnly for a branch, Closed."""
        tree = self.tree
        if not isinstance(tree, Snapshot) or self._home is None:
            raise ReadOnly("Only what is read from a commit can be pickled: commit, and check the commit out to read.")
        return self._home.reopen, str(self._home.path), hexed(tree.commit)

    @property
    def mode(self) -> str:
        """The access mode as reprs show it: `a` or `r`."""
        return "a" if self.writeable else "r"

    @property
    def is_open(self) -> bool:
        """Whether the checkout has not been closed."""
        return self._open

    def require_open(self) -> None:
        """Closed after `close`."""
        if not self._open:
            raise Closed(CLOSED)

    @property
    def tree(self) -> Snapshot | WorkingReader:
        """The tree to read; Closed after `close`."""
        self.require_open()
        return self._tree

    @property
    def working_tree(self) -> WorkingTree:
        """The tree to change; ReadOnly for a commit, Closed after `close`."""
        tree = self.tree
        if not isinstance(tree, WorkingTree):
            raise ReadOnly("This checkout is read-only. Check out with write=True to change data.")
        return tree

    def tree_for_datasets(self) -> WorkingTree:
        """The tree, to make, remove and change datasets as such. InBatch while a batch keeps samples back, and as above."""
        tree = self.working_tree
        if self._batches:
            raise InBatch(
                "Datasets are not made, removed, renamed or given another schema inside a `with` block of a dataset, whose "
                "samples wait for its end: do it before, or after."
            )
        return tree

    def begin(self, batch: Batch) -> None:
        """Remember that `batch` keeps changes back."""
        self._batches.append(batch)

    def end(self, batch: Batch) -> None:
        """Forget a batch that has staged everything."""
        self._batches = [other for other in self._batches if other is not batch]

    def flush(self) -> None:
        """Stage what open batches keep back."""
        for batch in list(self._batches):
            batch.flush()

    def close(self) -> None:
        """End open batches; from then on every use raises Closed. Stays open if a batch cannot be staged."""
        for batch in list(self._batches):
            batch.finish()
        self._open = False
