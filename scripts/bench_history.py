"""What history costs as datasets grow: commits, diffs, merges, opening, filling; and versions of a big file.

Each repository is built once, in a process of its own, and all rows are measured on it, the mount's too. Every row says
how the figure of the largest dataset compares to that of the smallest, and to its floor in the same run.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from bench_common import Figures, Row, arborfs, medians, raw_lmdb, seconds, synced
from bench_history_mount import mount_figures, mount_rows
from bench_ingest import DTYPE, SHAPE, human, name_of, values
from bench_versions import versions

from storage import Repository
from storage.dataset_writer import DatasetDataWriter

SIZES = (10_000, 100_000, 1_000_000)
MANY = 1_000
COMMITS = 1_000


def history(work: Path, runs: int, figures: Figures, sizes: Sequence[int] = SIZES, megabytes: int = 100) -> list[Row]:
    """All of it, for datasets of these sizes and a file of so many megabytes."""
    for count in sizes:
        folder = work / str(count)
        # What is small is noisy, and cheap to build again.
        for _ in range(max(1, min(runs, max(sizes) // count))):
            _build(folder, count, figures)
        _changes(folder, count, runs, figures)
        _merges(folder, count, runs, figures)
        _opening(folder, count, runs, figures)
        mount_figures(work, folder, count, runs, figures)
        shutil.rmtree(folder)
    return [*_rows(medians(figures), sizes), *mount_rows(medians(figures), sizes), *versions(work, figures, megabytes)]


def _build(folder: Path, count: int, figures: Figures) -> None:
    """Build the repository of that many samples, and the same as a bare LMDB."""
    command = [sys.executable, str(Path(__file__).parent / "bench_ingest.py"), str(folder), str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    for what, cost in json.loads(done.stdout).items():
        figures.setdefault(f"{what}/{count}", []).append(cost)
    rows = [(name_of(i).encode(), value.tobytes()) for i, value in enumerate(values(count, 0))]
    figures.setdefault(f"raw LMDB/{count}", []).append(raw_lmdb(folder.with_suffix(".lmdb"), rows))
    shutil.rmtree(folder.with_suffix(".lmdb"))


class _Scattered:
    """Changes samples here and there, none twice until all have had their turn. Each seed has values of its own."""

    def __init__(self, count: int, seed: int) -> None:
        self._random = np.random.default_rng([5, seed])
        self._order = self._random.permutation(count)
        self._next = 0

    def __call__(self, dataset: DatasetDataWriter, changes: int) -> None:
        """Stage so many changes, as one batch."""
        numbers = np.take(self._order, range(self._next, self._next + changes), mode="wrap")
        self._next += changes
        with dataset:
            for number, array in zip(numbers, self._random.random((changes, *SHAPE), DTYPE), strict=True):
                dataset.add(array, name_of(number))


def _many(count: int) -> int:
    """How many changes stand for many: both sides of a merge change different samples."""
    return min(MANY, count // 2)


def _changes(folder: Path, count: int, runs: int, figures: Figures) -> None:
    """Commits after one change and after many, what they take on the disk, and the diff of each to the one before.

    Diffs are made in a repository that was just opened: nothing of it is kept in memory.
    """
    change = _Scattered(count, 1)
    for word, changes, times in (("1", 1, runs * 5), ("many", _many(count), runs)):
        with Repository(folder) as repo, repo.checkout(write=True) as co:
            dataset = co.datasets["samples"]
            commits = [co.commit_hash]
            before = repo.size_nbytes
            for _ in range(times):
                change(dataset, changes)
                _measure(figures, f"commit {word}/{count}", lambda: commits.append(co.commit("changed")))  # noqa: B023
                figures.setdefault(f"fsync/{count}", []).append(seconds(lambda: synced(folder / "plain")))
            (folder / "plain").unlink()
            figures[f"growth {word}/{count}"] = [(repo.size_nbytes - before) / times / 1024]
        for old, new in list(pairwise(commits))[:runs]:
            with Repository(folder) as repo, repo.checkout(commit=old) as co:
                found: list[int] = []
                _measure(figures, f"diff {word}/{count}", lambda: found.append(len(co.diff.commit(new).diff)))  # noqa: B023
            if found != [changes]:
                raise SystemExit(f"a diff of {changes} changes found {found}")


def _measure(figures: Figures, what: str, work: Callable[[], object]) -> None:
    """How long it takes, and its CPU time: that shows growth also where most of the time is the disk's."""
    used = time.process_time()
    figures.setdefault(what, []).append(seconds(work))
    figures.setdefault(f"CPU of {what}", []).append(time.process_time() - used)


