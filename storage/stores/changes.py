"""Building one staging change: which rows of which staged directories, as one record of the journal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from storage.disk.index import COLLECTIONS, Index, Txn
from storage.disk.segments import Record, RecordKind, SegmentKind
from storage.errors import Collected, IsADirectory, NotADirectory, NotFound
from storage.model.digest import DIGEST_SIZE, Digest
from storage.model.names import Path, path_text
from storage.model.records import Entry, Kind, Place, StageRecord, decode_entry, encode_head, encode_record
from storage.stores.contents import FLAGS, contents_digests
from storage.stores.log import Log
from storage.stores.objects import Objects
from storage.stores.refs import Refs
from storage.stores.single import write_row
from storage.stores.staging import (
    REMOVED_HEAD,
    STAGED_ID,
    LeafRow,
    StagedDirectory,
    Staging,
    Where,
    apply_stage,
    note_change,
)
from storage.tree import read
from storage.tree.node import EMPTY, encode_leaf

_LENGTH_SIZE = 4
MANY_NAMES = 64


class Found(msgspec.Struct, frozen=True, gc=False):
    """An entry of a working tree as it stands: head and value as stored, and whether the row is a staged one."""

    entry: Entry
    head: bytes
    staged: bool


@dataclass(slots=True)
class _Group:
    """Rows of one staged directory. `stamped`: names came or went, so its time changes. `unchanged` are the names of
    directories that were only staged because something below them changes.
    """

    base: Digest
    path: Path
    rows: dict[bytes, LeafRow] = field(default_factory=dict)
    mtime: int = 0
    stamped: bool = False
    unchanged: set[bytes] = field(default_factory=set)

    @property
    def changed(self) -> list[bytes]:
        """The names that mean something else now."""
        return [name for name in self.rows if name not in self.unchanged]


class Change:
    """One change of a branch's staged rows, inside `log.change(JOURNAL)`; `write` makes it one record.

    `known` are directories as they are at the beginning of the transaction.
    """

    def __init__(
        self,
        index: Index,
        log: Log,
        objects: Objects,
        refs: Refs,
        staging: Staging,
        txn: Txn,
        branch: str,
        known: Mapping[Path, Where],
    ) -> None:
        self._index = index
        self._log = log
        self._objects = objects
        self._staging = staging
        self.txn = txn
        self._branch = branch
        self._known = known
        root = known.get(())
        self._root_id = refs.branch(txn, branch).root_id if root is None or root.staged is None else root.staged
        self._groups: dict[int, _Group] = {}
        self._created: dict[int, Digest] = {}
        self._dropped: list[int] = []
        self._attributes: list[tuple[int, bytes]] = []
        self.structural = False

    def directory(self, path: Path) -> int:
        """The id of the directory at `path`, staging it and those above it where needed. NotFound, NotADirectory."""
        above, current = self._known_above(path)
        for depth, name in enumerate(path[above:], above):
            here = path[: depth + 1]
            found = self.find(current, name)
            if found is None:
                raise NotFound(f"there is no {path_text(here)}")
            if not found.entry.is_directory:
                raise NotADirectory(f"{path_text(here)} is not a directory")
            current = self._stage_directory(current, name, found, here)
        return current

    def _known_above(self, path: Path) -> tuple[int, int]:
        """How deep on the way to `path` the last directory is that is known to be staged, and its id."""
        for depth in range(len(path), 0, -1):
            known = self._known.get(path[:depth])
            if known is not None and known.staged is not None:
                # Where it is staged, so is everything above it.
                self._groups.setdefault(known.staged, _Group(known.base, path[:depth]))
                return depth, known.staged
            if self._dropped:
                break  # what is known may be among it
        self._group(self._root_id, ())
        return 0, self._root_id

    def _stage_directory(self, parent: int, name: bytes, found: Found, path: Path) -> int:
        entry = found.entry
        if entry.kind is Kind.STAGED:
            assert isinstance(entry.value, bytes)
            directory = int(STAGED_ID.unpack(entry.value)[0])
            self._group(directory, path)
            return directory
        directory = self.new_directory(entry.root, path)
        self.structural = True  # what is known of it is what it was before
        staged = Entry(Kind.STAGED, entry.size, entry.mtime, entry.attributes)
        self.put(parent, name, encode_head(staged), STAGED_ID.pack(directory))
        self._groups[parent].unchanged.add(name)
        return directory

    def new_directory(self, base: Digest, path: Path) -> int:
        """The id of a new staged directory over `base`."""
        directory = self._index.next_number(self.txn, b"directory")
        self._created[directory] = base
        self._groups[directory] = _Group(base, path)
        return directory

    def _group(self, directory: int, path: Path) -> _Group:
        group = self._groups.get(directory)
        if group is None:
            known = self._staging.directory(self.txn, directory)
            if known is None:
                raise NotFound(f"{path_text(path) if path else 'the branch'} is gone")
            group = self._groups[directory] = _Group(known.base, path)
        return group

    def find(self, directory: int, name: bytes) -> Found | None:
        """What `name` is in a staged directory, this change's own rows included."""
        group = self._groups[directory]
        pending = group.rows.get(name)
        if pending is not None:
            _, head, value = pending
            entry = decode_entry(head, value)
            return None if entry.kind is Kind.REMOVED else Found(entry, head, True)
        row = None if directory in self._created else self._staging.row(self.txn, directory, name)
        if row is not None:
            if row.kind is Kind.REMOVED:
                return None
            return Found(decode_entry(row.head, row.value), row.head, True)
        found = self._in_base(group.base, name)
        return None if found is None else Found(decode_entry(*found), found[0], False)

    def _in_base(self, base: Digest, name: bytes) -> tuple[bytes, bytes] | None:
        return read.get(self._objects.node, base, name) if base != EMPTY else None

    def value(self, found: Found) -> bytes:
        """The stored value of a found entry, to stage it again elsewhere."""
        return self._staging.value(found.entry.value)

    def put(self, directory: int, name: bytes, head: bytes, value: bytes, *, new: bool = False) -> None:
        """Stage an entry; a new one gives its directory a new time."""
        group = self._groups[directory]
        group.stamped |= new
        group.unchanged.discard(name)
        group.rows[name] = (name, head, value)

    def put_many(self, directory: int, rows: Sequence[LeafRow], *, again: bool = False) -> None:
        """Stage many entries; unless `again`, those that stand there already with the same contents stay as they are.

        Others keep mode, owner and xattrs of what they replace.

        IsADirectory when one would replace a directory.
        """
        group = self._groups[directory]
        names = [row[0] for row in rows]
        # Most batches bring new names: those are told apart in one step.
        staged = self._staging.staged_among(self.txn, directory, names) | group.rows.keys()
        if group.base == EMPTY and not staged:
            group.rows.update(zip(names, rows, strict=True))
            group.stamped = True
            return
        for row in rows:
            name, head, value = row
            found = self.find(directory, name) if group.base != EMPTY or name in staged else None
            if found is None:
                group.rows[name] = row
                group.stamped = True
            elif not self._same(found, name, head, value) or again:
                group.rows[name] = (name, _with_kept(head, found.entry), value)

    def among(self, directory: int, names: Sequence[bytes]) -> dict[bytes, tuple[bytes, bytes | Place]]:
        """Head and value of what there is of these names in a staged directory, this change's own rows included."""
        group = self._groups[directory]
        found = {
            name: (row.head, row.value) for name, row in self._staging.rows_among(self.txn, directory, names).items()
        }
        found |= {name: group.rows[name][1:] for name in (names if group.rows else ()) if name in group.rows}
        if group.base != EMPTY:
            committed = ((name, self._in_base(group.base, name)) for name in names if name not in found)
            found |= {name: row for name, row in committed if row is not None}
        return {name: row for name, row in found.items() if row[0][0] != Kind.REMOVED}

    def put_all(self, directory: int, rows: Sequence[LeafRow]) -> None:
        """Stage many entries, whatever they replace."""
        group = self._groups[directory]
        group.rows |= {row[0]: row for row in rows}
        group.stamped = True

    def _same(self, found: Found, name: bytes, head: bytes, value: bytes) -> bool:
        if found.entry.is_directory:
            raise IsADirectory(f"{path_text((name,))} is a directory")
        if found.head == head:
            return self.value(found) == value
        new, old = decode_entry(head, value), found.entry
        same_form = (new.kind, new.size, new.flags) == (old.kind, old.size, old.flags)
        content = (new.attributes.header, new.attributes.shape) == (old.attributes.header, old.attributes.shape)
        return same_form and content and self.value(found) == value

    def remove(self, directory: int, name: bytes) -> None:
        """Stage that `name` is gone.

        The row is needed even where the base has no such name: a commit may just be putting it there.
        """
        group = self._groups[directory]
        group.stamped = True
        group.unchanged.discard(name)
        group.rows[name] = (name, REMOVED_HEAD, b"")

    def drop(self, found: Found) -> None:
        """Forget a staged directory that is removed or replaced."""
        if found.entry.kind is Kind.STAGED:
            assert isinstance(found.entry.value, bytes)
            self._dropped.append(int(STAGED_ID.unpack(found.entry.value)[0]))
        self.structural = True

    def touch(self, directory: int, mtime: int) -> None:
        """Give a staged directory that time of change."""
        self._groups[directory].mtime = mtime

    def set_root(self, head: bytes) -> None:
        """Give the branch's root directory that head."""
        self._attributes.append((self._root_id, head))
        self._group(self._root_id, ())

    def root(self) -> tuple[int, StagedDirectory]:
        """The branch's root directory."""
        known = self._staging.directory(self.txn, self._root_id)
        if known is None:
            raise NotFound(f"branch {self._branch!r} is gone")
        return self._root_id, known

    def write(self, origin: bytes) -> int:
        """Append the record and apply it; the new generation."""
        self._require_contents()
        now = time.time_ns()
        groups = {i: g for i, g in self._groups.items() if g.rows or g.mtime or i in self._created}
        if len(groups) == 1 and not (self._created or self._dropped or self._attributes):
            ((directory, group),) = groups.items()
            if len(group.rows) == 1 and not group.unchanged:
                (row,) = group.rows.values()
                return self._write_row(origin, directory, group, row, group.mtime or (now if group.stamped else 0))
        leaves: list[list[LeafRow]] = []
        blocks: list[bytes] = []
        heads = []
        for directory, group in groups.items():
            rows = [group.rows[name] for name in sorted(group.rows)]
            block = encode_leaf(rows)
            leaves.append(rows)
            blocks.append(block)
            heads.append((directory, group.mtime or (now if group.stamped else 0), len(block)))
        paths = [(list(g.path), _names(g.changed)) for g in groups.values() if g.changed or g.mtime]
        if self._attributes and not any(not path for path, _ in paths):
            paths.append(([], []))
        record = StageRecord(self._branch, list(self._created.items()), self._dropped, heads, self._attributes, paths)
        sequence = self._index.next_sequence(self.txn)
        head = encode_record(record)
        parts: list[bytes | memoryview] = [len(head).to_bytes(_LENGTH_SIZE, "little") + head, *blocks]
        length = sum(map(len, parts))
        place = self._log.append(
            self.txn, SegmentKind.JOURNAL, Record(RecordKind.STAGE, parts, length, sequence=sequence)
        )
        offsets = value_offsets(place.offset + len(parts[0]), blocks, leaves)
        apply_stage(
            self._index, self.txn, self._staging, record, leaves, sequence, place.segment, offsets, self._root_id
        )
        noted = [(self._branch, list(path), names) for path, names in paths]
        return note_change(self._index, self.txn, origin, noted)

    def _write_row(self, origin: bytes, directory: int, group: _Group, row: LeafRow, mtime: int) -> int:
        """Most changes are one row."""
        index, log, txn, root_id = self._index, self._log, self.txn, self._root_id
        return write_row(index, log, txn, origin, self._branch, root_id, group.path, directory, row, mtime)

    def _require_contents(self) -> None:
        """Collected where gc took chunks that these rows refer to, since they were stored or found stored."""
        if not self._index.number(self.txn, COLLECTIONS):
            return
        for group in self._groups.values():
            for name, head, value in group.rows.values():
                if head[1] & FLAGS and head[0] in (Kind.FILE, Kind.SAMPLE):
                    self._require(name, contents_digests(self._objects, head[1], value))
                elif head[0] == Kind.DIRECTORY and value[:DIGEST_SIZE] != EMPTY:
                    self._require(name, [Digest(value[:DIGEST_SIZE])])
        for directory, base in self._created.items():
            self._require(path_text(self._groups[directory].path).encode(), [base] if base != EMPTY else [])

    def _require(self, name: bytes, digests: Iterable[Digest]) -> None:
        todo = list(dict.fromkeys(digests))
        while todo:
            self._require_stored(name, todo)
            todo = [base for delta in self._objects.deltas(todo) for base in delta.bases]

    def _require_stored(self, name: bytes, digests: Iterable[Digest]) -> None:
        for digest in digests:
            if self.txn.get(digest, db=self._index.objects) is None:
                raise Collected(
                    f"gc took what was stored for {path_text((name,))} before it was staged: write it again",
                    digest=digest.hex(),
                )


def _with_kept(head: bytes, old: Entry) -> bytes:
    """The head with mode, owner and xattrs of the entry that it replaces."""
    kept = old.attributes
    if (kept.mode, kept.uid, kept.gid, kept.xattrs) == (None, None, None, ()):
        return head
    new = decode_entry(head, b"")
    attributes = replace(new.attributes, mode=kept.mode, uid=kept.uid, gid=kept.gid, xattrs=kept.xattrs)
    return encode_head(replace(new, attributes=attributes))


def value_offsets(start: int, blocks: list[bytes], leaves: list[list[LeafRow]]) -> list[int]:
    """Where the values of each leaf begin, the first leaf lying at `start`: values are the last part of a leaf."""
    offsets = []
    for block, rows in zip(blocks, leaves, strict=True):
        start += len(block)
        offsets.append(start - sum([len(row[2]) for row in rows]))
    return offsets


def _names(names: list[bytes]) -> list[bytes] | None:
    return names if len(names) <= MANY_NAMES else None
