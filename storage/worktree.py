"""A branch's working tree: its tip plus what is staged. Every change is one atomic record, safe when the call returns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

from msgspec.structs import replace

from storage.disk.index import GENERATION, Txn, number_key
from storage.disk.segments import SegmentKind, checksum
from storage.entries import EntryWriter, split
from storage.errors import (
    Conflict,
    Exists,
    IsADirectory,
    NotADirectory,
    NotFound,
)
from storage.model.chunking import CHUNK_MAX
from storage.model.deltas import DELTA_MIN
from storage.model.digest import Digest
from storage.model.names import Path, check_name, path_text
from storage.model.records import (
    CHUNKED,
    HEAD,
    PLAIN,
    Attributes,
    Author,
    Entry,
    Kind,
    Place,
    Schema,
    decode_entry,
    encode_attributes,
    encode_head,
)
from storage.model.samples import Array, BytesSource, canonical_header, check_array
from storage.stores.changes import Change, Found
from storage.stores.contents import (
    inline_max,
    store_payload,
)
from storage.stores.packing import Pending
from storage.stores.single import write_row
from storage.stores.staging import STAGED_ID, LeafRow, Where, decode_change
from storage.tree import read
from storage.tree.node import EMPTY

_FACTS = 8  # bytes of a head that tell of kind, flags and attributes; behind them come size and time


class WorkingTree(EntryWriter):
    """The writable tree of one branch. Thread-safe; several processes may change one branch at once."""

    def put_rows(self, directory: Path, rows: Sequence[tuple[bytes, Entry]]) -> None:
        """Stage many entries of one directory, in one record. Their values must be stored already."""
        encoded = [(name, encode_head(entry), self._p.staging.value(entry.value)) for name, entry in rows]
        self._put_encoded(directory, encoded)

    def put_entries(self, entries: Sequence[tuple[Path, Entry | None]], parents: Mapping[Path, Entry]) -> None:
        """Put entries in the place of whatever stands there, in one record: a directory whole, as one row; None removes.

        Their values must be stored already. Missing directories above them are made like those in `parents`. Of the root
        only the attributes are taken. NotADirectory.
        """
        with self._change() as change:
            for path, entry in entries:
                if not path:
                    assert entry is not None
                    change.set_root(encode_head(entry))
                    change.structural = True
                elif entry is not None or self._has_parents(change, path):
                    self._put_entry(change, path, entry, parents)

    def put_files(
        self,
        files: Sequence[tuple[Path, Entry | None]],
        parents: Mapping[Path, Entry],
        *,
        new: Path | None = None,
        needs: Path | None = None,
    ) -> None:
        """As `put_entries`, of files alone: IsADirectory where one would take a directory's place, and nothing is changed.

        Mode, owner and xattrs of what is replaced stay. Exists where there is something at `new`, NotFound where there is
        nothing at `needs`.
        """
        with self._change() as change:
            if new is not None and self._stands(change, new):
                raise Exists(f"there is {path_text(new)} on branch {self.branch!r} already")
            if needs is not None and not self._stands(change, needs):
                raise NotFound(f"there is no {path_text(needs)} on branch {self.branch!r}")
            for path, entry in files:
                found = None if new is not None and path[: len(new)] == new else self._found(change, path)
                if found is not None and found.entry.is_directory:
                    raise IsADirectory(f"{path_text(path)} is a directory")
                if entry is not None and found is not None:
                    old, fresh = found.entry.attributes, entry.attributes
                    kept = replace(fresh, mode=old.mode, uid=old.uid, gid=old.gid, xattrs=old.xattrs)
                    entry = replace(entry, attributes=kept)
                if entry is not None or found is not None:
                    self._put_entry(change, path, entry, parents)

    def _stands(self, change: Change, path: Path) -> bool:
        """Whether there is anything at `path`; there is always a root."""
        return not path or self._found(change, path) is not None

    def _found(self, change: Change, path: Path) -> Found | None:
        """What there is at `path`, which is not the root."""
        try:
            return change.find(change.directory(path[:-1]), path[-1])
        except (NotFound, NotADirectory):
            return None

    def _has_parents(self, change: Change, path: Path) -> bool:
        try:
            change.directory(path[:-1])
        except (NotFound, NotADirectory):
            return False
        return True

    def _put_entry(self, change: Change, path: Path, entry: Entry | None, parents: Mapping[Path, Entry]) -> None:
        parent, name = split(path)
        directory = self._directory(change, parent, parents)
        found = change.find(directory, name)
        if found is not None and found.entry.is_directory:
            change.drop(found)
        if entry is not None:
            change.put(directory, name, encode_head(entry), self._p.staging.value(entry.value), new=found is None)
            change.structural |= entry.is_directory
        elif found is not None:
            change.remove(directory, name)

    def _directory(self, change: Change, path: Path, parents: Mapping[Path, Entry]) -> int:
        """The id of the directory at `path`; where it is missing it is made, and what is missing above it, like those in
        `parents`.
        """
        try:
            return change.directory(path)
        except NotFound:
            if not path:
                raise
        above = self._directory(change, path[:-1], parents)
        like = parents[path]
        child = change.new_directory(EMPTY, path)
        head = encode_head(Entry(Kind.STAGED, 0, like.mtime, like.attributes))
        change.put(above, path[-1], head, STAGED_ID.pack(child), new=True)
        return child

    def put_samples(self, directory: Path, names: Sequence[bytes], values: Sequence[bytes], head: bytes) -> None:
        """Stage many inline samples that share one head (model.records.sample_head), in one record."""
        self._put_encoded(directory, list(zip(names, repeat(head, len(names)), values, strict=True)))

    def put_sample(self, directory: Path, schema: Schema, name: bytes, head: bytes, value: bytes) -> bool:
        """Stage one inline sample whose head tells of no attributes, as `put_samples` does, in the case that comes most often.

        False, and nothing is done, where more than its row may be needed: in a directory with another schema or of which
        nothing is staged, during a merge, in place of anything but such a sample, and perhaps of the same one. NotFound,
        NotADirectory.
        """
        p = self._p
        with p.log.change(SegmentKind.JOURNAL) as txn:
            known = self._now_known(txn)
            if known.merging is None:
                known.merging = self._merging(txn) is not None
            where, root = self._placed(txn, directory, known), self._placed(txn, (), known)
            if known.merging or where.staged is None or root.staged is None or where.schema != schema:
                return False
            old = self._row_or_base(txn, where, where.staged, name)
            if old is not None:
                if old[0][:_FACTS] != head[:_FACTS] or (isinstance(old[1], Place) and old[1].check == checksum(value)):
                    return False  # its attributes are to be kept, or its bytes to be read
                if old[1] == value:
                    return True
            row, mtime = (name, head, value), time.time_ns() if old is None else 0
            generation = write_row(
                p.index, p.log, txn, p.origin, self.branch, root.staged, directory, where.staged, row, mtime
            )
        self._still_known(known, generation)
        return True

    def replace_value(self, directory: Path, name: bytes, before: bytes, value: bytes, born: bytes) -> bool | None:
        """Put another value of JSON, which is short, in the place of `before`, as `put_values` does with `instead`, in the case
        that comes most often; False where there is another one.

        None, and nothing is done, where more than its row may be needed: see put_sample; also where the sample has not got the
        extended attribute `born`. NotFound, NotADirectory.
        """
        p = self._p
        with p.log.change(SegmentKind.JOURNAL) as txn:
            known = self._now_known(txn)
            if known.merging is None:
                known.merging = self._merging(txn) is not None
            where, root = self._placed(txn, directory, known), self._placed(txn, (), known)
            if known.merging or where.staged is None or root.staged is None:
                return None
            old = self._row_or_base(txn, where, where.staged, name)
            if old is None or where.schema is None or where.schema.kind != "json" or where.schema.compression:
                return None
            kind, flags, _, _, _, _ = HEAD.unpack_from(old[0])
            extra = old[0][HEAD.size :]
            if kind != Kind.SAMPLE or flags or born not in extra:
                return None
            if p.staging.value(old[1]) != before:
                return False
            row = name, HEAD.pack(kind, 0, 0, len(extra), len(value), time.time_ns()) + extra, value
            generation = write_row(
                p.index, p.log, txn, p.origin, self.branch, root.staged, directory, where.staged, row, 0
            )
        self._still_known(known, generation)
        return True

    def _row_or_base(self, txn: Txn, where: Where, staged: int, name: bytes) -> tuple[bytes, bytes | Place] | None:
        """Head and value of what `name` is in a staged directory."""
        row = self._p.staging.row(txn, staged, name)
        if row is None:
            return read.get(self._p.objects.node, where.base, name) if where.base != EMPTY else None
        return None if row.kind is Kind.REMOVED else (row.head, row.value)

    def _put_encoded(self, directory: Path, rows: Sequence[LeafRow]) -> None:
        with self._change() as change:
            staged = change.directory(directory)
            # In a merge, writing what is there says that it is right.
            change.put_many(staged, rows, again=self._merging(change.txn) is not None)

    def put_values(
        self,
        directory: Path,
        rows: Sequence[LeafRow],
        born: bytes,
        instead: Mapping[bytes, bytes | None],
        removed: Iterable[bytes],
    ) -> list[bytes]:
        """Remove samples of one directory, then stage others, which are no arrays, in one record.

        `born` is the extended attribute that keeps when a name was new, if any: what replaces another sample keeps its mode,
        owner and xattrs, and gets that one from its mtime where it is missing. Names in `instead` are left alone unless they
        hold what that says (None: nothing): those, which is the return value, are for the caller to look at. IsADirectory.
        """
        with self._change() as change:
            staged = change.directory(directory)
            for name, (head, _) in change.among(staged, list(removed)).items():
                _require_file(name, head)
                change.remove(staged, name)
            there = change.among(staged, [row[0] for row in rows])
            for name, (head, _) in there.items():
                _require_file(name, head)
            left = {
                name
                for name, data in instead.items()
                if (self.payload(decode_entry(*there[name])) if name in there else None) != data
            }
            if there or left:
                wanted = [row for row in rows if row[0] not in left]
                rows = [_with_birth(row, there[row[0]][0], born) if row[0] in there else row for row in wanted]
            change.put_all(staged, rows)
        return sorted(left)

    def remove_many(self, directory: Path, names: Iterable[bytes]) -> None:
        """Remove many entries of one directory, in one record. NotFound if one is not there, then none is removed."""
        with self._change() as change:
            staged = change.directory(directory)
            for name in names:
                found = change.find(staged, name)
                if found is None:
                    raise NotFound(f"there is no {path_text((*directory, name))} on branch {self.branch!r}")
                change.remove(staged, name)
                change.drop(found)

    def sample_entry(
        self, schema: Schema, array: Array, mtime: int | None = None, what: str = "array", replaces: Path | None = None
    ) -> Entry:
        """Store an array's contents; the entry to stage it with, at the path `replaces` if that is known. SchemaMismatch."""
        check_array(schema, array.dtype, array.shape, what)
        data = array.tobytes()
        before = self._predecessor(replaces) if replaces is not None and len(data) > DELTA_MIN else ()
        flags, value = store_payload(
            self._p.objects, BytesSource(memoryview(data)), 0, array.dtype.itemsize, before, schema.compression
        )
        size = len(canonical_header(schema.dtype, array.shape)) + len(data)
        attributes = Attributes(shape=array.shape) if schema.variable else PLAIN
        return Entry(Kind.SAMPLE, size, time.time_ns() if mtime is None else mtime, attributes, flags, value)

    def value_entry(self, schema: Schema, data: bytes, replaces: Path) -> Entry:
        """Store the file form of a str, of bytes or of JSON; the entry to stage it with at the path `replaces`."""
        before = self._predecessor(replaces) if len(data) > DELTA_MIN else ()
        flags, value = store_payload(self._p.objects, BytesSource(data), 0, 1, before, schema.compression)
        return Entry(Kind.SAMPLE, len(data), time.time_ns(), PLAIN, flags, value)

    def pending(self, schema: Schema, data: Array | bytes, replaces: Path) -> Pending | None:
        """A sample for `stores.packing`, to be stored with others; as `sample_entry` and `value_entry` take it, and as checked.

        None where its contents are stored by themselves: short and very long ones, and those like a version before.
        """
        if isinstance(data, bytes):
            nbytes, itemsize, shape = len(data), 1, None
        else:
            nbytes, itemsize, shape = data.nbytes, data.dtype.itemsize, data.shape
        if not inline_max(itemsize, schema.compression) < nbytes <= CHUNK_MAX:
            return None
        if nbytes > DELTA_MIN and not schema.compression and self._predecessor(replaces):
            return None
        header = 0 if shape is None else len(canonical_header(schema.dtype, shape))
        attributes = Attributes(shape=shape) if schema.variable else PLAIN
        entry = Entry(Kind.SAMPLE, header + nbytes, time.time_ns(), attributes, CHUNKED)
        return Pending(entry, itemsize, schema.compression)

    def put_nested(
        self, directory: Path, samples: Mapping[bytes, Sequence[tuple[bytes, Entry]]], schema: Schema
    ) -> None:
        """Stage entries of many directories right below one, in one record; those that are missing are made, with `schema`."""
        stamp = time.time_ns()
        with self._change() as change:
            above = change.directory(directory)
            for name, rows in samples.items():
                if change.find(above, check_name(name)) is None:
                    child = change.new_directory(EMPTY, (*directory, name))
                    head = encode_head(Entry(Kind.STAGED, 0, stamp, Attributes(schema=schema)))
                    change.put(above, name, head, STAGED_ID.pack(child), new=True)
                    change.touch(child, stamp)
                else:
                    child = change.directory((*directory, name))
                change.put_many(child, [(sub, encode_head(e), self._p.staging.value(e.value)) for sub, e in rows])

    def folded(self, path: Path) -> tuple[Entry | None, int]:
        """The entry at `path`, None where there is none, with what is staged below it stored as a commit would store it.

        The tree stays as it is. The number says as of when, for `graft`. NotADirectory on the way to it.
        """
        entry, fresh, since = self._seen(lambda txn: self._folded(txn, path))
        self._p.objects.put_nodes(fresh)
        return entry, since

    def _folded(self, txn: Txn, path: Path) -> tuple[Entry | None, list[tuple[Digest, bytes]], int]:
        parent, name = split(path)
        since = self._p.index.number(txn, GENERATION)
        try:
            where = self._where(txn, parent)
        except NotFound:
            return None, [], since
        row = self._p.staging.row(txn, where.staged, name) if where.staged is not None else None
        if row is None or row.kind is not Kind.STAGED:
            return self._find(txn, where, name), [], since
        return *self._p.committer.fold_staged(txn, row), since

    def graft(self, path: Path, entry: Entry, since: int) -> None:
        """Put one directory that is stored in full in place of what is at `path`, as one row: see `graft_all`."""
        self.graft_all([(path, entry)], since)

    def graft_all(self, grafts: Sequence[tuple[Path, Entry]], since: int) -> None:
        """Put directories that are stored in full in place of what is at their paths: all of them, as one change.

        None may be inside another. Conflict, and nothing is changed, where something at one of the paths, below it or
        above it changed after `since`. What they lead to survives power loss before it can be seen. NotFound if the
        directory around one is not there.
        """
        self._p.log.sync()
        with self._change() as change:
            for path, _ in grafts:
                if self._touched(change.txn, path, since):
                    raise Conflict(
                        f"{path_text(path)} on branch {self.branch!r}", "what it was", "changes by somebody else"
                    )
            for path, entry in grafts:
                parent, name = split(path)
                directory = change.directory(parent)
                found = change.find(directory, name)
                if found is not None:
                    change.drop(found)
                assert isinstance(entry.value, bytes)
                change.put(directory, name, encode_head(entry), entry.value, new=found is None)
            change.structural = True

    def _touched(self, txn: Txn, path: Path, since: int) -> bool:
        """Whether anybody changed what is at `path`, below it or above it after that generation; in doubt, yes."""
        index = self._p.index
        if index.number(txn, GENERATION) == since:
            return False
        rows = list(index.scan(txn, index.changes, b"", number_key(since)))
        if not rows or int.from_bytes(rows[0][0], "big") != since + 1:
            return True
        return any(_concerns(value, self.branch, path) for _, value in rows)

    def sync(self) -> None:
        """Make everything acknowledged so far, by any process, survive power loss."""
        self._p.log.sync()

    def commit(
        self, message: str, *, author: Author | None = None, metadata: Mapping[str, str] | None = None
    ) -> Digest:
        """Freeze everything staged as a commit of this branch; durable when it returns. NothingToCommit.

        A merge under way ends with it: an empty message is that of the merge then, and a cherry-pick keeps its author.
        """
        return self._p.committer.commit(self.branch, message, author, dict(metadata or {}))

    def amend(
        self, message: str | None = None, *, author: Author | None = None, metadata: Mapping[str, str] | None = None
    ) -> Digest:
        """Put a commit of the working tree in the tip's place: with the tip's parents, and its message and metadata unless
        given. Only this branch moves. NothingToCommit.
        """
        facts = None if metadata is None else dict(metadata)
        return self._p.committer.amend(self.branch, message, author or self._p.author, facts)


