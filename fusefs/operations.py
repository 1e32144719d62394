"""The FUSE requests: each is unpacked, answered by one call on a node, and packed.

The only module beside the daemon that knows pyfuse3.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

from fusefs.errnos import boundary
from fusefs.handles import Handle, HandleTable, Listing
from fusefs.invalidate import Notifier, tell
from fusefs.lanes import Lanes
from fusefs.layout import BLOCK, Stat, kept_time
from fusefs.memory import give_back
from fusefs.nodes import NOTHING, Changes, Node, NodeTable, Refused
from fusefs.view import View
from fusefs.working import Notice, WorkingDirectory
from fusefs.working_file import WorkingFile
from storage.errors import ArborError, Exists, NotFound
from storage.model.names import path_text
from storage.mounts import PLACE

log = logging.getLogger("fusefs")

handler = boundary(FUSEError)

DOTS = 2
"""Positions of a listing that `.` and `..` take."""


class Operations(pyfuse3.Operations):
    """The request handlers of one mount."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self, view: View, lanes: Lanes, notifier: Notifier, *, read_only: bool, on_start: Callable[[], None]
    ) -> None:
        super().__init__()
        self._on_start = on_start
        self.statistics = view.statistics
        self._view = view
        self._lanes = lanes
        self._notifier = notifier
        self._read_only = read_only
        self._table = NodeTable(view.root, view.snapshots)
        for node in view.fixed():
            self._table.remember(node)
        self._files: HandleTable[Handle] = HandleTable()
        self._directories: HandleTable[Listing] = HandleTable()
        self.statistics.sources["open"] = self._open_counts

    def init(self) -> None:
        """The kernel has said hello."""
        self._on_start()

    def _open_counts(self) -> dict[str, int]:
        # Texts of `.arborfs/` do not count: whoever asks has one open.
        handles = [handle for handle in self._files if not handle.direct]
        buffered = [file for handle in handles if (file := handle.file) is not None and file.unstaged]
        return {
            "files": len(handles),
            "directories": len(self._directories),
            "inodes": len(self._table),
            "unstaged_files": len(set(buffered)),
        }

    # Names

    @handler
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find an entry by name."""
        directory = self._table[parent_inode]
        job = directory.pending()
        if job is not None:
            await self._lanes.read(job)
        try:
            node = directory.child(name)
        except NotFound:
            return _absent(directory)
        return self._entry(node)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel gives lookups back, and waits for no answer."""
        with suppress(FUSEError):  # pyfuse3 dies of an error here, whatever it is
            await self._forget(inode_list)

    @handler
    async def _forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        if self._table.forget_many(inode_list):
            # It was short of memory, or is done with all that: we are, too.
            await self._lanes.read(self._view.let_go)

    @handler
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Stat."""
        return pack(self._table[inode].stat())

    @handler
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """A link's target."""
        return self._table[inode].target()

    @handler
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """Make a directory, or a branch."""
        return self._entry(self._table[parent_inode].make_directory(name, mode, ctx.uid, ctx.gid))

    @handler
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """Make an empty file; devices, pipes and sockets are not kept."""
        if not stat.S_ISREG(mode):
            raise Refused("devices, pipes and sockets are not kept")
        node = self._table[parent_inode].make_file(name, mode, ctx.uid, ctx.gid)
        if isinstance(node, WorkingFile):
            node.begun()
        return self._entry(node)

    @handler
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """Make a link, or a tag or branch."""
        return self._entry(self._table[parent_inode].make_symlink(name, target, ctx.uid, ctx.gid))

    @handler
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Hard links are not kept."""
        raise Refused("hard links are not kept")

    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove a file or link."""
        directory = self._table[parent_inode]
        await self._settle(directory, name)
        directory.unlink(name)

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty directory, a merged branch or a tag."""
        directory = self._table[parent_inode]
        await self._settle(directory, name)
        directory.remove_directory(name)

    @handler
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move or exchange entries."""
        source, target = self._table[parent_inode_old], self._table[parent_inode_new]
        await self._settle(source, name_old)
        await self._settle(target, name_new)
        if flags & pyfuse3.RENAME_EXCHANGE:
            source.exchange(name_old, target, name_new)
        elif flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FUSEError(errno.EINVAL)
        else:
            source.rename(name_old, target, name_new, replace=not flags & pyfuse3.RENAME_NOREPLACE)

    async def _settle(self, directory: Node, name: bytes) -> None:
        """Wait until nothing under that name is being staged."""
        if isinstance(directory, WorkingDirectory):
            await self._lanes.idle(directory.children.get(name))

    # Attributes

    @handler
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change size, mode, owner or times."""
        node = self._table[inode]
        if fields.update_size:
            await self._resize(node, attr.st_size, fh)
        changes = Changes(
            attr.st_mode if fields.update_mode else None,
            attr.st_uid if fields.update_uid else None,
            attr.st_gid if fields.update_gid else None,
            kept_time(attr.st_mtime_ns) if fields.update_mtime and not fields.update_size else None,
        )
        if changes != NOTHING:
            await self._lanes.idle(node)
            node.change(changes)
        return pack(node.stat())

    async def _resize(self, node: Node, size: int, fh: int | None) -> None:
        await self._lanes.idle(node)
        if fh is not None or not isinstance(node, WorkingFile):
            node.truncate(size)
            return
        number = self._files.add(node.open(os.O_WRONLY))
        try:
            node.truncate(size)
            await self._lanes.stage(node)
        finally:
            self._close(self._files.pop(number))

    @handler
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Keep an extended attribute."""
        node = self._table[inode]
        await self._lanes.idle(node)
        node.set_xattr(name, value)

    @handler
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        node = self._table[inode]
        await self._lanes.idle(node)
        node.set_xattr(name, None)

    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """The value of an extended attribute."""
        # Asked before every write: not even the node is looked for.
        if not name.startswith(b"user."):
            raise FUSEError(errno.ENOTSUP)
        node = self._table[inode]
        return self._view.place(node) if name == PLACE.encode() else node.xattr(name)

    @handler
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """The names of the extended attributes."""
        return self._table[inode].xattrs()

    # Open files

    @handler
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file."""
        node = self._table[inode]
        if flags & os.O_TRUNC:
            await self._lanes.idle(node)
        handle = node.open(flags)
        return FileInfo(fh=self._files.add(handle), direct_io=handle.direct, keep_cache=not handle.direct)

    @handler
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file and open it."""
        directory = self._table[parent_inode]
        try:
            node = directory.make_file(name, mode, ctx.uid, ctx.gid)
        except Exists:
            # Another process was faster, and only O_EXCL minds.
            if flags & os.O_EXCL:
                raise
            node = directory.child(name)
        handle = node.open(flags & ~os.O_TRUNC if isinstance(node, WorkingFile) and node.opened.fresh else flags)
        return FileInfo(fh=self._files.add(handle), keep_cache=True), self._entry(node)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read."""
        handle = self._files[fh]
        # Noted before anything is awaited: the kernel sends the next requests of a sequence meanwhile.
        in_sequence, handle.expected = off == handle.expected, off + size
        if in_sequence:
            self._lanes.read_ahead(handle, off + size)
        if handle.ready(off, size):
            data = handle.read(off, size)
            self.statistics.reads_at_once += 1
        else:
            data = await self._lanes.read(handle.reading(off, size))
        self.statistics.bytes_read += len(data)
        return data  # type: ignore[return-value]  # any contiguous buffer will do

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write to the file's buffer."""
        handle = self._files[fh]
        if handle.file is not None:
            await self._lanes.idle(handle.file)
        handle.write(off, buf)
        self.statistics.bytes_written += len(buf)
        return len(buf)

    @handler
    async def flush(self, fh: int) -> None:
        """A descriptor is closed: stage what was written."""
        if self._read_only:
            # Never asked again: one request less for every close.
            raise FUSEError(errno.ENOSYS)
        await self._flush(self._files[fh])

    async def _flush(self, handle: Handle) -> None:
        file = handle.file
        if file is not None:
            if file.unstaged and not file.deferred:
                await self._lanes.stage(file)
            return
        job = handle.submit()
        if job is not None:
            seen = self._view.engine.generation()
            await self._lanes.change(job)
            await self._catch_up(seen)

    async def _catch_up(self, seen: int) -> None:
        """Let the kernel hear of what a command changed in the tree before whoever gave it goes on."""
        _, changes = self._view.engine.changes(seen)
        if changes is None or changes:
            await tell(self._view.rechecked(changes), self._notifier)
            await self._lanes.read(self._notifier.settle)

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Stage what was written, and make it survive power loss."""
        await self._flush(self._files[fh])
        await self._lanes.read(self._view.engine.sync)

    @handler
    async def release(self, fh: int) -> None:
        """The last descriptor is closed."""
        handle = self._files[fh]
        file = handle.file
        try:
            if file is not None and file.unstaged and file.opened.handles == 1:
                await self._lanes.stage(file)
        finally:
            self._close(self._files.pop(fh))

    def _close(self, handle: Handle) -> None:
        file = handle.file
        if file is None:
            handle.close()
        elif file.close():
            # What the kernel has cached is what was refused.
            self._notifier.send(Notice(file.ino), contents=True)
            if file.gone and file.parent is not None:
                self._notifier.send(Notice(file.parent.ino, file.name))

    async def stage_all(self) -> None:
        """Stage what was written to any open file; what cannot be staged is logged."""
        for handle in self._files:
            if handle.file is not None and handle.file.unstaged:
                await self._staged_or_logged(handle.file)

    async def _staged_or_logged(self, file: WorkingFile) -> None:
        # One file that cannot be staged must not keep the others from it.
        try:
            await self._lanes.stage(file)
        except (ArborError, OSError) as error:
            log.warning("%s was not staged: %s", path_text(file.path) if not file.gone else "a removed file", error)
            file.give_up()

    # Open directories

    @handler
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Open a directory."""
        return self._directories.add(self._table[inode].listing())

    @handler
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List entries with their stat from a position on."""
        listing = self._directories[fh]
        position = max(start_id - DOTS, 0)
        job = listing.pending(position)
        if job is not None:
            await self._lanes.read(job)
        for at in range(start_id, DOTS):
            if not pyfuse3.readdir_reply(token, b".." if at else b".", _directory_only(listing.node), at + 1):
                return
        packed = EntryAttributes()
        for name, node, following in listing.entries(position):
            if not node.ino:
                self._table.number(node)
            fill(packed, listing.stat(node))
            if not pyfuse3.readdir_reply(token, name, packed, following + DOTS):
                return
            self._table.remember(node)

    @handler
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        listing = self._directories.pop(fh)
        listing.close()
        if listing.large:
            await self._lanes.read(give_back)

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make everything staged so far survive power loss."""
        await self._lanes.read(self._view.engine.sync)

    @handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """The real disk's numbers."""
        disk, found = self._view.disk(), StatvfsData()
        found.f_bsize, found.f_frsize = disk.f_bsize, disk.f_frsize
        found.f_blocks, found.f_bfree, found.f_bavail = disk.f_blocks, disk.f_bfree, disk.f_bavail
        found.f_files, found.f_ffree, found.f_favail = disk.f_files, disk.f_ffree, disk.f_favail
        found.f_namemax = 255
        return found

    # Replies

    def _entry(self, node: Node) -> EntryAttributes:
        """The reply that tells the kernel of a node: here, and in readdir, its lookups are counted."""
        if not node.ino:
            self._table.number(node)
        reply = pack(node.stat())
        self._table.remember(node)
        return reply


