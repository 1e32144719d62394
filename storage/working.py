"""A branch's working tree as it stands: its tip with what is staged laid over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from storage.disk.index import GENERATION, Index, Txn
from storage.disk.segments import Segments
from storage.errors import (
    Corrupt,
    IsADirectory,
    NotADirectory,
    NotFound,
)
from storage.model.digest import Digest
from storage.model.names import Path, path_text
from storage.model.records import (
    HEAD,
    Author,
    Entry,
    Kind,
    Schema,
    decode_attributes,
    decode_entry,
    directory_entry,
    is_directory_of,
)
from storage.snapshot import directory_counts, listing_load
from storage.stores.compare import Staged, Tree
from storage.stores.contents import (
    Content,
    is_here,
    open_content,
    payload_of,
    put_payload_into,
    same_contents,
)
from storage.stores.log import Log
from storage.stores.merge_record import MergeState
from storage.stores.merge_state import read_state, require_resolved
from storage.stores.merging import Merger
from storage.stores.objects import Objects
from storage.stores.pins import Pins
from storage.stores.refs import Refs
from storage.stores.staging import STAGED_ID, Row, Staging, Where
from storage.stores.status import Status, StatusRow
from storage.stores.transaction import Committer, root_of
from storage.tree import read
from storage.tree.node import EMPTY

PAGE = 512
"""Entries read in one transaction while a directory is listed."""
TRIES = 10
T = TypeVar("T")
"""So often what another process may have moved is looked for."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What working trees are made of."""

    index: Index
    log: Log
    objects: Objects
    refs: Refs
    staging: Staging
    committer: Committer
    merger: Merger
    origin: bytes
    author: Author
    segments: Segments
    pins: Pins


# Comparing with a member of an enum costs as much as reading a staged row's kind.
_SAMPLE = int(Kind.SAMPLE)
_DIRECTORIES = (int(Kind.DIRECTORY), int(Kind.STAGED))


class Known(msgspec.Struct):
    """What a tree has found out about its branch, which holds as long as nobody changes anything: as of that generation."""

    generation: bytes | None
    places: dict[Path, Where]
    merging: bool | None = None
    """Whether a merge is under way; None where nobody has asked yet."""


class _Survey(NamedTuple):
    """What a directory holds: how many samples, and which directories."""

    samples: int
    directories: list[tuple[bytes, Entry]]


