"""PODs and trackers: keys set, a POD of a million keys opened, tasks begun by four processes.

Floors, in the same run: raw LMDB with the same bytes in one transaction, a POD without keys, and LMDB transactions by
four processes, each of which adds one to a number.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
from bench_common import Figures, Row, medians, raw_lmdb, seconds

from storage.places import let_go
from storage.pods import POD, Tracker

SETS = 200_000
MANY = 1_000_000
TASKS, WORKERS = 5_000, 4

OPEN = """
import json, resource, sys, time
from storage.pods import POD
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
pod = POD(sys.argv[1])
took = time.perf_counter() - start
value = pod.get("k17")
print(json.dumps([took, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, value]))
"""

TRY = """
import json, sys, time
from storage.pods import Tracker
tracker = Tracker(sys.argv[1], max_tries=1)
print("ready", flush=True)
sys.stdin.readline()
cpu = time.process_time()
begun = sum(tracker.try_it(f"k{number}") for number in range(int(sys.argv[2])))
print(json.dumps([begun, time.process_time() - cpu]))
"""

COUNT = """
import json, sys, time
import lmdb
environment = lmdb.open(sys.argv[1], map_size=1 << 30, sync=False)
print("ready", flush=True)
sys.stdin.readline()
cpu = time.process_time()
for number in range(int(sys.argv[2])):
    with environment.begin(write=True) as txn:
        key = str(number).encode()
        txn.put(key, str(int(txn.get(key) or b"0") + 1).encode())
print(json.dumps([0, time.process_time() - cpu]))
"""


def pods(work: Path, runs: int, figures: Figures) -> list[Row]:
    """200,000 keys set; a million; 5,000 tasks for each of four processes to try."""
    raw = [(f"k{number}.json".encode(), json.dumps({"n": number}).encode()) for number in range(SETS)]
    for run in range(runs):
        figures.setdefault("raw LMDB", []).append(raw_lmdb(work / "lmdb", raw))
        with POD(work / f"sets{run}") as pod:
            figures.setdefault("sets", []).append(seconds(lambda pod=pod: _fill(pod, SETS)))
            figures.setdefault("again", []).append(seconds(lambda pod=pod: _fill(pod, SETS)))
        _tries(work / f"tasks{run}", figures)
        let_go()
        shutil.rmtree(work / f"sets{run}")
    with POD(work / "many") as pod:
        _fill(pod, MANY)
    POD(work / "none").close()
    let_go()
    for _ in range(runs):
        for name in ("many", "none"):
            done = subprocess.run([sys.executable, "-c", OPEN, work / name], check=True, capture_output=True, text=True)
            took, memory, _ = json.loads(done.stdout)
            figures.setdefault(f"open {name}", []).append(took)
            figures.setdefault(f"memory {name}", []).append(memory)
    return _rows(medians(figures))


def _fill(pod: POD, count: int) -> None:
    for number in range(count):
        pod[f"k{number}"] = {"n": number}
    pod.sync()


def _tries(path: Path, figures: Figures) -> None:
    with Tracker(path) as tracker:
        tracker.add_many(f"k{number}" for number in range(TASKS))
    took, begun, cpu = _together(TRY, path)
    if begun != TASKS or Tracker(path, mode="r").counts().tries != TASKS:
        raise SystemExit(f"{begun} of {TASKS} tasks were begun")
    figures.setdefault("tries", []).append(took)
    figures.setdefault("tries, CPU", []).append(cpu)
    lmdb.open(str(path / "lmdb"), map_size=1 << 30).close()
    took, _, _ = _together(COUNT, path / "lmdb")
    figures.setdefault("LMDB transactions", []).append(took)


def _together(program: str, path: Path) -> tuple[float, int, float]:
    """Run a program in each worker; seconds from when all are ready to the last one's end, their sums, CPU seconds."""
    command = [sys.executable, "-c", program, str(path), str(TASKS)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)
    ]
    found: list[list[float]] = []

    def work() -> None:
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        found.extend(json.loads(worker.stdout.readline()) for worker in workers)

    for worker in workers:
        worker.stdout.readline()
    took = seconds(work)
    for worker in workers:
        worker.communicate()
    return took, int(sum(each[0] for each in found)), sum(each[1] for each in found)


def _rows(m: dict[str, float]) -> list[Row]:
    calls = TASKS * WORKERS
    return [
        ("set new keys of a POD", f"{SETS / m['sets']:,.0f}/s", f"{m['sets'] / m['raw LMDB']:.2f} x raw LMDB time",
         ">= 200,000/s"),
        ("set them again", f"{SETS / m['again']:,.0f}/s", f"{m['again'] / m['raw LMDB']:.2f} x raw LMDB time", ""),
        (f"open a POD of {MANY:,} keys", f"{m['open many'] * 1e3:.1f} ms",
         f"{m['open many'] / m['open none']:.2f} x one without keys", "<= 0.1 s"),
        ("memory for that", f"{m['memory many']:.1f} MB", f"{m['memory none']:.1f} MB without keys", "not all"),
        (f"try_it, {WORKERS} processes", f"{calls / m['tries']:,.0f}/s",
         f"{m['tries'] / m['LMDB transactions']:.2f} x as many LMDB changes", ">= 10,000/s"),
        ("its CPU", f"{m['tries, CPU'] / calls * 1e6:.0f} us", "", ""),
    ]  # fmt: skip
