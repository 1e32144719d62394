"""Databases and scientific files that stay open while a commit is made, or that two want to write."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import h5py
import pytest

ROWS = 500


def fill(connection: sqlite3.Connection, first: int) -> None:
    with connection:
        rows = ((number, f"value {number}" * 20) for number in range(first, first + ROWS))
        connection.executemany("INSERT INTO t (number, text) VALUES (?, ?)", rows)


def check(connection: sqlite3.Connection, rows: int) -> None:
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*), min(number), max(number) FROM t").fetchone() == (rows, 0, rows - 1)


def read_copy(folder: Path, copy: Path) -> sqlite3.Connection:
    """Open what a commit holds: a copy, for a journal may have to be played back into it."""
    copy.mkdir()
    for path in folder.glob("database*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, copy)
    return sqlite3.connect(copy / "database")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_is_whole_in_a_commit_made_under_an_open_connection(home, tmp_path, mode):
    with closing(sqlite3.connect(home.path / "database")) as connection:
        assert connection.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
        connection.execute("CREATE TABLE t (number INTEGER PRIMARY KEY, text TEXT)")
        fill(connection, 0)
        first = home.commit("idle and open")
        check(connection, ROWS)
        fill(connection, ROWS)
        second = home.commit("and once more")
        check(connection, 2 * ROWS)
    for number, commit in enumerate([first, second], 1):
        with closing(read_copy(commit, tmp_path / f"copy{number}")) as connection:
            check(connection, number * ROWS)
        if mode == "delete":
            with closing(sqlite3.connect(f"file:{commit / 'database'}?mode=ro", uri=True)) as connection:
                check(connection, number * ROWS)


SECOND = """
import sys, h5py
try:
    with h5py.File(sys.argv[1], sys.argv[2]) as file:
        print("opened", sorted(file))
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def second(path: Path, mode: str) -> str:
    """What another process is told that opens an HDF5 file."""
    command = [sys.executable, "-c", SECOND, str(path), mode]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_a_second_writer_of_an_hdf5_file_is_refused(place):
    path = place / "data.h5"
    with h5py.File(path, "w") as file:
        file["first"] = range(1000)
        file.flush()
        assert second(path, "r+") == "BlockingIOError 11"
        assert second(path, "r") == "BlockingIOError 11"
        file["more"] = range(1000)
    assert second(path, "r+") == "opened ['first', 'more']"
    with h5py.File(path, "r"):
        assert second(path, "r") == "opened ['first', 'more']"
        assert second(path, "r+") == "BlockingIOError 11"
