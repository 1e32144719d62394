"""The nodes of a prolly map and their bytes.

Layout, all numbers little endian, offsets counted from the first byte of the node:

    leaf    "L" 1 0 0, n u32, offsets of keys u32[n+1], of heads u32[n+1], of values u32[n+1],
            keys, heads, values
    inner   "N" 1 level 0, n u32, offsets of keys u32[n+1], counts u64[n], samples u64[n], sizes u64[n],
            digests 32 bytes[n], keys

A leaf is columnar: its keys, its heads and its values each lie together, so that they compress well and a
stacked array is sliced out of the values. It is parsed as it is used: one row is read without touching its
neighbours.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from operator import ge
from struct import Struct
from typing import ClassVar, NamedTuple

import numpy as np

from storage.model.digest import DIGEST_SIZE, Digest, blake

Row = tuple[bytes, bytes, bytes]
"""Key, head, value. The head says at [0] what the entry is and at [8:16] its size."""

_PREFIX = Struct("<2sBBI")
_SINGLE = Struct("<2sBBI6I")  # with the offsets of a single row
_LEAF = b"L\x01"
_INNER = b"N\x01"
_WEIGHT = Struct("<B7xQ")
_SAMPLE, _DIRECTORY = 1, 4
_PLAIN_HEAD = 24
_OFFSET_MAX = 2**32 - 1
SUM_MASK = 2**64 - 1
# From here on numpy's fixed cost of some microseconds is less than Python's for each row.
_MANY = 48


class BadNode(ValueError):
    """Bytes that are no node of a map, or a node that contradicts its parent."""


class Sums(NamedTuple):
    """What lies below a node: entries, those of them that are samples, and their bytes (modulo 2**64)."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which no one misses
    samples: int
    size: int


class Child(NamedTuple):
    """A node as its parent sees it; `key` is the last one in it."""

    key: bytes
    digest: Digest
    sums: Sums


NO_SUMS = Sums(0, 0, 0)


