"""Many samples of a dataset as one array: slices of whole leaves where they lie in the tree, decoded in threads where not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from storage.errors import NotFound, SchemaMismatch
from storage.model.chunking import THREADS
from storage.model.digest import Digest
from storage.model.names import Path
from storage.model.records import Entry, Kind, Schema, decode_entry
from storage.model.samples import Array, array_from
from storage.snapshot import Snapshot
from storage.tree import read
from storage.tree.node import BadNode, Leaf, uniform_values
from storage.working import WorkingReader

MANY_LEAVES = 256
"""A thread takes at most so many leaves at once."""
SLAB = 1024
"""So many samples wait to be decoded at once."""

_Waiting = Iterator[tuple[int, Entry]]


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
        self._decode(self._sliced(read.leaves(self.tree.objects.node, root), stacked), stacked)
        return stacked

    def some(self, names: Sequence[bytes], out: Array | None = None) -> Array:
        """The samples of these file names, in that order. NotFound."""
        stacked = self._target(len(names), out)
        root = self.tree.settled(self.path)
        if root is None:
            self._decode(((at, self._entry(name)) for at, name in enumerate(names)), stacked)
        else:
            order = sorted(range(len(names)), key=names.__getitem__)
            groups = read.grouped(self.tree.objects.node, root, [names[i] for i in order])
            self._decode(self._picked(groups, names, order, stacked), stacked)
        return stacked

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

    def _block(self, leaf: Leaf) -> Array | None:
        """All rows of a leaf as one array, where all of them are samples whose bytes lie in it as they are."""
        found = leaf.block(self.dtype.itemsize * math.prod(self.schema.shape))
        return None if found is None else np.ndarray((len(leaf), *self.schema.shape), self.dtype, found)

    def _sliced(self, leaves: Sequence[tuple[int, Digest]], stacked: Array) -> _Waiting:
        """Copy what can be copied leaf by leaf, in threads; the places and entries of all else."""
        with ThreadPoolExecutor(THREADS) as pool:
            step = max(1, min(MANY_LEAVES, -(-len(leaves) // THREADS)))
            parts = [leaves[at : at + step] for at in range(0, len(leaves), step)]
            for rest in pool.map(lambda part: self._copied(part, stacked), parts):
                for at, leaf in rest:
                    yield from self._single(at, leaf)

    def _copied(self, leaves: Sequence[tuple[int, Digest]], stacked: Array) -> list[tuple[int, Leaf]]:
        """Copy those leaves that are a block; the others."""
        others = []
        size = self.dtype.itemsize * math.prod(self.schema.shape)
        found = self.tree.objects.get_many([digest for _, digest in leaves])
        for (at, digest), raw in zip(leaves, found, strict=True):
            values = uniform_values(raw, size) if size else None
            if values is not None:
                count = len(values) // size
                stacked[at : at + count] = np.ndarray((count, *self.schema.shape), self.dtype, values)
                continue
            leaf = self.tree.objects.node(digest)
            if not isinstance(leaf, Leaf):
                raise BadNode("an inner node stands where a leaf is expected")
            others.append((at, leaf))
        return others

    def _single(self, at: int, leaf: Leaf) -> _Waiting:
        """The samples of a leaf, from place `at` on."""
        for _, head, value in leaf.rows():
            entry = decode_entry(head, value)
            if entry.kind is Kind.SAMPLE:
                yield at, entry
                at += 1

    def _picked(
        self,
        groups: Iterable[tuple[Leaf | None, list[int]]],
        names: Sequence[bytes],
        order: Sequence[int],
        stacked: Array,
    ) -> _Waiting:
        at = 0
        for leaf, rows in groups:
            places = order[at : at + len(rows)]
            at += len(rows)
            if leaf is None or -1 in rows:
                raise self._missing(names[places[rows.index(-1)]])
            block = self._block(leaf)
            if block is not None:
                stacked[places] = block[rows]
                continue
            for place, row in zip(places, rows, strict=True):
                entry = decode_entry(*leaf.contents(row))
                if entry.kind is not Kind.SAMPLE:
                    raise self._missing(names[place])
                yield place, entry

    def _decode(self, waiting: Iterable[tuple[int, Entry]], stacked: Array) -> None:
        """Put samples into their places, in threads: unpacking lets other threads run."""

        def put(some: Iterable[tuple[int, Entry]]) -> None:
            """Decode some samples."""
            for place, entry in some:
                stacked[place] = array_from(self.tree.payload(entry), self.schema, entry.attributes, copy=False)

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


def _parts(slab: list[tuple[int, Entry]], step: int) -> Iterator[list[tuple[int, Entry]]]:
    for at in range(0, len(slab), step):
        yield slab[at : at + step]
