"""A first look at a repository that changes nothing and reads little: whether it can be used, and what is in the way.

`verify` reads everything; this does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from storage.config import folder, read_config
from storage.disk.index import Index
from storage.disk.locks import alone_if_there
from storage.disk.segments import FILE_SIZE, Segments, parse_file_header
from storage.errors import ArborError
from storage.home import index_trouble
from storage.stores.log import failed_segments

SCARCE = 100 << 20
"""Fewer free bytes than this on the disk are worth a warning."""
SCARCE_FILES = 100


class Verdict(StrEnum):
    """How bad a finding is: nothing, worth knowing, or in the way."""

    FINE = "fine"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found; `advice` says what to do about it, and is empty where nothing is to be done."""

    verdict: Verdict
    what: str
    advice: str = ""


def examine(path: Path) -> Iterator[Finding]:
    """What there is to say of the repository in the folder `path`, whether or not it can be opened."""
    home = folder(path)
    try:
        config = read_config(path)
    except ArborError as error:
        yield Finding(Verdict.PROBLEM, str(error), "nothing else can be said of this folder")
        return
    yield Finding(Verdict.FINE, f"{path} is a repository of format {config.format}")
    refused = list(_permissions(home))
    if refused:
        yield from refused
        return
    yield from _room(home)
    yield from _segments(home)
    with _alone(home) as alone:
        if alone is None:
            yield Finding(Verdict.WARNING, f"{home / 'lock'} cannot be locked, so the index was not looked at")
        elif not alone:
            yield Finding(Verdict.FINE, "it is open in another process, which has checked its index")
        else:
            yield from _index(home)


def _permissions(home: Path) -> Iterator[Finding]:
    if os.statvfs(home).f_flag & os.ST_RDONLY:
        yield Finding(
            Verdict.PROBLEM,
            f"{home} is on a file system that is mounted read-only",
            "mount it so that it can be written",
        )
        return
    needed = (home, home / "segments", home / "tmp", home / "index", home / "index" / "data.mdb", home / "lock")
    refused = [str(part) for part in needed if part.exists() and not os.access(part, os.R_OK | os.W_OK)]
    if refused:
        yield Finding(
            Verdict.PROBLEM,
            f"this user may not read and write {', '.join(refused)}",
            "ask the owner, or give all of the folder to one group that may write",
        )


def _room(home: Path) -> Iterator[Finding]:
    disk = os.statvfs(home)
    free = disk.f_bavail * disk.f_frsize
    advice = "make room on it: until then writes fail with ENOSPC, and what is stored stays safe"
    if free < SCARCE:
        yield Finding(Verdict.PROBLEM if free == 0 else Verdict.WARNING, f"its disk has {free:,} bytes left", advice)
    if disk.f_files and disk.f_favail < SCARCE_FILES:
        yield Finding(Verdict.WARNING, f"its disk has room for {disk.f_favail:,} more files", advice)


def _segments(home: Path) -> Iterator[Finding]:
    there = Segments(home / "segments").paths()
    damaged = []
    for path in there.values():
        try:
            with path.open("rb") as file:
                parse_file_header(file.read(FILE_SIZE), path)
        except (ArborError, OSError) as error:
            damaged.append(str(error))
    if damaged:
        yield Finding(Verdict.PROBLEM, "; ".join(damaged), "run `arborfs verify`: it says what is lost with it")
    else:
        yield Finding(Verdict.FINE, f"its {len(there)} segment files begin as they should")


def _index(home: Path) -> Iterator[Finding]:
    trouble = index_trouble(home)
    if trouble:
        yield Finding(
            Verdict.WARNING,
            f"its index cannot be used: {trouble}",
            "nothing is lost: the next to open the repository rebuilds the index (or do it now: `arborfs rebuild`)",
        )
        return
    yield Finding(Verdict.FINE, "its index is whole and up to date")
    index = Index(home / "index")
    try:
        failed = failed_segments(index)
    finally:
        index.close()
    if failed:
        yield Finding(
            Verdict.WARNING,
            f"the disk could not sync {len(failed)} segment files: {', '.join(f'{one:08x}' for one in failed)}",
            "see to the disk; the next to open the repository writes them anew",
        )


@contextmanager
def _alone(home: Path) -> Iterator[bool | None]:
    """Whether nobody has the repository open, nor can open it while the block runs; None where that is not known."""
    with ExitStack() as stack:
        try:
            alone: bool | None = stack.enter_context(alone_if_there(home / "lock"))
        except FileNotFoundError:
            alone = True
        except OSError:
            alone = None
        yield alone
