"""Where programs are run: a folder of the disk, which shows what is right, and a mounted branch."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.engine import Engine
from tests.conftest import ADA, HANG, Mount, Mounts, fuse_missing

SOURCES = Path(__file__).parent.parent.parent / "storage"


class Disk:
    """A folder of the disk."""

    kind = "disk"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "place"
        self.path.mkdir()

    def other(self) -> Path:
        """A second place beside the first one."""
        path = self._folder / "other"
        path.mkdir()
        return path

    def commit(self, message: str) -> Path:
        """What the place holds now, kept: on the disk, a copy."""
        return Path(shutil.copytree(self.path, self._folder / message.replace(" ", "-"), symlinks=True))

    def again(self) -> Path:
        """The place after a restart: on the disk there is none."""
        return self.path


class Branch:
    """A branch of a repository that is mounted."""

    kind = "branch"

    def __init__(self, mounted: Mounts, repository: Path) -> None:
        self._mount: Callable[[], Mount] = lambda: mounted(repository)
        self._mounted = self._mount()

    @property
    def path(self) -> Path:
        """The working tree."""
        return self._mounted.main

    def other(self) -> Path:
        """The working tree of a second branch."""
        path = self._mounted.path / "branches" / "other"
        path.mkdir()
        return path

    def commit(self, message: str) -> Path:
        """Commit as a shell does; the commit's tree."""
        control = self.path / ".arborfs" / "commit"
        control.write_text(message)
        return self._mounted.path / "commits" / control.read_text().strip()

    def again(self) -> Path:
        """The working tree after an unmount and a mount."""
        self._mounted.unmount()
        self._mounted = self._mount()
        return self.path


Home = Disk | Branch


@pytest.fixture(params=["disk", "branch"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A folder of the disk, or a mounted branch, with what can be done to it as a whole."""
    if request.param == "disk":
        return Disk(tmp_path)
    return Branch(request.getfixturevalue("mounted"), request.getfixturevalue("repository"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount for all tests of one file: most programs only want a folder, and mounting takes a second."""
    if reason := fuse_missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("shared")
    Engine.create(folder / "repository", ADA).close()
    mounts = Mounts(folder)
    try:
        mount = mounts(folder / "repository")
        assert mount.watchdog is not None
        mount.watchdog.cancel()  # it is meant for one test: `place` has its own
        yield mount
    finally:
        wrong = mounts.take_down()
    assert not wrong, "\n".join(wrong)


@pytest.fixture(params=["disk", "branch"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty folder: of the disk, which shows what is right, or of a mounted branch."""
    if request.param == "disk":
        path = tmp_path / "place"
        path.mkdir()
        yield path
        return
    mount: Mount = request.getfixturevalue("shared")
    watchdog = threading.Timer(HANG, mount.kill)
    watchdog.daemon = True
    watchdog.start()
    path = mount.main / f"place{len(os.listdir(mount.main))}"
    path.mkdir()
    yield path
    watchdog.cancel()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A small tree of files on the disk."""
    return Path(shutil.copytree(SOURCES, tmp_path / "sources", ignore=shutil.ignore_patterns("__pycache__")))
