"""What a node remembers of its entry, in one bytes object: of contents only what tells them apart. Pure.

A mount may know a million files of a branch: as entries they would take three times the memory, and with them their
values, which may have 64 KiB each.
"""

from __future__ import annotations

from struct import Struct

from storage.model.records import KINDS, PLAIN, Entry, Place, decode_attributes, encode_attributes
from storage.stores.contents import value_check

# Kind, flags, bytes of attributes, size, mtime, checksum of the value: with Python's 33 bytes, a block of 64.
_FACTS = Struct("<BBIQqQ")


def packed(entry: Entry) -> bytes:
    """What is remembered of an entry: all but the contents of a file, or target of a link, that are its value."""
    value, kept, check = entry.value, b"", 0
    if entry.attributes is PLAIN and not entry.flags and not entry.is_directory:
        # Most are like that, and every one that is listed comes here.
        return _FACTS.pack(entry.kind, 0, 0, entry.size, entry.mtime, value_check(value))
    if value and isinstance(value, bytes) and (entry.flags or entry.is_directory):
        kept = value
    else:
        check = value_check(value)
    attributes = encode_attributes(entry.attributes)
    return _FACTS.pack(entry.kind, entry.flags, len(attributes), entry.size, entry.mtime, check) + attributes + kept


def unpacked(facts: bytes) -> Entry:
    """The entry that `packed` was given; in place of contents, a Place that has their checksum and leads nowhere."""
    kind, flags, length, size, mtime, check = _FACTS.unpack_from(facts)
    behind = _FACTS.size + length
    attributes = decode_attributes(facts[_FACTS.size : behind])
    return Entry(KINDS[kind], size, mtime, attributes, flags, facts[behind:] or Place(0, 0, 0, check))
