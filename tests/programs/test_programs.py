"""Programs that were never written for a mount, each in a folder of the disk and in a branch: both must come out alike."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing

import h5py
import numpy as np
import pytest

from tests.programs.running import run, tree

WRITER = """
import sqlite3, sys
path, mode, who = sys.argv[1:]
with sqlite3.connect(path, timeout=60, isolation_level=None) as connection:
    connection.execute(f"PRAGMA journal_mode = {mode}")
    for number in range(100):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t (who, number) VALUES (?, ?)", (who, number))
        connection.execute("COMMIT")
"""


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_sqlite_with_two_writers(place, mode):
    path = place / "database"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, who TEXT, number INTEGER)")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, mode, who]) for who in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counted = connection.execute("SELECT who, count(*), sum(number) FROM t GROUP BY who ORDER BY who").fetchall()
        assert counted == [("a", 100, 4950), ("b", 100, 4950)]


def test_rsync_twice(place, sources):
    again = ["rsync", "-a", "--delete", "--itemize-changes", f"{sources}/", place / "copy"]
    run("rsync", "-a", "--delete", f"{sources}/", place / "copy")
    assert run(*again) == ""
    (sources / "engine.py").write_text("changed")
    (sources / "errors.py").unlink()
    (sources / "fresh").write_text("new")
    (sources / "tree" / "node.py").chmod(0o600)
    os.utime(sources / "tree" / "edit.py", (1, 1))
    wanted = [
        "*deleting   errors.py",
        ".d..t...... ./",
        ">f.st...... engine.py",
        ">f+++++++++ fresh",
        ">f..t...... tree/edit.py",
        ".f...p..... tree/node.py",
    ]
    assert run(*again, "--dry-run").splitlines() == wanted
    assert run(*again).splitlines() == wanted
    run("diff", "-r", sources, place / "copy")
    assert tree(sources) == tree(place / "copy")
    assert run(*again) == ""


def test_pip_installs_into_it(place, tmp_path):
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/__init__.py", "VALUE = 42\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny-1.0.dist-info/RECORD", "tiny/__init__.py,,\ntiny-1.0.dist-info/METADATA,,\n")
    target = place / "site"
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--disable-pip-version-check",
        "--target",
        target,
        wheel,
    )
    assert run(
        sys.executable, "-c", "import tiny; print(tiny.VALUE, tiny.__file__)", PYTHONPATH=str(target)
    ).split() == [
        "42",
        str(target / "tiny" / "__init__.py"),
    ]
    run(sys.executable, "-m", "compileall", "-q", target)
    assert list((target / "tiny" / "__pycache__").glob("*.pyc"))


def test_an_editor_saves(place):
    """Write a temporary file, sync it, rename it over, sync the folder; and the way with a backup name."""
    path = place / "text"
    for version in range(5):
        temporary = place / f".text.{version}"
        with temporary.open("w") as file:
            file.write(f"version {version}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
        assert path.read_text() == f"version {version}\n"
    path.rename(place / "text~")
    path.write_text("after\n")
    (place / "text~").unlink()
    path.write_text("c\nafter\nb\n")
    run("sed", "-i", "s/after/a/", path)
    run("sort", "-o", path, path)
    assert os.listdir(place) == ["text"]
    assert path.read_text() == "a\nb\nc\n"


def test_hdf5_files_grow_in_place(place):
    path = place / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("numbers", (0, 8), dtype="f4", maxshape=(None, 8), chunks=(64, 8), compression="gzip")
        file["numbers"].attrs["unit"] = "mm"
    rows = np.arange(8 * 1000, dtype="f4").reshape(1000, 8)
    for first in range(0, 1000, 100):
        with h5py.File(path, "r+") as file:
            numbers = file["numbers"]
            numbers.resize(first + 100, axis=0)
            numbers[first:] = rows[first : first + 100]
            file.flush()
    with h5py.File(path) as file:
        assert np.array_equal(file["numbers"][:], rows)
        assert file["numbers"].attrs["unit"] == "mm"


def test_numpy_maps_files_to_write(place):
    path = place / "array.npy"
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype="<i8", shape=(1000, 100))
    mapped[:] = 7
    mapped.flush()
    del mapped
    mapped = np.load(path, mmap_mode="r+")
    mapped[500] = np.arange(100)
    mapped.flush()
    del mapped
    found = np.load(path)
    assert found[499].tolist() == [7] * 100
    assert found[500].tolist() == list(range(100))


def test_make_goes_by_times(place):
    (place / "Makefile").write_text("all: out\nout: in\n\tcp in out\n\techo built >> log\n")
    (place / "in").write_text("one")
    run("make", cwd=place)
    assert "Nothing to be done" in run("make", cwd=place)
    later = time.time_ns() + 10**9
    os.utime(place / "in", ns=(later, later))
    run("make", cwd=place)
    assert (place / "log").read_text() == "built\nbuilt\n"


def test_find_du_and_df(place):
    (place / "old").write_bytes(bytes(100_000))
    (place / "mark").touch()
    (place / "new").write_bytes(bytes(50_000))
    for number, name in enumerate(["old", "mark", "new"]):
        when = 10**18 + number * 10**6
        os.utime(place / name, ns=(when, when))
    assert run("find", place, "-type", "f", "-newer", place / "mark") == f"{place / 'new'}\n"
    assert run("find", place, "-size", "+60k") == f"{place / 'old'}\n"
    assert 140 <= int(run("du", "-k", "-s", place).split()[0]) <= 170
    size, used, free = (int(word) for word in run("df", "-k", "--output=size,used,avail", place).split()[-3:])
    assert size > 0
    assert used + free <= size


def test_small_tools_write_in_place(place):
    path = place / "file"
    path.write_bytes(bytes(range(256)) * 100)
    run("dd", "if=/dev/zero", f"of={path}", "bs=100", "seek=3", "count=2", "conv=notrunc", "status=none")
    run("truncate", "-s", "+1000", path)
    run("split", "-b", "7000", path, place / "part.")
    joined = b"".join(part.read_bytes() for part in sorted(place.glob("part.*")))
    expected = bytearray(bytes(range(256)) * 100 + bytes(1000))
    expected[300:500] = bytes(200)
    assert joined == path.read_bytes() == bytes(expected)
    run("gzip", "-k", path)
    run("install", "-m", "755", f"{path}.gz", place / "installed")
    assert (
        hashlib.sha256((place / "installed").read_bytes()).digest()
        == hashlib.sha256((place / "file.gz").read_bytes()).digest()
    )
    assert (place / "installed").stat().st_mode & 0o777 == 0o755
    run("gzip", "-t", place / "file.gz")