def _require_file(name: bytes, head: bytes) -> None:
    if head[0] in (Kind.DIRECTORY, Kind.STAGED):
        raise IsADirectory(f"{path_text((name,))} is a directory")


def _with_birth(row: LeafRow, old: bytes, born: bytes) -> LeafRow:
    """A row with the attributes of what it replaces, whose head is `old`."""
    name, head, value = row
    kind, flags, _, _, size, mtime = HEAD.unpack_from(head)
    extra = old[HEAD.size :]
    if old[0] != Kind.SAMPLE or born not in extra:
        before = decode_entry(old, b"")
        kept = before.attributes
        xattrs = dict(kept.xattrs)
        if born:
            xattrs.setdefault(born, str(before.mtime).encode())
        extra = encode_attributes(Attributes(kept.mode, kept.uid, kept.gid, tuple(sorted(xattrs.items()))))
    return name, HEAD.pack(kind, flags, 0, len(extra), size, mtime) + extra, value


def _concerns(change: bytes, branch: str, path: Path) -> bool:
    """Whether a row of the table of changes may tell of something at `path`, below it or above it."""
    for changed, place, names in decode_change(change):
        here = tuple(place)
        if changed not in ("", branch):
            continue
        if here[: len(path)] == path:
            return True
        if path[: len(here)] == here and (names is None or path[len(here)] in names):
            return True
    return False
