"""What is written down of a merge that is under way: the value of the ref `merge/BRANCH`."""

from __future__ import annotations

import msgspec
from msgspec.structs import astuple

from storage.errors import Corrupt
from storage.model.digest import DIGEST_SIZE, Digest
from storage.model.format import MALFORMED
from storage.model.names import Path
from storage.model.records import Author
from storage.tree.merge import CONFLICTS


class MergeState(msgspec.Struct, array_like=True, frozen=True):
    """A merge under way. `what` is merge, revert or cherry-pick; `theirs` names the revision for people.

    `ours` is the tip it was begun at; `bases` and `side` are the commits whose trees are compared with it (`side` empty:
    the empty tree); `parent` is the commit's second parent, empty where it gets none; `root` is the merged tree's root,
    with what our side has where there are conflicts, and whatever was staged over it in a merge that ended and came back.
    `author` is that of the commit that ends it (name, email), where that is not whoever commits. `conflicts` are paths
    with the word for what happened there, `settled` the numbers of those that were resolved by saying so.
    """

    what: str
    theirs: str
    ours: bytes
    bases: list[bytes]
    side: bytes
    parent: bytes
    root: bytes
    message: str
    time: int
    conflicts: list[tuple[list[bytes], str]]
    settled: list[int] = []
    author: tuple[str, str] | None = None

    def encode(self) -> bytes:
        """As stored in the refs table."""
        fields = astuple(self)
        return msgspec.msgpack.encode(fields if self.author is not None else fields[:-1])

    @property
    def written_by(self) -> Author | None:
        """The author of the commit that ends it; None: whoever commits."""
        return None if self.author is None else Author(*self.author)

    def number(self, path: Path) -> int | None:
        """The number of the conflict at `path`; None where there is none."""
        return next((i for i, (parts, _) in enumerate(self.conflicts) if tuple(parts) == path), None)

    @property
    def commits(self) -> tuple[Digest, ...]:
        """All commits that it names."""
        return tuple(Digest(digest) for digest in (self.ours, self.side, self.parent, *self.bases) if digest)

    @property
    def parents(self) -> tuple[Digest, ...]:
        """The parents of the commit that ends it."""
        return tuple(Digest(parent) for parent in (self.ours, self.parent) if parent)


def decode_state(data: bytes) -> MergeState:
    """The merge under way that encode wrote; Corrupt for anything else."""
    try:
        state = msgspec.msgpack.decode(data, type=MergeState)
    except MALFORMED as error:
        raise Corrupt(f"a merge under way cannot be read: {error}") from error
    digests = [digest for digest in (state.ours, state.side, state.parent, state.root, *state.bases) if digest]
    if any(len(digest) != DIGEST_SIZE for digest in digests) or any(
        word not in CONFLICTS for _, word in state.conflicts
    ):
        raise Corrupt("a merge under way cannot be read: a digest or the word for a conflict is malformed")
    if state.encode() != data:
        raise Corrupt("a merge under way is not written as it must be")
    return state
