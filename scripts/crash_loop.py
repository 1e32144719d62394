"""Kills the daemon of a mount at random moments under load, again and again, and checks what it had promised.

In each round several writers work on a mounted branch, one more through the API, and one commits. Each notes what it
tries before it tries, and what was acknowledged once it was. Then the daemon is killed with SIGKILL. The writers must
end, not hang. The next mount at the same place must simply work, and show of every file the contents that were
acknowledged last or some that were tried after; every acknowledged commit must be in the log; `verify` must be clean.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from storage.engine import Engine
from storage.maintenance.verify import verify
from storage.model.records import Author
from storage.model.samples import BytesSource

ROUNDS_EACH = 20
"""A repository is used for so many rounds."""
PATIENCE = 30.0


class Broken(Exception):
    """A promise was not kept."""


class Notes:
    """What may be found at each path: the contents acknowledged last, and everything tried since. None: nothing."""

    def __init__(self) -> None:
        self._allowed: dict[str, list[bytes | None]] = {}
        self._lock = threading.Lock()
        self.messages: list[str] = []

    def trying(self, path: str, data: bytes | None) -> None:
        with self._lock:
            allowed = self._allowed.setdefault(path, [None])
            # A new file is there, and empty, before it is filled: that was acknowledged on its own.
            allowed += [b"", data] if None in allowed and data is not None else [data]

    def acknowledged(self, path: str) -> None:
        with self._lock:
            del self._allowed[path][:-1]

    def check(self, main: Path) -> None:
        """Hold what is there against the notes, and go on from it."""
        for path, allowed in self._allowed.items():
            file = main / path
            found = file.read_bytes() if file.exists() else None
            if found not in allowed:
                told = [None if data is None else (len(data), data[:20]) for data in allowed]
                raise Broken(f"{path}: found {None if found is None else (len(found), found[:20])}, allowed {told}")
            self._allowed[path] = [found]


class Load:
    """The writers of one round."""

    def __init__(self, repository: Path, main: Path, notes: Notes, rng: random.Random) -> None:
        self._repository, self._main, self._notes = repository, main, notes
        self._seeds = [rng.random() for _ in range(6)]
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.unexpected: list[BaseException] = []

    def start(self) -> None:
        jobs = [self._rewrite, self._append, self._replace, self._grow, self._commit, self._api]
        for job, seed in zip(jobs, self._seeds, strict=True):
            thread = threading.Thread(target=self._run, args=(job, random.Random(seed)), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """The daemon is gone: every writer must find that out."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                raise Broken("a program hangs on a mount whose daemon was killed")
        if self.unexpected:
            raise Broken(f"a program met an error while the daemon was alive: {self.unexpected[0]!r}")

    def _run(self, job: Callable[[random.Random], None], rng: random.Random) -> None:
        try:
            while not self._over.is_set():
                job(rng)
        except OSError as error:
            # Reports from a daemon that dies come as ENOTCONN or ECONNABORTED, and the moment is not ours to see.
            time.sleep(0.2)
            if not self._over.is_set():
                self.unexpected.append(error)

    def _rewrite(self, rng: random.Random) -> None:
        path = f"rewritten/{rng.randrange(10)}"
        data = rng.randbytes(rng.choice([10, 3000, 50_000, 300_000]))
        self._notes.trying(path, data)
        (self._main / path).write_bytes(data)
        self._notes.acknowledged(path)

    def _append(self, rng: random.Random) -> None:
        path = f"appended/{rng.randrange(3)}"
        before = (self._main / path).read_bytes() if (self._main / path).exists() else b""
        line = b"%d " % rng.randrange(10**6)
        self._notes.trying(path, before + line)
        with (self._main / path).open("ab", buffering=0) as file:
            file.write(line)
            if rng.random() < 0.1:
                os.fsync(file.fileno())
                self._notes.acknowledged(path)
        self._notes.acknowledged(path)

    def _replace(self, rng: random.Random) -> None:
        path, data = f"replaced/{rng.randrange(5)}", rng.randbytes(rng.randrange(10_000))
        temporary = self._main / "replaced" / ".temporary"
        temporary.write_bytes(data)
        self._notes.trying(path, data)
        temporary.rename(self._main / path)
        self._notes.acknowledged(path)

    def _grow(self, rng: random.Random) -> None:
        folder = f"grown/{rng.randrange(10**9)}"
        (self._main / folder).mkdir()
        for number in range(5):
            path, data = f"{folder}/{number}", rng.randbytes(rng.randrange(8000))
            self._notes.trying(path, data)
            (self._main / path).write_bytes(data)
            self._notes.acknowledged(path)
        gone = f"{folder}/0"
        self._notes.trying(gone, None)
        (self._main / gone).unlink()
        self._notes.acknowledged(gone)

    def _commit(self, rng: random.Random) -> None:
        message = f"message {rng.randrange(10**9)}"
        time.sleep(rng.random() * 0.05)
        (self._main / ".arborfs" / "commit").write_text(message)
        self._notes.messages.append(message)

    def _api(self, rng: random.Random) -> None:
        with Engine.open(self._repository) as engine:
            tree = engine.working_tree("main")
            while not self._over.is_set():
                path, data = f"api/{rng.randrange(10)}", rng.randbytes(rng.choice([10, 5000, 300_000]))
                self._notes.trying(path, data)
                tree.put_file(tuple(part.encode() for part in path.split("/")), BytesSource(data))
                self._notes.acknowledged(path)


