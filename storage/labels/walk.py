"""Finding what is marked in a tree: one walk, which reads what it does not know already and nothing else.

What was found is kept as `Directory`s. A committed directory is known again by its digest, with all below it; a staged one is
looked at row by row, and a mark in it is known again by the checksum of the file. Nodes and values are read by the thousand.

A directory without marks has no record, unless it is one of a staged directory: those are looked through at every walk, and
what stands in them must not be.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from storage.disk.index import Txn, number_key
from storage.errors import ArborError, Corrupt
from storage.labels.marks import Marker
from storage.model.digest import Digest
from storage.model.records import Entry, Kind, decode_entry
from storage.stores.contents import payload_of, value_check
from storage.stores.staging import ROW, decode_row
from storage.tree.diff import diff
from storage.tree.node import EMPTY, Inner, Node, Row
from storage.working import Parts, staged_id

BATCH = 1000
"""So many nodes are read at once."""
_SAMPLE, _FILE, _DIRECTORY, _STAGED = int(Kind.SAMPLE), int(Kind.FILE), int(Kind.DIRECTORY), int(Kind.STAGED)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the collector of cycles, which a hundred thousand records without any would have look a dozen times: a quarter
    of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file that marks: the checksum of its value, what is kept of its contents, and what is wrong with it, if anything is."""

    check: int
    kept: bytes
    problem: str = ""


class Directory(msgspec.Struct, array_like=True):
    """A directory as it was found: its staged id (0: nothing in it is staged); the root of what is committed; whether files in
    it mark; those that do, by name; and the directories in it in which there are any.
    """

    staged: int
    base: bytes
    counts: bool
    marks: dict[bytes, Mark] = {}
    children: dict[bytes, Directory] = {}

    def is_same(self, root: Digest, counts: bool) -> bool:
        """Whether it is that committed directory: then nothing in it or below it is otherwise than it was."""
        return self.staged == 0 and root == self.base and counts == self.counts


_UNKNOWN: tuple[None, None] = (None, None)


