"""What is left of a POD when its process ends, in whichever way."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from storage.places import place_of
from storage.pods import POD, Tracker
from tests.pods.conftest import begun, python

FILL = """
import os, sys, time
from storage.pods import POD
pod = POD(sys.argv[1])
pod["a"] = {"x": []}
pod["a"]["x"].append(1)
"""


@pytest.mark.parametrize(
    "end, code",
    [
        ("raise ZeroDivisionError", 1),
        ("sys.exit(3)", 3),
        ("del pod", 0),
        ("pod = None; import gc; gc.collect()", 0),
        ("import threading; threading.Thread(target=lambda: pod.update(b=1)).start()", 0),
    ],
)
def test_tp_05e_whatever_ends_the_program(place, end, code):
    done = python(FILL + end, place, check=False)
    assert done.returncode == code
    assert POD(place)["a"] == {"x": [1]}


WAIT = (
    FILL
    + """
print("ready")
time.sleep(60)
"""
)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_tp_05e_signals(place, number, code):
    program = begun(WAIT, place)
    try:
        assert program.stdout.readline() == "ready\n"
        program.send_signal(number)
        program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait()
    assert program.returncode == code
    assert POD(place)["a"] == {"x": [1]}


def test_a_programs_own_handler_of_sigterm_stays(place):
    own = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FILL.lstrip()
    done = python(own + "os.kill(os.getpid(), signal.SIGTERM); print('on')", place)
    assert done.stdout == "on\n"


def fill(path: Path) -> None:
    POD(path)["child"] = 1


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_the_end_of_a_worker_process(place, method):
    pod = POD(place, init={"parent": 1})
    worker = multiprocessing.get_context(method).Process(target=fill, args=(place,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert pod["child"] == 1


def test_a_forked_process_writes_its_own_keys_and_not_its_parents(place):
    program = """
        import multiprocessing, sys
        from storage.pods import POD
        pod = POD(sys.argv[1])
        pod["parent"] = "old"
        def child():
            pod["child"] = len(pod)
        worker = multiprocessing.get_context("fork").Process(target=child)
        worker.start()
        worker.join()
        print(sorted(pod), pod["child"])
        """
    done = python(program.replace("        import", "import", 1).replace("\n        ", "\n"), place)
    assert done.stdout == "['child', 'parent'] 0\n" and done.stderr == ""
    assert POD(place).items() == [("parent", "old"), ("child", 0)]


SYNCING = """
import sys
from storage.pods import POD
pod = POD(sys.argv[1], sync_at=10**9)
for round in range(10**6):
    for number in range(300):
        pod[f"k{number}"] = {"round": round, "text": "x" * (number * 7 % 900)}
    pod.sync()
    print(round)
"""


def test_sigkill_while_syncing_leaves_a_whole_sync(place):
    """All keys are of one round, and that is the last one that was acknowledged, or the next."""
    for _ in range(3):
        program = begun(SYNCING, place)
        try:
            for _ in range(random.randrange(3, 12)):
                acknowledged = int(program.stdout.readline())
        finally:
            program.kill()
            rest, _ = program.communicate()
        acknowledged = int(rest.split("\n")[-2]) if "\n" in rest else acknowledged
        found = POD(place, mode="r").values()
        assert len(found) == 300 and {value["round"] for value in found} <= {acknowledged, acknowledged + 1}
        assert len({value["round"] for value in found}) == 1


WORK = """
import sys
from storage.pods import Tracker
tracker = Tracker(sys.argv[1], max_tries=20)
tracker.add_many_if_absent(f"task {number}" for number in range(120))
print("ready")
for key, task in tracker.try_items():
    task["results"] = task.get("results", 0) + 1
    tracker.mark_done(key)
    print(key)
"""


def test_workers_that_are_killed_at_random_and_started_again(place):
    """Every task is done; whatever was begun was counted, so that each try is a result or a kill."""
    rng, kills = random.Random(5), 0
    workers = [begun(WORK, place) for _ in range(4)]
    try:
        while kills < 5 and any(worker.poll() is None for worker in workers):
            victim = rng.randrange(4)
            for _ in range(rng.randrange(1, 6)):
                workers[victim].stdout.readline()
            if workers[victim].poll() is None:
                workers[victim].kill()
                kills += 1
            workers[victim].communicate()
            workers[victim] = begun(WORK, place)
        for worker in workers:
            _, error = worker.communicate(timeout=90)
            assert error == "" or worker.returncode == -signal.SIGKILL
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    tracker = Tracker(place)
    counts = tracker.counts()
    assert kills and counts.total == counts.done == counts.tried == 120
    for _, task in tracker._copies():
        assert 1 <= task.get("results", 1) <= task["_tries"] <= 20


def test_sync_reaches_the_disk(place, monkeypatch):
    """What `sync` wrote is behind the acknowledged end that is known to be synced."""
    pod = POD(place, init={"a": 1})
    synced = []
    real = os.fdatasync
    monkeypatch.setattr("storage.disk.files.os.fdatasync", lambda fd: synced.append(real(fd)))
    pod.sync()
    assert synced
    synced.clear()
    pod["b"] = 1
    pod.sync_key("b")
    assert not synced and place_of(place).files.exists(f"{place_of(place).path}/b.json")
