"""Byte ranges against sets of integers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fusefs import ranges

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)))


def points(found: ranges.Ranges) -> set[int]:
    return {point for start, end in found for point in range(start, end)}


def built(spans: list[tuple[int, int]]) -> ranges.Ranges:
    found: ranges.Ranges = []
    for start, end in spans:
        ranges.add(found, start, end)
    return found


@given(SPANS)
def test_adding_is_union(spans):
    found = built(spans)
    assert points(found) == points(spans)
    assert found == sorted(found)
    assert all(start < end for start, end in found)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(found)), "touching ranges are one"


@given(SPANS, st.integers(0, 60))
def test_clipping(spans, end):
    found = built(spans)
    before = points(found)
    ranges.clip(found, end)
    assert points(found) == {point for point in before if point < end}


@given(SPANS, st.integers(0, 60), st.integers(0, 60))
def test_pieces_cover_and_tell(spans, start, end):
    found = built(spans)
    pieces = list(ranges.pieces(found, start, end))
    assert [point for low, high, _ in pieces for point in range(low, high)] == list(range(start, end))
    inside = points(found)
    assert all((point in inside) == member for low, high, member in pieces for point in range(low, high))


def test_appending_stays_one_range():
    assert built([(n, n + 1) for n in range(10_000)]) == [(0, 10_000)]
