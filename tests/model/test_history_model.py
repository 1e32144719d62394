"""Random histories of a repository against plain values: work, commits, merges, undo, gc, crashes between any two steps.

Each step is taken by the repository and by the model (tests/model/history.py), and both take it or both refuse it. After
each, everything that can be seen of all branches is compared, at the end every commit that was ever made. MODEL_EXAMPLES and
MODEL_STEPS say how many histories there are, and how long.
"""

from __future__ import annotations

import os
import pickle
import random
import secrets
import shutil
import signal
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.history import Step
from tests.model.player import SERIES, STEPS, Player, random_steps

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "100"))
KILLS = 5
LENGTH = int(os.environ.get("MODEL_STEPS", "40"))

SINGLE = [
    st.tuples(st.just(name), *map(st.sampled_from, domains)).map(lambda step: [step])
    for weight, name, domains in STEPS
    for _ in range(weight)
]
SEVERAL = [
    st.tuples(*map(st.sampled_from, domains)).map(lambda each, made=made: made(*each))
    for weight, made, domains in SERIES
    for _ in range(weight)
]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(st.one_of(SINGLE + SEVERAL), min_size=LENGTH // 2, max_size=LENGTH))
def test_histories(steps: list[list[Step]]) -> None:
    with tempfile.TemporaryDirectory(prefix="arborfs-history-") as folder:
        player = Player(Path(folder) / "repository")
        try:
            for step in chain.from_iterable(steps):
                player.play(step)
            player.finish()
        finally:
            player.engine.close()


def until_killed(folder: Path, steps: Sequence[Step], writing: int) -> None:
    """Play a history, and tell before each step what the repository has to be by then."""
    with os.fdopen(writing, "wb") as told:
        player = Player(folder)
        for step in steps:
            pickle.dump((player.model, player.commits, player.skipped), told)
            told.flush()
            player.play(step)


def acknowledged(reading: int, pid: int, enough: int) -> Any:
    """The last thing that was told before the process was killed, which is after `enough` of them, sooner or later."""
    last, count = None, 0
    with os.fdopen(reading, "rb") as told:
        while True:
            try:
                last = pickle.load(told)
            except (EOFError, pickle.UnpicklingError):
                return last, count - 1
            count += 1
            if count == enough:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("whole", [True, False], ids=["index kept", "index lost"])
def test_killed_at_any_step(tmp_path: Path, whole: bool) -> None:
    """What was acknowledged is there; the step under way was taken or not, as a whole."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for number in range(KILLS):
        folder = tmp_path / f"killed {number}"
        steps = [step for step in random_steps(rng, LENGTH) if step[0] != "maintain"]
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                until_killed(folder, steps, writing)
            finally:
                os._exit(0)
        os.close(writing)
        (model, commits, skipped), at = acknowledged(reading, pid, rng.randrange(1, len(steps)))
        os.waitpid(pid, 0)
        if not whole:
            shutil.rmtree(folder / ".arborfs" / "index")
        Player.opened(folder, model, commits, skipped).check_after(steps[at])
