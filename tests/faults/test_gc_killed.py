"""`arborfs gc` killed with SIGKILL at random moments, again and again, beside a writer: what was acknowledged is there."""

import os
import random
import secrets
import subprocess
import sys
import time

from storage.engine import Engine
from storage.errors import Collected
from storage.maintenance.gc import Policy, gc
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource
from tests.faults.test_gc_faults import contents

KILLS = 12
COMMAND = [sys.executable, "-m", "fusefs.cli", "gc", "--keep", "0s", "--grace", "0s", "--quiet"]


def write(engine: Engine, rng: random.Random, expected: dict) -> None:
    """Something new in place of something old, that a commit may forget at once."""
    tree = engine.working_tree("main")
    name = (b"%d" % rng.randrange(5),)
    expected[name] = rng.randbytes(rng.choice([100, 9000, 150_000]))
    try:
        tree.put_file(name, BytesSource(expected[name]))
    except Collected:  # without any grace: as it says
        tree.put_file(name, BytesSource(expected[name]))
    if rng.random() < 0.3:
        tree.commit("second") if tree.tip() is None else tree.amend("in its place")


def test_a_command_killed_at_random(repository):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng, expected = random.Random(seed), {}
    for _ in range(KILLS):
        with Engine.open(repository) as engine:
            began = time.monotonic()
            command = subprocess.Popen([*COMMAND[:3], "-C", repository, *COMMAND[3:]])
            # A command takes half a second, most of which is Python's start.
            until = began + 0.3 + rng.random() * 0.4
            while time.monotonic() < until and command.poll() is None:
                write(engine, rng, expected)
            command.kill()
            assert command.wait() in (0, -9)
        with Engine.open(repository) as engine:
            assert verify(engine) == []
            assert dict(contents(engine.working_tree("main"))) == expected
    before = sum(os.stat(file).st_size for file in (repository / ".arborfs" / "segments").iterdir())
    gc(repository, Policy(keep=0, grace=0))
    after = sum(os.stat(file).st_size for file in (repository / ".arborfs" / "segments").iterdir())
    assert after < before
    assert rebuild(repository).problems == []
    with Engine.open(repository) as engine:
        assert verify(engine) == []
        assert dict(contents(engine.working_tree("main"))) == expected
