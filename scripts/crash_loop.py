"""Kills the daemon of a mount at random moments under load, again and again, and checks what it had promised.

In each round several threads and a process write to a mounted branch, another process writes and commits through the
API, and a thread commits through the mount, while yet another process collects garbage. Each notes what it tries
before it tries, and what was acknowledged once it was. Then the daemon is killed with SIGKILL, the collector too, in
half of the rounds before it, and in half of the rounds the API's process, before or after. The others must end, not
hang, and with no error but those that a dead daemon gives. The next mount at the same place must simply work, and
show at every path what was acknowledged last or something that was tried after, and nothing else. Every acknowledged
commit must be in the log, no commit that nobody tried, and each must hold what was there when it was made; `verify`
must be clean.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path

from fusefs.cli.daemons import daemon_of
from fusefs.mountinfo import mounted_at
from storage.engine import Engine
from storage.errors import NothingToCommit
from storage.maintenance.gc import SECOND, Policy, gc
from storage.maintenance.verify import verify
from storage.model.digest import Digest
from storage.model.records import Author
from storage.model.samples import BytesSource
from storage.snapshot import Snapshot

ROUNDS_EACH = 20
"""A repository is used for so many rounds."""
PATIENCE = 30.0
POLICY = Policy(keep=0, grace=5 * SECOND)
"""What gc deletes: whatever nothing has led to for longer than any call takes."""
FOLDERS = ("rewritten", "appended", "replaced", "grown", "api", "process")

LEGAL = {
    errno.ENOTCONN: "the kernel's answer to every call once the daemon is gone",
    errno.ECONNABORTED: "the kernel's answer to calls that the daemon had not answered when it went",
}
"""The errors that calls on a mount may end with once its daemon was killed, and why."""


class Broken(Exception):
    """A promise was not kept."""


@dataclass(frozen=True)
class Folder:
    """What a path holds that is a directory."""


Thing = bytes | Folder | None
"""Contents, a directory, nothing."""


@dataclass
class Version:
    """What a path held or may have held: since when it was tried, and when it was acknowledged."""

    thing: Thing
    tried: float
    acknowledged: float = inf


@dataclass
class Attempt:
    """A commit: when it was tried, and when it was acknowledged."""

    tried: float
    acknowledged: float = inf


@dataclass
class Notes:
    """What may be found at each path, and what commits there may be. One writer a path; thread-safe."""

    commits: dict[str, Attempt] = field(default_factory=dict)
    """By message."""
    _versions: dict[str, list[Version]] = field(default_factory=dict)
    _checked: set[Digest] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def trying(self, path: str, thing: Thing, when: float) -> None:
        with self._lock:
            versions = self._versions.setdefault(path, [Version(None, -inf, -inf)])
            if isinstance(thing, bytes) and None in [version.thing for version in _latest(versions)]:
                # A new file is there, and empty, before it is filled: that was acknowledged on its own.
                versions.append(Version(b"", when))
            versions.append(Version(thing, when))

    def acknowledged(self, path: str, when: float) -> None:
        with self._lock:
            self._versions[path][-1].acknowledged = when

    def check_tree(self, main: Path) -> None:
        """Hold what is mounted against the notes, and go on from it."""
        there = dict(_walk(main))
        for path in there.keys() | self._versions.keys():
            versions = self._versions.get(path, [Version(None, -inf, -inf)])
            found = there.get(path)
            _require(f"{path} in the working tree", found, [version.thing for version in _latest(versions)])
            self._versions[path] = [Version(found, -inf, -inf)]

    def check_commits(self, engine: Engine) -> None:
        """Hold the commits that are new against the notes: which there are, and what is in each."""
        tip = engine.branches()["main"]
        commits = {commit.message: digest for digest, commit in engine.log(tip)} if tip else {}
        acknowledged = {message for message, attempt in self.commits.items() if attempt.acknowledged < inf}
        if not commits.keys() >= acknowledged:
            raise Broken(f"acknowledged commits are not in the log: {acknowledged - commits.keys()}")
        if not self.commits.keys() >= commits.keys():
            raise Broken(f"commits in the log that nobody tried: {commits.keys() - self.commits.keys()}")
        trees = Trees()
        for message, digest in commits.items():
            if digest not in self._checked:
                self._checked.add(digest)
                self._check_commit(message, trees.of(engine.snapshot(digest)))

    def _check_commit(self, message: str, there: dict[str, Thing]) -> None:
        attempt = self.commits[message]
        for path in there.keys() | self._versions.keys():
            versions = self._versions.get(path, [Version(None, -inf, -inf)])
            latest = _latest(versions, attempt.tried)
            allowed = [version.thing for version in latest if version.tried <= attempt.acknowledged]
            _require(f"{path} in commit {message!r}", there.get(path), allowed)


def _latest(versions: list[Version], when: float = inf) -> list[Version]:
    """The version that was the last one acknowledged before `when`, and those tried after it."""
    known = [number for number, version in enumerate(versions) if version.acknowledged < when]
    return versions[known[-1] :]


def _require(what: str, found: Thing, allowed: list[Thing]) -> None:
    if found not in allowed:
        told = [_shown(thing) for thing in allowed]
        raise Broken(f"{what}: found {_shown(found)}, allowed {told}")


def _shown(thing: Thing) -> object:
    return (len(thing), thing[:20]) if isinstance(thing, bytes) else thing


def _walk(main: Path) -> Iterator[tuple[str, Thing]]:
    for folder, folders, files in os.walk(main):
        for name in folders:
            yield str(Path(folder, name).relative_to(main)), Folder()
        for name in files:
            yield str(Path(folder, name).relative_to(main)), Path(folder, name).read_bytes()


class Trees:
    """Reads commits; what many of them share is read once."""

    def __init__(self) -> None:
        self._known: dict[Digest, dict[str, Thing]] = {}

    def of(self, snapshot: Snapshot) -> dict[str, Thing]:
        """Everything in a commit, by path."""
        return self._below(snapshot, ())

    def _below(self, snapshot: Snapshot, path: tuple[bytes, ...]) -> dict[str, Thing]:
        root = snapshot.entry(path).root
        if root not in self._known:
            found: dict[str, Thing] = {}
            for name, entry in snapshot.entries(path):
                if entry.is_directory:
                    below = self._below(snapshot, (*path, name))
                    found[name.decode()] = Folder()
                    found.update({f"{name.decode()}/{other}": thing for other, thing in below.items()})
                else:
                    found[name.decode()] = bytes(snapshot.content(entry).read(0, entry.size))
            self._known[root] = found
        return self._known[root]


class Pen:
    """How a writer notes what it does: in the notes, or through a pipe to the process that has them."""

    def __init__(self, note: Callable[[str, str, Thing, float], None]) -> None:
        self._note = note

    def trying(self, path: str, thing: Thing) -> None:
        """Before it is tried."""
        self._note("trying", path, thing, time.monotonic())

    def acknowledged(self, path: str) -> None:
        """Once it has succeeded."""
        self._note("acknowledged", path, None, time.monotonic())

    def committing(self, message: str) -> None:
        """Before a commit."""
        self._note("committing", message, None, time.monotonic())

    def committed(self, message: str) -> None:
        """Once the commit was made."""
        self._note("committed", message, None, time.monotonic())


def note(notes: Notes, what: str, name: str, thing: Thing, when: float) -> None:
    """Enter into the notes what a writer says."""
    if what == "trying":
        notes.trying(name, thing, when)
    elif what == "acknowledged":
        notes.acknowledged(name, when)
    elif what == "committing":
        notes.commits[name] = Attempt(when)
    elif what == "committed":
        notes.commits[name].acknowledged = when


# The writers. Each does one thing to the mount, again and again.


def rewrite(main: Path, pen: Pen, rng: random.Random, folder: str = "rewritten") -> None:
    """A file is written anew in place."""
    path = f"{folder}/{rng.randrange(10)}"
    data = rng.randbytes(rng.choice([10, 3000, 50_000, 300_000]))
    pen.trying(path, data)
    (main / path).write_bytes(data)
    pen.acknowledged(path)


def append(main: Path, pen: Pen, rng: random.Random) -> None:
    """A line more, sometimes synced."""
    path = f"appended/{rng.randrange(3)}"
    before = (main / path).read_bytes() if (main / path).exists() else b""
    line = b"%d " % rng.randrange(10**6)
    pen.trying(path, before + line)
    with (main / path).open("ab", buffering=0) as file:
        file.write(line)
        if rng.random() < 0.1:
            os.fsync(file.fileno())
            pen.acknowledged(path)
    pen.acknowledged(path)


def replace(main: Path, pen: Pen, rng: random.Random, folder: str = "replaced") -> None:
    """A file is written beside another and renamed over it."""
    path, data = f"{folder}/{rng.randrange(5)}", rng.randbytes(rng.randrange(10_000))
    temporary = f"{folder}/.temporary"
    pen.trying(temporary, data)
    (main / temporary).write_bytes(data)
    pen.acknowledged(temporary)
    pen.trying(path, data)
    pen.trying(temporary, None)
    (main / temporary).rename(main / path)
    pen.acknowledged(path)
    pen.acknowledged(temporary)


def grow(main: Path, pen: Pen, rng: random.Random) -> None:
    """A new folder with new files, of which one is removed again."""
    folder = f"grown/{rng.randrange(10**9)}"
    pen.trying(folder, Folder())
    (main / folder).mkdir()
    pen.acknowledged(folder)
    for number in range(5):
        path, data = f"{folder}/{number}", rng.randbytes(rng.randrange(8000))
        pen.trying(path, data)
        (main / path).write_bytes(data)
        pen.acknowledged(path)
    gone = f"{folder}/0"
    pen.trying(gone, None)
    (main / gone).unlink()
    pen.acknowledged(gone)


def commit(main: Path, pen: Pen, rng: random.Random) -> None:
    """A commit by the mount's control file."""
    message = f"message {rng.randrange(10**9)}"
    time.sleep(rng.random() * 0.05)
    pen.committing(message)
    try:
        (main / ".arborfs" / "commit").write_text(message)
    except OSError as error:
        if error.errno != errno.ENODATA:  # nothing was staged: said by a daemon that lives
            raise
        return
    pen.committed(message)


