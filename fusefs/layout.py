"""The shape of the mounted tree: fixed names, inode numbers, and what stat says of an entry. Pure.

Inode numbers (64 bits):

    1                                   the root of the mount
    (handle << 32 | rank + 1) << 1      something in a snapshot: the entry of that rank in the directory with that
                                        handle; rank -1 is the directory itself where it is the root of a snapshot
    counter << 1 | LIVE                 everything that can change

No number is ever given twice in the life of a mount, so that nothing the kernel remembers can mean something else.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import NamedTuple

from storage.model.names import CONTROL, Path
from storage.model.records import Attributes, Entry, Kind

__all__ = ["CONTROL", "Path"]

ROOT_INODE = 1
# The lowest bit: numbers below 2**60 take a third less memory, and there may be a million of them.
LIVE = 1
RANK_BITS = 32
RANK_MASK = (1 << RANK_BITS) - 1


def frozen_inode(handle: int, rank: int) -> int:
    """The number of the entry of that rank in a snapshot's directory."""
    return (handle << RANK_BITS | (rank + 1)) << 1


def handle_of(ino: int) -> int:
    """The handle in the number of something in a snapshot."""
    return ino >> RANK_BITS + 1


def rank_of(ino: int) -> int:
    """The rank in the number of something in a snapshot; -1 for the directory itself."""
    return (ino >> 1 & RANK_MASK) - 1


HEAD = b"HEAD"
BRANCHES = b"branches"
COMMITS = b"commits"
TAGS = b"tags"

FOREVER = 10 * 365 * 86400.0
"""How long the kernel may remember what can never change, in seconds."""
LONG = 3600.0
"""How long it may remember what only changes through the mount, or is invalidated when others change it."""
BRIEF = 0.1
"""How long it may remember that a name in a working tree is not there: half of the promised 200 ms."""
NEVER = 0.0

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
SYMLINK_MODE = 0o777
PERMISSIONS = 0o7777
BLOCK = 512


class Stat(NamedTuple):
    """What the kernel is told of an inode. Times in nanoseconds, timeouts in seconds."""

    ino: int
    mode: int
    size: int
    mtime: int
    uid: int
    gid: int
    links: int
    name_timeout: float
    stat_timeout: float


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns what has no owner recorded: the user who mounts."""

    uid: int
    gid: int


_TYPES = {
    Kind.SAMPLE: (stat.S_IFREG, FILE_MODE),
    Kind.FILE: (stat.S_IFREG, FILE_MODE),
    Kind.SYMLINK: (stat.S_IFLNK, SYMLINK_MODE),
    Kind.DIRECTORY: (stat.S_IFDIR, DIRECTORY_MODE),
    Kind.STAGED: (stat.S_IFDIR, DIRECTORY_MODE),
}
# By the number of the kind: looking up an enum in a dict runs Python code, and every stat comes here.
_TYPE_BITS = [_TYPES.get(kind, (0, 0))[0] for kind in Kind]
_PLAIN_MODES = [sum(_TYPES.get(kind, (0, 0))) for kind in Kind]


def entry_stat(
    ino: int, entry: Entry, owner: Owner, when: int, name_timeout: float, stat_timeout: float, links: int = 1
) -> Stat:
    """What stat says of an entry; `when` is the time of a directory that has no time recorded.

    A directory has one link, which tells programs that its subdirectories are not counted, and no size of its own.
    """
    attributes, kind = entry.attributes, entry.kind
    return Stat(
        ino,
        _PLAIN_MODES[kind] if attributes.mode is None else _TYPE_BITS[kind] | attributes.mode,
        0 if entry.is_directory else entry.size,
        entry.mtime or (when if entry.is_directory else 0),
        owner.uid if attributes.uid is None else attributes.uid,
        owner.gid if attributes.gid is None else attributes.gid,
        links,
        name_timeout,
        stat_timeout,
    )


def kept_time(nanoseconds: int) -> int:
    """A time as it is kept: what lies before 1677 or after 2262 is the first or last time that 64 bits hold."""
    return max(-(1 << 63), min(nanoseconds, (1 << 63) - 1))


def kept_attributes(mode: int, uid: int, gid: int, owner: Owner, default_mode: int) -> Attributes:
    """Mode and owner of something new, recorded only where they differ from the default."""
    permissions = mode & PERMISSIONS
    return Attributes(
        mode=None if permissions == default_mode else permissions,
        uid=None if uid == owner.uid else uid,
        gid=None if gid == owner.gid else gid,
    )
