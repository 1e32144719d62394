"""What a repository's refs, operations, staged work and readers lead to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storage.disk.index import HORIZON, Txn
from storage.disk.segments import RecordKind
from storage.errors import Corrupt, NotFound
from storage.model.chunking import decode_chunks
from storage.model.digest import DIGEST_SIZE, Digest, hexed
from storage.model.records import (
    CHUNKED,
    DIRECTORY_VALUE,
    INDIRECT,
    Kind,
    decode_commit,
    decode_entry,
    decode_refs_record,
)
from storage.stores.objects import Objects, object_kind
from storage.stores.pins import pinned
from storage.stores.refs import commits_of, operation_place
from storage.stores.staging import ROW, decode_row
from storage.tree.node import EMPTY, BadNode, Inner, decode
from storage.working import Parts

_ATTEMPTS = 10
_CONTENTS = (Kind.FILE, Kind.SAMPLE)


@dataclass(frozen=True, slots=True)
class Roots:
    """Where reachability begins, as of the sequence number `upto`.

    Commits with all they came from; directories of trees; other objects.
    """

    upto: int
    commits: set[Digest]
    directories: set[Digest]
    objects: set[Digest]


class Reachable:
    """The digests of everything that the roots given so far lead to. Grows only; about 100 bytes a digest.

    `digests` go on where another one has stopped.
    """

    def __init__(self, objects: Objects, digests: set[Digest] | None = None) -> None:
        self.digests: set[Digest] = set() if digests is None else digests
        self._objects = objects

    def add(self, roots: Roots) -> None:
        """Follow everything from `roots`. Corrupt where it leads to something that is missing or damaged."""
        self.add_contents(roots.objects)
        self.add_commits(roots.commits)
        self.add_directories(roots.directories)

    def add_commits(self, commits: Iterable[Digest]) -> None:
        """Take in commits, all that they came from, and their trees."""
        todo = self._fresh(commits)
        trees = []
        while todo:
            commit = decode_commit(self._load(todo.pop()))
            trees.append(commit.root.root)
            todo += self._fresh(commit.parents)
        self.add_directories(trees)

    def add_directories(self, roots: Iterable[Digest]) -> None:
        """Take in directories with all below them."""
        todo = self._fresh(roots)
        while todo:
            data = self._load(todo.pop())
            try:
                node = decode(data)
            except BadNode as error:
                raise Corrupt(f"a tree node is malformed: {error}; run `arborfs verify`") from error
            if isinstance(node, Inner):
                todo += self._fresh(map(Digest, node.digests))
                continue
            contents: list[Digest] = []
            for head, value in node.leading():
                if head[0] == Kind.DIRECTORY:
                    todo += self._fresh([Digest(value[:DIGEST_SIZE])])
                elif head[1] and head[0] in _CONTENTS:
                    contents += self._contents(head[1], value)
            self.add_contents(contents)

    def add_contents(self, digests: Iterable[Digest]) -> None:
        """Take in chunks and lists of chunks, and the chunks that these are deltas against."""
        todo = self._fresh(digests)
        while todo:
            todo = self._fresh(base for delta in self._objects.deltas(todo) for base in delta.bases)

    def _contents(self, flags: int, value: bytes) -> Iterator[Digest]:
        if flags & CHUNKED:
            yield from (chunk.digest for chunk in decode_chunks(value))
        elif flags & INDIRECT:
            digest = Digest(value)
            if digest not in self.digests:
                yield digest
                yield from (chunk.digest for chunk in decode_chunks(self._load(digest)))

    def _fresh(self, digests: Iterable[Digest]) -> list[Digest]:
        fresh = [digest for digest in dict.fromkeys(digests) if digest not in self.digests and digest != EMPTY]
        self.digests.update(fresh)
        return fresh

    def _load(self, digest: Digest) -> bytes:
        try:
            return bytes(self._objects.get(digest))
        except NotFound as error:
            raise Corrupt(
                f"object {hexed(digest)} is needed, but missing: run `arborfs verify`", digest=hexed(digest)
            ) from error


def settled_roots(parts: Parts, keep_since: int) -> tuple[Roots, int]:
    """The roots in a snapshot of the index, and the first operation since `keep_since` (ns since 1970).

    Read without holding up writers: what they change meanwhile is not in there.
    """
    for _ in range(_ATTEMPTS):
        try:
            with parts.index.read() as txn:
                horizon = _horizon(parts, txn, keep_since)
                return roots_since(parts, txn, 0, horizon), horizon
        except Corrupt as error:
            # A commit elsewhere may have deleted a journal under our feet; real damage is still there the next time.
            failure = error
    raise failure


def roots_since(parts: Parts, txn: Txn, since: int, horizon: int) -> Roots:
    """All roots in `txn`; of staged rows and operations those above the sequence number `since` only.

    Operations below `horizon` keep nothing.
    """
    index = parts.index
    directories = {Digest(row[:DIGEST_SIZE]) for _, row in index.scan(txn, index.directories, b"")}
    roots = Roots(index.number(txn, b"sequence"), set(), directories, set())
    for key, value in index.scan(txn, index.refs, b""):
        # Of a merge that holds its merged root is the base of the branch's staged root; one that does not needs none.
        roots.commits.update(commits_of(key.decode(), value))
    for sequence, place in index.scan(txn, index.operations, b""):
        if int.from_bytes(sequence, "big") >= max(horizon, since + 1):
            _add_operation(parts, place, roots)
    add_pins(parts, txn, roots)
    for _, data in index.scan(txn, index.staged, b""):
        if ROW.unpack_from(data)[0] > since:
            _add_row(parts, data, roots)
    return roots


def add_pins(parts: Parts, txn: Txn, roots: Roots) -> None:
    """Add what live processes have pinned: commits, and contents of files."""
    for digest in pinned(parts.segments.folder.parent / "pins").digests:
        row = txn.get(digest, db=parts.index.objects)
        # Not whether it is listed: somebody may have pinned it while gc took it from the list.
        if row is not None:
            (roots.commits if object_kind(row) == RecordKind.COMMIT else roots.objects).add(digest)


def _add_row(parts: Parts, data: bytes, roots: Roots) -> None:
    kind, flags = data[ROW.size], data[ROW.size + 1]
    if kind == Kind.DIRECTORY:
        value = parts.staging.value(decode_row(data).value)
        roots.directories.add(Digest(DIRECTORY_VALUE.unpack(value)[0]))
    elif kind in _CONTENTS and flags & CHUNKED:
        value = parts.staging.value(decode_row(data).value)
        roots.objects.update(chunk.digest for chunk in decode_chunks(value))
    elif kind in _CONTENTS and flags & INDIRECT:
        digest = Digest(parts.staging.value(decode_row(data).value))
        roots.objects.add(digest)
        roots.objects.update(chunk.digest for chunk in decode_chunks(bytes(parts.objects.get(digest))))


def _horizon(parts: Parts, txn: Txn, keep_since: int) -> int:
    """The first operation that is young enough; never one that an earlier gc has passed over."""
    index = parts.index
    first = index.number(txn, b"sequence") + 1
    for key, place in reversed(list(index.scan(txn, index.operations, b""))):
        if decode_refs_record(parts.segments.read(operation_place(place))).time < keep_since:
            break
        first = int.from_bytes(key, "big")
    return max(first, index.number(txn, HORIZON))


def gives_up_work(parts: Parts, horizon: int) -> bool:
    """Whether operations below `horizon` name working trees that could come back so far."""
    index = parts.index
    with index.read() as txn:
        before = index.number(txn, HORIZON)
        return any(
            decode_refs_record(parts.segments.read(operation_place(place))).kept
            for sequence, place in index.scan(txn, index.operations, b"")
            if before <= int.from_bytes(sequence, "big") < horizon
        )


def _add_operation(parts: Parts, place: bytes, roots: Roots) -> None:
    """Add what an operation names: refs before and after it, and working trees that come back when it is taken back."""
    record = decode_refs_record(parts.segments.read(operation_place(place)))
    for name, old, new in record.updates:
        roots.commits.update(commits_of(name, old))
        roots.commits.update(commits_of(name, new))
    roots.directories.update(decode_entry(head, value).root for _, head, value in record.kept)
