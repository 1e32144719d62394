"""Trackers: work lists. Test names carry the ids of the worked examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage.errors import DuplicateKeyError, NotFound
from storage.places import place_of
from storage.pods import POD, ProgressTracker, Tracker
from storage.pods.tracker import merged
from tests.pods.conftest import begun, python


def in_file(place: Path, key: str) -> dict:
    found = place_of(place)
    return json.loads(found.files.read(f"{found.path}/{key}.json"))


DO_WORK = """
import sys
from storage.pods import Tracker
MAX_TRIES = 2

def do_work(queue, tracker):
    for name in queue:
        if tracker.check(name):
            continue
        if name not in tracker:
            tracker.add(name)
        if tracker.tries(name) > MAX_TRIES:
            continue
        print("working on", name)
        tracker.increment_tries(name)
        if name != "fails":
            tracker.mark_done(name)
            tracker[name]['result'] = name.upper()

do_work(["a", "fails", "b"], Tracker(sys.argv[1]))
"""


def test_tp_07e_a_queue_that_picks_up_where_it_stopped(place):
    first = python(DO_WORK, place).stdout.split("\n")
    assert first == ["working on a", "working on fails", "working on b", ""]
    rest = [python(DO_WORK, place).stdout for _ in range(3)]
    assert rest == ["working on fails\n", "working on fails\n", ""]
    tracker = Tracker(place)
    assert tracker["a"]["result"] == "A" and tracker.done("b") and not tracker.check("fails")
    assert tracker.tries("fails") == 3


TRY = """
import sys
from storage.pods import Tracker
tracker = Tracker(sys.argv[1], max_tries=3)
print(tracker.try_it("fails"), tracker.try_it("done"), tracker.try_it("unknown"))
"""


def test_tp_08e_trying(place):
    tracker = Tracker(place, max_tries=3)
    tracker.add("done")
    tracker.mark_done("done")
    assert [python(TRY, place).stdout for _ in range(4)] == [
        "True False True\n",
        "True False True\n",
        "True False True\n",
        "False False False\n",
    ]
    assert "unknown" in tracker and tracker.tries("fails") == 3 and tracker.tries("done") == 0
    assert not tracker.try_it("fails")
    tracker.reset_tries("fails")
    assert tracker.try_it("fails") and in_file(place, "fails") == {"_tries": 1, "_done": False, "_aborted": False}


def test_tp_26_adding(place):
    tracker = Tracker(place)
    tracker.add("a")
    with pytest.raises(DuplicateKeyError) as caught:
        tracker.add("a")
    assert caught.value.key == "a" and isinstance(caught.value, KeyError)
    assert tracker.add_if_absent("b") and not tracker.add_if_absent("a")
    for keys in (["c", "a"], ["c", "c"]):
        with pytest.raises(DuplicateKeyError):
            tracker.add_many(keys)
    assert tracker.keys() == ["a", "b"]
    tracker.mark_done("a")
    tracker.add_many_if_absent(["a", "c"])
    tracker.add_many(("d", 5, ("t", 1)))
    assert tracker.keys() == ["a", "b", "c", "d", 5, ("t", 1)] and tracker.done("a")
    tracker.update({"a": {"x": 1}}, [("e", {"_tries": 2})], f={})
    assert tracker["a"] == {"_tries": 0, "_done": True, "_aborted": False, "x": 1}
    assert tracker.tries("e") == 2 and tracker["f"] == {"_tries": 0, "_done": False, "_aborted": False}
    tracker["f"]["y"] = 1
    tracker.update("f")
    assert in_file(place, "f")["y"] == 1
    for value in (1, [1], None):
        with pytest.raises(TypeError):
            tracker["g"] = value
        with pytest.raises(TypeError):
            tracker.update(g=value)
    assert tracker.setdefault("h")["_tries"] == 0
    assert Tracker(place, init={"h": {"z": 1}, "i": {"z": 2}})["i"]["z"] == 2 and "z" not in tracker["h"]


def test_tp_27_marking(place):
    tracker = Tracker(place, max_tries=1)
    tracker.add("a")
    for mark, seen in (
        (tracker.mark_done, (True, False, 0)),
        (tracker.mark_not_done, (False, False, 0)),
        (tracker.abort, (False, True, 0)),
        (tracker.unabort, (False, False, 0)),
        (tracker.increment_tries, (False, False, 1)),
        (tracker.decrement_tries, (False, False, 0)),
        (tracker.decrement_tries, (False, False, 0)),
    ):
        mark("a")
        assert (tracker.done("a"), tracker.aborted("a"), tracker.tries("a")) == seen
        assert in_file(place, "a") == {"_tries": seen[2], "_done": seen[0], "_aborted": seen[1]}
        with pytest.raises(KeyError):
            mark("nothing")
    assert not tracker.done("nothing")
    for look in (tracker.tries, tracker.aborted, tracker.should_do, tracker.should_try):
        with pytest.raises(KeyError):
            look("nothing")
    assert "nothing" not in tracker


def test_tp_28_what_should_be_done(place):
    tracker = Tracker(place, max_tries=2)
    tracker.add_many(["a", "given up", "done"])
    tracker.abort("given up")
    tracker.mark_done("done")
    assert tracker.should_do("a") and not tracker.should_do("given up") and not tracker.should_do("done")
    assert tracker.should_do("given up", allow_aborted=True) and not tracker.should_do("done", True)
    assert tracker.should_do_add("new") and not tracker.should_do_add("given up")
    assert tracker.should_do_add("given up", True) and tracker.tries("given up") == 0
    assert [tracker.should_try("a") for _ in range(3)] == [True, True, False]
    assert not tracker.should_try("given up") and tracker.should_try("given up", True)
    assert not tracker.should_try_add("given up") and tracker.should_try_add("given up", True)
    assert not tracker.should_try_add("given up", True) and tracker.should_try_add("newer")


def filled(place: Path, **options: int) -> Tracker:
    tracker = Tracker(place, **options)
    tracker.add_many(["a", "b", "given up", "done"])
    tracker.abort("given up")
    tracker.mark_done("done")
    return tracker


def test_tp_29_going_through_the_tasks(place):
    tracker = filled(place, max_tries=1)
    new = {"_tries": 0, "_done": False, "_aborted": False}
    assert list(tracker.todo_keys()) == ["a", "b"] and list(tracker.todo_keys(allow_aborted=True)) == [
        "a",
        "b",
        "given up",
    ]
    assert list(tracker.todo_items()) == [("a", new), ("b", new)] and list(tracker.todo_values()) == [new, new]
    assert list(tracker.aborted_keys()) == ["given up"] and list(tracker.aborted_values()) == [new | {"_aborted": True}]
    assert list(tracker.aborted_items()) == [("given up", new | {"_aborted": True})]
    assert len(tracker.todo_items()) == 2 and len(tracker.aborted_keys()) == 1
    begun_one = new | {"_tries": 1}
    for key, task in tracker.try_items():
        assert task == begun_one
        task["result"] = key
        break
    assert list(tracker.try_keys()) == ["b"] and list(tracker.try_values()) == []
    assert list(tracker.try_values(allow_aborted=True)) == [begun_one | {"_aborted": True}]
    tracker.close()
    assert Tracker(place)["a"]["result"] == "a"


def test_a_bar_over_what_is_to_be_done(place, capsys):
    tracker = filled(place)
    for _, task in tracker.todo_items(progress=True):
        task["result"] = 1
    for key in tracker.try_keys(progress=True):
        tracker.mark_done(key)
    said = capsys.readouterr().err
    assert "2/2" in said and "task" in said
    assert tracker.percent_done() == "75.00 %"


def test_tp_30_statistics(place):
    tracker = Tracker(place)
    assert tracker.fraction_done() == tracker.fraction_tried() == tracker.fraction_aborted() == 0.0
    assert tracker.percent_done() == "0.00 %" and tracker.percent_not_done() == "100.00 %"
    tracker.add_many(range(1000))
    for number in range(347):
        tracker[number]["_done"] = True
        tracker[number]["_tries"] = 2
    tracker.abort(999)
    assert (tracker.num_done(), tracker.num_tried(), tracker.num_aborted()) == (347, 347, 1)
    assert tracker.percent_done() == "34.70 %" and tracker.percent_not_done(1) == "65.3 %"
    assert tracker.percent_tried(0) == "35 %" and tracker.percent_not_tried() == "65.30 %"
    assert tracker.percent_aborted() == "0.10 %" and tracker.percent_not_aborted() == "99.90 %"
    assert tracker.fraction_done() == 0.347
    assert tracker.counts() == (1000, 347, 347, 1, 652, 694)
    assert "347 of 1,000 done" in repr(tracker) and "347 (34.7 %)" in tracker._repr_html_()


def test_a_table(place):
    pytest.importorskip("pandas")
    tracker = filled(place)
    tracker["a"]["result"] = 1.5
    tracker.add(("t", 1))
    table = tracker.table()
    assert list(table.columns) == ["tries", "done", "aborted", "result"]
    assert list(table.index) == ["a", "b", "given up", "done", ("t", 1)] and table.index.name == "key"
    assert table["done"].sum() == 1 and table.loc["a", "result"] == 1.5
    assert list(Tracker(place / "empty").table().columns) == ["tries", "done", "aborted"]


def test_a_pod_becomes_a_tracker(place):
    pod = POD(place, init={"a": {"x": 1}, "b": 5})
    pod.sync()
    with pytest.raises(ValueError, match="convert_to_tracker"):
        Tracker(place)
    with pytest.raises(TypeError, match="'b'"):
        pod.convert_to_tracker()
    assert pod["a"] == {"x": 1}
    del pod["b"]
    tracker = pod.convert_to_tracker(max_tries=1)
    assert isinstance(tracker, ProgressTracker) and tracker.max_tries == 1
    assert tracker["a"] == {"_tries": 0, "_done": False, "_aborted": False, "x": 1}
    assert Tracker(place, mode="r").tries("a") == 0
    for wrong in (-1, "x", True):
        with pytest.raises(ValueError):
            Tracker(place, max_tries=wrong)


def test_reading_only(place):
    filled(place).close()
    reader = Tracker(place, mode="r")
    assert reader.num_done() == 1 and list(reader.todo_keys()) == ["a", "b"]
    for change in (lambda: reader.add("x"), lambda: reader.try_it("a"), lambda: reader.mark_done("a")):
        with pytest.raises(PermissionError):
            change()


def test_marks_are_kept_while_synchronisation_is_held(place):
    tracker = Tracker(place)
    tracker.hold()
    tracker.add("a")
    tracker.add("b")
    tracker.mark_done("a")
    assert in_file(place, "a")["_done"]
    found = place_of(place)
    assert not found.files.exists(f"{found.path}/b.json")
    task = tracker["a"]
    tracker.increment_tries("a")
    task["result"] = 1  # who had it handed out before has the task as it is now
    tracker.sync()
    assert in_file(place, "a") == {"_tries": 1, "_done": True, "_aborted": False, "result": 1}


def test_a_task_changed_here_and_elsewhere_keeps_both(place):
    tracker = filled(place)
    tracker["a"]["result"] = "here"
    tracker.add_if_absent("new")
    program = """
        import sys
        from storage.pods import Tracker
        with Tracker(sys.argv[1]) as tracker:
            tracker.try_it("a")
            tracker.mark_done("new") if "new" in tracker else tracker.try_it("new")
            tracker["a"]["note"] = "there"
        """
    python(program, place)
    tracker.sync()
    assert in_file(place, "a") == {"_tries": 1, "_done": False, "_aborted": False, "result": "here", "note": "there"}
    assert in_file(place, "new")["_tries"] == 1


def test_merging_tasks():
    new = {"_tries": 0, "_done": False, "_aborted": False}
    assert merged(None, new | {"x": 1}, {"_tries": 5, "x": 2}) == {"_tries": 5, "x": 1}
    assert merged({"a": 1, "b": 1, "c": 1}, {"a": 2, "c": 1}, {"a": 1, "b": 1, "c": 3}) == {"a": 2, "c": 3}
    assert merged({"a": 1}, {"a": 2}, {"a": 3}) == {"a": 2}
    assert merged({}, {"a": 1}, 5) == {"a": 1}


WORKER = """
import sys
from storage.pods import Tracker
tracker = Tracker(sys.argv[1], max_tries=int(sys.argv[2]))
print("ready")
sys.stdin.readline()
print(sum(tracker.try_it(f"k{number % int(sys.argv[3])}") for number in range(300)))
"""


@pytest.mark.parametrize("max_tries, tasks, tries", [(1, 300, 300), (1000, 1, 1000), (10, 150, 4 * 300)])
def test_no_task_is_begun_more_often_than_counted(place, max_tries, tasks, tries):
    """Four processes go for the same tasks in the same order, added by whoever comes first."""
    workers = [begun(WORKER, place, max_tries, tasks) for _ in range(4)]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        ends = [worker.communicate(timeout=60) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [error for _, error in ends] == [""] * 4
    assert sum(int(out) for out, _ in ends) == tries
    assert Tracker(place).counts() == (tasks, 0, tasks, 0, tasks, tries)


def test_a_file_that_is_no_task_is_told(place):
    tracker = filled(place)
    found = place_of(place)
    found.files.write(f"{found.path}/a.json", b"5")
    with pytest.raises(TypeError, match="'a' is no task"):
        tracker.try_it("a")
    assert list(tracker.todo_keys()) == ["b"] and tracker.counts().total == 4
    with pytest.raises(NotFound):
        tracker.mark_done("nothing")
