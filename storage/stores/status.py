"""What is staged on a branch, told as differences to its tip.

A walk of staged rows. Where a commit was taken back or a merge is under way, they lie over another tree than the tip's,
and what differs between those two counts, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from storage.disk.index import Txn
from storage.model.digest import Digest
from storage.model.names import Path
from storage.model.records import Entry, Kind, decode_entry
from storage.stores.contents import same_contents
from storage.stores.objects import Objects
from storage.stores.refs import BranchRef
from storage.stores.staging import Row, Staging
from storage.stores.transaction import root_of
from storage.tree import read
from storage.tree.diff import diff
from storage.tree.node import EMPTY


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One difference between a working tree and its tip: `change` is added, removed or changed."""

    path: Path
    change: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Status:
    """What differs, seen in one transaction."""

    objects: Objects
    staging: Staging
    txn: Txn

    def of(self, ref: BranchRef) -> Iterator[StatusRow]:
        """The differences between a branch's tip and its working tree, in no order; () is the root's attributes.

        A directory moved or removed whole is one row.
        """
        known = self.staging.directory(self.txn, ref.root_id)
        if known is not None:
            before = root_of(self.objects, ref.tip)
            if known.head and decode_entry(known.head, before.value).attributes != before.attributes:
                yield StatusRow((), "changed", Kind.DIRECTORY)
            yield from self._differences(ref.root_id, known.base, before.root, ())

    def _differences(self, staged: int, base: Digest, tip: Digest, path: Path) -> Iterator[StatusRow]:
        """What differs between the directory `tip` and the one that is staged over `base`."""
        for name, row in self.staging.rows(self.txn, staged):
            before, here = _decoded(read.get(self.objects.node, tip, name)), (*path, name)
            if row.kind is Kind.STAGED:
                yield from self._directory_differences(row, before, here)
            elif row.kind is Kind.REMOVED:
                if before is not None:
                    yield StatusRow(here, "removed", before.kind)
            else:
                after = decode_entry(row.head, self.staging.value(row.value))
                yield from self._changed(before, after, here)
        for name, old, new in diff(self.objects.node, tip, base):
            if self.staging.row(self.txn, staged, name) is None:
                yield from self._changed(_decoded(old), _decoded(new), (*path, name))

    def _changed(self, before: Entry | None, after: Entry | None, path: Path) -> Iterator[StatusRow]:
        """What differs between two entries; of two directories, what differs below them."""
        if before is None or after is None:
            entry = before or after
            if entry is not None:
                yield StatusRow(path, "added" if before is None else "removed", entry.kind)
        elif before.kind is not Kind.DIRECTORY or after.kind is not Kind.DIRECTORY:
            facts = (before.mtime, before.attributes) == (after.mtime, after.attributes)
            # What is staged may lie there as it came, and in the tip as a chunk.
            if not facts or not same_contents(self.objects, before, after):
                yield StatusRow(path, "changed", after.kind)
        else:
            if before.attributes != after.attributes:
                yield StatusRow(path, "changed", Kind.DIRECTORY)
            for name, old, new in diff(self.objects.node, before.root, after.root):
                yield from self._changed(_decoded(old), _decoded(new), (*path, name))

    def _directory_differences(self, row: Row, before: Entry | None, path: Path) -> Iterator[StatusRow]:
        if before is None or before.kind is not Kind.DIRECTORY:
            yield StatusRow(path, "added" if before is None else "changed", Kind.DIRECTORY)
            yield from self._added_below(row.staged_id, path)
            return
        known = self.staging.directory(self.txn, row.staged_id)
        if before.attributes != decode_entry(row.head, row.value).attributes:
            yield StatusRow(path, "changed", Kind.DIRECTORY)
        yield from self._differences(row.staged_id, known.base if known else EMPTY, before.root, path)

    def _added_below(self, staged: int, path: Path) -> Iterator[StatusRow]:
        """What is staged in a directory that the tip has not, wherever that came from: there all of it is new."""
        for name, row in self.staging.rows(self.txn, staged):
            here = (*path, name)
            if row.kind is Kind.STAGED:
                yield StatusRow(here, "added", Kind.DIRECTORY)
                yield from self._added_below(row.staged_id, here)
            elif row.kind is not Kind.REMOVED:
                yield StatusRow(here, "added", row.kind)


def _decoded(found: tuple[bytes, bytes] | None) -> Entry | None:
    return None if found is None else decode_entry(*found)
