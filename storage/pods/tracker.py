"""A work list that survives, and that several processes share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from storage.errors import DuplicateKeyError, NotFound, Unsupported, WrongType
from storage.model.tasks import KIND, TRACKER
from storage.places import Place
from storage.pods.format import JSON
from storage.pods.pod import PersistentOrderedDict
from storage.pods.progress import Tasks
from storage.pods.store import Store
from storage.pods.tasks import ABORTED, DONE, NEW, TRIES, TaskReader

_NOTHING: Any = object()


class ProgressTracker(TaskReader):
    """A POD whose values are tasks: dicts in which `_tries` is how often the task was begun, `_done` and `_aborted` whether it
    is done, or given up; other keys are free.

    What the methods change of a task they change in its file at once, also while synchronisation is held, in one step that
    nobody else's change comes into: of several processes that `try_it`, each gets a task at most as often as it counts.
    A task may be begun `max_tries` times, 0: any number of times. Where a task was changed through
    `tracker[key][...]` here and elsewhere before the next sync, each of its keys has the value of whoever changed it.

    The directory has the extended attribute `user.pod.kind` = `tracker`. `arborfs tracker PATH` shows how far it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_tries: int = 0,
        init: Mapping[Any, object] | Iterable[tuple[Any, object]] = (),
        gzipped: bool = False,
        file_size: int = 1000,
        sync_at: int = 1000,
        clone: bool = True,
        mode: Literal["r", "w"] | None = None,
        *,
        commit_on_close: str = "",
    ) -> None:
        if type(max_tries) is not int or max_tries < 0:
            raise Unsupported("max_tries must be an int, 0 for no limit")
        self._max_tries = max_tries
        super().__init__(path, init, gzipped, file_size, sync_at, clone, mode, commit_on_close=commit_on_close)

    def _opened(self, place: Place, clone: bool) -> Store:
        store = super()._opened(place, clone)
        if not _is_marked(place):
            if self._writeable and not store.count():
                place.files.set_attributes(place.path, {KIND: TRACKER})
            elif not _is_marked(place):  # once more: somebody may have made one just now, marked before its first task
                raise Unsupported(f"{place.given} is a POD and no tracker: make it one with convert_to_tracker()")
        store.merge = merged
        return store

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "max_tries": self._max_tries}

    # Adding

    def __setitem__(self, key: Any, value: object) -> None:
        """Give a task other keys: a dict, in which those that a tracker needs may be left out. WrongType (a TypeError)."""
        if not isinstance(value, dict):
            raise WrongType(f"{key!r}: a task is a dict, not a {type(value).__name__}")
        super().__setitem__(key, NEW | value)

    def setdefault(self, key: Any, default: object = None) -> Any:
        """The task, which is added where it is not there."""
        return super().setdefault(key, {} if default is None else default)

    def add(self, key: Any) -> None:
        """Add a task. DuplicateKeyError (a KeyError) where it is there."""
        if not self._changed.put_new(key, NEW):
            raise DuplicateKeyError(f"{key!r} is in {self.path} already", key=key)

    def add_if_absent(self, key: Any) -> bool:
        """Add a task that may be there; whether it was not."""
        return self._changed.put_new(key, NEW)

    def add_many(self, keys: Iterable[Any]) -> None:
        """Add tasks. DuplicateKeyError where one of them is there, or comes twice; then none is added."""
        fresh: dict[Any, None] = {}
        for key in keys:
            if key in fresh or key in self:
                raise DuplicateKeyError(f"{key!r} is in {self.path} already, or comes twice", key=key)
            fresh[key] = None
        self.add_many_if_absent(fresh)

    def add_many_if_absent(self, keys: Iterable[Any]) -> None:
        """Add those of the tasks that are not there."""
        store = self._changed
        for key in keys:
            store.put_new(key, NEW)

    def update(self, *others: Any, **more: object) -> None:
        """Give tasks the keys that mappings, or lists of pairs, have for them; tasks that are not there are added.

        `update(key)`, with a str, an int or a tuple, is `sync_key(key)`.
        """
        if len(others) == 1 and not more and isinstance(others[0], str | int | tuple):
            self.sync_key(others[0])
            return
        for other in (*others, more):
            for key, value in dict(other).items():
                if not isinstance(value, dict):
                    raise WrongType(f"{key!r}: a task is a dict, not a {type(value).__name__}")
                self._changed.edit(key, lambda task, value=value: NEW | (task or {}) | value)  # type: ignore[misc]

    # One task

    def _change(self, key: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        def changed(task: JSON) -> JSON:
            """The task with its change."""
            return change(self._task(key, task))

        self._changed.edit(key, changed)

    def mark_done(self, key: Any) -> None:
        """The task is done. KeyError where there is none."""
        self._change(key, lambda task: task | {DONE: True})

    def mark_not_done(self, key: Any) -> None:
        """The task is not done."""
        self._change(key, lambda task: task | {DONE: False})

    def abort(self, key: Any) -> None:
        """Give the task up: nobody begins it any more."""
        self._change(key, lambda task: task | {ABORTED: True})

    def unabort(self, key: Any) -> None:
        """Take the task up again."""
        self._change(key, lambda task: task | {ABORTED: False})

    def increment_tries(self, key: Any) -> None:
        """The task was begun once more."""
        self._change(key, lambda task: task | {TRIES: task.get(TRIES, 0) + 1})

    def decrement_tries(self, key: Any) -> None:
        """The task was begun once less, never less than not at all."""
        self._change(key, lambda task: task | {TRIES: max(task.get(TRIES, 0) - 1, 0)})

    def reset_tries(self, key: Any) -> None:
        """The task was never begun."""
        self._change(key, lambda task: task | {TRIES: 0})

    # Beginning

    def should_do_add(self, key: Any, allow_aborted: bool = False) -> bool:
        """As should_do; a task that is not there is added."""
        self.add_if_absent(key)
        return self.should_do(key, allow_aborted)

    def should_try(self, key: Any, allow_aborted: bool = False) -> bool:
        """As should_do, and if so the task is counted as begun once more, in one step. KeyError where there is none."""
        return self._try(key, allow_aborted, add=False)

    def should_try_add(self, key: Any, allow_aborted: bool = False) -> bool:
        """As should_try; a task that is not there is added."""
        return self._try(key, allow_aborted, add=True)

    def try_it(self, key: Any) -> bool:
        """Begin a task: False where it is done, given up, or was begun max_tries times; else it is counted as begun once more.

        One step also between processes. A task that is not there is added.
        """
        return self._try(key, False, add=True)

    def _try(self, key: Any, allow_aborted: bool, *, add: bool) -> bool:
        begun = False

        def begin(stored: JSON) -> JSON:
            """The task, begun once more if it may be."""
            nonlocal begun
            task = dict(NEW) if stored is None and add else self._task(key, stored)
            begun = self._wanted(task, allow_aborted)
            return task | {TRIES: task.get(TRIES, 0) + 1} if begun else task

        self._changed.edit(key, begin)
        return begun

    def _begun(self, allow_aborted: bool) -> Iterator[Any]:
        for key in self._chosen(self._todo(allow_aborted)):
            try:
                begun = self._try(key, allow_aborted, add=False)
            except NotFound:
                continue  # taken away meanwhile
            if begun:
                yield key

    def try_keys(self, allow_aborted: bool = False, *, progress: bool = False) -> Tasks[Any]:
        """The keys of tasks that should be done, each counted as begun when its turn comes: see should_try."""
        wanted = self._todo(allow_aborted)
        return Tasks(lambda: self._begun(allow_aborted), lambda: self._size(wanted), progress=progress)

    def try_items(self, allow_aborted: bool = False, *, progress: bool = False) -> Tasks[tuple[Any, JSON]]:
        """As try_keys, with the tasks."""
        keys = self.try_keys(allow_aborted)
        return Tasks(lambda: self._with_values(keys), keys.__len__, progress=progress)

    def try_values(self, allow_aborted: bool = False, *, progress: bool = False) -> Tasks[JSON]:
        """As try_keys, the tasks alone."""
        items = self.try_items(allow_aborted)
        return Tasks(lambda: (value for _, value in items), items.__len__, progress=progress)


def _is_marked(place: Place) -> bool:
    return place.files.attributes(place.path).get(KIND) == TRACKER


def merged(base: JSON, mine: JSON, theirs: JSON) -> JSON:
    """A task that was changed here and elsewhere: each key has the value of whoever changed it, ours where both did.

    `base` is what both began with. Where that was nothing (None), how far the task is is theirs.
    """
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return mine
    before = base if isinstance(base, dict) else NEW
    found = dict(theirs)
    for name in before.keys() | mine.keys():
        here = mine.get(name, _NOTHING)
        if here is _NOTHING:
            found.pop(name, None)
        elif here != before.get(name, _NOTHING):
            found[name] = here
    return found


def convert_to_tracker(pod: PersistentOrderedDict, max_tries: int = 0) -> ProgressTracker:
    """Make a tracker of a POD, whose values must be dicts: they become tasks that were never begun, unless they say otherwise.

    WrongType (a TypeError), and nothing is changed, where one is none.
    """
    pod.sync()
    for key, value in pod.iteritems():
        if not isinstance(value, dict):
            raise WrongType(f"{key!r}: a task is a dict, not a {type(value).__name__}")
    store = pod._changed
    for key in store.order():
        store.edit(key, lambda task: NEW | (task or {}))
    store.files.set_attributes(store.path, {KIND: TRACKER})
    return ProgressTracker(pod.path, max_tries, sync_at=store.sync_at)


Tracker = ProgressTracker
