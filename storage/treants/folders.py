"""What can be looked at: the files of a repository, and those of ordinary folders, which trees show and never change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from storage.errors import IsADirectory, NotADirectory, NotFound
from storage.files import FileInfo


class Looking(Protocol):
    """What `storage.files.Files` offers to those who only look. Paths are texts; NotFound, NotADirectory, IsADirectory."""

    def info(self, path: str) -> FileInfo:
        """What stands at `path`."""

    def list(self, path: str) -> Iterator[tuple[str, FileInfo]]:
        """Name and info of what is in a directory, in the order of the names' bytes."""

    def open(self, path: str) -> BinaryIO:
        """A file to read from."""

    def target(self, path: str) -> str:
        """Where a link leads."""


class Folder:
    """The file system outside of any repository, by absolute paths."""

    def info(self, path: str) -> FileInfo:
        """What stands at `path`. Links to it are followed; one that leads nowhere is a link."""
        try:
            return _info(os.stat(path) if os.path.exists(path) else os.lstat(path))
        except FileNotFoundError:
            raise NotFound(f"there is no {path}") from None
        except NotADirectoryError:
            raise NotADirectory(f"{os.path.dirname(path)} is not a directory") from None

    def list(self, path: str) -> Iterator[tuple[str, FileInfo]]:
        """Name and info of what is in a directory, in the order of the names' bytes. Links are links."""
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            raise NotFound(f"there is no {path}") from None
        except NotADirectoryError:
            raise NotADirectory(f"{path} is not a directory") from None
        for name in sorted(names, key=os.fsencode):
            try:
                yield name, _info(os.lstat(os.path.join(path, name)))
            except FileNotFoundError:
                continue  # removed just now

    def open(self, path: str) -> BinaryIO:
        """A file to read from."""
        try:
            return open(path, "rb")
        except FileNotFoundError:
            raise NotFound(f"there is no {path}") from None
        except IsADirectoryError:
            raise IsADirectory(f"{path} is a directory") from None

    def target(self, path: str) -> str:
        """Where a link leads."""
        return os.readlink(path)


def _info(found: os.stat_result) -> FileInfo:
    if stat.S_ISDIR(found.st_mode):
        return FileInfo("directory", 0, found.st_mtime_ns)
    return FileInfo("link" if stat.S_ISLNK(found.st_mode) else "file", found.st_size, found.st_mtime_ns)


ORDINARY = Folder()
