"""Lets programs that were made to break file systems work on a mount, for as long as one likes.

    scripts/soak 10m
    scripts/soak 30s --only fio --only stress-ng:rename

The programs are stress-ng's file-system stressors, fio with verification, and dbench. They take turns on a branch of a
fresh repository on a real disk; each turn is as long as the program's weight says. What fails on the mount is run in a
plain directory of the same disk: what fails there too is a limit of the test, and is told, but is no failure. After each
program the daemon must live and its log hold no error; after each round there is a commit; at the end `verify` must be
clean, and a new mount show every file as it was.

The exit code is 0 when all of that held, 1 when it did not (the repository is kept, and named), 2 when there is nothing
that could be run. Ctrl-C and SIGTERM end it early and leave nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from scripts.soak_programs import PATIENCE, Program, Result, Turn, programs

SHORTEST, LONGEST = 1.0, 10.0
"""Seconds of a turn of weight 1."""
ROUNDS = 3
"""So many rounds, where the time allows: the first fills caches, and growth from there on needs two more to be seen."""
COMPLAINT = re.compile(r" (ERROR|CRITICAL) |^Traceback ")


# --- running ------------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """Ctrl-C or SIGTERM came."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


class Broken(Exception):
    """The mount is no longer one on which programs could be run."""


class Signals:
    """Turns SIGINT and SIGTERM into `Stopped`, but never in the middle of mounting and unmounting."""

    def __init__(self) -> None:
        self._held = 0
        self._waiting: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._came)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        if self._held:
            self._waiting = number
        else:
            raise Stopped(number)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What comes meanwhile is raised afterwards; a second one while cleaning up changes nothing."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._waiting is not None and not self._held:
            waiting, self._waiting = self._waiting, None
            raise Stopped(waiting)


MARK = "ARBORFS_SOAK"
"""In the environment of every program that is run, with our process id: its jobs may leave its process group."""


def call(command: list[str], folder: Path, seconds: float) -> tuple[int, str]:
    """Run a program in a folder; its exit code and all that it printed. Whatever it started has ended afterwards.

    One that hangs is ended after `seconds`, with a negative exit code. Broken when it cannot be ended.
    """
    # A session of its own, so that Ctrl-C comes to us alone.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        cwd=folder,
        env=os.environ | {MARK: str(os.getpid())},
    )
    output = ""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end_programs(process.pid)
        if running(process.pid):
            raise Broken(f"{shlex.join(command)} hangs and cannot be ended: the mount does not answer") from None
        output = f"hung: ended after {seconds:.0f} s\n{process.communicate()[0]}"
    finally:
        end_programs(process.pid)
        process.poll()
    return (-1 if process.returncode is None else process.returncode), output


def running(session: int | None = None) -> list[int]:
    """The programs that `call` started and that have not ended, with all that they started.

    fio's jobs leave the session, stress-ng's workers write their names over their environment: either tells.
    """
    mark, found = f"{MARK}={os.getpid()}".encode(), []
    for pid in (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()):
        try:
            state, _, _, own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            marked = int(own) == session or mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile, or someone else's
        if marked and state not in "ZX":
            found.append(pid)
    return found