def in_process(main: Path, pen: Pen, rng: random.Random) -> None:
    """What a process of its own does to the mount."""
    rng.choice([rewrite, replace])(main, pen, rng, "process")


def by_api(repository: Path, pipe: Connection, over: Callable[[], bool], seed: float) -> None:
    """What a process does through the API until it is killed, or told to end. Nothing here may fail."""
    pen, rng = _pen_to(pipe), random.Random(seed)
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        while not over():
            path, data = f"api/{rng.randrange(10)}", rng.randbytes(rng.choice([10, 5000, 300_000]))
            pen.trying(path, data)
            tree.put_file(tuple(part.encode() for part in path.split("/")), BytesSource(data))
            pen.acknowledged(path)
            if rng.random() < 0.1:
                message = f"api {rng.randrange(10**9)}"
                pen.committing(message)
                with suppress(NothingToCommit):  # somebody else has just committed it
                    tree.commit(message)
                    pen.committed(message)


def collect(repository: Path, pipe: Connection, over: Callable[[], bool], seed: float) -> None:
    """Garbage is collected, again and again. Nothing here may fail."""
    while not over():
        gc(repository, POLICY)


def on_mount(main: Path, pipe: Connection, over: Callable[[], bool], seed: float) -> None:
    """What a process of its own does to the mount; its error goes through the pipe, with the time."""
    pen, rng = _pen_to(pipe), random.Random(seed)
    try:
        while not over():
            in_process(main, pen, rng)
    except OSError as error:
        pipe.send(("failed", str(error.errno), None, time.monotonic()))


