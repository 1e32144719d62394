"""What tests share: fresh repositories, real mounts, and a check that none is left behind.

Mounts are made with the real command line and talk to the real kernel; nothing here pretends to be FUSE. A
test that needs one asks for `mounted`; where /dev/fuse is missing it is skipped and says so.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from storage.engine import Engine
from storage.model.records import Author

ADA = Author("Ada Lovelace", "ada@example.org")

PATIENCE = 20.0
"""Seconds to wait for something that takes milliseconds on a quiet machine."""

# A test that waits on a hung daemon cannot be interrupted from inside Python: only the daemon's end frees it.
HANG = 200.0

MARK = "ARBORFS_TEST_SESSION"
"""Processes that the tests start carry this in their environment, so that the last check finds exactly
those.
"""

Result = TypeVar("Result")


def wait_until(probe: Callable[[], Result], *, seconds: float = PATIENCE, what: str = "") -> Result:
    """The first true answer of `probe`, asked again and again; fails when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what or probe}")
        time.sleep(0.005)
    return answer


def arborfs(*arguments: str | Path, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; with `check`, a failure fails the test with its text."""
    command = [sys.executable, "-m", "fusefs.cli", *map(str, arguments)]
    settings: dict = {
        "capture_output": True,
        "text": True,
        "timeout": 60,
        "stdin": subprocess.DEVNULL,
    } | options
    done = subprocess.run(command, **settings)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command[2:])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def written_to(terminal: int) -> bytes:
    """All that comes out of a terminal, from the descriptor of its outer side, until the other side is closed."""
    shown = b""
    with suppress(OSError):  # EIO: nobody has the other side any more
        while part := os.read(terminal, 65536):
            shown += part
    return shown


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The folder of a fresh repository whose author is Ada; nobody has it open."""
    path = tmp_path / "repository"
    Engine.create(path, ADA).close()
    return path


@pytest.fixture
def engine(repository: Path) -> Iterator[Engine]:
    """A fresh repository, opened; closed at the end."""
    opened = Engine.open(repository)
    yield opened
    opened.close()


@dataclass
class Mount:
    """A live mount: its mount point, its repository, its daemon, its log."""

    path: Path
    repository: Path
    pid: int
    log: Path
    expected: list[str] = field(default_factory=list)
    watchdog: threading.Timer | None = None

    @property
    def main(self) -> Path:
        """The working tree of the default branch."""
        return self.path / "branches" / "main"

    def expect(self, pattern: str) -> None:
        """Warnings and errors in the log that match this regular expression are what the test wants to
        see.
        """
        self.expected.append(pattern)

    def unmount(self) -> None:
        """Unmount by command line, and see the daemon gone."""
        arborfs("umount", self.path)
        self.await_end()

    def kill(self) -> None:
        """`kill -9` the daemon: the mount point answers ENOTCONN afterwards."""
        os.kill(self.pid, signal.SIGKILL)
        self.await_end()

    def await_end(self) -> None:
        """Wait until the daemon's process is gone."""
        wait_until(lambda: not alive(self.pid), what=f"the end of daemon {self.pid}")

    def complaints(self) -> list[str]:
        """Lines of the log that tell of trouble and that no `expect` has announced."""
        trouble = re.compile(r"\b(ERROR|WARNING|CRITICAL)\b|^Traceback |Warning: ")
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        told = [line for line in lines if trouble.search(line)]
        return [line for line in told if not any(re.search(pattern, line) for pattern in self.expected)]


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def fuse_missing() -> str:
    """Why real mounts cannot be made here; empty where they can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no mount without a readable and writable /dev/fuse on this machine"
    return ""


class Mounts:
    """Makes mounts for one test, and takes them down after it whatever happened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Mount] = []

    def __call__(self, repository: Path, *options: str | Path) -> Mount:
        """Mount `repository` on a new folder with `arborfs mount REPOSITORY FOLDER OPTIONS…`."""
        place = self._folder / f"mount{len(self._made)}"
        place.mkdir(parents=True, exist_ok=True)
        log = self._folder / f"{place.name}.log"
        arborfs("mount", repository, place, "--log", log, *options)
        mount = Mount(place, repository, daemon_of(place), log)
        mount.watchdog = threading.Timer(HANG, self._free, (mount,))
        mount.watchdog.daemon = True
        mount.watchdog.start()
        self._made.append(mount)
        return mount

    @staticmethod
    def _free(mount: Mount) -> None:
        """End a daemon that has hung, so that the test which waits on it can fail."""
        if alive(mount.pid):
            os.kill(mount.pid, signal.SIGKILL)

    def take_down(self) -> list[str]:
        """Unmount everything; what is wrong afterwards, as text."""
        wrong: list[str] = []
        for mount in reversed(self._made):
            if mount.watchdog is not None:
                mount.watchdog.cancel()
            if is_mounted(mount.path):
                done = arborfs("umount", mount.path, check=False)
                if done.returncode != 0:
                    wrong.append(f"umount {mount.path}: {done.stderr}")
                    subprocess.run(["fusermount3", "-uz", mount.path], check=False)
            wrong += self._remains(mount)
        return wrong

    @staticmethod
    def _remains(mount: Mount) -> list[str]:
        deadline = time.monotonic() + PATIENCE
        while alive(mount.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        wrong = [f"{mount.log.name}: {line}" for line in mount.complaints()]
        if alive(mount.pid):
            os.kill(mount.pid, signal.SIGKILL)
            wrong.append(f"daemon {mount.pid} was still there {PATIENCE:g} s after the unmount")
        return wrong


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounts]:
    """A function that mounts: `mounted(repository, "--ref", "v1.0")` gives a `Mount`.

    After the test everything is unmounted, every daemon is gone, and its log holds no warning, error or
    traceback that the test did not `expect`: otherwise the test fails.
    """
    if reason := fuse_missing():
        pytest.skip(reason)
    mounts = Mounts(tmp_path / "mounts")
    yield mounts
    wrong = mounts.take_down()
    assert not wrong, "\n".join(wrong)


