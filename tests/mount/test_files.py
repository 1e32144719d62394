"""Files, directories and links of a working tree, through the kernel: POSIX as programs expect it."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from storage.engine import Engine
from tests.conftest import wait_until
from tests.mount.conftest import refused

EXCHANGE, NOREPLACE = 2, 1


def renameat2(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class TestReadingAndWriting:
    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 100_000, 3_000_000, 20_000_000])
    def test_what_was_written_is_read(self, main, size):
        data = os.urandom(size)
        (main / "file").write_bytes(data)
        assert (main / "file").read_bytes() == data
        assert (main / "file").stat().st_size == size

    def test_it_is_there_after_a_remount(self, mounted, repository):
        first = mounted(repository)
        data = os.urandom(5_000_000)
        (first.main / "big").write_bytes(data)
        (first.main / "small").write_bytes(b"text")
        first.unmount()
        second = mounted(repository)
        assert (second.main / "big").read_bytes() == data
        assert (second.main / "small").read_bytes() == b"text"

    def test_a_small_change_in_a_big_file(self, mounted, repository):
        first = mounted(repository)
        data = bytearray(os.urandom(30_000_000))
        (first.main / "big").write_bytes(data)
        with open(first.main / "big", "r+b") as file:
            file.seek(12_345_678)
            file.write(b"changed")
        data[12_345_678:12_345_685] = b"changed"
        assert (first.main / "big").read_bytes() == data
        first.unmount()
        used = sum(path.stat().st_blocks * 512 for path in (repository / ".arborfs").rglob("*") if path.is_file())
        assert used < 45_000_000, "the whole file was stored twice"
        assert (mounted(repository).main / "big").read_bytes() == data

    def test_two_handles_agree(self, main):
        with open(main / "file", "w+b", buffering=0) as one, open(main / "file", "r+b", buffering=0) as other:
            one.write(b"abcdef")
            assert other.read() == b"abcdef"
            other.seek(2)
            other.write(b"XY")
            one.seek(0)
            assert one.read() == b"abXYef"

    def test_appending(self, main):
        for part in (b"one ", b"two ", b"three"):
            with open(main / "log", "ab") as file:
                file.write(part)
        assert (main / "log").read_bytes() == b"one two three"
        with open(main / "log", "ab", buffering=0) as one, open(main / "log", "ab", buffering=0) as other:
            one.write(b"-a")
            other.write(b"-b")
        assert (main / "log").read_bytes() == b"one two three-a-b"

    def test_holes_read_as_zeros(self, main):
        with open(main / "sparse", "wb") as file:
            file.seek(10_000_000)
            file.write(b"end")
        data = (main / "sparse").read_bytes()
        assert len(data) == 10_000_003
        assert data.strip(b"\0") == b"end"

    @pytest.mark.parametrize("size", [0, 3, 10, 5000, 3_000_000])
    def test_truncate_without_a_handle(self, main, size):
        (main / "file").write_bytes(b"0123456789")
        os.truncate(main / "file", size)
        assert (main / "file").read_bytes() == b"0123456789"[:size].ljust(size, b"\0")

    def test_truncate_an_open_file(self, main):
        with open(main / "file", "w+b", buffering=0) as file:
            file.write(b"0123456789")
            file.truncate(4)
            assert os.fstat(file.fileno()).st_size == 4
            file.truncate(6)
            file.seek(0)
            assert file.read() == b"0123\0\0"
        assert (main / "file").read_bytes() == b"0123\0\0"

    def test_shared_writable_mmap(self, main):
        (main / "file").write_bytes(bytes(100_000))
        with open(main / "file", "r+b") as file:
            with mmap.mmap(file.fileno(), 0) as view:
                view[50_000:50_005] = b"hello"
                view.flush()
            file.seek(50_000)
            assert file.read(5) == b"hello"
        assert (main / "file").read_bytes()[50_000:50_005] == b"hello"

    def test_a_write_is_staged_at_close(self, main, repository):
        with open(main / "file", "wb", buffering=0) as file:
            file.write(b"contents")
        with Engine.open(repository) as engine:
            tree = engine.working_tree("main")
            assert tree.open((b"file",))[1].read(0, 100) == b"contents"

    def test_fsync_stages_and_stays_open(self, main, repository):
        with open(main / "file", "wb", buffering=0) as file, Engine.open(repository) as engine:
            file.write(b"one")
            os.fsync(file.fileno())
            tree = engine.working_tree("main")
            assert tree.open((b"file",))[1].read(0, 100) == b"one"
            file.write(b" two")
            os.fdatasync(file.fileno())
            assert tree.open((b"file",))[1].read(0, 100) == b"one two"

    def test_fsync_of_a_directory(self, main):
        descriptor = os.open(main, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def test_exclusive_creation(self, main):
        (main / "lock").touch(exist_ok=False)
        with pytest.raises(FileExistsError):
            (main / "lock").touch(exist_ok=False)

    def test_mknod_makes_an_empty_file(self, main):
        os.mknod(main / "node", stat.S_IFREG | 0o600)
        assert (main / "node").stat().st_mode == stat.S_IFREG | 0o600
        assert (main / "node").read_bytes() == b""

    def test_opening_with_truncation(self, main):
        (main / "file").write_bytes(b"long contents")
        os.close(os.open(main / "file", os.O_WRONLY | os.O_TRUNC))
        assert (main / "file").read_bytes() == b""


class TestUnlinkedWhileOpen:
    def test_reading_and_writing_go_on(self, main):
        with open(main / "file", "w+b", buffering=0) as file:
            file.write(b"before")
            os.unlink(main / "file")
            assert os.fstat(file.fileno()).st_nlink == 0
            file.write(b" after")
            file.seek(0)
            assert file.read() == b"before after"
        assert not (main / "file").exists()
        assert list(main.iterdir()) == []

    def test_a_staged_file_reads_on(self, main):
        (main / "file").write_bytes(b"x" * 200_000)
        with open(main / "file", "rb") as file:
            os.unlink(main / "file")
            assert file.read() == b"x" * 200_000

    def test_a_late_flush_resurrects_nothing(self, main, repository):
        file = open(main / "file", "wb", buffering=0)
        file.write(b"one")
        duplicate = os.dup(file.fileno())
        os.unlink(main / "file")
        file.write(b"two")
        os.close(duplicate)
        file.close()
        with Engine.open(repository) as engine:
            assert list(engine.working_tree("main").entries(())) == []

    def test_a_new_file_of_the_name_is_another_one(self, main):
        with open(main / "file", "w+b", buffering=0) as old:
            old.write(b"old")
            os.unlink(main / "file")
            (main / "file").write_bytes(b"new")
            old.seek(0)
            assert old.read() == b"old"
            assert os.fstat(old.fileno()).st_ino != (main / "file").stat().st_ino
        assert (main / "file").read_bytes() == b"new"


class TestRename:
    def test_over_an_existing_file(self, main):
        (main / "a").write_bytes(b"a")
        (main / "b").write_bytes(b"b")
        os.rename(main / "a", main / "b")
        assert (main / "b").read_bytes() == b"a"
        assert os.listdir(main) == ["b"]

    def test_over_an_open_file(self, main):
        (main / "old").write_bytes(b"old")
        (main / "new").write_bytes(b"new")
        with open(main / "old", "rb") as file:
            os.rename(main / "new", main / "old")
            assert file.read() == b"old"
        assert (main / "old").read_bytes() == b"new"

    def test_of_an_open_file(self, main):
        with open(main / "a", "wb", buffering=0) as file:
            file.write(b"one ")
            os.rename(main / "a", main / "b")
            file.write(b"two")
        assert (main / "b").read_bytes() == b"one two"
        assert os.listdir(main) == ["b"]

    def test_below_a_renamed_directory(self, main):
        (main / "d" / "e").mkdir(parents=True)
        with open(main / "d" / "e" / "file", "wb", buffering=0) as file:
            file.write(b"kept")
            os.rename(main / "d", main / "moved")
            file.write(b" on")
        assert (main / "moved" / "e" / "file").read_bytes() == b"kept on"
        assert not (main / "d").exists()

    def test_a_directory_over_an_empty_one_only(self, main):
        (main / "a").mkdir()
        (main / "a" / "x").touch()
        (main / "b").mkdir()
        os.rename(main / "a", main / "b")
        assert os.listdir(main / "b") == ["x"]
        (main / "c").mkdir()
        with refused(errno.ENOTEMPTY):
            os.rename(main / "c", main / "b")

    def test_kinds_must_agree(self, main):
        (main / "d").mkdir()
        (main / "f").touch()
        with refused(errno.EISDIR):
            os.rename(main / "f", main / "d")
        with refused(errno.ENOTDIR):
            os.rename(main / "d", main / "f")

    def test_into_itself(self, main):
        (main / "d" / "e").mkdir(parents=True)
        with refused(errno.EINVAL):
            os.rename(main / "d", main / "d" / "e" / "f")

    def test_noreplace(self, main):
        (main / "a").write_bytes(b"a")
        (main / "b").write_bytes(b"b")
        with refused(errno.EEXIST):
            renameat2(main / "a", main / "b", NOREPLACE)
        renameat2(main / "a", main / "c", NOREPLACE)
        assert sorted(os.listdir(main)) == ["b", "c"]

    def test_exchange(self, main):
        (main / "a").write_bytes(b"a")
        (main / "d").mkdir()
        (main / "d" / "b").write_bytes(b"b")
        renameat2(main / "a", main / "d" / "b", EXCHANGE)
        assert (main / "a").read_bytes() == b"b"
        assert (main / "d" / "b").read_bytes() == b"a"
        renameat2(main / "a", main / "d", EXCHANGE)
        assert (main / "d").read_bytes() == b"b"
        assert (main / "a" / "b").read_bytes() == b"a"

    def test_names_change_under_a_reader_of_the_directory_inside(self, main):
        (main / "d").mkdir()
        for number in range(50):
            (main / "d" / f"{number}").touch()
        inside = os.open(main / "d", os.O_RDONLY)
        os.rename(main / "d", main / "e")
        assert len(os.listdir(inside)) == 50
        assert os.stat("7", dir_fd=inside).st_size == 0
        os.close(inside)


class TestAttributes:
    def test_mode_owner_and_times_are_kept(self, mounted, repository):
        first = mounted(repository)
        for name in ("file", "directory"):
            path = first.main / name
            path.touch() if name == "file" else path.mkdir()
            os.chmod(path, 0o2750 if name == "directory" else 0o640)
            os.chown(path, 1234, 5678)
            os.utime(path, ns=(0, 1_234_567_890_123_456_789))
        first.unmount()
        second = mounted(repository)
        for name, mode in (("file", 0o640), ("directory", 0o2750)):
            found = (second.main / name).stat()
            assert stat.S_IMODE(found.st_mode) == mode
            assert (found.st_uid, found.st_gid) == (1234, 5678)
            assert found.st_mtime_ns == 1_234_567_890_123_456_789

    def test_times_set_while_writing_win(self, main):
        with open(main / "file", "wb", buffering=0) as file:
            file.write(b"data")
            os.utime(file.fileno(), ns=(0, 1_000_000_007))
            os.fchmod(file.fileno(), 0o600)
        found = (main / "file").stat()
        assert found.st_mtime_ns == 1_000_000_007
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_size == 4

    def test_mtime_is_that_of_the_last_write(self, main):
        before = time.time_ns()
        with open(main / "file", "wb", buffering=0) as file:
            file.write(b"data")
            written = os.fstat(file.fileno()).st_mtime_ns
        assert before <= written <= time.time_ns()
        assert (main / "file").stat().st_mtime_ns == written

    def test_a_directory_is_as_new_as_its_last_entry(self, main):
        (main / "d").mkdir()
        os.utime(main / "d", ns=(0, 1_000_000_000))
        before = time.time_ns()
        (main / "d" / "x").touch()
        assert (main / "d").stat().st_mtime_ns >= before

    def test_blocks_links_and_the_disk(self, main, repository):
        (main / "file").write_bytes(b"x" * 1025)
        found = (main / "file").stat()
        assert (found.st_blocks, found.st_nlink) == (3, 1)
        assert main.stat().st_nlink == 1
        disk = os.statvfs(main)
        real = os.statvfs(repository)
        assert (disk.f_blocks, disk.f_frsize, disk.f_files) == (real.f_blocks, real.f_frsize, real.f_files)
        assert disk.f_namemax == 255

    def test_creation_modes(self, main):
        descriptor = os.open(main / "x", os.O_CREAT | os.O_WRONLY, 0o755)
        os.close(descriptor)
        assert stat.S_IMODE((main / "x").stat().st_mode) == 0o755 & ~_umask()
        (main / "d").mkdir(mode=0o700)
        assert stat.S_IMODE((main / "d").stat().st_mode) == 0o700

    def test_a_set_group_id_directory_hands_its_group_on(self, main):
        (main / "d").mkdir()
        os.chown(main / "d", -1, 4321)
        os.chmod(main / "d", 0o2775)
        (main / "d" / "f").touch()
        (main / "d" / "e").mkdir()
        assert (main / "d" / "f").stat().st_gid == 4321
        assert (main / "d" / "e").stat().st_mode & stat.S_ISGID


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


class TestNames:
    def test_bytes_that_are_no_text(self, main):
        raw = os.fsencode(main) + b"/\xff\xfe\n name"
        with open(raw, "wb") as file:
            file.write(b"x")
        assert os.listdir(os.fsencode(main)) == [b"\xff\xfe\n name"]

    def test_long_names(self, main):
        (main / ("n" * 255)).touch()
        assert os.listdir(main) == ["n" * 255]
        for name in ("n" * 256, "n" * 1000):
            with refused(errno.ENAMETOOLONG):
                (main / name).touch()

    def test_the_reserved_name_cannot_be_made(self, main):
        (main / "d").mkdir()
        (main / "f").touch()
        for act in (
            lambda: (main / "d" / ".arborfs").mkdir(),
            lambda: (main / "d" / ".arborfs").touch(),
            lambda: os.symlink("x", main / "d" / ".arborfs"),
            lambda: os.rename(main / "f", main / "d" / ".arborfs"),
        ):
            with refused(errno.EINVAL):
                act()
        assert not (main / "d" / ".arborfs").exists()

    def test_what_is_not_there(self, main):
        with pytest.raises(FileNotFoundError):
            (main / "nothing").stat()
        (main / "nothing").write_bytes(b"now it is")
        assert (main / "nothing").read_bytes() == b"now it is"

    def test_symbolic_links(self, mounted, repository):
        first = mounted(repository)
        os.symlink("a/" * 500 + "b", first.main / "long")
        os.symlink("target", first.main / "link")
        (first.main / "target").write_bytes(b"t")
        assert os.readlink(first.main / "link") == "target"
        assert (first.main / "link").read_bytes() == b"t"
        assert (first.main / "link").lstat().st_size == 6
        (first.main / ".arborfs" / "commit").write_text("links\n")
        assert os.readlink(first.main / "long") == "a/" * 500 + "b"
        assert os.readlink(first.path / "commits" / "main" / "long") == "a/" * 500 + "b"

    def test_what_is_not_kept(self, main):
        (main / "file").touch()
        for act in (
            lambda: os.link(main / "file", main / "hard"),
            lambda: os.mkfifo(main / "pipe"),
            lambda: os.mknod(main / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        ):
            with refused(errno.EPERM):
                act()

    def test_removing(self, main):
        (main / "d").mkdir()
        (main / "d" / "f").touch()
        with refused(errno.ENOTEMPTY):
            os.rmdir(main / "d")
        with refused(errno.EISDIR):
            os.unlink(main / "d")
        with refused(errno.ENOTDIR):
            os.rmdir(main / "d" / "f")
        os.unlink(main / "d" / "f")
        os.rmdir(main / "d")
        assert os.listdir(main) == []


class TestListing:
    def test_every_entry_once(self, main):
        names = {f"entry-{number:05d}" for number in range(3000)}
        for name in names:
            (main / name).touch()
        listed = os.listdir(main)
        assert len(listed) == 3000
        assert set(listed) == names

    def test_what_stays_is_listed_once_whatever_comes_and_goes(self, main):
        stay = {f"stay-{number:04d}" for number in range(1500)}
        for name in stay:
            (main / name).touch()
            (main / name.replace("stay", "go")).touch()
        seen = []
        with os.scandir(main) as entries:
            for number, entry in enumerate(entries):
                seen.append(entry.name)
                if number % 10 == 0:
                    (main / f"new-{number}").touch()
                if number < 1400:
                    (main / f"go-{1499 - number:04d}").unlink(missing_ok=True)
        assert len(seen) == len(set(seen))
        assert stay <= set(seen)

    def test_rewinding(self, main):
        for number in range(700):
            (main / f"{number}").touch()
        descriptor = os.open(main, os.O_RDONLY)
        first = os.listdir(descriptor)
        (main / "another").touch()
        second = os.listdir(descriptor)
        os.close(descriptor)
        assert sorted([*first, "another"]) == sorted(second)

    def test_dot_and_dot_dot(self, main):
        listed = subprocess.run(["ls", "-a", main], capture_output=True, text=True, check=True).stdout.split()
        assert listed == [".", ".."]

    def test_removing_while_listing(self, main):
        for number in range(1000):
            (main / f"{number}").touch()
        (main / "d").mkdir()
        (main / "d" / "below").touch()
        subprocess.run(["rm", "-r", *main.iterdir()], check=True)
        assert os.listdir(main) == []


def test_many_open_files(main):
    files = [open(main / f"{number}", "wb", buffering=0) for number in range(300)]
    for number, file in enumerate(files):
        file.write(str(number).encode())
    for file in files:
        file.close()
    assert all((main / f"{number}").read_bytes() == str(number).encode() for number in range(300))


def test_locks_are_the_kernels(main):
    import fcntl

    with open(main / "file", "wb") as one, open(main / "file", "wb") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.lockf(one, fcntl.LOCK_EX)


def test_inode_numbers_are_not_used_again(main):
    seen = set()
    for _ in range(50):
        (main / "file").write_bytes(b"x")
        number = (main / "file").stat().st_ino
        assert number not in seen
        seen.add(number)
        (main / "file").unlink()


def test_a_file_renamed_under_its_writers_ends_whole(main):
    """Save by writing beside and renaming over, again and again, with a reader that never sees a torn file."""
    (main / "config").write_bytes(b"0" * 1000)
    for number in range(1, 50):
        (main / "config.new").write_bytes(str(number % 10).encode() * 1000)
        os.replace(main / "config.new", main / "config")
        data = (main / "config").read_bytes()
        assert len(set(data)) == 1 and len(data) == 1000
    assert wait_until(lambda: os.listdir(main) == ["config"])
