"""The tasks of a tracker as they stand: which should be done, and how far it all is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from storage import html
from storage.errors import Missing, NotFound, NotProvided, WrongType
from storage.pods.format import JSON
from storage.pods.pod import PersistentOrderedDict
from storage.pods.progress import Counts, Tasks, count, fraction, percent

if TYPE_CHECKING:
    import pandas

TRIES, DONE, ABORTED = "_tries", "_done", "_aborted"
NEW = {TRIES: 0, DONE: False, ABORTED: False}
"""A task as it begins."""


class TaskReader(PersistentOrderedDict):
    """A POD of tasks: what can be told of them without changing any."""

    _max_tries: int = 0

    @property
    def max_tries(self) -> int:
        """How often a task may be begun; 0: any number of times."""
        return self._max_tries

    # One task

    def _task(self, key: Any, task: JSON) -> dict[str, Any]:
        if task is None:
            raise NotFound(f"{key!r} is not in {self.path}")
        if type(task) is not dict:
            raise WrongType(f"{key!r} is no task, but a {type(task).__name__}: its file was changed")
        return task

    def _looked_at(self, key: Any) -> dict[str, Any]:
        """A task as it is now, which does not become dirty."""
        return self._task(key, self._used.copy(key))

    def tries(self, key: Any) -> int:
        """How often the task was begun. KeyError where there is none."""
        return int(self._looked_at(key).get(TRIES, 0))

    def done(self, key: Any) -> bool:
        """Whether the task is done; False where there is none."""
        try:
            return bool(self._looked_at(key).get(DONE))
        except Missing:
            return False

    check = done

    def aborted(self, key: Any) -> bool:
        """Whether the task was given up. KeyError where there is none."""
        return bool(self._looked_at(key).get(ABORTED))

    def _wanted(self, task: dict[str, Any], allow_aborted: bool) -> bool:
        if task.get(DONE) or (task.get(ABORTED) and not allow_aborted):
            return False
        return not self._max_tries or task.get(TRIES, 0) < self._max_tries

    def should_do(self, key: Any, allow_aborted: bool = False) -> bool:
        """Whether the task is neither done nor given up, and may be begun once more. KeyError where there is none."""
        return self._wanted(self._looked_at(key), allow_aborted)

    # Going through them

    def _chosen(self, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[Any]:
        for key, task in self._copies():
            if isinstance(task, dict) and wanted(task):
                yield key

    def _size(self, wanted: Callable[[dict[str, Any]], bool]) -> int:
        return sum(1 for _ in self._chosen(wanted))

    def _todo(self, allow_aborted: bool) -> Callable[[dict[str, Any]], bool]:
        return lambda task: self._wanted(task, allow_aborted)

    def _with_values(self, keys: Iterable[Any]) -> Iterator[tuple[Any, JSON]]:
        for key in keys:
            try:
                yield key, self[key]
            except NotFound:
                continue

    def todo_keys(self, allow_aborted: bool = False, *, progress: bool = False) -> Tasks[Any]:
        """The keys of tasks that should be done, see should_do; with `progress` under a bar."""
        wanted = self._todo(allow_aborted)
        return Tasks(lambda: self._chosen(wanted), lambda: self._size(wanted), progress=progress)

    def todo_items(self, allow_aborted: bool = False, *, progress: bool = False) -> Tasks[tuple[Any, JSON]]:
        """The tasks that should be done, with their keys."""
        wanted = self._todo(allow_aborted)
        return Tasks(lambda: self._with_values(self._chosen(wanted)), lambda: self._size(wanted), progress=progress)

    def todo_values(self, allow_aborted: bool = False, *, progress: bool = False) -> Tasks[JSON]:
        """The tasks that should be done."""
        items = self.todo_items(allow_aborted)
        return Tasks(lambda: (value for _, value in items), items.__len__, progress=progress)

    def aborted_keys(self) -> Tasks[Any]:
        """The keys of tasks that were given up."""
        return Tasks(lambda: self._chosen(_is_aborted), lambda: self._size(_is_aborted))

    def aborted_items(self) -> Tasks[tuple[Any, JSON]]:
        """The tasks that were given up, with their keys."""
        keys = self.aborted_keys()
        return Tasks(lambda: self._with_values(keys), keys.__len__)

    def aborted_values(self) -> Tasks[JSON]:
        """The tasks that were given up."""
        items = self.aborted_items()
        return Tasks(lambda: (value for _, value in items), items.__len__)

    # How far it is

    def counts(self) -> Counts:
        """All numbers at once, as of now. Reads every task."""
        return count(self._used.contents())

    def num_done(self) -> int:
        """How many tasks are done."""
        return self.counts().done

    def num_tried(self) -> int:
        """How many tasks were begun at least once."""
        return self.counts().tried

    def num_aborted(self) -> int:
        """How many tasks were given up."""
        return self.counts().aborted

    def fraction_done(self) -> float:
        """Which share of the tasks is done; 0.0 of none."""
        counts = self.counts()
        return fraction(counts.done, counts.total)

    def fraction_tried(self) -> float:
        """Which share of the tasks was begun at least once; 0.0 of none."""
        counts = self.counts()
        return fraction(counts.tried, counts.total)

    def fraction_aborted(self) -> float:
        """Which share of the tasks was given up; 0.0 of none."""
        counts = self.counts()
        return fraction(counts.aborted, counts.total)

    def percent_done(self, decimals: int = 2) -> str:
        """The share of tasks that are done, as in `34.70 %`."""
        return percent(self.fraction_done(), decimals)

    def percent_tried(self, decimals: int = 2) -> str:
        """The share of tasks that were begun."""
        return percent(self.fraction_tried(), decimals)

    def percent_aborted(self, decimals: int = 2) -> str:
        """The share of tasks that were given up."""
        return percent(self.fraction_aborted(), decimals)

    def percent_not_done(self, decimals: int = 2) -> str:
        """The share of tasks that are not done."""
        return percent(1 - self.fraction_done(), decimals)

    def percent_not_tried(self, decimals: int = 2) -> str:
        """The share of tasks that were never begun."""
        return percent(1 - self.fraction_tried(), decimals)

    def percent_not_aborted(self, decimals: int = 2) -> str:
        """The share of tasks that were not given up."""
        return percent(1 - self.fraction_aborted(), decimals)

    def table(self) -> pandas.DataFrame:
        """The tasks as a table, a row for each key: tries, done, aborted, and what else is in the tasks. Needs pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise NotProvided("tables need pandas: pip install arborfs[treants]") from error
        tasks = [(key, NEW | task) for key, task in self._copies() if isinstance(task, dict)]
        index = pd.Index([key for key, _ in tasks], name="key", tupleize_cols=False)
        columns = list(dict.fromkeys([*NEW, *(name for _, task in tasks for name in task)]))
        table = pd.DataFrame([task for _, task in tasks], index=index, columns=columns)
        return table.rename(columns={TRIES: "tries", DONE: "done", ABORTED: "aborted"})

    def __repr__(self) -> str:
        """Its path, and how far it is."""
        if self.closed:
            return super().__repr__()
        counts = self.counts()
        return f"{type(self).__name__}({self.path!r}: {counts.done:,} of {counts.total:,} done)"

    def _repr_html_(self) -> str:
        counts = self.counts()
        share = percent(fraction(counts.done, counts.total), 1)
        rows = [("tasks", f"{counts.total:,}"), ("done", f"{counts.done:,} ({share})"), ("to do", f"{counts.todo:,}"),
                ("given up", f"{counts.aborted:,}"), ("begun", f"{counts.tried:,} tasks, {counts.tries:,} times")]  # fmt: skip
        return html.card(self.path, type(self).__name__, html.facts(rows))


def _is_aborted(task: dict[str, Any]) -> bool:
    return bool(task.get(ABORTED)) and not task.get(DONE)
