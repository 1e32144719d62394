"""What Python programs do with files through the standard library, on the disk and in a branch."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from tests.programs.running import tree


def test_copytree_and_rmtree(place, sources):
    (sources / "link").symlink_to("model")
    (sources / "home.py").chmod(0o700)
    shutil.copytree(sources, place / "one", symlinks=True)
    assert tree(place / "one") == tree(sources)
    shutil.copytree(place / "one", place / "one" / "inside", symlinks=True, ignore=shutil.ignore_patterns("inside"))
    assert tree(place / "one" / "inside") == tree(sources)
    shutil.move(place / "one" / "inside", place / "two")
    assert tree(place / "two") == tree(sources)
    shutil.rmtree(place / "one")
    assert os.listdir(place) == ["two"]


def test_temporary_files(place):
    with tempfile.NamedTemporaryFile(dir=place, suffix=".txt") as file:
        file.write(b"data")
        file.flush()
        assert os.stat(file.name).st_mode & 0o777 == 0o600
        with open(file.name, "rb") as again:
            assert again.read() == b"data"
        assert len(os.listdir(place)) == 1
    assert os.listdir(place) == []
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"without a name")
        file.seek(0)
        assert os.listdir(place) == []
        assert file.read() == b"without a name"
    with tempfile.TemporaryDirectory(dir=place) as folder, open(os.path.join(folder, "left"), "wb") as file:
        file.write(b"removed with it")
    assert os.listdir(place) == []


def test_a_temporary_file_is_kept_under_its_name(place):
    """The way a program replaces its settings: whoever reads sees the old or the new ones."""
    (place / "settings").write_bytes(b"old")
    with open(place / "settings", "rb") as reader:
        with tempfile.NamedTemporaryFile(dir=place, delete=False) as file:
            file.write(b"new settings")
        os.chmod(file.name, 0o644)
        os.replace(file.name, place / "settings")
        assert reader.read() == b"old"
    assert (place / "settings").read_bytes() == b"new settings"
    assert os.listdir(place) == ["settings"]


LOCKER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.flock(file, fcntl.LOCK_EX if sys.argv[2] == "exclusive" else fcntl.LOCK_SH)
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["shared", "exclusive"])
def test_flock_between_two_processes(place, how):
    path = place / "lock"
    path.touch()
    command = [sys.executable, "-c", LOCKER, str(path), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder, path.open("r+b") as file:
        assert holder.stdin and holder.stdout
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if how == "shared":
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
        holder.stdin.close()
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for the other to end
        assert holder.wait(60) == 0


MAPPER = """
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
    print(mapped[:5].decode(), flush=True)
    sys.stdin.readline()
    mapped[5:10] = b"child"
    mapped.flush()
"""


def test_a_map_is_shared_between_processes(place):
    path = place / "mapped"
    path.write_bytes(bytes(100_000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:5] = b"hello"
        command = [sys.executable, "-c", MAPPER, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin and child.stdout
            assert child.stdout.readline() == b"hello\n"
            child.stdin.close()
            assert child.wait(60) == 0
        assert mapped[:12] == b"hellochild\0\0"
        mapped[99_990:] = b"at the end"
        mapped.flush()
        assert os.pread(file.fileno(), 10, 99_990) == b"at the end"
        mapped.resize(200_000)
        mapped[199_995:] = b"grown"
    assert path.stat().st_size == 200_000
    data = path.read_bytes()
    assert data == b"hellochild" + bytes(99_980) + b"at the end" + bytes(99_995) + b"grown"
