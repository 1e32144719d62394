"""The floor for one request: a file system of empty files in memory, on pyfuse3 and nothing else."""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

FOLDER = pyfuse3.InodeT(2)
FIRST = 3


class Bare(pyfuse3.Operations):
    """One folder of `count` empty files."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._names = {str(i).encode(): pyfuse3.InodeT(FIRST + i) for i in range(count)}
        self._listed = list(self._names.items())

    def _attributes(self, inode: pyfuse3.InodeT) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode < FIRST else stat.S_IFREG | 0o644
        entry.entry_timeout = entry.attr_timeout = 3600
        entry.st_size = 144
        return entry

    async def lookup(self, parent_inode, name, ctx):  # noqa: ANN001, ANN201
        if parent_inode == pyfuse3.ROOT_INODE and name == b"files":
            return self._attributes(FOLDER)
        if name in self._names:
            return self._attributes(self._names[name])
        raise pyfuse3.FUSEError(errno.ENOENT)

    async def getattr(self, inode, ctx):  # noqa: ANN001, ANN201
        return self._attributes(inode)

    async def opendir(self, inode, ctx):  # noqa: ANN001, ANN201
        return inode

    async def readdir(self, fh, start_id, token):  # noqa: ANN001, ANN201
        entry = self._attributes(FIRST)
        for at in range(start_id, len(self._listed)):
            name, entry.st_ino = self._listed[at]
            if not pyfuse3.readdir_reply(token, name, entry, at + 1):
                break

    async def open(self, inode, flags, ctx):  # noqa: ANN001, ANN201
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def flush(self, fh):  # noqa: ANN001, ANN201
        return None

    async def release(self, fh):  # noqa: ANN001, ANN201
        return None


if __name__ == "__main__":
    pyfuse3.init(Bare(int(sys.argv[2])), sys.argv[1], {*pyfuse3.default_options, "fsname=bare"})
    os.nice(0)
    trio.run(pyfuse3.main)
    pyfuse3.close(unmount=False)
