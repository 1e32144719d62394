"""What differs between two prolly maps, read only where their nodes do."""

from __future__ import annotations

from collections.abc import Iterator

from storage.model.digest import Digest
from storage.tree.node import EMPTY, Inner, Leaf, Load, Row

Stored = tuple[bytes, bytes]
"""Head and value."""
Change = tuple[bytes, Stored | None, Stored | None]
"""Key, what stands under it in the old map, and in the new one."""

_ROWS = -1
_END = -2


def diff(load: Load, a: Digest, b: Digest) -> Iterator[Change]:
    """The keys whose head or value differs, in order, with what `a` and what `b` has there (None: nothing).

    Nodes that both maps share are skipped without loading them: costs O(changes · log n) loads.
    """
    if a == b:
        return
    old, new = _Side(load, a), _Side(load, b)
    while True:
        level = max(old.level, new.level)
        if level == _END:
            return
        if level == _ROWS:
            yield from _compare(old, new)
        elif old.level == new.level and old.nodes[-1] == new.nodes[-1]:
            old.nodes.pop()
            new.nodes.pop()
        elif (leaves := _like_leaves(load, old, new)) is not None:
            old.nodes.pop()
            new.nodes.pop()
            yield from leaves
        else:
            # Only equal levels can meet in an equal node; then both open, as neither says where it begins.
            opened = [side for side in (old, new) if side.level == level]
            for side in opened:
                side.open()


class _Side:
    """What is still to be compared of one map: rows first, then nodes; both with the next one last."""

    def __init__(self, load: Load, root: Digest) -> None:
        self._load = load
        self.rows: list[Row] = []
        self.nodes: list[tuple[int, Digest]] = [] if root == EMPTY else [(load(root).level, root)]

    @property
    def level(self) -> int:
        """The level of the node that comes next, _ROWS where it is a row, _END at the end."""
        if self.rows:
            return _ROWS
        return self.nodes[-1][0] if self.nodes else _END

    def open(self) -> None:
        """Put what is in the next node in its place."""
        _, digest = self.nodes.pop()
        node = self._load(digest)
        if isinstance(node, Inner):
            self.nodes += [(node.level - 1, node.digests[i]) for i in reversed(range(len(node)))]
        else:
            self.rows = list(node.rows())
            self.rows.reverse()


def _like_leaves(load: Load, old: _Side, new: _Side) -> list[Change] | None:
    """What differs in the two next leaves, where they hold the same keys: the usual case, without parsing them."""
    if old.level or new.level:
        return None
    before, after = load(old.nodes[-1][1]), load(new.nodes[-1][1])
    if not isinstance(before, Leaf) or not isinstance(after, Leaf):
        return None  # a parent was wrong about its level
    rows = before.changed(after)
    return None if rows is None else [(before.key(i), before.contents(i), after.contents(i)) for i in rows]


def _compare(old: _Side, new: _Side) -> Iterator[Change]:
    """Compare rows for as long as both sides have some. Where one side is at its end, the other's all differ."""
    ours, theirs = old.rows, new.rows
    while ours and theirs:
        one, other = ours[-1], theirs[-1]
        if one == other:
            ours.pop()
            theirs.pop()
        elif one[0] == other[0]:
            yield one[0], ours.pop()[1:], theirs.pop()[1:]
        elif one[0] < other[0]:
            yield one[0], ours.pop()[1:], None
        else:
            yield other[0], None, theirs.pop()[1:]
    while ours and not new.nodes:
        yield ours[-1][0], ours.pop()[1:], None
    while theirs and not old.nodes:
        yield theirs[-1][0], None, theirs.pop()[1:]
