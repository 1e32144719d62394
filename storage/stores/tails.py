"""What processes that died have left in segments, behind the ends that were acknowledged.

Nobody was told of it, and it is cut off. But the log is the truth and the index only leads to it: where the index itself
leads behind an end that it gives, it is damaged, and nothing is cut.
"""

from __future__ import annotations

import os
import struct
from functools import partial
from pathlib import Path

from storage.disk import files
from storage.disk.appending import Segment
from storage.disk.index import Index, Txn, number_key
from storage.disk.segments import FILE_SIZE, Found, RecordKind, Segments, walk
from storage.errors import Corrupt

END = struct.Struct("<QQ")
"""A row of the table `ends`: up to which byte a segment is acknowledged, and up to which it is synced."""
COLLECTION = b"collection"
"""In the table `meta`: the place of the latest note of gc, the only one that counts."""
_PLACE = struct.Struct("<IQI")  # what the rows of objects and operations begin with


def end_of(index: Index, segment: int) -> int | None:
    """Up to which byte a segment is acknowledged; None where the index does not know it."""
    with index.read() as txn:
        row = txn.get(number_key(segment), db=index.ends)
    return None if row is None else int(END.unpack(row)[0])


def trusted_end(index: Index, path: Path, segment: int) -> int | None:
    """The same, for whoever cuts off what lies behind it; None, too, where the index contradicts itself."""
    end = end_of(index, segment)
    return None if end is None or is_acknowledged(index, path, end) else end


def is_acknowledged(index: Index, path: Path, start: int) -> bool:
    """Whether the index leads to any record of a segment file from byte `start` on. Corrupt for what does not begin as one."""
    try:
        fd = files.open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_size <= max(start, FILE_SIZE):
            return False
        number = int(path.stem, 16)  # the header of a copy under another name tells of another segment
        with index.read() as txn:
            for found in walk(lambda at, length: os.pread(fd, length, at), path):
                if found.place.segment == number and found.start >= start and _leads_to(index, txn, found):
                    return True
        return False
    finally:
        os.close(fd)


def _leads_to(index: Index, txn: Txn, found: Found) -> bool:
    if found.kind == RecordKind.STAGE:
        last = (value for _, value in index.scan(txn, index.journals, number_key(found.place.segment)))
        return any(int.from_bytes(value, "big") >= found.sequence for value in last)
    if found.kind == RecordKind.COLLECTION:
        row = txn.get(COLLECTION, db=index.meta)
    elif found.kind > RecordKind.STAGE:
        row = txn.get(number_key(found.sequence), db=index.operations)
    else:
        row = txn.get(found.digest, db=index.objects)
    place = found.place
    return row is not None and row[: _PLACE.size] == _PLACE.pack(place.segment, place.offset, place.length)


def cut_unacknowledged(index: Index, segments: Segments) -> None:
    """Cut off, for good, what processes that died have written behind the acknowledged ends. The caller is alone.

    A rebuild that comes later must not bring it up. A file without an end holds nothing else, or is a journal that was
    settled and not yet deleted. Corrupt, and nothing more is cut, where the index leads to some of it.
    """
    with index.read() as txn:
        ends = {int.from_bytes(key, "big"): END.unpack(row)[0] for key, row in index.scan(txn, index.ends, b"")}
    for number, path in segments.paths().items():
        end = ends.get(number, FILE_SIZE)
        if path.stat().st_size <= end and number in ends:
            continue
        try:
            known = is_acknowledged(index, path, end)
        except Corrupt:
            continue  # no segment: verify tells
        if known:
            raise Corrupt(
                f"the index leads behind byte {end} of segment {number:08x}, where it says that this ends: "
                "run `arborfs rebuild`",
                where=str(path),
            )
        segment = Segment.adopt(path, partial(int, end))
        if segment is not None:
            try:
                segment.sync()
                if number not in ends:
                    files.remove(path)
            finally:
                segment.close()
