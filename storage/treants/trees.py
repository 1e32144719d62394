"""Directories by plain path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Self, TypeVar, overload

from storage.errors import NotADirectory, NotFound, TreeNotFound, Unsupported, WrongKind, WrongType
from storage.files import Data as Contents
from storage.places import Place, place_of
from storage.treants.data import Data
from storage.treants.drawing import drawn
from storage.treants.globs import globbed
from storage.treants.leaves import Leaf
from storage.treants.rsync import RSYNC, Patterns, options, sync
from storage.treants.veg import PlainPath, Veg

if TYPE_CHECKING:
    from storage.treants.views import View

L = TypeVar("L", bound="Tree | Leaf")


class Tree(Veg):
    """A directory at a plain path, there or not. WrongKind (a ValueError) where a file is."""

    __slots__ = ()

    def __init__(self, dirpath: PlainPath) -> None:
        super().__init__(dirpath)
        if self._kind() in ("file", "link"):
            raise WrongKind(f"{self._text} is a file, not a directory")

    @property
    def exists(self) -> bool:
        """Whether it is there, as a directory."""
        return self._kind() == "directory"

    @property
    def abspath(self) -> str:
        """The absolute path as text, which ends in a slash."""
        return self._text.rstrip("/") + "/"

    @property
    def relpath(self) -> str:
        """The path as seen from the current directory, which ends in a slash."""
        return os.path.relpath(self._text) + "/"

    def make(self) -> Self:
        """Make it and what is missing above it; where no repository is, it becomes one. Returns itself.

        NotADirectory where a file is in the way, NotEmpty for an ordinary folder that holds files, ReadOnly in a commit.
        """
        if self._place is None or not self._place.path:
            self._place = place_of(self._text, make=True)
        if not self.exists:
            self._place.files.make_directory(self._place.path, parents=True)
        return self

    makedirs = make

    @property
    def data(self) -> Data:
        """What is stored in and below it, by handle."""
        return Data(self)

    def require(self) -> None:
        """TreeNotFound (an OSError) if it is not there, NotARepository if it cannot be."""
        if not self.place.files.is_directory(self.place.path):
            raise TreeNotFound(f"Tree doesn't exist: {self.abspath}")

    def put_files(self, files: Mapping[str, Contents | None], compression: str = "") -> None:
        """Write and remove files of the tree that it is in, by paths from the top of that, in one step. It is made if need
        be.
        """
        self.make().place.files.write_many(files, compression=compression)

    def commit(self, message: str) -> str:
        """Freeze everything staged on its branch and return the commit's name, 64 hexadecimal digits. NothingToCommit."""
        return self.place.files.commit(message)

    # What is below it

    def __contains__(self, item: object) -> bool:
        """Whether a path is this one or below it, there or not. WrongType (a TypeError) for what is no path."""
        if not isinstance(item, str | os.PathLike):
            raise WrongType(f"only a path can be in a tree, not {type(item).__name__}")
        return (Veg(item)._text.rstrip("/") + "/").startswith(self.abspath)

    @overload
    def __getitem__(self, path: PlainPath) -> Tree | Leaf: ...

    @overload
    def __getitem__(self, path: list[str] | tuple[str, ...]) -> View: ...

    def __getitem__(self, path: PlainPath | list[str] | tuple[str, ...]) -> Tree | Leaf | View:
        """What is at a path below it: a Tree where a directory is or the path ends in a slash, else a Leaf, there or not.

        A View for several paths. ValueError for anything else.
        """
        return self.loc[path]

    @property
    def loc(self) -> Limbs[Tree | Leaf]:
        """Trees and leaves by path: `tree.loc["a/b"]` is `tree["a/b"]`."""
        return Limbs(self._limb)

    @property
    def treeloc(self) -> Limbs[Tree]:
        """Trees by path. WrongKind (a ValueError) where a file is."""
        return Limbs(self._tree)

    @property
    def leafloc(self) -> Limbs[Leaf]:
        """Leaves by path. WrongKind (a ValueError) where a directory is, or where the path ends in a slash."""
        return Limbs(self._leaf)

    def _limb(self, path: str) -> Tree | Leaf:
        found = self._tree_at(path)
        is_leaf = not path.endswith("/") and found._kind() != "directory"
        return self._leaf(path) if is_leaf else self._tree(path)

    def _tree(self, path: str) -> Tree:
        found = self._tree_at(path)
        if found._kind() in ("file", "link"):
            raise WrongKind(f"{found._text} is a file, not a directory")
        return found

    def _leaf(self, path: str) -> Leaf:
        found = self._tree_at(path)
        if path.endswith("/") or found._kind() == "directory":
            raise WrongKind(f"{found.abspath} is a directory, not a file")
        return Leaf._at(found._text, found._place)

    def _tree_at(self, path: str) -> Tree:
        text = os.path.abspath(os.path.join(self._text, path))
        if not text.startswith(self.abspath):
            return Tree._at(text, None)
        return self._below(Tree, text[len(self.abspath) :])

    @overload
    def _below(self, kind: type[Tree], name: str) -> Tree: ...

    @overload
    def _below(self, kind: type[Leaf], name: str) -> Leaf: ...

    def _below(self, kind: type[Tree] | type[Leaf], name: str) -> Tree | Leaf:
        """What is below it, without a look."""
        text, place = self.abspath + name, self._place
        if place is None:
            return kind._at(text, None)
        path = f"{place.path}/{name}" if place.path else name
        return kind._at(text, Place(Path(text), path, place.files, place.repository))

    # Listing

    def _list(self, below: str = "") -> Iterator[tuple[str, Literal["file", "directory", "link"]]]:
        """The names in it, or in a directory below it, and what they are. TreeNotFound."""
        looking, path = self._seen()
        where = "/".join(filter(None, (path, below)))
        try:
            for name, info in looking.list(where):
                yield name, info.kind
        except (NotFound, NotADirectory):
            raise TreeNotFound(f"Tree doesn't exist: {self.abspath}{below}") from None

    def leaves(self, hidden: bool = False) -> View:
        """The files in it, by name; those whose names begin with a dot only if `hidden`. TreeNotFound (an OSError)."""
        return _view(limb for limb in self._limbs(hidden) if isinstance(limb, Leaf))

    def trees(self, hidden: bool = False) -> View:
        """The directories in it, by name; those whose names begin with a dot only if `hidden`. TreeNotFound (an OSError)."""
        return _view(limb for limb in self._limbs(hidden) if isinstance(limb, Tree))

    def children(self, hidden: bool = False) -> View:
        """The directories, then the files in it, by name. TreeNotFound (an OSError)."""
        return _view(sorted(self._limbs(hidden), key=lambda limb: isinstance(limb, Leaf)))

    def _limbs(self, hidden: bool) -> Iterator[Tree | Leaf]:
        for name, kind in self._list():
            if hidden or not name.startswith("."):
                yield self._below(Tree, name) if kind == "directory" else self._below(Leaf, name)

    def glob(self, pattern: str) -> View:
        """What is below it and fits a pattern as a shell reads it, with `**` for any number of directories.

        A pattern that begins with a dot is for hidden names. TreeNotFound (an OSError); InvalidName (a ValueError) for `..`.
        """
        found = globbed(pattern, lambda path: ((name, kind == "directory") for name, kind in self._list(path)))
        return _view(self._below(Tree, path) if directory else self._below(Leaf, path) for path, directory in found)

    def walk(
        self, topdown: bool = True, onerror: Callable[[OSError], object] | None = None, followlinks: bool = False
    ) -> Iterator[tuple[Tree, View, View]]:
        """Each directory from here down (or, not `topdown`, after those in it), with the trees and the leaves in it.

        TreeNotFound (an OSError) where it is not there; what goes wrong below is handed to `onerror` or passed over. Hidden
        names are among them. Links are leaves; with `followlinks`, the directories that they lead to are walked as well, once.
        """
        yield from self._walk(topdown, onerror, followlinks, {self._text})

    def _walk(
        self, topdown: bool, onerror: Callable[[OSError], object] | None, followlinks: bool, seen: set[str]
    ) -> Iterator[tuple[Tree, View, View]]:
        trees, leaves = self.trees(hidden=True), self.leaves(hidden=True)
        if topdown:
            yield self, trees, leaves
        for tree in (*trees, *(self._linked(seen) if followlinks else ())):
            try:
                yield from tree._walk(topdown, onerror, followlinks, seen)
            except OSError as error:
                if onerror is not None:
                    onerror(error)
        if not topdown:
            yield self, trees, leaves

    def _linked(self, seen: set[str]) -> Iterator[Tree]:
        """The directories that links in it lead to, and that nobody has seen."""
        looking, path = self._seen()
        for name, kind in self._list():
            if kind == "link":
                target = looking.target("/".join(filter(None, (path, name))))
                tree = Tree._at(os.path.normpath(os.path.join(self._text, target)), None)
                if tree.exists and tree._text not in seen:
                    seen.add(tree._text)
                    yield tree

    def draw(self, depth: int | None = None, hidden: bool = False) -> None:
        """Print it and what is below it as a tree of lines, so many levels deep. TreeNotFound (an OSError)."""
        for line in drawn(self.name + "/", lambda below: self._shown(below, hidden), depth):
            print(line)

    def _shown(self, below: str, hidden: bool) -> list[tuple[str, bool]]:
        return [(name, kind == "directory") for name, kind in self._list(below) if hidden or not name.startswith(".")]

    def sync(
        self,
        other: PlainPath,
        mode: Literal["upload", "download"] = "upload",
        compress: bool = True,
        checksum: bool = True,
        backup: bool = False,
        dry: bool = False,
        include: Patterns = None,
        exclude: Patterns = None,
        overwrite: bool = False,
        rsync_path: str = RSYNC,
    ) -> list[str]:
        """Copy what is in it to `other` (a directory, or `host:path`), or from there (`download`), by rsync; its command line.

        Files that are there already stay as they are, unless `overwrite`. `compress` on the way, compare by `checksum`, keep a
        `backup` of what is replaced, only look what there is to do (`dry`), only what fits a pattern to `include`, nothing that
        fits one to `exclude`: these are rsync's options. In a repository this goes through its mount: NotMounted (a
        RuntimeError) says how to make one. RsyncFailed (an OSError) with rsync's exit code.
        """
        flags = options(
            compress=compress, checksum=checksum, backup=backup, dry=dry, overwrite=overwrite, include=include, exclude=exclude
        )  # fmt: skip
        return sync(self.abspath, other, mode, flags, rsync_path)


class Limbs(Generic[L]):
    """What is below a tree, by path: one for a path, a View for a list or tuple of paths; ValueError for anything else."""

    def __init__(self, find: Callable[[str], L]) -> None:
        self._find = find

    @overload
    def __getitem__(self, path: PlainPath) -> L: ...

    @overload
    def __getitem__(self, path: list[str] | tuple[str, ...]) -> View: ...

    def __getitem__(self, path: PlainPath | list[str] | tuple[str, ...]) -> L | View:
        """What is at that path, or those, there or not."""
        match path:
            case str() | os.PathLike():
                return self._find(os.fspath(path))
            case list() | tuple() if all(isinstance(each, str) for each in path):
                return _view([self._find(each) for each in path])
        raise Unsupported(f"what is below a tree is named by a path or a list of paths, not by {path!r:.80}")


def _view(members: Iterable[Tree | Leaf]) -> View:
    from storage.treants.views import View  # a View is made of trees

    return View._of(list(members))
