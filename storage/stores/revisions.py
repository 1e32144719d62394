"""Finding commits: by name, by prefix, by date; and the operation log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from storage.disk.index import Index
from storage.disk.segments import Segments
from storage.errors import Ambiguous, Corrupt, NotFound
from storage.model import history
from storage.model.digest import DIGEST_SIZE, Digest, hexed
from storage.model.records import RefsRecord, decode_refs_record
from storage.stores.objects import Objects
from storage.stores.refs import BRANCH, BranchRef, Refs, operation_place, ref_text

SHORTEST_PREFIX = 4
LISTED_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the operation log; `number` counts from 1, the making of the repository."""

    number: int
    sequence: int
    time: int
    author: str
    description: str
    record: RefsRecord

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """The refs that moved: (ref, old, new) as text, empty where a ref did not exist."""
        return [(name, ref_text(name, old), ref_text(name, new)) for name, old, new in self.record.updates]


class Revisions:
    """Reads the history of a repository. Thread-safe."""

    def __init__(self, index: Index, segments: Segments, refs: Refs, objects: Objects) -> None:
        self._index = index
        self._segments = segments
        self._refs = refs
        self._objects = objects

    def commits(self) -> list[Digest]:
        """All commits stored here, newest first."""
        with self._index.read() as txn:
            rows = [(when, key) for key, when in self._index.scan(txn, self._index.commits, b"")]
        return [Digest(key) for _, key in sorted(rows, reverse=True)]

    def resolve(self, revision: str) -> Digest:
        """The commit that a revision names. NotFound, Ambiguous.

        A branch or tag, HEAD, or at least four digits of a commit's name, then `@{date}` or `@{n}`, `~n`, `^n`. A branch goes
        before a tag, a tag before digits.
        """
        parsed = history.parse_revision(revision)
        if parsed.at is not None:
            start = self._tip_at(parsed.base, parsed.at)
        elif parsed.moves is not None:
            start = self._tip_before(parsed.base, parsed.moves)
        else:
            start = self._named(parsed.base)
        return history.follow(self._objects.commit, start, parsed.steps)

    def _named(self, name: str) -> Digest:
        with self._index.read() as txn:
            branch = self._refs.head(txn) if name == "HEAD" else name
            try:
                tip = self._refs.branch(txn, branch).tip
            except NotFound:
                tag = self._refs.tags(txn).get(name)
                return Digest(tag.digest) if tag else self._by_prefix(name)
            if tip is None:
                raise NotFound(f"branch {branch!r} has no commit yet")
            return tip

    def _by_prefix(self, text: str) -> Digest:
        nothing = NotFound(f"there is no branch, tag or commit {text!r}")
        if len(text) < SHORTEST_PREFIX or len(text) > 64:
            raise nothing
        try:
            prefix = bytes.fromhex(text[: len(text) // 2 * 2])
        except ValueError:
            raise nothing from None
        with self._index.read() as txn:
            keys = [key for key, _ in self._index.scan(txn, self._index.commits, prefix)]
        found = [key for key in keys if key.hex().startswith(text.lower())]
        if not found:
            raise nothing
        if len(found) > 1:
            raise Ambiguous(text, [key.hex() for key in found])
        return Digest(found[0])

    def _tip_at(self, name: str, moment: int) -> Digest:
        for when, tip in self._tips(name):
            if when <= moment:
                if tip is None:
                    break
                return tip
        raise NotFound(f"branch {name!r} had no commit then")

    def _tip_before(self, name: str, moves: int) -> Digest:
        for number, (_, tip) in enumerate(self._tips(name)):
            if number == moves and tip is not None:
                return tip
        raise NotFound(f"branch {name!r} had no commit {moves} moves ago")

    def _tips(self, name: str) -> Iterator[tuple[int, Digest | None]]:
        """Where a branch was (None: nowhere) and since when, newest first; what it was under an older name comes along."""
        with self._index.read() as txn:
            ref = BRANCH + (self._refs.head(txn) if name == "HEAD" else name)
        for operation in self.each_operation():
            before = _name_before(operation.record, ref)
            for changed, old, new in operation.record.updates:
                if changed == ref == before and old[:DIGEST_SIZE] != new[:DIGEST_SIZE]:
                    yield operation.time, BranchRef.decode(new).tip if new else None
            ref = before

    def abbreviation(self, digest: Digest) -> str:
        """The shortest prefix of a commit's name that is its own, of at least 16 digits."""
        text = hexed(digest)
        with self._index.read() as txn:
            others = [
                key.hex()
                for key, _ in self._index.scan(txn, self._index.commits, digest[: LISTED_DIGITS // 2])
                if key != digest
            ]
        length = LISTED_DIGITS
        while any(other.startswith(text[:length]) for other in others):
            length += 1
        return text[:length]

    def operations(self, limit: int | None = None) -> list[Operation]:
        """The operation log, newest first."""
        return list(islice(self.each_operation(), limit))

    def each_operation(self) -> Iterator[Operation]:
        """The operations one by one, newest first; each is read when it is asked for."""
        with self._index.read() as txn:
            rows = list(self._index.scan(txn, self._index.operations, b""))
        for number in range(len(rows), 0, -1):
            key, value = rows[number - 1]
            record = decode_refs_record(self._read(key, value))
            sequence = int.from_bytes(key, "big")
            yield Operation(number, sequence, record.time, record.author, record.description, record)

    def operation(self, number: int) -> Operation:
        """The operation of that number. NotFound."""
        for operation in self.each_operation():
            if operation.number == number:
                return operation
        raise NotFound(f"there is no operation {number}")

    def _read(self, key: bytes, value: bytes) -> bytes:
        try:
            return self._segments.read(operation_place(value))
        except Corrupt:
            with self._index.read() as txn:
                now = txn.get(key, db=self._index.operations)
            if now is None or now == value:
                raise
            return self._read(key, now)  # gc moved it between the two steps


def _name_before(record: RefsRecord, ref: str) -> str:
    """The name that a branch had before an operation: another one if the operation gave it this one."""
    given = {new: name for name, old, new in record.updates if name == ref and not old}
    return next((name for name, old, new in record.updates if not new and old in given), ref)
