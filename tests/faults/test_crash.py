"""Killed processes: what was acknowledged is there, the rest is whole or absent."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from itertools import count
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource

# Runs in a process of its own: the k-th call into storage.disk.files ends it, before or after the call has taken effect.
CUT = """
    import os, sys
    from storage.disk import files
    from storage.engine import Engine
    from storage.model.samples import BytesSource

    path, step, torn = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "torn"
    engine = Engine.open(path)
    calls = 0

    def cut(name):
        real = getattr(files, name)
        def wrapped(*args):
            global calls
            calls += 1
            if calls == step:
                if torn and name == "append":
                    fd, parts, offset = args
                    data = b"".join(parts)
                    os.pwrite(fd, data[: len(data) // 2], offset)
                elif not torn:
                    real(*args)
                os._exit(9)
            return real(*args)
        setattr(files, name, wrapped)

    for name in ("append", "sync", "sync_directory", "create", "replace", "truncate", "remove"):
        cut(name)
    tree = engine.working_tree("main")
    {work}
    engine.close()
    os._exit(0)
"""

COMMIT = """
    tree.commit("second")
"""

STAGE = """
    tree.put_file((b"d", b"big"), BytesSource(b"new" * 10_000))
    tree.rename((b"d",), (b"moved",))
"""


def run(work: str, *arguments: str) -> int:
    work = textwrap.dedent(work).strip()
    code = textwrap.dedent(CUT).format(work=work)
    return subprocess.run([sys.executable, "-c", code, *arguments], timeout=60, stdin=subprocess.DEVNULL).returncode


def prepared(path: Path) -> None:
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        tree.make_directory((b"d",))
        for i in range(30):
            tree.put_file((b"d", b"%d" % i), BytesSource(os.urandom(200 * i)))
        tree.commit("first")
        tree.put_file((b"d", b"big"), BytesSource(os.urandom(2_000_000)))
        tree.put_file((b"d", b"3"), BytesSource(b"changed"))
        tree.remove((b"d", b"4"))


def picture(path: Path) -> tuple:
    """Everything a user sees, without what differs from run to run (times)."""
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        files = {}
        todo = [()]
        while todo:
            here = todo.pop()
            for name, entry in tree.entries(here):
                if entry.is_directory:
                    todo.append((*here, name))
                else:
                    content = tree.open((*here, name))[1]
                    files[*here, name] = bytes(content.read(0, content.size))
        tip = engine.branches()["main"]
        messages = [commit.message for _, commit in engine.log(tip)]
        dirty = tree.is_dirty()
        assert verify(engine) == []
    return messages, dirty, files


@pytest.mark.parametrize("index", ["kept", "deleted"])
@pytest.mark.parametrize("torn", ["whole", "torn"])
@pytest.mark.parametrize("work", [COMMIT, STAGE], ids=["commit", "stage"])
def test_cut_at_every_write(repository, tmp_path, work, torn, index):
    prepared(repository)
    done = tmp_path / "done"
    shutil.copytree(repository, done)
    assert run(work, str(done), "0", torn) == 0
    outcomes = {"before": picture(repository), "after": picture(done)}
    if work is STAGE:
        between = tmp_path / "between"
        shutil.copytree(repository, between)
        assert run(STAGE.strip().splitlines()[0], str(between), "0", torn) == 0
        outcomes["between"] = picture(between)
    reached = 0
    for step in count(1):
        attempt = tmp_path / f"cut-{step}"
        shutil.copytree(repository, attempt)
        code = run(work, str(attempt), str(step), torn)
        if index == "deleted":
            shutil.rmtree(attempt / ".arborfs" / "index")
        assert picture(attempt) in outcomes.values(), f"cut at step {step}"
        if code == 0:
            break
        assert code == 9
        reached = step
    assert reached >= 3


WRITER = """
    import sys
    from storage.engine import Engine
    from storage.model.samples import BytesSource

    engine = Engine.open(sys.argv[1])
    tree = engine.working_tree("main")
    for i in range(1_000_000):
        tree.put_file((b"%d" % (i % 50),), BytesSource(b"%d " % i * (i % 900)))
        print(f"put {i}", flush=True)
        if i % 20 == 19:
            tree.commit(str(i))
            print(f"commit {i}", flush=True)
"""


@pytest.mark.parametrize("lines", [1, 7, 60, 150, 333])
def test_kill_dash_nine_of_a_writer(repository, lines):
    code = textwrap.dedent(WRITER)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(repository)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        acknowledged = [process.stdout.readline() for _ in range(lines)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += process.stdout.readlines()
    whole = [line.split() for line in acknowledged if line.endswith("\n")]
    puts = [int(number) for what, number in whole if what == "put"]
    commits = [number for what, number in whole if what == "commit"]
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for i in set(range(max(0, puts[-1] - 49), puts[-1] + 1)):
            content = tree.open((b"%d" % (i % 50),))[1]
            data = bytes(content.read(0, content.size))
            # The one write that was under way may have happened too.
            assert data in (b"%d " % i * (i % 900), b"%d " % (i + 50) * ((i + 50) % 900))
        if commits:
            made = [commit.message for _, commit in engine.log(engine.branches()["main"])]
            assert set(commits) <= set(made)
        assert verify(engine) == []
