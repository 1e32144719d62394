"""Packing, unpacking and copying: what comes out is what went in, on the disk and in a branch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.programs.running import run, tree

PAST = 1_234_567_890_123_456_789
MEGABYTE = 1 << 20


@pytest.fixture
def packed(sources: Path) -> Path:
    """A folder with what archives get wrong: an empty folder, modes, a link, names with blanks, old times."""
    (sources / "empty").mkdir()
    (sources / "a name with blanks é").write_bytes(bytes(range(256)))
    (sources / "home.py").chmod(0o755)
    (sources / "link").symlink_to("model/../home.py")
    os.utime(sources / "engine.py", ns=(PAST, PAST))
    return sources


def contents(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_pythons_zipfile_packs_and_unpacks(place, packed):
    (packed / "link").unlink()
    archive = place / "all.zip"
    run(sys.executable, "-m", "zipfile", "-c", archive, f"{packed}/")
    run(sys.executable, "-m", "zipfile", "-t", archive)
    run(sys.executable, "-m", "zipfile", "-e", archive, place / "out")
    assert contents(place / "out" / "sources") == contents(packed)


def test_zip_updates_and_unzip_unpacks(place, packed):
    run("cp", "-a", packed, place / "in")
    run("zip", "-q", "-r", "-y", "../all.zip", ".", cwd=place / "in")
    (place / "in" / "engine.py").write_text("changed")
    (place / "in" / "errors.py").unlink()
    run("zip", "-q", "-r", "-y", "-FS", "../all.zip", ".", cwd=place / "in")
    run("unzip", "-q", "-t", place / "all.zip")
    run("unzip", "-q", place / "all.zip", "-d", place / "out")
    assert contents(place / "out") == contents(place / "in")
    assert os.readlink(place / "out" / "link") == "model/../home.py"
    assert (place / "out" / "home.py").stat().st_mode & 0o777 == 0o755


def sparse(path: Path) -> None:
    """A file of 3 MiB that is mostly hole, with an odd mode and an old time."""
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(MEGABYTE)
        file.write(b"middle" * 1000)
        file.truncate(3 * MEGABYTE)
    path.chmod(0o640)
    os.utime(path, ns=(PAST, PAST))


def test_sparse_files_are_copied_and_packed(place, tmp_path):
    sparse(tmp_path / "sparse")
    run("cp", "-a", "--sparse=always", tmp_path / "sparse", place / "one")
    run("cp", "-a", "--sparse=always", place / "one", place / "two")
    run("cp", "-a", "--sparse=never", place / "two", place / "three")
    run("tar", "--sparse", "--format=posix", "-cf", place / "all.tar", "-C", place, "one", "two")
    (place / "out").mkdir()
    run("tar", "--sparse", "-xf", place / "all.tar", "-C", place / "out")
    wanted = tree(tmp_path)["sparse"]
    copies = [place / "one", place / "two", place / "three", place / "out" / "one", place / "out" / "two"]
    assert [tree(path.parent)[path.name] == wanted for path in copies] == [True] * 5


def test_cp_keeps_everything(place, packed):
    run("cp", "-a", packed, place / "one")
    run("cp", "-a", place / "one", place / "two")
    assert tree(place / "one") == tree(packed)
    assert tree(place / "two") == tree(packed)


def test_mv_between_trees_copies_everything(home, packed):
    """From branch to branch a rename is EXDEV, so `mv` copies and removes."""
    other = home.other()
    run("cp", "-a", packed, home.path / "moved")
    if home.kind == "branch":
        with pytest.raises(OSError, match="cross-device"):
            os.rename(home.path / "moved", other / "moved")
    run("mv", home.path / "moved", other)
    assert os.listdir(home.path) == []
    assert tree(other / "moved") == tree(packed)


def test_du_counts_bytes_as_on_the_disk(place, packed):
    run("cp", "-a", packed, place / "copy")
    count = ["find", ".", "-type", "f", "-exec", "du", "--apparent-size", "-b", "{}", "+"]
    assert sorted(run(*count, cwd=place / "copy").splitlines()) == sorted(run(*count, cwd=packed).splitlines())
    whole = int(run("du", "--apparent-size", "-b", "-s", "-c", *sorted(place.glob("copy/*.py"))).split()[-2])
    assert whole == sum(path.stat().st_size for path in packed.glob("*.py"))
