"""Which arborfs mounts there are, read from /proc/self/mountinfo: a dead mount is seen and none is ever touched.

Nothing here stats a mount point: a stat of a mount whose daemon hangs would hang too.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from storage.errors import State

FSTYPE = "fuse.arborfs"
MOUNTINFO = Path("/proc/self/mountinfo")

_OCTAL = re.compile(rb"\\([0-7]{3})")
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "%,\\")


class MountError(State):
    """The mount cannot be made or taken away; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted repository, as the kernel lists it."""

    repository: Path
    mountpoint: Path
    device: str
    options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether the kernel refuses every change."""
        return "ro" in self.options


def source_name(repository: Path) -> str:
    """The repository's path as a mount source: ASCII, without commas, so that every layer passes it on unchanged."""
    return quote(os.fsencode(repository), safe=_PRINTABLE)


def source_path(source: str) -> Path:
    """The path that source_name wrote."""
    return Path(unquote(source, errors="surrogateescape"))


def _unescape(text: str) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match.group(1), 8)]), os.fsencode(text)))


def _lines() -> Iterator[tuple[str, Path, tuple[str, ...], str, str]]:
    """Device, mount point, options, type and source of every mount, oldest first."""
    for line in MOUNTINFO.read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        yield fields[2], Path(_unescape(fields[4])), tuple(fields[5].split(",")), tail[0], _unescape(tail[1])


def mounts() -> list[Mount]:
    """Every arborfs mount that this process can see, oldest first; dead ones too."""
    return [
        Mount(source_path(source), mountpoint, device, options)
        for device, mountpoint, options, fstype, source in _lines()
        if fstype == FSTYPE
    ]


def resolved(path: Path) -> Path:
    """`path` as the kernel names it: absolute, its parents' symlinks resolved, the last component untouched.

    The last component is not looked at: it may be a mount that does not answer.
    """
    absolute = Path(os.path.abspath(path))
    return absolute.parent.resolve() / absolute.name if absolute.name else absolute


def mounted_at(path: Path) -> Mount | None:
    """The arborfs mount whose mount point is `path`: the topmost one if several are stacked there."""
    wanted = {Path(os.path.abspath(path)), resolved(path)}
    found = None
    for device, mountpoint, options, fstype, source in _lines():
        if mountpoint in wanted:
            found = Mount(source_path(source), mountpoint, device, options) if fstype == FSTYPE else None
    return found


def file_system_of(path: Path) -> str:
    """The type of the file system that `path` is on, as the kernel names it; empty where the list of mounts has none."""
    place = path.resolve()
    around = [
        (len(point.parts), number, fstype)
        for number, (_, point, _, fstype, _) in enumerate(_lines())
        if place.is_relative_to(point)
    ]
    return max(around, default=(0, 0, ""))[2]


def wait_ready(mountpoint: Path, source: Path, deadline: float) -> bool:
    """Whether `source` appears mounted at `mountpoint` before `deadline`, a time of time.monotonic().

    Once listed, the mount answers: the kernel holds requests back until the daemon has said hello.
    """
    while True:
        mount = mounted_at(mountpoint)
        if mount is not None and mount.repository == source:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)


def is_dead(path: Path) -> bool:
    """Whether an arborfs mount stands at `path` whose daemon is gone (every access gives ENOTCONN)."""
    if mounted_at(path) is None:
        return False
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Take the mount at `path` away; MountError with the system's reason when that fails (such as: busy).

    `lazy` detaches it at once and lets open files go on until they are closed.
    """
    if mounted_at(path) is None:
        raise MountError(f"{path} is not an arborfs mount")
    commands = [["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(resolved(path))]]
    if os.geteuid() == 0:
        commands.append(["umount", *(["-l"] if lazy else []), "--", str(resolved(path))])
    reason = ""
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except FileNotFoundError:
            reason = reason or f"{command[0]} is not installed"
            continue
        if done.returncode == 0:
            return
        reason = done.stderr.strip() or f"{command[0]} gave exit code {done.returncode}"
    raise MountError(f"cannot unmount {path}: {reason}")


def clear_dead(path: Path) -> bool:
    """Take away a dead arborfs mount at `path`; whether there was one."""
    if not is_dead(path):
        return False
    unmount(path, lazy=True)
    return True