class Leaf:
    """Rows in the order of their keys. Indices are 0 to len - 1, unchecked. Immutable; safe for many threads."""

    __slots__ = ("_keys", "_length", "_offsets", "raw")

    level: ClassVar[int] = 0

    def __init__(self, raw: bytes, length: int) -> None:
        self.raw = raw
        self._length = length
        # Keys' offsets, then heads', then values': length + 1 of each.
        self._offsets = _numbers(raw, _PREFIX.size, 3 * (length + 1), "I")
        self._keys: list[bytes] | None = None

    def __len__(self) -> int:
        """How many rows."""
        return self._length

    def key(self, i: int) -> bytes:
        """The key of row `i`."""
        return self.raw[self._offsets[i] : self._offsets[i + 1]]

    last_key = key  # a row is its own last one: what an inner node answers, too

    def row(self, i: int) -> Row:
        """Row `i`."""
        return (self.key(i), *self.contents(i))

    def bisect(self, key: bytes) -> int:
        """How many keys are less than `key`."""
        # For this the keys are not taken apart: who lists a large map comes by once, and would leave them all in memory.
        return bisect_left(range(self._length), key, key=self.key)

    def find(self, key: bytes) -> int:
        """The index of the row with that key, -1 if there is none."""
        # Two threads may both make the list: the same one.
        if self._keys is None:
            self._keys = self._column(0, 0)
        i = bisect_left(self._keys, key)
        return i if i < self._length and self._keys[i] == key else -1

    def contents(self, i: int) -> tuple[bytes, bytes]:
        """Head and value of row `i`."""
        raw, offsets = self.raw, self._offsets
        i += self._length + 1
        head = raw[offsets[i] : offsets[i + 1]]
        i += self._length + 1
        return head, raw[offsets[i] : offsets[i + 1]]

    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows from index `start` on, sliced a column at a time: several times as fast as row by row."""
        return zip(self._column(0, start), self._column(1, start), self._column(2, start), strict=True)

    def heads(self) -> list[bytes]:
        """The heads of all rows."""
        return self._column(1, 0)

    def leading(self) -> Iterator[tuple[bytes, bytes]]:
        """Head and value of the rows that may lead to other objects: directories, and contents kept elsewhere."""
        for i, head in enumerate(self._column(1, 0)):
            if head[1] or head[0] == _DIRECTORY:  # flags say that the contents are not the value itself
                yield self.contents(i)

    def changed(self, other: Leaf) -> list[int] | None:
        """In which rows two leaves differ whose rows have the same keys and lengths; None for leaves that are less alike.

        Several times as fast as reading the rows of both.
        """
        heads = self._offsets[self._length]
        if self._length != other._length or self.raw[:heads] != other.raw[:heads]:
            return None
        ours, theirs = (np.frombuffer(raw, np.uint8, offset=heads) for raw in (self.raw, other.raw))
        places = np.flatnonzero(ours != theirs) + heads
        offsets = np.asarray(self._offsets)
        starts = np.delete(offsets[self._length + 1 :], [self._length, 2 * self._length + 1])
        return sorted({int(row) for row in (np.searchsorted(starts, places, "right") - 1) % self._length})

    def replaced(self, rows: Iterable[Row | None]) -> bytes | None:
        """The bytes of the leaf with the heads and values of these rows under keys that it has; nothing is parsed for that.

        None where a key is new, or a row is gone (None) or of other lengths: then the rows behind it move.
        """
        raw, offsets, step = bytearray(self.raw), self._offsets, self._length + 1
        for row in rows:
            i = -1 if row is None else self.find(row[0])
            if row is None or i < 0:
                return None
            for column, new in ((1, row[1]), (2, row[2])):
                start, end = offsets[column * step + i], offsets[column * step + i + 1]
                if end - start != len(new):
                    return None
                raw[start:end] = new
        return bytes(raw)

    def total(self) -> Sums:
        """The sums of all rows."""
        starts = np.array(self._offsets[self._length + 1 : 2 * self._length + 1], np.int64)
        raw = np.frombuffer(self.raw, np.uint8)
        sizes = raw[starts[:, np.newaxis] + np.arange(8, _WEIGHT.size)].view("<u8")
        return Sums(self._length, int(np.count_nonzero(raw[starts] == _SAMPLE)), int(sizes.sum()))

    def _column(self, number: int, start: int) -> list[bytes]:
        raw, first = self.raw, number * (self._length + 1)
        bounds = self._offsets[first + start : first + self._length + 1].tolist()
        return [raw[a:b] for a, b in pairwise(bounds)]


class Inner:
    """Children in the order of their keys, at least one. Indices as in a leaf. Safe for many threads.

    `keys[i]` is the last key in child `i`, `digests[i]` its digest.
    """

    __slots__ = ("_prefix", "_sums", "digests", "keys", "level")

    def __init__(self, raw: bytes, level: int, length: int) -> None:
        self.level = level
        at = _PREFIX.size
        bounds = _numbers(raw, at, length + 1, "I").tolist()
        self.keys = [raw[a:b] for a, b in pairwise(bounds)]
        at += 4 * (length + 1)
        self._sums = _numbers(raw, at, 3 * length, "Q")
        at += 24 * length
        self.digests = [Digest(raw[i : i + DIGEST_SIZE]) for i in range(at, at + DIGEST_SIZE * length, DIGEST_SIZE)]
        self._prefix: list[int] | None = None

    def __len__(self) -> int:
        """How many children."""
        return len(self.keys)

    def last_key(self, i: int) -> bytes:
        """The last key in child `i`."""
        return self.keys[i]

    def sums(self, i: int) -> Sums:
        """What lies below child `i`."""
        length = len(self.keys)
        return Sums(self._sums[i], self._sums[length + i], self._sums[2 * length + i])

    def samples(self) -> Sequence[int]:
        """How many samples lie below each child."""
        return self._sums[len(self.keys) : 2 * len(self.keys)]

    def child(self, i: int) -> Child:
        """Child `i`."""
        return Child(self.keys[i], self.digests[i], self.sums(i))

    def total(self) -> Sums:
        """What lies below all children."""
        length, sums = len(self.keys), self._sums
        return Sums(*(sum(sums[first : first + length]) & SUM_MASK for first in (0, length, 2 * length)))

    def before(self, i: int) -> int:
        """How many entries lie below the children before child `i`; all of them for i = len."""
        return self._counted()[i]

    def child_at(self, rank: int) -> int:
        """The child in which the entry of that rank (from 0, below this node) lies; len if there are fewer,
        -1 below 0.
        """
        return bisect_right(self._counted(), rank) - 1

    def _counted(self) -> list[int]:
        # Two threads may both compute it: the same list.
        if self._prefix is None:
            self._prefix = list(accumulate(self._sums[: len(self.keys)], initial=0))
        return self._prefix


Node = Leaf | Inner
Load = Callable[[Digest], Node]
"""Gives the node of a digest; keeps decoded nodes, or every step costs a decode."""


def decode(raw: bytes) -> Node:
    """The node that encode_leaf or encode_inner wrote; BadNode for bytes that could not be one.

    Whatever it returns can be read at every index without an error. That the keys of a leaf ascend is not
    checked here, as it takes as long as everything else together: see check_order.
    """
    if len(raw) < _PREFIX.size:
        raise BadNode("a node of less than 8 bytes")
    magic, level, zero, length = _PREFIX.unpack_from(raw)
    if magic == _LEAF and level == 0 and zero == 0:
        _check_leaf(raw, length)
        return Leaf(raw, length)
    if magic == _INNER and level > 0 and zero == 0:
        _check_inner(raw, length)
        inner = Inner(raw, level, length)
        check_order(inner)
        return inner
    raise BadNode(f"a node cannot begin with {raw[:4].hex(' ')}")


def _check_leaf(raw: bytes, length: int) -> None:
    start = _PREFIX.size + 12 * (length + 1)
    if len(raw) < start:
        raise BadNode(f"a leaf of {length} rows in {len(raw)} bytes")
    offsets = np.frombuffer(raw, "<u4", 3 * (length + 1), _PREFIX.size)
    if offsets[0] != start or offsets[-1] != len(raw) or (offsets[1:] < offsets[:-1]).any():
        raise BadNode("the offsets of a leaf do not ascend from its start to its end")
    heads = offsets[length + 1 : 2 * length + 2]
    if offsets[length] != heads[0] or heads[-1] != offsets[2 * length + 2]:
        raise BadNode("a leaf has bytes that belong to no row")
    if length and (offsets[1] == start or (heads[1:] - heads[:-1]).min() < _WEIGHT.size):
        raise BadNode(f"a leaf has an empty key, or a head of less than {_WEIGHT.size} bytes")


def _check_inner(raw: bytes, length: int) -> None:
    start = _PREFIX.size + 4 * (length + 1) + (24 + DIGEST_SIZE) * length
    if not length or len(raw) < start:
        raise BadNode(f"an inner node of {length} children in {len(raw)} bytes")
    offsets = np.frombuffer(raw, "<u4", length + 1, _PREFIX.size)
    if offsets[0] != start or offsets[-1] != len(raw) or (offsets[1:] < offsets[:-1]).any():
        raise BadNode("the offsets of an inner node do not ascend from its start to its end")


def check_order(node: Node) -> None:
    """BadNode unless the keys of the node strictly ascend. For nodes others made, and for verification."""
    keys = node.keys if isinstance(node, Inner) else [key for key, _, _ in node.rows()]
    if not ascending(keys):
        raise BadNode("the keys of a node do not ascend")


def ascending(keys: Sequence[bytes]) -> bool:
    """Whether each key is greater than the one before it, and none is empty."""
    return not keys or (keys[0] != b"" and not any(map(ge, keys, keys[1:])))


def encode_leaf(rows: Sequence[Row]) -> bytes:
    """The bytes of a leaf with these rows, whose keys ascend. The values are its last part, in order.

    BadNode for a head of less than 16 bytes, and for more than 4 GiB in all.
    """
    length = len(rows)
    if length == 1:
        return _encode_single(*rows[0])
    parts = [row[0] for row in rows]
    parts += [row[1] for row in rows]
    parts += [row[2] for row in rows]
    start = _PREFIX.size + 12 * (length + 1)
    bounds = _bounds(parts, start)
    if rows and min(map(len, parts[length : 2 * length])) < _WEIGHT.size:
        raise BadNode(f"the head of a row has less than {_WEIGHT.size} bytes")
    head = _PREFIX.pack(_LEAF, 0, 0, length)
    # The end of the keys is the start of the heads, and so on: stated twice, each column is read by itself.
    keys, heads, values = (bounds[first * length : (first + 1) * length + 1] for first in range(3))
    return b"".join([head, _bytes(keys), _bytes(heads), _bytes(values), *parts])


Values = Callable[[int, int], bytes | memoryview]
"""Gives the values of the rows from one number up to another, one behind the other."""


def _encode_single(key: bytes, head: bytes, value: bytes) -> bytes:
    """A leaf of one row, as most staging records have: at a tenth of the cost of columns."""
    heads = _SINGLE.size + len(key)
    values = heads + len(head)
    end = values + len(value)
    if len(head) < _WEIGHT.size:
        raise BadNode(f"the head of a row has less than {_WEIGHT.size} bytes")
    if end > _OFFSET_MAX:
        raise BadNode("a node of more than 4 GiB")
    return b"".join([_SINGLE.pack(_LEAF, 0, 0, 1, _SINGLE.size, heads, heads, values, values, end), key, head, value])


def encode_uniform_leaves(
    keys: Sequence[bytes], ends: Sequence[int], head: bytes, size: int, values: Values
) -> Iterator[bytes]:
    """The bytes of leaves, as encode_leaf gives them, of rows that share one head and have values of `size` bytes each.

    Each leaf ends behind so many rows as `ends` says, which ascend to their number; the keys ascend. The offsets in all leaves
    are computed at once.
    """
    stops = np.array(ends, np.int64)
    starts = np.concatenate([[0], stops[:-1]])
    counts = stops - starts
    places = np.zeros(len(keys) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)), out=places[1:])
    # One number more than rows for each leaf and column; `row` counts from the leaf's first.
    firsts = starts + np.arange(len(stops))
    row = np.arange(len(keys) + len(stops)) - np.repeat(firsts, counts + 1)
    heads = _PREFIX.size + 12 * (counts + 1) + places[stops] - places[starts]
    if int((heads + counts * (len(head) + size)).max()) > _OFFSET_MAX:
        raise BadNode("a node of more than 4 GiB")
    start, first = np.repeat(heads, counts + 1), np.repeat(starts, counts + 1)
    of_keys = start - np.repeat(places[stops], counts + 1) + places[first + row]
    of_values = start + np.repeat(counts, counts + 1) * len(head) + row * size
    of_heads = start + row * len(head)
    columns = [column.astype("<u4").tobytes() for column in (of_keys, of_heads, of_values)]
    joined = memoryview(b"".join(keys))
    bounds = zip(starts.tolist(), ends, places[starts].tolist(), places[stops].tolist(), firsts.tolist(), strict=True)
    for begin, end, key, last, at in bounds:
        count = end - begin
        offsets = [column[4 * at : 4 * (at + count + 1)] for column in columns]
        prefix = _PREFIX.pack(_LEAF, 0, 0, count)
        yield b"".join([prefix, *offsets, joined[key:last], head * count, values(begin, end)])


def uniform_values(raw: bytes | memoryview, size: int) -> memoryview | None:
    """The values of a leaf as they lie in its bytes, if all its rows are samples with heads of 24 bytes and without flags, and
    their values have `size` bytes each; else None. It is not decoded, and its keys are not looked at.
    """
    magic, level, _, count = _PREFIX.unpack_from(raw)
    start = _PREFIX.size + 12 * (count + 1)
    values = len(raw) - count * size
    heads = values - count * _PLAIN_HEAD
    if magic != _LEAF or level or heads < start:
        return None
    front = bytes(raw[:values])
    if front[start - 8 * (count + 1) : start] != _uniform_offsets(heads, count, size):
        return None
    if front[heads::_PLAIN_HEAD] != b"\1" * count or front[heads + 1 :: _PLAIN_HEAD].strip(b"\0"):
        return None
    return memoryview(raw)[values:]


@lru_cache(maxsize=4096)
def _uniform_offsets(heads: int, count: int, size: int) -> bytes:
    """The offsets of heads and values of a leaf with such rows, whose heads begin there."""
    steps = np.arange(count + 1)
    values = heads + count * _PLAIN_HEAD
    return np.concatenate([heads + steps * _PLAIN_HEAD, values + steps * size]).astype("<u4").tobytes()


def encode_inner(level: int, children: Sequence[Child]) -> bytes:
    """The bytes of an inner node of that level (1: above leaves) with these children, whose keys ascend."""
    keys = [child.key for child in children]
    start = _PREFIX.size + 4 * (len(keys) + 1) + (24 + DIGEST_SIZE) * len(keys)
    counts, samples, sizes = zip(*(child.sums for child in children), strict=True)
    parts = [_PREFIX.pack(_INNER, level, 0, len(keys)), _bytes(_bounds(keys, start))]
    parts.append(_bytes(array("Q", counts + samples + sizes)))
    parts += [child.digest for child in children]
    return b"".join(parts + keys)


def sum_heads(heads: Sequence[bytes]) -> Sums:
    """The sums of rows with these heads."""
    if len(heads) < _MANY:
        weights = [_WEIGHT.unpack_from(head) for head in heads]
        samples = sum([kind == _SAMPLE for kind, _ in weights])
        return Sums(len(heads), samples, sum([size for _, size in weights]) & SUM_MASK)
    table = np.frombuffer(b"".join([head[: _WEIGHT.size] for head in heads]), "<u8")
    samples = int(np.count_nonzero(table[::2] & 0xFF == _SAMPLE))
    return Sums(len(heads), samples, int(table[1::2].sum()))


def sum_children(children: Iterable[Child]) -> Sums:
    """The sums of all these children."""
    counts, samples, sizes = zip(*(child.sums for child in children), strict=True)
    return Sums(sum(counts) & SUM_MASK, sum(samples) & SUM_MASK, sum(sizes) & SUM_MASK)


def _bounds(parts: Sequence[bytes], start: int) -> array[int]:
    """Where each part begins when they lie one behind the other from `start` on, and where the last one ends."""
    bounds = array("I")
    if len(parts) < _MANY:
        ends = list(accumulate(map(len, parts), initial=start))
        if ends[-1] <= _OFFSET_MAX:
            bounds.extend(ends)
    else:
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        sums = np.empty(len(parts) + 1, np.int64)
        sums[0] = start
        np.cumsum(lengths, out=sums[1:])
        sums[1:] += start
        if sums[-1] <= _OFFSET_MAX:
            bounds.frombytes(sums.astype(np.uint32).tobytes())
    if not bounds:
        raise BadNode("a node of more than 4 GiB")
    return bounds


def _bytes(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def _numbers(raw: bytes, at: int, count: int, code: str) -> memoryview:
    """`count` numbers in `raw` from byte `at` on, of the type `code` (I: u32, Q: u64); not copied."""
    view = memoryview(raw)[at : at + count * (4 if code == "I" else 8)]
    if sys.byteorder == "big":
        swapped = array(code, view.tobytes())
        swapped.byteswap()
        return memoryview(swapped)
    return view.cast("I") if code == "I" else view.cast("Q")


EMPTY = blake(encode_leaf([]))
"""The root of the empty map. It is never stored: no function here loads it."""
