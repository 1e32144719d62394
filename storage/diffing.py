"""What a checkout or repository answers when asked for differences: plain values, by dataset and sample.

Two states of which one came from the other (also the other way round) are compared directly: what must change to come
from the first to the second. States that went apart are compared by way of their best common ancestor: what the second
one changed since then, and where that conflicts with what the first one changed. After criss-cross merges there are
several best common ancestors; the newest is taken. Histories without a common one are compared with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from storage import html
from storage.dataset_reader import dataset_name
from storage.engine import Engine
from storage.errors import NotFound, UnknownRevision
from storage.html import Html
from storage.metadata import FOLDER
from storage.model.digest import Digest, hexed
from storage.model.history import merge_bases
from storage.model.names import Path, path_text
from storage.model.records import Entry, Kind, Schema
from storage.model.texts import form, shortened
from storage.reprs import CLOSED
from storage.session import Session
from storage.stores.compare import Comparison, Difference, Tree
from storage.tree.merge import schema_form

LISTED = 10
"""So many names of each kind are shown in a repr."""
NAME_MAX = 120
"""So many characters of each."""


SORTS = ("added", "deleted", "mutated", "attributes")
"""The sorts of differences, as a diff names them."""


class SampleKey(NamedTuple):
    """A sample: the name of its dataset, and its key there."""

    dataset: str
    key: str


class Renamed(NamedTuple):
    """An entry that has another path, and is otherwise what it was (its attributes may differ)."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of one sort of change, each in order.

    `schema`: dataset → hash of its schema, where datasets themselves came, went or got another schema; `samples`;
    `metadata`: keys; `files`: paths of everything else, directories end in a slash.
    """

    schema: Mapping[str, str] = field(default_factory=dict)
    samples: tuple[SampleKey, ...] = ()
    metadata: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many there are."""
        return len(self.schema) + len(self.samples) + len(self.metadata) + len(self.files)

    def __repr__(self) -> str:
        """How many of each, and the first ones."""
        return "\n".join([f"Changes: {len(self)}", *(f"    {line}" for line in self._lines())])

    def _repr_html_(self) -> str:
        return html.card("Changes", f"{len(self):,}", _table([("", self)]))

    def told(self) -> Iterator[tuple[str, int, str]]:
        """For each kind of thing that is named: what it is, how many there are, and the first ones as text."""
        schemas = (f"{name} ({digest})" for name, digest in self.schema.items())
        samples = (f"{name}[{key!r}]" for name, key in self.samples)
        metadata = (repr(key) for key in self.metadata)
        for what, names, count in (
            ("schema", schemas, len(self.schema)),
            ("samples", samples, len(self.samples)),
            ("metadata", metadata, len(self.metadata)),
            ("files", iter(self.files), len(self.files)),
        ):
            if count:
                yield what, count, _listed(names, count)

    def _lines(self) -> Iterator[str]:
        for what, count, names in self.told():
            yield f"{what:8} {count:,}: {names}"


def _listed(names: Iterable[str], count: int) -> str:
    """The first names, and how many more there are. No more than these are looked at."""
    more = f", and {count - LISTED:,} more" if count > LISTED else ""
    return ", ".join(shortened(name, NAME_MAX) for name in islice(names, LISTED)) + more


def _table(sorts: Iterable[tuple[str, Changes]]) -> Html:
    """Changes by sort, a line for each kind of thing."""
    rows = [
        (sort, what, f"{count:,}", html.code(names, 4 * NAME_MAX))
        for sort, changes in sorts
        for what, count, names in changes.told()
    ]
    return html.table(("", "", "", ""), rows) if rows else html.below("none")


