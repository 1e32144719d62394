"""Differences by API: what is staged, between commits and branches, with conflicts and renames."""

from __future__ import annotations

import numpy as np
import pytest

from storage import Repository
from storage.diffing import Changes, SampleKey
from storage.model.samples import BytesSource
from storage.session import CLOSED


@pytest.fixture
def repo(repository):
    """A repository whose main has a dataset `numbers` with the samples 0 to 4, and one commit."""
    with Repository(repository) as repo:
        with repo.checkout(write=True) as co:
            numbers = co.datasets.init_dataset("numbers", shape=(2,), dtype=np.int32)
            for i in range(5):
                numbers[i] = np.full(2, i, np.int32)
            co.commit("five")
        yield repo


def keys(*names, dataset="numbers"):
    """Sample keys of the dataset."""
    return tuple(SampleKey(dataset, name) for name in names)


def change(repo, branch, **samples):
    """Commit samples of `numbers` on a branch: a number, or None to remove it; the commit."""
    with repo.checkout(write=True, branch=branch) as co:
        for key, value in samples.items():
            if value is None:
                del co.datasets["numbers"][key.strip("s")]
            else:
                co.datasets["numbers"][key.strip("s")] = np.full(2, value, np.int32)
        return co.commit(f"changes {', '.join(samples)}")


def edit(co, action: int, random) -> None:
    """Change the datasets of a checkout in one of six ways."""
    numbers = co.datasets.get("numbers")
    if action == 0:
        co.datasets.init_dataset(f"new{random.integers(3)}", shape=(1,), dtype=np.uint8) if len(
            co.datasets
        ) < 2 else None
    elif numbers is None:
        co.datasets.init_dataset("numbers", shape=(3,), dtype=np.float64)
    elif action == 1:
        del co.datasets["numbers"]
    elif action == 2 and len(numbers):
        del numbers[min(numbers)]
    else:
        numbers[int(random.integers(8))] = np.full(numbers.shape, random.integers(2), numbers.dtype)


class TestStaged:
    def test_added_deleted_mutated(self, repo):
        with repo.checkout(write=True) as co:
            numbers = co.datasets["numbers"]
            assert (co.diff.status(), len(co.diff.staged().diff)) == ("CLEAN", 0)
            numbers["new"] = np.full(2, 77, np.int32)
            del numbers["1"]
            numbers["2"] = np.full(2, 78, np.int32)
            co.metadata["camera"] = "none"
            found, conflicts = co.diff.staged()
            assert co.diff.status() == "DIRTY"
        assert found.added == Changes(samples=keys("new"), metadata=("camera",))
        assert found.deleted == Changes(samples=keys("1"))
        assert found.mutated == Changes(samples=keys("2"))
        assert not found.renamed and not len(found.attributes) and not conflicts.conflict

    def test_a_new_dataset_is_a_schema_and_its_samples(self, repo):
        with repo.checkout(write=True) as co:
            other = co.datasets.init_dataset("deep/other", shape=(), dtype=np.float64)
            other["x"] = np.array(1.0)
            found = co.diff.staged().diff
            assert found.added.schema == {"deep/other": other.schema.hash}
            assert found.added.samples == keys("x", dataset="deep/other")
            assert found.added.files == ("deep/",)
            co.datasets.remove_dset("numbers")
            found = co.diff.staged().diff
        assert list(found.deleted.schema) == ["numbers"]
        assert found.deleted.samples == keys("0", "1", "2", "3", "4")

    def test_what_a_batch_holds_counts(self, repo):
        with repo.checkout(write=True) as co, co.datasets["numbers"] as numbers:
            numbers["new"] = np.full(2, 9, np.int32)
            assert co.diff.status() == "DIRTY"
            assert co.diff.staged().diff.added.samples == keys("new")

    def test_a_dataset_with_another_schema_is_mutated(self, repo):
        with repo.checkout(write=True) as co:
            schema = co.datasets["numbers"].schema
            co.datasets.remove_dset("numbers")
            numbers = co.datasets.init_dataset("numbers", shape=(2,), dtype=np.float32)
            numbers["0"] = np.zeros(2, np.float32)
            found = co.diff.staged().diff
            assert numbers.schema.hash != schema.hash
            assert found.mutated.schema == {"numbers": numbers.schema.hash}
        # All its bits are zero as before, and yet it is another array.
        assert found.mutated.samples == keys("0")
        assert found.deleted.samples == keys("1", "2", "3", "4")

    def test_attributes_alone_are_told_apart(self, repo):
        with repo.checkout(write=True) as co:
            tree = repo._engine.working_tree("main")
            tree.set_attributes((b"numbers", b"1.npy"), mode=0o600)
            tree.set_attributes((b"numbers", b"2.npy"), mtime=1)
            tree.set_attributes((b"numbers",), mode=0o700)
            found = co.diff.staged().diff
        assert found.attributes == Changes(samples=keys("1", "2"), files=("numbers/",))
        assert len(found) == 3

    def test_before_the_first_commit_it_is_refused(self, repository):
        repo = Repository(repository)
        with repo, repo.checkout(write=True) as co, pytest.raises(ValueError, match="no commit yet"):
            co.diff.staged()

    def test_closed_checkouts_answer_nothing(self, repo):
        co = repo.checkout(write=True)
        differ = co.diff
        co.close()
        for call in (lambda: co.diff, differ.staged, differ.status, lambda: differ.branch("main")):
            with pytest.raises(PermissionError, match=CLOSED[:40]):
                call()


