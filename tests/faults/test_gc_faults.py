"""gc cut short at every step, by kill -9 or by a power loss: nothing that something leads to is lost."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.formats.base import File
from storage.importing import import_items
from storage.maintenance.gc import Policy, gc
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource
from storage.snapshot import Snapshot
from storage.stores.merging import Outcome
from storage.working import WorkingReader
from storage.worktree import WorkingTree
from tests.conftest import ADA
from tests.faults.power import MOODS, materialised, rebooted, recorded

AT_ONCE = Policy(keep=0, grace=0)

# Runs in a process of its own: the k-th call that changes a file or the index ends it, before or after it has taken effect.
CUT = """
    import os, sys
    from contextlib import contextmanager
    from storage.disk import files
    from storage.disk.index import Index
    from storage.maintenance.gc import Policy, gc

    path, step, late = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "late"
    calls = 0

    def counted():
        global calls
        calls += 1
        return calls == step

    def cut(name):
        real = getattr(files, name)
        def wrapped(*args):
            if counted():
                if late:
                    real(*args)
                elif name == "append":
                    fd, parts, offset = args
                    data = b"".join(parts)
                    os.pwrite(fd, data[: len(data) // 2], offset)
                os._exit(9)
            return real(*args)
        setattr(files, name, wrapped)

    real_write = Index.write

    @contextmanager
    def write(self):
        last = counted()
        with real_write(self) as txn:
            yield txn
            if last and not late:
                os._exit(9)
        if last:
            os._exit(9)

    for name in ("append", "sync", "sync_directory", "create", "replace", "truncate", "remove"):
        cut(name)
    Index.write = write
    gc(path, Policy(keep=0, grace=0))
    os._exit(0)
"""


def contents(tree: Snapshot | WorkingReader, path: tuple[bytes, ...] = ()) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
    for name, entry in tree.entries(path):
        if entry.is_directory:
            yield from contents(tree, (*path, name))
        else:
            content = tree.open((*path, name))[1]
            yield (*path, name), bytes(content.read(0, content.size))


def picture(path: Path) -> dict:
    """Everything that refs and staged work lead to; verified."""
    with Engine.open(path) as engine:
        assert verify(engine) == []
        seen: dict = {"tags": engine.tags(), "operations": [o.description for o in engine.operations()]}
        for name, tip in engine.branches().items():
            seen[name] = dict(contents(engine.working_tree(name)))
            if tip is not None:
                seen[name, "log"] = {digest: dict(contents(engine.snapshot(digest))) for digest, _ in engine.log(tip)}
        return seen


def prepared(path: Path, rng: random.Random) -> None:
    """Live and dead objects in the same segments, staged work over a removed branch, chunks that nothing needs."""
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"large",), BytesSource(rng.randbytes(700_000)))
        for number in range(30):
            tree.put_file((b"%d" % number,), BytesSource(rng.randbytes(200 * number)))
        tree.commit("first")
        engine.create_branch("side")
        side = engine.working_tree("side")
        side.put_file((b"lost",), BytesSource(rng.randbytes(900_000)))
        side.commit("lost")
        engine.create_branch("left", engine.branches()["side"])
        engine.working_tree("left").put_file((b"more",), BytesSource(rng.randbytes(100)))
        engine.remove_branch("side", force=True)
        engine.remove_branch("left", force=True)
        tree.put_file((b"large",), BytesSource(rng.randbytes(300_000)))
        tree.commit("second")
        tree.make_directory((b"d",))
        tree.put_file((b"d", b"staged"), BytesSource(rng.randbytes(400_000)))
        tree.put_file((b"d", b"staged"), BytesSource(rng.randbytes(200_000)))
        tree.put_file((b"d", b"short"), BytesSource(rng.randbytes(20_000)))
        tree.remove((b"7",))
        # Only the later version needs what is stored of the earlier one.
        earlier = rng.randbytes(250_000)
        tree.put_file((b"delta",), BytesSource(earlier))
        tree.put_file((b"delta",), BytesSource(earlier[:1000] + b"changed" + earlier[1000:]))
        assert tree.objects.delta(tree.open((b"delta",))[1].chunks[0].digest) is not None
        plant(tree, rng)
        taken_back(engine, rng)


def plant(tree: WorkingTree, rng: random.Random) -> None:
    """A directory that is one staged row."""
    items = [File((b"%d" % number,), BytesSource(rng.randbytes(9000)), "", 1) for number in range(3)]
    import_items(tree, items, "planted")


def taken_back(engine: Engine, rng: random.Random) -> None:
    """A commit taken back, whose tree the working tree lies over; a merge under way whose other side has no branch."""
    start = engine.branches()["main"]
    tips = {}
    for name in ("soft", "ours", "theirs"):
        engine.create_branch(name)
        tree = engine.working_tree(name)
        tree.put_file((b"0",), BytesSource(rng.randbytes(30_000)))
        tree.put_file((b"of " + name.encode(),), BytesSource(rng.randbytes(100_000)))
        tips[name] = tree.commit(name)
    engine.reset_soft("soft", start)
    done = engine.merging("ours").merge(tips["theirs"], leave_open=True)
    assert done.outcome is Outcome.UNDER_WAY
    engine.remove_branch("theirs", force=True)


@pytest.mark.parametrize("moment, index", [("early", "kept"), ("late", "kept"), ("late", "deleted")])
def test_killed_at_every_step(repository, tmp_path, moment, index):
    prepared(repository, random.Random(1))
    before = picture(repository)
    size = disk_size(repository)
    for step in count(1):
        attempt = tmp_path / f"cut-{step}"
        shutil.copytree(repository, attempt)
        code = textwrap.dedent(CUT)
        ended = subprocess.run([sys.executable, "-c", code, attempt, str(step), moment], timeout=60, check=False)
        assert ended.returncode in (0, 9)
        if index == "deleted":
            shutil.rmtree(attempt / ".arborfs" / "index")
        assert picture(attempt) == before, f"cut at step {step}"
        gc(attempt, AT_ONCE)
        assert picture(attempt) == before, f"gc after a cut at step {step}"
        assert disk_size(attempt) <= size - 1_000_000, f"gc after a cut at step {step}"
        if ended.returncode == 0:
            break
        shutil.rmtree(attempt)
    assert step > 20


def disk_size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path / ".arborfs" / "segments").iterdir())


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: many repositories are opened, and nothing here depends on the disk."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place, prefix="arborfs-power-") as name:
        yield Path(name)


@pytest.mark.parametrize("seed", [int(os.environ.get("POWER_SEED", "1")), 2])
@pytest.mark.parametrize("others", [False, True])
def test_a_power_loss_at_every_step(memory, seed, others):
    """What was staged and not synced may be lost, as ever; what was synced is there, over which state it may be."""
    rng = random.Random(seed)
    disk_folder = memory / "disk"
    disk_folder.mkdir()
    original = disk_folder / "original"
    Engine.create(original, ADA).close()
    prepared(original, rng)
    synced = picture(original)
    checked = 0
    opened = Engine.open(original)
    with recorded(disk_folder) as disk:
        opened._syncer.stop()
        tree = opened.working_tree("main")
        # Over what is synced, so that the chunks of the staged version below are dead to the index alone.
        tree.put_file((b"d", b"staged"), BytesSource(b"not synced"))
        now = {**synced["main"], (b"d", b"staged"): b"not synced"}
        if not others:
            opened.close()
            synced["main"] = now

        def lose_power() -> None:
            nonlocal checked
            quiet, disk.on_change = disk.on_change, lambda: None
            for _ in range(6):
                left = memory / "left"
                left.mkdir()
                materialised(disk.left((rng.choice(MOODS), rng.choice(MOODS)), rng), left)
                with rebooted():
                    found = picture(left / "original")
                assert found.pop("main") in (synced["main"], now), f"state {checked}"
                assert found == {key: value for key, value in synced.items() if key != "main"}, f"state {checked}"
                shutil.rmtree(left)
                checked += 1
            disk.on_change = quiet

        disk.on_change = lose_power
        done = gc(original, AT_ONCE)
        disk.on_change = lambda: None
        opened.close()
    assert done.deleted_bytes > 1_000_000
    assert checked > 40
