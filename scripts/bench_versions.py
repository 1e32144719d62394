"""What twenty versions of one big file take on the disk, each written over the one before, in the API and in a mount."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bench_common import Figures, Row, mounted, quiet, repository

from storage import Repository

VERSIONS = 20
ROW = 4096
SUFFIX = ".npy"

Edit = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def versions(work: Path, figures: Figures, megabytes: int) -> list[Row]:
    """Rows changed in place, and rows inserted: each 1 % of them, scattered, each time."""
    rows: list[Row] = []
    for word, edit, limit in (("changed", _change, 180), ("inserted", _insert, 300)):
        for where, store in (("API", _by_api), ("mount", _by_mount)):
            taken = store(work / "versions", _versions(edit, megabytes)) / 1e6
            shutil.rmtree(work / "versions")
            figures[f"versions {word}, {where}"] = [taken]
            ideal = megabytes * (1 + (VERSIONS - 1) / 100)
            what = f"{VERSIONS} versions, 1 % of rows {word}, {where}"
            ratio = f"{taken / ideal:.2f} x the bytes that differ"
            rows.append((what, f"{taken:.0f} MB", ratio, f"<= {limit * megabytes / 100:.0f} MB"))
    return rows


def _versions(edit: Edit, megabytes: int) -> Iterator[np.ndarray]:
    """The same ones each time, of incompressible rows."""
    rng = np.random.default_rng(7)
    version = _random(rng, megabytes * 1_000_000 // ROW)
    for _ in range(VERSIONS - 1):
        yield version
        version = edit(rng, version)
    yield version


def _random(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, ROW), dtype=np.uint8)


def _change(rng: np.random.Generator, version: np.ndarray) -> np.ndarray:
    places = rng.choice(len(version), len(version) // 100, replace=False)
    version[places] = _random(rng, len(places))
    return version


def _insert(rng: np.random.Generator, version: np.ndarray) -> np.ndarray:
    places = rng.integers(0, len(version) + 1, len(version) // 100)
    return np.insert(version, places, _random(rng, len(places)), axis=0)


def _by_api(folder: Path, arrays: Iterator[np.ndarray]) -> int:
    folder.mkdir()
    with repository(folder / "repo") as repo, repo.checkout(write=True) as co:
        most = (10**6, ROW)
        dataset = quiet(lambda: co.datasets.init_dataset(name="big", shape=most, dtype=np.uint8, variable_shape=True))
        for array in arrays:
            dataset["x"] = array
            co.commit("a version")
        if not np.array_equal(dataset["x"], array):
            raise SystemExit("the last version is not what was stored")
        return repo.size_nbytes


def _by_mount(folder: Path, arrays: Iterator[np.ndarray]) -> int:
    """`cp` of a `.npy` file over the one before."""
    folder.mkdir()
    source = folder / f"x{SUFFIX}"
    repository(folder / "repo").close()
    with mounted(folder / "repo", folder / "m"):
        main = folder / "m" / "branches" / "main"
        for array in arrays:
            np.save(source, array)
            subprocess.run(["cp", source, main / source.name], check=True)
            (main / ".arborfs" / "commit").write_text("a version\n")
        subprocess.run(["cmp", source, main / source.name], check=True)
    with Repository(folder / "repo") as repo:
        return repo.size_nbytes
