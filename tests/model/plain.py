"""Trees as plain dicts, and merging them: what the model of a repository is made of. Nothing here knows how bytes are stored.

The merge follows the rules of storage/FORMAT.md, section 6, name by name, without looking for what two trees share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

Path = tuple[bytes, ...]


class File(NamedTuple):
    """A file, sample or link with its contents (of a sample, its file form; of a link, its target)."""

    kind: str
    data: bytes
    mode: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    mtime: int = 0


@dataclass(frozen=True)
class Folder:
    """A directory. Its time is whatever was found: it changes with the clock, and counts in merges only."""

    children: dict[bytes, Node] = field(default_factory=dict)
    mode: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    mtime: int = 0
    dataset: bool = False


Node = File | Folder
Conflicts = list[tuple[Path, str]]


def at(tree: Node | None, path: Path) -> Node | None:
    """What stands at a path."""
    for name in path:
        tree = tree.children.get(name) if isinstance(tree, Folder) else None
    return tree


def put(tree: Folder, path: Path, node: Node | None) -> Folder:
    """The tree with `node` at a path (None: nothing), whose folder is there."""
    if not path:
        assert isinstance(node, Folder)
        return node
    children = dict(tree.children)
    if len(path) > 1:
        below = children[path[0]]
        assert isinstance(below, Folder)
        children[path[0]] = put(below, path[1:], node)
    elif node is None:
        children.pop(path[0], None)
    else:
        children[path[0]] = node
    return replace(tree, children=children)


def entries(tree: Folder, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Everything below a folder, by path."""
    for name, node in tree.children.items():
        yield (*path, name), node
        if isinstance(node, Folder):
            yield from entries(node, (*path, name))


def facts(tree: Folder) -> dict[Path, tuple[Any, ...]]:
    """What is promised of everything in a tree: all but the times of folders."""
    return {path: _facts(node) for path, node in [((), tree), *entries(tree)]}


def _facts(node: Node) -> tuple[Any, ...]:
    return tuple(node) if isinstance(node, File) else ("folder", node.mode, node.xattrs, node.dataset)


# Merging


def merged(bases: Sequence[Folder], ours: Folder, theirs: Folder) -> tuple[Folder, Conflicts]:
    """The merge of two trees that came from `bases` (none: from nothing), and where they disagree: depth first, by name."""
    told: Conflicts = []
    return _folders((), list(bases) or [Folder()], ours, theirs, told), told


def _folders(path: Path, bases: Sequence[Node | None], ours: Folder, theirs: Folder, told: Conflicts) -> Folder:
    assert ours.dataset == theirs.dataset, "the model makes no dataset anew"
    children = {}
    for name in sorted(ours.children.keys() | theirs.children.keys()):
        olds = [base.children.get(name) if isinstance(base, Folder) else None for base in bases]
        node = _nodes((*path, name), olds, ours.children.get(name), theirs.children.get(name), told)
        if node is not None:
            children[name] = node
    mode, xattrs, mtime = _attributes(path, bases, ours, theirs, told)
    return replace(ours, children=children, mode=mode, xattrs=xattrs, mtime=mtime)


def _nodes(
    path: Path, bases: list[Node | None], ours: Node | None, theirs: Node | None, told: Conflicts
) -> Node | None:
    if ours == theirs:
        return ours
    if all(base == bases[0] for base in bases) or not (isinstance(ours, Folder) or isinstance(theirs, Folder)):
        side = _pick(bases, ours, theirs)
        if side is not None:
            return ours if side == "ours" else theirs
    if ours is None or theirs is None:
        return _removed(path, bases, ours, theirs, told)
    if isinstance(ours, Folder) and isinstance(theirs, Folder):
        return _folders(path, bases, ours, theirs, told)
    if isinstance(ours, Folder) or isinstance(theirs, Folder):
        told.append((path, "kind-changed"))
        return ours
    return _files(path, bases, ours, theirs, told)


def _removed(
    path: Path, bases: list[Node | None], ours: Node | None, theirs: Node | None, told: Conflicts
) -> Node | None:
    kept = theirs if ours is None else ours
    if isinstance(kept, Folder) and None not in bases and not _adds(bases, kept):
        return None
    told.append((path, "removed-by-us" if ours is None else "removed-by-them"))
    return ours


def _adds(bases: Sequence[Node | None], folder: Folder) -> bool:
    """Whether anything in a folder, or the folder itself, is otherwise than in every base."""
    known = [base for base in bases if isinstance(base, Folder)]
    if (folder.mode, folder.xattrs) not in [(base.mode, base.xattrs) for base in known]:
        return True
    for name, new in folder.children.items():
        olds = [base.children.get(name) for base in known]
        if None in olds or (new not in olds and not (isinstance(new, Folder) and not _adds(olds, new))):
            return True
    return False


def _files(path: Path, bases: list[Node | None], ours: File, theirs: File, told: Conflicts) -> File:
    side = _pick([_contents(base) for base in bases], _contents(ours), _contents(theirs))
    if side is None:
        told.append((path, "both-changed" if any(bases) else "both-added"))
        return ours
    kept = ours if side == "ours" else theirs
    mode, xattrs, mtime = _attributes(path, bases, ours, theirs, told)
    return kept._replace(mode=mode, xattrs=xattrs, mtime=mtime)


def _contents(node: Node | None) -> object:
    return None if node is None else (node.kind, node.data) if isinstance(node, File) else "folder"


def _attributes(
    path: Path, bases: Sequence[Node | None], ours: Node, theirs: Node, told: Conflicts
) -> tuple[int | None, tuple[tuple[bytes, bytes], ...], int]:
    def picked(part: Callable[[Node | None], Any]) -> Any:
        one, other = part(ours), part(theirs)
        side = _pick([part(base) for base in bases], one, other)
        disagreed.append(side is None)
        return other if side == "theirs" else one

    disagreed: list[bool] = []
    mode = picked(lambda node: node.mode if node else None)
    names = sorted(dict(ours.xattrs).keys() | dict(theirs.xattrs).keys())
    found = [(name, picked(lambda node, name=name: dict(node.xattrs).get(name) if node else None)) for name in names]
    if any(disagreed):
        told.append((path, "attributes-changed"))
    times = [base.mtime if base else 0 for base in bases]
    side = _pick(times, ours.mtime, theirs.mtime)
    mtime = max(ours.mtime, theirs.mtime) if side is None else ours.mtime if side == "ours" else theirs.mtime
    return mode, tuple(pair for pair in found if pair[1] is not None), mtime


def _pick(bases: Sequence[Any], ours: Any, theirs: Any) -> str | None:
    """The side that changed; ours where they agree; None where both did, or each kept another base's."""
    if ours == theirs:
        return "ours"
    if (ours in bases) == (theirs in bases):
        return None
    return "theirs" if ours in bases else "ours"
