"""The benchmarks behind scripts/bench. Every figure is a median of several runs beside its floor in the same run.

Floors: raw LMDB, a plain file with fsync, a file system in memory on bare pyfuse3, bindfs (the C mirror file system).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from bench_api import api
from bench_common import (
    OPEN_AT_ONCE,
    REQUESTS,
    Figures,
    Row,
    bare_pyfuse3,
    bindfs,
    cpu,
    drop_caches,
    medians,
    mounted,
    quiet,
    raw_lmdb,
    repository,
    seconds,
    synced,
)
from bench_history import SIZES, history
from bench_pods import pods
from bench_posix import posix
from bench_space import space
from bench_treants import treants

from storage.dataset_writer import DatasetDataWriter

SAMPLES, SHAPE = 50_000, (784,)
FILES = 10_000
BIG = 1 << 30


def images(count: int) -> np.ndarray:
    """Images that look like handwriting: mostly zero, with smooth strokes. Always the same."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (64, *SHAPE), dtype=np.uint8)
    mask = rng.random((256, *SHAPE)) < 0.2
    return np.stack([base[i % 64] * mask[i % 256] for i in range(count)])


def ingest(work: Path, runs: int, figures: Figures) -> list[Row]:
    """50,000 arrays of 784 bytes in one batch through the API, then a commit."""
    arrays = list(images(SAMPLES))
    raw = [(f"{i}".encode(), array.tobytes()) for i, array in enumerate(arrays)]
    for _ in range(runs):
        figures.setdefault("raw LMDB puts", []).append(raw_lmdb(work / "lmdb", raw))
        repo = repository(work / "repo")
        co = repo.checkout(write=True)
        dataset = quiet(lambda co=co: co.datasets.init_dataset(name="images", prototype=arrays[0]))

        def stage(dataset: DatasetDataWriter = dataset) -> None:
            with dataset:
                for i, array in enumerate(arrays):
                    dataset.add(data=array, name=str(i))

        figures.setdefault("stage", []).append(seconds(stage))
        figures.setdefault("commit", []).append(seconds(lambda co=co: co.commit("all")))
        co.close()
        figures.setdefault("disk MB", []).append(repo.size_nbytes / 1e6)
        repo.close()
    m = medians(figures)
    rate = SAMPLES / m["stage"]
    ratio = m["stage"] / m["raw LMDB puts"]
    return [
        (
            "stage 50,000 x 784 B, API batch",
            f"{rate:,.0f} samples/s",
            f"{ratio:.2f} x raw LMDB time",
            ">= 100,000/s; <= 3 x",
        ),
        ("commit them", f"{m['commit']:.2f} s", f"{m['commit'] / m['raw LMDB puts']:.2f} x raw LMDB time", ""),
        ("on disk", f"{m['disk MB']:.1f} MB", f"{m['disk MB'] / (SAMPLES * 784 / 1e6):.2f} x raw bytes", ""),
    ]


def commit(work: Path, runs: int, figures: Figures) -> list[Row]:
    """A commit after 1 changed sample, in a dataset of 1,000 and of 100,000."""
    rng = np.random.default_rng(1)
    rows: list[Row] = []
    for count in (1_000, 100_000):
        repo = repository(work / "repo")
        co = repo.checkout(write=True)
        dataset = quiet(lambda co=co: co.datasets.init_dataset(name="images", shape=SHAPE, dtype=np.uint8))
        arrays = images(count)
        with dataset:
            for i in range(count):
                dataset.add(data=arrays[i], name=str(i))
        co.commit("all")
        for n in range(runs * 5):
            dataset[str(n * 97 % count)] = rng.integers(0, 256, SHAPE, dtype=np.uint8)
            figures.setdefault(f"commit 1 of {count}", []).append(seconds(lambda co=co: co.commit("one")))
            figures.setdefault("write and fsync 4 KiB, three times", []).append(seconds(lambda: synced(work / "plain")))
        co.close()
        repo.close()
    m = medians(figures)
    floor = m["write and fsync 4 KiB, three times"]
    for count in (1_000, 100_000):
        took = m[f"commit 1 of {count}"]
        goal = "< 20 ms" if count > 1_000 else ""
        rows.append(
            (f"commit 1 changed of {count:,}", f"{took * 1e3:.2f} ms", f"{took / floor:.1f} x three fsyncs", goal)
        )
    growth = m["commit 1 of 100000"] / m["commit 1 of 1000"]
    rows.append(("100,000 against 1,000", f"{growth:.2f} x", "", "<= 2 x"))
    return rows


