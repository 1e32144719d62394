"""Reading a prolly map: by key, by rank, in order. `root` may be EMPTY, which is not loaded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice

from storage.model.digest import Digest
from storage.model.records import Entry, Kind, decode_entry
from storage.tree.node import EMPTY, NO_SUMS, BadNode, Inner, Leaf, Load, Node, Row, Sums

LoadMany = Callable[[Sequence[Digest]], Sequence[Node]]
"""Gives the nodes of some digests, in order."""
AHEAD = 16
"""So many leaves are loaded at once for who reads rows in order."""

_DIRECTORY = int(Kind.DIRECTORY)

_Path = list[tuple[Inner, int]]
"""Inner nodes from the root down, each with the index of its next child to visit."""


def get(load: Load, root: Digest, key: bytes) -> tuple[bytes, bytes] | None:
    """Head and value of the row with that key, or None."""
    if root == EMPTY:
        return None
    node = load(root)
    while isinstance(node, Inner):
        i = bisect_left(node.keys, key)
        if i == len(node.keys):
            return None
        node = load(node.digests[i])
    i = node.find(key)
    return None if i < 0 else node.contents(i)


def rows(load: Load, root: Digest, after: bytes = b"") -> Iterator[Row]:
    """The rows with keys greater than `after`, in order. Loads one leaf at a time."""
    if root == EMPTY:
        return
    path: _Path = []
    node = load(root)
    while isinstance(node, Inner):
        i = bisect_right(node.keys, after)
        if i == len(node.keys):
            return
        path.append((node, i + 1))
        node = load(node.digests[i])
    i = node.bisect(after)
    yield from node.rows(i + (i < len(node) and node.key(i) == after))
    yield from _rows_behind(load, path)


def rows_ahead(load: Load, load_many: LoadMany, root: Digest) -> Iterator[Row]:
    """The rows of the whole map, in order, for who will read many of them: leaves are loaded some at once."""
    for digests in portions(load, root):
        for leaf in load_many(digests):
            yield from _require_leaf(leaf).rows()


def heads(load: Load, load_many: LoadMany, root: Digest) -> Iterator[bytes]:
    """The heads of all rows of the map, in order."""
    for digests in portions(load, root):
        for leaf in load_many(digests):
            yield from _require_leaf(leaf).heads()


def portions(load: Load, root: Digest) -> Iterator[Sequence[Digest]]:
    """The digests of all leaves, in order, as many at once as are worth loading together. Loads inner nodes only."""
    waiting = [] if root == EMPTY else [root]
    while waiting:
        digest = waiting.pop()
        node = load(digest)
        if isinstance(node, Leaf):
            yield [digest]
        elif node.level > 1:
            waiting += reversed(node.digests)
        else:
            for at in range(0, len(node), AHEAD):
                yield node.digests[at : at + AHEAD]


def _require_leaf(node: Node) -> Leaf:
    if isinstance(node, Inner):
        raise BadNode("an inner node stands where a leaf is expected")
    return node


def directories(load: Load, root: Digest) -> Iterator[tuple[bytes, Entry]]:
    """The directories by name. Nodes in which there is nothing but samples are not loaded."""
    waiting = [] if root == EMPTY else [root]
    while waiting:
        node = load(waiting.pop())
        if isinstance(node, Inner):
            below = [(node.digests[i], node.sums(i)) for i in range(len(node))]
            waiting += [digest for digest, sums in reversed(below) if sums.count != sums.samples]
        else:
            yield from ((name, decode_entry(head, value)) for name, head, value in node.rows() if head[0] == _DIRECTORY)


def leaves(load: Load, root: Digest) -> list[tuple[int, int, Digest]]:
    """The leaves in order, each with the number of samples before it and in it, as the nodes above it say.

    Loads inner nodes only, and the root.
    """
    found = [] if root == EMPTY else [(0, sums(load, root).samples, root)]
    level = load(root).level if found else 0
    while level:
        level -= 1
        below: list[tuple[int, int, Digest]] = []
        for before, _, digest in found:
            node = load(digest)
            if not isinstance(node, Inner):
                raise BadNode("a leaf stands where an inner node is expected")
            counts = node.samples()
            below += zip(accumulate(counts, initial=before), counts, node.digests, strict=False)
        found = below
    return found


def grouped(
    load: Load, load_many: LoadMany, root: Digest, keys: Sequence[bytes]
) -> Iterator[tuple[Leaf | None, list[int]]]:
    """For ascending keys, some of them perhaps twice: each leaf with the rows in it of the next keys, -1 for what is not there.

    None in place of a leaf for the keys behind the last one of the map. Leaves are loaded some at once.
    """
    at = 0
    groups = _groups(load, root, keys)
    while portion := list(islice(groups, AHEAD)):
        nodes = iter(load_many([digest for digest, _ in portion if digest is not None]))
        for digest, end in portion:
            leaf = None if digest is None else _require_leaf(next(nodes))
            yield leaf, [-1] * (end - at) if leaf is None else [leaf.find(key) for key in keys[at:end]]
            at = end


def _groups(load: Load, root: Digest, keys: Sequence[bytes]) -> Iterator[tuple[Digest | None, int]]:
    """The leaf in which the next of these ascending keys must be, and how many keys precede the first that is not for it."""
    at = 0
    while at < len(keys):
        digest: Digest | None = None if root == EMPTY else root
        end = len(keys)
        node = None if root == EMPTY else load(root)
        while isinstance(node, Inner):
            i = bisect_left(node.keys, keys[at])
            if i == len(node.keys):
                digest, end = None, len(keys)
                break
            digest, end = node.digests[i], bisect_right(keys, node.keys[i], at)
            node = load(digest) if node.level > 1 else None
        yield digest, end
        at = end


def sums(load: Load, root: Digest) -> Sums:
    """Count, samples and bytes of the whole map, from its root alone."""
    return NO_SUMS if root == EMPTY else load(root).total()


def locate(load: Load, root: Digest, key: bytes) -> tuple[int, bytes, bytes] | None:
    """How many keys come before `key`, and the head and value of its row; None if it is not there."""
    if root == EMPTY:
        return None
    before = 0
    node = load(root)
    while isinstance(node, Inner):
        i = bisect_left(node.keys, key)
        if i == len(node.keys):
            return None
        before += node.before(i)
        node = load(node.digests[i])
    i = node.find(key)
    return None if i < 0 else (before + i, *node.contents(i))


def rank(load: Load, root: Digest, key: bytes) -> int:
    """How many keys of the map come before `key`, whether it is there or not."""
    before = 0
    node = None if root == EMPTY else load(root)
    while isinstance(node, Inner):
        i = bisect_left(node.keys, key)
        if i == len(node.keys):
            return before + node.total().count
        before += node.before(i)
        node = load(node.digests[i])
    return before if node is None else before + node.bisect(key)


def at(load: Load, root: Digest, rank: int) -> Row:
    """The row before which there are `rank` others. IndexError outside 0 to count - 1."""
    leaf, i, _ = _locate(load, root, rank)
    return leaf.row(i)


def rows_at(load: Load, root: Digest, start_rank: int) -> Iterator[Row]:
    """The rows from that rank on, in order; none where it is the count or more. IndexError below 0."""
    if start_rank < 0:
        raise IndexError(f"the map has no row of rank {start_rank}")
    return _rows_at(load, root, start_rank)


def _rows_at(load: Load, root: Digest, start_rank: int) -> Iterator[Row]:
    if root == EMPTY or start_rank >= load(root).total().count:
        return
    leaf, i, path = _locate(load, root, start_rank)
    yield from leaf.rows(i)
    yield from _rows_behind(load, path)


def _locate(load: Load, root: Digest, rank: int) -> tuple[Leaf, int, _Path]:
    """The leaf with the row of that rank, its index there, and the way behind it. IndexError if none."""
    path: _Path = []
    node = None if root == EMPTY else load(root)
    i = rank
    while isinstance(node, Inner):
        child = node.child_at(i)
        if not 0 <= child < len(node.keys):
            break
        i -= node.before(child)
        path.append((node, child + 1))
        node = load(node.digests[child])
    if isinstance(node, Leaf) and 0 <= i < len(node):
        return node, i, path
    if path:
        raise BadNode("a node holds fewer rows than its parent says")
    raise IndexError(f"the map has no row of rank {rank}")


def _rows_behind(load: Load, path: _Path) -> Iterator[Row]:
    while path:
        parent, i = path.pop()
        if i == len(parent.keys):
            continue
        path.append((parent, i + 1))
        node = load(parent.digests[i])
        while isinstance(node, Inner):
            path.append((node, 1))
            node = load(node.digests[0])
        yield from node.rows()