@dataclass(frozen=True, slots=True)
class DiffOut:
    """What differs: names that are new, names that are gone, names that hold something else.

    `attributes` are names that hold the same, with another mode, owner, time or extended attribute. `renamed` are
    pairs out of `deleted` and `added`; of a directory that was renamed as a whole, the directory alone.
    """

    added: Changes = field(default_factory=Changes)
    deleted: Changes = field(default_factory=Changes)
    mutated: Changes = field(default_factory=Changes)
    renamed: tuple[Renamed, ...] = ()
    attributes: Changes = field(default_factory=Changes)

    def __len__(self) -> int:
        """How many differences there are; a renamed entry counts as one deleted and one added."""
        return len(self.added) + len(self.deleted) + len(self.mutated) + len(self.attributes)

    def __repr__(self) -> str:
        """The differences by sort."""
        lines = ["Arborfs Diff" if len(self) else "Arborfs Diff: no differences"]
        for what in SORTS:
            changes: Changes = getattr(self, what)
            if len(changes):
                lines += [f"    {what}: {len(changes):,}", *(f"        {line}" for line in changes._lines())]
        if self.renamed:
            lines.append(f"    renamed: {len(self.renamed):,}")
            lines += [f"        {name}" for name in self._renamed()]
            lines += [f"        and {len(self.renamed) - LISTED:,} more"] if len(self.renamed) > LISTED else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html.card("Differences", f"{len(self):,}", self._html())

    def _html(self) -> Html:
        sorts = _table((what, getattr(self, what)) for what in SORTS)
        if not self.renamed:
            return sorts
        more = f"and {len(self.renamed) - LISTED:,} more renamed" if len(self.renamed) > LISTED else ""
        rows = [
            ("renamed" if not at else "", html.code(name, 2 * NAME_MAX + 4)) for at, name in enumerate(self._renamed())
        ]
        return html.joined(sorts, html.table(("", ""), rows, more))

    def _renamed(self) -> list[str]:
        pairs = self.renamed[:LISTED]
        return [f"{shortened(old, NAME_MAX)} -> {shortened(new, NAME_MAX)}" for old, new in pairs]


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Names that two sides changed in ways that exclude each other; attributes alone only do where the other side removed it.

    `t1`: added on both sides, unlike. `t21`: gone in the first, changed in the second. `t22`: changed in the first, gone
    in the second. `t3`: changed in both, unlike. `conflict`: whether there is any. What one side changed in a directory that
    the other one removed, or in a dataset to which it gave another schema, is told by its own name.
    """

    t1: Changes = field(default_factory=Changes)
    t21: Changes = field(default_factory=Changes)
    t22: Changes = field(default_factory=Changes)
    t3: Changes = field(default_factory=Changes)
    conflict: bool = False

    def __repr__(self) -> str:
        """The conflicts by sort."""
        if not self.conflict:
            return "Arborfs Conflicts: none"
        lines = ["Arborfs Conflicts"]
        for what, name in _CONFLICTS.items():
            changes: Changes = getattr(self, what)
            if len(changes):
                lines += [f"    {what} ({name}): {len(changes):,}", *(f"        {line}" for line in changes._lines())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html.card("Conflicts", "Arborfs Conflicts", self._html())

    def _html(self) -> Html:
        return _table((f"{what}: {name}", getattr(self, what)) for what, name in _CONFLICTS.items())


_CONFLICTS = {
    "t1": "added on both sides",
    "t21": "deleted here, changed there",
    "t22": "changed here, deleted there",
    "t3": "changed on both sides",
}


class DiffAndConflicts(NamedTuple):
    """What differs, and what of it conflicts."""

    diff: DiffOut
    conflict: Conflicts

    def __repr__(self) -> str:
        """Both, one under the other."""
        return f"{self.diff!r}\n{self.conflict!r}"

    def _repr_html_(self) -> str:
        conflicts = (
            html.joined(html.facts([("Conflicts", "")]), self.conflict._html()) if self.conflict.conflict else Html()
        )
        return html.card("Differences", f"{len(self.diff):,}", self.diff._html(), conflicts)


class Differ:
    """What differs between a checkout and other states of the repository. Closed after the checkout's `close`."""

    def __init__(self, engine: Engine, session: Session, tree: Callable[[], Tree]) -> None:
        self._engine = engine
        self._session = session
        self._tree = tree

    def __repr__(self) -> str:
        """What is compared."""
        return form(type(self).__name__, self._facts() if self._session.is_open else CLOSED, 11)

    def _facts(self) -> list[tuple[str, object]]:
        return [("Commit Hash", hexed(commit) if (commit := self._tree().commit) else "")]

    def commit(self, revision: str) -> DiffAndConflicts:
        """What differs in a commit, given by any revision, from this checkout; see the module for what is compared.

        A writer's staged work counts as its side. ValueError for an unknown revision.
        """
        return three_way(self._engine, self._here(), named_tree(self._engine, revision))

    def branch(self, name: str) -> DiffAndConflicts:
        """The same for the last commit of a branch. ValueError where there is no such branch, or no commit on it."""
        branches = self._engine.branches()
        if name not in branches:
            raise UnknownRevision(f"there is no branch {name!r}: there are {', '.join(sorted(branches)[:10])}")
        tip = branches[name]
        if tip is None:
            raise UnknownRevision(f"branch {name!r} has no commit yet")
        return three_way(self._engine, self._here(), self._engine.committed(tip))

    def _here(self) -> Tree:
        self._session.require_open()
        self._session.flush()
        return self._tree()


