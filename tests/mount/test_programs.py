"""Real programs on a real mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent.parent.parent / "storage"


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def tree(tmp_path) -> Path:
    """A folder with what archives find hard."""
    top = tmp_path / "tree"
    shutil.copytree(SOURCES, top / "sources", ignore=shutil.ignore_patterns("__pycache__"))
    os.symlink("../sources", top / "sources" / "loop")
    (top / "empty").mkdir()
    (top / "script").write_text("#!/bin/sh\necho it runs\n")
    os.chmod(top / "script", 0o755)
    (top / "old").write_bytes(os.urandom(100_000))
    os.utime(top / "old", ns=(1, 1_000_000_001))
    os.setxattr(top / "old", "user.note", b"kept")
    return top


def same(one: Path, other: Path) -> None:
    """Same names, kinds, modes, times, contents, links."""
    run("diff", "-r", "--no-dereference", one, other)
    for path in [one, *one.rglob("*")]:
        twin = other / path.relative_to(one)
        mine, found = path.lstat(), twin.lstat()
        assert (mine.st_mode, mine.st_uid) == (found.st_mode, found.st_uid), path
        if path.is_dir() and not path.is_symlink():
            # rsync leaves a directory's time alone where whole seconds agree.
            assert mine.st_mtime_ns // 10**9 == found.st_mtime_ns // 10**9, path
        elif not path.is_symlink():
            assert mine.st_mtime_ns == found.st_mtime_ns, path


def test_cp_a(main, tree):
    run("cp", "-a", tree, main / "copy")
    same(tree, main / "copy")
    assert os.getxattr(main / "copy" / "old", "user.note") == b"kept"


def test_tar_in_and_out(main, tree, tmp_path):
    run("sh", "-c", f"tar -C {tree} --format=posix -cf - . | tar -C {main} -xpf -")
    run("sh", "-c", f"mkdir {tmp_path}/out && tar -C {main} --format=posix -cf - . | tar -C {tmp_path}/out -xpf -")
    same(tree, tmp_path / "out")


def test_mv_and_rm(main, tree):
    run("cp", "-a", tree, tree.parent / "second")
    run("mv", tree.parent / "second", main / "moved")
    same(tree, main / "moved")
    run("mv", main / "moved", main / "again")
    run("rm", "-rf", main / "again")
    assert os.listdir(main) == []


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed on this machine")
def test_rsync(main, tree):
    run("rsync", "-aX", f"{tree}/", main / "synced")
    same(tree, main / "synced")
    assert os.getxattr(main / "synced" / "old", "user.note") == b"kept"
    assert run("rsync", "-ai", f"{tree}/", main / "synced") == ""
    run("rsync", "-aX", f"{tree}/", main / "synced")
    (tree / "old").write_bytes(b"new")
    run("rsync", "-a", "--delete", f"{tree}/", main / "synced")
    same(tree, main / "synced")


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed on this machine")
@pytest.mark.parametrize("options", [[], ["--inplace"]], ids=["renamed", "in place"])
def test_a_version_brought_by_rsync_costs_what_changed(main, repository, tmp_path, options):
    """rsync writes `.NAME.XXXXXX` and renames it, unless it is told to write in place."""
    data = bytearray(os.urandom(6_000_000))
    sizes = []
    for version in range(3):
        data[version * 2_000_000 : version * 2_000_000 + 5000] = os.urandom(5000)
        (tmp_path / "big").write_bytes(data)
        run("rsync", "-I", *options, tmp_path / "big", main / "big")
        (main / ".arborfs" / "commit").write_text(f"{version}\n")
        sizes.append(sum(path.stat().st_size for path in (repository / ".arborfs" / "segments").iterdir()))
    assert sizes[2] - sizes[0] < 100_000
    assert (main / "big").read_bytes() == data


def test_dd(main, tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    run("dd", f"if={tmp_path}/data", f"of={main}/data", "bs=4k", "conv=fsync")
    run("dd", f"if={tmp_path}/data", f"of={main}/data", "bs=1000", "skip=3", "seek=7", "count=5", "conv=notrunc")
    expected = bytearray(data)
    expected[7000:12000] = data[3000:8000]
    assert (main / "data").read_bytes() == expected


def test_python_imports_from_a_snapshot(main):
    (main / "package").mkdir()
    (main / "package" / "__init__.py").write_text("answer = 42\n")
    (main / ".arborfs" / "commit").write_text("a package")
    snapshot = main.parent.parent / "commits" / "main"
    assert run(sys.executable, "-c", "import package; print(package.answer)", cwd=snapshot) == "42\n"


def test_a_script_runs(main, tree):
    shutil.copy2(tree / "script", main / "script")
    assert run(main / "script") == "it runs\n"


def test_find_and_du(main, tree):
    run("cp", "-r", tree, main / "copy")
    assert len(run("find", main / "copy").splitlines()) == len(run("find", tree).splitlines())
    assert int(run("du", "-sb", main / "copy").split()[0]) > 100_000
    assert run("find", main, "-name", ".arborfs") == ""


def test_parallel_writers(main):
    script = "for i in $(seq 50); do echo $0-$i > $0-$i; mkdir d$0-$i; mv $0-$i d$0-$i/f; done"
    jobs = [subprocess.Popen(["sh", "-c", script, str(number)], cwd=main) for number in range(8)]
    assert [job.wait() for job in jobs] == [0] * 8
    assert len(os.listdir(main)) == 400
    assert all((main / f"d{j}-{i}" / "f").read_text() == f"{j}-{i}\n" for j in range(8) for i in range(1, 51))
