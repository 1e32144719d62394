"""What trees and leaves have in common: a plain path, and where it leads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from storage.errors import NotADirectory, NotARepository, NotFound
from storage.places import Place, place_of
from storage.treants.folders import ORDINARY, Looking

if TYPE_CHECKING:
    from storage.treants.trees import Tree

PlainPath = str | os.PathLike[str]


class Veg:
    """A directory or a file at a plain path, there or not. Making the object changes nothing.

    Where the path leads (`storage.places`: a path in a mount, or in a repository's folder) is found out when that is first
    needed, and stays so. What stands there is looked up anew each time. Outside of any repository ordinary directories and
    files are shown, and never changed. Equal, ordered and hashed by absolute path; pickled by it.
    """

    __slots__ = ("_place", "_text")

    def __init__(self, filepath: PlainPath) -> None:
        text = os.fspath(filepath)
        if not isinstance(text, str):
            raise TypeError(f"a path is a text, not {type(text).__name__}")
        self._text: str = os.path.abspath(os.path.expanduser(text))
        self._place: Place | None = None

    @classmethod
    def _at(cls, text: str, place: Place | None) -> Self:
        """The one at an absolute path whose place is known, without a look at what stands there."""
        made = cls.__new__(cls)
        made._text = text
        made._place = place
        return made

    @property
    def place(self) -> Place:
        """The repository, the branch or commit, and the path in it. NotARepository, NotFound: see `storage.places.place_of`."""
        if self._place is None:
            self._place = place_of(self._text)
        return self._place

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return self._kind() is not None

    @property
    def path(self) -> Path:
        """The absolute path. In a repository that is not mounted, only this API finds something there."""
        return Path(self._text)

    @property
    def abspath(self) -> str:
        """The absolute path as text; those of directories end in a slash."""
        return self._text

    @property
    def relpath(self) -> str:
        """The path as seen from the current directory; those of directories end in a slash."""
        return os.path.relpath(self._text)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(self._text)

    @property
    def parent(self) -> Tree:
        """The directory it is in."""
        from storage.treants.trees import Tree  # a Tree is a Veg

        above = os.path.dirname(self._text)
        place = self._place
        if place is None or not place.path:
            return Tree._at(above, None)
        return Tree._at(above, Place(Path(above), os.path.dirname(place.path), place.files, place.repository))

    def _seen(self) -> tuple[Looking, str]:
        """Where to look, and the path there."""
        try:
            return self.place.files, self.place.path
        except (NotARepository, NotFound):
            return ORDINARY, self._text

    def _kind(self) -> Literal["file", "directory", "link"] | None:
        """What stands there."""
        looking, path = self._seen()
        try:
            return looking.info(path).kind
        except (NotFound, NotADirectory):
            return None

    def __fspath__(self) -> str:
        """`abspath`."""
        return self.abspath

    def __str__(self) -> str:
        """`abspath`."""
        return self.abspath

    def __repr__(self) -> str:
        """What it is, and where from here."""
        return f"<{type(self).__name__}: {self.relpath!r}>"

    def __eq__(self, other: object) -> bool:
        """Whether both have the same absolute path."""
        return self.abspath == other.abspath if isinstance(other, Veg) else NotImplemented

    def __lt__(self, other: object) -> bool:
        """In the order of the absolute paths."""
        return self.abspath < other.abspath if isinstance(other, Veg) else NotImplemented

    def __hash__(self) -> int:
        """That of the absolute path."""
        return hash(self.abspath)

    def __reduce__(self) -> tuple[Any, ...]:
        """By path: another process looks there itself."""
        return type(self), (self.abspath,)
