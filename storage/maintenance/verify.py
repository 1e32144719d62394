"""Verify: read everything back and compare it with what was stored."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from storage.disk.index import Index, number_key
from storage.disk.segments import (
    FILE_SIZE,
    RECORD_SIZE,
    RecordKind,
    SegmentKind,
    Segments,
    checksum,
    parse_file_header,
    scan,
)
from storage.engine import Engine
from storage.errors import ArborError, Corrupt
from storage.model.chunking import decode_chunks, unpack
from storage.model.digest import DIGEST_SIZE, Digest, blake, hexed
from storage.model.records import CHUNKED, INDIRECT, Entry, Kind, Place, decode_commit, decode_entry
from storage.stores.log import END
from storage.stores.objects import OBJECT_ROW, Objects, object_place
from storage.stores.recovery import Problem, hole_key
from storage.stores.refs import Refs
from storage.stores.staging import Staging
from storage.tree.node import EMPTY, BadNode, Inner, decode

Progress = Callable[[int, int], None]

REBUILD = "close the repository everywhere and run `arborfs rebuild`"
RESTORE = "restore the segment file from a copy; other samples stay readable"


def verify(engine: Engine, progress: Progress | None = None) -> list[Problem]:
    """Read every object, check its digest, and follow every reference from refs and staged work.

    Returns what is wrong, nothing where all is well. `progress` is called with objects done and objects in all.
    """
    check = _Verification(engine.objects, *engine.internals())
    return check.run(progress)


class _Verification:
    def __init__(self, objects: Objects, index: Index, segments: Segments, refs: Refs, staging: Staging) -> None:
        self._objects = objects
        self._index = index
        self._segments = segments
        self._refs = refs
        self._staging = staging
        self._problems: list[Problem] = []
        self._kinds: dict[Digest, int] = {}
        self._nodes: set[Digest] = set()
        self._damaged: dict[int, list[int]] = {}

    def run(self, progress: Progress | None) -> list[Problem]:
        """Check every object, then staging, ends and refs; what is wrong."""
        with self._index.read() as txn:
            rows = list(self._index.scan(txn, self._index.objects, b""))
        for done, (key, row) in enumerate(rows, 1):
            self._object(Digest(key), row)
            if progress is not None and (done % 256 == 0 or done == len(rows)):
                progress(done, len(rows))
        self._check_staging()
        self._check_ends()
        self._check_refs()
        return self._problems

    def _report(self, what: str, digest: bytes, where: str, advice: str = RESTORE) -> None:
        self._problems.append(Problem(what, digest.hex(), where, advice))

    def _object(self, digest: Digest, row: bytes) -> None:
        try:
            segment, offset, length, raw_length, kind, codec, _, check = OBJECT_ROW.unpack(row)
        except struct.error as error:
            self._report(f"the index's row of an object cannot be read: {error}", digest, "index", REBUILD)
            return
        where = f"segment {segment:08x} at byte {offset}"
        self._kinds[digest] = kind
        try:
            stored = self._segments.read(Place(segment, offset, length))
            if checksum(stored) != check:
                raise Corrupt("its bytes have changed since they were written")
            data = bytes(self._objects.unpacked(codec, stored, raw_length))
            if blake(data) != digest:
                raise Corrupt("its contents do not have its digest")
            self._references(kind, data)
        except (ArborError, BadNode) as error:
            self._damaged.setdefault(segment, []).append(offset)
            self._report(f"object {hexed(digest)} is damaged: {error}", digest, where)

    def _references(self, kind: int, data: bytes) -> None:
        """Take in what an object refers to."""
        if kind == RecordKind.NODE:
            self._node(decode(data))
        elif kind == RecordKind.COMMIT:
            commit = decode_commit(data)
            self._nodes.update(commit.parents)
            self._reference(commit.root)
        elif kind == RecordKind.CHUNK_LIST:
            self._nodes.update(chunk.digest for chunk in decode_chunks(data))

    def _node(self, node: object) -> None:
        if isinstance(node, Inner):
            self._nodes.update(node.digests)
            return
        for _, head, value in _rows(node):
            self._reference(decode_entry(head, value))

    def _reference(self, entry: Entry) -> None:
        assert isinstance(entry.value, bytes)
        if entry.kind is Kind.DIRECTORY and entry.root != EMPTY:
            self._nodes.add(entry.root)
        elif entry.flags & INDIRECT:
            self._nodes.add(Digest(entry.value))
        elif entry.flags & CHUNKED:
            self._nodes.update(chunk.digest for chunk in decode_chunks(entry.value))

    def _check_ends(self) -> None:
        with self._index.read() as txn:
            rows = list(self._index.scan(txn, self._index.ends, b""))
        for key, value in rows:
            segment, end = int.from_bytes(key, "big"), END.unpack(value)[0]
            path = self._segments.paths_of(segment)
            name = self._segments.path(segment, SegmentKind.LOG).stem
            if path is None:
                with self._index.read() as txn:
                    if txn.get(key, db=self._index.ends) is not None:
                        self._report(f"segment {name} is missing", b"", name)
            elif path.stat().st_size < end:
                self._report(f"segment {name} has {path.stat().st_size} bytes instead of {end}", b"", path.name)
            else:
                self._check_records(segment, path, end)

    def _check_records(self, segment: int, path: Path, end: int) -> None:
        """Look at every record, also those that no object lies in: a rebuild would need them."""
        try:
            for start, length in _holes(path, end):
                met = any(where in range(start, start + length) for where in self._damaged.get(segment, ()))
                if not met and not self._is_known(segment, start, length):
                    self._report(
                        f"{length} bytes of segment {segment:08x} from byte {start} on are no valid records",
                        b"",
                        f"segment {segment:08x} at byte {start}",
                    )
        except FileNotFoundError:
            return  # a journal that was settled meanwhile
        except Corrupt as error:
            self._report(str(error), b"", path.name)

    def _is_known(self, segment: int, start: int, length: int) -> bool:
        with self._index.read() as txn:
            return txn.get(hole_key(segment, start), db=self._index.meta) == number_key(length)

    def _check_refs(self) -> None:
        missing = {digest for digest in self._nodes - self._kinds.keys() if not self._stored(digest)}
        for digest in missing & self._reached() if missing else ():
            self._report(f"object {hexed(digest)} is referred to, but missing", digest, "the index")
        with self._index.read() as txn:
            wanted = {f"branch {n}": ref.tip for n, ref in self._refs.branches(txn).items() if ref.tip}
            wanted |= {f"tag {n}": Digest(tag.digest) for n, tag in self._refs.tags(txn).items()}
        for name, digest in wanted.items():
            if self._kinds.get(digest) != RecordKind.COMMIT and not self._stored(digest):
                self._report(f"{name} names commit {hexed(digest)}, which is missing", digest, "refs")

    def _reached(self) -> set[Digest]:
        """Everything that commits and staged directories lead to.

        What a commit cut short by a power loss left behind leads to nothing that anybody was promised.
        """
        with self._index.read() as txn:
            todo = [Digest(key) for key, _ in self._index.scan(txn, self._index.commits, b"")]
            rows = [data for _, data in self._index.scan(txn, self._index.directories, b"")]
        todo += [Digest(row[:DIGEST_SIZE]) for row in rows]
        reached: set[Digest] = set()
        while todo:
            digest = todo.pop()
            if digest in reached or digest == EMPTY:
                continue
            reached.add(digest)
            kind = self._kinds.get(digest)
            if kind in (RecordKind.NODE, RecordKind.COMMIT, RecordKind.CHUNK_LIST):
                self._nodes = set()
                with suppress(ArborError, BadNode):  # reported before
                    self._references(kind, self._contents(digest))
                todo += self._nodes
        return reached

    def _contents(self, digest: Digest) -> bytes:
        with self._index.read() as txn:
            row = txn.get(digest, db=self._index.objects) or b""
        place, raw_length, codec = object_place(row)
        return bytes(unpack(codec, self._segments.read(place), raw_length))

    def _stored(self, digest: Digest) -> bool:
        with self._index.read() as txn:
            return txn.get(digest, db=self._index.objects) is not None

    def _check_staging(self) -> None:
        with self._index.read() as txn:
            for name, ref in self._refs.branches(txn).items():
                todo = [ref.root_id]
                while todo:
                    directory = todo.pop()
                    for entry_name, row in self._staging.rows(txn, directory):
                        if row.kind is Kind.STAGED:
                            todo.append(row.staged_id)
                            continue
                        try:
                            value = self._staging.value(row.value)
                            self._staged_value(decode_entry(row.head, value))
                        except ArborError as error:
                            if isinstance(row.value, Place):
                                self._damaged.setdefault(row.value.segment, []).append(row.value.offset)
                            shown = entry_name.decode("utf-8", "backslashreplace")
                            self._report(
                                f"staged {shown!r} on branch {name!r}: {error}", b"", "journal", "write it again"
                            )

    def _staged_value(self, entry: Entry) -> None:
        missing: list[Digest] = []
        assert isinstance(entry.value, bytes)
        if entry.kind in (Kind.FILE, Kind.SAMPLE) and entry.flags & INDIRECT:
            missing = [Digest(entry.value)]
        elif entry.kind in (Kind.FILE, Kind.SAMPLE) and entry.flags & CHUNKED:
            missing = [chunk.digest for chunk in decode_chunks(entry.value)]
        for digest in missing:
            if not self._stored(digest):
                raise Corrupt(f"chunk {hexed(digest)} is missing", digest=hexed(digest))


def _holes(path: Path, end: int) -> Iterator[tuple[int, int]]:
    """Offset and length of everything up to `end` that is no valid record."""
    at = FILE_SIZE
    with path.open("rb") as file:
        parse_file_header(file.read(FILE_SIZE), path)
        with mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            for record in scan(data, path):
                if record.payload is None:
                    continue
                record.payload.release()
                start = record.place.offset - RECORD_SIZE
                if start > at:
                    yield at, start - at
                at = record.place.offset + record.place.length
    if at < end:
        yield at, end - at


def _rows(leaf: object) -> Iterator[tuple[bytes, bytes, bytes]]:
    for i in range(len(leaf)):  # type: ignore[arg-type]
        yield leaf.row(i)  # type: ignore[attr-defined]
