"""Imports that are interrupted or killed, and imports larger than the memory they may take."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import zipfile

import h5py
import numpy as np
import pytest

from storage import Repository
from storage.engine import Engine
from storage.model.samples import BytesSource
from tests.conftest import arborfs, wait_until, written_to
from tests.faults.test_bulk import state


@pytest.fixture
def big(tmp_path):
    """A file that takes seconds to import."""
    np.save(tmp_path / "big.npy", np.random.default_rng(4).random((250_000, 40)))
    return tmp_path / "big.npy"


def under_way(repository, *words):
    """An import by the command line in a process of its own that has begun to store."""
    size = sum(file.stat().st_size for file in (repository / ".arborfs" / "segments").iterdir())
    command = [sys.executable, "-m", "fusefs.cli", "-C", repository, "import", *words]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)

    def stored():
        assert process.poll() is None, process.stderr.read()
        return sum(f.stat().st_size for f in (repository / ".arborfs" / "segments").iterdir()) > size + 10_000_000

    wait_until(stored, what="the import to store something")
    return process


@pytest.mark.parametrize("into", ["new", "old"])
def test_ctrl_c_in_the_middle_leaves_the_branch_as_it_was(repository, big, into):
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        co.datasets.init_dataset("old", shape=(40,), dtype=np.float64)["staged"] = np.ones(40)
    before = state(repository)
    process = under_way(repository, big, into, "--by", "row")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and told == "Interrupted: nothing was staged.\n"
    assert state(repository) == before
    arborfs("-C", repository, "import", "-q", big, into, "--by", "row", timeout=120)
    assert len(state(repository)) > 0


@pytest.mark.parametrize("after", [0.0, 0.5])
def test_a_kill_in_the_middle_leaves_the_branch_as_it_was(repository, big, after):
    engine = Engine.open(repository)
    engine.working_tree("main").put_file((b"note",), BytesSource(b"staged"))
    engine.close()
    before = state(repository)
    process = under_way(repository, big, "x", "--by", "row")
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        pass
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert state(repository) == before


def test_ctrl_c_in_an_export_leaves_nothing(repository, big, tmp_path):
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        co.import_files(big, dataset="x", by="row")
        co.commit("big")
    target = tmp_path / "out" / "x.csv"
    target.parent.mkdir()
    command = [sys.executable, "-m", "fusefs.cli", "-C", repository, "export", ":x", target]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list(target.parent.iterdir()), what="the export to begin")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and "is as it was" in told
    assert not list(target.parent.iterdir())


def test_a_terminal_gets_a_bar_with_rate_and_time_left(repository, big):
    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, (24, 100))
    command = [sys.executable, "-m", "fusefs.cli", "-C", repository, "import", big, "x", "--by", "row"]
    with subprocess.Popen(list(map(str, command)), stderr=inner, stdout=subprocess.PIPE, text=True) as process:
        os.close(inner)
        shown = written_to(outer)
        os.close(outer)
        assert process.stdout.read() == "Staged 250,000 samples in x on branch main.\n"
    assert re.search(rb"\d+%\|.*?B/s", shown) and re.search(rb"\d\d:\d\d<\d\d:\d\d", shown), shown[-500:]


MEASURE = """
import resource, sys
from storage import Repository
repo = Repository(sys.argv[1])
co = repo.checkout(write=True)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
{before}
start = peak()
{work}
print(peak() - start)
"""


def growth(repository, work, *arguments, before=""):
    """How much memory the work takes at its peak, beyond what a small one took before it."""
    script = MEASURE.format(before=before, work=work)
    command = [sys.executable, "-c", script, repository, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, timeout=250)
    return int(done.stdout.splitlines()[-1])


BOUND = 150_000_000
"""The cache of nodes (64 MB) and what is under way: far below the inputs."""


def h5_file(path, count):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (count, 4, 100), "f4", chunks=(64, 4, 100))
        for first in range(0, count, 10_000):
            data[first : first + 10_000] = np.random.default_rng(first).random((min(10_000, count - first), 4, 100))
    return path


def test_memory_stays_bounded_with_an_hdf5_file_of_any_size(repository, tmp_path):
    small, large = h5_file(tmp_path / "small.h5", 100), h5_file(tmp_path / "large.h5", 160_000)
    assert large.stat().st_size > 250_000_000
    work = "co.import_files(sys.argv[3], dataset='x')"
    grown = growth(repository, work, small, large, before="co.import_files(sys.argv[2], dataset='s')")
    assert grown < BOUND, f"{grown / 1e6:.0f} MB"
    work = "co.export('x', sys.argv[3])"
    grown = growth(repository, work, tmp_path / "s.h5", tmp_path / "l.h5", before="co.export('s', sys.argv[2])")
    assert grown < BOUND, f"{grown / 1e6:.0f} MB"


def test_memory_and_disk_stay_bounded_with_an_archive_that_unpacks_to_gigabytes(repository, tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros.npy", "w", force_zip64=True) as out,
    ):
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (1_000_000_000,)})
        for _ in range(100):
            out.write(bytes(10_000_000))
    np.savez(tmp_path / "small.npz", x=np.zeros(10, np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 3_000_000
    work = "co.import_files(sys.argv[3], dataset='x')"
    before = "co.import_files(sys.argv[2], dataset='s')"
    grown = growth(repository, work, tmp_path / "small.npz", tmp_path / "bomb.npz", before=before)
    assert grown < BOUND, f"{grown / 1e6:.0f} MB"
    assert sum(file.stat().st_blocks * 512 for file in repository.rglob("*") if file.is_file()) < 100_000_000