class WriterDiffer(Differ):
    """The same for a writer checkout, which has staged work, too."""

    def staged(self) -> DiffAndConflicts:
        """What is staged: the working tree against the branch's last commit. ValueError before the first commit."""
        here = self._here()
        if here.commit is None:
            raise UnknownRevision(f"branch {here.branch!r} has no commit yet: everything on it is staged")
        return DiffAndConflicts(two_way(self._engine, self._engine.committed(here.commit), here), Conflicts())

    def _facts(self) -> list[tuple[str, object]]:
        tree = self._session.working_tree
        return [("Base Branch", tree.branch), ("Status", "DIRTY" if tree.is_dirty() else "CLEAN")]

    def status(self) -> str:
        """`DIRTY` if anything is staged on the branch, else `CLEAN`."""
        self._session.require_open()
        self._session.flush()
        return "DIRTY" if self._session.working_tree.is_dirty() else "CLEAN"


def named_tree(engine: Engine, name: str) -> Tree:
    """The tree of a revision, or with a `+` behind a branch's name its working tree. UnknownRevision, Ambiguous."""
    try:
        return engine.named_tree(str(name))
    except NotFound as error:
        raise UnknownRevision(str(error)) from error


def three_way(engine: Engine, here: Tree, there: Tree) -> DiffAndConflicts:
    """What `there` has that `here` has not; by way of their best common ancestor where both went on from it."""
    bases = _bases(engine, here.commit, there.commit)
    if there.commit in bases or (here.commit in bases and not here.branch):
        return DiffAndConflicts(two_way(engine, here, there), Conflicts())
    base = engine.committed(bases[0] if bases else None)
    theirs = two_way(engine, base, there)
    return DiffAndConflicts(theirs, _conflicts(engine, base, here, there))


def _bases(engine: Engine, a: Digest | None, b: Digest | None) -> list[Digest]:
    return merge_bases(engine.commit_record, a, b) if a is not None and b is not None else []


def two_way(engine: Engine, old: Tree, new: Tree) -> DiffOut:
    """What must change to come from `old` to `new`."""
    comparison = engine.comparison(old, new)
    sorts = {"added": _Sorted(), "removed": _Sorted(), "changed": _Sorted(), "attributes": _Sorted()}
    renamed = []
    for difference in engine.compared(old, new):
        if difference.source is None:
            sort = "attributes" if difference.only_attributes else difference.change
            sorts[sort].add(difference, difference.new or difference.old)
            continue
        renamed.append(Renamed(path_text(difference.source), path_text(difference.path)))
        for half in _halves(difference):
            for each in (half, *comparison.inside(half)):
                sorts[each.change].add(each, each.new or each.old)
    added, deleted, mutated, attributes = (each.changes() for each in sorts.values())
    return DiffOut(added, deleted, mutated, tuple(renamed), attributes)


def _halves(renamed: Difference) -> tuple[Difference, Difference]:
    """A renamed entry as one that went and one that came."""
    assert renamed.source is not None
    gone = Difference(renamed.source, renamed.old, None, old_dataset=renamed.old_dataset)
    return gone, Difference(renamed.path, None, renamed.new, new_dataset=renamed.new_dataset)


