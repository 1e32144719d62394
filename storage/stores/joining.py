"""Putting together the contents of a file that both sides of a merge changed, by the mergers of storage.mergers."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from storage.errors import ArborError
from storage.mergers import FileMerger, file_merger
from storage.model.chunking import INLINE_MAX, LIST_MAX, ChunkRef, cut, encode_chunks
from storage.model.digest import blake
from storage.model.names import Path
from storage.model.records import CHUNKED, Entry, Kind
from storage.model.samples import BytesSource
from storage.stores.contents import payload_of
from storage.stores.objects import Objects


class Joining:
    """Asks for one merge. Nothing is stored by it: `chunks` are the contents that the merged tree needs besides."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.chunks: list[bytes] = []

    def together(self, path: Path, bases: Sequence[Entry | None], ours: Entry, theirs: Entry) -> Entry | None:
        """The file with both sides' contents; None where nothing merges such files, or where they contradict each other.

        Samples are not asked for: they have to fit their dataset. Where there are several bases, all must give the same.
        """
        if not ours.kind is theirs.kind is Kind.FILE:
            return None
        merger = file_merger(path[-1])
        if merger is None:
            return None
        try:
            merged = self._merged(merger, bases, ours, theirs)
        except (ArborError, ValueError):
            return None  # one of them is no such file: whoever resolves the conflict will see
        return None if merged is None else self._entry(ours, merged)

    def _merged(self, merger: FileMerger, bases: Sequence[Entry | None], ours: Entry, theirs: Entry) -> bytes | None:
        mine, yours = self._contents(ours), self._contents(theirs)
        befores = {self._contents(base) if base is not None and base.kind is Kind.FILE else None for base in bases}
        found = {merger(before, mine, yours) for before in befores}
        return found.pop() if len(found) == 1 else None

    def _contents(self, entry: Entry) -> bytes:
        assert isinstance(entry.value, bytes)
        return bytes(payload_of(self._objects, entry.flags, entry.value))

    def _entry(self, ours: Entry, data: bytes) -> Entry | None:
        if len(data) <= INLINE_MAX:
            return replace(ours, flags=0, size=len(data), value=data)
        pieces = [bytes(piece.data) for piece in cut(BytesSource(data), 0) if not isinstance(piece, ChunkRef)]
        if len(pieces) > LIST_MAX:
            return None
        self.chunks += pieces
        value = encode_chunks([ChunkRef(blake(piece), len(piece)) for piece in pieces])
        return replace(ours, flags=CHUNKED, size=len(data), value=value)
