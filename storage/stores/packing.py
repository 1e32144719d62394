"""Storing the contents of many samples: while one portion is gathered, the one before is digested and packed in a thread.

Each by itself would wait for a transaction, and for its packing, which takes ten times as long as writing what comes out.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from msgspec.structs import replace

from storage.disk.segments import Record
from storage.errors import ArborError
from storage.model.chunking import ChunkRef, FreshChunk, cut, encode_chunks
from storage.model.digest import Digest
from storage.model.records import Entry
from storage.model.samples import Array, BytesSource
from storage.stores.objects import Objects
from storage.tree.edit import Building
from storage.tree.node import Sums

PORTION = 8 << 20
"""At most so many bytes are stored in one transaction. Two portions are in memory, and both of them packed at most."""
_ALIGNED = 64


class Pending:
    """A sample whose contents are not stored yet: its entry lacks their value until they are."""

    __slots__ = ("compression", "entry", "itemsize", "payload")

    def __init__(self, entry: Entry, itemsize: int, compression: str) -> None:
        self.entry = entry
        self.itemsize = itemsize
        self.compression = compression
        self.payload: bytes | memoryview | None = None
        """The contents, until they are stored."""


class Packer:
    """Stores contents in the order in which they come. Not thread-safe.

    Where storing fails all that is not stored yet is kept: the next call tries again.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._gathered: list[Pending] = []
        self._begun: deque[_Portion] = deque()
        self._used = 0
        # Filled again and again: with memory of its own for each sample, the kernel would take as long as the copy to find it.
        self._filling, self._resting = (np.empty(PORTION, np.uint8) for _ in range(2))

    def add(self, pending: Pending, data: Array | bytes) -> None:
        """Store contents of at most PORTION bytes, as they are now, at the latest when `finish` returns.

        They are not taken where this raises.
        """
        nbytes = len(data) if isinstance(data, bytes) else data.nbytes
        if self._used + nbytes > PORTION:
            self._turn(1)
        pending.payload = data if isinstance(data, bytes) else self._copied(data)
        self._gathered.append(pending)
        self._used += -(-nbytes // _ALIGNED) * _ALIGNED

    def finish(self) -> None:
        """Store whatever is not stored yet."""
        self._turn(0)

    def _copied(self, array: Array) -> memoryview:
        np.ndarray(array.shape, array.dtype, self._filling.data, self._used)[...] = array
        return self._filling.data[self._used : self._used + array.nbytes]

    def _turn(self, left: int) -> None:
        """Begin with the portion that was gathered, then store all that were begun but the last `left` ones."""
        if self._gathered:
            self._begun.append(_Portion(self._objects, self._gathered))
            self._gathered, self._used = [], PORTION
        while len(self._begun) > left:
            self._begun[0].store()
            self._begun.popleft()
        # No sooner: if storing has failed, both hold what is not stored yet, and there is no room for more.
        self._filling, self._resting, self._used = self._resting, self._filling, 0


class _Portion:
    """Contents that are packed by two threads: one that begins at once, and whoever comes to store them."""

    def __init__(self, objects: Objects, pending: Sequence[Pending]) -> None:
        self._objects = objects
        self._pending = pending
        self._chunks = [_chunks(one) for one in pending]
        self._todo = deque((one, chunk) for one, chunks in self._each() for chunk in chunks)
        self._packed: dict[int, tuple[Digest, Record | None]] = {}
        self._thread = threading.Thread(target=self._pack_beside, name="arborfs-pack", daemon=True)
        self._thread.start()

    def _pack_beside(self) -> None:
        with suppress(ArborError, MemoryError):  # whoever stores them tries again, and is told
            self._pack()

    def _pack(self) -> None:
        while self._todo:
            try:
                one, chunk = self._todo.popleft()
            except IndexError:
                return  # the other thread was faster
            self._packed[id(chunk)] = self._objects.packed(chunk.data, one.itemsize, one.compression)

    def store(self) -> None:
        """Store them, in one transaction, and give the samples their values."""
        self._pack()
        self._thread.join()
        found = [[self._result(one, chunk) for chunk in chunks] for one, chunks in self._each()]
        self._objects.put_packed([record for packed in found for _, record in packed if record is not None])
        for (one, chunks), packed in zip(self._each(), found, strict=True):
            refs = [ChunkRef(digest, chunk.length) for (digest, _), chunk in zip(packed, chunks, strict=True)]
            one.entry = replace(one.entry, value=encode_chunks(refs))
            one.payload = None

    def _each(self) -> zip[tuple[Pending, list[FreshChunk]]]:
        return zip(self._pending, self._chunks, strict=True)

    def _result(self, one: Pending, chunk: FreshChunk) -> tuple[Digest, Record | None]:
        """What packing gave; what the thread failed at, or had in hand when this process was forked, is done here."""
        return self._packed.get(id(chunk)) or self._objects.packed(chunk.data, one.itemsize, one.compression)


def put_built(objects: Objects, building: Building) -> tuple[Digest, Sums]:
    """Store the nodes of a map while it is built, in another thread; its root and sums."""
    stored = _Storing(objects, [])
    while True:
        try:
            portion = next(building)
        except StopIteration as end:
            stored.join()
            root, sums = end.value
            return root, sums
        stored.join()
        stored = _Storing(objects, portion)


class _Storing:
    """Stores tree nodes in a thread. Not an executor's: those take nothing more once the process is about to end."""

    def __init__(self, objects: Objects, nodes: Sequence[tuple[Digest, bytes]]) -> None:
        self._objects = objects
        self._nodes = nodes
        self._done = False
        self._thread = threading.Thread(target=self._store, name="arborfs-store", daemon=True)
        self._thread.start()

    def _store(self) -> None:
        with suppress(ArborError, MemoryError):  # whoever waits tries again, and is told
            self._objects.put_nodes(self._nodes)
            self._done = True

    def join(self) -> None:
        """Wait until they are stored."""
        self._thread.join()
        if not self._done:
            self._objects.put_nodes(self._nodes)


def _chunks(one: Pending) -> list[FreshChunk]:
    assert one.payload is not None
    return [piece for piece in cut(BytesSource(memoryview(one.payload))) if isinstance(piece, FreshChunk)]
