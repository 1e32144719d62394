"""The index is derived from the segments: lost, cut short, overwritten or replaced by an older copy, it is made anew."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.disk.index import Txn
from storage.disk.segments import Record, SegmentKind
from storage.engine import Engine
from storage.maintenance.verify import verify
from storage.model.records import Place
from storage.model.samples import BytesSource


def filled(path: Path) -> None:
    """Two commits and staged work; beside it a copy of the index from before the second commit."""
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        for number in range(200):
            tree.put_file((b"%d" % number,), BytesSource(b"%d" % number * 50))
        tree.put_file((b"large",), BytesSource(b"0123456789" * 50_000))
        tree.commit("first")
    shutil.copytree(path / ".arborfs" / "index", path.parent / "older")
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"7",), BytesSource(b"seven"))
        tree.commit("second")
        tree.put_file((b"8",), BytesSource(b"eight, staged"))
        tree.remove((b"9",))
        engine.create_tag("v1", engine.branches()["main"])


def cut(index: Path, size: int) -> None:
    os.truncate(index / "data.mdb", size)


def older(index: Path) -> None:
    shutil.rmtree(index)
    shutil.copytree(index.parent.parent.parent / "older", index)


def emptied(index: Path) -> None:
    for path in index.iterdir():
        path.unlink()


def garbled(index: Path) -> None:
    (index / "data.mdb").write_bytes(os.urandom((index / "data.mdb").stat().st_size))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "emptied": emptied,
    "without its data": lambda index: (index / "data.mdb").unlink(),
    "cut to nothing": lambda index: cut(index, 0),
    "cut in its first page": lambda index: cut(index, 1000),
    "cut behind its first pages": lambda index: cut(index, 8192),
    "cut in half": lambda index: cut(index, (index / "data.mdb").stat().st_size // 8192 * 4096),
    "cut by a page": lambda index: cut(index, (index / "data.mdb").stat().st_size - 4096),
    "all zeros": lambda index: (index / "data.mdb").write_bytes(bytes((index / "data.mdb").stat().st_size)),
    "garbage": garbled,
    "an older copy": older,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_it_is_noticed_and_made_anew(repository, damage):
    filled(repository)
    damage(repository / ".arborfs" / "index")
    with Engine.open(repository) as engine:
        assert engine.rebuilt
        tree = engine.working_tree("main")
        assert bytes(tree.open((b"7",))[1].read(0, 100)) == b"seven"
        assert bytes(tree.open((b"8",))[1].read(0, 100)) == b"eight, staged"
        assert tree.open((b"large",))[1].size == 500_000
        assert len(list(tree.entries(()))) == 200
        assert [commit.message for _, commit in engine.log(engine.branches()["main"])] == ["second", "first"]
        assert engine.tags().keys() == {"v1"}
        assert verify(engine) == []


def test_a_sound_index_is_not_made_anew(repository):
    filled(repository)
    for _ in range(3):
        with Engine.open(repository) as engine:
            assert not engine.rebuilt
            engine.working_tree("main").put_file((b"more",), BytesSource(b"x"))
    with Engine.open(repository) as engine:
        engine.working_tree("main").commit("third")
    with Engine.open(repository) as engine:
        assert not engine.rebuilt


def test_a_copy_made_while_it_was_open_is_not_believed_later(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"a",), BytesSource(b"first"))
        shutil.copytree(repository / ".arborfs" / "index", repository / "copy")
        tree.put_file((b"a",), BytesSource(b"second"))
        tree.put_file((b"b",), BytesSource(b"x" * 100_000))
        engine.sync()
    shutil.rmtree(repository / ".arborfs" / "index")
    shutil.move(repository / "copy", repository / ".arborfs" / "index")
    with Engine.open(repository) as engine:
        assert engine.rebuilt is not None
        tree = engine.working_tree("main")
        assert bytes(tree.open((b"a",))[1].read(0, 10)) == b"second"
        assert tree.open((b"b",))[1].size == 100_000


def test_what_a_killed_process_never_acknowledged_does_not_come_up_later(repository):
    """Written to its journal, and killed before the index had it: others saw that it was not done."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"x",), BytesSource(b"there"))
        pid = os.fork()
        if pid == 0:
            with Engine.open(repository) as own:
                append = own._log.append

                def killed(txn: Txn, kind: SegmentKind, record: Record) -> Place:
                    append(txn, kind, record)
                    os.kill(os.getpid(), signal.SIGKILL)
                    raise AssertionError

                own._log.append = killed  # type: ignore[method-assign]
                own.working_tree("main").remove((b"x",))
        os.waitpid(pid, 0)
        assert tree.entry((b"x",)).size == 5
    for _ in range(2):
        with Engine.open(repository) as engine:
            assert engine.working_tree("main").entry((b"x",)).size == 5
        shutil.rmtree(repository / ".arborfs" / "index")


OPENED_WHILE_WRITTEN = """
import sys, threading
from pathlib import Path
from storage.disk.index import Index
folder = Path(sys.argv[1])
index, done = Index(folder), threading.Event()
def write():
    while not done.is_set():
        with index.write() as txn:
            txn.put(b"k", b"v", db=index.meta)
writers = [threading.Thread(target=write) for _ in range(2)]
for writer in writers:
    writer.start()
for _ in range(500):
    Index(folder).close()
done.set()
"""


def test_an_index_is_opened_once_more_while_other_threads_change_it(tmp_path):
    command = [sys.executable, "-c", OPENED_WHILE_WRITTEN, str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
