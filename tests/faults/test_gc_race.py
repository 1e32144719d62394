"""gc without any grace, again and again, beside processes that write, commit, and make and remove branches."""

import random
import subprocess
import sys
import textwrap
import time

from storage.engine import Engine
from storage.errors import CollectorRuns
from storage.maintenance.gc import Policy, gc
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from tests.faults.test_gc_faults import contents

SECONDS = 6

# Few different contents, so that what one stores is often what gc is just taking from another, or a delta against it.
WRITER = """
    import random, sys, time
    from storage.engine import Engine
    from storage.errors import Collected, NotFound, NothingToCommit
    from storage.model.samples import BytesSource

    path, me, end = sys.argv[1], sys.argv[2], float(sys.argv[3])
    rng = random.Random(me)
    base = random.Random(0).randbytes(270_000)
    bodies = [random.Random(i).randbytes(70_000 + 40_000 * i) for i in range(3)]
    bodies += [base[:40_000 * i] + b"other" * i + base[40_000 * i:] for i in range(4)]
    engine = Engine.open(path)
    expected = {}
    while time.time() < end:
        tree = engine.working_tree(me)
        name, body = b"%d" % rng.randrange(4), rng.choice(bodies)
        try:
            tree.put_file((name,), BytesSource(body))
            expected[name] = body
        except Collected:
            print("refused", flush=True)
        if rng.random() < 0.3:
            try:
                tree.commit("m")
            except NothingToCommit:
                pass
        if rng.random() < 0.2:
            # What was committed before is forgotten: for gc to take.
            side = me + "-side"
            engine.create_branch(side, engine.branches()[me])
            engine.working_tree(side).put_file((b"s",), BytesSource(rng.choice(bodies)))
            engine.working_tree(side).commit("side")
            engine.remove_branch(side, force=True)
        for other, body in expected.items():
            content = tree.open((other,))[1]
            assert bytes(content.read(0, content.size)) == body, other
    engine.close()
    for name, body in expected.items():
        print(name.decode(), bodies.index(body), flush=True)
"""


def test_no_writer_loses_anything(repository):

    with Engine.open(repository) as engine:
        for name in ("one", "two"):
            engine.create_branch(name)
    end = time.time() + SECONDS
    code = textwrap.dedent(WRITER)
    writers = {
        name: subprocess.Popen(
            [sys.executable, "-c", code, str(repository), name, str(end)], stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    }
    collected = 0
    while any(writer.poll() is None for writer in writers.values()):
        try:
            collected += gc(repository, Policy(keep=0, grace=0)).deleted
        except CollectorRuns:
            continue
    said = {name: writer.communicate(timeout=60)[0] for name, writer in writers.items()}
    assert all(writer.returncode == 0 for writer in writers.values()), said
    assert collected > 10
    base = random.Random(0).randbytes(270_000)
    bodies = [random.Random(i).randbytes(70_000 + 40_000 * i) for i in range(3)]
    bodies += [base[: 40_000 * i] + b"other" * i + base[40_000 * i :] for i in range(4)]
    for _ in range(2):
        with Engine.open(repository) as engine:
            assert verify(engine) == []
            for name, lines in said.items():
                rows = [line.split() for line in lines.splitlines() if line != "refused"]
                there = dict(contents(engine.working_tree(name)))
                assert there == {(row[0].encode(),): bodies[int(row[1])] for row in rows}
        gc(repository, Policy(keep=0, grace=0))
        assert rebuild(repository).problems == []