def _merges(folder: Path, count: int, runs: int, figures: Figures) -> None:
    """Merges of two branches that both changed one sample, or many, in a repository that was just opened."""
    change = _Scattered(count, 2)
    for word, changes in (("1", 1), ("many", _many(count))):
        for n in range(runs):
            side = f"side-{word}-{n}"
            with Repository(folder) as repo:
                repo.create_branch(side)
                for branch in ("main", side):
                    with repo.checkout(write=True, branch=branch) as co:
                        change(co.datasets["samples"], changes)
                        co.commit(f"on {branch}")
            with Repository(folder) as repo, repo.checkout(write=True) as co:
                _measure(figures, f"merge {word}/{count}", lambda: co.merge("both", side))  # noqa: B023


def _opening(folder: Path, count: int, runs: int, figures: Figures) -> None:
    """Opening a repository of many commits, and mounting it."""
    change = _Scattered(count, 3)
    with Repository(folder) as repo, repo.checkout(write=True) as co:
        for _ in range(COMMITS):
            change(co.datasets["samples"], 1)
            co.commit("one more")
        repo.create_tag("v1")
    point = folder.with_suffix(".m")
    point.mkdir()
    for _ in range(runs * 3):
        figures.setdefault(f"open/{count}", []).append(_opened(folder))
    for _ in range(runs):
        figures.setdefault(f"mount/{count}", []).append(seconds(lambda: arborfs("mount", folder, point)))
        arborfs("umount", point)


def _opened(folder: Path) -> float:
    """Seconds until a repository is open, and a dataset of its last commit with it."""
    with contextlib.ExitStack() as stack:

        def opened() -> None:
            repo = stack.enter_context(Repository(folder))
            repo.checkout().datasets["samples"]

        return seconds(opened)


_TIMES = {
    "commit 1": ("commit after 1 change", "<= 5 ms; <= 1.5 x"),
    "commit many": ("commit after 1,000 changes", "<= 500 ms"),
    "diff 1": ("diff of 1", "<= 2 ms"),
    "diff many": ("diff of 1,000", "<= 300 ms"),
    "merge 1": ("merge of 1 and 1", "<= 2 ms"),
    "merge many": ("merge of 1,000 and 1,000", "<= 300 ms"),
    "open": ("open, 1,000 commits", "<= 50 ms"),
    "mount": ("mount ready with Python's start", "<= 500 ms"),
}


def _rows(m: dict[str, float], sizes: Sequence[int]) -> list[Row]:
    least, most = min(sizes), max(sizes)
    at = human(most)

    def growth(what: str) -> str:
        return f"{m[f'{what}/{most}'] / m[f'{what}/{least}']:.2f} x {human(least)}"

    fsync = m[f"fsync/{most}"]
    rows: list[Row] = [("write and fsync 4 KiB, three times", f"{fsync * 1e3:.2f} ms", "", "")]
    for key, (what, goal) in _TIMES.items():
        took = m[f"{key}/{most}"]
        used = f"CPU of {key}"
        floor = f" (CPU {m[f'{used}/{most}'] / m[f'{used}/{least}']:.2f} x)" if f"{used}/{most}" in m else ""
        floor += f", {took / fsync:.1f} x fsyncs" if key.split()[0] in ("commit", "merge") else ""
        rows.append((f"{what}, {at}", f"{took * 1e3:.1f} ms", growth(key) + floor, goal))
    for word, what, goal in (("1", "1", "<= 64 KiB"), ("many", "1,000", "")):
        key = f"growth {word}"
        rows.append((f"disk space of a commit of {what}, {at}", f"{m[f'{key}/{most}']:,.0f} KiB", growth(key), goal))
    rate, slower = most / m[f"ingest/{most}"], growth_per_sample(m, "ingest", least, most)
    floor = f"{m[f'ingest/{most}'] / m[f'raw LMDB/{most}']:.2f} x raw LMDB"
    rows.append(
        (f"ingest of {at} samples", f"{rate:,.0f} samples/s", f"{1 / slower:.2f} x {human(least)}, {floor}", ">= 0.7 x")
    )
    rows.append((f"its peak memory, {at}", f"{m[f'ingest peak/{most}']:.0f} MB", growth("ingest peak"), "<= 500 MB"))
    took, slower = m[f"commit all/{most}"], growth_per_sample(m, "commit all", least, most)
    floor = f"{took / m[f'raw LMDB/{most}']:.2f} x raw LMDB"
    rows.append(
        (f"commit of {at} new samples", f"{took:.1f} s", f"{slower:.2f} x {human(least)} each, {floor}", "<= 30 s")
    )
    peak = f"commit all peak/{most}"
    rows.append((f"its peak memory, {at}", f"{m[peak]:.0f} MB", growth("commit all peak"), "<= 1000 MB"))
    return rows


def growth_per_sample(m: dict[str, float], what: str, least: int, most: int) -> float:
    """How much longer one sample takes among `most` than among `least`."""
    return (m[f"{what}/{most}"] / most) / (m[f"{what}/{least}"] / least)
