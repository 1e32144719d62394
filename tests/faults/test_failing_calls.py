"""Failing system calls: each write, sync, rename and so on fails once, in turn. The caller is told, nothing that was
acknowledged is lost, and work goes on.

Disks that fail at one chosen call cannot be had for real, so the system's functions are replaced where files are written.
"""

import errno
import fcntl
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from unittest import mock

import pytest

from storage.disk import files
from storage.engine import Engine
from storage.errors import ArborError, NothingToCommit, StorageFailed, StorageFull
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource
from tests.conftest import ADA
from tests.faults.processes import elsewhere

WRITES = frozenset(("pwritev", "pwrite"))
CALLS = WRITES | {"fdatasync", "fsync", "open", "rename", "ftruncate"}
NAMES = ("open", "mkdir", "rename", "unlink", "rmdir")
LARGE = os.urandom(300_000)


class FailingOnce:
    """The module `os`, whose n-th call among `calls` fails with `number`."""

    def __init__(self, step: int, number: int, calls: frozenset[str]) -> None:
        self._step, self._number, self._calls = step, number, calls
        self.failed = ""

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in self._calls:
            return real

        def call(*arguments: object, **options: object) -> object:
            self._step -= 1
            if self._step == 0:
                self.failed = name
                raise OSError(self._number, os.strerror(self._number))
            return real(*arguments, **options)

        return call


class Journal:
    """What was done, and what may be found: for each file the contents acknowledged last and those tried since."""

    def __init__(self) -> None:
        self.allowed: dict[bytes, list[bytes | None]] = {}
        self.commits: list[dict[bytes, list[bytes | None]]] = []
        self.errors: list[StorageFailed | StorageFull] = []

    def put(self, engine: Engine, name: bytes, data: bytes) -> None:
        allowed = self.allowed.setdefault(name, [None])
        allowed.append(data)
        if self._told(lambda: engine.working_tree("main").put_file((name,), BytesSource(data))):
            del allowed[:-1]

    def sync(self, engine: Engine) -> None:
        self._told(engine.sync)

    def commit(self, engine: Engine, message: str) -> None:
        self._told(lambda: engine.working_tree("main").commit(message))

    def _told(self, call) -> bool:
        try:
            call()
        except (StorageFailed, StorageFull) as error:
            self.errors.append(error)
            return False
        except NothingToCommit:
            return False
        return True


def work(engine: Engine, journal: Journal) -> None:
    """Small and large contents, syncs and commits."""
    journal.put(engine, b"small", b"one")
    journal.put(engine, b"large", LARGE)
    journal.sync(engine)
    journal.put(engine, b"small", b"two")
    journal.commit(engine, "first")
    journal.put(engine, b"other", b"three")
    journal.commit(engine, "second")
    journal.put(engine, b"small", b"four")


def check(path: Path, journal: Journal, told: str) -> None:
    with Engine.open(path) as engine:
        tree = engine.working_tree("main")
        there = {}
        for name, _ in tree.entries(()):
            content = tree.open((name,))[1]
            there[name] = bytes(content.read(0, content.size))
        for name, allowed in journal.allowed.items():
            assert there.get(name) in allowed, told
        assert verify(engine) == [], told
        tree.put_file((b"after",), BytesSource(b"x"))
        tree.commit("after")


@pytest.mark.parametrize(
    "number, calls, kind",
    [(errno.EIO, CALLS, StorageFailed), (errno.ENOSPC, WRITES, StorageFull), (errno.EDQUOT, WRITES, StorageFull)],
    ids=["EIO", "ENOSPC", "EDQUOT"],
)
def test_every_call_fails_in_turn(tmp_path, number, calls, kind):
    seen = set()
    for step in count(1):
        path = tmp_path / str(step)
        Engine.create(path, ADA).close()
        journal, system = Journal(), FailingOnce(step, number, calls)
        with Engine.open(path) as engine:
            engine._syncer.stop()  # only the test syncs
            with mock.patch.object(files, "os", system):
                work(engine, journal)
            if system.failed:
                told = f"{system.failed}, call {step}"
                # A journal that cannot be opened to be deleted after its commit is nobody's loss.
                assert journal.errors or system.failed == "open", f"{told}: nobody was told"
                assert all(isinstance(error, kind) for error in journal.errors), told
            if number != errno.EIO:
                # Once there is room again, everything works as before.
                assert len(journal.errors) <= 1
                before = len(journal.errors)
                journal.put(engine, b"small", b"five")
                journal.commit(engine, "third")
                assert len(journal.errors) == before, told
            closes = engine.close
            try:
                closes()
            except (StorageFailed, StorageFull):
                assert number == errno.EIO
        check(path, journal, f"{system.failed}, call {step}")
        if not system.failed:
            break
        seen.add(system.failed)
    assert seen >= WRITES - {"pwrite"}
    assert step > 10


