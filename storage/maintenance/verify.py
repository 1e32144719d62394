"""Verify: read everything back and compare it with what was stored, and the index with what a rebuild would make.

All is held against one snapshot of the index, so that writers may go on meanwhile; gc waits until it is done.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from storage.disk.index import Txn, number_key
from storage.disk.locks import together
from storage.disk.segments import RecordKind, SegmentKind
from storage.engine import Engine
from storage.errors import ArborError, Corrupt, StorageFailed
from storage.maintenance.compare import Comparison
from storage.maintenance.inspect import (
    Inspection,
    Met,
    Stretch,
    described,
    entry_references,
    inspect,
    references,
    stretches,
)
from storage.model.digest import DIGEST_SIZE, Digest, hexed
from storage.model.records import Commit, Kind, Place
from storage.stores.objects import OBJECT_ROW, object_place
from storage.stores.recovery import Progress, hole_key
from storage.stores.replaying import Change, Problem
from storage.stores.tails import END
from storage.tree.node import EMPTY, BadNode
from storage.working import Parts

RESTORE = "restore the segment file from a copy; other samples stay readable"
REBUILD = "close the repository everywhere and run `arborfs rebuild`: the segments hold everything"
_ATTEMPTS = 20
_AHEAD = 4
"""Stretches cut for each thread that reads, so that none waits for the next."""


def verify(engine: Engine, on_progress: Progress | None = None, *, threads: int = 0) -> list[Problem]:
    """Read every record, check its digest, hold every row of the index against the segments, and follow every reference.

    Returns what is wrong, nothing where all is well. `on_progress` is called with bytes read, of how many, from one
    thread at a time; `threads` is how many read at once (0: one for each core). Memory: some 300 bytes an object.
    """
    parts = engine.parts()
    with together(parts.segments.folder.parent / "gc.lock"), ExitStack() as stack:
        txn = _snapshot(parts, stack)
        return _Verification(parts, txn).run(on_progress, threads or len(os.sched_getaffinity(0)))


def _snapshot(parts: Parts, stack: ExitStack) -> Txn:
    """A read transaction all of whose journals are open: they may be deleted meanwhile."""
    for _ in range(_ATTEMPTS):
        txn = stack.enter_context(parts.index.read())
        if all(_held(parts, int.from_bytes(key, "big")) for key, _ in parts.index.scan(txn, parts.index.ends, b"")):
            break
        stack.pop_all().close()
    else:  # not a commit that deleted it, but somebody else: it will be named
        txn = stack.enter_context(parts.index.read())
    return txn


def _held(parts: Parts, segment: int) -> bool:
    if parts.segments.path(segment, SegmentKind.LOG).exists():
        return True
    with suppress(Corrupt):
        parts.segments.hold(segment)
        return True
    return False


class _Verification:
    def __init__(self, parts: Parts, txn: Txn) -> None:
        self._parts = parts
        self._index = parts.index
        self._txn = txn
        self._problems: list[Problem] = []
        self._kinds: dict[Digest, int] = {}
        """The objects to which the index leads rightly."""
        self._references: set[Digest] = set()
        self._changes: list[Change] = []
        self._commits: dict[Digest, Commit] = {}
        self._damaged: dict[int, list[int]] = {}
        self._holes: list[tuple[int, int, int]] = []
        self._lossy = False
        """Whether bytes are lost that the index may know more of than a rebuild would find."""

    def run(self, on_progress: Progress | None, threads: int) -> list[Problem]:
        """What is wrong, of segments, index and references; arguments as of `verify`."""
        for found in self._inspections(on_progress, threads):
            self._take(found)
        self._holes = [hole for hole in self._holes if not self._explained(*hole)]
        self._lossy = self._lossy or bool(self._holes)
        self._check_objects()
        if self._lossy:
            # What the index holds and the segments do not is all that is left of it: no rebuild now.
            self._check_staging()
        else:
            self._compare()
        self._report_holes()
        self._check_refs()
        return self._problems

    def _report(self, what: str, digest: bytes, where: str, advice: str = RESTORE) -> None:
        self._problems.append(Problem(what, digest.hex(), where, advice))

    def _inspections(self, on_progress: Progress | None, threads: int) -> Iterator[Inspection]:
        """Every segment in order, `threads` stretches being read at once."""
        ends = [
            (int.from_bytes(key, "big"), END.unpack(value)[0])
            for key, value in self._index.scan(self._txn, self._index.ends, b"")
        ]
        before: dict[int, int] = {}
        total = 0
        for segment, end in ends:
            before[segment] = total
            total += end
        with ThreadPoolExecutor(threads, "arborfs-verify") as pool:
            for stretch, future in _in_turn(pool, self._inspect, self._stretches(ends), _AHEAD * threads):
                try:
                    yield future.result()
                except (StorageFailed, FileNotFoundError) as error:
                    self._lose(str(error), stretch.segment)
                if on_progress is not None:
                    on_progress(before[stretch.segment] + stretch.stop, total)

    def _inspect(self, stretch: Stretch) -> Inspection:
        return inspect(stretch, self._parts.objects.unpacked)

    def _stretches(self, ends: list[tuple[int, int]]) -> Iterator[Stretch]:
        """All segments cut into stretches; what cannot be read is reported."""
        for segment, end in ends:
            path = self._path(segment)
            if path is None:
                self._lose(f"segment {segment:08x} is missing", segment)
                continue
            try:
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    yield from stretches(file.fileno(), path, segment, min(size, end))
            except (Corrupt, StorageFailed, FileNotFoundError) as error:
                self._lose(str(error), segment)
                continue
            if size < end:
                self._lose(f"segment {segment:08x} has {size} bytes instead of {end}", segment)

    def _lose(self, what: str, segment: int) -> None:
        self._report(what, b"", f"segment {segment:08x}")
        self._lossy = True

    def _path(self, segment: int) -> Path | None:
        """The segment's file, or the descriptor of one that was deleted since."""
        found = self._parts.segments.paths_of(segment)
        if found is not None and found.suffix == ".log":
            return found
        return self._parts.segments.held(segment) or found

    def _take(self, found: Inspection) -> None:
        for met in found.objects:
            self._take_object(met)
        self._references |= found.references
        self._changes += found.changes
        self._commits |= found.commits
        for start, length in found.holes:
            self._add_hole(found.segment, start, length)

    def _add_hole(self, segment: int, start: int, length: int) -> None:
        """Note a hole, which goes on where the stretch before ended with one."""
        if self._holes and self._holes[-1][0] == segment and sum(self._holes[-1][1:]) == start:
            _, start, before = self._holes.pop()
            length += before
        self._holes.append((segment, start, length))

    def _take_object(self, met: Met) -> None:
        row = self._txn.get(met.digest, db=self._index.objects)
        if row is None or len(row) != OBJECT_ROW.size or object_place(row)[0] != met.place:
            return  # a copy, or garbage: nothing leads here
        self._kinds[met.digest] = met.kind
        if row != met.row:
            self._report(f"the index is wrong about object {hexed(met.digest)}", met.digest, "the index", REBUILD)
        if met.wrong:
            segment, offset = met.place.segment, met.place.offset
            self._damaged.setdefault(segment, []).append(offset)
            self._report(described(met), met.digest, f"segment {segment:08x} at byte {offset}")

    def _explained(self, segment: int, start: int, length: int) -> bool:
        """Whether a power loss made that hole, a rebuild reported it, or it is a damaged object that was reported."""
        if self._txn.get(hole_key(segment, start), db=self._index.meta) == number_key(length):
            return True
        return any(at in range(start, start + length) for at in self._damaged.get(segment, ()))

    def _report_holes(self) -> None:
        for segment, start, length in self._holes:
            if not self._explained(segment, start, length):
                where = f"segment {segment:08x} at byte {start}"
                what = f"{length} bytes of segment {segment:08x} from byte {start} on are no valid records"
                self._report(what, b"", where)

    def _check_objects(self) -> None:
        """Every row must lead to a record that was met."""
        if self._index.rows(self._txn, self._index.objects) == len(self._kinds):
            return
        for key, row in self._index.scan(self._txn, self._index.objects, b""):
            if key in self._kinds:
                continue
            digest = Digest(key)
            try:
                self._kinds[digest] = OBJECT_ROW.unpack(row)[4]
            except struct.error:
                self._report("the index's row of an object cannot be read", digest, "the index", REBUILD)
                continue
            place = object_place(row)[0]
            if self._lossy:
                self._damaged.setdefault(place.segment, []).append(place.offset)
                where = f"segment {place.segment:08x} at byte {place.offset}"
                self._report(f"object {hexed(digest)} is damaged: no valid record is there", digest, where)
            else:
                what = f"the index leads to no record of object {hexed(digest)}"
                self._report(what, digest, "the index", REBUILD)

    def _compare(self) -> None:
        with Comparison(self._parts, self._txn) as comparison:
            wrong = list(comparison.differences(self._changes, self._commits))
        for what in wrong:
            self._report(what, b"", "the index", REBUILD)
        if not wrong:
            self._check_staging()

    def _check_refs(self) -> None:
        missing = {digest for digest in self._references if digest not in self._kinds}
        for digest in missing & self._reached() if missing else ():
            self._report(f"object {hexed(digest)} is referred to, but missing", digest, "the index")
        refs = self._parts.refs
        with suppress(Corrupt, UnicodeDecodeError):  # reported before
            wanted = {f"branch {n}": ref.tip for n, ref in refs.branches(self._txn).items() if ref.tip}
            wanted |= {f"tag {n}": Digest(tag.digest) for n, tag in refs.tags(self._txn).items()}
            for name, digest in wanted.items():
                if self._kinds.get(digest) != RecordKind.COMMIT:
                    # Where the index has a row for it, that one is wrong.
                    advice = REBUILD if digest in self._kinds else RESTORE
                    self._report(f"{name} names commit {hexed(digest)}, which is missing", digest, "refs", advice)

    def _reached(self) -> set[Digest]:
        """Everything that commits and staged directories lead to.

        What a commit cut short by a power loss left behind, or gc, leads to nothing that anybody was promised.
        """
        todo = [Digest(key) for key, _ in self._index.scan(self._txn, self._index.commits, b"")]
        rows = (data for _, data in self._index.scan(self._txn, self._index.directories, b""))
        todo += [Digest(row[:DIGEST_SIZE]) for row in rows]
        reached: set[Digest] = set()
        while todo:
            digest = todo.pop()
            if digest in reached or digest == EMPTY:
                continue
            reached.add(digest)
            kind = self._kinds.get(digest)
            if kind is not None:
                with suppress(ArborError, BadNode):  # reported before
                    todo += self._led_to(kind, digest)
        return reached

    def _led_to(self, kind: int, digest: Digest) -> Iterable[Digest]:
        if kind == RecordKind.CHUNK:
            delta = self._parts.objects.delta(digest)
            return () if delta is None else delta.bases
        return references(kind, bytes(self._parts.objects.get(digest)))

    def _check_staging(self) -> None:
        staging = self._parts.staging
        for name, ref in self._parts.refs.branches(self._txn).items():
            todo = [ref.root_id]
            while todo:
                directory = todo.pop()
                for entry_name, row in staging.rows(self._txn, directory):
                    if row.kind is Kind.STAGED:
                        todo.append(row.staged_id)
                        continue
                    try:
                        self._check_staged(row.head, staging.value(row.value))
                    except ArborError as error:
                        self._report_staged(entry_name, name, error, row.value)

    def _report_staged(self, name: bytes, branch: str, error: ArborError, value: bytes | Place) -> None:
        if isinstance(value, Place):
            self._damaged.setdefault(value.segment, []).append(value.offset)
        shown = name.decode("utf-8", "backslashreplace")
        self._report(f"staged {shown!r} on branch {branch!r}: {error}", b"", "journal", "write it again")

    def _check_staged(self, head: bytes, value: bytes) -> None:
        for digest in entry_references(head, value):
            if digest not in self._kinds:
                raise Corrupt(f"chunk {hexed(digest)} is missing", digest=hexed(digest))


def _in_turn(
    pool: ThreadPoolExecutor, work: Callable[[Stretch], Inspection], stretches: Iterable[Stretch], ahead: int
) -> Iterator[tuple[Stretch, Future[Inspection]]]:
    """Each stretch with what becomes of it, in order; only so many of them are under way, as each takes memory."""
    waiting: deque[tuple[Stretch, Future[Inspection]]] = deque()
    for stretch in stretches:
        waiting.append((stretch, pool.submit(work, stretch)))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
