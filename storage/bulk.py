"""Bulk import: generator functions of the user run in several processes, and what they yield becomes samples of a branch.

Each worker opens the repository and stores what its calls yield beside the working tree (`storage.planting`): contents and, for
each column, a map of its samples. Only the roots of these maps come back. They are merged and put into the tree at the
end, all columns in one change. So an error, Ctrl-C, or `kill -9` of a worker or of the whole before that leaves the branch
as it was; what was stored by then is unreachable, and space to be collected.
"""

from __future__ import annotations

import inspect
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3

from storage.dataset_reader import dataset_name, dataset_path
from storage.engine import Engine
from storage.errors import Conflict, SchemaMismatch, StagedWork, Unsupported, WrongType
from storage.importing import TRIES
from storage.model.names import Path as TreePath
from storage.model.names import check_key
from storage.model.records import PLAIN, Attributes, Entry, Schema, directory_entry
from storage.model.samples import BytesSource
from storage.model.values import encode_value
from storage.planting import Planting, around, merged, overlaid
from storage.pools import worker_pool
from storage.repository import Repository
from storage.tree.node import EMPTY
from storage.worktree import WorkingTree

BATCHES = 16
"""The calls are handed out in about so many portions for each process, so that all end at about the same time."""


class UDF_Return(NamedTuple):
    """What a generator function yields: a sample for the column (dataset) of that name; for a nested one a dict of values."""

    column: str
    key: str | int
    data: Any


Udf = Callable[..., Iterator[UDF_Return]]
Arguments = Mapping[str, Any]


def run_bulk_import(
    repo: Repository,
    branch_name: str,
    column_names: Sequence[str],
    udf: Udf,
    udf_kwargs: Iterable[Arguments],
    *,
    ncpus: int = 0,
    autocommit: bool = True,
) -> str:
    """Call `udf(**kwargs)` for each of `udf_kwargs` in several processes, and commit what it yields; the new commit's hash.

    There are `ncpus` processes, half of the CPUs if that is not positive. `udf` is a generator function in a module that
    they can import; what it yields (`UDF_Return`) are samples of the datasets `column_names`, which are there already. A
    sample under a key that is there is replaced. It must yield the same whenever it is called with the same: the
    first call is made twice to see that. The order of calls is not promised.

    All or nothing: an error of a call is raised here (with a note which call it was), and leaves the branch and what is
    staged on it as they were, as do Ctrl-C and a process that is killed (WorkerDied, a RuntimeError). Contents that
    are stored already are not written again. Memory stays bounded, whatever the number of samples; `udf_kwargs` are kept.

    Without `autocommit` everything is staged, and the answer is empty; with it nothing else may be staged (StagedWork, a
    RuntimeError). Holds the branch's writer lock meanwhile. On a terminal a bar shows how far it has come.

    WrongType (a TypeError): no generator function, one that cannot be imported, arguments that it does not take or that
    cannot be pickled, calls that differ. ValueError: columns that are not there, keys that cannot be or come twice, data
    that does not fit.
    """
    _require_function(udf)
    calls = _checked_calls(udf, udf_kwargs)
    with repo.checkout(write=True, branch=branch_name) as checkout:
        columns = {name: _schema(checkout.datasets, name) for name in _checked_names(column_names)}
        if autocommit and checkout.diff.status() != "CLEAN":
            raise StagedWork(
                f"something is staged on branch {branch_name!r}: commit it first, or import without autocommit"
            )
        if not calls:
            return ""
        with Engine.open(repo.path) as engine:
            tree = engine.working_tree(branch_name)
            with tree.storing():  # for the workers, too: what they store is named here in the end
                parts = _collected(tree, _Work(repo.path, columns, udf, time.time_ns()), calls, ncpus)
                changed = _lay(tree, parts)
        return checkout.commit(f"Bulk import into {', '.join(columns)}") if autocommit and changed else ""


# What the user has given


def _require_function(udf: object) -> None:
    """WrongType unless `udf` is a generator function that another process finds."""
    if not inspect.isgeneratorfunction(udf):
        raise WrongType(f"udf must be a generator function, which yields UDF_Return, not {udf!r}")
    while isinstance(udf, partial):
        udf = udf.func
    module, name = getattr(udf, "__module__", ""), getattr(udf, "__qualname__", "")
    if "<" in name:
        raise WrongType(
            f"udf {name} is a lambda or inside another function: other processes find only what a module holds"
        )
    if module == "__main__" and not hasattr(sys.modules[module], "__file__"):
        raise WrongType(f"udf {name} was written at a prompt: other processes find it only in a module, in a file")


