"""What must be true before a mount is made; MountError says what is wrong and what to do."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fusefs.mountinfo import MountError, clear_dead, mounted_at
from fusefs.options import MountOptions

DEVICE = Path("/dev/fuse")
CONFIGURATION = Path("/etc/fuse.conf")


def check(options: MountOptions) -> None:
    """Clear a dead mount, then MountError unless these options can be mounted here."""
    if options.ref is not None and options.branch is not None:
        raise MountError("a mount shows a ref (read-only) or a branch, not both")
    clear_dead(options.mountpoint)
    if mounted_at(options.mountpoint) is not None:
        raise MountError(f"something is mounted at {options.mountpoint} already: unmount it first")
    check_places(options.repository, options.mountpoint)
    check_device()
    if options.allow_other:
        check_allow_other(os.geteuid(), CONFIGURATION)


def check_places(repository: Path, mountpoint: Path) -> None:
    """The mount point must be a folder, outside the repository's folder and not around it."""
    try:
        mode = os.stat(mountpoint).st_mode
    except FileNotFoundError:
        raise MountError(f"the mount point {mountpoint} does not exist: make the folder first") from None
    except OSError as error:
        raise MountError(f"the mount point {mountpoint} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise MountError(f"the mount point {mountpoint} is not a folder")
    if not os.access(mountpoint, os.W_OK):
        raise MountError(f"the mount point {mountpoint} is not yours to write: only its owner can mount there")
    store, place = repository.resolve(), mountpoint.resolve()
    if place == store or store in place.parents:
        raise MountError(f"the mount point {mountpoint} is inside the repository {repository}: mount it elsewhere")
    if place in store.parents:
        raise MountError(f"the repository {repository} is inside the mount point {mountpoint}: it would be hidden")


def check_device() -> None:
    """/dev/fuse must be there for us."""
    if not DEVICE.exists():
        raise MountError(
            f"{DEVICE} is missing: load the kernel module (modprobe fuse), "
            "or start the container with --device /dev/fuse --cap-add SYS_ADMIN"
        )
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise MountError(f"{DEVICE} cannot be opened by this user")


def check_allow_other(user: int, configuration: Path) -> None:
    """Only root may let other users in, unless the configuration of FUSE says otherwise."""
    if user == 0:
        return
    try:
        lines = configuration.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if "user_allow_other" not in (line.strip() for line in lines):
        raise MountError(
            f"allow_other needs a line user_allow_other in {configuration}: ask the machine's administrator to add it"
        )
