"""Killed while history is changed: the repository is as before or as after, whatever was cut, and taking back works still."""

import os
import shutil
from itertools import count
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource
from tests.faults.test_crash import run
from tests.unit.test_engine import contents

WORKS = {
    "undo of a commit": "engine.undo(4)",
    "undo of a forced removal": "engine.undo(7)",
    "undo of a hard reset": "engine.undo(8)",
    "undo of a branch made": "engine.undo(6)",
    "reset": 'engine.reset_hard("main", engine.resolve("first"))',
    "soft reset": 'engine.reset_soft("main", engine.resolve("first"))',
    "amend": 'tree.amend("other words")',
    "removal": 'engine.remove_branch("other", force=True)',
    "op restore": "engine.restore_operation(3)",
}


def prepared(path: Path) -> None:
    """Eight operations; work is staged on main and on other."""
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        tree.make_directory((b"d",))
        for i in range(20):
            tree.put_file((b"d", b"%d" % i), BytesSource(os.urandom(200 * i)))
        engine.create_tag("first", tree.commit("first"))
        tree.put_file((b"d", b"3"), BytesSource(b"changed"))
        tree.remove((b"d", b"4"))
        tree.commit("second")
        engine.create_branch("side")
        engine.create_branch("other")
        for name in ("side", "other"):
            engine.working_tree(name).put_file((b"d", b"staged"), BytesSource(os.urandom(9000)))
        engine.remove_branch("side", force=True)
        tree.put_file((b"d", b"5"), BytesSource(b"dropped"))
        engine.reset_hard("main", engine.resolve("main"))
        tree.put_file((b"d", b"6"), BytesSource(b"staged since"))
        assert [operation.number for operation in engine.operations()] == [8, 7, 6, 5, 4, 3, 2, 1]


def whole(path: Path) -> tuple:
    """What is seen of every branch, and how many operations there were."""
    with Engine.open(path) as engine:
        assert verify(engine) == []
        refs = {name: (tip and engine.commit_record(tip).message) for name, tip in engine.branches().items()}
        trees = {name: contents(engine.working_tree(name)) for name in refs}
        status = {name: [(r.change, r.path) for r in engine.working_tree(name).status()] for name in refs}
        return refs, trees, status, len(engine.operations())


@pytest.mark.parametrize("torn, index", [("whole", "kept"), ("torn", "deleted")])
@pytest.mark.parametrize("work", WORKS)
def test_cut_at_every_write(repository, tmp_path, work, torn, index):
    prepared(repository)
    done = tmp_path / "done"
    shutil.copytree(repository, done)
    assert run(WORKS[work], str(done), "0", torn) == 0
    outcomes = [whole(repository), whole(done)]
    assert outcomes[0] != outcomes[1]
    for step in count(1):
        attempt = tmp_path / f"cut-{step}"
        shutil.copytree(repository, attempt)
        code = run(WORKS[work], str(attempt), str(step), torn)
        if index == "deleted":
            shutil.rmtree(attempt / ".arborfs" / "index")
        found = whole(attempt)
        assert found in outcomes, f"cut at step {step}"
        if code == 0:
            break
        assert code == 9
        assert step < 100
    assert step >= 3
    with Engine.open(attempt) as engine:
        engine.undo()
    assert whole(attempt)[:3] == outcomes[0][:3]