def _pen_to(pipe: Connection) -> Pen:
    return Pen(lambda *what: pipe.send(what))


class Program:
    """A writer in a process of its own, whose notes come through a pipe, also what it wrote there before it was killed."""

    def __init__(
        self,
        run: Callable[[Path, Connection, Callable[[], bool], float], None],
        place: Path,
        notes: Notes,
        seed: float,
    ) -> None:
        # Forked: starting Python anew takes longer than a round.
        forked = multiprocessing.get_context("fork")
        self._pipe, theirs = forked.Pipe(duplex=False)
        self._over = forked.Event()
        self._notes = notes
        self.failures: list[tuple[str, int, float]] = []
        self.process = forked.Process(target=run, args=(place, theirs, self._over.is_set, seed), daemon=True)
        self.process.start()
        theirs.close()

    def take_notes(self) -> None:
        """Until the process has ended."""
        while (said := self._said()) is not None:
            what, name, thing, when = said
            if what == "failed":
                self.failures.append((self.process.name, int(name), when))
            else:
                note(self._notes, what, name, thing, when)

    def _said(self) -> tuple[str, str, Thing, float] | None:
        try:
            said: tuple[str, str, Thing, float] = self._pipe.recv()
        except EOFError:
            return None
        except OSError as error:
            if error.errno is None:  # killed in the middle of a note: what it was about had not begun
                return None
            raise
        return said

    def kill(self) -> None:
        """At once, whatever it is doing."""
        self.process.kill()

    def end(self) -> None:
        """Ask it to end, and wait for that."""
        self._over.set()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            raise Broken(f"{self.process.name} hangs")
        if self.process.exitcode not in (0, -signal.SIGKILL):
            raise Broken(f"{self.process.name} ended with {self.process.exitcode}: what it says stands above")