class TestRenamed:
    def test_a_sample(self, repo):
        with repo.checkout(write=True) as co:
            repo._engine.working_tree("main").rename((b"numbers", b"1.npy"), (b"numbers", b"one.npy"))
            found = co.diff.staged().diff
        assert found.renamed == (("numbers/1.npy", "numbers/one.npy"),)
        assert (found.added.samples, found.deleted.samples) == (keys("one"), keys("1"))

    def test_a_dataset_as_a_whole(self, repo):
        with repo.checkout(write=True) as co:
            repo._engine.working_tree("main").rename((b"numbers",), (b"figures",))
            found = co.diff.staged().diff
        assert found.renamed == (("numbers", "figures"),)
        assert found.added.samples == keys("0", "1", "2", "3", "4", dataset="figures")
        assert list(found.added.schema) == ["figures"] and list(found.deleted.schema) == ["numbers"]
        assert found.deleted.samples == keys("0", "1", "2", "3", "4")

    def test_a_file_that_was_written_again_elsewhere(self, repo):
        data = bytes(range(256)) * 100  # long enough to wait in the journal and to become a chunk
        tree = repo._engine.working_tree("main")
        tree.put_file((b"old.bin",), BytesSource(data))
        tree.commit("a file")
        tree.remove((b"old.bin",))
        tree.put_file((b"new.bin",), BytesSource(data))
        with repo.checkout(write=True) as co:
            assert co.diff.staged().diff.renamed == (("old.bin", "new.bin"),)