def requests(work: Path, runs: int, figures: Figures) -> list[Row]:
    """CPU of the daemon for a stat, an open, and a close (flush and release), that reach it."""
    repo = repository(work / "repo")
    co = repo.checkout(write=True)
    dataset = quiet(lambda: co.datasets.init_dataset(name="files", shape=(16,), dtype=np.uint8))
    with dataset:
        for i in range(REQUESTS):
            dataset.add(data=np.full(16, i % 251, np.uint8), name=str(i))
    co.commit("all")
    co.close()
    repo.create_tag("v1")
    repo.close()
    with mounted(work / "repo", work / "m") as ours, bare_pyfuse3(work / "bare") as bare:
        for _ in range(runs):
            _request_costs("pyfuse3 alone", work / "bare" / "files", "", bare, figures)
            _request_costs("branch", work / "m" / "branches" / "main" / "files", ".npy", ours, figures)
            _request_costs("snapshot", work / "m" / "tags" / "v1" / "files", ".npy", ours, figures)
    m = medians(figures)
    rows: list[Row] = []
    for where in ("branch", "snapshot"):
        for what in ("stat", "open", "close"):
            took, floor = m[f"{what} {where}"], m[f"{what} pyfuse3 alone"]
            goal = "" if what == "close" else "<= 15 us added"
            rows.append(
                (
                    f"{what} on a {where}, CPU",
                    f"{took * 1e6:.1f} us",
                    f"{(took - floor) * 1e6:+.1f} us to pyfuse3's {floor * 1e6:.1f}",
                    goal,
                )
            )
    return rows


def _request_costs(name: str, folder: Path, suffix: str, pid: int, figures: Figures) -> None:
    drop_caches(2)
    names = [f"{folder}/{i}{suffix}" for i in range(REQUESTS)]
    before = cpu(pid)
    for path in names:
        os.stat(path)
    figures.setdefault(f"stat {name}", []).append((cpu(pid) - before) / REQUESTS)
    opening = closing = 0.0
    for first in range(0, REQUESTS, OPEN_AT_ONCE):
        before = cpu(pid)
        opened = [os.open(path, os.O_RDONLY) for path in names[first : first + OPEN_AT_ONCE]]
        between = cpu(pid)
        for descriptor in opened:
            os.close(descriptor)
        time.sleep(0.02)  # releases are not waited for by whoever closes
        opening, closing = opening + between - before, closing + cpu(pid) - between
    figures.setdefault(f"open {name}", []).append(opening / REQUESTS)
    figures.setdefault(f"close {name}", []).append(closing / REQUESTS)


