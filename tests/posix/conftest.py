"""Every test here runs twice: in a folder of the disk, which shows what is right, and in a mounted branch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.engine import Engine
from tests.conftest import ADA, Mount, Mounts, fuse_missing

_COUNT = itertools.count()


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for the tests of a file: each works in a folder of its own."""
    if reason := fuse_missing():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("posix")
    Engine.create(home / "repository", ADA).close()
    mounts = Mounts(home)
    # Only root may always let others in.
    yield mounts(home / "repository", *(["--allow-other"] if os.getuid() == 0 else []))
    wrong = mounts.take_down()
    assert not wrong, "\n".join(wrong)


@pytest.fixture(params=["ext4", "mount"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the test runs: "ext4" (the disk of this machine) or "mount"."""
    return request.param


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty folder, on the disk or in a mounted branch."""
    if kind == "ext4":
        folder = tmp_path / "place"
        folder.mkdir()
        yield folder
        return
    mount: Mount = request.getfixturevalue("shared")
    folder = mount.main / f"place{next(_COUNT)}"
    folder.mkdir()
    yield folder
    assert not mount.complaints()
