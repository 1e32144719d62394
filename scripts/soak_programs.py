"""The programs of scripts/soak: stress-ng's file-system stressors, fio with verification, dbench.

Each says what to run in a folder for a time, and what its exit code and everything that it printed mean.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

PATIENCE = 120.0
"""Seconds that a program may take beyond its turn (to make and remove its files) before it counts as hung."""


@dataclass(frozen=True)
class Turn:
    """One program's turn: where it works, for how long, and what its random choices start from."""

    folder: Path
    seconds: int
    seed: int


@dataclass(frozen=True)
class Result:
    """How a turn ended. `state` is one of: ok, idle (nothing done), skipped, alike (fails on the disk too), FAILED."""

    state: str
    operations: int = 0
    told: str = ""
    output: str = ""


@dataclass(frozen=True)
class Program:
    """Something to run. `name` starts with its tool's name."""

    name: str
    options: tuple[str, ...] = ()
    weight: float = 1
    least: float = 0
    """Below so many seconds nothing comes of it: a longer turn than its share then, once, where the time is there."""

    repeats: ClassVar[bool] = False
    """Ends when its work is done, and is started again until its turn is over."""

    @property
    def tool(self) -> str:
        """The command, which is also the name of Debian's package."""
        return self.name.partition(":")[0]

    def commands(self, turn: Turn) -> list[list[str]]:
        """What to run, one after the other."""
        raise NotImplementedError

    def judge(self, code: int, output: str) -> Result:
        """What an exit code and everything that was printed mean."""
        raise NotImplementedError


class Stress(Program):
    """Stressors of stress-ng."""

    def commands(self, turn: Turn) -> list[list[str]]:
        general = ["--verify", "--metrics-brief", "--seed", str(turn.seed), "--temp-path", str(turn.folder)]
        # One that counts its operations ends by itself, and must not be cut off.
        counts = any(option.endswith("-ops") for option in self.options)
        seconds = PATIENCE if counts else turn.seconds
        return [["stress-ng", *self.options, "--timeout", f"{seconds:.0f}", *general]]

    def judge(self, code: int, output: str) -> Result:
        rows = re.findall(r"\] [a-z0-9-]+ +(\d+)(?: +[\d.]+){5}$", output, re.MULTILINE)
        operations = sum(map(int, rows))
        if "unrecognized option" in output:
            return Result("skipped", told="not in this version of stress-ng")
        # Some of its stressors say that they failed and end with 0 all the same.
        wrong = re.findall(r"^.*\b(?:fail|error): .*$", output, re.MULTILINE)
        if (wrong and code == 0) or code not in (0, 3, 4):
            others = [line for line in output.splitlines() if "info: " not in line]
            return Result("FAILED", operations, next(iter(wrong + others), f"exit code {code}"), output)
        if skipped := re.search(r"\] (.*\bskipping stressor.*)$", output, re.MULTILINE):
            return Result("skipped", told=skipped[1])
        return Result("ok" if operations else "idle", operations)


class Fio(Program):
    """A job of fio that reads back what it wrote, and another process that reads it again."""

    repeats = True

    def commands(self, turn: Turn) -> list[list[str]]:
        # The names of its files are the same in each round, so that later rounds write over what is committed.
        name = self.name.partition(":")[2]
        general = [f"--name={name}", f"--directory={turn.folder}", f"--randseed={turn.seed}", "--size=4m"]
        checks = [
            "--verify_fatal=1",
            "--do_verify=1",
            "--group_reporting",
            "--output-format=json",
            "--verify_state_save=0",
        ]
        written = ["fio", *general, *checks, *self.options]
        return [written, [*written, "--verify_only"]]

    def judge(self, code: int, output: str) -> Result:
        if code:
            wrong = re.findall(r"^(?:fio|verify).*$", output, re.MULTILINE)
            return Result("FAILED", 0, wrong[0] if wrong else f"exit code {code}", output)
        jobs = json.loads(output[output.index("{") :])["jobs"]
        return Result("ok", sum(job[way]["total_ios"] for job in jobs for way in ("read", "write")))


class Dbench(Program):
    """Clients of a file server, replayed."""

    def commands(self, turn: Turn) -> list[list[str]]:
        load = [part for path in LOADS if Path(path).exists() for part in ("-c", path)][:2]
        return [["dbench", *load, "-D", str(turn.folder), "-t", str(turn.seconds), *self.options]]

    def judge(self, code: int, output: str) -> Result:
        rows = re.findall(r"^ \w+ +(\d+) +[\d.]+ +[\d.]+$", output, re.MULTILINE)
        wrong = re.findall(r"^.*(?:ERROR|[Ff]ailed|Error).*$", output, re.MULTILINE)
        if code or wrong:
            return Result("FAILED", 0, wrong[0] if wrong else f"exit code {code}", output)
        return Result("ok" if rows else "idle", sum(map(int, rows)))