def _checked_calls(udf: Udf, udf_kwargs: Iterable[Arguments]) -> list[Arguments]:
    if isinstance(udf_kwargs, Mapping | str | bytes) or not isinstance(udf_kwargs, Iterable):
        raise WrongType(f"udf_kwargs must be a list of dicts, not {type(udf_kwargs).__name__}")
    signature = inspect.signature(udf)
    calls = list(udf_kwargs)
    for call in calls:
        if not isinstance(call, Mapping):
            raise WrongType(f"udf_kwargs must be dicts, not {type(call).__name__}")
        try:
            signature.bind(**call)
            pickle.dumps(call)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise WrongType(f"udf cannot be called with {_shown(call)} in another process: {error}") from error
    return calls


def _checked_names(column_names: Sequence[str]) -> list[str]:
    if isinstance(column_names, str) or not column_names:
        raise WrongType(f"column_names must be a list of names, not {column_names!r}")
    return list(dict.fromkeys(column_names))


def _schema(datasets: Mapping[str, Any], name: str) -> Schema:
    if name not in datasets:
        raise Unsupported(f"there is no dataset {name!r}: make it before the import")
    found: Schema = datasets[name].schema
    return found


def _shown(call: Arguments) -> str:
    text = repr(dict(call))
    return text if len(text) <= 200 else f"{text[:200]}…"


# In the workers


@dataclass(frozen=True, slots=True)
class _Work:
    """What every worker is to know."""

    repository: Path
    columns: dict[str, Schema]
    udf: Udf
    stamp: int
    """The time of all samples, in nanoseconds since 1970: what they become does not depend on who stores them."""

    def store(self, calls: Sequence[Arguments]) -> _Stored:
        """Make those calls and store what they yield, in this process."""
        with Engine.open(self.repository) as engine:
            plantings = {
                name: Planting(engine.objects, dataset_path(name), _empty(schema), variable=False, stamp=self.stamp)
                for name, schema in self.columns.items()
            }
            seen = _Seen()
            for sample in self._samples(calls):
                seen.add(sample)
                _plant(plantings[sample.column], self.columns[sample.column], sample)
            return _Stored({name: planting.finish() for name, planting in plantings.items()}, seen.digest())

    def repeat(self, calls: Sequence[Arguments]) -> str:
        """Make those calls and tell what they yield from anything else."""
        seen = _Seen()
        for sample in self._samples(calls):
            seen.add(sample)
        return seen.digest()

    def _samples(self, calls: Sequence[Arguments]) -> Iterator[UDF_Return]:
        for call in calls:
            try:
                yield from map(self._checked, self.udf(**call))
            except Exception as error:
                error.add_note(f"raised by {self.udf!r} called with {_shown(call)}")
                raise

    def _checked(self, sample: object) -> UDF_Return:
        if not isinstance(sample, UDF_Return):
            raise WrongType(f"udf must yield UDF_Return(column, key, data), not {type(sample).__name__}")
        if sample.column not in self.columns:
            raise Unsupported(f"udf yields a sample for {sample.column!r}: the columns are {', '.join(self.columns)}")
        return sample


def _plant(planting: Planting, schema: Schema, sample: UDF_Return) -> None:
    """Store one sample. InvalidName, SchemaMismatch."""
    what = f"sample {sample.key!r} of {sample.column!r}"
    key = check_key(sample.key)
    if not schema.nested:
        _plant_value(planting, schema, key, sample.data, what)
        return
    if not isinstance(sample.data, Mapping) or not sample.data:
        raise _misfit(sample.data, what, "a dict of at least one value")
    inner = planting.below(key.encode())
    for name, value in sample.data.items():
        _plant_value(inner, schema.inner, check_key(name), value, f"{what}, {name!r}")
    planting.close(key.encode())


def _plant_value(planting: Planting, schema: Schema, key: str, value: object, what: str) -> None:
    if schema.holds != "array":
        source = BytesSource(memoryview(encode_value(schema.holds, value, what)))
        planting.add_file(key.encode() + schema.suffix, source, planting.mtime, PLAIN, what)
    elif isinstance(value, np.ndarray):
        planting.add_rows([key], value[None], what)
    else:
        raise _misfit(value, what, "numpy.ndarray")


