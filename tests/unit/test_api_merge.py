"""Merging by the Python API."""

from __future__ import annotations

import numpy as np
import pytest

from storage.errors import MergeConflict, StagedWork, WriterLockHeld
from storage.repository import Repository
from storage.tree.merge import BothAdded, RemovedByUs

ONE = np.arange(4, dtype=np.int16)


@pytest.fixture
def repo(repository):
    with Repository(repository) as opened:
        with opened.checkout(write=True) as co:
            co.datasets.init_dataset("images", prototype=ONE)
            co.datasets["images"].update({str(number): ONE + number for number in range(5)})
            co.metadata["made"] = "here"
            co.commit("base")
        opened.create_branch("testbranch")
        yield opened


def changed(repo, branch: str, message: str = "changed", **samples) -> str:
    with repo.checkout(write=True, branch=branch) as co:
        for key, number in samples.items():
            if number is None:
                del co.datasets["images"][key[1:]]
            else:
                co.datasets["images"][key[1:]] = ONE + number
        return co.commit(message)


def sample(repo, branch: str, key: str) -> int:
    return int(repo.checkout(branch=branch).datasets["images"][key][0])


def test_fast_forward_returns_the_hash_that_is_there(repo):
    made = changed(repo, "testbranch", k7=7)
    operations = len(repo._opened().commits())
    assert repo.merge("not used", "main", "testbranch") == made
    assert len(repo._opened().commits()) == operations
    assert sample(repo, "main", "7") == 7


def test_three_way(repo):
    ours, theirs = changed(repo, "main", k1=100), changed(repo, "testbranch", k2=200, k7=7)
    merged = repo.merge("both", "main", "testbranch")
    log = repo.log(return_contents=True)
    assert log["head"] == merged
    assert log["ancestors"][merged] == [ours, theirs]
    assert log["specs"][merged]["commit_message"] == "both"
    assert [sample(repo, "main", key) for key in "127"] == [100, 200, 7]
    assert repo.status() == "CLEAN"


def test_a_conflict_aborts_and_tells(repo):
    head = changed(repo, "main", k7177=1)
    changed(repo, "testbranch", k7177=2)
    with pytest.raises(ValueError, match="ABORTED with conflict: both-added images/7177.npy") as caught:
        repo.merge("both", "main", "testbranch")
    assert isinstance(caught.value, MergeConflict)
    (conflict,) = caught.value.conflicts
    assert type(conflict) is BothAdded
    assert conflict.base is None
    assert conflict.ours.value != conflict.theirs.value
    assert repo.log(return_contents=True)["head"] == head
    assert repo.status() == "CLEAN"
    changed(repo, "testbranch", k7177=None)
    changed(repo, "main", k7177=None)
    repo.merge("both", "main", "testbranch")


def test_a_dataset_that_one_side_removes_while_the_other_adds_to_it(repo):
    """The original lost the added sample without a word."""
    with repo.checkout(write=True) as co:
        del co.datasets["images"]
        co.commit("removed")
    changed(repo, "testbranch", k7=7)
    with pytest.raises(MergeConflict) as caught:
        repo.merge("m", "main", "testbranch")
    assert [(type(c), c.path) for c in caught.value.conflicts] == [(RemovedByUs, (b"images",))]


def test_metadata_is_merged_by_key(repo):
    for branch, key in (("main", "ours"), ("testbranch", "theirs")):
        with repo.checkout(write=True, branch=branch) as co:
            co.metadata[key] = branch
            co.commit(key)
    repo.merge("m", "main", "testbranch")
    assert dict(repo.checkout().metadata.items()) == {"made": "here", "ours": "main", "theirs": "testbranch"}


def test_what_stands_in_the_way(repo):
    changed(repo, "testbranch", k7=7)
    with pytest.raises(ValueError, match="nothing"):
        repo.merge("m", "nothing", "testbranch")
    with pytest.raises(ValueError, match="nothing"):
        repo.merge("m", "main", "nothing")
    co = repo.checkout(write=True)
    with pytest.raises(PermissionError) as held:
        repo.merge("m", "main", "testbranch")
    assert isinstance(held.value, WriterLockHeld)
    co.datasets["images"]["x"] = ONE
    with pytest.raises(RuntimeError, match=r"images/x\.npy") as staged:
        co.merge("m", "testbranch")
    assert isinstance(staged.value, StagedWork)
    co.close()
    with pytest.raises(StagedWork):
        repo.merge("m", "main", "testbranch")


def test_resolving_in_a_checkout(repo):
    changed(repo, "main", k1=10, k2=20, k3=30)
    changed(repo, "testbranch", k1=11, k2=22, k3=33, k4=44)
    with repo.checkout(write=True) as co:
        images = co.datasets["images"]
        before = co.commit_hash
        assert co.merge("m", "testbranch", leave_open=True) == before
        assert [conflict.path[-1] for conflict in co.conflicts] == [b"1.npy", b"2.npy", b"3.npy"]
        assert images["4"][0] == 44
        assert repo.status() == "DIRTY"
        with pytest.raises(RuntimeError, match=r"images/1\.npy \(both-changed\)"):
            co.commit("too early")
        images["1"] = ONE + 12
        co.resolve("images/2.npy", "theirs")
        del images["3"]
        assert co.conflicts == []
        merged = co.commit("by hand")
    reader = repo.checkout(commit=merged)
    assert {key: value[0] for key, value in reader.datasets["images"].items()} == {"0": 0, "1": 12, "2": 22, "4": 44}


def test_writing_ours_again_resolves(repo):
    changed(repo, "main", k1=10, k2=20, k3=30)
    changed(repo, "testbranch", k1=11, k2=22, k3=33)
    with repo.checkout(write=True) as co:
        images = co.datasets["images"]
        co.merge("m", "testbranch", leave_open=True)
        images["1"] = ONE + 10
        images["3"] = ONE + 30
        assert [conflict.path[-1] for conflict in co.conflicts] == [b"2.npy"]
        with images:
            images["2"] = images["2"]
        assert co.conflicts == []
        co.commit("ours in all")
        assert [images[key][0] for key in "123"] == [10, 20, 30]


def test_aborting_in_a_checkout(repo):
    changed(repo, "main", k1=10)
    changed(repo, "testbranch", k1=11, k4=44)
    with repo.checkout(write=True) as co:
        co.merge("m", "testbranch", leave_open=True)
        co.datasets["images"]["9"] = ONE
        co.abort_merge()
        assert repo.status() == "CLEAN"
        assert co.datasets["images"]["4"][0] == 4
        assert "9" not in co.datasets["images"]


def test_revert_and_cherry_pick(repo):
    mistake = changed(repo, "testbranch", "a mistake", k1=10, k9=9)
    with repo.checkout(write=True) as co:
        co.cherry_pick(mistake)
        assert co.datasets["images"]["9"][0] == 9
        co.revert("main", "sorry")
        assert "9" not in co.datasets["images"]
        assert co.datasets["images"]["1"][0] == 1
    specs = repo.log(return_contents=True)["specs"].values()
    assert [spec["commit_message"] for spec in specs] == ["sorry", "a mistake", "base"]


def test_equal_datasets_made_on_both_sides_become_one(repo):
    for branch, key in (("main", "a"), ("testbranch", "b")):
        with repo.checkout(write=True, branch=branch) as co:
            co.datasets.init_dataset("new", prototype=ONE)
            co.datasets["new"][key] = ONE
            co.commit("new dataset")
    repo.merge("m", "main", "testbranch")
    assert sorted(repo.checkout().datasets["new"].keys()) == ["a", "b"]