def end_programs(session: int | None = None) -> None:
    """End what runs: asked first, so that it can remove what is not in its folder (shared memory), then made to."""
    for number, seconds in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + seconds
        for pid in running(session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while running(session) and time.monotonic() < deadline:
            time.sleep(0.02)


def run(program: Program, turn: Turn) -> Result:
    """A program's turn."""
    deadline = time.monotonic() + turn.seconds
    result = _once(program, turn)
    while result.state == "ok" and program.repeats and time.monotonic() < deadline:
        turn = Turn(turn.folder, turn.seconds, turn.seed + 1)
        again = _once(program, turn)
        result = Result(again.state, result.operations + again.operations, again.told, again.output)
    return result


def _once(program: Program, turn: Turn) -> Result:
    operations = 0
    for command in program.commands(turn):
        code, output = call(command, turn.folder, turn.seconds + PATIENCE)
        result = program.judge(code, output)
        operations += result.operations
        if result.state not in ("ok", "idle"):
            return Result(result.state, operations, result.told, f"$ {shlex.join(command)}\n{result.output}")
    return Result("ok" if operations else "idle", operations)


# --- the mount ----------------------------------------------------------------------------------------------------


def arborfs(*arguments: str | Path, check: bool = True, seconds: float = 600) -> str:
    """Run the command line; Broken when it fails, unless that does not matter."""
    command = [sys.executable, "-m", "fusefs.cli", *map(str, arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise Broken(f"{shlex.join(command[2:])} hangs") from None
    if check and done.returncode:
        raise Broken(f"{shlex.join(command[2:])} ended with {done.returncode}: {done.stdout}{done.stderr}".rstrip())
    return done.stdout


class Mount:
    """A repository and its mount, watched."""

    def __init__(self, folder: Path, signals: Signals) -> None:
        self._signals = signals
        self.repository, self.point, self.log = folder / "repository", folder / "mount", folder / "daemon.log"
        self.pid = 0
        self.peak = 0
        self._seen = 0
        self.point.mkdir()
        arborfs("init", self.repository, "--name", "Soak", "--email", "soak@example.org")

    @property
    def main(self) -> Path:
        """The branch on which the programs work."""
        return self.point / "branches" / "main"

    def mount(self) -> None:
        """Mount, and know the daemon."""
        with self._signals.held():
            arborfs("mount", self.repository, self.point, "--log", self.log)
            listed = json.loads(arborfs("mounts", "--json"))
            self.pid = next(int(row["pid"]) for row in listed if row["mountpoint"] == str(self.point))

    def check(self) -> None:
        """Broken when the daemon is gone or hangs, or its log tells of an error that was not told before."""
        told = self.log.read_text(errors="replace")
        fresh, self._seen = told[self._seen :], len(told)
        if errors := [line for line in fresh.splitlines() if COMPLAINT.search(line)]:
            raise Broken(f"the daemon's log has an error: {errors[0]}")
        if not Path(f"/proc/{self.pid}/exe").exists():
            raise Broken("the daemon is gone")
        # Asked by a process that can be ended: whoever asks a daemon that hangs does not come back.
        if call(["stat", "--file-system", str(self.main)], self.log.parent, PATIENCE)[0]:
            raise Broken("the daemon does not answer")

    def memory(self) -> int:
        """The most that the daemon had in memory since the last call, in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]
        self.peak = max(self.peak, peak)
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # VmHWM starts anew from what is in memory now
        return peak

    def unmount(self) -> None:
        """Unmount and see the daemon gone."""
        with self._signals.held():
            arborfs("umount", self.point)
            self.pid = 0

    def take_down(self) -> None:
        """Unmount whatever state it is in. Never fails, never touches the mount point, which may hang."""
        with contextlib.suppress(Broken):
            arborfs("umount", self.point, check=False, seconds=60)
        if self.pid and Path(f"/proc/{self.pid}/exe").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if str(self.point) in Path("/proc/self/mounts").read_text():
            subprocess.run(["fusermount3", "-uz", str(self.point)], check=False, capture_output=True)


def digests(tree: Path) -> dict[str, str]:
    """The digest of every file below a directory."""
    files = [path for path in tree.rglob("*") if path.is_file()]
    return {str(path.relative_to(tree)): hashlib.blake2b(path.read_bytes()).hexdigest() for path in sorted(files)}


# --- the soak -----------------------------------------------------------------------------------------------------


@dataclass
class Soak:
    """Turns of programs on a mount, and what came of them."""

    mount: Mount
    plain: Path
    chosen: list[Program]
    seconds: float
    rng: random.Random
    results: dict[str, list[Result]] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Round after round until the time is over, then what must hold at the end."""
        weights = sum(program.weight for program in self.chosen)
        unit = min(LONGEST, max(SHORTEST, self.seconds / (ROUNDS * weights)))
        self.mount.mount()
        started = time.monotonic()
        deadline = started + self.seconds
        while time.monotonic() < deadline:
            number = len(self.memory) + 1
            print(f"round {number}, {time.monotonic() - started:.0f} s", flush=True)
            for program in self.rng.sample(self.chosen, len(self.chosen)):
                if time.monotonic() < deadline:
                    self._turn(program, unit * program.weight, deadline - time.monotonic(), first=number == 1)
            self._commit(f"round {number}")
            self.memory.append(self.mount.memory())
        self._finish()

    def _turn(self, program: Program, share: float, left: float, *, first: bool) -> None:
        """One turn of one program; a failure on the mount is tried on the disk."""
        if share < program.least and not (first and program.least <= self.seconds / 6):
            return
        seconds = max(1, round(min(max(share, program.least), left)))
        seed, began = self.rng.randrange(1, 2**31), time.monotonic()
        result = run(program, Turn(self._folder(self.mount.main, program), seconds, seed))
        took = time.monotonic() - began
        if result.state == "FAILED":
            result = self._compare(program, seconds, seed, result)
        self.results.setdefault(program.name, []).append(result)
        told = f": {result.told}" if result.told else ""
        print(f"  {program.name:<32}{took:6.1f} s{result.operations:>12,} operations  {result.state}{told}", flush=True)
        self._check(program)
        if not program.repeats:
            shutil.rmtree(self.mount.main / self._name(program))

    def _compare(self, program: Program, seconds: int, seed: int, failed: Result) -> Result:
        """What failed on the mount, once more on the disk."""
        self._check(program)
        there = run(program, Turn(self._folder(self.plain, program), seconds, seed))
        shutil.rmtree(self.plain / self._name(program))
        if there.state == "FAILED":
            return Result("alike", failed.operations, f"{failed.told} (the disk: {there.told})")
        path = self.mount.log.with_name(f"{self._name(program)}.txt")
        path.write_text(failed.output)
        tail = "".join(f"\n      {line}" for line in failed.output.splitlines()[:12])
        return Result("FAILED", failed.operations, f"{failed.told}; not so on the disk{tail}")

    def _check(self, program: Program) -> None:
        try:
            self.mount.check()
        except Broken as broken:
            raise Broken(f"after {program.name}: {broken}") from None

    @staticmethod
    def _name(program: Program) -> str:
        return program.name.replace(":", "-")

    def _folder(self, below: Path, program: Program) -> Path:
        folder = below / self._name(program)
        folder.mkdir(exist_ok=True)
        return folder

    def _commit(self, message: str) -> None:
        # Programs that remove what they made may leave nothing to commit.
        (self.mount.main / "round").write_text(message)
        arborfs("-C", self.mount.repository, "commit", "-m", message)
        self.mount.check()

    def _finish(self) -> None:
        """Unmount, verify, and see in a new mount what was there before."""
        before = digests(self.mount.main)
        self.mount.unmount()
        arborfs("-C", self.mount.repository, "verify")
        self.mount.mount()
        after = digests(self.mount.main)
        self.mount.check()
        self.mount.unmount()
        if before != after:
            changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            raise Broken(f"files are not what they were before the unmount: {', '.join(changed[:10])}")

    def named(self, state: str) -> list[str]:
        """The programs of which a turn ended so."""
        return [name for name, results in self.results.items() if any(result.state == state for result in results)]

    def grew(self) -> bool:
        """Whether the daemon came to need much more memory in the later rounds than in the earlier, but for the first."""
        if len(self.memory) < ROUNDS:
            return False
        settled = self.memory[1:]
        third = max(1, len(settled) // 3)
        return statistics.mean(settled[-third:]) > 1.5 * statistics.mean(settled[:third])

    def summary(self) -> str:
        """What came of it all, a few lines."""
        turns = [result for results in self.results.values() for result in results]
        operations = sum(result.operations for result in turns)
        unreached = [program.name for program in self.chosen if program.name not in self.results]
        rows = {
            "without an operation": [name for name in self.named("idle") if name not in self.named("ok")],
            "skipped": self.named("skipped"),
            "no turn in this time": unreached,
            "the disk fails alike": self.named("alike"),
            "FAILED on the mount only": self.named("FAILED"),
        }
        rounds = " ".join(map(str, self.memory)) or "-"
        growth = "GROWS from round to round" if self.grew() else "does not grow from round to round"
        growth = growth if len(self.memory) >= ROUNDS else "too few rounds to see growth"
        lines = [
            f"{len(self.results)} programs, {len(turns)} turns, {operations:,} operations",
            f"memory of the daemon: at most {self.mount.peak} MB; by round: {rounds} MB: {growth}",
            *(f"{what}: {', '.join(names)}" for what, names in rows.items() if names),
        ]
        return "\n".join(lines)


# --- the command --------------------------------------------------------------------------------------------------


def duration(text: str) -> float:
    """Seconds from `90s`, `10m`, `1.5h`."""
    if not (match := re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 10m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def kind(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    kinds = {Path(row.split()[1]): row.split()[2] for row in Path("/proc/self/mounts").read_text().splitlines()}
    return next((kinds[place] for place in (folder.resolve(), *folder.resolve().parents) if place in kinds), "?")


def disk() -> Path:
    """A folder for temporary files on a real disk, where there is one."""
    folders = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()]
    usable = [folder for folder in folders if os.access(folder, os.W_OK)]
    return next((folder for folder in usable if kind(folder) not in ("tmpfs", "ramfs")), usable[0])


def install(tools: set[str]) -> None:
    """Install what is missing; exits with what to do where that is impossible."""
    missing = sorted(tool for tool in tools if not shutil.which(tool))
    if not missing:
        return
    by_hand = (
        f"soak: missing: {' '.join(missing)}. Install them (Debian's packages are named so), or choose with --only."
    )
    admin = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get") or (admin and not shutil.which("sudo")):
        _refuse(by_hand)
    print(f"installing {' '.join(missing)}", flush=True)
    quiet = [*admin, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    subprocess.run([*quiet, "update"], check=False, capture_output=True, stdin=subprocess.DEVNULL)
    done = subprocess.run(
        [*quiet, "install", "-y", "--no-install-recommends", *missing],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode or not all(map(shutil.which, missing)):
        _refuse(f"{done.stderr}{by_hand}")


def _refuse(reason: str) -> None:
    print(reason, file=sys.stderr)
    sys.exit(2)


def choose(names: list[str]) -> list[Program]:
    """The programs of these names, or of these tools; all when none is named."""
    everything = programs()
    known = {program.name for program in everything} | {program.tool for program in everything}
    if unknown := sorted(set(names) - known):
        _refuse(f"soak: no program is named {', '.join(unknown)}. There are: {', '.join(sorted(known))}")
    return [program for program in everything if not names or {program.name, program.tool} & set(names)]


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("duration", nargs="?", type=duration, default=600.0, help="90s, 10m, 2h (default: 10m)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="makes the same choices again")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a program or a tool; several times"
    )
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: a real disk)")
    return parser.parse_args()


def main() -> None:
    """Soak as asked for."""
    signals = Signals()
    try:
        arguments = options()
        chosen = choose(arguments.only)
        install({program.tool for program in chosen})
        below = arguments.folder or disk()
        print(f"soak of {arguments.duration:.0f} s in {below} ({kind(below)}), seed {arguments.seed}", flush=True)
        clean = soak(below, chosen, arguments.duration, arguments.seed, signals)
    except Stopped as stopped:
        print(f"soak: {stopped}: unmounted, nothing is left", file=sys.stderr)
        sys.exit(stopped.code)
    sys.exit(0 if clean else 1)


def soak(below: Path, chosen: list[Program], seconds: float, seed: int, signals: Signals) -> bool:
    """Soak in a temporary folder; whether all was well. Without a failure nothing is left."""
    with signals.held():
        folder = Path(tempfile.mkdtemp(prefix="arborfs-soak-", dir=below))
    kept = False
    mount = Mount(folder, signals)
    try:
        kept = not _soaked(Soak(mount, folder / "plain", chosen, seconds, random.Random(seed)))
    finally:
        with signals.held():
            end_programs()
            mount.take_down()
            end_programs()  # those that only the end of the daemon lets go of
            _remove(folder, kept)
    return not kept


def _soaked(run: Soak) -> bool:
    broken = ""
    began = time.monotonic()
    try:
        run.plain.mkdir()
        run.run()
    except (Broken, OSError) as error:
        broken = str(error)
    print(run.summary())
    failed = [*run.named("FAILED"), *([broken] if broken else []), *(["memory"] if run.grew() else [])]
    took = f"{time.monotonic() - began:.0f} s"
    print(f"soak: FAILED after {took}: {', '.join(failed)}" if failed else f"soak: clean, {took}: log, verify, remount")
    return not failed


def _remove(folder: Path, kept: bool) -> None:
    """Take the temporary folder away; after a failure only what would be in the way of looking at the repository."""
    for name in ("mount", "plain"):
        shutil.rmtree(folder / name, ignore_errors=True)
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(
            f"soak: kept for you to look at: the repository, the daemon's log and what failing programs said, in {folder}"
        )


if __name__ == "__main__":
    main()