def pack(found: Stat) -> EntryAttributes:
    """A stat as pyfuse3 wants it."""
    packed = EntryAttributes()
    fill(packed, found)
    return packed


def fill(packed: EntryAttributes, found: Stat) -> None:
    """Write a stat over another one: listing directories reuses one object."""
    ino, mode, size, mtime, uid, gid, links, name_timeout, stat_timeout = found
    packed.st_ino = ino
    packed.st_mode = mode
    packed.st_size = size
    packed.st_blocks = (size + BLOCK - 1) // BLOCK
    packed.st_mtime_ns = mtime
    packed.st_ctime_ns = mtime
    packed.st_atime_ns = mtime
    packed.st_uid = uid
    packed.st_gid = gid
    packed.st_nlink = links
    packed.entry_timeout = name_timeout
    packed.attr_timeout = stat_timeout


def _directory_only(node: Node) -> EntryAttributes:
    packed = EntryAttributes()
    packed.st_ino = node.ino
    packed.st_mode = stat.S_IFDIR
    return packed


def _absent(directory: Node) -> EntryAttributes:
    """The reply that a name is not there, remembered for as long as that is sure."""
    timeout = directory.absent_timeout
    if not timeout:
        raise FUSEError(errno.ENOENT)
    packed = EntryAttributes()
    packed.entry_timeout = timeout
    return packed
