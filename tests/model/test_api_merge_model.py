"""Merges by the API against a plain three-way merge of dicts: nothing that one side made or changed is lost without a word.

Each side makes, removes and renames datasets, flat and nested ones, and adds, changes and removes samples. Where the merge
succeeds, what the API then shows is what merging the samples path by path gives; where it is refused, nothing changed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from storage import Repository
from storage.engine import Engine
from storage.errors import MergeConflict
from tests.conftest import ADA

NAMES = st.sampled_from(["a", "c/d"])
KEYS = st.sampled_from(["0", "1"])
MAKE = st.tuples(
    st.just("make"), NAMES, st.sampled_from([True, True, False]), st.sampled_from(["i4", "i4", "i4", "f8"])
)
PUT = st.tuples(st.just("put"), NAMES, KEYS, KEYS, st.integers(0, 1))
OPERATIONS = st.one_of(
    MAKE,
    PUT,
    PUT,
    PUT,
    st.tuples(st.just("remove"), NAMES, KEYS),
    st.tuples(st.just("remove dataset"), NAMES),
    st.tuples(st.just("rename"), NAMES, NAMES),
)
BASES = st.builds(list.__add__, st.lists(MAKE, max_size=2), st.lists(PUT, max_size=4))
WORK = st.builds(list.__add__, st.lists(MAKE, max_size=2), st.lists(OPERATIONS, max_size=5))

State = dict[tuple[str, ...], Any]


def change(co, operation) -> None:
    """Carry out one operation, if it can be."""
    what, name, *more = operation
    there = name in co.datasets
    if what == "make" and not there:
        nested, dtype = more
        co.datasets.init_dataset(name, shape=(1,), dtype=dtype, contains_subsamples=nested)
    elif what == "remove dataset" and there:
        del co.datasets[name]
    elif what == "rename" and there and more[0] not in co.datasets:
        co.datasets.rename(name, more[0])
    elif what == "put" and there:
        key, inner, value = more
        array = np.full((1,), value, co[name].dtype)
        co[name][key] = {inner: array} if co[name].contains_subsamples else array
    elif what == "remove" and there and more[0] in co[name]:
        del co[name][more[0]]


def seen(co) -> State:
    """All that the API shows: what each dataset takes, and every value by dataset, key, and key in a nested sample."""
    state: State = {}
    for name, dataset in co.items():
        state[name,] = dataset.column_layout, dataset.dtype.str
        for key, value in dataset.items():
            if dataset.contains_subsamples:
                state |= {(name, key, inner): int(array[0]) for inner, array in value.items()}
            else:
                state[name, key] = int(value[0])
    return state


def worked(repo, branch, operations) -> State:
    """What a branch shows after these operations, which are committed."""
    with repo.checkout(write=True, branch=branch) as co:
        for operation in operations:
            change(co, operation)
        co.metadata["by"] = "both"
        if co.diff.status() == "DIRTY":
            co.commit("work")
        return seen(co)


def three_way(base: State, ours: State, theirs: State) -> State:
    """Path by path, what changed on one side."""
    paths = base.keys() | ours.keys() | theirs.keys()
    picked = {path: theirs.get(path) if ours.get(path) == base.get(path) else ours.get(path) for path in paths}
    return {path: value for path, value in picked.items() if value is not None}


def named(operations) -> set[str]:
    """The datasets that operations are about. Writing the value that is there anew is a change, too: of its time."""
    return {operation[1] for operation in operations} | {
        operation[2] for operation in operations if operation[0] == "rename"
    }


NESTED = ("make", "a", True, "i4")


@example(before=[], ours=[NESTED, ("put", "a", "0", "0", 0)], theirs=[NESTED, ("put", "a", "1", "0", 0)])
@example(before=[NESTED], ours=[("remove dataset", "a"), NESTED], theirs=[("put", "a", "1", "0", 0)])
@given(before=BASES, ours=WORK, theirs=WORK)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_merge_keeps_what_either_side_did_or_is_refused(before, ours, theirs):
    with tempfile.TemporaryDirectory() as folder:
        Engine.create(path := Path(folder) / "repository", ADA).close()
        with Repository(path) as repo:
            base = worked(repo, "main", before)
            repo.create_branch("dev")
            here, there = worked(repo, "main", ours), worked(repo, "dev", theirs)
            try:
                repo.merge("both", "main", "dev")
            except MergeConflict:
                event("refused")
                assert named(ours) & named(theirs), "a conflict about nothing that both changed"
                expected = here
            else:
                event("merged" if named(ours) & named(theirs) else "nothing in common")
                expected = three_way(base, here, there)
            with repo.checkout() as co:
                assert seen(co) == expected
            assert repo.verify_repo_integrity()
