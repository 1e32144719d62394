"""What was found in a tree, kept in the repository for the next process: a file for each tree and marker.

Whatever is wrong with a file, it is as if it were not there: all of it can be found again. FORMAT.md says how it is written.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from storage.disk import files
from storage.disk.segments import checksum
from storage.errors import StorageFailed, StorageFull
from storage.labels.marks import Marker
from storage.labels.walk import Directory
from storage.model.format import MALFORMED

MAGIC = b"arbL\x01\0\0\0"
SUFFIX = ".labels"
WORTH = 2000
"""What took so many nodes and rows to find is kept."""
FILES = 16
"""So many files are kept, those that were used last."""
LARGEST = 1 << 32
_CHECK = 8


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What a walk has found, and of a branch as of when: the generation, and what tells its history from any other."""

    generation: int
    check: int
    root: Directory


class Shelf:
    """The files of one repository, in a folder of their own. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, marker: Marker, name: str) -> Kept | None:
        """What was put there; None where it is not, or no more."""
        return self._read(self._path(marker, name))

    def latest(self, marker: Marker) -> Kept | None:
        """What was used last, of whatever tree: most of it is in the others, too."""
        used = [path for path in self._used() if path.match(f"{marker.name}-{marker.version}-*{SUFFIX}")]
        return self._read(used[0]) if used else None

    def _read(self, path: Path) -> Kept | None:
        try:
            data = memoryview(files.read_file(path, LARGEST))
        except (FileNotFoundError, StorageFailed):
            return None
        body = data[len(MAGIC) + _CHECK :]
        if data[: len(MAGIC)] != MAGIC or int.from_bytes(data[len(MAGIC) :][:_CHECK], "little") != checksum(body):
            return None
        try:
            kept = _decoder.decode(body)
        except (*MALFORMED, RecursionError):
            return None
        with suppress(OSError):  # only for knowing which were used last
            os.utime(path)
        return kept

    def put(self, marker: Marker, name: str, kept: Kept) -> None:
        """Put it there in place of what was. Where that is not possible, nothing happens."""
        try:
            body = _encoder.encode(kept)
        except RecursionError:
            return  # directories in each other by the thousand
        with suppress(StorageFull, StorageFailed):
            files.make_directory(self._folder)
            path = self._path(marker, name)
            files.put_aside(path, [MAGIC, checksum(body).to_bytes(_CHECK, "little"), body])
            self._prune(path)

    def _path(self, marker: Marker, name: str) -> Path:
        return self._folder / f"{marker.name}-{marker.version}-{name}{SUFFIX}"

    def _prune(self, latest: Path) -> None:
        for path in self._used()[FILES:]:
            if path != latest:
                files.remove(path)

    def _used(self) -> list[Path]:
        """All files, what was used last first."""
        used = []
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                with suppress(FileNotFoundError):
                    used.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(used, reverse=True)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)
