"""Differences, conflicts and merges by Python, point by point as the checklist of the API numbers them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from storage import Repository
from storage.diffing import Changes, Conflicts, DiffAndConflicts, DiffOut, SampleKey
from storage.errors import MergeConflict, StagedWork, WriterLockHeld


@pytest.fixture
def repo(repository):
    """A repository with the branches main and dev at one commit: a dataset `d` with the samples 0 to 4."""
    with Repository(repository) as opened:
        with opened.checkout(write=True) as co:
            co.datasets.init_dataset("d", shape=(2,), dtype=np.int32)
            co.datasets["d"].update({i: np.full(2, i, np.int32) for i in range(5)})
            co.commit("base")
        opened.create_branch("dev")
        yield opened


def change(repo, branch: str, samples: dict[str, int | None]) -> str:
    """Commit samples of `d` on a branch: a number, or None to remove it; the commit."""
    with repo.checkout(write=True, branch=branch) as co:
        for key, value in samples.items():
            if value is None:
                del co.datasets["d"][key]
            else:
                co.datasets["d"][key] = np.full(2, value, np.int32)
        return co.commit(f"on {branch}")


def keys(*names: str) -> tuple[SampleKey, ...]:
    return tuple(SampleKey("d", name) for name in names)


def head(repo, branch: str = "main") -> str:
    return repo.log(branch, return_contents=True)["head"]


def test_hg_26_diff_of_branches_and_commits(repo):
    base = head(repo)
    dev = change(repo, "dev", {"new": 9})
    for pair in (("main", "dev"), (base, dev), (base[:8], "dev"), ("main", dev[:8])):
        assert repo.diff(*pair).diff.added.samples == keys("new")
    for wrong in (("main", "nowhere"), ("ffff", "dev")):
        with pytest.raises(ValueError):
            repo.diff(*wrong)


def test_hg_27_merge_returns_the_new_head(repo):
    change(repo, "main", {"ours": 1})
    change(repo, "dev", {"theirs": 2})
    merged = repo.merge("both", "main", "dev")
    assert merged == head(repo)
    assert {"ours", "theirs"} <= set(repo.checkout().datasets["d"])


def test_hg_70_the_values(repo):
    with repo.checkout(write=True, branch="dev") as co:
        other = co.datasets.init_dataset("other", shape=(1,), dtype=np.uint8)
        co.datasets["d"]["new"] = np.zeros(2, np.int32)
        del co.datasets["d"]["1"]
        co.datasets["d"]["2"] = np.full(2, 22, np.int32)
        schema = other.schema.hash
        co.commit("changed")
    found = repo.diff("main", "dev")
    assert isinstance(found, DiffAndConflicts) and found._fields == ("diff", "conflict")
    assert found.diff == DiffOut(
        added=Changes(schema={"other": schema}, samples=keys("new")),
        deleted=Changes(samples=keys("1")),
        mutated=Changes(samples=keys("2")),
    )
    assert found.conflict == Conflicts()
    sample = found.diff.added.samples[0]
    assert (sample.dataset, sample.key) == ("d", "new")


def test_hg_70_reprs_and_notebook(repo):
    change(repo, "main", {"7": 1, **{f"o{n:02}": n for n in range(30)}})
    change(repo, "dev", {"7": 2, "1": None, **{f"<b>{n:02}": 100 + n for n in range(30)}})
    found = repo.diff("main", "dev")
    told = repr(found).splitlines()
    assert told[:2] == ["Arborfs Diff", "    added: 31"]
    assert re.fullmatch(r"        samples  31: d\['7'\], d\['<b>00'\], .*, and 21 more", told[2])
    assert told[3:] == [
        "    deleted: 1",
        "        samples  1: d['1']",
        "Arborfs Conflicts",
        "    t1 (added on both sides): 1",
        "        samples  1: d['7']",
    ]
    for thing in (found, found.diff, found.conflict, found.diff.added):
        assert "<b>0" not in thing._repr_html_()
    assert "d[&#x27;&lt;b&gt;00&#x27;]" in found._repr_html_()
    assert "t1: added on both sides" in found._repr_html_() and "and 21 more" in found._repr_html_()
    assert "t1" not in repo.diff("main", "main")._repr_html_()


def test_hg_71_the_ways_to_ask(repo):
    base = head(repo)
    dev = change(repo, "dev", {"new": 9})
    with repo.checkout(write=True) as co:
        assert co.diff.commit(dev) == co.diff.branch("dev") == repo.diff("main", "dev")
        for wrong in (lambda: co.diff.branch("nowhere"), lambda: co.diff.commit("ffff")):
            with pytest.raises(ValueError):
                wrong()
        assert co.diff.status() == "CLEAN"
        co.datasets["d"]["0"] = np.full(2, 7, np.int32)
        assert co.diff.status() == "DIRTY" and co.diff.staged().diff.mutated.samples == keys("0")
    with repo.checkout(branch="dev") as reader:
        assert reader.diff.commit(base).diff.deleted.samples == keys("new")
        assert not hasattr(reader.diff, "staged")


def test_hg_71_before_the_first_commit(tmp_path):
    with pytest.warns(UserWarning, match="init"):
        empty = Repository(tmp_path)
    empty.init("Ada Lovelace", "ada@example.org")
    with empty, empty.checkout(write=True) as co, pytest.raises(ValueError, match="no commit yet"):
        co.diff.staged()


def test_hg_72_against_the_common_ancestor(repo):
    change(repo, "main", {"0": 100})
    change(repo, "dev", {"1": 200})
    assert repo.diff("main", "dev").diff == DiffOut(mutated=Changes(samples=keys("1")))
    # Where one is the other's past, the two are compared themselves.
    assert repo.diff("main~1", "dev").diff == DiffOut(mutated=Changes(samples=keys("1")))


def test_hg_73_conflicts_by_type(repo):
    change(repo, "main", {"5": 5, "6": 6, "0": None, "1": 11, "2": 22, "3": 33, "4": None})
    change(repo, "dev", {"5": 50, "6": 6, "0": 100, "1": None, "2": 222, "3": 33, "4": None})
    found = repo.diff("main", "dev").conflict
    assert found.conflict
    told = {what: getattr(found, what).samples for what in ("t1", "t21", "t22", "t3")}
    assert told == {"t1": keys("5"), "t21": keys("0"), "t22": keys("1"), "t3": keys("2")}


def test_hg_73_a_removed_dataset_that_the_other_side_adds_to(repo):
    with repo.checkout(write=True) as co:
        del co.datasets["d"]
        co.commit("gone")
    change(repo, "dev", {"new": 1})
    assert repo.diff("main", "dev").conflict == Conflicts(t21=Changes(samples=keys("new")), conflict=True)
    assert repo.diff("dev", "main").conflict == Conflicts(t22=Changes(samples=keys("new")), conflict=True)
    with pytest.raises(ValueError, match="ABORTED with conflict"):
        repo.merge("both", "main", "dev")


def test_hg_74_fast_forward_makes_no_commit(repo):
    dev = change(repo, "dev", {"new": 1})
    assert repo.merge("not used", "main", "dev") == dev == head(repo)


def test_hg_74_three_way_has_two_parents(repo):
    ours, theirs = change(repo, "main", {"a": 1}), change(repo, "dev", {"b": 2})
    merged = repo.merge("both", "main", "dev")
    log = repo.log(return_contents=True)
    assert log["ancestors"][merged] == [ours, theirs]
    assert log["specs"][merged]["commit_message"] == "both"
    assert head(repo, "dev") == theirs


def test_hg_74_a_conflict_changes_nothing(repo):
    ours = change(repo, "main", {"7177": 1})
    change(repo, "dev", {"7177": 2})
    with pytest.raises(MergeConflict, match="Merge ABORTED with conflict: both-added d/7177.npy") as caught:
        repo.merge("both", "main", "dev")
    assert isinstance(caught.value, ValueError)
    (conflict,) = caught.value.conflicts
    assert re.fullmatch(r"<BothAdded d/7177\.npy: base none, ours \d+ B, theirs \d+ B>", repr(conflict))
    assert (head(repo), repo.status()) == (ours, "CLEAN")
    change(repo, "dev", {"7177": None})
    repo.merge("both", "main", "dev")


def test_hg_74_needs_a_clean_branch_without_a_writer(repo):
    change(repo, "dev", {"new": 1})
    with repo.checkout(write=True) as co:
        co.datasets["d"]["0"] = np.full(2, 7, np.int32)
        with pytest.raises(WriterLockHeld):
            repo.merge("both", "main", "dev")
        with pytest.raises(StagedWork):
            co.merge("both", "dev")
    with pytest.raises(RuntimeError):
        repo.merge("both", "main", "dev")
