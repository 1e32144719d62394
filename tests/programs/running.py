"""Running programs, and comparing what they leave."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest


def run(*command: object, cwd: Path | None = None, given: str = "", **extra: str) -> str:
    """Run a program, `given` on its input; its output. Skips where there is no such program."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"there is no {command[0]} here")
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        env={**os.environ, "LC_ALL": "C", **extra},
        input=given,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def git(folder: Path, *arguments: object) -> str:
    """Run git in `folder`, as Ada and with no configuration but this; its output."""
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "safe.directory=*"]
    return run("git", *who, *arguments, cwd=folder, GIT_CONFIG_GLOBAL=os.devnull)


def tree(root: Path, *, directory_times: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything below `root`: type and permissions, time to the nanosecond, contents or target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        held: object = None
        if stat.S_ISLNK(status.st_mode):
            held = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            held = path.read_bytes()
        timed = directory_times or not stat.S_ISDIR(status.st_mode)
        found[str(path.relative_to(root))] = (oct(status.st_mode), status.st_mtime_ns if timed else 0, held)
    return found