class _Sorted:
    """Collects the names of differences of one sort."""

    def __init__(self) -> None:
        self._schema: dict[str, str] = {}
        # What is below a renamed directory may be told more than once.
        self._samples: set[SampleKey] = set()
        self._metadata: set[str] = set()
        self._files: set[str] = set()

    def add(self, difference: Difference, entry: Entry | None) -> None:
        """Take in one, where `entry` is the version that counts."""
        assert entry is not None
        path = difference.path
        dataset = difference.new_dataset if entry is difference.new else difference.old_dataset
        if path[:2] == FOLDER or path == FOLDER[:1]:
            if len(path) > len(FOLDER):
                self._metadata.add(path_text(path[len(FOLDER) :]))
        elif entry.kind is Kind.SAMPLE and dataset is not None:
            self._samples.add(_sample_key(path, dataset))
        elif (schema := _told_schema(difference, entry)) is not None and schema.is_sample:
            return  # of a nested dataset: its values tell of it
        elif schema is not None:
            self._schema[dataset_name(path)] = schema.hash
        else:
            self._files.add(path_text(path) + "/" * (entry.is_directory and path != ()))

    def changes(self) -> Changes:
        """What was collected, in order: that of the tree's names."""
        return Changes(
            dict(sorted(self._schema.items())),
            tuple(sorted(self._samples)),
            tuple(sorted(self._metadata)),
            tuple(sorted(self._files)),
        )


def _told_schema(difference: Difference, entry: Entry) -> Schema | None:
    """The schema of a dataset that came, went, or has another one; of one that became an ordinary directory, the old."""
    if difference.only_attributes:
        return None
    return entry.schema or (difference.old.schema if difference.old is not None else None)


def _sample_key(path: Path, dataset: Schema) -> SampleKey:
    key = path[-1].removesuffix(dataset.suffix)
    if dataset.is_sample:  # of a nested dataset: one of the values in a sample
        return SampleKey(dataset_name(path[:-2]), path_text((path[-2], key)))
    return SampleKey(dataset_name(path[:-1]), path_text((key,)))


def _conflicts(engine: Engine, base: Tree, here: Tree, there: Tree) -> Conflicts:
    ours, theirs = (_changed(engine, base, side) for side in (here, there))
    sorts = {what: _Sorted() for what in _CONFLICTS}
    across = engine.comparison(here, there)
    agreed = {path for path in ours.keys() & theirs.keys() if _agree(across, ours[path], theirs[path])}
    clashing = (ours.keys() & theirs.keys()) - agreed
    for path in clashing:
        sorts[_sort(ours[path], theirs[path])].add(theirs[path], theirs[path].new or ours[path].new)
    for path in theirs.keys() - clashing:
        if above := _undone(theirs[path], ours, agreed):
            sorts["t21" if above.new is None else "t3"].add(theirs[path], theirs[path].new or theirs[path].old)
    for path in ours.keys() - clashing:
        if above := _undone(ours[path], theirs, agreed):
            sorts["t22" if above.new is None else "t3"].add(ours[path], ours[path].new or ours[path].old)
    t1, t21, t22, t3 = (each.changes() for each in sorts.values())
    return Conflicts(t1, t21, t22, t3, any(map(len, (t1, t21, t22, t3))))


def _changed(engine: Engine, base: Tree, side: Tree) -> dict[Path, Difference]:
    return {each.path: each for each in engine.comparison(base, side).differences()}


def _undone(change: Difference, others: Mapping[Path, Difference], agreed: Container[Path]) -> Difference | None:
    """What the other side did to a directory above, if that leaves no place for this change; else None."""
    for depth in range(len(change.path)):
        above = others.get(change.path[:depth])
        if above is None or above.old is None or above.path in agreed:
            continue
        if above.new is None or not above.new.is_directory:
            return above if change.new is not None else None  # what is gone on both sides is no conflict
        if schema_form(above.old.schema) != schema_form(above.new.schema):
            return above
    return None


def _agree(across: Comparison, mine: Difference, theirs: Difference) -> bool:
    if mine.new is None or theirs.new is None:
        return mine.new is None and theirs.new is None
    if mine.only_attributes or theirs.only_attributes:
        return True
    if mine.new.is_directory and theirs.new.is_directory:
        return schema_form(mine.new.schema) == schema_form(theirs.new.schema)
    aspects = across.aspects(mine.new, theirs.new, mine.new_dataset, theirs.new_dataset)
    return Difference(mine.path, mine.new, theirs.new, aspects).only_attributes


def _sort(mine: Difference, theirs: Difference) -> str:
    if mine.old is None:
        return "t1"
    if mine.new is None:
        return "t21"
    return "t22" if theirs.new is None else "t3"
