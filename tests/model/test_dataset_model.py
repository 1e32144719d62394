"""Datasets against dicts of arrays: random changes, batches, commits, reopening; staged and committed must agree."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from storage.engine import Engine
from storage.errors import InBatch, NothingToCommit
from storage.model.records import Author
from storage.repository import Repository

KEYS = st.sampled_from(["a", "b", "c-d", "ä", "0", "1", "10", "k" * 240, "x.npy"])
# Inline, at the edge of inline, and in chunks; the last dataset holds arrays of any length.
LENGTHS = {"small": 3, "nested/edge": 1024, "large": 3000, "small/inside": 1, "any": 5000}
NAMES = st.sampled_from(sorted(LENGTHS))
NUMBERS = st.integers(0, 5)

Model = dict[str, dict[str, Any]]


def array_for(name: str, number: int) -> Any:
    """An array that fits the dataset `name`, the same for the same number."""
    length = LENGTHS[name] if name != "any" else [0, 1, 2, 1024, 1025, 5000][number]
    return np.arange(length, dtype=np.int32) * 7 + number


def plain(model: Model) -> dict[str, dict[str, list[int]]]:
    """Something that can be compared."""
    return {name: {key: array.tolist() for key, array in samples.items()} for name, samples in model.items()}


class Datasets(RuleBasedStateMachine):
    """One branch; what is staged, and every commit, must be what the model holds."""

    commits = Bundle("commits")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="arborfs-model-"))
        Engine.create(self.folder, Author("Ada", "ada@example.org")).close()
        self.model: Model = {}
        self.metadata: dict[str, str] = {}
        self.frozen: dict[str, tuple[Any, dict[str, str]]] = {}
        self.batches: list[str] = []
        self.open()

    def open(self) -> None:
        self.repo = Repository(self.folder)
        self.co = self.repo.checkout(write=True)

    def teardown(self) -> None:
        self.end_batches()
        self.repo.close()
        shutil.rmtree(self.folder)

    def end_batches(self) -> None:
        while self.batches:
            self.co.datasets[self.batches.pop()].__exit__(None, None, None)

    @rule(name=NAMES)
    def make(self, name: str) -> None:
        if name not in self.model:
            with self.refused_in_a_batch():
                self.co.datasets.init_dataset(name, LENGTHS[name], np.int32, variable_shape=name == "any")
                self.model[name] = {}

    def refused_in_a_batch(self) -> AbstractContextManager[object]:
        return pytest.raises(InBatch) if self.batches else nullcontext()

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        if name in self.model:
            with self.refused_in_a_batch():
                del self.co.datasets[name]
                del self.model[name]

    @rule(name=NAMES, key=KEYS, number=NUMBERS)
    def put(self, name: str, key: str, number: int) -> None:
        if name in self.model:
            array = array_for(name, number)
            self.co.datasets[name][key] = array
            self.model[name][key] = array.copy()
            array[:] = -1

    @rule(name=NAMES, pairs=st.dictionaries(KEYS, NUMBERS, max_size=5))
    def update(self, name: str, pairs: dict[str, int]) -> None:
        if name in self.model:
            arrays = {key: array_for(name, number) for key, number in pairs.items()}
            self.co.datasets[name].update(arrays)
            self.model[name].update(arrays)

    @rule(name=NAMES, key=KEYS)
    def pop(self, name: str, key: str) -> None:
        if name in self.model:
            found = self.co.datasets[name].pop(key, None)
            expected = self.model[name].pop(key, None)
            assert (found is None) == (expected is None)
            assert found is None or found.tolist() == expected.tolist()

    @rule(name=NAMES, key=KEYS)
    def get(self, name: str, key: str) -> None:
        if name in self.model:
            found = self.co.datasets[name].get(key)
            expected = self.model[name].get(key)
            assert (key in self.co.datasets[name]) == (expected is not None)
            assert (found is None) == (expected is None)
            assert found is None or found.tolist() == expected.tolist()

    @rule(key=KEYS, value=st.sampled_from(["", "one", "two", "long " * 2000]))
    def describe(self, key: str, value: str) -> None:
        self.co.metadata[key] = value
        self.metadata[key] = value

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        assert self.co.metadata.pop(key, None) == self.metadata.pop(key, None)

    @rule(name=NAMES)
    def begin_batch(self, name: str) -> None:
        if name in self.model:
            self.co.datasets[name].__enter__()
            self.batches.append(name)

    @precondition(lambda self: self.batches)
    @rule()
    def end_batch(self) -> None:
        self.co.datasets[self.batches.pop()].__exit__(None, None, None)

    @rule(target=commits)
    def commit(self) -> str:
        try:
            commit = self.co.commit("message")
        except NothingToCommit:
            return self.co.commit_hash
        self.frozen[commit] = (plain(self.model), dict(self.metadata))
        return commit

    @rule(commit=commits)
    def look_back(self, commit: str) -> None:
        if commit:
            with self.repo.checkout(commit=commit) as reader:
                self.agree(reader, *self.frozen[commit])

    @rule(end_first=st.booleans())
    def reopen(self, end_first: bool) -> None:
        if end_first:
            self.end_batches()
        self.batches.clear()  # closing ends them
        self.repo.close()
        self.open()

    @precondition(lambda self: not self.batches)
    @invariant()
    def staged_agrees(self) -> None:
        self.agree(self.co, plain(self.model), self.metadata)

    def agree(self, co: Any, datasets: dict[str, dict[str, list[int]]], metadata: dict[str, str]) -> None:
        assert set(co.datasets) == set(datasets)
        for name, samples in datasets.items():
            found = co.datasets[name]
            assert {key: array.tolist() for key, array in found.items()} == samples
            assert list(found) == sorted(samples, key=lambda key: key.encode() + b".npy")
            assert len(found) == len(samples)
        assert dict(co.metadata) == metadata


TestDatasets = Datasets.TestCase
TestDatasets.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
