"""One row of one staged directory: its record of the journal, and what `apply_stage` makes of that, at a third of the cost.

Most changes are that: outside a batch every sample, in a mount every file that is closed.
"""

from __future__ import annotations

import struct

from storage.disk.index import Index, Txn, number_key
from storage.disk.segments import Record, RecordKind, SegmentKind
from storage.model.digest import DIGEST_SIZE
from storage.model.names import Path
from storage.model.records import StageRecord, encode_record
from storage.stores.log import Log
from storage.stores.staging import LeafRow, encode_rows, note_change
from storage.tree.node import encode_leaf

_MTIME = struct.Struct("<q")
_MTIME_END = DIGEST_SIZE + _MTIME.size
_LENGTH_SIZE = 4


def write_row(
    index: Index,
    log: Log,
    txn: Txn,
    origin: bytes,
    branch: str,
    root_id: int,
    path: Path,
    directory: int,
    row: LeafRow,
    mtime: int,
) -> int:
    """Stage one row in the directory `directory`, which is staged and lies at `path` of a branch; the new generation.

    Inside `log.change(JOURNAL)`. The directory gets that time, unless it is 0. Nothing is checked: neither that the row's
    objects are stored, nor what it replaces.
    """
    block = encode_leaf([row])
    places: list[tuple[list[bytes], list[bytes] | None]] = [(list(path), [row[0]])]
    head = encode_record(StageRecord(branch, [], [], [(directory, mtime, len(block))], [], places))
    payload = b"".join([len(head).to_bytes(_LENGTH_SIZE, "little"), head, block])
    sequence = index.next_sequence(txn)
    record = Record(RecordKind.STAGE, [payload], len(payload), sequence=sequence)
    place = log.append(txn, SegmentKind.JOURNAL, record)
    key = number_key(directory)
    if mtime:
        known = txn.get(key, db=index.directories)
        if known is not None:
            changed = known[:DIGEST_SIZE] + _MTIME.pack(mtime) + known[_MTIME_END:]
            txn.put(key, changed, db=index.directories)
    # The value is the last part of a leaf.
    start = place.offset + len(payload) - len(row[2])
    txn.put(*encode_rows(directory, [row], sequence, place.segment, start)[0], db=index.staged)
    txn.put(number_key(place.segment) + number_key(root_id), number_key(sequence), db=index.journals)
    return note_change(index, txn, origin, [(branch, places[0][0], places[0][1])])
