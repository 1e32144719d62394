"""What programs do all day, on ext4 (or whatever holds the temporary folder), through bindfs, and on a mounted branch.

bindfs, the C mirror file system, stands for what a file system in user space can reach. Everything is done in turn on
all of them, several times.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_common import Figures, Row, bindfs, drop_caches, medians, mounted, repository, seconds

from storage.engine import Engine
from storage.model.records import Entry, Kind

FILES = 10_000
LARGE = 256 << 20
ENTRIES = 100_000
WRITES = 20_000
PROJECT = Path(__file__).parent.parent

Step = Callable[[Path], None]


def posix(work: Path, runs: int, figures: Figures) -> list[Row]:
    """Programs on a branch beside bindfs and ext4; reading also on a snapshot."""
    sources = _sources(work / "sources")
    for name in ("disk", "mirrored"):
        (work / name).mkdir()
    repository(work / "repo").close()
    with mounted(work / "repo", work / "m"), bindfs(work / "mirrored", work / "b"):
        places = {"ext4": work / "disk", "bindfs": work / "b", "branch": work / "m" / "branches" / "main"}
        for n in range(runs):
            for what, step in _writing(sources).items():
                for place, folder in places.items():
                    target = folder / f"run-{n}"
                    target.mkdir(exist_ok=True)
                    figures.setdefault(f"{what}/{place}", []).append(seconds(lambda: step(target)))  # noqa: B023
        (places["branch"] / ".arborfs" / "commit").write_text("all\n")
        places["snapshot"] = work / "m" / "tags" / "all"
        (work / "m" / "tags" / "all").symlink_to("../commits/main")
        for _ in range(runs):
            for what, (step, heat) in _reading().items():
                for place, folder in places.items():
                    target = folder / "run-0"
                    drop_caches(3) if heat == "cold" else step(target)
                    figures.setdefault(f"{what}/{place}", []).append(seconds(lambda: step(target)))  # noqa: B023
    _listing(work, runs, figures)
    return _rows(medians(figures))


def _sources(folder: Path) -> Path:
    """Small files as a tree and as an archive, a large file, and a repository to clone."""
    rng = np.random.default_rng(3)
    small = folder / "small"
    for i in range(FILES):
        below = small / f"{i // 100:03}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{i}").write_bytes(rng.bytes(int(rng.integers(1 << 10, 1 << 14))))
    with (folder / "large").open("wb") as file:
        for _ in range(LARGE >> 24):
            file.write(rng.bytes(1 << 24))
    subprocess.run(["tar", "-C", folder, "-cf", folder / "small.tar", "small"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", "--no-hardlinks", PROJECT, folder / "project.git"], check=True)
    return folder


def _writing(sources: Path) -> dict[str, Step]:
    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return {
        "copy 10,000 small files": lambda to: run("cp", "-r", sources / "small", to / "small"),
        "copy 256 MiB": lambda to: run("cp", sources / "large", to / "large"),
        "tar x of 10,000 small files": lambda to: run("tar", "-C", _fresh(to / "tar"), "-xf", sources / "small.tar"),
        "rsync -a of 10,000 small files": lambda to: run("rsync", "-a", sources / "small", _fresh(to / "rsync")),
        "git clone of this project": lambda to: run("git", "clone", "-q", sources / "project.git", to / "clone"),
        "git status": lambda to: run("git", "-C", to / "clone", "status", "--porcelain"),
        "SQLite, 10,000 transactions": lambda to: _transactions(to / "database"),
        "write 20,000 x 4 KiB": lambda to: _append(to / "blocks", bytes(4096)),
        "append 20,000 x 100 bytes": lambda to: _append(to / "lines", bytes(100)),
    }


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _transactions(path: Path) -> None:
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b TEXT)")
        for i in range(10_000):
            connection.execute("INSERT INTO t (b) VALUES (?)", (f"row {i}",))
    connection.close()


def _append(path: Path, block: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(WRITES):
        os.write(descriptor, block)
    os.close(descriptor)


def _reading() -> dict[str, tuple[Step, str]]:
    def small(at: Path) -> None:
        subprocess.run(f"cat {at}/small/*/* > /dev/null", shell=True, check=True)

    def large(at: Path) -> None:
        subprocess.run(["dd", f"if={at / 'large'}", "of=/dev/null", "bs=1M", "status=none"], check=True)

    return {
        "cat of 10,000 small files, cold": (small, "cold"),
        "cat of 10,000 small files, warm": (small, "warm"),
        "read 256 MiB, cold": (large, "cold"),
        "read 256 MiB, warm": (large, "warm"),
    }


def _listing(work: Path, runs: int, figures: Figures) -> None:
    """`ls -lU` of 100,000 entries, names and inodes dropped before."""
    many = work / "many"
    many.mkdir()
    for i in range(ENTRIES):
        (many / f"{i:06}").touch()
    repository(work / "listed").close()
    with Engine.open(work / "listed") as engine:
        tree = engine.working_tree("main")
        tree.make_directory((b"many",))
        tree.put_rows((b"many",), [(b"%06d" % i, Entry(Kind.FILE, 0, 1)) for i in range(ENTRIES)])
        engine.create_tag("all", tree.commit("all"))
    with mounted(work / "listed", work / "l"):
        places = {"ext4": many, "branch": work / "l" / "branches" / "main" / "many"}
        places["snapshot"] = work / "l" / "tags" / "all" / "many"
        for _ in range(runs):
            for place, folder in places.items():
                drop_caches(2)
                took = seconds(lambda folder=folder: subprocess.run(["ls", "-lU", folder], stdout=subprocess.DEVNULL))
                figures.setdefault(f"ls -lU of 100,000 entries/{place}", []).append(took)


_AT_MOST = {
    ("cat of 10,000 small files, cold", "branch"): "<= 1.3 x bindfs",
    ("cat of 10,000 small files, cold", "snapshot"): "<= 1.3 x bindfs",
    ("cat of 10,000 small files, warm", "branch"): "<= 1.5 x bindfs",
    ("cat of 10,000 small files, warm", "snapshot"): "<= 1.2 x bindfs",
    ("read 256 MiB, cold", "branch"): "<= 1.25 x bindfs",
    ("read 256 MiB, cold", "snapshot"): "<= 1.25 x bindfs",
    ("read 256 MiB, warm", "branch"): "<= 0.33 x bindfs",
    ("read 256 MiB, warm", "snapshot"): "<= 0.33 x bindfs",
    ("copy 10,000 small files", "branch"): "<= 2 x bindfs",
    ("copy 256 MiB", "branch"): "<= 0.5 x bindfs",
    ("ls -lU of 100,000 entries", "branch"): "<= 2 x ext4",
    ("ls -lU of 100,000 entries", "snapshot"): "<= 1.3 x ext4",
}


def _rows(m: dict[str, float]) -> list[Row]:
    """Times, and their ratios to bindfs's and ext4's: less is better."""
    rows: list[Row] = []
    for key, took in m.items():
        what, place = key.split("/")
        if place in ("ext4", "bindfs"):
            continue
        beside = [
            f"{took / m[f'{what}/{other}']:.2f} x {other}" for other in ("bindfs", "ext4") if f"{what}/{other}" in m
        ]
        rows.append((f"{what}, {place}", f"{took:.2f} s", ", ".join(beside), _AT_MOST.get((what, place), "")))
    return rows