class WorkingReader:
    """The tree of one branch as it stands, for reading. Thread-safe."""

    def __init__(self, parts: Parts, branch: str) -> None:
        self.branch = branch
        self._p = parts
        self._known = Known(b"", {})
        self._surveys: tuple[bytes | None, dict[Path, _Survey]] = (b"", {})
        self._counts = directory_counts(parts.objects)

    def entry(self, path: Path) -> Entry:
        """The entry at `path` as staged or committed; () is the root. NotFound, NotADirectory."""
        with self._p.index.read() as txn:
            return self._entry(txn, path)

    def open(self, path: Path) -> tuple[Entry, Content]:
        """A file or sample and what it holds; the content stays readable whatever happens to the tree."""
        if not path:
            raise IsADirectory("the root of a branch is a directory")
        return self._seen(lambda txn: self._opened(txn, path))

    def _opened(self, txn: Txn, path: Path) -> tuple[Entry, Content]:
        where = self._where(txn, path[:-1])
        entry = self._find(txn, where, path[-1])
        if entry is None:
            raise NotFound(f"there is no {path_text(path)} on branch {self.branch!r}")
        if entry.is_directory:
            raise IsADirectory(f"{path_text(path)} is a directory")
        return entry, open_content(self._p.objects, entry, self._p.staging.value(entry.value), where.schema)

    def entries(self, path: Path, after: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
        """The entries of a directory by name, those behind `after` only.

        Entries that are not touched meanwhile come exactly once, whatever happens to others.
        """
        while True:
            with self._p.index.read() as txn:
                where = self._where(txn, path)
                page = list(islice(self._merged(txn, where, after), PAGE))
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def content(self, entry: Entry, dataset: Schema | None = None) -> Content:
        """What a file or sample holds; pass the schema of the directory it is in."""
        return open_content(self._p.objects, entry, self._p.staging.value(entry.value), dataset)

    def readlink(self, entry: Entry) -> bytes:
        """A symbolic link's target."""
        return self._p.staging.value(entry.value)

    def payload(self, entry: Entry) -> bytes | memoryview:
        """What a sample holds, without its header."""
        return payload_of(self._p.objects, entry.flags, self._p.staging.value(entry.value))

    def put_payload_into(self, room: memoryview, entry: Entry) -> bool:
        """Fill `room` with what a sample holds, which is not kept; False, and nothing else, if that has another length."""
        return put_payload_into(room, self._p.objects, entry.flags, self._p.staging.value(entry.value))

    def is_here(self, entry: Entry) -> bool:
        """Whether everything that a sample holds is stored here."""
        return is_here(self._p.objects, entry.flags, self._p.staging.value(entry.value) if entry.flags else b"")

    def same_contents(self, old: Entry, new: Entry) -> bool:
        """Whether two versions of one name hold the same bytes; False may also mean that this cannot be told."""
        return same_contents(self._p.objects, old, new)

    def settled(self, path: Path) -> Digest | None:
        """The root of a directory in which nothing is staged, None for others. NotFound, NotADirectory."""
        with self._p.index.read() as txn:
            where = self._where(txn, path)
            return where.base if where.staged is None else None

    @property
    def objects(self) -> Objects:
        """Where contents and nodes go: for those who read many, or build a directory that `graft` puts into the tree."""
        return self._p.objects

    def schema_of(self, path: Path) -> Schema | None:
        """The schema of a directory, None for an ordinary one. NotFound, NotADirectory."""
        with self._p.index.read() as txn:
            return self._where(txn, path).schema

    def count_samples(self, path: Path) -> int:
        """How many samples a directory holds: a walk of its staged rows only, and none again until something changes."""
        return self._surveyed(path).samples

    def count_directories(self, path: Path, schema: Schema) -> int:
        """How many directories with that schema lie in a directory: a walk of its staged rows, the committed ones only once."""
        with self._p.index.read() as txn:
            where = self._where(txn, path)
            count = self._counts[where.base, schema]
            for name, row in () if where.staged is None else self._p.staging.rows(txn, where.staged):
                before = read.get(self._p.objects.node, where.base, name)
                count += row.kind is not Kind.REMOVED and is_directory_of(row.head, schema)
                count -= before is not None and is_directory_of(before[0], schema)
            return count

    def is_small(self, path: Path, count: int) -> bool:
        """Whether a directory holds at most `count` samples, those that are staged in place of others counted twice.

        Costs at most a walk over so many staged rows.
        """
        with self._p.index.read() as txn:
            where = self._where(txn, path)
            rest = count - read.sums(self._p.objects.node, where.base).samples
            if rest < 0 or where.staged is None:
                return rest >= 0
            return sum(1 for _ in islice(self._p.staging.kinds(txn, where.staged), rest + 1)) <= rest

    def directories(self, path: Path) -> list[tuple[bytes, Entry]]:
        """The directories in a directory by name, at the cost of count_samples."""
        return list(self._surveyed(path).directories)

    def _surveyed(self, path: Path) -> _Survey:
        with self._p.index.read() as txn:
            where = self._where(txn, path)
            if where.staged is None:
                base = read.sums(self._p.objects.node, where.base)
                return _Survey(base.samples, list(read.directories(self._p.objects.node, where.base)))
            generation = txn.get(GENERATION, db=self._p.index.meta)
            seen, known = self._surveys
            if seen != generation:
                self._surveys = (generation, known := {})
            survey = known.get(path)
            if survey is None:
                survey = self._survey(txn, where, where.staged)
                if len(known) > 10_000:
                    known.clear()
                known[path] = survey
            return survey

    def _survey(self, txn: Txn, where: Where, staged: int) -> _Survey:
        samples = read.sums(self._p.objects.node, where.base).samples
        found = dict(read.directories(self._p.objects.node, where.base))
        for name, kind in self._p.staging.kinds(txn, staged):
            samples += kind == _SAMPLE
            if where.base != EMPTY:
                before = self._base_entry(where.base, name)
                samples -= before is not None and before.kind is Kind.SAMPLE
                found.pop(name, None)
            if kind in _DIRECTORIES and (entry := self._find(txn, where, name)) is not None:
                found[name] = entry
        return _Survey(samples, sorted(found.items()))

    def _entry(self, txn: Txn, path: Path) -> Entry:
        if not path:
            return self._root_entry(txn)
        found = self._find(txn, self._where(txn, path[:-1]), path[-1])
        if found is None:
            raise NotFound(f"there is no {path_text(path)} on branch {self.branch!r}")
        return found

    def _root_entry(self, txn: Txn) -> Entry:
        ref = self._p.refs.branch(txn, self.branch)
        before = root_of(self._p.objects, ref.tip)
        known = self._p.staging.directory(txn, ref.root_id)
        if known is not None and known.base != before.root:  # a commit was taken back
            sums = read.sums(self._p.objects.node, known.base)
            base = directory_entry(known.base, sums.count, sums.samples, sums.size)
            before = replace(before, size=base.size, value=base.value)
        if known is None or not known.head:
            return replace(before, mtime=known.mtime if known and known.mtime else before.mtime)
        entry = decode_entry(known.head, before.value)
        return replace(entry, mtime=known.mtime or entry.mtime)

    def _where(self, txn: Txn, path: Path) -> Where:
        return self._placed(txn, path, self._now_known(txn))

    def _placed(self, txn: Txn, path: Path, known: Known) -> Where:
        where = known.places.get(path)
        if where is None:
            where = self._resolve(txn, path, known.places)
            if len(known.places) > 10_000:
                known.places.clear()
            known.places[path] = where
        return where

    def _now_known(self, txn: Txn) -> Known:
        """What is known of the branch as it is in this transaction: nothing, where anybody has changed anything."""
        generation = txn.get(GENERATION, db=self._p.index.meta)
        known = self._known
        if known.generation != generation:
            known = self._known = Known(generation, {})
        return known

    def _resolve(self, txn: Txn, path: Path, known: dict[Path, Where]) -> Where:
        if not path:
            ref = self._p.refs.branch(txn, self.branch)
            root = self._p.staging.directory(txn, ref.root_id)
            if root is None:
                raise Corrupt(f"the index has lost the root of branch {self.branch!r}: run `arborfs rebuild`")
            head = root.head
            schema = decode_attributes(head[HEAD.size :]).schema if head else root_of(self._p.objects, ref.tip).schema
            return Where(ref.root_id, root.base, schema)
        parent = known.get(path[:-1]) or self._resolve(txn, path[:-1], known)
        known[path[:-1]] = parent
        entry = self._find(txn, parent, path[-1])
        if entry is None:
            raise NotFound(f"there is no {path_text(path)} on branch {self.branch!r}")
        if entry.kind is Kind.STAGED:
            directory = staged_id(entry)
            row = self._p.staging.directory(txn, directory)
            return Where(directory, row.base if row else EMPTY, entry.schema)
        if entry.kind is Kind.DIRECTORY:
            return Where(None, entry.root, entry.schema)
        raise NotADirectory(f"{path_text(path)} is not a directory")

    def _find(self, txn: Txn, where: Where, name: bytes) -> Entry | None:
        if where.staged is not None:
            row = self._p.staging.row(txn, where.staged, name)
            if row is not None:
                return None if row.kind is Kind.REMOVED else self._staged_entry(txn, row)
        return self._base_entry(where.base, name)

    def _base_entry(self, base: Digest, name: bytes) -> Entry | None:
        found = read.get(self._p.objects.node, base, name)
        return None if found is None else decode_entry(*found)

    def _staged_entry(self, txn: Txn, row: Row) -> Entry:
        entry = decode_entry(row.head, row.value)
        if row.kind is Kind.STAGED:
            known = self._p.staging.directory(txn, row.staged_id)
            if known is not None and known.mtime:
                return replace(entry, mtime=known.mtime)
        return entry

    def _merged(self, txn: Txn, where: Where, after: bytes) -> Iterator[tuple[bytes, Entry]]:
        base: Iterator[tuple[bytes, bytes, bytes]] = iter(())
        if where.base != EMPTY:
            base = iter(read.rows(listing_load(self._p.objects, where.base), where.base, after))
        staged: Iterator[tuple[bytes, Row]] = iter(())
        if where.staged is not None:
            staged = iter(self._p.staging.rows(txn, where.staged, after))
        committed, row = next(base, None), next(staged, None)
        while committed is not None or row is not None:
            if row is None or (committed is not None and committed[0] < row[0]):
                assert committed is not None
                yield committed[0], decode_entry(committed[1], committed[2])
                committed = next(base, None)
                continue
            if committed is not None and committed[0] == row[0]:
                committed = next(base, None)
            if row[1].kind is not Kind.REMOVED:
                yield row[0], self._staged_entry(txn, row[1])
            row = next(staged, None)

    def status(self) -> list[StatusRow]:
        """What differs from the tip, by path; () is the root's attributes. A directory moved or removed whole is one row."""
        return self._seen(lambda txn: sorted(self._from_tip(txn), key=lambda row: row.path))

    def is_dirty(self) -> bool:
        """Whether anything differs from the tip, or a merge is under way."""
        return self._seen(lambda txn: self._merging(txn) is not None or next(self._from_tip(txn), None) is not None)

    def target(self, path: Path) -> bytes:
        """Where the symbolic link at `path` leads. NotFound, NotADirectory."""
        return self._seen(lambda txn: self._p.staging.value(self._entry(txn, path).value))

    def _seen(self, look: Callable[[Txn], T]) -> T:
        """What `look` finds in one transaction."""
        for attempt in range(TRIES):
            try:
                with self._p.index.read() as txn:
                    return look(txn)
            except Corrupt:
                # A commit elsewhere may have deleted a journal under our feet; real damage is still there the next time.
                if attempt == TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _from_tip(self, txn: Txn) -> Iterator[StatusRow]:
        return Status(self._p.objects, self._p.staging, txn).of(self._p.refs.branch(txn, self.branch))

    def merging(self) -> MergeState | None:
        """The merge that is under way on the branch, None where there is none."""
        with self._p.index.read() as txn:
            return self._merging(txn)

    def require_resolved(self) -> None:
        """OpenConflicts, naming them, while a merge is under way that has any."""
        self._seen(self._require_resolved)

    def _require_resolved(self, txn: Txn) -> None:
        state = self._merging(txn)
        if state is not None:
            ref = self._p.refs.branch(txn, self.branch)
            require_resolved(self._p.objects, self._p.staging, txn, ref, state)

    def _merging(self, txn: Txn) -> MergeState | None:
        ref = self._p.refs.branch(txn, self.branch)
        return read_state(self._p.refs, self._p.staging, txn, self.branch, ref)

    def standing(self) -> Tree:
        """The whole tree as it stands at this moment, for comparing: all staged rows, read in one transaction."""
        with self._p.index.read() as txn:
            ref = self._p.refs.branch(txn, self.branch)
            staged = self._collected(txn, ref.root_id)
            root = self._root_entry(txn)
            root = replace(root, kind=Kind.STAGED, value=STAGED_ID.pack(ref.root_id))
            return Tree(root, ref.tip, self.branch, staged)

    def _collected(self, txn: Txn, root: int) -> dict[int, Staged]:
        staged: dict[int, Staged] = {}
        todo = [root]
        while todo:
            directory = todo.pop()
            known = self._p.staging.directory(txn, directory)
            rows = list(self._p.staging.rows(txn, directory))
            staged[directory] = Staged(known.base if known else EMPTY, rows)
            todo += [row.staged_id for _, row in rows if row.kind is Kind.STAGED]
        return staged

    def tip(self) -> Digest | None:
        """The branch's last commit, None before the first. NotFound when the branch is gone."""
        with self._p.index.read() as txn:
            return self._p.refs.branch(txn, self.branch).tip


def staged_id(entry: Entry) -> int:
    """The id of a staged directory, from its entry."""
    assert isinstance(entry.value, bytes)
    return int(STAGED_ID.unpack(entry.value)[0])