class TestBetween:
    def test_forward_and_back(self, repo):
        first = repo.checkout().commit_hash
        change(repo, "main", s1=100, s2=None, s9=9)
        forth, back = repo.diff(first, "main").diff, repo.diff("main", first).diff
        assert (forth.added, forth.deleted) == (back.deleted, back.added)
        assert forth.added.samples == keys("9") and forth.deleted.samples == keys("2")
        assert forth.mutated.samples == back.mutated.samples == keys("1")
        assert not repo.diff(first, "main").conflict.conflict

    def test_histories_that_went_apart_are_compared_with_their_ancestor(self, repo):
        repo.create_branch("dev")
        change(repo, "main", s1=100, s5=5)
        change(repo, "dev", s2=200, s6=6)
        with repo.checkout(branch="main") as co:
            found = co.diff.branch("dev")
        assert found == repo.diff("main", "dev")
        assert found.diff.added.samples == keys("6") and found.diff.mutated.samples == keys("2")
        assert not len(found.diff.deleted) and not found.conflict.conflict

    def test_conflicts_by_sort(self, repo):
        repo.create_branch("dev")
        change(repo, "main", s5=5, s6=6, s0=None, s1=11, s2=22, s3=33, s4=None)
        change(repo, "dev", s5=50, s6=6, s0=100, s1=None, s2=222, s3=33, s4=None)
        conflict = repo.diff("main", "dev").conflict
        assert conflict.conflict
        assert conflict.t1.samples == keys("5")
        assert conflict.t21.samples == keys("0")
        assert conflict.t22.samples == keys("1")
        assert conflict.t3.samples == keys("2")
        assert "t3 (changed on both sides): 1" in repr(conflict)

    def test_what_was_added_to_a_dataset_that_the_other_side_removed(self, repo):
        repo.create_branch("dev")
        change(repo, "dev", s6=6)
        with repo.checkout(write=True) as co:
            del co.datasets["numbers"]
            co.commit("without numbers")
        assert repo.diff("main", "dev").conflict.t21.samples == keys("6")
        assert repo.diff("dev", "main").conflict.t22.samples == keys("6")
        with pytest.raises(ValueError):
            repo.merge("both", "main", "dev")

    def test_what_was_added_to_a_dataset_that_got_another_schema(self, repo):
        repo.create_branch("dev")
        change(repo, "dev", s6=6)
        with repo.checkout(write=True) as co:
            del co.datasets["numbers"]
            co.datasets.init_dataset("numbers", shape=(3,), dtype=np.float64)
            co.commit("other numbers")
        assert keys("6")[0] in repo.diff("main", "dev").conflict.t3.samples
        assert keys("6")[0] in repo.diff("dev", "main").conflict.t3.samples

    def test_the_diff_foresees_what_a_merge_refuses(self, repo):
        random = np.random.default_rng(1)
        found = set()
        for number in range(40):
            names = [f"{side}{number}" for side in ("a", "b")]
            for name in names:
                repo.create_branch(name, "main")
                with repo.checkout(write=True, branch=name) as co:
                    for action in random.integers(0, 6, 2):
                        edit(co, int(action), random)
                    if co.diff.status() == "DIRTY":
                        co.commit("changed")
            told = repo.diff(*names).conflict.conflict
            found.add(told)
            if told:
                with pytest.raises(ValueError, match="conflict"):
                    repo.merge("both", *names)
            else:
                repo.merge("both", *names)
        assert found == {True, False}

    def test_staged_work_counts_as_our_side(self, repo):
        repo.create_branch("dev")
        change(repo, "dev", s2=222, s3=3)
        with repo.checkout(write=True) as co:
            co.datasets["numbers"]["2"] = np.full(2, 5, np.int32)
            conflict = co.diff.branch("dev").conflict
        assert conflict.t3.samples == keys("2") and len(conflict.t1) == 0

    def test_working_trees_by_name(self, repo):
        with repo.checkout(write=True) as co:
            co.datasets["numbers"]["staged"] = np.zeros(2, np.int32)
        assert repo.diff("main", "main+").diff.added.samples == keys("staged")
        assert not len(repo.diff("main", "main").diff)

    @pytest.mark.parametrize("name", ["nowhere", "nowhere+", "main~99", "ffff", ""])
    def test_what_is_not_there_is_a_value_error(self, repo, name):
        with repo.checkout() as co:
            for call in (
                lambda: repo.diff("main", name),
                lambda: repo.diff(name, "main"),
                lambda: co.diff.commit(name),
                lambda: co.diff.branch(name),
            ):
                with pytest.raises(ValueError):
                    call()

    def test_tags_and_revisions(self, repo):
        repo.create_tag("v1")
        change(repo, "main", s8=8)
        for name in ("v1", "main~1"):
            assert repo.diff(name, "main").diff.added.samples == keys("8")

    def test_reprs_tell_what_there_is(self, repo):
        change(repo, "main", **{f"s{i}": i for i in range(5, 30)})
        text = repr(repo.diff("main~1", "main"))
        assert text.startswith("Arborfs Diff\n    added: 25\n        samples  25: numbers['10'], ")
        assert text.endswith(", and 15 more\nArborfs Conflicts: none")
        assert repr(repo.diff("main", "main").diff) == "Arborfs Diff: no differences"
