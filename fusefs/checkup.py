"""What stands in the way of mounting on this machine, and which mounts need care. Changes nothing."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from fusefs import preflight
from fusefs.mountinfo import Mount, MountError, file_system_of, is_dead, mounts
from storage.config import folder
from storage.maintenance.checkup import Finding, Verdict

ANSWER_SECONDS = 5.0
HELPER = Path("/sbin/mount.arborfs")
REMOTE = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "afs"))
"""File systems whose locks and memory maps are not those of one machine."""


def examine_machine() -> Iterator[Finding]:
    """What mounting needs."""
    yield Finding(Verdict.FINE, f"arborfs {version('arborfs')}, pyfuse3 {version('pyfuse3')}, lmdb {version('lmdb')}")
    try:
        preflight.check_device()
        yield Finding(Verdict.FINE, f"{preflight.DEVICE} can be opened")
    except MountError as error:
        yield Finding(Verdict.PROBLEM, str(error).partition(":")[0], str(error).partition(":")[2].strip())
    yield _fusermount()
    try:
        preflight.check_allow_other(os.geteuid(), preflight.CONFIGURATION)
    except MountError as error:
        what, _, advice = str(error).partition(":")
        yield Finding(Verdict.WARNING, f"--allow-other is not possible here: {what}", advice.strip())
    if not os.access(HELPER, os.X_OK):
        yield Finding(
            Verdict.WARNING,
            f"`mount -t arborfs` and /etc/fstab do not work: {HELPER} does not lead to a program",
            f"as root: ln -sfn $(command -v mount.arborfs) {HELPER}",
        )


def _fusermount() -> Finding:
    path = shutil.which("fusermount3")
    if path is None:
        return Finding(Verdict.PROBLEM, "fusermount3 is not installed", "install it (Debian: apt-get install fuse3)")
    if os.geteuid() != 0 and not os.stat(path).st_mode & stat.S_ISUID:
        return Finding(
            Verdict.PROBLEM,
            f"{path} is not setuid root, so only root can mount",
            f"as root: chmod u+s {path} (or install the package fuse3 again)",
        )
    return Finding(Verdict.FINE, f"{path} is there")


def examine_mounts() -> Iterator[Finding]:
    """Whether every mount that this process can see answers."""
    for mount in mounts():
        place = f"the mount of {mount.repository} at {mount.mountpoint}"
        answer = answers(mount)
        if answer is None:
            yield Finding(
                Verdict.PROBLEM,
                f"{place} has not answered for {ANSWER_SECONDS:g} s",
                f"look into its log; `arborfs umount --force {mount.mountpoint}` takes it away",
            )
        elif not answer and is_dead(mount.mountpoint):
            yield Finding(
                Verdict.PROBLEM,
                f"{place} is dead: its daemon has ended without unmounting",
                f"mount it again (that clears it), or `arborfs umount {mount.mountpoint}`; staged work is safe",
            )
        elif answer:
            yield Finding(Verdict.FINE, f"{place} answers")


def answers(mount: Mount) -> bool | None:
    """Whether a stat of the mount succeeds; None when it gives no answer. In a process of its own: it may hang."""
    asking = subprocess.Popen(
        ["stat", "-f", "--", mount.mountpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return asking.wait(ANSWER_SECONDS) == 0
    except subprocess.TimeoutExpired:
        asking.kill()
    # A request that the daemon has already taken cannot be called back: then the process ends with the daemon.
    with suppress(subprocess.TimeoutExpired):
        asking.wait(1.0)
    asking.returncode = asking.returncode or 0  # Python need not warn that it was not waited for
    return None


def examine_place(repository: Path) -> Iterator[Finding]:
    """Whether the repository's folder is on a file system that can hold one."""
    kind = file_system_of(repository)
    if kind in REMOTE:
        yield Finding(
            Verdict.PROBLEM,
            f"{repository} is on a network file system ({kind}): locks and memory maps do not hold there",
            "keep the repository on a disk of this machine",
        )


def examine_logs(repository: Path) -> Iterator[Finding]:
    """The last error in each daemon's log."""
    for path in sorted((folder(repository) / "logs").glob("*.log")):
        errors = [line for line in path.read_text(errors="replace").splitlines() if " ERROR " in line]
        if errors:
            yield Finding(
                Verdict.WARNING,
                f"{path} holds {len(errors)} errors; the last: {errors[-1]}",
                "the lines after it say more",
            )
