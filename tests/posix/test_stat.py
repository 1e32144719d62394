"""stat(2) and statvfs(3): numbers that stay, links, blocks, the disk; holes, allocation, and copies in the kernel."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from tests.posix.calls import answer, fallocate


def committed(place, kind) -> None:
    if kind == "mount":
        (place.parent / ".arborfs" / "commit").write_text("a commit")


def test_a_files_number_stays_whatever_is_done_to_it(place, kind):
    with open(place / "f", "wb", buffering=0) as file:
        ino = os.fstat(file.fileno()).st_ino
        file.write(b"x" * 100)
        os.fsync(file.fileno())
        file.write(b"y" * 3_000_000)
        assert os.fstat(file.fileno()).st_ino == ino
    committed(place, kind)
    assert (place / "f").stat().st_ino == ino
    (place / "f").write_bytes(b"new")
    (place / "f").chmod(0o600)
    os.rename(place / "f", place / "g")
    os.truncate(place / "g", 1)
    committed(place, kind)
    with open(place / "g", "rb") as file:
        assert os.fstat(file.fileno()).st_ino == ino
    assert [entry.inode() for entry in os.scandir(place)] == [ino]


def test_a_directorys_number_stays(place, kind):
    (place / "d").mkdir()
    ino = (place / "d").stat().st_ino
    (place / "d" / "f").write_bytes(b"x")
    committed(place, kind)
    (place / "d" / "g").write_bytes(b"x")
    os.rename(place / "d", place / "e")
    assert (place / "e").stat().st_ino == ino
    assert os.stat(place / "e" / "..").st_ino == place.stat().st_ino
    assert os.stat(place / "e" / ".").st_ino == ino


def test_numbers_differ_and_devices_agree(place):
    for number in range(50):
        (place / str(number)).touch()
    (place / "d").mkdir()
    found = [os.stat(place / name) for name in os.listdir(place)]
    assert len({one.st_ino for one in found}) == 51
    assert {one.st_dev for one in found} == {place.stat().st_dev}


def test_links_and_blocks(place):
    (place / "empty").touch()
    (place / "small").write_bytes(b"x")
    (place / "large").write_bytes(os.urandom(1_000_000))
    (place / "link").symlink_to("small")
    assert (place / "empty").stat().st_blocks == 0
    for name, size in (("small", 1), ("large", 1_000_000)):
        with open(place / name, "rb") as file:
            os.fsync(file.fileno())
        found = (place / name).stat()
        assert found.st_size == size
        assert found.st_blocks * 512 >= size
        assert found.st_nlink == 1
    assert os.lstat(place / "link").st_nlink == 1
    assert os.lstat(place / "link").st_size == 5
    assert (place / "small").stat().st_blksize >= 512


def test_the_disk_is_told(place):
    disk = os.statvfs(place)
    assert disk.f_blocks > 0
    assert 0 < disk.f_bavail <= disk.f_bfree <= disk.f_blocks
    assert disk.f_files >= disk.f_ffree > 0
    assert disk.f_namemax == 255
    with open(place / "f", "wb") as file:
        assert os.fstatvfs(file.fileno()).f_blocks == disk.f_blocks
    assert shutil.disk_usage(place).total == disk.f_blocks * disk.f_frsize


def test_data_and_holes_are_found(place, kind):
    with open(place / "f", "w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"x" * 4096, 0)
        os.pwrite(file.fileno(), b"y" * 4096, 1 << 20)
        end = (1 << 20) + 4096
        os.fsync(file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        # A branch says that all of a file is data, which is always allowed.
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == (4096 if kind == "ext4" else end)
        assert os.lseek(file.fileno(), 8192, os.SEEK_DATA) == (1 << 20 if kind == "ext4" else 8192)
        assert os.lseek(file.fileno(), 1 << 20, os.SEEK_HOLE) == end
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            assert answer(lambda whence=whence: os.lseek(file.fileno(), end, whence)) == "ENXIO"
        assert os.lseek(file.fileno(), 0, os.SEEK_END) == end


def test_space_is_allocated(place):
    with open(place / "f", "w+b", buffering=0) as file:
        file.write(b"contents")
        os.posix_fallocate(file.fileno(), 0, 100_000)
        assert os.fstat(file.fileno()).st_size == 100_000
        os.posix_fallocate(file.fileno(), 50, 10)
        assert os.fstat(file.fileno()).st_size == 100_000
    assert (place / "f").read_bytes() == b"contents" + bytes(100_000 - 8)


def test_what_a_branch_does_not_allocate_or_punch(place, kind):
    keep_size, punch, zero = 1, 2, 16
    with open(place / "f", "w+b", buffering=0) as file:
        file.write(b"x" * 10_000)
        for mode in (0, keep_size, keep_size | punch, zero):
            assert answer(lambda mode=mode: fallocate(file.fileno(), mode, 0, 4096)) == (
                None if kind == "ext4" else "ENOTSUP"
            )
        assert os.fstat(file.fileno()).st_size == 10_000
        assert os.pread(file.fileno(), 10_000, 4096) == b"x" * (10_000 - 4096)


@pytest.mark.parametrize("how", ["copy_file_range", "sendfile", "shutil"])
@pytest.mark.parametrize("size", [0, 100, 300_000, 5_000_000])
def test_copies_in_the_kernel_are_whole(place, how, size):
    data = os.urandom(size)
    (place / "a").write_bytes(data)
    if how == "shutil":
        shutil.copy2(place / "a", place / "b")
        assert (place / "b").stat().st_mtime_ns == (place / "a").stat().st_mtime_ns
    else:
        copy = os.copy_file_range if how == "copy_file_range" else lambda a, b, n: os.sendfile(b, a, None, n)
        with open(place / "a", "rb", buffering=0) as a, open(place / "b", "wb", buffering=0) as b:
            while copy(a.fileno(), b.fileno(), 1 << 20):
                pass
    assert (place / "b").read_bytes() == data


def test_copies_between_a_place_and_the_disk(place, tmp_path):
    data = os.urandom(400_000)
    (place / "a").write_bytes(data)
    shutil.copyfile(place / "a", tmp_path / "out")
    shutil.copyfile(tmp_path / "out", place / "b")
    assert (place / "b").read_bytes() == data
    with open(place / "a", "rb") as a, open(place / "c", "wb") as c:
        os.copy_file_range(a.fileno(), c.fileno(), 100, 1000, 50)
    assert (place / "c").read_bytes() == bytes(50) + data[1000:1100]


def test_vectors_are_written_and_read_in_one_call(place):
    with open(place / "f", "w+b", buffering=0) as file:
        assert os.writev(file.fileno(), [b"one ", b"", b"two ", b"three"]) == 13
        first, second = bytearray(5), bytearray(20)
        assert os.preadv(file.fileno(), [first, second], 0) == 13
        assert bytes(first) == b"one t"
        assert bytes(second[:8]) == b"wo three"
        assert os.pwritev(file.fileno(), [b"X", b"Y"], 4) == 2
    assert (place / "f").read_bytes() == b"one XYo three"


def test_kinds_are_told(place):
    (place / "f").touch()
    (place / "d").mkdir()
    (place / "link").symlink_to("d")
    assert stat.S_ISREG(os.lstat(place / "f").st_mode)
    assert stat.S_ISDIR(os.lstat(place / "d").st_mode)
    assert stat.S_ISLNK(os.lstat(place / "link").st_mode)
    assert stat.S_ISDIR(os.stat(place / "link").st_mode)
