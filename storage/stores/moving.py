"""Putting a branch's working tree on another tree, in one ref change: what merges do, and giving one up.

Everything staged until then is settled by the change's fence. What was staged later would be lost with the tree that it was
staged on: whoever must not lose it asks for that (`upto`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from storage.disk.index import Index, Txn
from storage.model.digest import Digest
from storage.model.names import Path
from storage.model.records import Author, Entry, Fence, Kind, decode_entry
from storage.stores.changes import MANY_NAMES
from storage.stores.log import Log
from storage.stores.refs import change_refs, stored
from storage.stores.staging import Staging, note_change
from storage.tree.diff import diff
from storage.tree.node import Load

NOBODY = b""
"""The origin of changes that every process must look at, also the one that made them: they came from no file written."""
MANY_DIRECTORIES = 1000

Update = tuple[str, bytes, bytes]
Names = tuple[Path, list[bytes] | None]
"""Names in a directory; None: everything below it."""


class Mover:
    """Changes refs and moves working trees. Every method works within the caller's `log.change(LOG)`."""

    def __init__(self, index: Index, log: Log, staging: Staging, origin: bytes) -> None:
        self._index = index
        self._log = log
        self._staging = staging
        self._origin = origin

    def has_late(self, txn: Txn, directory: int, upto: int) -> bool:
        """Whether anything in the staged directory, or below it, came after the sequence number `upto`."""
        return any(
            row.sequence > upto or self.has_late(txn, row.staged_id, upto)
            for _, row in self._staging.late_or_staged(txn, directory, upto)
        )

    def change(
        self,
        txn: Txn,
        description: str,
        author: Author,
        updates: Sequence[Update],
        fence: Fence | None,
        before: Entry | None = None,
        left: Mapping[str, bytes] | None = None,
    ) -> None:
        """Change refs, and what is staged as the fence says. Conflict.

        `before` is the root of the working tree that goes, to come back when the operation is taken back; `left` are refs that
        come back as something else than they were.
        """
        change_refs(
            self._index,
            self._log,
            txn,
            self._staging,
            author=author,
            description=description,
            updates=updates,
            fences=[fence] if fence is not None else [],
            kept=[(fence.root_id, *stored(before))] if fence is not None and before is not None else [],
            left=left,
            origin=self._origin,
        )

    def note(self, txn: Txn, branch: str, changed: Iterable[Names]) -> None:
        """Tell every process which names mean something else now; where it is much, that anything may."""
        noted: list[tuple[str, list[bytes], list[bytes] | None]] = []
        for path, names in changed:
            if len(noted) == MANY_DIRECTORIES:
                noted = [(branch, [], None)]
                break
            noted.append((branch, list(path), names if names is not None and len(names) <= MANY_NAMES else None))
        # The root directory's own attributes may have changed as well.
        note_change(self._index, txn, NOBODY, noted or [(branch, [], [])])


def changed_names(load: Load, old: Digest, new: Digest, path: Path = ()) -> Iterator[Names]:
    """The names that differ between two trees, directory by directory. A directory that only differs inside is not named.

    Where there are more than MANY_NAMES in one, it stands for all below it, and is not read on.
    """
    names: list[bytes] = []
    below: list[tuple[bytes, Digest, Digest]] = []
    for name, one, other in diff(load, old, new):
        if one is not None and other is not None and one[0][0] == other[0][0] == Kind.DIRECTORY:
            before, after = decode_entry(*one).root, decode_entry(*other).root
            if before != after:
                below.append((name, before, after))
                continue
        names.append(name)
        if len(names) > MANY_NAMES:
            yield path, None
            return
    if names or below:
        yield path, names
    for name, before, after in below:
        yield from changed_names(load, before, after, (*path, name))


def by_directory(paths: Iterable[Path]) -> Iterator[Names]:
    """Paths as names in their directories; the root is no name, and its directory itself."""
    groups: dict[Path, list[bytes]] = {}
    for path in paths:
        groups.setdefault(path[:-1], []).extend(path[-1:])
    yield from groups.items()
