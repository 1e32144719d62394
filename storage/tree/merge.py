"""Three-way merge of two trees, entry by entry, read only where they differ. Pure: what is to be written is returned.

An entry counts as unchanged on a side where one of the bases has the very same (head and value). A change of one side
alone is taken; the same change on both sides is no conflict. Directories are merged entry by entry. Where both changed a
file's attributes, or one its contents and the other its attributes, each attribute is merged by itself, and of two times
the later one stays. Contents that both changed are put together where the caller can. Everything else is a conflict: it keeps
what our side has, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from msgspec.structs import replace

from storage.model.digest import Digest
from storage.model.names import Path, path_text
from storage.model.records import PLAIN, Attributes, Entry, Kind, Schema, decode_entry, directory_entry, encode_head
from storage.model.texts import shortened
from storage.tree.diff import Stored, diff
from storage.tree.edit import edit
from storage.tree.node import EMPTY, Load
from storage.tree.read import get

T = TypeVar("T")
Together = Callable[[Path, Sequence[Entry | None], Entry, Entry], Entry | None]
"""Path, what the bases have there, our and their file → an entry with the contents of both, None where they contradict."""
_Candidate = tuple[bytes, list[Stored | None], Stored | None, Stored | None]

PATH_MAX = 200
"""So many characters of a path are shown in a repr."""

EMPTY_DIRECTORY = directory_entry(EMPTY, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path on which two sides disagree, with what stands there in the base, on our side and on theirs (None: nothing).

    Where there are several bases, `base` is the first that has anything there.
    """

    path: Path
    base: Entry | None
    ours: Entry | None
    theirs: Entry | None

    word: ClassVar[str] = "conflict"
    """What happened, in a word."""

    def __str__(self) -> str:
        """The word and the path."""
        return f"{self.word} {path_text(self.path)}"

    def __repr__(self) -> str:
        """The same, with the size that each side has; what they hold is not told."""
        sides = (("base", self.base), ("ours", self.ours), ("theirs", self.theirs))
        told = ", ".join(f"{side} {f'{entry.size:,} B' if entry else 'none'}" for side, entry in sides)
        return f"<{type(self).__name__} {shortened(path_text(self.path), PATH_MAX)}: {told}>"


@dataclass(frozen=True, slots=True, repr=False)
class BothAdded(Conflict):
    """Both sides added an entry of that name, with different contents."""

    word = "both-added"


@dataclass(frozen=True, slots=True, repr=False)
class BothChanged(Conflict):
    """Both sides changed the contents, differently."""

    word = "both-changed"


@dataclass(frozen=True, slots=True, repr=False)
class RemovedByUs(Conflict):
    """Our side removed what theirs changed; of a directory: in which theirs added or changed something."""

    word = "removed-by-us"


@dataclass(frozen=True, slots=True, repr=False)
class RemovedByThem(Conflict):
    """Their side removed what ours changed; of a directory: in which ours added or changed something."""

    word = "removed-by-them"


@dataclass(frozen=True, slots=True, repr=False)
class SchemaChanged(Conflict):
    """The sides have different schemas for a dataset, and samples of both: the dataset stays as ours has it."""

    word = "schema-changed"


@dataclass(frozen=True, slots=True, repr=False)
class KindChanged(Conflict):
    """One side has a directory where the other has something else."""

    word = "kind-changed"


@dataclass(frozen=True, slots=True, repr=False)
class AttributesChanged(Conflict):
    """Both sides changed the same attribute differently. Contents and all other attributes are merged."""

    word = "attributes-changed"


CONFLICTS: dict[str, type[Conflict]] = {
    kind.word: kind
    for kind in (BothAdded, BothChanged, RemovedByUs, RemovedByThem, SchemaChanged, KindChanged, AttributesChanged)
}
"""The types of conflicts by their word."""


