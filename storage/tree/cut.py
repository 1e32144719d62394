"""Where the nodes of a prolly map end.

A node ends behind an item with a chance that grows with the bytes already in it, decided by a hash of the
item's key: the lengths of nodes follow a Rayleigh distribution (mean 0.89 of the target), which has neither the
many tiny nor the huge nodes that a constant chance makes, so neither length needs a limit. As only what the node
itself holds counts, an edit moves boundaries up to the next one that coincides with an old one, and the same
items are cut the same way whatever happened before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
from xxhash import xxh64_intdigest

from storage.tree.node import Child, Row

LEAF_TARGET = 16384
INNER_TARGET = 8192
ROW_OVERHEAD = 12
"""Bytes of a row in a leaf beside its key, head and value."""
CHILD_OVERHEAD = 60
"""Bytes of a child in an inner node beside its key."""
_MANY = 256  # items from which on numpy's calls cost less than a step in Python for each


def leaf_sizes(rows: Sequence[Row]) -> list[int]:
    """The bytes of each row in a leaf."""
    return [len(key) + len(head) + len(value) + ROW_OVERHEAD for key, head, value in rows]


def inner_sizes(children: Sequence[Child]) -> list[int]:
    """The bytes of each child in an inner node."""
    return [len(child[0]) + CHILD_OVERHEAD for child in children]


class Cutter:
    """Cuts the items of one level, handed over in order and in any portions, from the start of a node on."""

    __slots__ = ("_accumulated", "_factor", "_held", "_least", "_level")

    def __init__(self, level: int) -> None:
        target = INNER_TARGET if level else LEAF_TARGET
        self._level = level
        self._factor = 2 * 2**32 // target**2
        # A level of nodes of one child each would not be smaller than the one below.
        self._least = 2 if level else 1
        self._accumulated = 0
        self._held = 0

    def ends(self, keys: Sequence[bytes], sizes: Sequence[int]) -> list[int]:
        """The next items' keys and sizes in bytes -> how many of these items precede each end of a node.

        A node ends behind an item when h * target**2 < 2 * accumulated * size * 2**32, where h is the upper half
        of the key's XXH64 with the level as its seed, and `accumulated` the bytes in the node, this item's too.
        """
        if self._least == 1 and len(keys) >= _MANY:
            return self._ends_of_many(keys, sizes)
        level, factor, least = self._level, self._factor, self._least
        accumulated, start = self._accumulated, -self._held
        ends = []
        # Whole numbers: exact on every machine.
        number = 0
        for number, (key, size) in enumerate(zip(keys, sizes, strict=True), 1):
            accumulated += size
            if accumulated * size * factor > xxh64_intdigest(key, level) >> 32 and number - start >= least:
                ends.append(number)
                accumulated, start = 0, number
        self._accumulated, self._held = accumulated, number - start
        return ends

    def _ends_of_many(self, keys: Sequence[bytes], sizes: Sequence[int]) -> list[int]:
        """The same at a third of the cost, of a level whose nodes may hold a single item.

        `accumulated` is what all items up to this one have, without those of the nodes before. So a node ends where the former
        is greater than the latter by more than h // (size * factor), of which all but the comparison is done for all at once.
        """
        each = np.fromiter(sizes, np.int64, len(keys))
        hashes = np.fromiter(map(xxh64_intdigest, keys, repeat(self._level)), np.uint64, len(keys))
        totals = np.cumsum(each) + self._accumulated
        reach = totals - (hashes >> np.uint64(32)).astype(np.int64) // (each * self._factor)
        ends = []
        before = 0
        held = -self._held
        for number, (most, total) in enumerate(zip(reach.tolist(), totals.tolist(), strict=True), 1):
            if most > before:
                ends.append(number)
                before, held = total, number
        self._accumulated, self._held = int(totals[-1]) - before, len(keys) - held
        return ends