def read(work: Path, runs: int, figures: Figures) -> list[Row]:
    """A file of 1 GiB read from end to end, cold and warm, beside bindfs."""
    source = work / "source"
    source.mkdir()
    with (source / "big").open("wb") as file:
        for _ in range(BIG >> 24):
            file.write(os.urandom(1 << 24))
    repository(work / "repo").close()
    with mounted(work / "repo", work / "m"):
        main = work / "m" / "branches" / "main"
        figures["copy in"] = [seconds(lambda: shutil.copyfile(source / "big", main / "big"))]
        (main / ".arborfs" / "commit").write_text("big\n")
    with mounted(work / "repo", work / "m"), bindfs(source, work / "b"):
        places = {"bindfs": work / "b" / "big", "branch": work / "m" / "branches" / "main" / "big"}
        places["snapshot"] = work / "m" / "commits" / "main" / "big"
        for _ in range(runs):
            for heat in ("cold", "warm"):
                for name, path in places.items():
                    if heat == "cold":
                        drop_caches(3)
                    else:
                        _dd(path)
                    figures.setdefault(f"{heat} {name}", []).append(_dd(path))
    m = medians(figures)
    rows: list[Row] = [("copy 1 GiB in", f"{BIG / 1e6 / m['copy in']:,.0f} MB/s", "", "")]
    for heat in ("cold", "warm"):
        for name in ("branch", "snapshot"):
            ratio = m[f"{heat} bindfs"] / m[f"{heat} {name}"]
            rate = BIG / 1e6 / m[f"{heat} {name}"]
            goal = ">= 1 x" if heat == "cold" else ""
            rows.append((f"read 1 GiB {heat}, {name}", f"{rate:,.0f} MB/s", f"{ratio:.2f} x bindfs", goal))
    return rows


def _dd(path: Path) -> float:
    return seconds(lambda: subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], check=True))


def copy(work: Path, runs: int, figures: Figures) -> list[Row]:
    """`cp -r` of 10,000 files of 1 to 16 KiB into a branch, beside bindfs and ext4 (or whatever holds the folder)."""
    rng = np.random.default_rng(2)
    source = work / "source"
    for i in range(FILES):
        folder = source / f"{i // 100:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}").write_bytes(rng.bytes(int(rng.integers(1 << 10, 1 << 14))))
    repository(work / "repo").close()
    for name in ("disk", "mirrored"):
        (work / name).mkdir()
    with mounted(work / "repo", work / "m"), bindfs(work / "mirrored", work / "b"):
        places = {"plain disk": work / "disk", "bindfs": work / "b", "branch": work / "m" / "branches" / "main"}
        for n in range(runs):
            for name, place in places.items():
                target = place / f"run-{n}"
                took = seconds(lambda target=target: subprocess.run(["cp", "-r", source, target], check=True))
                figures.setdefault(name, []).append(FILES / took)
        check = subprocess.run(["diff", "-r", source, places["branch"] / "run-0"], check=False)
        if check.returncode:
            raise SystemExit("the copies differ")
    m = medians(figures)
    return [
        (
            f"copy {FILES:,} small files, {name}",
            f"{m[name]:,.0f} files/s",
            f"{m[name] / m['bindfs']:.2f} x bindfs",
            goal,
        )
        for name, goal in (("branch", ">= 0.35 x"), ("bindfs", ""), ("plain disk", ""))
    ]


GROUPS = {"ingest": ingest, "commit": commit, "requests": requests, "read": read, "copy": copy, "posix": posix}
GROUPS |= {"space": space, "history": history, "api": api, "treants": treants, "pods": pods}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    """Run the groups asked for and print their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"some of: {' '.join(GROUPS)}")
    parser.add_argument("--json", type=Path, help="write every figure of every run to this file")
    parser.add_argument("--runs", type=int, default=5, help="runs of each figure (default 5)")
    parser.add_argument("--sizes", default=SIZES, type=_numbers, help="samples of history's datasets, as 10000,100000")
    parser.add_argument("--file-mb", type=int, default=100, help="size of the file that history keeps versions of")
    arguments = parser.parse_args()
    groups = GROUPS | {"history": partial(history, sizes=arguments.sizes, megabytes=arguments.file_mb)}
    unknown = set(arguments.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    everything: dict[str, Figures] = {}
    print(f"{'what':44}{'measured':>20}  {'against its floor':38}goal")
    for group in arguments.groups or GROUPS:
        figures: Figures = {}
        with tempfile.TemporaryDirectory(prefix="arborfs-bench-") as folder:
            rows = groups[group](Path(folder), arguments.runs, figures)
        for what, measured, ratio, goal in rows:
            print(f"{what:44}{measured:>20}  {ratio:37} {goal}", flush=True)
        everything[group] = figures
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
