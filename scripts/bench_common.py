"""What the benchmarks share: fresh repositories, mounts and mirrors to measure against, clocks and CPU counters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb

from storage import Repository

REQUESTS, OPEN_AT_ONCE = 20_000, 500

Figures = dict[str, list[float]]
Row = tuple[str, str, str, str]
"""What, measured, against its floor, goal."""


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def quiet(work: Callable[[], object]) -> object:
    """The API prints what a notebook wants to see."""
    with contextlib.redirect_stdout(io.StringIO()):
        return work()


def repository(folder: Path) -> Repository:
    """A fresh repository in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repo = Repository(path=folder)
    quiet(lambda: repo.init(user_name="Bench", user_email="bench@example.org"))
    return repo


def raw_lmdb(folder: Path, raw: list[tuple[bytes, bytes]]) -> float:
    """Seconds to put these rows into a fresh LMDB, in one transaction."""
    shutil.rmtree(folder, ignore_errors=True)
    environment = lmdb.open(str(folder), map_size=1 << 32, sync=False)

    def put() -> None:
        with environment.begin(write=True) as txn:
            for key, value in raw:
                txn.put(key, value)

    took = seconds(put)
    environment.close()
    return took


def synced(path: Path) -> None:
    """Write 4 KiB and have the disk keep them, three times."""
    for _ in range(3):
        with path.open("ab") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())


def arborfs(*arguments: str | Path) -> str:
    """Run the command line; what it printed."""
    command = [sys.executable, "-m", "fusefs.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def mounted(repo: Path, point: Path, *options: str) -> Iterator[int]:
    """A mount by the command line; gives the daemon's pid."""
    point.mkdir(exist_ok=True)
    arborfs("mount", repo, point, *options)
    pid = next(m["pid"] for m in json.loads(arborfs("mounts", "--json")) if m["mountpoint"] == str(point))
    try:
        yield pid
    finally:
        arborfs("umount", point)


@contextlib.contextmanager
def bindfs(source: Path, point: Path) -> Iterator[None]:
    """The C mirror file system over `source`."""
    point.mkdir(exist_ok=True)
    subprocess.run(["bindfs", str(source), str(point)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fusermount3", "-u", str(point)], check=True)


@contextlib.contextmanager
def bare_pyfuse3(point: Path, count: int = REQUESTS) -> Iterator[int]:
    """A file system of so many files in memory on pyfuse3 alone, in a folder `files`."""
    point.mkdir(exist_ok=True)
    process = subprocess.Popen([sys.executable, str(Path(__file__).parent / "bare_pyfuse3.py"), str(point), str(count)])
    while not (point / "files").is_dir():
        time.sleep(0.01)
    try:
        yield process.pid
    finally:
        subprocess.run(["fusermount3", "-u", str(point)], check=True)
        process.wait()


def cpu(pid: int) -> float:
    """Seconds of CPU that all threads of a process have used."""
    return sum(int(p.read_text().split()[0]) for p in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def drop_caches(what: int) -> None:
    """1: page cache, 2: names and inodes, 3: both."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text(str(what))


def medians(figures: Figures) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(values) for name, values in figures.items()}
