"""What has been written to a file and is not staged yet.

A buffer belongs to the inode: every handle of a file writes to it and reads from it. It is an edit of the staged
version (its base): in memory while small, in a sparse file without a name once large, where only what was written is
kept and everything else is read from the base. It is the `Source` that storage takes at flush.

Everything runs on the event loop's thread but for functions that `reading` hands out and for a spilled buffer's `read`
while the file is being staged, when nobody writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from fusefs import ranges
from storage.stores.contents import Content

MEMORY_LIMIT = 8 << 20
"""A buffer larger than this spills."""
BASE_LIMIT = 1 << 20
"""A base larger than this is not read into memory at the first write."""


class Room:
    """Where buffers live: a folder for those that spill, and how much memory all others may take together."""

    def __init__(self, folder: Path, limit: int = 256 << 20) -> None:
        self.folder = folder
        self.left = limit

    def spill_file(self) -> int:
        """A descriptor of a new file without a name: it is gone when it is closed, or with the process."""
        return os.open(self.folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


class Buffer:
    """The contents of a file that is being written.

    `dirty` are the ranges that differ from `base`; what is beyond `_seen` is not visible of the base any more.
    `changed` tells whether there is anything to stage. `version` grows with every change.
    """

    __slots__ = ("_memory", "_room", "_seen", "_spill", "base", "changed", "dirty", "mtime", "size", "version")

    def __init__(self, room: Room, base: Content | None) -> None:
        self._room = room
        self._memory: bytearray | None = bytearray()
        self._spill = -1
        self.base = base
        self.size = self._seen = base.size if base is not None else 0
        self.dirty: ranges.Ranges = []
        self.changed = False
        self.version = 0
        self.mtime = 0
        if base is not None and base.size:
            if base.size <= BASE_LIMIT:
                self._memory += base.read(0, base.size)
                room.left -= base.size
            else:
                self._to_file()

    @property
    def in_memory(self) -> bool:
        """Whether all of it is in memory: then nothing here waits for a disk."""
        return self._memory is not None

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`; a hole before it reads as zeros. OSError where the disk is full."""
        end = offset + len(data)
        memory = self._memory
        if memory is not None and end > len(memory):
            grown = end - len(memory)
            if end > MEMORY_LIMIT or grown > self._room.left:
                self._to_file()
                memory = None
            else:
                self._room.left -= grown
                if offset > len(memory):
                    memory.extend(bytes(offset - len(memory)))
        if memory is not None:
            memory[offset:end] = data
        else:
            _write_all(self._spill, data, offset)
        if offset > self.size:
            ranges.add(self.dirty, self.size, offset)
        ranges.add(self.dirty, offset, end)
        self.size = max(self.size, end)
        self.touch()

    def truncate(self, size: int) -> None:
        """Cut, or extend with zeros."""
        if size < self.size:
            if self._memory is not None:
                self._room.left += len(self._memory) - size
                del self._memory[size:]
            else:
                os.ftruncate(self._spill, size)
            ranges.clip(self.dirty, size)
            self._seen = min(self._seen, size)
        elif size > self.size:
            if self._memory is not None:
                if size > MEMORY_LIMIT or size - self.size > self._room.left:
                    self._to_file()
                else:
                    self._room.left -= size - self.size
                    self._memory.extend(bytes(size - self.size))
            if self._memory is None:
                os.ftruncate(self._spill, size)
            ranges.add(self.dirty, self.size, size)
        self.size = size
        self.touch()

    def touch(self) -> None:
        """There is something to stage, as of now."""
        self.mtime = time.time_ns()
        self.changed = True
        self.version += 1

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """`size` bytes from `offset`, fewer only at the end."""
        return self.reading(offset, size)()

    def reading(self, offset: int, size: int) -> Callable[[], bytes | memoryview]:
        """A function that reads what the buffer holds now, to be run in any thread before the next write."""
        end = min(offset + size, self.size)
        if offset >= end:
            return bytes
        if self._memory is not None:
            found = bytes(memoryview(self._memory)[offset:end])
            return lambda: found
        plan = list(ranges.pieces(self.dirty, offset, end))
        return lambda: self._assemble(plan, offset, end)

    def _assemble(self, plan: list[tuple[int, int, bool]], offset: int, end: int) -> bytes | memoryview:
        if len(plan) == 1:
            # Most reads are like that, and copying costs more than reading from the page cache.
            whole = self._piece(*plan[0])
            if len(whole) == end - offset:
                return whole
        out = bytearray(end - offset)
        for start, stop, written in plan:
            found = self._piece(start, stop, written)
            out[start - offset : start - offset + len(found)] = found
        return memoryview(out)

    def _piece(self, start: int, stop: int, written: bool) -> bytes | memoryview:
        """What is kept of a range, in the spill file or in the base; what is missing at its end is zeros."""
        if written:
            return os.pread(self._spill, stop - start, start)
        stop = min(stop, self._seen)
        return self.base.read(start, stop - start) if self.base is not None and start < stop else b""

    def staged(self, content: Content | None) -> None:
        """Everything has been stored, as `content`, which is the base of further changes.

        A buffer in memory needs none: without a base it is stored as a whole next time.
        """
        assert content is not None or self._memory is not None
        self.changed = False
        self.base = content
        self._seen = self.size
        self.dirty = []
        if self._spill >= 0:
            os.ftruncate(self._spill, 0)

    def close(self) -> None:
        """Let go of memory and file."""
        if self._memory is not None:
            self._room.left += len(self._memory)
            self._memory = None
        if self._spill >= 0:
            os.close(self._spill)
            self._spill = -1

    def _to_file(self) -> None:
        memory, self._memory = self._memory, None
        assert memory is not None
        self._spill = self._room.spill_file()
        if memory:
            self._room.left += len(memory)
            try:
                _write_all(self._spill, memory, 0)
            except OSError:
                os.close(self._spill)
                self._spill, self._memory = -1, memory
                self._room.left -= len(memory)
                raise
            ranges.add(self.dirty, 0, len(memory))


def _write_all(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
