"""PODs and trackers whose every change is seen by other processes at once, with sections that only one of them is in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from storage.errors import NotFound, Unsupported, WrongType
from storage.places import Place
from storage.pods.format import JSON
from storage.pods.pod import PersistentOrderedDict
from storage.pods.store import Store
from storage.pods.tracker import ProgressTracker


class _Sharing(PersistentOrderedDict):
    """Writes each change at once, and hands out copies: nothing is ever dirty."""

    _lock: AbstractContextManager[object] | None = None

    def __getitem__(self, key: Any) -> JSON:
        """A copy of the value of a key, as of now; KeyError where there is none. See `set` for changing it."""
        return self._used.copy(key)

    def __setitem__(self, key: Any, value: object) -> None:
        """Give a key a value, which others see when this returns."""
        with self._changed.ours():
            super().__setitem__(key, value)
            self._store.write_key(key)

    def __delitem__(self, key: Any) -> None:
        """Take a key away; KeyError where there is none."""
        with self._changed.ours():
            super().__delitem__(key)
            self._store.write_key(key)

    def pop(self, key: Any, *default: Any) -> Any:
        """Take a key away and return its value, or a default where there is none; KeyError without a default."""
        with self._changed.ours():
            value = super().pop(key, *default)
            self._store.write_key(key)
            return value

    @property
    def set(self) -> Inside:
        """For changes inside of values: `shared.set["k"]["a"] = 1` is one step that nobody else's change comes into."""
        return Inside(self._changed, ())

    def lock(self) -> None:
        """Wait until no other process or thread is between `lock` and `unlock`, or in `locked`. Not to be nested."""
        store = self._changed
        lock = store.files.locked(f"pod/{store.path}")
        lock.__enter__()
        self._lock = lock

    def unlock(self) -> None:
        """Let the next one in."""
        lock, self._lock = self._lock, None
        if lock is None:
            raise Unsupported(f"{self.path} is not locked here")
        lock.__exit__(None, None, None)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be alone among all who do this, for reading, thinking and writing. Not to be nested."""
        store = self._changed
        with store.files.locked(f"pod/{store.path}"):
            yield

    def _opened(self, place: Place, clone: bool) -> Store:
        return super()._opened(place, True)


class Inside:
    """A place inside a value of a POD, to be changed there."""

    def __init__(self, store: Store, steps: tuple[Any, ...]) -> None:
        self._store = store
        self._steps = steps

    def __getitem__(self, step: Any) -> Inside:
        """A place further inside."""
        return Inside(self._store, (*self._steps, step))

    def __setitem__(self, step: Any, value: object) -> None:
        """Put a value there. KeyError, IndexError where there is no such place."""
        self._edit(step, lambda around: around.__setitem__(step, value))

    def __delitem__(self, step: Any) -> None:
        """Take away what is there. KeyError, IndexError."""
        self._edit(step, lambda around: around.__delitem__(step))

    def _edit(self, step: Any, change: Callable[[Any], None]) -> None:
        if not self._steps:
            raise WrongType("set is for changes inside of values: give a whole one with shared[key] = value")
        key, *inner = self._steps

        def changed(stored: JSON) -> JSON:
            """The value with its change."""
            if stored is None:
                raise NotFound(f"{key!r} is not in {self._store}")
            value = around = copy.deepcopy(stored)
            for below in inner:
                around = around[below]
            change(around)
            return value

        self._store.edit(key, changed)


class SharedPOD(_Sharing):
    """A POD for several processes at once: a change is written when the call returns, and what is read is a copy.

    `shared["k"]["a"] = 1` changes the copy alone: use `shared.set["k"]["a"] = 1`, or give the whole value. To read, think and
    write, be alone: `with shared.locked(): shared["n"] += 1`. Goes to other processes as its path (it can be pickled); no
    server is needed, and others may open the same path as a POD.
    """


class SharedTracker(_Sharing, ProgressTracker):
    """A tracker for several processes at once, as SharedPOD is a POD: `tracker.set[key]["result"] = 1`."""

    def _change_many(self, add: Callable[[], None]) -> None:
        add()
        self._store.write()

    def add(self, key: Any) -> None:
        """Add a task. DuplicateKeyError (a KeyError) where it is there."""
        self._change_many(lambda: super(SharedTracker, self).add(key))

    def add_if_absent(self, key: Any) -> bool:
        """Add a task that may be there; whether it was not."""
        added = super().add_if_absent(key)
        self._store.write()
        return added

    def add_many_if_absent(self, keys: Any) -> None:
        """Add those of the tasks that are not there."""
        self._change_many(lambda: super(SharedTracker, self).add_many_if_absent(keys))
