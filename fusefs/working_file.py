"""Files of a branch's working tree: opening, reading, writing, and staging what was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from fusefs.buffers import Buffer
from fusefs.handles import Handle, prefetching
from fusefs.layout import Stat
from fusefs.nodes import Changes, Stale
from fusefs.placed import Branch, Gone, Placed
from storage.entries import sample_schema
from storage.errors import IsADirectory, NotADirectory, NotFound, SchemaMismatch
from storage.model.records import Attributes, Entry, Kind
from storage.stores.contents import Content

if TYPE_CHECKING:
    from fusefs.working import WorkingDirectory

LIGHT = 1 << 16
"""Contents up to this many bytes are stored faster than a thread is reached."""


class Opened:
    """What is held of a file while it is open.

    `content` is what is stored; `buffer` is what was written over it. `fresh` tells that the file was made by the open
    that goes on and never got contents; `failure` which version of the buffer was refused, and why.
    """

    __slots__ = ("buffer", "content", "failure", "fresh", "handles")

    def __init__(self) -> None:
        self.buffer: Buffer | None = None
        self.content: Content | None = None
        self.failure: tuple[int, SchemaMismatch] | None = None
        self.fresh = False
        self.handles = 0


CLOSED = Opened()
"""What all files that are not open hold. Never changed."""


class WorkingFile(Placed):
    """A file or sample of a working tree. `opened` is CLOSED for most: a mount may know a million of them."""

    __slots__ = ("opened",)

    def __init__(self, branch: Branch, parent: WorkingDirectory | None, name: bytes, entry: Entry | None) -> None:
        super().__init__(branch, parent, name, entry)
        self.opened = CLOSED

    def _held(self) -> Opened:
        """What is held while the file is open, to be changed."""
        if self.opened is CLOSED:
            self.opened = Opened()
        return self.opened

    def stat(self) -> Stat:
        """What stat says: of what was written, where that is not staged yet."""
        found, buffer = super().stat(), self.opened.buffer
        if buffer is not None and buffer.changed:
            return found._replace(size=buffer.size, mtime=buffer.mtime)
        return found

    def begin(self) -> None:
        """It was made by an open that goes on: if what is written is refused, the file goes again."""
        self._held().fresh = True

    def begun(self) -> None:
        """It stays, whatever is written."""
        if self.opened.handles:
            self.opened.fresh = False
        else:
            self.opened = CLOSED

    # Opening and reading

    def open(self, flags: int) -> Handle:
        """Open for reading and writing. Stale where another process has just replaced it: then it is a new inode."""
        if self.gone is Gone.REPLACED or (self.gone and not self.opened.handles):
            # The kernel may not have heard of it yet: it looks the name up again, and finds the new inode.
            raise Stale("another process has removed or replaced the file")
        if not self.gone and not self.unstaged:
            self._load()
        if flags & os.O_TRUNC:
            self._truncate(0)
        self._held().handles += 1
        return FileHandle(self)

    def _load(self) -> None:
        try:
            entry, content = self.branch.tree.open(self.path)
        except (NotFound, NotADirectory, IsADirectory):
            # Not ENOENT: the kernel must look again, as whoever opens may want to make the file that is not there.
            self.vanish(Gone.REPLACED)
            raise Stale("another process has removed or moved the file") from None
        known = self.entry
        if known is not None and not self.branch.tree.same_contents(known, entry):
            self.vanish(Gone.REPLACED)
            raise Stale("another process has replaced the file")
        if not self.opened.handles:
            self.entry, self._held().content = entry, content

    def close(self) -> bool:
        """One handle less. After the last one the buffer goes; whether it was refused and its bytes are kept aside."""
        opened, buffer = self.opened, self.opened.buffer
        opened.handles -= 1
        if opened.handles:
            return False
        refused = opened.failure is not None and buffer is not None and buffer.changed and not self.gone
        if refused:
            self._reject()
        self.opened = CLOSED
        if buffer is not None:
            buffer.close()
        return refused

    def give_up(self) -> None:
        """Nothing more will be written or staged; bytes that were refused are kept aside."""
        buffer = self.opened.buffer
        if buffer is not None and buffer.changed:
            if self.opened.failure is not None and not self.gone:
                self._reject()
            buffer.changed = False

    def _reject(self) -> None:
        buffer, failure = self.opened.buffer, self.opened.failure
        assert buffer is not None
        assert failure is not None
        rejections, path = self.branch.rejections, self.path
        kept = rejections.keep(path, buffer.size, buffer.read)
        rejections.note(path, str(failure[1]), kept)
        if self.opened.fresh:
            self.branch.tree.remove(path)
            if self.parent is not None:
                self.parent.entry = None
            self.vanish(Gone.REPLACED)
        else:
            self.entry = None

    # Writing

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset` of the buffer. Stale, StorageFull or OSError where the disk is full."""
        if self.gone is Gone.REPLACED:
            raise Stale("another process has removed or replaced the file")
        (self.opened.buffer or self._edit()).write(offset, data)

    def _edit(self) -> Buffer:
        opened = self._held()
        if opened.content is None and not self.gone:
            self._load()
        opened.buffer = Buffer(self.branch.room, opened.content)
        return opened.buffer

    def truncate(self, size: int) -> None:
        """Cut or extend; where nobody has it open this is staged at once by whoever called."""
        if self.gone is Gone.REPLACED:
            raise Stale("another process has removed or replaced the file")
        self._truncate(size)

    def _truncate(self, size: int) -> None:
        buffer = self.opened.buffer
        if buffer is None and size == 0:
            # What was there need not be read.
            buffer = self._held().buffer = Buffer(self.branch.room, None)
            buffer.touch()
        else:
            (buffer or self._edit()).truncate(size)

    @property
    def apart(self) -> bool:
        """Whether its attributes are changed here alone: they are staged together with the contents, or not at all."""
        return self.unstaged or bool(self.gone)

    def change(self, changes: Changes) -> None:
        """Set mode, owner or mtime; together with the contents where those are still to be staged."""
        super().change(changes)
        if changes.mtime is not None and self.opened.buffer is not None:
            self.opened.buffer.mtime = changes.mtime

    # Staging

    @property
    def unstaged(self) -> bool:
        """Whether the buffer holds anything that is to be staged. False for an unlinked file: nothing brings it back."""
        buffer = self.opened.buffer
        return buffer is not None and buffer.changed and self.gone is not Gone.UNLINKED

    @property
    def light(self) -> bool:
        """Whether staging is a matter of microseconds."""
        buffer = self.opened.buffer
        return buffer is None or (buffer.in_memory and buffer.size <= LIGHT)

    @property
    def deferred(self) -> bool:
        """Whether staging waits for the last close: a sample emptied to be written anew.

        Shells close a descriptor between opening a file and writing to it; the version before must outlive that.
        """
        buffer = self.opened.buffer
        if buffer is None or buffer.size or not self.opened.handles or self.parent is None or self.gone:
            return False
        return sample_schema(self.parent.current().schema, self.name) is not None

    def staging(self) -> Callable[[], Entry]:
        """A function that stages the buffer, to be run in any thread while nobody writes; then call `staged`, or
        `refused` with the SchemaMismatch that it raised."""
        buffer, failure, entry = self.opened.buffer, self.opened.failure, self.current()
        assert buffer is not None
        if self.gone:
            raise Stale("another process has removed or replaced the file: what was written since is not kept")
        if failure is not None and failure[0] == buffer.version:
            raise failure[1]
        path, tree, mtime, old = self.path, self.branch.tree, buffer.mtime, entry.attributes
        attributes = Attributes(mode=old.mode, uid=old.uid, gid=old.gid, xattrs=old.xattrs)
        return lambda: tree.put_file(path, buffer, attributes=attributes, mtime=mtime)

    def staged(self, entry: Entry) -> None:
        """The buffer's version is stored as `entry`."""
        opened, buffer = self.opened, self.opened.buffer
        assert buffer is not None
        self.entry, opened.failure, opened.fresh = entry, None, False
        if self.light:
            opened.content = None
            buffer.staged(None)
            return
        there = self.branch.tree
        opened.content = there.content(entry, there.schema_of(self.path[:-1]) if entry.kind is Kind.SAMPLE else None)
        buffer.staged(opened.content)

    def refused(self, error: SchemaMismatch) -> None:
        """The buffer's version does not fit; it stays in the buffer, for whoever goes on writing, until the last close."""
        assert self.opened.buffer is not None
        self.opened.failure = (self.opened.buffer.version, error)

    def stage(self) -> None:
        """Stage what was written. SchemaMismatch, Stale, StorageFull."""
        if not self.unstaged:
            return
        try:
            entry = self.staging()()
        except SchemaMismatch as error:
            self.refused(error)
            raise
        self.staged(entry)


