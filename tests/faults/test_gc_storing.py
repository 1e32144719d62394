"""gc without any grace while contents and nodes are stored that nothing leads to yet: what is staged in the end is whole."""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from storage.engine import Engine
from storage.filling import fill
from storage.maintenance.gc import Policy, gc
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.records import Attributes
from storage.model.samples import canonical_header, make_schema
from storage.repository import Repository
from storage.widening import widen, wider_schema
from storage.worktree import WorkingTree

AT_ONCE = Policy(keep=0, grace=0)
ROWS = np.arange(20_000 * 4, dtype="<i4").reshape(20_000, 4)
NAMES = [b"%05d.npy" % number for number in range(len(ROWS))]
SIZE = len(canonical_header("<i4", (4,))) + ROWS[0].nbytes


def collect(repository) -> int:
    """Twice: what the first one marks the second one deletes. How much that was."""
    return sum(gc(repository, AT_ONCE).deleted for _ in range(2))


@pytest.fixture
def tree(engine, repository) -> WorkingTree:
    """A working tree under which garbage is collected whenever a directory that is stored in full is about to be staged."""

    class Collecting(WorkingTree):
        def graft(self, *arguments: object) -> None:
            collect(repository)
            super().graft(*arguments)

    made = Collecting(engine.parts(), "main")
    made.make_directory((b"d",), attributes=Attributes(schema=make_schema(np.dtype("<i4"), (4,))))
    return made


def sound(engine: Engine, repository, tree: WorkingTree, expected: np.ndarray) -> None:
    for number in (0, 7777, len(expected) - 1):
        payload = tree.payload(tree.entry((b"d", NAMES[number])))
        assert np.frombuffer(payload, expected.dtype).tolist() == expected[number].tolist()
    assert sum(1 for _ in tree.entries((b"d",))) == len(expected)
    collect(repository)
    tree.commit("all of it")
    assert verify(engine) == []
    engine.close()
    assert rebuild(repository).problems == []


def test_rows_of_an_array(engine, repository, tree):
    half = len(ROWS) // 2
    for part in (slice(half), slice(half, None)):
        assert fill(tree, (b"d",), NAMES[part], ROWS[part], SIZE)
    sound(engine, repository, tree, ROWS)


def test_a_wider_schema(engine, repository, tree):
    assert fill(tree, (b"d",), NAMES, ROWS, SIZE)
    old = tree.schema_of((b"d",))
    widen(tree, (b"d",), old, wider_schema(old, np.dtype("<f8"), None))
    sound(engine, repository, tree, ROWS.astype("<f8"))


class Collecting(Mapping[str, np.ndarray]):
    """Values for one sample; whoever reads them finds garbage collected meanwhile."""

    def __init__(self, repository, seed: int) -> None:
        self._repository, self._seed = repository, seed

    def __getitem__(self, key: str) -> np.ndarray:
        return large(self._seed)

    def __iter__(self) -> Iterator[str]:
        collect(self._repository)
        return iter(["x"])

    def __len__(self) -> int:
        return 1


def large(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((50, 300))


@pytest.mark.parametrize("batch", [False, True], ids=["update", "batch"])
def test_large_samples(repository, batch):
    """Those of an update, and those that wait in a batch: contents are stored one after the other, and named together."""
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        data = co.datasets.init_dataset("d", prototype=large(0))
        if batch:
            with data:
                for seed in range(3):
                    data[str(seed)] = large(seed)
                    collect(repo.path)
        else:
            nested = co.datasets.init_dataset("n", prototype=large(0), contains_subsamples=True)
            nested.update({str(seed): Collecting(repo.path, seed) for seed in range(3)})
            assert all(np.array_equal(nested[str(seed)]["x"], large(seed)) for seed in range(3))
            data.update({str(seed): large(seed) for seed in range(3)})
        assert all(np.array_equal(data[str(seed)], large(seed)) for seed in range(3))
        co.commit("all of it")
    with Engine.open(repository) as engine:
        assert verify(engine) == []
