"""Changing a prolly map: the new root and the nodes that are new, at a cost that goes with the edits.

Level by level, from the leaves up: the nodes that the edits touch are taken apart, their items merged with the
edits and cut again, from the start of a touched node until a new boundary coincides with an old one. What was
taken apart and what came out are the edits of the level above. The nodes of every level are those that cutting
all of its items at once would give, so the root depends on the contents alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from storage.model.digest import Digest, blake
from storage.tree.cut import ROW_OVERHEAD, Cutter, inner_sizes, leaf_sizes
from storage.tree.node import (
    EMPTY,
    NO_SUMS,
    SUM_MASK,
    BadNode,
    Child,
    Inner,
    Leaf,
    Load,
    Node,
    Row,
    Sums,
    Values,
    ascending,
    decode,
    encode_inner,
    encode_leaf,
    encode_uniform_leaves,
    sum_children,
    sum_heads,
)

Edit = tuple[bytes, tuple[bytes, bytes] | None]
"""A key, and the head and value to put under it; None removes it."""

Item = TypeVar("Item", Row, Child)

PORTION = 4 << 20
"""Bytes of nodes that are given at once while a map is built."""


def edit(load: Load, root: Digest, edits: Sequence[Edit]) -> tuple[Digest, Sums, list[tuple[Digest, bytes]]]:
    """Apply edits to the map with that root; returns the new root, its sums, and the nodes to write.

    The keys strictly ascend (ValueError otherwise); removing what is not there is allowed. The nodes are those
    of the new map that the old one does not have, children before parents. The same contents give the same root
    by whatever edits they came about. Costs O(edits · log n) loads. BadNode, a ValueError, for a head of less
    than 16 bytes and for malformed nodes.
    """
    names = [key for key, _ in edits]
    if not ascending(names):
        raise ValueError("the keys of edits must be given in ascending order, each once, none empty")
    top = None if root == EMPTY else load(root)
    unchanged = (root, NO_SUMS if top is None else top.total(), list[tuple[Digest, bytes]]())
    if not names:
        return unchanged
    height = -1 if top is None else top.level
    rows = [None if new is None else (key, *new) for key, new in edits]
    region = _recut(_LEAVES, _Level(load, root, top, 0), names, rows)
    fresh = region.fresh
    level = 0
    while level < height or len(region.children) > 1:
        names, children = region.changes() if level < height else region.built()
        if not names:
            return unchanged
        level += 1
        region = _recut(_inner_form(level), _Level(load, root, top, level), names, children)
        fresh |= region.fresh
    if not region.children:
        return EMPTY, NO_SUMS, []
    highest = region.children[0]
    digest = _collapsed(load, highest.digest, fresh)
    return digest, highest.sums, list(fresh.items())


Building = Generator[list[tuple[Digest, bytes]], None, tuple[Digest, Sums]]
"""Gives the nodes of a map to write, children before parents, some megabytes at a time; in the end its root and sums."""


def build(names: Sequence[bytes], head: bytes, size: int, values: Values) -> Building:
    """A new map of rows that share one head and whose values have `size` bytes each: the same that `edit` gives.

    The names strictly ascend, and there is at least one (ValueError otherwise). Leaves are slices of the columns: no step in
    Python for a row but those that decide where a leaf ends.
    """
    if not names or not ascending(names):
        raise ValueError("the keys of a new map must be given in ascending order, each once, none empty")
    region = _Region()
    around = len(head) + size + ROW_OVERHEAD
    ends = Cutter(0).ends(names, [length + around for length in map(len, names)])
    if not ends or ends[-1] != len(names):
        ends.append(len(names))
    start, ready = 0, 0
    _, samples, nbytes = sum_heads([head])
    for end, raw in zip(ends, encode_uniform_leaves(names, ends, head, size, values), strict=True):
        if ready >= PORTION:
            yield list(region.fresh.items())
            region.fresh, ready = {}, 0
        count = end - start
        digest = blake(raw)
        sums = Sums(count, samples * count, nbytes * count & SUM_MASK)
        region.children.append(Child(names[end - 1], digest, sums))
        region.fresh[digest] = raw
        start, ready = end, ready + len(raw)
    root, sums, fresh = _raised(region)
    yield fresh
    return root, sums


def _raised(region: _Region) -> tuple[Digest, Sums, list[tuple[Digest, bytes]]]:
    """The levels above new leaves."""
    fresh, level = region.fresh, 0
    while len(region.children) > 1:
        level += 1
        names, children = region.built()
        region = _recut(_inner_form(level), _Level(_nothing, EMPTY, None, level), names, children)
        fresh |= region.fresh
    only = region.children[0]
    return _collapsed(_nothing, only.digest, fresh), only.sums, list(fresh.items())


def _nothing(digest: Digest) -> Node:
    raise BadNode(f"a new map leads to the node {digest.hex()}, which is not among its own")


def _collapsed(load: Load, root: Digest, fresh: dict[Digest, bytes]) -> Digest:
    """The first node from there down that has not one child only; those above it are taken from `fresh`."""
    while True:
        raw = fresh.get(root)
        node = load(root) if raw is None else decode(raw)
        if not isinstance(node, Inner) or len(node) > 1:
            return root
        fresh.pop(root, None)
        root = node.digests[0]


@dataclass(frozen=True, slots=True)
class _Form(Generic[Item]):
    """How the items of a level are read, measured, written and summed up."""

    level: int
    items: Callable[[Node], list[Item]]
    sizes: Callable[[Sequence[Item]], list[int]]
    encode: Callable[[Sequence[Item]], bytes]
    total: Callable[[Sequence[Item]], Sums]
    replaced: Callable[[Node, Sequence[Item | None]], tuple[bytes, bytes, Sums] | None]


def _rows_of(node: Node) -> list[Row]:
    if not isinstance(node, Leaf):
        raise BadNode("an inner node stands where a leaf is expected")
    return list(node.rows())


def _children_of(node: Node) -> list[Child]:
    if not isinstance(node, Inner):
        raise BadNode("a leaf stands where an inner node is expected")
    return [node.child(i) for i in range(len(node))]


def _replaced_rows(node: Node, rows: Sequence[Row | None]) -> tuple[bytes, bytes, Sums] | None:
    """Last key, bytes and sums of the leaf with these rows in place of its own; None where it must be cut again.

    Where all keys and lengths stay, so do the ends of nodes: ten times as fast as taking the leaf apart.
    """
    raw = node.replaced(rows) if isinstance(node, Leaf) else None
    return None if raw is None else (node.last_key(len(node) - 1), raw, decode(raw).total())


def _never_replaced(node: Node, children: Sequence[Child | None]) -> None:
    """Inner nodes are few: they are always cut again."""


def _sum_rows(rows: Sequence[Row]) -> Sums:
    return sum_heads([head for _, head, _ in rows])


_LEAVES: _Form[Row] = _Form(0, _rows_of, leaf_sizes, encode_leaf, _sum_rows, _replaced_rows)


def _inner_form(level: int) -> _Form[Child]:
    return _Form(level, _children_of, inner_sizes, partial(encode_inner, level), sum_children, _never_replaced)


class _Level:
    """Walks over the nodes of one level of a map, forward only. A level above the root has none."""

    def __init__(self, load: Load, root: Digest, top: Node | None, level: int) -> None:
        self._load = load
        self._root = root
        self._top = top if top is not None and top.level >= level else None
        self._level = level
        self._path: list[tuple[Inner, int]] = []

    @property
    def is_empty(self) -> bool:
        """Whether the level has no nodes."""
        return self._top is None

    @property
    def at_end(self) -> bool:
        """Whether no node comes behind this one."""
        return all(i == len(parent) - 1 for parent, i in self._path)

    @property
    def last_key(self) -> bytes:
        """The last key in the node, as its parent says; the root has none: empty."""
        parent, i = self._path[-1] if self._path else (None, 0)
        return b"" if parent is None else parent.keys[i]

    @property
    def digest(self) -> Digest:
        """The digest of the node."""
        parent, i = self._path[-1] if self._path else (None, 0)
        return self._root if parent is None else parent.digests[i]

    def seek(self, key: bytes) -> Node:
        """Go to the node that holds `key` or would hold it."""
        path = self._path
        while path and path[-1][0].keys[-1] < key:
            path.pop()
        assert self._top is not None
        node: Node = path.pop()[0] if path else self._top
        return self._descend(node, key)

    def advance(self) -> Node | None:
        """Go to the next node; None where there is none."""
        if self.at_end:
            return None
        path = self._path
        while path[-1][1] == len(path[-1][0]) - 1:
            path.pop()
        parent, i = path.pop()
        path.append((parent, i + 1))
        return self._descend(self._child(parent, i + 1), b"")

    def _descend(self, node: Node, key: bytes) -> Node:
        while isinstance(node, Inner) and node.level > self._level:
            i = min(bisect_left(node.keys, key), len(node) - 1)
            self._path.append((node, i))
            node = self._child(node, i)
        return node

    def _child(self, parent: Inner, i: int) -> Node:
        node = self._load(parent.digests[i])
        if node.level != parent.level - 1:
            raise BadNode(f"a node of level {node.level} stands below one of level {parent.level}")
        # Without this, a forged map could hold up the walk for ever.
        if not len(node) or node.last_key(len(node) - 1) != parent.keys[i]:
            raise BadNode("a node does not end with the key that its parent says")
        return node


@dataclass(slots=True)
class _Region:
    """What cutting a level again took apart, and what came out."""

    replaced: dict[bytes, Digest] = field(default_factory=dict)
    known: set[Digest] = field(default_factory=set)
    children: list[Child] = field(default_factory=list)
    fresh: dict[Digest, bytes] = field(default_factory=dict)

    def changes(self) -> tuple[list[bytes], list[Child | None]]:
        """The edits of the level above, without nodes that came out as they were."""
        table: dict[bytes, Child | None] = dict.fromkeys(self.replaced)
        for child in self.children:
            if self.replaced.get(child.key) == child.digest:
                del table[child.key]
            else:
                table[child.key] = child
        names = sorted(table)
        return names, [table[name] for name in names]

    def built(self) -> tuple[list[bytes], list[Child | None]]:
        """The items of the level above, where there was none."""
        return [child.key for child in self.children], list(self.children)


def _recut(form: _Form[Item], level: _Level, names: Sequence[bytes], edits: Sequence[Item | None]) -> _Region:
    """Apply edits, which have these names, to one level."""
    region = _Region()
    cutter = Cutter(form.level)
    pending: list[Item] = []
    done = 0
    while done < len(names) or pending:
        items: list[Item] = []
        until = len(names)
        if not level.is_empty:
            node = level.advance() if pending else level.seek(names[done])
            if node is None:
                break
            region.replaced[level.last_key] = level.digest
            region.known.add(level.digest)
            if not level.at_end:
                until = bisect_right(names, level.last_key, done)
            replaced = None if pending else form.replaced(node, edits[done:until])
            if replaced is not None:
                _add_node(region, *replaced)
                done = until
                continue
            items = form.items(node)
        elif done == len(names):
            break
        merged = _merge(items, names[done:until], edits[done:until])
        done = until
        ends = cutter.ends([item[0] for item in merged], form.sizes(merged))
        pending = _close(form, region, pending, merged, ends)
    if pending:
        _add_items(form, region, pending)
    return region


def _merge(items: list[Item], names: Sequence[bytes], edits: Sequence[Item | None]) -> list[Item]:
    """The items with the edits applied, which have these names."""
    keys = [item[0] for item in items]
    merged: list[Item] = []
    start = 0
    for number, (name, item) in enumerate(zip(names, edits, strict=True)):
        if start == len(keys):
            merged += [new for new in edits[number:] if new is not None]
            return merged
        found = bisect_left(keys, name, start)
        merged += items[start:found]
        start = found + (found < len(keys) and keys[found] == name)
        if item is not None:
            merged.append(item)
    merged += items[start:]
    return merged


def _close(form: _Form[Item], region: _Region, pending: list[Item], items: list[Item], ends: list[int]) -> list[Item]:
    """Make the nodes that end at `ends` in `items`, the first one begun by `pending`; returns what is left."""
    start = 0
    for end in ends:
        _add_items(form, region, pending + items[start:end] if pending else items[start:end])
        pending = []
        start = end
    return pending + items[start:]


def _add_items(form: _Form[Item], region: _Region, items: list[Item]) -> None:
    _add_node(region, items[-1][0], form.encode(items), form.total(items))


def _add_node(region: _Region, key: bytes, raw: bytes, sums: Sums) -> None:
    digest = blake(raw)
    region.children.append(Child(key, digest, sums))
    if digest not in region.known:
        region.fresh[digest] = raw