@dataclass(slots=True)
class Merged:
    """What merging gave: the new root, the nodes to write, and what must be settled by hand, by path."""

    root: Entry
    fresh: list[tuple[Digest, bytes]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


def never(path: Path, bases: Sequence[Entry | None], ours: Entry, theirs: Entry) -> Entry | None:
    """Puts nothing together."""
    return None


def merge(load: Load, bases: Sequence[Entry], ours: Entry, theirs: Entry, together: Together = never) -> Merged:
    """Merge two root directories that came from `bases`; without any, from the empty directory.

    `together` is asked for each file, sample or link whose contents both sides changed.

    With one base it costs O(their changes · log n), else O(changes of both · log n), and loads no node that is not on
    the way to a change. Without conflicts the sides can be exchanged.
    """
    merged = Merged(ours)
    merged.root = _Merge(load, merged, together).directory((), list(bases) or [EMPTY_DIRECTORY], ours, theirs)
    return merged


class _Merge:
    def __init__(self, load: Load, merged: Merged, together: Together) -> None:
        self._load = load
        self._merged = merged
        self._together = together

    def directory(self, path: Path, bases: Sequence[Entry | None], ours: Entry, theirs: Entry) -> Entry:
        """The merged directory."""
        roots = [_root(base) for base in bases]
        root, schema, edits = ours.root, ours.schema, list[tuple[bytes, Stored | None]]()
        if schema_form(ours.schema) == schema_form(theirs.schema):
            schema = _pick_schema(bases, ours, theirs)
            edits = list(self._edits(path, roots, ours.root, theirs.root))
        elif set(roots) == {ours.root} and _holds(bases, ours.schema):
            root, schema = theirs.root, theirs.schema
        elif set(roots) != {theirs.root} or not _holds(bases, theirs.schema):
            # Samples that were made for one schema mean nothing under another.
            self._tell(SchemaChanged, path, bases, ours, theirs)
            return ours
        root, totals, fresh = edit(self._load, root, edits)
        self._merged.fresh += fresh
        attributes = replace(self._attributes(path, bases, ours, theirs), schema=schema)
        mtime = _later([base.mtime if base else 0 for base in bases], ours.mtime, theirs.mtime)
        return directory_entry(root, totals.count, totals.samples, totals.size, mtime=mtime, attributes=attributes)

    def _edits(
        self, path: Path, bases: list[Digest], ours: Digest, theirs: Digest
    ) -> Iterator[tuple[bytes, Stored | None]]:
        if ours == theirs:
            return
        for name, olds, one, other in self._candidates(bases, ours, theirs):
            merged = self._entry((*path, name), olds, one, other)
            if merged != one:
                yield name, merged

    def _candidates(self, bases: list[Digest], ours: Digest, theirs: Digest) -> Iterator[_Candidate]:
        """The names that may come out otherwise than on our side, with what the bases and both sides have there."""
        load = self._load
        if len(set(bases)) == 1:
            for name, old, other in diff(load, bases[0], theirs):
                yield name, [old], get(load, ours, name), other
        else:
            for name, one, other in diff(load, ours, theirs):
                yield name, [get(load, base, name) for base in bases], one, other

    def _entry(self, path: Path, olds: list[Stored | None], one: Stored | None, other: Stored | None) -> Stored | None:
        if one == other:
            return one
        ours, theirs = _decoded(one), _decoded(other)
        # What several bases say of a directory is told by its entries.
        if len(set(olds)) == 1 or not (_is_directory(ours) or _is_directory(theirs)):
            picked = _pick(olds, one, other)
            if picked is not None:
                return one if picked is _OURS else other
        bases = [_decoded(old) for old in olds]
        if ours is None or theirs is None:
            return self._removed(path, bases, ours, theirs, one)
        if ours.is_directory and theirs.is_directory:
            return _encoded(self.directory(path, bases, ours, theirs))
        if ours.is_directory or theirs.is_directory:
            self._tell(KindChanged, path, bases, ours, theirs)
            return one
        return _encoded(self._file(path, bases, ours, theirs))

    def _removed(
        self, path: Path, bases: list[Entry | None], ours: Entry | None, theirs: Entry | None, one: Stored | None
    ) -> Stored | None:
        kept = theirs if ours is None else ours
        assert kept is not None
        if kept.is_directory and not self._adds(bases, kept):
            return None  # there is only less in it: both sides removed
        self._tell(RemovedByUs if ours is None else RemovedByThem, path, bases, ours, theirs)
        return one

    def _adds(self, bases: Sequence[Entry | None], directory: Entry) -> bool:
        """Whether anything in `directory`, or the directory itself, is new or otherwise than in every base."""
        known = [base for base in bases if base is not None and base.is_directory]
        if len(known) < len(bases) or directory.attributes not in [base.attributes for base in known]:
            return True
        for name, new in self._new(known, directory):
            olds = [get(self._load, base.root, name) for base in known]
            entry = decode_entry(*new)
            if entry.is_directory:
                adds = self._adds([_decoded(old) for old in olds], entry)
            else:
                adds = new not in olds or None in olds
            if adds:
                return True
        return False

    def _new(self, bases: Sequence[Entry], directory: Entry) -> Iterator[tuple[bytes, Stored]]:
        """What is in `directory` and not in every base."""
        for root in {base.root for base in bases}:
            for name, _, new in diff(self._load, root, directory.root):
                if new is not None:
                    yield name, new

    def _file(self, path: Path, bases: list[Entry | None], ours: Entry, theirs: Entry) -> Entry:
        """The merged file, sample or link, where both sides have one."""
        picked = _pick([_contents(base) for base in bases], _contents(ours), _contents(theirs))
        kept = ours if picked is _OURS else theirs
        if picked is None:
            both = self._together(path, bases, ours, theirs)
            if both is None:
                self._tell(BothChanged if any(bases) else BothAdded, path, bases, ours, theirs)
                return ours
            kept = both
        attributes = self._attributes(path, bases, ours, theirs)
        attributes = replace(attributes, header=kept.attributes.header, shape=kept.attributes.shape)
        mtime = _later([base.mtime if base else 0 for base in bases], ours.mtime, theirs.mtime)
        return replace(kept, attributes=attributes, mtime=mtime)

    def _attributes(self, path: Path, bases: Sequence[Entry | None], ours: Entry, theirs: Entry) -> Attributes:
        """Mode, owner and xattrs, each merged by itself; a conflict keeps ours and is told once."""
        olds = [base.attributes if base else PLAIN for base in bases]
        one, other = ours.attributes, theirs.attributes
        picks = [
            _pick([old.mode for old in olds], one.mode, other.mode),
            _pick([old.uid for old in olds], one.uid, other.uid),
            _pick([old.gid for old in olds], one.gid, other.gid),
        ]
        mode, uid, gid = (one if pick is not _THEIRS else other for pick in picks)
        tables = [dict(old.xattrs) for old in olds]
        mine, their = dict(one.xattrs), dict(other.xattrs)
        xattrs = {}
        for key in sorted(mine.keys() | their.keys()):
            pick = _pick([table.get(key) for table in tables], mine.get(key), their.get(key))
            picks.append(pick)
            value = (their if pick is _THEIRS else mine).get(key)
            if value is not None:
                xattrs[key] = value
        if None in picks:
            self._tell(AttributesChanged, path, bases, ours, theirs)
        return replace(one, mode=mode.mode, uid=uid.uid, gid=gid.gid, xattrs=tuple(xattrs.items()))

    def _tell(
        self,
        kind: type[Conflict],
        path: Path,
        bases: Sequence[Entry | None],
        ours: Entry | None,
        theirs: Entry | None,
    ) -> None:
        base = next((base for base in bases if base is not None), None)
        self._merged.conflicts.append(kind(path, base, ours, theirs))


class _Side:
    """A side, as the outcome of a choice."""


_OURS, _THEIRS = _Side(), _Side()


def _pick(bases: Sequence[T], ours: T, theirs: T) -> _Side | None:
    """The side that changed; ours where they agree; None where both changed, or each kept another base's."""
    if ours == theirs:
        return _OURS
    kept, theirs_kept = ours in bases, theirs in bases
    if kept == theirs_kept:
        return None
    return _THEIRS if kept else _OURS


def _later(bases: Sequence[int], ours: int, theirs: int) -> int:
    picked = _pick(bases, ours, theirs)
    if picked is None:
        return max(ours, theirs)
    return ours if picked is _OURS else theirs


def _pick_schema(bases: Sequence[Entry | None], ours: Entry, theirs: Entry) -> Schema | None:
    """Of two schemas for the same samples: the one that changed, else the one with the lesser uuid."""
    one, other = ours.schema, theirs.schema
    if one is None or other is None:
        return one
    picked = _pick([base.schema if base else None for base in bases], one, other)
    if picked is None:
        return min(one, other, key=lambda schema: (schema.uuid, schema.compression))
    return one if picked is _OURS else other


def schema_form(schema: Schema | None) -> Schema | None:
    """What a schema says of samples: two datasets made alike can be put together."""
    return None if schema is None else replace(schema, uuid="", compression="")


def _holds(bases: Sequence[Entry | None], schema: Schema | None) -> bool:
    return schema_form(schema) in [schema_form(base.schema) if base else None for base in bases]


def _contents(entry: Entry | None) -> object:
    if entry is None:
        return None
    kept = entry.attributes
    return entry.kind, entry.flags, entry.size, entry.value, kept.header, kept.shape


def _root(entry: Entry | None) -> Digest:
    return entry.root if entry is not None and entry.kind is Kind.DIRECTORY else EMPTY


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.is_directory


def _decoded(stored: Stored | None) -> Entry | None:
    return None if stored is None else decode_entry(*stored)


def _encoded(entry: Entry) -> Stored:
    assert isinstance(entry.value, bytes)
    return encode_head(entry), entry.value
