"""Garbage collection: what nothing leads to is deleted, and segments that are mostly holes are written anew.

1. Condemn. Commits that nothing leads to vanish from the index, so that nobody begins to use them; objects that nothing
   leads to are marked. Whoever stores a marked object's contents from here on stores them anew.
2. Grace. Who had found an object stored before it was marked refers to it by then. Nobody need be waited for when nobody
   else had the repository open after step 1.
3. Sweep. Objects marked long enough ago that still nothing leads to lose their index rows.
4. Compact (storage/maintenance/compact.py). Segments lose the bytes that no row leads to.

Steps 1 and 3 decide inside a write transaction, with a last look at what changed since the long look before it, and take
turns with commits and merges, which store a tree first and name it then.
A crash between any two steps leaves a repository in which all that was reachable is, and the next gc goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from storage.config import folder
from storage.disk.index import COLLECTIONS, Txn, number_key
from storage.disk.locks import alone_at_once
from storage.disk.segments import RECORD_SIZE, SegmentKind
from storage.engine import Engine
from storage.errors import CollectorRuns
from storage.maintenance.compact import Compaction, compact, preview
from storage.maintenance.reachable import Reachable, Roots, add_pins, gives_up_work, roots_since, settled_roots
from storage.model.digest import Digest
from storage.stores.objects import object_place
from storage.stores.pins import pinned
from storage.stores.refs import append_collection
from storage.stores.staging import note_change
from storage.working import Parts

SECOND = 1_000_000_000
KEEP = 30 * 86_400 * SECOND
"""How long the operation log keeps commits that no ref leads to any more, in ns."""
GRACE = 3600 * SECOND
"""How long an object stays after nothing leads to it, while others have the repository open, in ns."""
BATCH = 50_000
"""Rows deleted in one transaction: about 0.2 s."""

_REFS: tuple[str, list[bytes], list[bytes] | None] = ("", [], [])
"""What gc notes as changed: commits, and no name in any tree, so that no work under way must be done again."""

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Collection:
    """What a gc did, or would do (`dry_run`).

    `commits` nothing leads to; `deleted` and `waiting` objects with their bytes as stored: gone, and marked, to be deleted
    by a gc after the grace time. `freed` is in bytes of files.
    """

    dry_run: bool
    commits: list[Digest] = field(default_factory=list)
    deleted: int = 0
    deleted_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    pins: int = 0
    compaction: Compaction = field(default_factory=Compaction)

    @property
    def freed(self) -> int:
        """Bytes that the disk got back, or would."""
        return self.compaction.freed


@dataclass(frozen=True, slots=True)
class Policy:
    """How long what is kept, in ns, and what time it is (ns since 1970)."""

    keep: int = KEEP
    grace: int = GRACE
    now: Callable[[], int] = time.time_ns


def gc(
    path: str | os.PathLike[str],
    policy: Policy | None = None,
    *,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> Collection:
    """Delete what nothing leads to in the repository in `path`; others may have it open and work on.

    Kept is what refs, staged work, the commits and checkouts that live processes read, and operations of the last
    `policy.keep` nanoseconds lead to. Where others have the repository open, deleting takes two calls, `policy.grace` apart.
    CollectorRuns when another one is at it, or a verify; Corrupt, with nothing deleted, where something needed is missing.
    `on_progress` is called with bytes copied, of how many.
    """
    where, policy = Path(path), policy or Policy()
    with _only_collector(where):
        with Engine.open(where) as engine:
            first = _Collector(engine, policy)
            if dry_run:
                return first.preview(others=not engine.alone)
            commits = first.condemn()
        # Opened again: whoever comes from here on sees the marks.
        with Engine.open(where) as engine:
            collector = _Collector(engine, policy, first.marked.digests)
            report = collector.sweep(0 if engine.alone else policy.grace)
            report.commits = commits
            # Before any byte goes: a power loss must not bring back an older state that still leads there.
            engine.sync()
            engine.parts().committer.remove_settled_journals()
            report.compaction = compact(engine.parts(), on_progress)
            collector.tell_others()
        return report


@contextmanager
def _only_collector(path: Path) -> Iterator[None]:
    with alone_at_once(folder(path) / "gc.lock") as free:
        if not free:
            raise CollectorRuns(f"another process verifies {path} or collects garbage there: wait for it")
        yield


class _Collector:
    def __init__(self, engine: Engine, policy: Policy, marked: set[Digest] | None = None) -> None:
        self._parts: Parts = engine.parts()
        self._index = self._parts.index
        self._policy = policy
        self.marked = Reachable(self._parts.objects, marked)
        self._seen = 0
        self._horizon = 0
        self._gives_up = False
        self._look()

    def _look(self) -> None:
        """The long look at everything, which holds up nobody."""
        roots, self._horizon = settled_roots(self._parts, self._policy.now() - self._policy.keep)
        self._gives_up = gives_up_work(self._parts, self._horizon)
        self.marked.add(roots)
        self._seen = roots.upto

    def _last_look(self, txn: Txn) -> None:
        """Take in what changed since the last look; from here to the end of `txn` nothing changes."""
        if self._index.number(txn, b"sequence") == self._seen:
            roots = Roots(self._seen, set(), set(), set())
            add_pins(self._parts, txn, roots)
            self.marked.add(roots)
            return
        roots = roots_since(self._parts, txn, self._seen, self._horizon)
        self.marked.add(roots)
        self._seen = roots.upto

    def condemn(self) -> list[Digest]:
        """Mark the objects that nothing leads to, spare those marked before that something leads to again.

        Returns the commits that vanished.
        """
        doomed = [digest for digest, _, _ in self._unreachable()]
        index, kept = self._index, self.marked.digests
        now = number_key(self._policy.now())
        for batch in _batches(doomed):
            with index.write() as txn:
                self._last_look(txn)
                for digest in batch:
                    if digest not in kept:
                        txn.put(digest, now, overwrite=False, db=index.condemned)
        with self._parts.committer.turn(), self._parts.log.change(SegmentKind.LOG) as txn:
            self._last_look(txn)
            self._spare(txn)
            gone = self._unreachable_commits(txn)
            if gone or self._gives_up:
                append_collection(index, self._parts.log, txn, self._horizon)
            for digest in gone:
                txn.delete(digest, db=index.commits)
            note_change(index, txn, self._parts.origin, [_REFS])
        return gone

    def sweep(self, grace: int) -> Collection:
        """Delete what was marked at least `grace` ns ago and nothing leads to."""
        report = Collection(dry_run=False)
        index, until = self._index, self._until(grace, report)
        with index.read() as txn:
            rows = [(Digest(key), int.from_bytes(when, "big")) for key, when in index.scan(txn, index.condemned, b"")]
        for batch in _batches([digest for digest, when in rows if when <= until]):
            # In turn: a commit or merge may have found stored what no ref leads to yet.
            with self._parts.committer.turn(), index.write() as txn:
                self._last_look(txn)
                for digest in batch:
                    self._delete(txn, digest, report)
                # Whoever stages something looks at this: what it found stored may be gone.
                index.next_number(txn, COLLECTIONS)
        with index.write() as txn:
            self._last_look(txn)
            self._spare(txn)
            for key, _ in index.scan(txn, index.condemned, b""):
                report.waiting += 1
                report.waiting_bytes += _stored(txn.get(key, db=index.objects))
        return report

    def _delete(self, txn: Txn, digest: Digest, report: Collection) -> None:
        if digest in self.marked.digests or not txn.delete(digest, db=self._index.condemned):
            return  # needed again, or stored anew meanwhile
        report.deleted += 1
        report.deleted_bytes += _stored(txn.get(digest, db=self._index.objects))
        txn.delete(digest, db=self._index.objects)

    def preview(self, *, others: bool) -> Collection:
        """What a gc would do now."""
        report = Collection(dry_run=True)
        now = self._policy.now()
        until = self._until(self._policy.grace if others else 0, report)
        dying: set[Digest] = set()
        for digest, size, when in self._unreachable():
            if (now if when is None else when) <= until:
                dying.add(digest)
                report.deleted += 1
                report.deleted_bytes += size
            else:
                report.waiting += 1
                report.waiting_bytes += size
        with self._index.read() as txn:
            report.commits = self._unreachable_commits(txn)
        preview(self._parts, dying, report.compaction, renewed=bool(report.commits) or self._gives_up)
        return report

    def _until(self, grace: int, report: Collection) -> int:
        """What was marked up to that time may go: `grace` ago, and before any work began that has not named all of it yet."""
        found = pinned(self._parts.segments.folder.parent / "pins")
        report.pins = len(found.digests)
        until = self._policy.now() - grace
        return until if found.since is None else min(until, found.since - 1)

    def tell_others(self) -> None:
        """Wake processes that follow changes: they close the files that are gone."""
        with self._index.write() as txn:
            note_change(self._index, txn, self._parts.origin, [_REFS])

    def _unreachable(self) -> Iterator[tuple[Digest, int, int | None]]:
        """Objects that nothing leads to: digest, bytes as stored, when they were marked."""
        index = self._index
        with index.read() as txn:
            for key, row in index.scan(txn, index.objects, b""):
                if key not in self.marked.digests:
                    when = txn.get(key, db=index.condemned)
                    yield Digest(key), _stored(row), None if when is None else int.from_bytes(when, "big")

    def _unreachable_commits(self, txn: Txn) -> list[Digest]:
        keys = (Digest(key) for key, _ in self._index.scan(txn, self._index.commits, b""))
        return [digest for digest in keys if digest not in self.marked.digests]

    def _spare(self, txn: Txn) -> None:
        """Take the marks off what something leads to."""
        _delete_all(
            txn,
            self._index.condemned,
            [
                key
                for key, _ in self._index.scan(txn, self._index.condemned, b"")
                if key in self.marked.digests or txn.get(key, db=self._index.objects) is None
            ],
        )


def _batches(digests: list[Digest]) -> Iterator[list[Digest]]:
    for first in range(0, len(digests), BATCH):
        yield digests[first : first + BATCH]


def _stored(row: bytes | None) -> int:
    """The bytes that an object takes in its segment, from its index row."""
    return 0 if row is None else object_place(row)[0].length + RECORD_SIZE


def _delete_all(txn: Txn, table: object, keys: Iterable[bytes]) -> None:
    for key in keys:
        txn.delete(key, db=table)
