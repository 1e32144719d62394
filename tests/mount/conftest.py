"""What the tests of real mounts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.model.samples import BytesSource
from storage.worktree import WorkingTree
from tests.conftest import Mount, Mounts, wait_until

SEEN = 2.0
"""Seconds for what is promised within 0.2: the machines that run this are noisy."""


@pytest.fixture
def mount(mounted: Mounts, repository: Path) -> Mount:
    """A fresh repository, mounted."""
    return mounted(repository)


@pytest.fixture
def main(mounted: Mounts, repository: Path) -> Path:
    """The working tree of a fresh repository, mounted."""
    return mounted(repository).main


@pytest.fixture
def other(mount: Mount, repository: Path) -> Iterator[Engine]:
    """The mounted repository, opened by this process: another one than the daemon."""
    with Engine.open(repository) as engine:
        yield engine


def refused(number: int) -> pytest.RaisesExc[OSError]:
    """The body must fail with that error number."""
    return pytest.raises(OSError, match=f"Errno {number}]")


def put(tree: WorkingTree, name: str, data: bytes) -> None:
    """Write a file as another process does."""
    tree.put_file(tuple(name.encode().split(b"/")), BytesSource(data))


def soon(probe: Callable[[], object]) -> None:
    """Wait until what another process changed is seen."""
    wait_until(probe, seconds=SEEN)
