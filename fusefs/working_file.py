"""Files of a branch's working tree: opening, reading, writing, and staging what was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from fusefs.buffers import Buffer
from fusefs.handles import Handle, prefetching
from fusefs.layout import LONG, Stat, entry_stat
from fusefs.nodes import Changes, Stale
from fusefs.placed import Branch, Gone, Placed
from storage.errors import IsADirectory, NotADirectory, NotFound, SchemaMismatch
from storage.model.records import Attributes, Entry, Kind
from storage.stores.contents import Content
from storage.worktree import sample_schema

if TYPE_CHECKING:
    from fusefs.working import WorkingDirectory

LIGHT = 1 << 16
"""Contents up to this many bytes are stored faster than a thread is reached."""


class WorkingFile(Placed):
    """A file or sample of a working tree.

    `content` is what is stored, held while the file is open; `buffer` is what was written over it. `fresh` tells that
    the file was made by the open that goes on and never got contents; `failure` why the buffer's version was refused.
    """

    __slots__ = ("buffer", "content", "failure", "fresh", "handles")

    def __init__(self, branch: Branch, parent: WorkingDirectory | None, name: bytes, entry: Entry | None) -> None:
        super().__init__(branch, parent, name, entry)
        self.buffer: Buffer | None = None
        self.content: Content | None = None
        self.failure: tuple[int, SchemaMismatch] | None = None
        self.fresh = False
        self.handles = 0

    def stat(self) -> Stat:
        """What stat says: of what was written, where that is not staged yet."""
        there, buffer, entry = self.branch, self.buffer, self.entry or self.current()
        found = entry_stat(self.ino, entry, there.owner, there.when, LONG, LONG, 0 if self.gone else 1)
        if buffer is not None and buffer.changed:
            return found._replace(size=buffer.size, mtime=buffer.mtime)
        return found

    # Opening and reading

    def open(self, flags: int) -> Handle:
        """Open for reading and writing. Stale where another process has just replaced it: then it is a new inode."""
        if self.gone is Gone.REPLACED or (self.gone and not self.handles):
            # The kernel may not have heard of it yet: it looks the name up again, and finds the new inode.
            raise Stale("another process has removed or replaced the file")
        if not self.gone and not self.unstaged:
            self._load()
        if flags & os.O_TRUNC:
            self._truncate(0)
        self.handles += 1
        return FileHandle(self)

    def _load(self) -> None:
        try:
            entry, content = self.branch.tree.open(self.path)
        except (NotFound, NotADirectory, IsADirectory):
            # Not ENOENT: the kernel must look again, as whoever opens may want to make the file that is not there.
            self.vanish(Gone.REPLACED)
            raise Stale("another process has removed or moved the file") from None
        if self.entry is not None and entry != self.entry and not self.branch.tree.same_contents(self.entry, entry):
            self.vanish(Gone.REPLACED)
            raise Stale("another process has replaced the file")
        if not self.handles:
            self.entry, self.content = entry, content

    def close(self) -> bool:
        """One handle less. After the last one the buffer goes; whether it was refused and its bytes are kept aside."""
        self.handles -= 1
        if self.handles:
            return False
        refused = self.failure is not None and self.buffer is not None and self.buffer.changed and not self.gone
        if refused:
            self._reject()
        self.content = None
        self.failure = None
        self.fresh = False
        if self.buffer is not None:
            self.buffer.close()
            self.buffer = None
        return refused

    def give_up(self) -> None:
        """Nothing more will be written or staged; bytes that were refused are kept aside."""
        if self.buffer is not None and self.buffer.changed:
            if self.failure is not None and not self.gone:
                self._reject()
            self.buffer.changed = False

    def _reject(self) -> None:
        assert self.buffer is not None
        assert self.failure is not None
        rejections, path = self.branch.rejections, self.path
        kept = rejections.keep(path, self.buffer.size, self.buffer.read)
        rejections.note(path, str(self.failure[1]), kept)
        if self.fresh:
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
        (self.buffer or self._edit()).write(offset, data)

    def _edit(self) -> Buffer:
        if self.content is None and not self.gone:
            self._load()
        self.buffer = Buffer(self.branch.room, self.content)
        return self.buffer

    def truncate(self, size: int) -> None:
        """Cut or extend; where nobody has it open this is staged at once by whoever called."""
        if self.gone is Gone.REPLACED:
            raise Stale("another process has removed or replaced the file")
        self._truncate(size)

    def _truncate(self, size: int) -> None:
        if self.buffer is None and size == 0:
            # What was there need not be read.
            self.buffer = Buffer(self.branch.room, None)
            self.buffer.touch()
        else:
            (self.buffer or self._edit()).truncate(size)

    @property
    def apart(self) -> bool:
        """Whether its attributes are changed here alone: they are staged together with the contents, or not at all."""
        return self.unstaged or bool(self.gone)

    def change(self, changes: Changes) -> None:
        """Set mode, owner or mtime; together with the contents where those are still to be staged."""
        super().change(changes)
        if changes.mtime is not None and self.buffer is not None:
            self.buffer.mtime = changes.mtime

    # Staging

    @property
    def unstaged(self) -> bool:
        """Whether the buffer holds anything that is to be staged. False for an unlinked file: nothing brings it back."""
        return self.buffer is not None and self.buffer.changed and self.gone is not Gone.UNLINKED

    @property
    def light(self) -> bool:
        """Whether staging is a matter of microseconds."""
        return self.buffer is None or (self.buffer.in_memory and self.buffer.size <= LIGHT)

    @property
    def deferred(self) -> bool:
        """Whether staging waits for the last close: a sample emptied to be written anew.

        Shells close a descriptor between opening a file and writing to it; the version before must outlive that.
        """
        if self.buffer is None or self.buffer.size or not self.handles or self.parent is None or self.gone:
            return False
        return sample_schema(self.parent.current().schema, self.name) is not None

    def staging(self) -> Callable[[], Entry]:
        """A function that stages the buffer, to be run in any thread while nobody writes; then call `staged`, or
        `refused` with the SchemaMismatch that it raised."""
        buffer, entry = self.buffer, self.current()
        assert buffer is not None
        if self.gone:
            raise Stale("another process has removed or replaced the file: what was written since is not kept")
        if self.failure is not None and self.failure[0] == buffer.version:
            raise self.failure[1]
        path, tree, mtime, old = self.path, self.branch.tree, buffer.mtime, entry.attributes
        attributes = Attributes(mode=old.mode, uid=old.uid, gid=old.gid, xattrs=old.xattrs)
        return lambda: tree.put_file(path, buffer, attributes=attributes, mtime=mtime)

    def staged(self, entry: Entry) -> None:
        """The buffer's version is stored as `entry`."""
        assert self.buffer is not None
        self.entry, self.failure, self.fresh = entry, None, False
        if self.light:
            self.content = None
            self.buffer.staged(None)
            return
        there = self.branch.tree
        self.content = there.content(entry, there.schema_of(self.path[:-1]) if entry.kind is Kind.SAMPLE else None)
        self.buffer.staged(self.content)

    def refused(self, error: SchemaMismatch) -> None:
        """The buffer's version does not fit; it stays in the buffer, for whoever goes on writing, until the last close."""
        assert self.buffer is not None
        self.failure = (self.buffer.version, error)

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
        file = self.file
        if file.buffer is not None:
            return file.buffer.in_memory
        return file.content is None or file.content.ready(offset, size)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """What the file holds now."""
        file = self.file
        if file.buffer is not None:
            return file.buffer.read(offset, size)
        return file.content.read(offset, size) if file.content is not None else b""

    def reading(self, offset: int, size: int) -> Callable[[], bytes | memoryview]:
        """A function that reads what the file holds now."""
        file = self.file
        if file.buffer is not None:
            return file.buffer.reading(offset, size)
        content = file.content
        return lambda: content.read(offset, size) if content is not None else b""

    def ahead(self, start: int, end: int) -> Callable[[], None] | None:
        """Decodes the chunk that holds `offset`."""
        file = self.file
        return None if file.buffer is not None or file.content is None else prefetching(file.content, start, end)

    def write(self, offset: int, data: bytes) -> None:
        """Write to the file's buffer."""
        self.file.write(offset, data)
