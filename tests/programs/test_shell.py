"""What a shell script does with files, on the disk and in a branch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.programs.running import run


def test_links_read_back_as_they_were_made(place):
    (place / "folder").mkdir()
    (place / "folder" / "file").write_text("data")
    for name, target in {
        "relative": "folder/file",
        "up": "../place-that-is-not-there",
        "absolute": str(place / "folder" / "file"),
        "odd": " a b\nc é ",
        "long": "x/" * 1000 + "y",
    }.items():
        run("ln", "-s", target, place / name)
        assert run("readlink", "-n", place / name) == target == os.readlink(place / name)
        assert (place / name).lstat().st_size == len(os.fsencode(target))
    run("ln", "-sfn", "folder", place / "relative")
    assert run("readlink", "-n", place / "relative") == "folder"
    assert (place / "relative" / "file").read_text() == (place / "absolute").read_text() == "data"
    assert run("realpath", place / "relative" / "file").strip() == str(place / "folder" / "file")


def test_install_gives_modes_and_keeps_times(place, tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 5000)
    os.utime(tmp_path / "source", ns=(10**18 + 7, 10**18 + 7))
    run("install", "-D", "-p", "-m", "2751", tmp_path / "source", place / "a" / "b" / "installed")
    found = (place / "a" / "b" / "installed").stat()
    assert (found.st_mode & 0o7777, found.st_mtime_ns, found.st_size) == (0o2751, 10**18 + 7, 5000)
    run("install", "-d", "-m", "750", place / "made" / "deep")
    assert (place / "made" / "deep").stat().st_mode & 0o777 == 0o750
    run("install", "-b", "-m", "600", tmp_path / "source", place / "a" / "b" / "installed")
    assert sorted(os.listdir(place / "a" / "b")) == ["installed", "installed~"]


def test_touch_sets_times(place):
    path = place / "file"
    run("touch", "-d", "2001-02-03 04:05:06.123456789 UTC", path)
    assert path.stat().st_mtime_ns == 981173106123456789
    run("touch", "-r", path, place / "other")
    assert (place / "other").stat().st_mtime_ns == 981173106123456789
    run("touch", "-c", place / "nothing")
    assert not (place / "nothing").exists()
    (place / "link").symlink_to("file")
    run("touch", "-h", "-d", "@5.000000001", place / "link")
    assert (place / "link").lstat().st_mtime_ns == 5_000_000_001
    assert path.stat().st_mtime_ns == 981173106123456789


def test_truncate_and_dd_write_in_place(place):
    path = place / "file"
    expected = bytearray(bytes(range(256)) * 4096)
    path.write_bytes(expected)
    number = path.stat().st_ino
    dd = ["dd", f"of={path}", "status=none", "conv=notrunc,fsync", "oflag=seek_bytes"]
    run(*dd, "if=/dev/zero", "bs=4096", "count=3", "seek=700001")
    expected[700_001 : 700_001 + 3 * 4096] = bytes(3 * 4096)
    run(*dd, "bs=1000", "seek=1048570", given="beyond the end")
    expected[1048570:] = b"beyond the end"
    assert path.read_bytes() == expected
    for size in ("-100", "+5000", "%4096", "123456"):
        run("truncate", "-s", size, path)
    assert path.read_bytes() == expected[:123456]
    run(*dd, "bs=10", "seek=200000", given="behind a hole")
    assert path.read_bytes() == expected[:123456] + bytes(200_000 - 123_456) + b"behind a hole"
    assert path.stat().st_ino == number


def test_filters_write_their_own_input(place):
    path = place / "lines"
    run("tee", path, given="b\na\n")
    run("tee", "-a", path, place / "second", given="c\nd\n")
    assert path.read_text() == "b\na\nc\nd\n"
    assert (place / "second").read_text() == "c\nd\n"
    run("shuf", "-o", path, path)
    run("sort", "-r", "-o", path, path)
    assert path.read_text() == "d\nc\nb\na\n"
    path.chmod(0o640)
    run("sed", "-i.before", "-e", "s/b/B/", "-e", "/d/d", path)
    assert path.read_text() == "c\nB\na\n"
    assert (place / "lines.before").read_text() == "d\nc\nb\na\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(place)) == ["lines", "lines.before", "second"]


@pytest.mark.parametrize("how", [["-b", "70001"], ["-n", "7"], ["-l", "1000", "--additional-suffix=.txt"]])
def test_split_and_cat(place, how):
    data = "".join(f"{number} is a line\n" for number in range(20_000))
    (place / "whole").write_text(data)
    run("split", *how, place / "whole", place / "part.")
    pieces = sorted(place.glob("part.*"))
    assert len(pieces) > 4
    joined(pieces, place / "joined")
    assert run("cmp", place / "whole", place / "joined") == ""


def joined(pieces: list[Path], path: Path) -> None:
    """`cat part.* > joined`, then once more appended to nothing, as shells do it."""
    quoted = " ".join(f"'{piece}'" for piece in pieces)
    run("sh", "-c", f": > '{path}'; for piece in {quoted}; do cat \"$piece\" >> '{path}'; done")
