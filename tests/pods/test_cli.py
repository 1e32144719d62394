"""`arborfs tracker`."""

from __future__ import annotations

import json

from storage.pods import POD, Tracker
from tests.conftest import arborfs, wait_until
from tests.pods.conftest import begun


def filled(place):
    tracker = Tracker(place, max_tries=2)
    tracker.add_many(["a", "b", "c", "d"])
    tracker.try_it("a")
    tracker.mark_done("a")
    tracker.abort("b")
    tracker.sync()
    return tracker


def test_how_far_it_is(place):
    filled(place)
    said = arborfs("tracker", place).stdout
    assert "25.0 %: 1 of 4 tasks done, 2 to do, 1 given up; 1 tried, 1 time in all" in said
    found = json.loads(arborfs("tracker", place, "--json").stdout)
    assert found == {
        "path": str(place),
        "total": 4,
        "done": 1,
        "tried": 1,
        "aborted": 1,
        "todo": 2,
        "tries": 1,
        "fraction_done": 0.25,
    }


def test_what_is_no_tracker_is_told(place, tmp_path):
    POD(place, init={"a": 1}).sync()
    done = arborfs("tracker", place, check=False)
    assert done.returncode == 2 and "is a POD and no tracker" in done.stderr
    done = arborfs("tracker", tmp_path / "nothing", check=False)
    assert done.returncode == 3 and "in no repository" in done.stderr
    assert not (tmp_path / "nothing").exists()


FOLLOW = """
import runpy, sys
sys.argv = ["arborfs", "tracker", sys.argv[1], "--follow", "--interval", "0.01"]
runpy.run_module("fusefs.cli", run_name="__main__")
"""


def test_following_while_workers_work(place):
    tracker = filled(place)
    watch = begun(FOLLOW, place)
    try:
        assert "1 of 4 tasks done" in watch.stdout.readline()
        tracker.mark_done("c")
        assert "2 of 4 tasks done" in watch.stdout.readline()
        tracker.mark_done("d")
        rest, error = watch.communicate(timeout=60)
    finally:
        watch.kill()
        watch.wait()
    assert (watch.returncode, error) == (0, "") and "3 of 4 tasks done, 0 to do" in rest
    wait_until(lambda: watch.poll() is not None, what="the end of the command")
