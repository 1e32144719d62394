"""Directories copied by rsync, here or to another machine."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from typing import Literal

from storage.errors import NotARepository, NotFound, NotMounted, RsyncFailed, Unsupported
from storage.places import place_of

RSYNC = "/usr/bin/rsync"
_REMOTE = re.compile(r"(rsync://|[^/]*:)")
"""What begins like this is on another machine, as rsync sees it."""

Patterns = str | Sequence[str] | None


def sync(
    tree: str,
    other: str | os.PathLike[str],
    mode: Literal["upload", "download"],
    options: Sequence[str],
    rsync_path: str,
) -> list[str]:
    """Copy what is in `tree` to `other`, or back. The command that was run."""
    here, there = _folder(tree), _target(os.fspath(other))
    if mode == "upload":
        pair = [here, there]
    elif mode == "download":
        pair = [os.path.join(there, ""), here]
    else:
        raise Unsupported(f"the mode is 'upload' or 'download', not {mode!r:.80}")
    command = [rsync_path, *options, "--", *pair]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise RsyncFailed(f"there is no {rsync_path}: install rsync, or name it by rsync_path", code=127) from error
    if done.returncode != 0:
        raise RsyncFailed(f"rsync ended with {done.returncode}: {done.stderr.strip()}", code=done.returncode)
    return command


def options(
    *, compress: bool, checksum: bool, backup: bool, dry: bool, overwrite: bool, include: Patterns, exclude: Patterns
) -> list[str]:
    """What rsync is told. Where something is to be included, all the rest is excluded."""
    flags = {"--ignore-existing": not overwrite, "-z": compress, "-c": checksum, "-b": backup, "--dry-run": dry}
    found = ["-r", *(flag for flag, wanted in flags.items() if wanted)]
    found += [f"--include={pattern}" for pattern in _patterns(include)]
    found += [f"--exclude={pattern}" for pattern in _patterns(exclude)]
    return [*found, "--exclude=*"] if include else found


def _patterns(patterns: Patterns) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns or ()


def _target(path: str) -> str:
    return path if _REMOTE.match(path) else _folder(path)


def _folder(path: str) -> str:
    """A path that programs can use, which ends in a slash. NotMounted."""
    try:
        place = place_of(path)
    except (NotARepository, NotFound):
        return os.path.join(os.path.abspath(path), "")
    found = place.usable()
    if found is None:
        raise NotMounted(
            f"{place.given} is in a repository that is not mounted, and rsync sees mounted files alone: "
            f"`arborfs mount {place.repository.path} FOLDER` mounts it"
        )
    return os.path.join(found, "")
