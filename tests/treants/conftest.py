"""Every test of trees and Treants that asks for `place` runs twice: on a repository alone, and in a real mount."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage import places
from tests.conftest import wait_until


@dataclass
class Ground:
    """A folder to plant in, the working tree of a fresh repository's default branch; programs see it where it is `mounted`."""

    path: Path
    repository: Path
    mounted: bool

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def seen(self, probe: Callable[[], bool]) -> bool:
        """Wait until it is true: the mount shows what was changed beside it as soon as it has heard of it."""
        return wait_until(probe, what="the mount to show it")


@pytest.fixture(params=["alone", "mount"])
def place(request: pytest.FixtureRequest, repository: Path) -> Ground:
    """Where the test plants."""
    if request.param == "alone":
        return Ground(repository, repository, False)
    mount = request.getfixturevalue("mounted")(repository)
    return Ground(mount.main, repository, True)


@pytest.fixture(autouse=True)
def letting_go() -> Iterator[None]:
    """Repositories opened by plain paths are closed after each test."""
    yield
    places.let_go()
