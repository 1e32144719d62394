"""PODs: a dict that survives. Test names carry the ids of the worked examples."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import pytest

from storage import Repository
from storage.errors import InvalidName, Missing, NotADirectory, NotFound, NotJSON, ReadOnly, Unsupported
from storage.places import place_of
from storage.pods import (
    POD,
    CalledClosedTrackerError,
    PersistentOrderedDict,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
)
from storage.pods.store import RECENT
from tests.pods.conftest import python

LOOK = """
import sys, json
from storage.pods import POD
print(json.dumps(POD(sys.argv[1]).items()))
"""


def seen_elsewhere(place: Path) -> dict:
    """What another process finds in a POD whose keys are str."""
    return dict(json.loads(python(LOOK, place).stdout))


def written(place: Path) -> list[str]:
    """The names of the files of a POD."""
    found = place_of(place)
    return [name for name, _ in found.files.list(found.path) if name.endswith(".json")]


def test_tp_01e_what_was_set_is_there_after_the_end(place):
    done = python("import sys; from storage.pods import POD; POD(sys.argv[1])['foo'] = 'bar'", place)
    assert (done.stdout, done.stderr) == ("", "")
    assert POD(place)["foo"] == "bar"


def test_tp_02e_json_only(place):
    python(
        """
        import sys
        from storage.pods import POD
        pod = POD(sys.argv[1])
        pod['integer-key'] = {1: 'bar'}
        pod['tuple'] = ('baz', 42)
        """,
        place,
    )
    pod = POD(place)
    assert pod["integer-key"] == {"1": "bar"}
    assert pod["tuple"] == ["baz", 42]


def test_tp_03e_changes_inside_of_values(place):
    python(
        """
        import sys
        from storage.pods import POD
        pod = POD(sys.argv[1])
        pod['key'] = {}
        pod['key']['subkey1'] = 1
        pod['key']['subkey2'] = []
        pod['key']['subkey2'].append(1)
        """,
        place,
    )
    assert POD(place)["key"] == {"subkey1": 1, "subkey2": [1]}


def test_tp_04e_a_thousand_dirty_keys_are_written(place):
    pod = POD(place)
    for number in range(999):
        pod[f"k{number}"] = number
    assert written(place) == [] and len(pod.dirty()) == 999
    pod["last"] = 999
    assert len(written(place)) == 1000 and pod.dirty() == set()
    found = seen_elsewhere(place)
    assert list(found) == [*(f"k{number}" for number in range(999)), "last"] and found["k17"] == 17


def test_tp_06e_hold_sync_unhold(place):
    pod = POD(place)
    pod.hold()
    for number in range(5000):
        pod[f"k{number}"] = number
    assert written(place) == []
    pod.sync()
    assert len(written(place)) == 5000
    for number in range(1500):
        pod[f"k{number}"] = -1
    assert pod.dirty() and seen_elsewhere(place)["k0"] == 0
    pod.unhold()
    assert not pod.dirty() and seen_elsewhere(place)["k0"] == -1
    for number in range(1000):
        pod[f"n{number}"] = number
    assert not pod.dirty()


def test_tp_07_update_of_a_key_writes_it_and_no_other(place):
    pod = POD(place)
    pod["a"], pod["b"] = [], []
    pod["a"].append(1)
    pod.update("a")
    assert written(place) == ["a.json"] and pod.dirty() == {"b"}
    pod.sync_key("b")
    assert seen_elsewhere(place) == {"a": [1], "b": []}


def test_tp_10e_each_key_is_a_file_and_what_holds_no_value_is_told(place):
    pod = POD(place)
    for number in range(2500):
        pod[str(number)] = [number]
    pod.sync()
    assert len(written(place)) == 2500
    found = place_of(place)
    assert found.files.read(f"{found.path}/17.json") == b"[17]"
    found.files.write(f"{found.path}/17.json", b"")
    with pytest.raises(PersistentOrderedDictIntegrityError, match=r"17\.json") as caught:
        pod["17"]
    assert isinstance(caught.value, PersistentOrderedDictException)
    assert "17" not in pod and len(pod) == len(pod.keys()) == 2499
    pod["17"] = "again"
    assert pod["17"] == "again" and len(pod) == 2500


def test_the_order_is_that_of_the_first_insertion(place):
    pod = POD(place)
    for key in "zebra", "ant", "mole":
        pod[key] = 1
    pod.sync()
    pod["bee"] = pod["ant"] = 2
    assert pod.keys() == ["zebra", "ant", "mole", "bee"]
    pod.sync()
    assert pod.keys() == list(pod) == ["zebra", "ant", "mole", "bee"] and next(reversed(pod)) == "bee"
    del pod["ant"]
    pod["ant"] = 3
    assert pod.keys() == ["zebra", "mole", "bee", "ant"]
    pod.sync()
    assert pod.keys() == ["zebra", "mole", "bee", "ant"]
    assert written(place) == ["ant.json", "bee.json", "mole.json", "zebra.json"]


def test_files_made_by_others_come_by_their_time_and_keep_their_place(place):
    pod = POD(place)
    pod["first"] = 1
    pod.sync()
    found = place_of(place)
    found.files.write(f"{found.path}/by hand.json", b"[2]\n")
    pod["last"] = 3
    pod.sync()
    assert pod.keys() == ["first", "by hand", "last"]
    pod["by hand"] = "changed"
    pod.sync()
    assert pod.keys() == ["first", "by hand", "last"]
    assert found.files.attributes(f"{found.path}/by hand.json")["pod.born"].isdigit()


def test_two_processes_and_two_branches_interleave(place):
    add = "import sys; from storage.pods import POD; POD(sys.argv[1])[sys.argv[2]] = 1"
    for key in "c", "a", "b":
        python(add, place, key)
    pod = POD(place)
    assert pod.keys() == ["c", "a", "b"]


def test_branches_that_are_merged_interleave(repository):
    with Repository(repository) as opened:
        POD(repository / "pod").update(one=1)
        POD(repository / "pod").sync()
        opened.files().commit("one")
        opened.create_branch("dev")
        dev = opened.files(branch="dev")
        dev.write_samples("pod", {"two.json": b"2"}, born=("pod.born", {"two.json": POD_TIME}))
        POD(repository / "pod")["three"] = 3
        POD(repository / "pod").sync()
        opened.files().commit("three")
        dev.commit("two")
        opened.merge("merged", "main", "dev")
        assert POD(repository / "pod").keys() == ["two", "one", "three"]


POD_TIME = 1_500_000_000_000_000_000


def test_keys_keep_their_type(place):
    pod = POD(place)
    keys = ["5", 5, ("a", 5, (1, "b")), "a/b", "", "=5", -1, ()]
    for number, key in enumerate(keys):
        pod[key] = number
    pod.sync()
    assert repr(pod.keys()) == repr(keys)
    assert pod[5] == 1 and pod["5"] == 0 and pod["a", 5, (1, "b")] == 2
    for wrong in (None, 1.5, True, ["a"], "x" * 251):
        with pytest.raises(ValueError):
            pod[wrong] = 1
        assert wrong not in pod


def test_what_json_cannot_hold_is_refused_and_nothing_else_is_touched(place):
    pod = POD(place)
    pod["kept"] = {"a": [1]}
    pod["bad"] = "before"
    with pytest.raises(TypeError, match=r"'bad': JSON cannot hold a set at \['a'\]\[1\]") as caught:
        pod["bad"] = {"a": [1, {2}]}
    assert isinstance(caught.value, NotJSON) and caught.value.place == "['a'][1]"
    with pytest.raises(TypeError, match="nan"):
        pod["bad"] = float("nan")
    pod["bad"] = {}
    pod["bad"]["x"] = object()
    with pytest.raises(TypeError, match=r"'bad': JSON cannot hold a object at \['x'\]"):
        pod.sync()
    assert seen_elsewhere(place) == {"kept": {"a": [1]}} and pod.dirty() == {"bad"}
    pod["bad"]["x"] = "well"
    pod.sync()
    assert seen_elsewhere(place) == {"kept": {"a": [1]}, "bad": {"x": "well"}}


def test_what_was_read_and_not_changed_is_not_written(place):
    pod = POD(place, init={"a": {"x": 1}})
    pod.sync()
    found = place_of(place)
    found.files.write(f"{found.path}/a.json", b'{ "x": 1 }\n')
    assert pod["a"] == {"x": 1} and pod.dirty() == {"a"}
    pod.sync()
    assert found.files.read(f"{found.path}/a.json") == b'{ "x": 1 }\n'


def test_a_statement_that_reads_may_change_what_it_read_after_a_sync_came_by(place):
    pod = POD(place, sync_at=2 * RECENT)
    for number in range(4 * RECENT):
        pod[f"k{number}"] = []
    pod.sync()
    for number in range(4 * RECENT):
        pod[f"k{number}"].append(
            [pod[f"k{other % (4 * RECENT)}"] for other in range(number + 1, number + 3)] and number
        )
    pod.close()
    assert POD(place).values() == [[number] for number in range(4 * RECENT)]


def test_others_changes_are_seen_for_keys_that_are_not_dirty(place):
    pod = POD(place, init={"a": 1, "b": [1], "c": 1})
    pod.sync()
    pod["b"].append(2)
    assert pod["c"] == 1
    change = "import sys; from storage.pods import POD; POD(sys.argv[1]).update(a=2, b=[9], c=3, d=4)"
    python(change, place)
    assert (pod["a"], pod["b"], pod["c"], pod["d"]) == (2, [1, 2], 3, 4)
    pod.sync()
    assert seen_elsewhere(place)["b"] == [1, 2]


def test_as_a_dict(place):
    pod = POD(place, init=OrderedDict(a=1, b=2))
    assert isinstance(pod, MutableMapping) and isinstance(pod, PersistentOrderedDict)
    assert pod == {"b": 2, "a": 1} and pod != {"a": 1} and pod == {"a": 1, "b": 2}
    assert pod.get("a") == 1 and pod.get("x") is None and pod.get("x", 5) == 5
    assert pod.setdefault("a", 9) == 1 and pod.setdefault("l", []) == []
    pod.setdefault("l", []).append(1)
    assert pod.pop("l") == [1] and pod.pop("l", None) is None
    with pytest.raises(KeyError):
        pod.pop("l")
    with pytest.raises(KeyError, match="'nothing' is not in"):
        pod["nothing"]
    with pytest.raises(KeyError):
        del pod["nothing"]
    pod.update({"x": 1}, [("y", 2)], x=3)
    assert pod.items() == [("a", 1), ("b", 2), ("x", 3), ("y", 2)] and pod.values() == [1, 2, 3, 2]
    assert list(pod.iteritems()) == pod.items() and list(pod.iterkeys()) == pod.keys()
    assert list(pod.itervalues()) == pod.values()
    assert pod.popitem() == ("y", 2) and pod.popitem(last=False) == ("a", 1)
    assert len(pod) == 2 and bool(pod)
    pod.clear()
    assert len(pod) == 0 and pod.items() == [] and written(place) == []
    with pytest.raises(KeyError):
        pod.popitem()
    with pytest.raises(TypeError):
        hash(pod)


def test_deleting_survives(place):
    pod = POD(place, init={"a": 1, "b": 2})
    pod.sync()
    del pod["a"]
    assert "a" not in pod and pod.dirty() == {"a"} and len(pod) == 1
    assert seen_elsewhere(place) == {"a": 1, "b": 2}
    pod.sync()
    assert seen_elsewhere(place) == {"b": 2}


def test_init_is_for_keys_that_are_not_there(place):
    POD(place, init={"a": 1}).sync()
    assert POD(place, init=[("a", 2), ("b", 3)]) == {"a": 1, "b": 3}


def test_reverting_drops_what_is_dirty(place):
    pod = POD(place, init={"a": [1], "b": 1})
    pod.sync()
    pod["a"].append(2)
    pod["c"] = 1
    del pod["b"]
    pod.revert()
    assert pod == {"a": [1], "b": 1} and pod.keys() == ["a", "b"]


def test_objects_for_one_path_share_what_is_dirty(place):
    first, second = POD(place), POD(f"{place}/../my.pod")
    first["a"] = []
    second["a"].append(1)
    assert first["a"] is second["a"] and first.dirty() == {"a"} and written(place) == []
    with pytest.raises(ValueError, match="clone=False"):
        POD(place, clone=False)
    first.close()
    with pytest.raises(CalledClosedTrackerError, match="closed"):
        first["a"]
    with pytest.raises(CalledClosedTrackerError):
        first["a"] = 1
    assert second["a"] == [1] and "closed" in repr(first) and "1 keys" in repr(second)


def test_what_an_object_held_is_written_when_it_is_dropped(place):
    POD(place)["a"] = 1
    assert POD(place)["a"] == 1  # whether it is written by now or not
    with POD(place) as pod:
        pod["b"] = 2
    assert seen_elsewhere(place)["b"] == 2


def test_arguments_of_older_programs(place):
    POD(place, {}, False, 500, 10, True).close()
    for wrong in ({"gzipped": True}, {"file_size": 0}, {"sync_at": 0}, {"mode": "x"}):
        with pytest.raises(ValueError):
            POD(place, **wrong)
    assert POD(place).is_writeable()


def test_reading_only(place):
    with pytest.raises(Missing):
        POD(place / "nothing", mode="r")
    assert not place.exists()
    with POD(place, commit_on_close="first") as pod:
        pod["a"] = {"x": 1}
    reader = POD(place, mode="r")
    assert reader["a"] == {"x": 1} and not reader.is_writeable() and len(reader) == 1
    for change in (
        lambda: reader.__setitem__("b", 1),
        lambda: reader.__delitem__("a"),
        reader.clear,
        reader.sync,
        lambda: reader.commit("no"),
    ):
        with pytest.raises(PermissionError):
            change()
    assert pickle.loads(pickle.dumps(reader)).is_writeable() is False


def test_commits_keep_it_as_it_was(repository):
    pod = POD(repository / "pod", init={"a": 1})
    commit = pod.commit("first")
    pod["a"], pod["b"] = 2, 3
    assert pod.commit("second") != commit
    with Repository(repository) as opened:
        assert opened.files(commit=commit).read("pod/a.json") == b"1"
        assert opened.checkout(commit=commit).datasets["pod"]["a"] == 1
    assert POD(repository / "pod").items() == [("a", 2), ("b", 3)]


def test_a_pod_in_a_commit_is_read(repository, mounted):
    pod = POD(repository / "pod", init={"b": [1], "a": 2})
    commit = pod.commit("first")
    mount = mounted(repository)
    frozen = POD(mount.path / "commits" / commit[:16] / "pod")
    assert frozen.items() == [("b", [1]), ("a", 2)] and not frozen.is_writeable()
    with pytest.raises(ReadOnly):
        frozen["a"] = 1
    with pytest.raises(ReadOnly):
        POD(mount.path / "commits" / commit[:16] / "pod", mode="w")


def test_what_is_in_the_way(tmp_path, repository):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError):
        POD(tmp_path / "file")
    files = place_of(repository).files
    files.write_many({"folder/x.json": b"{broken", "file": b"x", "plain/README": b"x"})
    with pytest.raises(ValueError, match=r"x\.json is not JSON"):
        POD(repository / "folder")
    assert files.schema("folder") is None and files.read("folder/x.json") == b"{broken"
    with pytest.raises(NotADirectory):
        POD(repository / "file")
    POD(repository / "plain")["a"] = 1
    with Repository(repository) as opened, opened.checkout(write=True) as writer:
        writer.datasets.init_dataset("texts", kind="str")
    with pytest.raises(ValueError, match="dataset of str"):
        POD(repository / "texts")
    assert isinstance(NotFound("x"), KeyError)
    assert issubclass(InvalidName, ValueError) and issubclass(Unsupported, ValueError)


def test_threads_share_it(place):
    pod = POD(place, sync_at=50)

    def fill(first: int) -> None:
        for number in range(first, first + 300):
            pod[f"k{number}"] = [number]
            pod[f"k{number}"].append(-number)

    threads = [threading.Thread(target=fill, args=(300 * number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pod.close()
    assert dict(POD(place)._copies()) == {f"k{n}": [n, -n] for n in range(900)}


def test_a_directory_that_was_taken_away_is_made_again(place):
    pod = POD(place, init={"a": 1})
    pod.sync()
    found = place_of(place)
    if not found.path:
        pytest.skip("the top of a repository cannot be taken away")
    found.files.remove(found.path)
    assert len(pod) == 0 and "a" not in pod and pod.keys() == []
    pod["b"] = 2
    pod.sync()
    assert seen_elsewhere(place) == {"b": 2}


def test_long_values(place):
    value = {"text": "x" * 100_000, "list": list(range(2000))}
    pod = POD(place, init={"long": value, "short": 1})
    pod.sync()
    pod["long"]["list"].append("end")
    pod.close()
    assert seen_elsewhere(place)["long"]["list"][-2:] == [1999, "end"]


def test_mappings_look_alike_in_a_notebook(place):
    pod = POD(place, init={f"<{n}>": n for n in range(12)})
    assert "&lt;0&gt;" in pod._repr_html_() and "2 more" in pod._repr_html_()
    assert isinstance(pod, Mapping)
    assert os.fspath(place).endswith("my.pod") and pod.path == str(place)
