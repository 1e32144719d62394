"""Sets of byte ranges, as sorted lists of disjoint (start, end). Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

Ranges = list[tuple[int, int]]


def add(ranges: Ranges, start: int, end: int) -> None:
    """Make [start, end) part of the set, in place. Appending to the last range costs O(1), anything else O(log n + moved)."""
    if start >= end:
        return
    if ranges and ranges[-1][0] <= start <= ranges[-1][1]:
        if end > ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], end)
        return
    first = bisect_left(ranges, start, key=lambda known: known[1])
    last = bisect_right(ranges, end, key=lambda known: known[0])
    if first < last:
        start, end = min(start, ranges[first][0]), max(end, ranges[last - 1][1])
    ranges[first:last] = [(start, end)]


def clip(ranges: Ranges, end: int) -> None:
    """Take everything from `end` on out of the set, in place."""
    while ranges and ranges[-1][0] >= end:
        ranges.pop()
    if ranges and ranges[-1][1] > end:
        ranges[-1] = (ranges[-1][0], end)


def pieces(ranges: Ranges, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """[start, end) cut where membership in the set changes: start, end and membership of every piece, in order."""
    at = bisect_right(ranges, start, key=lambda known: known[1])
    while start < end:
        if at == len(ranges) or ranges[at][0] >= end:
            yield start, end, False
            return
        low, high = ranges[at]
        if low > start:
            yield start, low, False
            start = low
        stop = min(high, end)
        yield start, stop, True
        start = stop
        at += 1
