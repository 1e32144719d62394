"""Writer locks of one process, and what overwriting by the API leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

ONE = np.arange(4, dtype=np.int16)


def test_a_checkout_whose_lock_was_taken_away_does_not_release_its_successors(repo):
    forgotten = repo.checkout(write=True)
    with pytest.warns(UserWarning, match="force released"):
        repo.force_release_writer_lock()
    with repo.checkout(write=True):
        forgotten.close()
        assert repo.writer_lock_held
        with pytest.raises(PermissionError):
            repo.checkout(write=True)
    assert not repo.writer_lock_held


def test_names_that_are_taken_and_branches_in_use_raise_what_the_document_says(repo):
    with repo.checkout(write=True) as co:
        co.datasets.init_dataset("d", prototype=ONE)
        co.commit("one")
        repo.create_branch("dev")
        repo.create_tag("v1")
        for taken in (lambda: repo.create_branch("dev"), lambda: repo.create_tag("v1")):
            with pytest.raises(ValueError):
                taken()
        with pytest.raises(PermissionError):
            repo.remove_branch("main")
        with repo.checkout(write=True, branch="dev"), pytest.raises(PermissionError):
            repo.remove_branch("dev")


@pytest.mark.parametrize("length", [4, 5000])
@pytest.mark.parametrize("variable", [False, True])
def test_overwriting_keeps_mode_and_xattrs(repo, length, variable):
    with repo.checkout(write=True) as co:
        dataset = co.datasets.init_dataset("d", shape=length, dtype=int, variable_shape=variable)
        dataset["a"] = np.arange(length)
        place = (b"d", b"a.npy")
        co._session.working_tree.set_attributes(place, mode=0o600, xattrs={b"user.note": b"mine"})
        co.commit("one")
        dataset["a"] = np.arange(length) + 1
        with dataset:
            dataset["a"] = np.arange(length) + 2
        kept = co._session.working_tree.entry(place).attributes
        assert (kept.mode, kept.xattrs) == (0o600, ((b"user.note", b"mine"),))
        assert np.array_equal(dataset["a"], np.arange(length) + 2)
