"""Builds the repository that `scripts/bench history` measures, in a process of its own, and prints what it cost as JSON.

bench_ingest.py REPOSITORY SAMPLES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from bench_common import quiet, repository, seconds

from storage.dataset_writer import DatasetDataWriter

BATCH = 10_000
SHAPE, DTYPE = (8,), np.float32
FEW = 1_000


def name_of(number: int) -> str:
    """The key of a sample."""
    return f"{number:07}"


def human(count: int) -> str:
    """A size as people say it."""
    return f"{count // 1_000_000} M" if count >= 1_000_000 else f"{count // 1_000} k"


def values(count: int, seed: int) -> np.ndarray:
    """Samples of 32 incompressible bytes."""
    return np.random.default_rng(seed).random((count, *SHAPE), dtype=DTYPE)


def fill(dataset: DatasetDataWriter, count: int) -> None:
    """Stage that many samples, in batches."""
    for first in range(0, count, BATCH):
        arrays = values(min(BATCH, count - first), first)
        with dataset:
            for number, array in enumerate(arrays, first):
                dataset.add(array, name_of(number))


def peak() -> float:
    """The most memory this process has had, in MB. Its `ru_maxrss` may be that of the process that started it."""
    return float(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def main() -> None:
    """Stage the samples of one dataset, commit them, and put a small dataset beside it."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    with repository(folder) as repo, repo.checkout(write=True) as co:
        dataset = quiet(lambda: co.datasets.init_dataset(name="samples", shape=SHAPE, dtype=DTYPE))
        cost = {"ingest": seconds(lambda: fill(dataset, count)), "ingest peak": peak()}
        cost |= {"commit all": seconds(lambda: co.commit("all")), "commit all peak": peak()}
        fill(quiet(lambda: co.datasets.init_dataset(name="few", shape=SHAPE, dtype=DTYPE)), FEW)
        co.commit("few")
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
