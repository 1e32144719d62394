"""The group `space` of the benchmarks: gc, verify, rebuild and du against reading the segment files with cat.

gc cannot be had for reading alone: half of all that the segments hold is copied and synced. So it is also held against a
cp of as many bytes with a sync, and measured with the segment files in memory (just copied) and without.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_common import Figures, Row, medians, seconds

from storage.engine import Engine
from storage.maintenance.du import overlap
from storage.maintenance.gc import Policy, gc
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.records import Author
from storage.model.samples import BytesSource

FILES, SIZE = 100, 5_000_000
"""On each of two branches: 1 GB in all."""


def space(work: Path, runs: int, figures: Figures) -> list[Row]:
    """1 GB on two branches; one of them is removed and collected."""
    rng = np.random.default_rng(1)
    kinds: dict[str, Callable[[], bytes]] = {
        "raw": lambda: rng.bytes(SIZE),
        "packed": lambda: np.cumsum(rng.integers(0, 20, SIZE // 4)).astype("<i4").tobytes(),
    }
    rows: list[Row] = []
    for kind, make in kinds.items():
        path = work / kind
        _fill(path, make)
        rows += _measured(path, kind, runs, figures)
        shutil.rmtree(path)
    return rows


def _fill(path: Path, make: Callable[[], bytes]) -> None:
    with Engine.create(path, Author("Bench", "bench@example.org")) as engine:
        engine.create_branch("side")
        # In turns, so that every segment is half alive when one branch is gone.
        trees = [engine.working_tree(branch) for branch in ("main", "side")]
        for number in range(FILES):
            for tree in trees:
                tree.put_file((f"{tree.branch}{number}".encode(),), BytesSource(make()))
        for tree in trees:
            tree.commit("all")


def _measured(path: Path, kind: str, runs: int, figures: Figures) -> list[Row]:
    size = sum(file.stat().st_size for file in _segments(path))

    def note(what: str, work: Callable[[], object], *, cold: bool) -> None:
        _forget(path) if cold else None
        before = _cpu()
        took = seconds(work)
        figures.setdefault(f"{what} {kind}", []).append(took)
        figures.setdefault(f"{what} {kind} cpu", []).append(_cpu() - before)

    for _ in range(runs):
        for temperature, cold in (("cold", True), ("warm", False)):
            note(f"cat {temperature}", lambda: _cat(path), cold=cold)
            note(f"verify {temperature}", lambda: _verify(path), cold=cold)
        note("rebuild", lambda: rebuild(path), cold=False)
        note("du", lambda: _du(path), cold=False)
        for temperature, cold in (("cold", True), ("warm", False)):
            copy = path.with_name("copy")
            shutil.copytree(path, copy)
            with Engine.open(copy) as engine:
                engine.remove_branch("side", force=True)
            os.sync()
            _forget(copy) if cold else None
            note(f"cp and sync {temperature}", lambda copy=copy: _copy_half(copy), cold=False)
            _forget(copy) if cold else None
            note(f"gc {temperature}", lambda copy=copy: gc(copy, Policy(keep=0)), cold=False)
            shutil.rmtree(copy)
    m = medians(figures)
    rows = []
    for what, floor, goal in (
        ("verify cold", "cat cold", ">= 0.5 x"),
        ("verify warm", "cat warm", ""),
        ("gc cold", "cat cold", ">= 0.5 x"),
        ("gc cold", "cp and sync cold", ""),
        ("gc warm", "cat cold", ">= 0.5 x"),
        ("gc warm", "cp and sync warm", ""),
        ("rebuild", "cat warm", ""),
    ):
        took, against = m[f"{what} {kind}"], m[f"{floor} {kind}"]
        cpu = f"{m[f'{what} {kind} cpu']:.2f} s CPU"
        rows.append(
            (
                f"{what}, 1 GB {kind}",
                f"{size / took / 1e6:,.0f} MB/s",
                f"{against / took:.2f} x {floor} ({size / against / 1e6:,.0f} MB/s); {cpu}",
                goal,
            )
        )
    rows.append((f"du of two commits, 1 GB {kind}", f"{m[f'du {kind}'] * 1000:.1f} ms", "", ""))
    return rows


def _segments(path: Path) -> list[Path]:
    return list((path / ".arborfs" / "segments").iterdir())


def _cat(path: Path) -> None:
    subprocess.run(["cat", *_segments(path)], check=True, stdout=subprocess.DEVNULL)


def _copy_half(path: Path) -> None:
    """Write half of the bytes of the segment files, as gc does, and wait for the disk."""
    target = path / "half"
    with target.open("wb") as into:
        for file in _segments(path):
            with file.open("rb") as source:
                left = file.stat().st_size // 2
                while left:
                    left -= os.copy_file_range(source.fileno(), into.fileno(), left)
        os.fdatasync(into.fileno())
    target.unlink()


def _verify(path: Path) -> None:
    with Engine.open(path) as engine:
        if verify(engine):
            raise SystemExit("the repository is damaged")


def _du(path: Path) -> None:
    with Engine.open(path) as engine:
        one, other = (engine.snapshot(engine.resolve(name)).record.root for name in ("main", "side"))
        overlap(engine, one, other)


def _forget(path: Path) -> None:
    """Have the kernel forget the segment files, and nothing else."""
    os.sync()
    for file in _segments(path):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime
