"""The index against what a rebuild would make of the segments."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.disk.index import HORIZON, Index, Table, Txn, number_key
from storage.disk.segments import RecordKind
from storage.errors import Corrupt
from storage.model.digest import DIGEST_SIZE, Digest
from storage.model.records import Commit
from storage.stores.refs import operation_place
from storage.stores.replaying import Change, Commits, Problem, replay
from storage.stores.staging import DIRECTORY_ROW, FENCE
from storage.working import Parts

Row = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Check:
    """How a table is compared: its name, its table in either index, the keys that count, and what counts of a value."""

    name: str
    table: Callable[[Index], Table]
    prefix: bytes = b""
    value: Callable[[bytes], bytes] = bytes


def _without_time(row: bytes) -> bytes:
    # A journal that has been settled and deleted may have given a directory its time: a rebuild does not know it.
    return row[:DIGEST_SIZE] + row[DIRECTORY_ROW.size :]


_CHECKS = (
    _Check("refs", lambda index: index.refs),
    _Check("staged rows", lambda index: index.staged),
    _Check("staged directories", lambda index: index.directories, value=_without_time),
    _Check("journals", lambda index: index.journals),
    _Check("fences", lambda index: index.meta, FENCE),
    _Check("operations", lambda index: index.operations, value=lambda _: b""),
)


class Comparison:
    """Replays all changes into an index of its own, in a temporary folder, and compares the tables row by row."""

    def __init__(self, parts: Parts, txn: Txn) -> None:
        self._parts = parts
        self._live = parts.index
        self._txn = txn
        self._folder = tempfile.TemporaryDirectory(prefix="arborfs-verify-")
        self._fresh = Index(Path(self._folder.name))

    def __enter__(self) -> Comparison:
        """The comparison itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Remove the folder."""
        self._fresh.close()
        self._folder.cleanup()

    def differences(self, changes: Sequence[Change], found: Mapping[Digest, Commit]) -> Iterator[str]:
        """What the index says otherwise than the segments. `changes` and commits `found` are all that are in them."""
        commits = Commits(dict(found))
        problems: list[Problem] = []
        replay(self._fresh, self._parts.segments, changes, commits, self._row_of, problems)
        yield from (problem.what for problem in problems)
        with self._fresh.read() as fresh:
            for check in _CHECKS:
                wrong = sum(1 for _ in self._different(check, fresh))
                if wrong:
                    yield f"{wrong} rows of the index are not what the segments say: {check.name}"
            if self._live.number(self._txn, HORIZON) != self._fresh.number(fresh, HORIZON):
                yield "the index says otherwise than the segments how far gc went"
            yield from self._commits(commits, fresh)
        yield from self._operations(changes)

    def _row_of(self, _: Txn, digest: bytes) -> bytes | None:
        return self._txn.get(digest, db=self._live.objects)

    def _different(self, check: _Check, fresh: Txn) -> Iterator[bytes]:
        """The keys on which the two indexes differ; both are walked once, in order."""
        live_rows = self._live.scan(self._txn, check.table(self._live), check.prefix)
        fresh_rows = self._fresh.scan(fresh, check.table(self._fresh), check.prefix)
        live, other = next(live_rows, None), next(fresh_rows, None)
        while live is not None or other is not None:
            if other is None or (live is not None and live[0] < other[0]):
                assert live is not None
                yield live[0]
                live = next(live_rows, None)
            elif live is None or other[0] < live[0]:
                yield other[0]
                other = next(fresh_rows, None)
            else:
                if check.value(live[1]) != check.value(other[1]):
                    yield live[0]
                live, other = next(live_rows, None), next(fresh_rows, None)

    def _commits(self, commits: Commits, fresh: Txn) -> Iterator[str]:
        """Every commit that counts must be listed; one that is pinned or waits for gc may be, too."""
        expected = {digest: number_key(commit.time) for digest, commit in commits.counting(self._fresh, fresh)}
        listed = {Digest(key): value for key, value in self._live.scan(self._txn, self._live.commits, b"")}
        missing = [digest for digest, when in expected.items() if listed.get(digest) != when]
        strange = [digest for digest in listed if digest not in commits.found]
        if missing or strange:
            yield f"{len(missing) + len(strange)} rows of the index are not what the segments say: commits"

    def _operations(self, changes: Sequence[Change]) -> Iterator[str]:
        """Every operation's row must lead to a record of it: there may be two of a record."""
        places = {(number_key(c.sequence), c.place) for c in changes if c.kind == RecordKind.REFS}
        rows = self._live.scan(self._txn, self._live.operations, b"")
        wrong = sum((key, _place(value)) not in places for key, value in rows)
        if wrong:
            yield f"{wrong} rows of the index lead to no operation"


def _place(value: bytes) -> object:
    try:
        return operation_place(value)
    except (Corrupt, ValueError):
        return None
