"""The rows of an array into a dataset at once: leaves are made of slices of it, and nothing is staged row by row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from storage.errors import Conflict
from storage.model.digest import Digest
from storage.model.names import Path
from storage.model.records import Kind, directory_entry, sample_head
from storage.model.samples import Array
from storage.stores.building import apply_edits
from storage.stores.packing import put_built
from storage.tree import read
from storage.tree.edit import Edit, build
from storage.tree.node import EMPTY, Sums, ascending
from storage.worktree import WorkingTree

LEAST = 4096
"""Fewer samples are staged one by one: storing the tree's nodes and making them durable costs more."""
TRIES = 5


def fill(tree: WorkingTree, path: Path, names: Sequence[bytes], rows: Array, size: int) -> bool:
    """Put the rows of an array into a dataset as short samples, each of `size` bytes in its file form, by one staged row.

    False, and nothing is done, where they must be staged singly: during a merge, where one replaces something with attributes
    of its own, where a name comes twice, and where others go on changing the dataset meanwhile.
    """
    if tree.merging() is not None:
        return False
    order: Array | None = None
    if not ascending(names):
        order = np.argsort(np.array(names), kind="stable")  # no name has a NUL, which numpy would not see
        names = [names[i] for i in order.tolist()]
        if not ascending(names):
            return False  # one comes twice
    for _ in range(TRIES):
        try:
            with tree.storing():
                return _try(tree, path, names, rows, order, size)
        except Conflict:
            continue
    return False


def _try(tree: WorkingTree, path: Path, names: Sequence[bytes], rows: Array, order: Array | None, size: int) -> bool:
    """Fill it as it stands now; Conflict where others changed it before that was done."""
    found, since = tree.folded(path)
    if found is None or found.kind is not Kind.DIRECTORY:
        return False
    made = _filled(tree, found.root, names, rows, order, sample_head(size, time.time_ns()))
    if made is None:
        return False
    root, sums = made
    if root != found.root:
        stamp = time.time_ns()
        entry = directory_entry(root, sums.count, sums.samples, sums.size, mtime=stamp, attributes=found.attributes)
        tree.graft(path, entry, since)
    return True


def _filled(
    tree: WorkingTree, root: Digest, names: Sequence[bytes], rows: Array, order: Array | None, head: bytes
) -> tuple[Digest, Sums] | None:
    """The map with that root and those rows, of which `order` says the first, the second …, where they are not in order; None
    where one would replace more than a plain sample.
    """
    if root == EMPTY:
        flat = np.ascontiguousarray(rows).reshape(len(names), -1).view(np.uint8)
        return put_built(tree.objects, build(names, head, flat.shape[1], partial(_values, flat, order)))
    raw = (rows if order is None else rows[order]).tobytes()
    step = len(raw) // len(names)
    edits = [(name, (head, raw[i * step : (i + 1) * step])) for i, name in enumerate(names)]
    changing = _changing(tree, root, edits)
    return None if changing is None else apply_edits(tree.objects, root, changing)


def _values(flat: Array, order: Array | None, first: int, last: int) -> memoryview:
    """The bytes of some rows, from the first to before the last, in that order."""
    some = flat[first:last] if order is None else flat[order[first:last]]
    return some.data.cast("B")


def _changing(tree: WorkingTree, root: Digest, edits: Sequence[tuple[bytes, tuple[bytes, bytes]]]) -> list[Edit] | None:
    """The edits that change anything; None where one would replace more than a plain sample."""
    changing: list[Edit] = []
    at = 0
    for leaf, found in read.grouped(tree.objects.node, tree.objects.nodes, root, [name for name, _ in edits]):
        for row, edit in zip(found, edits[at : at + len(found)], strict=True):
            if row >= 0 and leaf is not None:
                head, value = leaf.contents(row)
                if len(head) != len(edit[1][0]) or head[:1] != edit[1][0][:1]:
                    return None
                # The same data as before change nothing, be it later: all of the head but its time.
                if head[1:16] == edit[1][0][1:16] and value == edit[1][1]:
                    continue
            changing.append(edit)
        at += len(found)
    return changing
