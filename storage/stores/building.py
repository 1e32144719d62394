"""Building the map of a directory from rows that come in any order and any number, in bounded memory.

Rows are collected, sorted and laid down as runs, each a map of its own: a batch goes into a run that has few rows
between its first and its last, or begins a new one. Where several runs are left at the end they are merged, one
leaf of each in memory. Rows that come in order, be it that of numbers, are written once, others about twice. What
is written are nodes that nothing refers to: work that is cut short leaves the repository as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from operator import itemgetter

from storage.errors import NameTaken
from storage.model.chunking import INLINE_MAX, STAGED_INLINE_MAX, ChunkRef, encode_chunks
from storage.model.digest import Digest
from storage.model.names import Path, path_text
from storage.model.records import CHUNKED
from storage.model.samples import BytesSource, Source
from storage.stores.contents import store_payload
from storage.stores.objects import Objects
from storage.stores.staging import LeafRow
from storage.tree import read
from storage.tree.edit import Edit, edit
from storage.tree.node import EMPTY, NO_SUMS, Sums

BATCH_BYTES = 8 << 20
_OVERHEAD = 200  # what a waiting row costs beside its bytes


@dataclass(slots=True)
class _Run:
    """A map of some of the rows."""

    root: Digest
    sums: Sums


class MapBuilder:
    """The map of the directory `path`. Names come once: a second one is NameTaken, here or in `finish`. Not thread-safe."""

    def __init__(self, objects: Objects, path: Path = ()) -> None:
        self._objects = objects
        self._path = path
        self._rows: list[LeafRow] = []
        self._long: list[tuple[bytes, bytes, bytes]] = []
        self._waiting = 0
        self._runs: list[_Run] = []
        self._itemsize = 1

    def add(self, rows: Iterable[LeafRow], nbytes: int) -> None:
        """Add rows as the tree keeps them, of `nbytes` bytes together."""
        before = len(self._rows)
        self._rows.extend(rows)
        self._wait(nbytes + _OVERHEAD * (len(self._rows) - before))

    def add_contents(
        self,
        name: bytes,
        head: bytes,
        contents: bytes | Source,
        start: int,
        itemsize: int,
        before: Sequence[ChunkRef] = (),
    ) -> None:
        """Add a file or sample, whose entry has that head: `contents` from `start` on, of numbers of `itemsize` bytes.

        `before` are the chunks of what it replaces.
        """
        if not isinstance(contents, bytes) or len(contents) - start > STAGED_INLINE_MAX:
            source = contents if not isinstance(contents, bytes) else BytesSource(memoryview(contents))
            if source.size - start > STAGED_INLINE_MAX:
                flags, value = store_payload(self._objects, source, start, itemsize, before)
                self.add([(name, head[:1] + bytes([flags]) + head[2:], value)], len(value))
                return
            contents = bytes(source.read(start, source.size - start))
            start = 0
        payload = contents[start:] if start else contents
        if len(payload) <= INLINE_MAX:
            self.add([(name, head, payload)], len(payload))
            return
        if itemsize != self._itemsize:
            self._store_long()
            self._itemsize = itemsize
        self._long.append((name, head, payload))
        self._wait(len(payload) + _OVERHEAD)

    def add_map(self, root: Digest) -> None:
        """Add all rows of a map that is stored."""
        if root != EMPTY:
            self._runs.append(_Run(root, read.sums(self._objects.node, root)))

    def finish(self) -> tuple[Digest, Sums]:
        """Root and sums of the map with all rows. NameTaken if two have the same name."""
        self._flush()
        if not self._runs:
            return EMPTY, NO_SUMS
        if len(self._runs) > 1:
            load = self._objects.node
            rows = merge(*(read.rows(load, run.root) for run in self._runs), key=itemgetter(0))
            root, sums = apply_edits(
                self._objects, EMPTY, ((key, (head, value)) for key, head, value in self._once(rows))
            )
            self._runs = [_Run(root, sums)]
        return self._runs[0].root, self._runs[0].sums

    def _wait(self, nbytes: int) -> None:
        self._waiting += nbytes
        if self._waiting >= BATCH_BYTES:
            self._flush()

    def _store_long(self) -> None:
        """Contents too long for a leaf become chunks, many in one transaction."""
        long, self._long = self._long, []
        digests = self._objects.put_chunks([payload for _, _, payload in long], self._itemsize)
        for (name, head, payload), digest in zip(long, digests, strict=True):
            value = encode_chunks([ChunkRef(digest, len(payload))])
            self._rows.append((name, head[:1] + bytes([CHUNKED]) + head[2:], value))

    def _flush(self) -> None:
        self._store_long()
        rows, self._rows, self._waiting = self._rows, [], 0
        if not rows:
            return
        rows.sort(key=itemgetter(0))
        edits: list[Edit] = [(key, (head, value)) for key, head, value in self._once(rows)]
        run = self._run_for(edits)
        root, sums, fresh = edit(self._objects.node, run.root, edits)
        if sums.count != run.sums.count + len(edits):
            taken = next(name for name, _ in edits if read.get(self._objects.node, run.root, name) is not None)
            raise self._repeated(taken)
        self._objects.put_nodes(fresh)
        run.root, run.sums = root, sums

    def _once(self, rows: Iterable[LeafRow]) -> Iterator[LeafRow]:
        """Sorted rows; NameTaken where two have the same name."""
        last = b""
        for row in rows:
            if row[0] == last:
                raise self._repeated(last)
            last = row[0]
            yield row

    def _repeated(self, name: bytes) -> NameTaken:
        path = (*self._path, name)
        return NameTaken(f"{path_text(path)} comes twice: each entry of a directory needs a name of its own", path=path)

    def _run_for(self, edits: Sequence[Edit]) -> _Run:
        """The run that these rows disturb the least; a new one where they would take apart more than they bring."""
        load = self._objects.node
        first, last = edits[0][0], edits[-1][0]
        between = [read.rank(load, run.root, last) - read.rank(load, run.root, first) for run in self._runs]
        least = min(between, default=0)
        if not self._runs or 2 * least > len(edits):
            self._runs.append(_Run(EMPTY, NO_SUMS))
            return self._runs[-1]
        return self._runs[between.index(least)]


def apply_edits(objects: Objects, root: Digest, edits: Iterable[Edit]) -> tuple[Digest, Sums]:
    """Apply edits, whose keys strictly ascend, to the map with that root, some megabytes at a time; root and sums."""
    sums = read.sums(objects.node, root)
    batch: list[Edit] = []
    waiting = 0
    for change in edits:
        batch.append(change)
        waiting += _OVERHEAD + (len(change[1][1]) if change[1] is not None else 0)
        if waiting >= BATCH_BYTES:
            root, sums, fresh = edit(objects.node, root, batch)
            objects.put_nodes(fresh)
            batch, waiting = [], 0
    root, sums, fresh = edit(objects.node, root, batch) if batch else (root, sums, [])
    objects.put_nodes(fresh)
    return root, sums
