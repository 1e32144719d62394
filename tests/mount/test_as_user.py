"""An ordinary user makes, mounts, fills and unmounts a repository.

The user's processes live in a mount namespace of their own, where /dev/fuse is open to everyone, as it is on most
machines, and may search every folder: the interpreter may lie in one of root's.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534

SCRIPT = """
set -e
mknod "$1/fuse" c 10 229
chmod 666 "$1/fuse"
mount --bind "$1/fuse" /dev/fuse
cd "$1/home"
exec setpriv --reuid 65534 --regid 65534 --clear-groups \
    --inh-caps +dac_read_search --ambient-caps +dac_read_search sh -c "$2" arborfs "$3"
"""

MAIN_JOB = """
arborfs() { "$python" -m fusefs.cli "$@"; }
python=$1
set -e
arborfs init r --name Nobody --email nobody@example.org
mkdir m
arborfs mount r m
trap 'arborfs umount m' EXIT
echo hello > m/branches/main/f
echo message > m/branches/main/.arborfs/commit
cat m/commits/main/f
stat -c '%u %a' m/branches/main/f
"""


def run(folder, script: str) -> subprocess.CompletedProcess[str]:
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        SCRIPT,
        "sh",
        folder,
        script,
        sys.executable,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.fixture
def folder(mounted) -> Iterator[Path]:
    """A folder with a home for the user, where everyone may go. `mounted` skips where nothing can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(prefix="arborfs-user-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "home").mkdir()
        os.chown(path / "home", NOBODY, NOBODY)
        yield path


def test_the_main_job(folder):
    done = run(folder, MAIN_JOB)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello\n65534 644\n" in done.stdout


def test_letting_others_in_needs_a_line_in_fuse_conf(folder):
    done = run(
        folder,
        '"$1" -m fusefs.cli init r --name N --email e@x >&2; mkdir m; "$1" -m fusefs.cli mount r m --allow-other',
    )
    if "user_allow_other" not in done.stderr:
        pytest.skip("fuse.conf of this machine lets users do that")
    assert done.returncode == 4
    assert "/etc/fuse.conf" in done.stderr
