"""The entries of a branch's working tree, changed one at a time: a change is one atomic record, safe when the call returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from msgspec.structs import replace

from storage.disk.index import Txn, number_key
from storage.disk.segments import SegmentKind
from storage.errors import (
    Conflict,
    Corrupt,
    Exists,
    InvalidName,
    IsADirectory,
    NeedsCopy,
    NotADirectory,
    NotEmpty,
    NotFound,
)
from storage.model.chunking import ChunkRef
from storage.model.deltas import DELTA_MIN
from storage.model.names import CONTROL, Path, check_name, meant_by, path_text
from storage.model.records import (
    PLAIN,
    Attributes,
    Entry,
    Kind,
    Place,
    Schema,
    decode_entry,
    encode_head,
)
from storage.model.samples import Source, file_header
from storage.snapshot import Snapshot
from storage.stores.changes import Change, Found
from storage.stores.contents import (
    Content,
    chunks_of,
    stored_entry,
)
from storage.stores.staging import STAGED_ID, Where
from storage.tree import read
from storage.tree.node import EMPTY
from storage.working import Known, WorkingReader, staged_id


class EntryWriter(WorkingReader):
    """The tree of one branch, to put, make, move, change and remove single entries in it. Thread-safe."""

    @contextmanager
    def _change(self) -> Iterator[Change]:
        p = self._p
        with p.log.change(SegmentKind.JOURNAL) as txn:
            known = self._now_known(txn)
            change = Change(p.index, p.log, p.objects, p.refs, p.staging, txn, self.branch, known.places)
            yield change
            generation = change.write(p.origin)
        if not change.structural:
            self._still_known(known, generation)

    def _still_known(self, known: Known, generation: int) -> None:
        """What was known before a change that moved, removed and staged no directory that was there holds after it."""
        if self._known is known:
            self._known = Known(number_key(generation), known.places, known.merging)

    def storing(self) -> AbstractContextManager[None]:
        """While it is entered gc leaves alone what is stored, or found stored, and only named in the end."""
        return self._p.pins.working()

    def put_file(
        self,
        path: Path,
        source: Source,
        *,
        attributes: Attributes | None = None,
        mtime: int | None = None,
        instead: Entry | EllipsisType | None = ...,
    ) -> Entry:
        """Create or replace a file; in a dataset, a name with its suffix is a sample and must fit the schema.

        `attributes` None keeps mode, owner and xattrs of what was there. SchemaMismatch and InvalidSample leave the tree
        as it was; an empty source is taken as a file still to be filled. With `instead`, an entry that was read there or None
        for nothing, Conflict where something else stands there now.
        """
        parent, name = split(path)
        schema = sample_schema(self.schema_of(parent), name)
        if source.size == 0 and schema is not None and not schema.takes_empty:
            schema = None
        stamp = time.time_ns() if mtime is None else mtime
        begun = source.base is not None and source.base.chunks
        before = self._predecessor(path) if source.size > DELTA_MIN and not begun else ()
        entry = stored_entry(self._p.objects, source, schema, path_text(path), stamp, attributes or PLAIN, before)
        with self._change() as change:
            directory = change.directory(parent)
            found = change.find(directory, name)
            if instead is not ... and instead != (found.entry if found is not None else None):
                raise Conflict(path_text(path), "what was read", "another version")
            if found is not None and found.entry.is_directory:
                raise IsADirectory(f"{path_text(path)} is a directory")
            if attributes is None and found is not None:
                old = found.entry.attributes
                kept = replace(entry.attributes, mode=old.mode, uid=old.uid, gid=old.gid, xattrs=old.xattrs)
                entry = replace(entry, attributes=kept)
            assert isinstance(entry.value, bytes)
            change.put(directory, name, encode_head(entry), entry.value, new=found is None)
        return entry

    def _predecessor(self, path: Path) -> Sequence[ChunkRef]:
        """The chunks of what a new version at `path` replaces, or will when it gets the name that it is meant for: what stays
        alike need not be stored twice. Of what stands there, else of what the last commit has there.
        """
        with self._p.index.read() as txn:
            for head, value in self._versions(txn, path):
                with suppress(NotFound, Corrupt):  # one that cannot be read is none
                    chunks = chunks_of(self._p.objects, decode_entry(head, value), self._p.staging.value(value))
                    if chunks:
                        return chunks
        return ()

    def _versions(self, txn: Txn, path: Path) -> Iterator[tuple[bytes, bytes | Place]]:
        """Head and value of what is staged under those names, and of what the trees below have there."""
        parent, names = path[:-1], (path[-1], *meant_by(path[-1]))
        staged, roots = None, []
        with suppress(NotFound, NotADirectory):
            where = self._where(txn, parent)
            staged, roots = where.staged, [where.base]
        tip = self._p.refs.branch(txn, self.branch).tip
        with suppress(NotFound, NotADirectory):
            committed = Snapshot(self._p.objects, tip).entry(parent) if tip else None
            if committed is not None and committed.kind is Kind.DIRECTORY and committed.root not in roots:
                roots.append(committed.root)
        for name in names:
            row = None if staged is None else self._p.staging.row(txn, staged, name)
            if row is not None and row.kind is not Kind.REMOVED:
                yield row.head, row.value
            for root in roots:
                found = read.get(self._p.objects.node, root, name) if root != EMPTY else None
                if found is not None:
                    yield found

    def make_file(self, path: Path, *, attributes: Attributes = PLAIN, mtime: int | None = None) -> Entry:
        """A new, empty file; in a dataset, a sample still to be filled. Exists."""
        parent, name = split(path)
        schema = sample_schema(self.schema_of(parent), name)
        kind = Kind.SAMPLE if schema is not None and schema.takes_empty else Kind.FILE
        entry = Entry(kind, 0, time.time_ns() if mtime is None else mtime, attributes)
        with self._change() as change:
            directory = change.directory(parent)
            if change.find(directory, name) is not None:
                raise Exists(f"{path_text(path)} is there already")
            change.put(directory, name, encode_head(entry), b"", new=True)
        return entry

    def make_directory(self, path: Path, *, attributes: Attributes = PLAIN, mtime: int | None = None) -> Entry:
        """A new, empty directory; a dataset if the attributes hold a schema; in a nested dataset, a sample. Exists."""
        parent, name = split(path)
        stamp = time.time_ns() if mtime is None else mtime
        dataset = self.schema_of(parent)
        if dataset is not None and dataset.nested and attributes.schema is None:
            attributes = replace(attributes, schema=dataset.inner)
        with self._change() as change:
            directory = change.directory(parent)
            if change.find(directory, name) is not None:
                raise Exists(f"{path_text(path)} is there already")
            child = change.new_directory(EMPTY, path)
            entry = Entry(Kind.STAGED, 0, stamp, attributes, 0, STAGED_ID.pack(child))
            change.put(directory, name, encode_head(entry), STAGED_ID.pack(child), new=True)
            change.touch(child, stamp)
        return entry

    def make_symlink(
        self, path: Path, target: bytes, *, attributes: Attributes = PLAIN, mtime: int | None = None
    ) -> Entry:
        """A new symbolic link. Exists."""
        parent, name = split(path)
        stamp = time.time_ns() if mtime is None else mtime
        entry = Entry(Kind.SYMLINK, len(target), stamp, attributes, 0, target)
        with self._change() as change:
            directory = change.directory(parent)
            if change.find(directory, name) is not None:
                raise Exists(f"{path_text(path)} is there already")
            change.put(directory, name, encode_head(entry), target, new=True)
        return entry

    def remove(self, path: Path, *, instead: Entry | None = None) -> None:
        """Remove a file, sample or symbolic link. IsADirectory; Conflict where it is not the entry `instead` that was read."""
        parent, name = split(path)
        with self._change() as change:
            directory, found = self._existing(change, parent, name, path)
            if found.entry.is_directory:
                raise IsADirectory(f"{path_text(path)} is a directory")
            if instead is not None and instead != found.entry:
                raise Conflict(path_text(path), "what was read", "another version")
            change.remove(directory, name)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory. NotEmpty, NotADirectory."""
        parent, name = split(path)
        with self._change() as change:
            directory, found = self._existing(change, parent, name, path)
            self._require_empty(change, found, path)
            change.remove(directory, name)
            change.drop(found)

    def remove_tree(self, path: Path) -> None:
        """Remove whatever is at `path`, a directory with all below it: one row."""
        parent, name = split(path)
        with self._change() as change:
            directory, found = self._existing(change, parent, name, path)
            change.remove(directory, name)
            change.drop(found)

    def _existing(self, change: Change, parent: Path, name: bytes, path: Path) -> tuple[int, Found]:
        directory = change.directory(parent)
        found = change.find(directory, name)
        if found is None:
            raise NotFound(f"there is no {path_text(path)} on branch {self.branch!r}")
        return directory, found

    def _require_empty(self, change: Change, found: Found, path: Path) -> None:
        if not found.entry.is_directory:
            raise NotADirectory(f"{path_text(path)} is not a directory")
        txn = change.txn
        if found.entry.kind is Kind.STAGED:
            directory = staged_id(found.entry)
            row = self._p.staging.directory(txn, directory)
            where = Where(directory, row.base if row else EMPTY, None)
        else:
            where = Where(None, found.entry.root, None)
        if next(self._merged(txn, where, b""), None) is not None:
            raise NotEmpty(f"{path_text(path)} is not empty")

    def put_entry(self, path: Path, entry: Entry | None) -> None:
        """Stage a committed entry as it is, a directory with all below it; None: nothing is there. One row.

        Replaces whatever is there. NotFound where there is no directory above it.
        """
        parent, name = split(path)
        with self._change() as change:
            directory = change.directory(parent)
            found = change.find(directory, name)
            if found is not None:
                change.drop(found)
            if entry is None:
                change.remove(directory, name)
            else:
                change.put(directory, name, encode_head(entry), self._p.staging.value(entry.value), new=found is None)

    def put_attributes(self, path: Path, attributes: Attributes) -> None:
        """Give an entry that mode, owner and xattrs; what else it has stays."""

        def changed(entry: Entry) -> Entry:
            """The entry with what `attributes` say."""
            mode, uid, gid, xattrs = attributes.mode, attributes.uid, attributes.gid, attributes.xattrs
            return replace(entry, attributes=replace(entry.attributes, mode=mode, uid=uid, gid=gid, xattrs=xattrs))

        self._edit_entry(path, changed, None)

    def rename(self, old: Path, new: Path, *, replace: bool = True) -> None:
        """Move an entry, atomically, over an existing one of its kind if `replace`.

        A file moved into a dataset under a sample's name must fit its schema; a sample moved out becomes a plain file with
        the same bytes. Exists, NotEmpty, IsADirectory, NotADirectory, InvalidName (into itself), SchemaMismatch.
        """
        (old_parent, old_name), (new_parent, new_name) = split(old), split(new)
        if new[: len(old)] == old and new != old:
            raise InvalidName(f"{path_text(old)} cannot be moved into itself")
        self._require_at_home(old, new)
        moved = self._converted(old, new)
        if old[: len(new)] == new and new != old:
            raise NotEmpty(f"{path_text(new)} is not empty: {path_text(old)} is in it")
        with self._change() as change:
            source, found = self._existing(change, old_parent, old_name, old)
            target = change.directory(new_parent)
            over = change.find(target, new_name)
            if over is not None and not replace:
                raise Exists(f"{path_text(new)} is there already")
            if old == new:
                return
            if over is not None:
                self._require_replaceable(change, found, over, new)
            head, value = self._moved(change, found, moved, old)
            change.remove(source, old_name)
            if over is not None:
                change.drop(over) if over.entry.is_directory else None
            change.put(target, new_name, head, value, new=True)
            if found.entry.is_directory:
                change.structural = True

    def _require_replaceable(self, change: Change, found: Found, over: Found, path: Path) -> None:
        if found.entry.is_directory:
            self._require_empty(change, over, path)
        elif over.entry.is_directory:
            raise IsADirectory(f"{path_text(path)} is a directory")

    def exchange(self, first: Path, second: Path) -> None:
        """Exchange two entries, atomically."""
        (first_parent, first_name), (second_parent, second_name) = split(first), split(second)
        if first[: len(second)] == second or second[: len(first)] == first:
            if first == second:
                return
            raise InvalidName(f"{path_text(first)} and {path_text(second)} are inside each other")
        self._require_at_home(first, second)
        self._require_at_home(second, first)
        one, other = self._converted(first, second), self._converted(second, first)
        with self._change() as change:
            a, found_a = self._existing(change, first_parent, first_name, first)
            b, found_b = self._existing(change, second_parent, second_name, second)
            row_a = self._moved(change, found_a, one, first)
            row_b = self._moved(change, found_b, other, second)
            change.put(b, second_name, *row_a, new=True)
            change.put(a, first_name, *row_b, new=True)
            change.structural = True

    def _require_at_home(self, old: Path, new: Path) -> None:
        """NeedsCopy for a directory that would become a sample of a nested dataset, or cease to be one."""
        entry, dataset = self.entry(old), self.schema_of(new[:-1])
        if not entry.is_directory:
            return
        wanted = dataset.inner if dataset is not None and dataset.nested else None
        found = entry.schema if entry.schema is not None and entry.schema.is_sample else None
        if wanted != found:
            raise NeedsCopy(
                f"{path_text(old)} cannot become {path_text(new)} by moving it: copy it, and remove the old one"
            )

    def _converted(self, old: Path, new: Path) -> tuple[Entry, Entry] | None:
        """What a move makes of a file whose meaning changes with its place: the entry it was made from, and the new one.

        Contents are stored before the move's transaction begins; the move checks that the file is still the same.
        """
        entry = self.entry(old)
        after = self.fitting(entry, self.schema_of(old[:-1]), new)
        return None if after is entry else (entry, after)

    def fitting(self, entry: Entry, dataset: Schema | None, path: Path) -> Entry:
        """An entry of a directory with the schema `dataset` as it has to stand at `path`: the same, or a sample of the schema
        there, or a plain file with the bytes that the sample had. Its contents are stored. SchemaMismatch.
        """
        if entry.kind not in (Kind.FILE, Kind.SAMPLE):
            return entry
        wanted = sample_schema(self.schema_of(path[:-1]), path[-1])
        current = dataset if entry.kind is Kind.SAMPLE else None
        if wanted is None and current is None:
            return entry
        if wanted is not None and current is not None and wanted.hash == current.hash:
            return entry
        if wanted is not None:
            if entry.size == 0 and not wanted.takes_empty:
                return replace(entry, kind=Kind.FILE)
            source = ContentSource(self.content(entry, current))
            before = self._predecessor(path)
            return stored_entry(self._p.objects, source, wanted, path_text(path), entry.mtime, entry.attributes, before)
        head = file_header(current, entry.attributes)
        kept = replace(entry.attributes, header=head, shape=None)
        return replace(entry, kind=Kind.FILE, attributes=kept)

    def _moved(
        self, change: Change, found: Found, converted: tuple[Entry, Entry] | None, path: Path
    ) -> tuple[bytes, bytes]:
        if converted is None:
            return encode_head(found.entry), change.value(found)
        before, after = converted
        if found.entry != before:
            raise NotFound(f"{path_text(path)} changed while it was moved")
        return encode_head(after), self._p.staging.value(after.value)

    def set_attributes(
        self,
        path: Path,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mtime: int | None = None,
        xattrs: Mapping[bytes, bytes | None] | None = None,
    ) -> Entry:
        """Change what is given, leave the rest; an xattr of value None is removed."""

        def changed(entry: Entry) -> Entry:
            """The entry with what is given in the place of what it had."""
            old = entry.attributes
            pairs = dict(old.xattrs)
            for key, value in (xattrs or {}).items():
                pairs.pop(key, None)
                if value is not None:
                    pairs[key] = value
            kept = replace(
                old,
                mode=old.mode if mode is None else mode,
                uid=old.uid if uid is None else uid,
                gid=old.gid if gid is None else gid,
                xattrs=tuple(sorted(pairs.items())),
            )
            return replace(entry, attributes=kept, mtime=entry.mtime if mtime is None else mtime)

        return self._edit_entry(path, changed, mtime)

    def set_schema(self, path: Path, schema: Schema | None) -> Entry:
        """Make a directory a dataset with that schema, or an ordinary one."""
        return self._edit_entry(path, lambda e: replace(e, attributes=replace(e.attributes, schema=schema)), None)

    def _edit_entry(self, path: Path, changed: Callable[[Entry], Entry], mtime: int | None) -> Entry:
        if not path:
            return self._edit_root(changed, mtime)
        parent, name = split(path)
        with self._change() as change:
            directory, found = self._existing(change, parent, name, path)
            entry = changed(self._with_time(change, found.entry))
            change.put(directory, name, encode_head(entry), change.value(found))
            if mtime is not None and entry.kind is Kind.STAGED:
                change.touch(change.directory(path), mtime)
            change.structural = change.structural or entry.is_directory
        return entry

    def _with_time(self, change: Change, entry: Entry) -> Entry:
        """The entry with the time of a staged directory, which stands in a row of its own."""
        if entry.kind is not Kind.STAGED:
            return entry
        known = self._p.staging.directory(change.txn, staged_id(entry))
        return replace(entry, mtime=known.mtime) if known is not None and known.mtime else entry

    def _edit_root(self, changed: Callable[[Entry], Entry], mtime: int | None) -> Entry:
        with self._change() as change:
            root, _ = change.root()
            entry = changed(self._root_entry(change.txn))
            change.set_root(encode_head(entry))
            change.structural = True
            if mtime is not None:
                change.touch(root, mtime)
        return entry


@dataclass(frozen=True, slots=True)
class ContentSource:
    """Stored contents as the source of a new entry."""

    content: Content
    base: Any = None
    dirty: Sequence[tuple[int, int]] = ()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.content.size

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """`size` bytes from `offset`, fewer only at the end."""
        return self.content.read(offset, size)


def split(path: Path) -> tuple[Path, bytes]:
    """Parent and checked name of a path. The name of the metadata directory is taken at the root only."""
    if not path:
        raise InvalidName("the root of a branch cannot be replaced, moved or removed")
    if path == (CONTROL,):
        return (), CONTROL
    return path[:-1], check_name(path[-1])


def sample_schema(dataset: Schema | None, name: bytes) -> Schema | None:
    """The schema that a file of that name must fit in a directory with that schema; None for an ordinary file."""
    return dataset if dataset is not None and name.endswith(dataset.suffix) else None
