"""Locks on files: whom they keep out, and that none of them follows a link out of the repository."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from storage.disk.locks import alone, alone_at_once, alone_if_there, together
from storage.errors import StorageFailed
from storage.maintenance.checkup import Verdict, examine
from storage.maintenance.gc import gc
from storage.maintenance.verify import verify


@pytest.mark.parametrize("hold", [alone, together, alone_at_once])
def test_a_lock_file_is_made_and_freed_at_the_end(tmp_path, hold):
    for _ in range(2):
        with hold(tmp_path / "lock"):
            assert (tmp_path / "lock").is_file()
        with alone_if_there(tmp_path / "lock") as free:
            assert free


@pytest.mark.parametrize("hold", [alone, together])
@pytest.mark.parametrize("look", [alone_at_once, alone_if_there])
def test_who_does_not_wait_is_told_that_others_hold_it(tmp_path, hold, look):
    with hold(tmp_path / "lock"), look(tmp_path / "lock") as free:
        assert not free
    with look(tmp_path / "lock") as free:
        assert free


def test_many_hold_it_together(tmp_path):
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(together(tmp_path / "lock"))


def test_a_look_makes_no_file(tmp_path):
    with pytest.raises(FileNotFoundError), alone_if_there(tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hold", [alone, together, alone_at_once, alone_if_there])
@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_is_refused_and_nothing_is_made_where_it_leads(tmp_path, hold, there):
    if there:
        (tmp_path / "outside").touch()
    (tmp_path / "lock").symlink_to("outside")
    with pytest.raises(StorageFailed), hold(tmp_path / "lock"):
        pass
    assert (tmp_path / "outside").exists() == there


def test_gc_and_verify_go_by_no_link(engine, repository, tmp_path):
    (repository / ".arborfs" / "gc.lock").unlink(missing_ok=True)
    (repository / ".arborfs" / "gc.lock").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageFailed):
        verify(engine)
    with pytest.raises(StorageFailed):
        gc(repository)
    assert not (tmp_path / "outside").exists()


def test_a_checkup_says_that_it_cannot_go_by_one(repository):
    lock = repository / ".arborfs" / "lock"
    lock.rename(lock.with_name("elsewhere"))
    lock.symlink_to("elsewhere")
    assert any("cannot be locked" in found.what and found.verdict is Verdict.WARNING for found in examine(repository))