class FileHandle(Handle):
    """An open file of a working tree."""

    __slots__ = ("file",)

    def __init__(self, file: WorkingFile) -> None:
        self.expected = 0
        self.fetched = 0
        self.file: WorkingFile = file

    def ready(self, offset: int, size: int) -> bool:
        """Whether `read` answers from memory."""
        opened = self.file.opened
        if opened.buffer is not None:
            return opened.buffer.in_memory
        return opened.content is None or opened.content.ready(offset, size)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """What the file holds now."""
        opened = self.file.opened
        if opened.buffer is not None:
            return opened.buffer.read(offset, size)
        return opened.content.read(offset, size) if opened.content is not None else b""

    def reading(self, offset: int, size: int) -> Callable[[], bytes | memoryview]:
        """A function that reads what the file holds now."""
        opened = self.file.opened
        if opened.buffer is not None:
            return opened.buffer.reading(offset, size)
        content = opened.content
        return lambda: content.read(offset, size) if content is not None else b""

    def ahead(self, start: int, end: int) -> Callable[[], None] | None:
        """Decodes the chunk that holds `offset`."""
        opened = self.file.opened
        return None if opened.buffer is not None or opened.content is None else prefetching(opened.content, start, end)

    def write(self, offset: int, data: bytes) -> None:
        """Write to the file's buffer."""
        self.file.write(offset, data)
