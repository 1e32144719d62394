"""Many samples of a dataset as one array: slices of whole leaves where they lie in the tree, decoded in threads where not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from storage.errors import Corrupt, NotFound, SchemaMismatch
from storage.model.chunking import THREADS
from storage.model.digest import Digest, hexed
from storage.model.names import Path
from storage.model.records import Entry, Kind, Schema, decode_entry, is_plain_sample
from storage.model.samples import Array, array_from
from storage.snapshot import Snapshot
from storage.tree import read
from storage.tree.node import BadNode, Leaf, uniform_values
from storage.working import WorkingReader

MANY_LEAVES = 64
"""So many leaves are unpacked at once: about a megabyte, which the processor's cache still holds when it is copied."""
SLAB = 1024
"""So many samples wait to be decoded at once."""
FEW = 8
"""So many samples of one leaf are taken out of it together, fewer one by one."""

_Waiting = Iterator[tuple[int, Entry]]
_Placed = tuple[int, int, Digest]
"""A leaf by its digest, with the place of its first sample and how many it must have."""


@dataclass(frozen=True, slots=True)
class Stacker:
    """One dataset of arrays of one shape. `dtype` is that of its schema."""

    tree: Snapshot | WorkingReader
    path: Path
    schema: Schema
    dtype: np.dtype[Any]

    def all(self, out: Array | None = None) -> Array:
        """Every sample in the order of its key: an array of shape (samples, *shape), which is `out` where that is given."""
        root = self.tree.settled(self.path)
        if root is None:
            entries = [entry for _, entry in self.tree.entries(self.path) if entry.kind is Kind.SAMPLE]
            stacked = self._target(len(entries), out)
            self._decode(enumerate(entries), stacked)
            return stacked
        stacked = self._target(read.sums(self.tree.objects.node, root).samples, out)
        whole = stacked if stacked.flags.c_contiguous else np.empty(stacked.shape, self.dtype)
        self._decode(self._sliced(read.leaves(self.tree.objects.node, root), whole), whole)
        if whole is not stacked:
            stacked[...] = whole
        return stacked

    def some(self, names: Sequence[bytes], out: Array | None = None) -> Array:
        """The samples of these file names, in that order. NotFound."""
        stacked = self._target(len(names), out)
        root = self.tree.settled(self.path)
        if root is None:
            self._decode(((at, self._entry(name)) for at, name in enumerate(names)), stacked)
        else:
            order = sorted(range(len(names)), key=names.__getitem__)
            objects = self.tree.objects
            groups = read.grouped(objects.node, objects.nodes, root, [names[i] for i in order])
            self._decode(self._picked(groups, names, order, stacked), stacked)
        return stacked

    @property
    def _size(self) -> int:
        """Bytes of one sample."""
        return self.dtype.itemsize * math.prod(self.schema.shape)

    def _target(self, count: int, out: Array | None) -> Array:
        shape = (count, *self.schema.shape)
        if out is None:
            return np.empty(shape, self.dtype)
        if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != self.dtype or not out.flags.writeable:
            found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise SchemaMismatch(
                f"out must be a writeable array of dtype {self.dtype} and shape {shape}, not {found}",
                expected=f"{self.dtype} {shape}",
                found=found,
            )
        return out

    def _entry(self, name: bytes) -> Entry:
        entry = self.tree.entry((*self.path, name))
        if entry.kind is not Kind.SAMPLE:
            raise self._missing(name)
        return entry

    def _missing(self, name: bytes) -> NotFound:
        key = name.removesuffix(self.schema.suffix).decode("utf-8", "backslashreplace")
        where = b"/".join(self.path).decode("utf-8", "backslashreplace")
        return NotFound(f"no sample {key!r} in dataset {where!r}")

    def _sliced(self, leaves: Sequence[_Placed], stacked: Array) -> _Waiting:
        """Copy what can be copied leaf by leaf, in threads; the places and entries of all else."""
        # One task for each thread, which takes portions as it comes along: to hand one over costs as much as unpacking many.
        portions = iter([leaves[at : at + MANY_LEAVES] for at in range(0, len(leaves), MANY_LEAVES)])
        with ThreadPoolExecutor(THREADS) as pool:
            tasks = [pool.submit(self._copied, portions, stacked) for _ in range(min(THREADS, len(leaves)))]
            for task in tasks:
                for leaf in task.result():
                    yield from self._single(leaf)

    def _copied(self, portions: Iterator[Sequence[_Placed]], stacked: Array) -> list[_Placed]:
        """Copy those leaves that are a block; the others. `stacked` lies in memory in its own order."""
        others = []
        size = self._size
        room = stacked.reshape(-1).view(np.uint8).data
        for portion in portions:
            found = self.tree.objects.get_many([digest for _, _, digest in portion])
            for leaf, raw in zip(portion, found, strict=True):
                values = uniform_values(raw, size) if size else None
                if values is None:
                    others.append(leaf)
                    continue
                at, count, digest = leaf
                if len(values) != count * size:
                    raise _contradiction(digest, len(values) // size, count)
                # Not as arrays: that would let go of Python's lock for a microsecond of work.
                room[at * size : (at + count) * size] = values
        return others

    def _single(self, placed: _Placed) -> _Waiting:
        """The samples of a leaf with their places."""
        at, count, digest = placed
        leaf = self.tree.objects.passing(digest)
        if not isinstance(leaf, Leaf):
            raise BadNode("an inner node stands where a leaf is expected")
        entries = [decode_entry(head, value) for _, head, value in leaf.rows() if head[0] == Kind.SAMPLE]
        if len(entries) != count:
            raise _contradiction(digest, len(entries), count)
        yield from enumerate(entries, at)

    def _picked(
        self,
        groups: Iterable[tuple[Leaf | None, list[int]]],
        names: Sequence[bytes],
        order: Sequence[int],
        stacked: Array,
    ) -> _Waiting:
        """Copy what lies in leaves; the places and entries of all else."""
        at, size = 0, self._size
        places: list[int] = []
        values: list[bytes | memoryview] = []
        for leaf, rows in groups:
            here = order[at : at + len(rows)]
            at += len(rows)
            if leaf is None or -1 in rows:
                raise self._missing(names[here[rows.index(-1)]])
            block = uniform_values(leaf.raw, size) if size and len(rows) >= FEW else None
            if block is not None:
                stacked[here] = np.ndarray((len(leaf), *self.schema.shape), self.dtype, block)[rows]
                continue
            for place, row in zip(here, rows, strict=True):
                head, value = leaf.contents(row)
                if is_plain_sample(head) and len(value) == size:
                    places.append(place)
                    values.append(value)
                    continue
                entry = decode_entry(head, value)
                if entry.kind is not Kind.SAMPLE:
                    raise self._missing(names[place])
                yield place, entry
            if len(values) >= SLAB:
                self._put(places, values, stacked)
                places, values = [], []
        self._put(places, values, stacked)

    def _put(self, places: Sequence[int], values: Sequence[bytes | memoryview], stacked: Array) -> None:
        """Copy values to their places."""
        if places:
            stacked[places] = np.ndarray((len(places), *self.schema.shape), self.dtype, b"".join(values))

    def _decode(self, waiting: Iterable[tuple[int, Entry]], stacked: Array) -> None:
        """Put samples into their places, in threads: unpacking lets other threads run."""

        def put(some: Iterable[tuple[int, Entry]]) -> None:
            """Decode some samples."""
            for place, entry in some:
                room = stacked[place : place + 1]
                usual = entry.attributes.header is None and room.flags.c_contiguous
                if not usual or not self.tree.put_payload_into(room.reshape(-1).view(np.uint8).data, entry):
                    room[0] = array_from(self.tree.payload(entry), self.schema, entry.attributes, copy=False)

        rest = iter(waiting)
        slab = list(islice(rest, SLAB))
        if all(not entry.flags for _, entry in slab) and len(slab) < SLAB:
            put(slab)
            return
        with ThreadPoolExecutor(THREADS) as pool:
            while slab:
                # In each thread some in a row: handing one over costs as much as decoding a small one.
                step = max(1, len(slab) // (4 * THREADS))
                for _ in pool.map(put, _parts(slab, step)):
                    pass
                slab = list(islice(rest, SLAB))


def _contradiction(leaf: Digest, found: int, told: int) -> Corrupt:
    # Places behind it would be those of other samples, or of none.
    return Corrupt(f"tree node {hexed(leaf)} holds {found} samples, the node above it says {told}", digest=hexed(leaf))


def _parts(slab: list[tuple[int, Entry]], step: int) -> Iterator[list[tuple[int, Entry]]]:
    for at in range(0, len(slab), step):
        yield slab[at : at + step]