class Load:
    """The writers of one round."""

    def __init__(self, repository: Path, main: Path, notes: Notes, rng: random.Random) -> None:
        self._main, self._notes, self._rng = main, notes, rng
        self._over = threading.Event()
        self._failures: list[tuple[str, int, float]] = []
        # Before any thread is there.
        self._api = Program(by_api, repository, notes, rng.random())
        self._client = Program(on_mount, main, notes, rng.random())
        self._collector = Program(collect, repository, notes, rng.random())
        self._threads = ThreadPoolExecutor(16)
        self._pending: list[Future[None]] = [
            self._threads.submit(program.take_notes) for program in (self._api, self._client, self._collector)
        ]
        for job in (rewrite, append, replace, grow, commit):
            self._pending.append(self._threads.submit(self._run, job, random.Random(rng.random())))

    def _run(self, job: Callable[[Path, Pen, random.Random], None], rng: random.Random) -> None:
        pen = Pen(lambda *what: note(self._notes, *what))
        try:
            while not self._over.is_set():
                job(self._main, pen, rng)
        except OSError as error:
            self._failures.append((job.__name__, error.errno or 0, time.monotonic()))

    def kill(self, daemon: int) -> Counter[int]:
        """Kill the daemon, and perhaps the API's process before or after; how often calls ended with which error."""
        first, between, victim = self._rng.random() * 0.7, self._rng.random() * 0.2, self._rng.randrange(4)
        collecting = self._rng.random() * 2 * (0.1 + first)
        time.sleep(min(collecting, 0.1 + first))
        if collecting < 0.1 + first:
            self._collector.kill()
            time.sleep(0.1 + first - collecting)
        if victim == 0:
            self._api.kill()
            time.sleep(between)
        killed = time.monotonic()
        os.kill(daemon, signal.SIGKILL)
        if victim == 1:
            time.sleep(between)
            self._api.kill()
        self._collector.kill()
        self._end()
        return self._judged(killed)

    def _end(self) -> None:
        """The daemon is gone: every writer must find that out, and none may have failed in another way."""
        self._over.set()
        self._client.end()
        self._api.end()
        self._collector.end()
        for future in self._pending:
            try:
                future.result(PATIENCE)
            except TimeoutError:
                raise Broken("a program hangs on a mount whose daemon was killed") from None
            finally:
                self._threads.shutdown(wait=False)

    def _judged(self, killed: float) -> Counter[int]:
        failures = self._failures + self._api.failures + self._client.failures
        for who, number, when in failures:
            if when < killed:
                raise Broken(f"{who} met {errno.errorcode.get(number, number)} while the daemon was alive")
            if number not in LEGAL:
                raise Broken(f"{who} met {errno.errorcode.get(number, number)} when the daemon was killed")
        return Counter(number for _, number, _ in failures)