def _misfit(value: object, what: str, expected: str) -> SchemaMismatch:
    found = type(value).__name__
    return SchemaMismatch(f"{what} is of type {found}, not {expected}", expected=expected, found=found)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A directory for each column, and the digest of what was yielded."""

    columns: dict[str, Entry]
    digest: str


class _Seen:
    """Tells what was yielded from anything else that might have been."""

    def __init__(self) -> None:
        self._hasher = blake3()

    def add(self, sample: UDF_Return) -> None:
        """One sample more."""
        self._text(repr((sample.column, sample.key)))
        self._value(sample.data)

    def _value(self, value: object) -> None:
        if isinstance(value, np.ndarray):
            self._text(repr((value.dtype.str, value.shape, value.nbytes)))
            self._hasher.update(value.tobytes())
        elif isinstance(value, Mapping):
            self._text(f"dict of {len(value)}")
            for key, each in value.items():
                self._text(repr(key))
                self._value(each)
        else:
            self._text(repr(value))

    def _text(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        self._hasher.update(len(data).to_bytes(8, "little") + data)

    def digest(self) -> str:
        """The digest of all so far."""
        return self._hasher.hexdigest()


def _empty(schema: Schema) -> Entry:
    return directory_entry(EMPTY, 0, 0, 0, attributes=Attributes(schema=schema))


# In the process that imports


def _collected(tree: WorkingTree, work: _Work, calls: Sequence[Arguments], ncpus: int) -> dict[TreePath, Entry]:
    """What all calls yield, by column. WrongType if the first call does not yield the same twice."""
    processes = ncpus if ncpus > 0 else max(1, len(os.sched_getaffinity(0)) // 2)
    batches = list(_batches(calls, processes))
    found: dict[str, list[Entry]] = {name: [] for name in work.columns}
    with worker_pool(min(processes, len(batches) + 1), "nothing was imported") as submit, _bar(len(calls)) as advance:
        sizes = {submit(work.store, batch): len(batch) for batch in batches}
        first, again = next(iter(sizes)), submit(work.repeat, batches[0])
        for future in as_completed(sizes):
            for name, entry in future.result().columns.items():
                found[name].append(entry)
            advance(sizes[future])
        if first.result().digest != again.result():
            raise WrongType(f"udf called twice with {_shown(calls[0])} does not yield the same twice")
    paths = {name: dataset_path(name) for name in found}
    return {path: merged(tree.objects, found[name], path) for name, path in paths.items()}


def _batches(calls: Sequence[Arguments], processes: int) -> Iterator[Sequence[Arguments]]:
    """The calls in portions; the first of them, which is made twice, by itself."""
    yield calls[:1]
    size = -(-len(calls) // (processes * BATCHES))
    for first in range(1, len(calls), size):
        yield calls[first : first + size]


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], object]]:
    """What to tell of calls that are done. Shows nothing where standard error is no terminal."""
    from tqdm import tqdm  # Not above: only imports need it.

    with tqdm(total=total, unit="call", dynamic_ncols=True, leave=False, disable=None) as bar:
        yield bar.update


def _lay(tree: WorkingTree, parts: dict[TreePath, Entry]) -> bool:
    """Put what was stored over what is there, as one change; whether anything is new. Conflict."""
    parts = _outermost(tree, parts)
    for attempt in range(TRIES):
        grafts, oldest = [], sys.maxsize
        for path, new in parts.items():
            old, since = tree.folded(path)
            if old is None or old.schema is None:
                raise Conflict(f"dataset {dataset_name(path)!r}", "what it was", "nothing")
            oldest = min(oldest, since)
            entry = overlaid(tree.objects, old, new, path, overwrite=True)
            if entry is not old:
                grafts.append((path, entry))
        try:
            if grafts:
                tree.graft_all(grafts, oldest)
            return bool(grafts)
        except Conflict:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _outermost(tree: WorkingTree, parts: dict[TreePath, Entry]) -> dict[TreePath, Entry]:
    """The same; datasets inside another one are in that one's directory."""
    found = dict(parts)
    for path in sorted(parts, key=len, reverse=True):
        outer = max((other for other in parts if other != path and path[: len(other)] == other), key=len, default=None)
        if outer is None:
            continue
        entry = found.pop(path)
        for name in reversed(path[len(outer) :]):
            entry = around(tree.objects, name, entry)
        found[outer] = overlaid(tree.objects, found[outer], entry, outer, overwrite=False)
    return found
