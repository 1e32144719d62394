"""Bulk imports that are interrupted or killed, that show how far they are, and that are larger than their memory."""

import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

from storage import Repository
from storage.engine import Engine
from storage.maintenance.verify import verify
from tests.conftest import PATIENCE, alive, wait_until, written_to

PROGRAM = """
import re, resource, sys
from pathlib import Path
import numpy as np
from storage import Repository
from storage.bulk import run_bulk_import
from tests.unit import bulk_functions as functions

if __name__ == "__main__":
    with Repository(sys.argv[1]) as repo:
        run_bulk_import(repo, "main", {columns}, functions.{function}, {calls}, ncpus={ncpus}, autocommit=False)
    # Not ru_maxrss of its own: that counts what the test had in memory when it forked.
    own = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]
    print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def prepared(repository):
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        co.datasets.init_dataset("labels", shape=(1,), dtype=np.int64)
        co.datasets.init_dataset("pixels", shape=(512, 512), dtype=np.float64)
        co.commit("datasets")
        co.datasets["labels"]["staged"] = np.array([5])
    return repository


def program(repository, function, columns, calls, *, ncpus=2, **options):
    """A program of its own that imports."""
    script = repository.parent / "program.py"
    script.write_text(PROGRAM.format(function=function, columns=columns, calls=calls, ncpus=ncpus))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen([sys.executable, script, repository], env=environment, text=True, **options)


def state(repository):
    """What is staged on the default branch."""
    with Engine.open(repository) as engine:
        assert not verify(engine)
        return engine.working_tree("main").status()


@pytest.fixture
def signs(tmp_path):
    """Where workers leave their process ids; none of them outlives the test."""
    folder = tmp_path / "signs"
    folder.mkdir()
    yield folder
    for pid in filter(alive, workers_in(folder)):
        os.kill(pid, signal.SIGKILL)


def workers_in(signs):
    return {int(file.name.split("-")[1]) for file in signs.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_hg92_an_import_that_is_ended_leaves_the_branch_and_no_process(prepared, signs, number):
    before = state(prepared)
    calls = [{"number": each, "folder": str(signs)} for each in range(40)]
    # A session of its own: what reaches the program alone must end the others, too.
    process = program(prepared, "waiting", ["labels"], calls, stderr=subprocess.PIPE, start_new_session=True)
    try:
        workers = wait_until(lambda: found if len(found := workers_in(signs)) == 2 else None, what="two workers")
        assert process.pid not in workers
        process.send_signal(number)
        process.wait(PATIENCE)
        wait_until(lambda: not any(map(alive, workers)), what="the end of the workers")
        told = process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in told) == (number == signal.SIGINT)
    assert state(prepared) == before


def test_hg92_ctrl_c_at_a_terminal_is_told_once(prepared, signs):
    before = state(prepared)
    calls = [{"number": 0, "folder": str(signs)}, {"number": 1, "folder": ""}]
    # Three: two make the first call and wait in it, one is done and has nothing to do.
    process = program(prepared, "waiting", ["labels"], calls, ncpus=3, stderr=subprocess.PIPE, start_new_session=True)
    try:
        wait_until(lambda: len(workers_in(signs)) == 2, what="two workers")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all of its processes
        _, told = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert told.count("Traceback") == told.count("KeyboardInterrupt") == 1, told
    assert state(prepared) == before


def test_hg92_memory_stays_bounded(prepared):
    calls = [{"first": first, "count": 8} for first in range(0, 240, 8)]
    process = program(prepared, "big", ["pixels"], calls, stdout=subprocess.PIPE)
    own, worker = map(int, process.communicate(timeout=240)[0].split())
    assert process.returncode == 0
    with Repository(prepared) as repo, repo.checkout(write=True) as co:
        assert len(co.datasets["pixels"]) == 240
        assert np.array_equal(co.datasets["pixels"]["77"], np.random.default_rng(77).random((512, 512)))
    # In KiB. All together they are 480 MiB; measured were 48 and 68 MB, as for 16 MiB, most of it Python and its libraries.
    assert own < 120_000 and worker < 160_000


def test_hg92_a_terminal_gets_a_bar(prepared):
    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, (24, 100))
    calls = [{"first": first, "count": 1} for first in range(8)]
    with program(prepared, "big", ["pixels"], calls, stderr=inner, stdout=subprocess.PIPE) as process:
        os.close(inner)
        shown = written_to(outer)
        os.close(outer)
    assert process.returncode == 0 and b"/8 [" in shown and b"call/s" in shown, shown


def test_hg92_no_bar_without_a_terminal(prepared):
    calls = [{"first": first, "count": 1} for first in range(2)]
    process = program(prepared, "big", ["pixels"], calls, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate(timeout=PATIENCE * 3)[1] == "" and process.returncode == 0
