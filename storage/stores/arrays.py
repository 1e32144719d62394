"""What differs between two arrays in their file form, read in blocks: memory stays bounded whatever their size.

Chunks that both have at the same place are not read at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from storage.errors import InvalidSample
from storage.model.samples import HEADER_MAX, Array, Header, parse_header
from storage.stores.contents import Content

BLOCK = 1 << 20
"""Bytes of each array that are compared at once."""


@dataclass(frozen=True, slots=True)
class ArrayDifference:
    """How two arrays differ. `differing` of `elements` are unlike; NaN is like NaN, whatever its bits.

    `largest` is the largest absolute difference, None for what cannot be subtracted; NaN where only numbers against NaN
    differ. Where dtype, shape or order differ, elements are not compared: both are None.
    """

    old_dtype: np.dtype[Any]
    new_dtype: np.dtype[Any]
    old_shape: tuple[int, ...]
    new_shape: tuple[int, ...]
    elements: int
    differing: int | None = None
    largest: float | int | None = None


def header_of(content: Content) -> Header | None:
    """What contents say of themselves if they are a whole `.npy` file, else None."""
    try:
        header = parse_header(content.read(0, HEADER_MAX))
    except InvalidSample:
        return None
    return header if header.length + header.nbytes == content.size else None


def array_difference(old: Content, new: Content) -> ArrayDifference | None:
    """How two `.npy` files differ; None where one of them is none."""
    one, other = header_of(old), header_of(new)
    if one is None or other is None:
        return None
    elements = math.prod(other.shape)
    found = ArrayDifference(one.dtype, other.dtype, one.shape, other.shape, elements)
    if (one.dtype, one.shape, one.fortran) != (other.dtype, other.shape, other.fortran) or not one.dtype.itemsize:
        return found
    differing, largest = 0, None
    for a, b in _blocks(old, new, one, other):
        unlike = _unlike(a, b)
        number = int(np.count_nonzero(unlike))
        if number:
            differing += number
            largest = _larger(largest, _largest(a[unlike], b[unlike]))
    return ArrayDifference(one.dtype, other.dtype, one.shape, other.shape, elements, differing, largest)


def _blocks(old: Content, new: Content, one: Header, other: Header) -> Iterator[tuple[Array, Array]]:
    """The elements that may differ, a block of both at a time."""
    size = one.dtype.itemsize
    step = max(BLOCK // size, 1) * size
    for first, last in _unshared(_spans(old, one), _spans(new, other), one.nbytes, size):
        for start in range(first, last, step):
            length = min(step, last - start)
            yield (
                np.frombuffer(old.read(one.length + start, length), one.dtype),
                np.frombuffer(new.read(other.length + start, length), other.dtype),
            )


def _spans(content: Content, header: Header) -> set[tuple[int, int, bytes]]:
    """Start and end, counted from the first element, and digest of each chunk. A plain file's first one has the header."""
    start = content.payload_offset - header.length
    ends = [start + end for end in accumulate(chunk.length for chunk in content.chunks)]
    return {(end - chunk.length, end, chunk.digest) for chunk, end in zip(content.chunks, ends, strict=True)}


def _unshared(
    ours: set[tuple[int, int, bytes]], theirs: set[tuple[int, int, bytes]], size: int, item: int
) -> Iterator[tuple[int, int]]:
    """Ranges of the elements outside shared chunks, in order and widened to whole items; no item is in two of them."""
    at = 0
    for first, last, _ in sorted(ours & theirs):
        end = -(-first // item) * item
        if end > at:
            yield at, end
        at = max(at, last // item * item)
    if at < size:
        yield at, size


def _unlike(a: Array, b: Array) -> Array:
    """Which elements differ."""
    if a.dtype.kind in "biu":
        return np.asarray(a != b)
    if a.dtype.kind in "fc":
        return np.asarray((a != b) & ~(np.isnan(a) & np.isnan(b)))
    # Text, bytes, times, records: by their bytes, which also makes a missing time like another.
    size = a.dtype.itemsize
    raw = np.frombuffer(a.tobytes(), np.uint8) != np.frombuffer(b.tobytes(), np.uint8)
    return np.asarray(raw.reshape(-1, size).any(axis=1))


def _largest(a: Array, b: Array) -> float | int | None:
    """The largest absolute difference of elements that all differ; exact for whole numbers."""
    kind = a.dtype.kind
    if kind == "b":
        return 1
    if kind in "iu":
        unsigned = np.dtype(f"u{a.dtype.itemsize}")
        # Modulo 2**n the difference of the larger and the smaller is right where the signed one would overflow.
        high, low = (pick(a, b).astype(a.dtype.newbyteorder("=")).view(unsigned) for pick in (np.maximum, np.minimum))
        return int((high - low).max())
    if kind not in "fc":
        return None
    wide = np.result_type(a.dtype, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(a.astype(wide) - b.astype(wide))
    known = apart[~np.isnan(apart)]
    return float(known.max()) if known.size else math.nan


def _larger(one: float | int | None, other: float | int | None) -> float | int | None:
    if one is None or (isinstance(one, float) and math.isnan(one)):
        return other
    if other is None or (isinstance(other, float) and math.isnan(other)):
        return one
    return max(one, other)
