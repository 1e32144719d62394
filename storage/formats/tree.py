"""Directory trees as they are: files, links and directories, with times, permissions and `user.` attributes.

Symbolic links are kept as links and never followed, but for a path that the user named. Fifos, sockets and devices
are refused by name. Owners are not kept: they mean nothing elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from storage.errors import InvalidName, Unsupported
from storage.formats.base import BLOCK_BYTES, File, FileSource, Folder, Item, Link, Options, Stored, regular_file
from storage.model.names import Path as TreePath
from storage.model.names import check_name
from storage.model.records import Attributes, Entry, Kind

_NO_XATTRS = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES)
_DERIVED = "user.arborfs."


class TreeFormat:
    """Files as they are."""

    name = "tree"
    suffixes: tuple[str, ...] = ()

    def weigh(self, path: Path, options: Options) -> int:
        """Bytes of all files."""
        if not path.is_dir():
            return path.stat().st_size
        return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """A directory with all below it, depth first; or one file, under its own name."""
        if path.is_dir():
            yield from _directory(path, (), options)
        else:
            yield from _file(path, (os.fsencode(path.name),), options, follow=True)

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """A directory with all below it, or one file or link."""
        _save(stored, path, options)


TREE = TreeFormat()


def _directory(path: Path, place: TreePath, options: Options) -> Iterator[Item]:
    known = path.stat()
    with os.scandir(path) as entries:
        found = sorted(os.fsencode(entry.name) for entry in entries)
    for name in found:
        here, below = path / os.fsdecode(name), (*place, name)
        mode = here.lstat().st_mode
        try:
            check_name(name)
        except InvalidName as error:
            raise InvalidName(f"{here}: {error}") from error
        if stat.S_ISDIR(mode):
            yield from _directory(here, below, options)
        elif stat.S_ISLNK(mode):
            yield Link(below, os.fsencode(os.readlink(here)), str(here), here.lstat().st_mtime_ns)
        else:
            yield from _file(here, below, options, follow=False)
    yield Folder(place, str(path), known.st_mtime_ns, _attributes(path, known.st_mode, 0o755))


def _file(path: Path, place: TreePath, options: Options, *, follow: bool) -> Iterator[Item]:
    fd, known = regular_file(path, follow=follow)
    try:
        source = FileSource(fd, known.st_size, str(path), options.meter)
        yield File(place, source, str(path), known.st_mtime_ns, _attributes(fd, known.st_mode, 0o644))
    finally:
        os.close(fd)


def _attributes(file: Path | int, mode: int, usual: int) -> Attributes:
    permissions = stat.S_IMODE(mode)
    pairs = []
    try:
        names = os.listxattr(file)
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise
        names = []
    for name in names:
        if name.startswith("user.") and not name.startswith(_DERIVED):
            with suppress(OSError):  # removed meanwhile
                pairs.append((os.fsencode(name), os.getxattr(file, name)))
    return Attributes(mode=None if permissions == usual else permissions, xattrs=tuple(sorted(pairs)))


def _save(stored: Stored, path: Path, options: Options) -> None:
    entry = stored.entry
    if entry.kind is Kind.SYMLINK:
        os.symlink(stored.target, path)
        os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
        return
    if entry.is_directory:
        path.mkdir()
        for name, child in stored.children():
            if stored.path or name != b".arborfs":
                _save(child, path / os.fsdecode(name), options)
    else:
        save_file(stored, path, options)
    _restore(entry, path)


def save_file(stored: Stored, path: Path, options: Options) -> None:
    """Write the file form of a file or sample to `path`, which is not there yet. Unsupported for anything else."""
    if stored.entry.kind not in (Kind.FILE, Kind.SAMPLE):
        raise Unsupported(f"{stored.name} is not a file")
    content = stored.open()
    with open(path, "xb") as out:
        for offset in range(0, content.size, BLOCK_BYTES):
            options.meter.advance(out.write(content.read(offset, BLOCK_BYTES)))


def _restore(entry: Entry, path: Path) -> None:
    """Times, permissions and attributes as they were kept. A new file's permissions leave the umask its say."""
    for name, value in entry.attributes.xattrs:
        try:
            os.setxattr(path, name, value)
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
    if entry.attributes.mode is not None:
        # Never more than the user's own: set-uid files are not made by an export.
        path.chmod(entry.attributes.mode & 0o777)
    if entry.mtime:
        os.utime(path, ns=(entry.mtime, entry.mtime))
