"""What the mount refused to store: the reasons, and the bytes, kept until someone drops them.

    <repository>/.arborfs/rejected/<branch>/errors.jsonl      one JSON object a line: time (ns), path, reason, kept
    <repository>/.arborfs/rejected/<branch>/<number>-<name>   the bytes of a refused file

They survive the daemon. Nothing of it is part of any commit.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from storage.disk import files
from storage.errors import ArborError, NotFound, StorageFailed
from storage.model.format import MALFORMED
from storage.model.names import MAX_NAME, path_text
from storage.model.names import Path as TreePath

ERRORS = "errors.jsonl"
PIECE = 1 << 20
MAX_ERRORS = 1000
MAX_BYTES = 1 << 24
"""When the errors have grown to half of this, only the last MAX_ERRORS are kept."""


class Rejection(msgspec.Struct, frozen=True):
    """One refusal; `kept` is the name of the file with the bytes, empty where there is none."""

    time: int
    path: str
    reason: str
    kept: str = ""


class Rejections:
    """The refusals of one branch. Made on disk only when there is one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def move(self, branch: str) -> None:
        """The branch has a new name."""
        folder = self._folder.with_name(branch)
        if self._folder.exists():
            os.replace(self._folder, folder)
        self._folder = folder

    def note(self, path: TreePath, reason: str, kept: str = "") -> None:
        """Remember why something was refused."""
        record = Rejection(time.time_ns(), path_text(path), _text(reason), kept)
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._folder / ERRORS
        if place.exists() and place.stat().st_size > MAX_BYTES // 2:
            kept_ones = b"".join(msgspec.json.encode(one) + b"\n" for one in self.errors())
            files.replace(place, kept_ones)
        with place.open("ab") as out:
            out.write(msgspec.json.encode(record) + b"\n")

    @contextmanager
    def noting(self, path: TreePath) -> Iterator[None]:
        """Remember why the body was refused, if it is."""
        try:
            yield
        except ArborError as error:
            self.note(path, str(error))
            raise

    def errors(self) -> list[Rejection]:
        """The last refusals, oldest first. Lines that are none are passed over."""
        try:
            lines = files.read_file(self._folder / ERRORS, MAX_BYTES).splitlines()[-MAX_ERRORS:]
        except (FileNotFoundError, StorageFailed):
            return []
        return [record for line in lines if (record := _record(line)) is not None]

    def clear_errors(self) -> None:
        """Forget the reasons; kept files stay."""
        (self._folder / ERRORS).unlink(missing_ok=True)

    def keep(self, path: TreePath, size: int, read: Callable[[int, int], bytes | memoryview]) -> str:
        """Keep the bytes of a refused file; the name they are kept under."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = _text(path[-1].decode("utf-8", "backslashreplace"))
        number = 1
        while True:
            # Cut by bytes: a name of 255 letters may have a thousand.
            kept = f"{number}-{name}".encode()[:MAX_NAME].decode("utf-8", "ignore")
            try:
                descriptor = os.open(self._folder / kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
            except FileExistsError:
                number += 1
        with open(descriptor, "wb") as out:
            for offset in range(0, size, PIECE):
                out.write(read(offset, min(PIECE, size - offset)))
        return kept

    def names(self) -> list[bytes]:
        """The names of the kept files."""
        try:
            return sorted(name for name in os.listdir(os.fsencode(self._folder)) if name != ERRORS.encode())
        except FileNotFoundError:
            return []

    def path(self, name: bytes) -> bytes:
        """Where the kept file of that name lies. NotFound."""
        path = os.path.join(os.fsencode(self._folder), name)
        try:
            found = stat.S_ISREG(os.lstat(path).st_mode)
        except (OSError, ValueError):
            found = False
        if b"/" in name or name == ERRORS.encode() or not found:
            raise NotFound(f"nothing is kept under {name!r}")
        return path

    def remove(self, name: bytes) -> None:
        """Drop a kept file. NotFound."""
        os.unlink(self.path(name))


def _text(given: str) -> str:
    return given.encode("utf-8", "backslashreplace").decode()


def _record(line: bytes) -> Rejection | None:
    try:
        found = msgspec.json.decode(line, type=Rejection)
        f"{found.path}{found.reason}{found.kept}".encode()
    except (*MALFORMED, UnicodeEncodeError):
        return None
    return found if 0 <= found.time < 1 << 63 else None