def arborfs(*arguments: str | Path) -> str:
    """Run the command line; Broken when it fails."""
    command = [sys.executable, "-m", "fusefs.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Broken(f"arborfs {arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def daemon(point: Path) -> int:
    """The process that serves a mount."""
    return next(int(m["pid"]) for m in json.loads(arborfs("mounts", "--json")) if m["mountpoint"] == str(point))


def _examine(repository: Path, notes: Notes) -> None:
    """What is there without a mount: a sound repository, with every commit that was acknowledged."""
    with Engine.open(repository) as engine:
        problems = verify(engine)
        if problems:
            raise Broken(f"verify found: {problems}")
        tip = engine.branches()["main"]
        messages = {commit.message for _, commit in engine.log(tip)} if tip else set()
    if not messages.issuperset(notes.messages):
        raise Broken(f"acknowledged commits are not in the log: {set(notes.messages) - messages}")


def series(folder: Path, rounds: int, rng: random.Random, told: Callable[[str], None]) -> None:
    """So many rounds on one repository. Broken names the promise that was not kept."""
    repository, point = folder / "repository", folder / "mount"
    point.mkdir(parents=True)
    Engine.create(repository, Author("Crash", "crash@example.org")).close()
    notes = Notes()
    try:
        for number in range(rounds):
            arborfs("mount", repository, point, "--log", folder / "log")
            main = point / "branches" / "main"
            notes.check(main)
            for name in ("rewritten", "appended", "replaced", "grown", "api"):
                (main / name).mkdir(exist_ok=True)
            load = Load(repository, main, notes, rng)
            load.start()
            time.sleep(0.05 + rng.random() * 0.6)
            os.kill(daemon(point), signal.SIGKILL)
            load.stop()
            _examine(repository, notes)
            told(f"round {number + 1}")
        arborfs("mount", repository, point, "--log", folder / "log")
        notes.check(point / "branches" / "main")
    finally:
        subprocess.run([sys.executable, "-m", "fusefs.cli", "umount", str(point)], capture_output=True)
    if " ERROR " in (folder / "log").read_text():
        raise Broken(f"the daemon logged an error:\n{(folder / 'log').read_text()}")


def main() -> None:
    """Run the rounds asked for; the exit code is 1 when a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    done, started = 0, time.monotonic()
    try:
        while done < arguments.rounds:
            rounds = min(ROUNDS_EACH, arguments.rounds - done)
            with tempfile.TemporaryDirectory(prefix="arborfs-crash-") as folder:
                series(Path(folder), rounds, rng, lambda told: None)
            done += rounds
            print(f"{done} rounds, {time.monotonic() - started:.0f} s: every promise kept", flush=True)
    except Broken as error:
        sys.exit(f"after {done} rounds, seed {arguments.seed}: {error}")


if __name__ == "__main__":
    main()
