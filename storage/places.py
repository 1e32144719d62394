"""Plain paths: which repository, which branch or commit of it, and what in there a path of the file system means.

For the APIs that take a path where others take a repository: `place_of("results/sprout")`. A path

* inside a mount is that path in that branch or commit: read and changed through the repository, not through the mount;
* inside a repository's folder is that path on the repository's default branch;
* anywhere else is a repository of its own, made there when something is to be written (`make`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from storage.config import folder
from storage.disk.files import make_directory
from storage.disk.locks import alone_in
from storage.engine import Engine
from storage.errors import (
    InvalidName,
    NotADirectory,
    NotARepository,
    NotEmpty,
    NotFound,
    RepositoryExists,
    StorageFailed,
)
from storage.files import Files, tree_path
from storage.model.format import MALFORMED
from storage.model.records import Author
from storage.mounts import PLACE, Where, live_mounts
from storage.repository import Repository

_NO_MARK = (errno.ENODATA, errno.ENOTSUP, errno.ENOTDIR, errno.ENOENT)
_NOTHING = (errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Place:
    """A directory or file in a branch or a commit, there or not; `given` is the absolute path that led here.

    `files` are those of the whole tree, `path` is seen from its top. Holding a place keeps the repository open.
    """

    given: Path
    path: str
    files: Files
    repository: Repository = field(repr=False)

    @property
    def writeable(self) -> bool:
        """Whether it is in a branch: what is in a commit raises ReadOnly (a PermissionError) on changes."""
        return self.files.branch is not None

    def mounted(self) -> Path | None:
        """A path that programs can use, through a mount of this repository on this machine; None while there is none."""
        for note in live_mounts(self.repository.path):
            top = Path(note.mountpoint)
            if note.ref is not None:
                continue
            if note.branch is None:
                return top / "branches" / self.files.branch / self.path if self.files.branch else self._commit(top)
            if note.branch == self.files.branch:
                return top / self.path
        return None

    def usable(self) -> Path | None:
        """A path that programs can use: `given` if it is in a mount, else as `mounted`. None while there is none."""
        if _followed(str(self.given)).where is not None:
            return self.given
        return self.mounted()

    def _commit(self, top: Path) -> Path:
        return top / "commits" / self.files.commit_hash / self.path


def place_of(path: str | os.PathLike[str], *, make: bool = False) -> Place:
    """Where a plain path leads. Nothing is changed, unless `make` and no repository is there: then one is made.

    NotARepository (a RuntimeError) where there is none and none is to be made; NotADirectory (a NotADirectoryError) where a
    file is in the way; NotEmpty (an OSError) for making one in a folder with other things in it; NotFound (a KeyError) in a
    mount, but in no branch or commit; InvalidName (a ValueError) for a path into a repository's own data.
    """
    given = os.path.abspath(os.path.expanduser(path))
    way = _followed(given)
    if way.where is not None:
        return _mounted_place(given, way.where, way.above)
    for above in reversed(way.ordinary):
        repository = _repository(above)
        if repository is not None:
            return _place(given, repository, None, None, given[len(above) :])
    if not make:
        raise NotARepository(f"{given} is in no repository and no mount of one")
    return _place(given, _made(Path(given)), None, None, "")


@dataclass(slots=True)
class _Way:
    """The directories on a path that are there, from the top, and the last of them at which a mount told where one is."""

    ordinary: list[str]
    where: Where | None = None
    above: str = ""


def _followed(given: str) -> _Way:
    """Follow a path from the top.

    In a branch or commit the kernel is only asked for what the repository has: it remembers for a moment that a name was not
    there, also when that is made at once.
    """
    way, device = _Way([]), -1
    for above in _prefixes(given):
        place = _mounted_place(above, way.where, way.above) if way.where is not None and _in_tree(way.where) else None
        if place is not None and not place.files.exists(place.path):
            break
        try:
            here = os.stat(above)
        except OSError as error:
            if error.errno in _NOTHING:
                break
            raise StorageFailed(error.errno, f"{above} cannot be looked at: {error.strerror}") from error
        linked = place is not None and place.files.info(place.path).kind == "link"
        if here.st_dev != device or linked or (way.where is not None and place is None):
            way.where, way.above = _mark(above), above
            device = here.st_dev
        if way.where is None:
            way.ordinary.append(above)
    return way


def _in_tree(where: Where) -> bool:
    return where.branch is not None or where.commit is not None


def _prefixes(path: str) -> Iterator[str]:
    """The directories above an absolute path, from the top, and the path itself."""
    yield "/"
    at = 0
    while (at := path.find("/", at + 1)) > 0:
        yield path[:at]
    if path != "/":
        yield path


def _mounted_place(given: str, where: Where, above: str) -> Place:
    if not _in_tree(where):
        raise NotFound(f"{given} is in a mount of {where.repository}, but in no branch and no commit of it")
    repository = _repository(where.repository)
    if repository is None:
        raise NotARepository(
            f"{where.repository} holds no repository that can be read, though {above} is a mount of it"
        )
    return _place(given, repository, where.branch, where.commit, where.path + given[len(above) :])


def _place(given: str, repository: Repository, branch: str | None, commit: str | None, path: str) -> Place:
    inside = tree_path(path)
    if inside[:1] == (b".arborfs",):
        raise InvalidName(f"{given} is among arborfs's own files")
    files = repository.files(commit=commit) if commit else repository.files(branch=branch or "")
    return Place(Path(given), os.fsdecode(b"/".join(inside)), files, repository)


def _mark(path: str) -> Where | None:
    """What a mount says of a directory; None for anything else."""
    try:
        return msgspec.json.decode(os.getxattr(path, PLACE), type=Where)
    except MALFORMED as error:
        raise NotFound(f"{path} has an extended attribute {PLACE} that no mount wrote: remove it") from error
    except OSError as error:
        if error.errno in _NO_MARK:
            return None
        raise StorageFailed(error.errno, f"{path} cannot be looked at: {os.strerror(error.errno or 0)}") from error


# Repositories opened by plain paths

_lock = threading.RLock()
_open: dict[str, tuple[tuple[int, int, int], Repository]] = {}
"""By folder: process and identity of the configuration as of when it was opened, and the repository."""


def _repository(path: str) -> Repository | None:
    """The repository in a folder, which stays open in this process, until `let_go` or the end of the process; None without
    one.
    """
    try:
        stat = os.stat(f"{path}/.arborfs/config.json")
    except OSError:
        return None
    key = (os.getpid(), stat.st_ino, stat.st_mtime_ns)
    with _lock:
        known = _open.get(path)
        if known is None or known[0] != key:
            known = _open[path] = (key, Repository(path))
    return known[1]


def let_go() -> None:
    """Close the repositories that this process has opened by plain paths. What was got from them is closed, too."""
    with _lock:
        mine = [repository for (pid, *_), repository in _open.values() if pid == os.getpid()]
        _open.clear()
    for repository in mine:
        repository.close()


def _made(path: Path) -> Repository:
    """A new repository at `path`."""
    if path.exists() and not path.is_dir():
        raise NotADirectory(f"{path} is a file: a repository needs a folder")
    make_directory(path)
    with alone_in(path):  # of several who come at once, one makes it
        if not (folder(path) / "config.json").is_file():
            _require_nothing_else(path)
            with contextlib.suppress(RepositoryExists):  # made by `init` just now
                Engine.create(path, _whoever()).close()
    made = _repository(str(path))
    if made is None:
        raise NotARepository(f"{path} was made a repository, and is none any more")
    return made


def _require_nothing_else(path: Path) -> None:
    """NotEmpty for a folder that holds anything but the beginnings of a repository."""
    if any(found != folder(path) for found in path.iterdir()):
        raise NotEmpty(
            f"{path} holds files and is no repository: name a new folder, or make it one with "
            f"`arborfs init {path}` and bring the files in with `arborfs import`"
        )


def _whoever() -> Author:
    """Who commits where nobody has said so: the user's name, and an address made of user and machine."""
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return Author(f"user {os.getuid()}", f"{os.getuid()}@{socket.gethostname()}")
    return Author(user.pw_gecos.partition(",")[0] or user.pw_name, f"{user.pw_name}@{socket.gethostname()}")
