"""History in the Python API: undo, reset, restore, amend, tags with messages."""

import numpy as np
import pytest

from storage.errors import BranchInUse, Conflict, NothingToCommit, NotMerged, StagedWork


@pytest.fixture
def writer(repo):
    """A writer on main with one commit: the dataset `x` with one sample `0`."""
    with repo.checkout(write=True) as checkout:
        x = checkout.datasets.init_dataset("x", shape=(3,), dtype=np.int64)
        x["0"] = np.arange(3)
        checkout.commit("one")
        yield checkout


def samples(checkout) -> dict:
    return {key: value.tolist() for key, value in checkout.datasets["x"].items()}


def test_reset_staging_area(repo, writer):
    """HG-42."""
    writer.datasets["x"]["1"] = np.ones(3, np.int64)
    with writer.datasets["x"] as x:
        x["2"] = np.ones(3, np.int64)
        assert writer.reset_staging_area() == writer.commit_hash
    assert samples(writer) == {"0": [0, 1, 2]}
    assert repo.status() == "CLEAN"
    with pytest.raises(RuntimeError, match="No reset necessary"):
        writer.reset_staging_area()
    writer.reset_staging_area(force=True)
    repo.undo()
    repo.undo(repo.operations()[2].number)
    assert samples(writer) == {"0": [0, 1, 2], "1": [1, 1, 1], "2": [1, 1, 1]}


def test_reset_staging_area_before_the_first_commit(repo):
    with repo.checkout(write=True) as checkout:
        checkout.metadata["k"] = "v"
        assert checkout.reset_staging_area() == ""
        assert dict(checkout.metadata.items()) == {}


def test_an_undone_commit_is_staged_again(repo, writer):
    first = writer.commit_hash
    writer.datasets["x"]["1"] = np.ones(3, np.int64)
    second = writer.commit("two")
    undone = repo.undo()
    assert (undone.description, undone.moved) == ("commit: two", (("branch/main", first, second),))
    assert writer.commit_hash == first
    assert samples(writer) == {"0": [0, 1, 2], "1": [1, 1, 1]}
    assert repo.status() == "DIRTY"
    with repo.checkout() as reader:
        assert samples(reader) == {"0": [0, 1, 2]}
    repo.undo()
    assert (writer.commit_hash, repo.status()) == (second, "CLEAN")
    with pytest.raises(Conflict) as caught:
        repo.undo(undone.number - 1)
    assert (caught.value.ref, caught.value.expected, caught.value.found) == ("branch/main", first, second)


def test_reset(repo, writer):
    first = writer.commit_hash
    writer.datasets["x"]["1"] = np.ones(3, np.int64)
    second = writer.commit("two")
    writer.datasets["x"]["2"] = np.ones(3, np.int64)
    with pytest.raises(StagedWork):
        writer.reset(first)
    assert writer.reset("main~1", soft=True) == first
    assert len(samples(writer)) == 3
    writer.reset_staging_area()
    assert writer.reset(second[:12]) == second
    assert len(samples(writer)) == 2
    with pytest.raises(ValueError, match="No commit exists"):
        writer.reset("nowhere")


def test_restore(writer):
    writer.datasets["x"]["0"] = np.ones(3, np.int64)
    writer.commit("two")
    writer.datasets["x"]["0"] = np.zeros(3, np.int64)
    writer.datasets["x"]["1"] = np.zeros(3, np.int64)
    writer.restore("x/0.npy")
    assert samples(writer) == {"0": [1, 1, 1], "1": [0, 0, 0]}
    writer.restore("x", "main~1")
    assert samples(writer) == {"0": [0, 1, 2]}
    with pytest.raises(KeyError):
        writer.restore("x/1.npy")
    del writer.datasets["x"]["0"]
    writer.restore("")
    assert samples(writer) == {"0": [1, 1, 1]}


def test_amend(repo, writer):
    writer.datasets["x"]["1"] = np.ones(3, np.int64)
    writer.amend()
    writer.amend("better")
    log = repo.log(return_contents=True)
    assert [spec["commit_message"] for spec in log["specs"].values()] == ["better"]
    with pytest.raises(NothingToCommit):
        writer.amend()


def test_branches(repo, writer):
    """HG-28."""
    first = writer.commit_hash
    assert repo.create_branch("side", first) == ("side", first)
    with repo.checkout(write=True, branch="side") as side:
        side.datasets["x"]["1"] = np.ones(3, np.int64)
        with pytest.raises(PermissionError):
            repo.remove_branch("side")
        tip = side.commit("only here")
        side.datasets["x"]["2"] = np.ones(3, np.int64)
    assert samples(writer) == {"0": [0, 1, 2]}
    with pytest.raises(NotMerged):
        repo.remove_branch("side")
    assert repo.remove_branch("side", force_delete=True) == ("side", tip)
    with pytest.raises(BranchInUse):
        repo.remove_branch("main", force_delete=True)
    repo.undo()
    with repo.checkout(write=True, branch="side") as side:
        assert side.commit_hash == tip
        assert len(samples(side)) == 3


def test_tags_with_messages(repo, writer):
    first = repo.create_tag("v1", message="as in the paper")
    tag = repo.tag("v1")
    assert (tag.name, tag.digest, tag.message) == ("v1", first, "as in the paper")
    assert repo.remove_tag("v1") == tag
    with pytest.raises(ValueError, match="no tag"):
        repo.tag("v1")
    repo.undo()
    assert repo.tag("v1") == tag


def test_refs_as_they_were(repo, writer):
    number = repo.operations(1)[0].number
    repo.create_branch("side")
    repo.create_tag("v1")
    repo.restore_operation(number)
    assert (repo.list_branches(), repo.list_tags()) == (["main"], [])