class Walk:
    """One walk. Directories are complete when `finish` has returned. Not thread-safe.

    `looked` counts nodes and staged rows that were read. `doubtful` says that a staged value could not be read: it is damaged,
    or a commit has taken it meanwhile.
    """

    def __init__(self, parts: Parts, marker: Marker) -> None:
        self._p = parts
        self._marker = marker
        self._match = marker.pattern.fullmatch
        self._marking = _SAMPLE if marker.samples else _FILE
        self._nodes: list[tuple[Directory, Directory | None, Digest]] = []
        self._found: list[tuple[Directory, bytes, Entry]] = []
        self._made: list[Directory] = []
        self.looked = 0
        self.doubtful = False

    # What is there

    def entry(
        self, txn: Txn, into: Directory, name: bytes, entry: Entry | None, before: tuple[Mark | None, Directory | None]
    ) -> None:
        """Put down what stands in the directory `into` under that name; `before` is what was known to stand there."""
        mark, child = before
        if entry is None:
            return
        if entry.kind is Kind.STAGED:
            into.children[name] = self.staged(txn, child, staged_id(entry), self._marker.counts(entry.attributes))
        elif entry.is_directory:
            into.children[name] = self.settled(child, entry)
        elif into.counts and int(entry.kind) == self._marking and self._match(name):
            self._mark(into, mark, name, entry)

    def staged(self, txn: Txn, known: Directory | None, number: int, counts: bool) -> Directory:
        """The staged directory with that id; `counts` says whether files in it mark."""
        row = self._p.staging.directory(txn, number)
        base = row.base if row is not None else EMPTY
        found = Directory(number, base, counts, {}, {})
        self._made.append(found)
        names: set[bytes] = set()
        for key, data in self._p.index.scan(txn, self._p.index.staged, number_key(number)):
            self.looked += 1
            name, kind = key[8:], data[ROW.size]
            names.add(name)
            if kind in (_STAGED, _DIRECTORY) or (counts and kind == self._marking and self._match(name)):
                staged = decode_row(data)
                before = (known.marks.get(name), known.children.get(name)) if known is not None else _UNKNOWN
                self.entry(txn, found, name, decode_entry(staged.head, staged.value), before)
        for name, head, value in self._committed(found):
            if name not in names:
                self._row(found, known, name, head, value)
        return found

    def settled(self, known: Directory | None, entry: Entry) -> Directory:
        """A committed directory."""
        counts = self._marker.counts(entry.attributes)
        if known is not None and known.is_same(entry.root, counts):
            return known
        found = Directory(0, entry.root, counts, {}, {})
        self._made.append(found)
        if known is None or known.staged or known.counts != counts:
            if entry.root != EMPTY and self._holds(counts, entry.count, entry.samples):
                self._nodes.append((found, known, entry.root))
            return found
        found.marks.update(known.marks)
        found.children.update(known.children)
        for name, old, new in diff(self._p.objects.node, Digest(known.base), entry.root):
            found.marks.pop(name, None)
            found.children.pop(name, None)
            if new is None:
                continue
            before = known
            if old is not None and old[0][0] == _DIRECTORY and name not in known.children:
                # There are no marks in it: only what has changed since can have any.
                before = Directory(0, known.base, counts, {}, {name: self._without(decode_entry(*old))})
            self._row(found, before, name, *new)
        return found

    def _row(self, into: Directory, known: Directory | None, name: bytes, head: bytes, value: bytes) -> None:
        kind = head[0]
        if kind == _DIRECTORY:
            before = known.children.get(name) if known is not None else None
            into.children[name] = self.settled(before, decode_entry(head, value))
        elif into.counts and kind == self._marking and self._match(name):
            mark = known.marks.get(name) if known is not None else None
            self._mark(into, mark, name, decode_entry(head, value))

    def _mark(self, into: Directory, before: Mark | None, name: bytes, entry: Entry) -> None:
        if before is not None and not before.problem and before.check == value_check(entry.value):
            into.marks[name] = before
        else:
            self._found.append((into, name, entry))

    def _without(self, entry: Entry) -> Directory:
        """A committed directory in which there are no marks."""
        return Directory(0, entry.root, self._marker.counts(entry.attributes), {}, {})

    def _holds(self, counts: bool, count: int, samples: int) -> bool:
        """Whether among so many entries there may be a mark or a directory."""
        return count > 0 if counts and self._marker.samples else count != samples

    def _committed(self, directory: Directory) -> Iterator[Row]:
        """The rows of what is committed of a directory, without those nodes in which nothing can be marked."""
        waiting = [] if directory.base == EMPTY else [Digest(directory.base)]
        while waiting:
            self.looked += 1
            node = self._p.objects.passing(waiting.pop())
            if isinstance(node, Inner):
                waiting += self._below(directory, node)
            else:
                yield from node.rows()

    def _below(self, directory: Directory, node: Inner) -> Iterator[Digest]:
        for i in range(len(node)):
            sums = node.sums(i)
            if self._holds(directory.counts, sums.count, sums.samples):
                yield node.digests[i]

    # Reading it

    def finish(self) -> None:
        """Read what was found and is not known; what there is nothing in is left out. Corrupt where a directory is damaged."""
        while self._nodes:
            batch = self._nodes[-BATCH:]
            del self._nodes[-BATCH:]
            nodes = self._p.objects.nodes([digest for _, _, digest in batch], keep=False)
            self.looked += len(batch)
            for (directory, known, _), node in zip(batch, nodes, strict=True):
                self._read_node(directory, known, node)
        for first in range(0, len(self._found), BATCH):
            self._read_marks(self._found[first : first + BATCH])
        self._found.clear()
        # Those below were made later than those above them.
        for directory in reversed(self._made):
            for name in [name for name, child in directory.children.items() if self._is_bare(directory, child)]:
                del directory.children[name]
        self._made.clear()

    def _is_bare(self, directory: Directory, child: Directory) -> bool:
        return not (child.marks or child.children or child.staged or directory.staged)

    def _read_node(self, directory: Directory, known: Directory | None, node: Node) -> None:
        if isinstance(node, Inner):
            self._nodes += [(directory, known, child) for child in self._below(directory, node)]
            return
        for name, head, value in node.rows():
            self._row(directory, known, name, head, value)

    def _read_marks(self, found: list[tuple[Directory, bytes, Entry]]) -> None:
        try:
            values = self._p.staging.values([entry.value for _, _, entry in found])
        except Corrupt:
            values = None  # one of them is damaged, which only concerns its own directory
        for i, (directory, name, entry) in enumerate(found):
            directory.marks[name] = self._read(entry, None if values is None else values[i])

    def _read(self, entry: Entry, value: bytes | None) -> Mark:
        check = value_check(entry.value)
        if value is None:
            try:
                value = self._p.staging.value(entry.value)
            except Corrupt as error:
                self.doubtful = True
                return Mark(check, b"", str(error))
        try:
            data = payload_of(self._p.objects, entry.flags, value) if entry.flags else value
            return Mark(check, self._marker.read(bytes(data)))
        except (ArborError, ValueError) as error:
            return Mark(check, b"", str(error) or type(error).__name__)