class FailingName:
    """The n-th call on a name below `folder` fails, whichever module makes it: open, mkdir, rename, unlink, rmdir."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._step = folder, step
        self.failed = ""

    def __enter__(self) -> "FailingName":
        self._stack = ExitStack()
        for name in NAMES:
            self._stack.enter_context(mock.patch.object(os, name, self._wrapped(name, getattr(os, name))))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _wrapped(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object, *arguments: object, **options: object) -> object:
            ours = isinstance(path, str | Path) and (options or Path(path).is_relative_to(self._folder))
            caller = called_from() if ours else ""
            if caller:
                self._step -= 1
                if self._step == 0:
                    self.failed = f"{name} {Path(path).name} by {caller}"
                    raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return real(path, *arguments, **options)

        return call


def called_from() -> str:
    """The function of the product that makes a call; empty where a test makes it."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if "/storage/" in frame.f_code.co_filename:
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def lived(path: Path, journal: Journal) -> None:
    """A repository's life over two openings, of which the second finds an index that is none."""
    for name in (b"one", b"two"):
        with Engine.open(path) as engine:
            engine._syncer.stop()
            journal.put(engine, name, LARGE)
            journal.put(engine, b"small", name)
            journal.sync(engine)
            journal.commit(engine, name.decode())
            journal.put(engine, b"small", b"after " + name)
        (path / ".arborfs" / "index" / "data.mdb").write_bytes(b"no index")


def life_with_failure(path: Path, step: int) -> tuple[str, Journal, str]:
    """What failed, what may be found afterwards, and the error that came instead of a documented one."""
    journal, bare = Journal(), ""
    with FailingName(path / ".arborfs", step) as system:
        try:
            lived(path, journal)
        except ArborError as error:
            journal.errors.append(error)
        except OSError as error:
            bare = str(error)
    journal.errors = [ArborError(str(error)) for error in journal.errors]
    return system.failed, journal, bare


def names_fail(folder: Path) -> Iterator[tuple[str, str]]:
    """Every call on a name fails in turn: which it was, and the undocumented error that came of it."""
    for step in count(1):
        path = folder / str(step)
        Engine.create(path, ADA).close()
        # In a process of its own: what it keeps locked is nobody else's business once it has ended.
        failed, journal, bare = elsewhere(partial(life_with_failure, path, step))
        check(path, journal, failed)
        if not failed:
            return
        yield failed, bare


@pytest.fixture(scope="module")
def failed_names() -> Iterator[list[tuple[str, str]]]:
    """In memory: many repositories are made."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield list(names_fail(Path(folder)))


def test_whichever_call_on_a_name_fails_nothing_is_lost(failed_names):
    """Files are opened, made, renamed and removed all over the place."""
    assert {name.split()[0] for name, _ in failed_names} == set(NAMES)


def test_whichever_call_on_a_name_fails_the_error_is_a_documented_one(failed_names):
    assert [name for name, bare in failed_names if bare] == []


def test_a_failed_close_gives_the_lock_back(repository):
    engine = Engine.open(repository)
    failing = FailingOnce(1, errno.EIO, frozenset(("rename",)))
    with mock.patch.object(files, "os", failing), pytest.raises(StorageFailed):
        engine.close()
    with (repository / ".arborfs" / "lock").open("r+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            if engine._presence._fd >= 0:
                os.close(engine._presence._fd)


def test_a_sync_that_failed_is_never_reported_as_fine(tmp_path):
    """Not by another process either; once nobody has the repository open any more, the file is written anew."""
    Engine.create(tmp_path, ADA).close()
    with Engine.open(tmp_path) as engine, Engine.open(tmp_path) as other:
        engine._syncer.stop()
        tree = engine.working_tree("main")
        tree.put_file((b"f",), BytesSource(b"x"))
        failing = FailingOnce(1, errno.EIO, frozenset(("fdatasync",)))
        with mock.patch.object(files, "os", failing), pytest.raises(StorageFailed):
            engine.sync()
        for one in (engine, other, engine):
            with pytest.raises(StorageFailed, match="could not be synced before"):
                one.sync()
        with pytest.raises(StorageFailed):
            tree.commit("must not be promised")
        for one in (engine, other):
            with pytest.raises(StorageFailed):
                one.close()
    assert b'"clean":false' in (tmp_path / ".arborfs" / "state.json").read_bytes()
    journal = next((tmp_path / ".arborfs" / "segments").glob("*.journal"))
    before = journal.stat().st_ino
    with Engine.open(tmp_path) as engine:
        assert journal.stat().st_ino != before
        engine.sync()
        tree = engine.working_tree("main")
        assert bytes(tree.open((b"f",))[1].read(0, 10)) == b"x"
        tree.commit("now it is")
    assert b'"clean":true' in (tmp_path / ".arborfs" / "state.json").read_bytes()