def mount_lines() -> list[str]:
    """The lines of /proc/self/mounts that are FUSE mounts of arborfs."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[2].startswith("fuse") and "arborfs" in " ".join(line.split()[::2])]


def is_mounted(place: Path) -> bool:
    """Whether something of arborfs is mounted at `place`. Never touches `place` itself, which may hang."""
    return any(line.split()[1] == str(place) for line in mount_lines())


def session_processes() -> dict[int, str]:
    """Command lines of the arborfs processes that this test session started, by process id."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            marked = mark in (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # gone meanwhile, or not ours
        if marked and "fusefs.cli" in command and alive(int(folder.name)):
            found[int(folder.name)] = command
    return found


def daemon_of(place: Path) -> int:
    """The process that serves the mount at `place`."""
    found = [pid for pid, command in session_processes().items() if f" {place} " in f"{command} "]
    assert len(found) == 1, f"one daemon should serve {place}, not {found}"
    return found[0]


@pytest.fixture(scope="session", autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of the session no mount and no daemon of ours is left."""
    os.environ[MARK] = uuid.uuid4().hex
    # A shell that starts us in the background has SIGINT ignored, by the programs that we start and interrupt as well.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    # Only below our own folder: other mounts of this machine are none of our business.
    ours = f"{tmp_path_factory.getbasetemp()}/"
    left = {line for line in mount_lines() if line.split()[1].startswith(ours)}
    processes = session_processes()
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    for line in left:
        subprocess.run(["fusermount3", "-uz", line.split()[1]], check=False)
    assert not left, "mounts left by the tests:\n" + "\n".join(sorted(left))
    assert not processes, f"processes left by the tests: {processes}"
