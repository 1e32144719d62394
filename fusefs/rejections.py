"""What the mount refused to store: the reasons, and the bytes, kept until someone drops them.

    <repository>/.arborfs/rejected/<branch>/errors.jsonl      one JSON object a line: time (ns), path, reason, kept
    <repository>/.arborfs/rejected/<branch>/<number>-<name>   the bytes of a refused file

They survive the daemon. Nothing of it is part of any commit.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from storage.errors import ArborError, NotFound
from storage.model.names import Path as TreePath
from storage.model.names import path_text

ERRORS = "errors.jsonl"
PIECE = 1 << 20
MAX_ERRORS = 1000


class Rejection(TypedDict):
    """One refusal; `kept` is the name of the file with the bytes, empty where there is none."""

    time: int
    path: str
    reason: str
    kept: str


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
        record = Rejection(time=time.time_ns(), path=path_text(path), reason=reason, kept=kept)
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ERRORS).open("a", encoding="utf-8") as out:
            out.write(json.dumps(record) + "\n")

    @contextmanager
    def noting(self, path: TreePath) -> Iterator[None]:
        """Remember why the body was refused, if it is."""
        try:
            yield
        except ArborError as error:
            self.note(path, str(error))
            raise

    def errors(self) -> list[Rejection]:
        """The last refusals, oldest first."""
        try:
            lines = (self._folder / ERRORS).read_text(encoding="utf-8").splitlines()[-MAX_ERRORS:]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def clear_errors(self) -> None:
        """Forget the reasons; kept files stay."""
        (self._folder / ERRORS).unlink(missing_ok=True)

    def keep(self, path: TreePath, size: int, read: Callable[[int, int], bytes | memoryview]) -> str:
        """Keep the bytes of a refused file; the name they are kept under."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = os.fsdecode(path[-1])
        number = 1
        while True:
            kept = f"{number}-{name}"[:255]
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
        if name == ERRORS.encode() or not os.path.isfile(path):
            raise NotFound(f"nothing is kept under {name!r}")
        return path

    def remove(self, name: bytes) -> None:
        """Drop a kept file. NotFound."""
        os.unlink(self.path(name))
