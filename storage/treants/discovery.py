"""Finding Treants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from storage.config import folder
from storage.errors import NotARepository, TreeNotFound
from storage.places import Place, place_of
from storage.treants.bundles import Bundle
from storage.treants.spots import Spots
from storage.treants.trees import Tree
from storage.treants.veg import PlainPath


def discover(dirpath: PlainPath = ".", depth: int | None = None, treantdepth: int | None = None) -> Bundle:
    """All Treants at a directory and below it, sorted by path.

    `depth` is how many directories deep to look below it, `treantdepth` how deep in Treants for others. In a repository an
    index tells where Treants are; elsewhere the repositories in ordinary folders are looked for, and of each the default branch
    is looked at: what is mounted below such a folder is passed over. TreeNotFound (an OSError) where no directory is there.
    """
    tree = Tree(dirpath)
    if not tree.exists:
        raise TreeNotFound(f"Tree doesn't exist: {tree.abspath}")
    try:
        place = tree.place
    except NotARepository:
        found = _repositories(tree.abspath, depth)
        return Bundle._of(Spots((place, _paths(place, _less(depth, level), treantdepth)) for place, level in found))
    return Bundle._of(Spots([(place, _paths(place, depth, treantdepth))]))


def _less(depth: int | None, level: int) -> int | None:
    return None if depth is None else depth - level


def _paths(place: Place, depth: int | None, treantdepth: int | None) -> list[str]:
    """The Treants at a place in a repository and below it."""
    paths = place.files.labels().marked(place.path)
    if depth is not None:
        most = _level(place.path) + depth
        paths = [path for path in paths if _level(path) <= most]
    if treantdepth is not None:
        paths = list(_near(paths, treantdepth))
    return paths


def _near(paths: list[str], treantdepth: int) -> Iterator[str]:
    """Those that are not deeper in any of the others than that."""
    known = set(paths)
    for path in paths:
        level, above = _level(path), path
        while above:
            above = above.rpartition("/")[0]
            if above in known and level - _level(above) > treantdepth:
                break
        else:
            yield path


def _level(path: str) -> int:
    """How many directories deep a path is."""
    return path.count("/") + 1 if path else 0


def _repositories(top: str, depth: int | None) -> Iterator[tuple[Place, int]]:
    """The repositories in an ordinary folder, and how many folders deep each is."""
    for path, names, _ in os.walk(top):
        level = _level(os.path.relpath(path, top)) if path != top else 0
        if (folder(Path(path)) / "config.json").is_file():
            names.clear()
            yield place_of(path), level
        elif depth is not None and level >= depth:
            names.clear()
        else:
            names[:] = sorted(name for name in names if not os.path.ismount(os.path.join(path, name)))
