"""Files by plain path."""

from __future__ import annotations

import io
from typing import Self

from storage.errors import IsADirectory, WrongKind
from storage.places import place_of
from storage.treants.veg import PlainPath, Veg


class Leaf(Veg):
    """A file at a plain path, there or not. WrongKind (a ValueError) where a directory is."""

    __slots__ = ()

    def __init__(self, filepath: PlainPath) -> None:
        super().__init__(filepath)
        if self._kind() == "directory":
            raise WrongKind(f"{self._text} is a directory, not a file")

    @property
    def exists(self) -> bool:
        """Whether it is there, as a file."""
        return self._kind() in ("file", "link")

    def makedirs(self) -> Self:
        """Make the directories above it that are missing; where no repository is, one is made there. Returns itself."""
        self.parent.make()
        return self

    def touch(self) -> Self:
        """Make it, empty, and the directories above it, where it is not there yet. Returns itself."""
        if self.exists:
            return self
        self.makedirs()
        self._place = place_of(self._text)
        self._place.files.edit(self._place.path, lambda before: b"" if before is None else before)
        return self

    make = touch

    def read(self, size: int | None = None) -> str:
        """Its text, or the first `size` characters of it, UTF-8 with line ends as `\\n`.

        NotFound (a KeyError) where it is not, UnicodeDecodeError where it is no text.
        """
        looking, path = self._seen()
        if self._kind() == "directory":
            raise IsADirectory(f"{self._text} is a directory, not a file")
        with io.TextIOWrapper(looking.open(path), encoding="utf-8") as file:
            return file.read(size)
