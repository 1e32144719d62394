"""Finding commits: by name, by prefix, by date; and the operation log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from storage.disk.index import Index
from storage.disk.segments import Segments
from storage.errors import Ambiguous, NotFound
from storage.model import history
from storage.model.digest import Digest, hexed
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

        A branch or tag, HEAD, or at least four digits of a commit's name, then `@{date}`, `~n`, `^n`. A branch goes before a
        tag, a tag before digits.
        """
        parsed = history.parse_revision(revision)
        if parsed.at is None:
            start = self._named(parsed.base)
        else:
            start = self._named_at(parsed.base, parsed.at)
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
            listed = ", ".join(key.hex()[:LISTED_DIGITS] for key in found[:5])
            raise Ambiguous(f"{text!r} is the beginning of {len(found)} commits: {listed}")
        return Digest(found[0])

    def _named_at(self, name: str, moment: int) -> Digest:
        ref = BRANCH + (self._head() if name == "HEAD" else name)
        tip: Digest | None = None
        for operation in self.operations():
            if operation.time > moment:
                continue
            news = [new for changed, _, new in operation.record.updates if changed == ref]
            if news:
                tip = BranchRef.decode(news[-1]).tip if news[-1] else None
                break
        if tip is None:
            raise NotFound(f"branch {name!r} had no commit then")
        return tip

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
            record = decode_refs_record(self._segments.read(operation_place(value)))
            sequence = int.from_bytes(key, "big")
            yield Operation(number, sequence, record.time, record.author, record.description, record)

    def operation(self, number: int) -> Operation:
        """The operation of that number. NotFound."""
        for operation in self.each_operation():
            if operation.number == number:
                return operation
        raise NotFound(f"there is no operation {number}")

    def _head(self) -> str:
        with self._index.read() as txn:
            return self._refs.head(txn)