def arborfs(*arguments: str | Path) -> str:
    """Run the command line; Broken when it fails."""
    command = [sys.executable, "-m", "fusefs.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Broken(f"arborfs {arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def daemon(point: Path) -> int:
    """The process that serves a mount."""
    mount = mounted_at(point)
    serving = daemon_of(mount) if mount is not None else None
    if serving is None:
        raise Broken(f"nothing serves {point}, just after it was mounted")
    return serving.process.pid


def _examine(repository: Path, notes: Notes) -> None:
    """What is there without a mount: a sound repository, with every commit that was acknowledged."""
    with Engine.open(repository) as engine:
        problems = verify(engine)
        if problems:
            raise Broken(f"verify found: {problems}")
        notes.check_commits(engine)


def _make_folders(main: Path, notes: Notes) -> None:
    pen = Pen(lambda *what: note(notes, *what))
    for name in FOLDERS:
        if not (main / name).exists():
            pen.trying(name, Folder())
            (main / name).mkdir()
            pen.acknowledged(name)


def series(folder: Path, rounds: int, rng: random.Random, told: Callable[[str], None]) -> Counter[int]:
    """So many rounds on one repository; how often calls ended with which error. Broken names the promise not kept."""
    repository, point = folder / "repository", folder / "mount"
    main = point / "branches" / "main"
    point.mkdir(parents=True)
    Engine.create(repository, Author("Crash", "crash@example.org")).close()
    notes, met = Notes(), Counter[int]()
    try:
        for number in range(rounds):
            arborfs("mount", repository, point, "--log", folder / "log")
            notes.check_tree(main)
            _make_folders(main, notes)
            serving = daemon(point)
            met += Load(repository, main, notes, rng).kill(serving)
            _examine(repository, notes)
            told(f"round {number + 1}: {len(notes.commits)} commits")
        gc(repository, Policy(keep=0, grace=0))
        _examine(repository, notes)
        arborfs("mount", repository, point, "--log", folder / "log")
        notes.check_tree(main)
    except Broken as error:
        raise Broken(f"{error}; the daemon's log:\n{(folder / 'log').read_text()}") from error
    finally:
        subprocess.run([sys.executable, "-m", "fusefs.cli", "umount", str(point)], capture_output=True)
    if " ERROR " in (folder / "log").read_text():
        raise Broken(f"the daemon logged an error:\n{(folder / 'log').read_text()}")
    return met


def main() -> None:
    """Run the rounds asked for; the exit code is 1 when a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    done, started, met = 0, time.monotonic(), Counter[int]()
    try:
        while done < arguments.rounds:
            rounds = min(ROUNDS_EACH, arguments.rounds - done)
            with tempfile.TemporaryDirectory(prefix="arborfs-crash-") as folder:
                met += series(Path(folder), rounds, rng, lambda told: None)
            done += rounds
            errors = ", ".join(f"{count} {errno.errorcode[number]}" for number, count in met.items())
            print(f"{done} rounds, {time.monotonic() - started:.0f} s: every promise kept; {errors}", flush=True)
    except Broken as error:
        sys.exit(f"after {done} rounds, seed {arguments.seed}: {error}")


if __name__ == "__main__":
    main()
