"""gc beside a mount that reads an old commit, and writers in the mount and beside it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource
from tests.conftest import arborfs, wait_until


def collect(repository: Path, *options: str) -> dict:
    return json.loads(arborfs("-C", repository, "gc", "--json", "--keep", "0", *options).stdout)


def test_an_old_snapshot_stays_whole_while_it_is_read_and_goes_when_it_is_not(mounted, repository):
    data = {f"f{number}": os.urandom(300_000) for number in range(8)}
    with Engine.open(repository) as engine:
        engine.working_tree("main").put_file((b"kept",), BytesSource(os.urandom(200_000)))
        engine.working_tree("main").commit("kept")
        engine.create_branch("side")
        for name, contents in data.items():
            engine.working_tree("side").put_file((name.encode(),), BytesSource(contents))
        digest = engine.working_tree("side").commit("lost")
    mount = mounted(repository)
    old = mount.path / "commits" / digest.hex()
    stop = threading.Event()
    wrong: list[object] = []

    def write() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                contents = os.urandom(100_000)
                (mount.main / f"w{number % 5}").write_bytes(contents)
                assert (mount.main / f"w{number % 5}").read_bytes() == contents
                if number % 4 == 0:
                    (mount.main / ".arborfs" / "commit").write_text(f"number {number}")
        except (OSError, AssertionError) as error:  # for the test's own thread to tell
            wrong.append(error)

    with open(old / "f0", "rb", buffering=0) as reader:
        first = reader.read(100_000)
        with Engine.open(repository) as engine:
            engine.remove_branch("side", force=True)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(4):
                done = collect(repository, "--grace", "0")
                assert done["commits"] == [] and done["pins"] == 1
            assert first + reader.read() == data["f0"]
            assert {name: (old / name).read_bytes() for name in data} == data
        finally:
            stop.set()
            writer.join()
    assert not wrong
    with Engine.open(repository) as engine:
        assert verify(engine) == []
    mount.unmount()
    assert collect(repository)["commits"] == [digest.hex()]
    with Engine.open(repository) as engine:
        assert verify(engine) == []
        assert digest not in engine.commits()


def test_a_mount_closes_the_files_that_gc_deleted(mounted, repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"kept",), BytesSource(b"kept" * 100_000))
        tree.put_file((b"gone",), BytesSource(os.urandom(2_000_000)))
        tree.remove((b"gone",))
        tree.commit("one")
    mount = mounted(repository)
    assert (mount.main / "kept").read_bytes() == b"kept" * 100_000
    descriptors = Path(f"/proc/{mount.pid}/fd")

    def deleted() -> list[str]:
        links = []
        for link in descriptors.iterdir():
            try:
                links.append(os.readlink(link))
            except FileNotFoundError:
                continue
        return [link for link in links if ".log (deleted)" in link]

    assert collect(repository, "--grace", "0")["freed"] > 2_000_000
    wait_until(lambda: not deleted(), what="the daemon to close deleted files")
    assert (mount.main / "kept").read_bytes() == b"kept" * 100_000


@pytest.mark.parametrize("replaced", ["staged", "removed"])
def test_a_file_open_in_a_branch_reads_on_after_gc(mounted, repository, replaced):
    """What it held is in no commit and staged no more, but the open handle leads there."""
    mount = mounted(repository)
    data = os.urandom(150_000_000)  # more than daemon and readahead keep in memory
    (mount.main / "f").write_bytes(data)
    arborfs("umount", mount.path)
    mount = mounted(repository)
    with open(mount.main / "f", "rb", buffering=0) as reader:
        assert reader.read(1000) == data[:1000]
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with Engine.open(repository) as engine:
            tree = engine.working_tree("main")
            if replaced == "staged":
                tree.put_file((b"f",), BytesSource(os.urandom(100_000)))
            else:
                tree.remove((b"f",))
            assert collect(repository)["waiting"]["objects"] >= 1
            wait_until(lambda: collect(repository, "--dry-run")["pins"] >= 5, what="the daemon to pin what it reads")
            assert collect(repository, "--grace", "0")["waiting"]["objects"] == 0
            assert verify(engine) == []
        assert reader.read() == data[1000:]
    arborfs("umount", mount.path)
    assert collect(repository)["deleted"]["bytes"] > 140_000_000
