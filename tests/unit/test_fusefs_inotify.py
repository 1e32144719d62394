"""Being woken by writes to a file."""

from __future__ import annotations

import os
import select

from fusefs.inotify import drain, watching


def is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_every_write_rings_once_it_was_drained(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"before")
    bell = watching(path)
    assert bell is not None
    assert not is_readable(bell)
    with path.open("r+b", buffering=0) as file:
        for _ in range(3):
            file.write(b"x")
            assert is_readable(bell)
            drain(bell)
            assert not is_readable(bell)
        for _ in range(100_000):
            os.pwrite(file.fileno(), b"y", 0)
    drain(bell)
    assert not is_readable(bell)
    os.close(bell)


def test_nothing_to_watch(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    assert watching(tmp_path / "missing") is None
    assert len(os.listdir("/proc/self/fd")) == before
