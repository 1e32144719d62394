"""Hostile bytes through a real mount: every control file and every name, then the daemon is there, its log holds no
error, and the repository works.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable

import pytest

from storage.engine import Engine
from storage.maintenance.verify import verify
from tests.conftest import alive

ROUNDS = 12


def attempt(act: Callable[[], object]) -> bool:
    """Whether the kernel or the daemon let it happen; EIO is what must never come."""
    try:
        act()
    except OSError as error:
        if error.errno == errno.EIO:
            raise
        return False
    return True


def junk(rng: random.Random) -> bytes:
    size = rng.choice([0, 1, 10, 4096, 70_000])
    return rng.choice(
        [rng.randbytes(size), b"\0" * size, b"\xff" * size, b"{" * size, b"../" * (size // 3), b"\n" * size]
    )


def name(rng: random.Random) -> bytes:
    """One that the kernel hands on: no slash, no NUL, at most 255 bytes or a few more."""
    made = rng.choice(
        [
            rng.randbytes(rng.choice([1, 8, 255])),
            b"a" * rng.choice([64, 65, 255, 256, 600, 1000]),
            *(b"-rf", b"HEAD", b".arborfs", b"v1", b"main~1", b"main@{0001-01-01}", b"\xff\xfe", b"x\ny", b"x\x1b[2J"),
        ]
    )
    return made.replace(b"/", b"_").replace(b"\0", b"_")


def test_random_bytes_in_every_control_file_and_name(mounted, repository):
    mount = mounted(repository)
    rng = random.Random(20_261)
    root, main = os.fsencode(mount.path), mount.main
    (main / "f").write_bytes(b"kept")
    (main / ".arborfs" / "commit").write_text("one")
    os.symlink("../commits/main", mount.path / "tags" / "v1")
    controls = [main / ".arborfs", mount.path / "tags" / "v1" / ".arborfs"]
    committed = 0
    for _ in range(ROUNDS):
        (main / "g").write_bytes(rng.randbytes(20))
        for control in controls:
            for file in sorted(os.listdir(control)):
                path = control / file
                if path.is_dir():
                    continue
                data = junk(rng)
                committed += attempt(lambda: path.write_bytes(data)) and file == "commit" and data != b""
                attempt(lambda: path.read_bytes().decode())
                attempt(lambda: os.truncate(path, rng.choice([0, 1, 2**40])))
                attempt(lambda: os.setxattr(path, "user.x", junk(rng)))
            for act in (os.mkdir, os.unlink, os.rmdir, os.mknod):
                attempt(lambda: act(os.fsencode(control) + b"/" + name(rng)))
        for where in (b"branches", b"tags", b"commits", b"branches/main/.arborfs/rejected", b""):
            at = os.path.join(root, where)
            one, other = name(rng), name(rng)
            attempt(lambda: os.stat(at + b"/" + one))
            attempt(lambda: os.mkdir(at + b"/" + one))
            attempt(lambda: os.symlink(junk(rng)[:4000].replace(b"\0", b"0") or b"x", at + b"/" + one))
            attempt(lambda: os.symlink(b"../commits/main", at + b"/" + other))
            attempt(lambda: os.rename(at + b"/" + one, at + b"/" + other))
            attempt(lambda: os.listdir(at))
            if other not in (b"v1", b"main"):
                attempt(lambda: os.rmdir(at + b"/" + other))
            attempt(lambda: os.unlink(at + b"/" + other))
        for space in ("user.", "user.arborfs.", "security.", "system.", "trusted."):
            attempt(lambda: os.setxattr(main / "g", space + "x" * rng.choice([1, 200]), junk(rng)[:65536]))
            attempt(lambda: os.getxattr(main / "g", space + "x"))
        attempt(lambda: os.listxattr(main / "g"))
    assert committed >= 3
    assert alive(mount.pid)
    assert (main / "f").read_bytes() == (mount.path / "tags" / "v1" / "f").read_bytes() == b"kept"
    assert mount.complaints() == []
    mount.unmount()
    with Engine.open(repository) as engine:
        assert verify(engine) == []
        assert len(engine.commits()) == 1 + committed


def test_a_sample_with_a_long_name_that_is_refused(mounted, repository):
    import numpy as np

    from storage.model.records import Attributes
    from storage.model.samples import make_schema

    with Engine.open(repository) as engine:
        schema = make_schema(np.dtype("<f4"), (2,), uuid="u")
        engine.working_tree("main").make_directory((b"set",), attributes=Attributes(schema=schema))
    mount = mounted(repository)
    mount.expect("File name too long")
    mount.expect("failed unexpectedly|^Traceback")
    name = "é" * 125 + "x.npy"
    with pytest.raises(OSError, match="Invalid argument"):
        (mount.main / "set" / name).write_bytes(b"no sample")
    assert len(os.listdir(mount.main / ".arborfs" / "rejected")) == 1


def test_a_damaged_line_of_errors(mounted, repository):
    folder = repository / ".arborfs" / "rejected" / "main"
    folder.mkdir(parents=True)
    (folder / "errors.jsonl").write_bytes(b"}\n")
    mount = mounted(repository)
    mount.expect("failed unexpectedly|^Traceback|Error")
    assert (mount.main / ".arborfs" / "errors").read_text() == ""
