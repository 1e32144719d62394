"""PODs and trackers for several processes at once."""

from __future__ import annotations

import multiprocessing
import pickle
import threading

import pytest

from storage.pods import POD, CalledClosedTrackerError, SharedPOD, SharedTracker
from tests.pods.conftest import python


def squares(shared: SharedPOD, start: int) -> None:
    for number in range(start, 25, 5):
        shared[number] = number**2


def count(shared: SharedPOD) -> None:
    for _ in range(200):
        with shared.locked():
            shared["x"] += 1


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_tp_09e_processes_that_share_one(place, method):
    context = multiprocessing.get_context(method)
    shared = SharedPOD(place)
    shared["x"] = 0
    workers = [context.Process(target=squares, args=(shared, start)) for start in range(5)]
    workers += [context.Process(target=count, args=(shared,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert shared["x"] == 400
    del shared["x"]
    assert sorted(shared.items()) == [(number, number**2) for number in range(25)]


def test_changes_are_seen_elsewhere_at_once_and_copies_are_copies(place):
    shared = SharedPOD(place, init={"k": {"a": {"b": 1}, "l": [1, 2]}})
    look = "import sys, json; from storage.pods import POD; print(POD(sys.argv[1])['k'])"
    assert shared.dirty() == set()
    shared["k"]["a"] = "a copy was changed"
    shared.set["k"]["a"]["b"] = 2
    shared.set["k"]["l"][0] = {"deep": True}
    del shared.set["k"]["l"][1]
    assert python(look, place).stdout == "{'a': {'b': 2}, 'l': [{'deep': True}]}\n"
    python("import sys; from storage.pods import SharedPOD; SharedPOD(sys.argv[1]).set['k']['a']['b'] = 3", place)
    assert shared["k"]["a"]["b"] == 3
    assert shared.pop("k")["l"] and shared.pop("k", 5) == 5 and len(shared) == 0
    with pytest.raises(KeyError):
        shared.set["k"]["a"] = 1
    with pytest.raises(TypeError):
        shared.set["k"] = 1
    assert len(POD(place)) == 0


def test_lock_and_unlock(place):
    shared = SharedPOD(place, init={"x": 0})
    inside = []

    def enter() -> None:
        other = pickle.loads(pickle.dumps(shared))
        other.lock()
        inside.append(1)
        assert len(inside) == 1
        other["x"] += 1
        inside.pop()
        other.unlock()

    shared.lock()
    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    inside.append(1)
    inside.pop()
    shared.unlock()
    for thread in threads:
        thread.join()
    assert shared["x"] == 3 and not inside
    with pytest.raises(ValueError, match="not locked"):
        shared.unlock()


def test_after_close(place):
    shared = SharedPOD(place)
    shared.close()
    for use in (lambda: shared["x"], lambda: shared.set["x"], shared.lock, lambda: list(shared), lambda: len(shared)):
        with pytest.raises(CalledClosedTrackerError):
            use()


def test_a_shared_tracker(place):
    tracker = SharedTracker(place, max_tries=2)
    tracker.add("a")
    tracker.add_many(["b", "c"])
    look = "import sys; from storage.pods import Tracker; print(Tracker(sys.argv[1]).keys())"
    assert python(look, place).stdout == "['a', 'b', 'c']\n"
    assert tracker.try_it("a") and not tracker.add_if_absent("a") and tracker.add_if_absent("d")
    tracker.set["a"]["result"] = 5
    tracker.mark_done("a")
    assert tracker["a"] == {"_tries": 1, "_done": True, "_aborted": False, "result": 5}
    assert list(tracker.todo_keys()) == ["b", "c", "d"]
    again = pickle.loads(pickle.dumps(tracker))
    assert isinstance(again, SharedTracker) and again.max_tries == 2 and again.done("a")
