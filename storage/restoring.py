"""Putting what a commit holds back into a branch's working tree, as staged work."""

from __future__ import annotations

from storage.errors import NotADirectory, NotFound
from storage.model.names import Path, path_text
from storage.model.records import Entry
from storage.snapshot import Snapshot
from storage.worktree import WorkingTree


def restore(tree: WorkingTree, source: Snapshot, path: Path, *, remove: bool = False) -> None:
    """Put the entry that `source` has at `path` into the working tree, whatever stands there; () is everything.

    A directory comes whole, as one row: it holds afterwards exactly what it holds in `source`. Where `source` has no such
    entry, that of the working tree is removed if `remove`, else NotFound. A file that is a sample at its place now must fit
    the dataset: SchemaMismatch.
    """
    if not path:
        names = _top(tree, source)
        entries = [((name,), _entry(source, (name,))) for name in sorted(names)]
        tree.put_entries([((), source.entry(())), *entries], {})
        return
    entry = _entry(source, path)
    if entry is None and not remove:
        raise NotFound(
            f"there is no {path_text(path)} in commit {source.commit.hex()[:16]}: say so if it shall be removed here, too"
        )
    if entry is None:
        tree.entry(path)  # NotFound where it is in neither of them
        tree.put_entries([(path, None)], {})
        return
    parents = {path[:depth]: source.entry(path[:depth]) for depth in range(1, len(path))}
    tree.put_entries([(path, _fitting(tree, source, entry, path))], parents)


def _entry(source: Snapshot, path: Path) -> Entry | None:
    try:
        return source.entry(path)
    except (NotFound, NotADirectory):
        return None


def _fitting(tree: WorkingTree, source: Snapshot, entry: Entry, path: Path) -> Entry:
    try:
        return tree.fitting(entry, source.schema_of(path[:-1]), path)
    except NotFound:
        return entry  # the directory comes along, with its schema


def _top(tree: WorkingTree, source: Snapshot) -> set[bytes]:
    """The names at the top that may differ."""
    here = {name for name, _ in tree.entries(())}
    return here | set(source.names(()))