LOADS = ("/usr/share/dbench/client.txt", "/usr/share/doc/dbench/client.txt", "/usr/local/share/client.txt")
"""Where dbench's recorded load may be; the first that is there is taken."""

# No hard links (`link`), nothing that needs a device or the whole machine (`quota`, `fanotify`; `io` waits in sync(2) for
# every other mount), no `io-uring`: it fails everywhere on current kernels. Later versions have `metamix`, `truncate`,
# `unlink`.
STRESSORS = (
    "access aio aiol chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fcntl fiemap "
    "file-ioctl filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify iomix lease locka lockf "
    "lockofd metamix mknod mmap msync open readahead rename revio seek sendfile symlink sync-file touch truncate "
    "unlink utime verity xattr"
)

# Files are small, so that a turn of seconds has many operations, not the first half of one.
STRESS_OPTIONS = {
    "copy-file": "--copy-file 2 --copy-file-bytes 128m",
    "dirdeep": "--dirdeep 2 --dirdeep-dirs 2 --dirdeep-files 2 --dirdeep-bytes 100",
    "fallocate": "--fallocate 2 --fallocate-bytes 8m",
    # Cut off by time, it takes its own emulation of fallocate for one that exceeds the limit.
    "fsize": "--fsize 2 --fsize-ops 40",
    "hdd": "--hdd 2 --hdd-bytes 16m",
    "iomix": "--iomix 2 --iomix-bytes 8m",
    "mmap": "--mmap 2 --mmap-file --mmap-bytes 256k",
    "msync": "--msync 2 --msync-bytes 1m",
    "readahead": "--readahead 2 --readahead-bytes 16m",
    "revio": "--revio 2 --revio-bytes 8m",
    "seek": "--seek 2 --seek-size 8m",
    "sync-file": "--sync-file 2 --sync-file-bytes 1m",
    # Its first operation sets 4096 attributes, one after the other.
    "xattr": "--xattr 1 --xattr-ops 1",
}
TOGETHER = "--dentry 1 --rename 1 --iomix 1 --iomix-bytes 8m --dir 1 --fstat 1 --getdent 1 --symlink 1"
LEAST = {"symlink": 8.0, "chdir": 4.0, "xattr": 60.0}

FIO = {
    "psync-random": "--ioengine=psync --rw=randwrite --bs=4k --numjobs=4 --verify=crc32c",
    "psync-sequential": "--ioengine=psync --rw=write --bs=64k --numjobs=4 --verify=sha256",
    "psync-mixed": "--ioengine=psync --rw=randrw --bsrange=512-64k --numjobs=2 --verify=crc32c --fsync=64",
    "libaio-random": "--ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=4k-64k --numjobs=2 --verify=crc32c",
    "libaio-direct": "--ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --bs=4k --numjobs=2 --verify=sha256",
    "libaio-sequential": "--ioengine=libaio --iodepth=8 --rw=write --bs=128k --numjobs=2 --verify=crc32c",
    "mmap-random": "--ioengine=mmap --rw=randwrite --bs=4k --numjobs=4 --verify=crc32c",
    "mmap-sequential": "--ioengine=mmap --rw=write --bs=16k --numjobs=2 --verify=sha256",
    "io_uring-random": "--ioengine=io_uring --iodepth=16 --rw=randwrite --bs=8k --numjobs=2 --verify=crc32c",
    "one-file": "--ioengine=psync --rw=randwrite --bs=4k --numjobs=4 --filename=one --offset_increment=4m "
    "--verify=crc32c",
}
DBENCH = {"clients": "4", "synced": "--sync --sync-dir 2", "attributes": "--xattr 4"}


def programs() -> list[Program]:
    """Everything there is to run."""
    stress = [
        Stress(f"stress-ng:{name}", tuple(STRESS_OPTIONS.get(name, f"--{name} 2").split()), least=LEAST.get(name, 0))
        for name in STRESSORS.split()
    ]
    stress.append(Stress("stress-ng:together", tuple(TOGETHER.split()), 3))
    fio = [Fio(f"fio:{name}", tuple(options.split()), 2) for name, options in FIO.items()]
    # Loading its script takes a second.
    dbench = [Dbench(f"dbench:{name}", tuple(options.split()), 4, 2.0) for name, options in DBENCH.items()]
    return [*stress, *fio, *dbench]
