"""Merging trees against plain dicts, and the laws that a merge obeys."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.model.history import is_ancestor, merge_bases
from storage.model.records import Author, Commit, Entry, Kind, decode_entry, directory_entry, encode_head
from storage.tree.edit import edit
from storage.tree.merge import EMPTY_DIRECTORY, Merged, merge
from storage.tree.node import EMPTY, decode
from storage.tree.read import rows

NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
FILES = st.tuples(st.sampled_from([b"", b"1", b"2"]), st.sampled_from([0, 5]))
TREES = st.recursive(FILES, lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=8)
ROOTS = st.dictionaries(NAMES, TREES, max_size=4)


class Store:
    """Nodes by digest; a node that was not written cannot be read."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.loads = 0

    def load(self, digest):
        self.loads += 1
        return decode(self.nodes[digest])

    def directory(self, tree: dict) -> Entry:
        """The directory that a dict describes: names to (contents, time) or to another dict."""
        edits = []
        for name in sorted(tree):
            below = tree[name]
            if isinstance(below, dict):
                entry = self.directory(below)
            else:
                entry = Entry(Kind.FILE, len(below[0]), below[1], value=below[0])
            edits.append((name, (encode_head(entry), entry.value)))
        root, totals, fresh = edit(self.load, EMPTY, edits)
        self.nodes |= dict(fresh)
        return directory_entry(root, totals.count, totals.samples, totals.size)

    def merge(self, bases: list[dict], ours: dict, theirs: dict) -> Merged:
        merged = merge(
            self.load, [self.directory(base) for base in bases], self.directory(ours), self.directory(theirs)
        )
        self.nodes |= dict(merged.fresh)
        return merged

    def listed(self, root: Entry) -> dict:
        """What a directory holds, as a dict."""
        found: dict = {}
        for name, head, value in rows(self.load, root.root):
            entry = decode_entry(head, value)
            found[name] = self.listed(entry) if entry.is_directory else (entry.value, entry.mtime)
        return found


def flat(tree: dict, path: tuple = ()) -> dict:
    """The files of a tree by path."""
    found = {}
    for name, below in tree.items():
        found |= flat(below, (*path, name)) if isinstance(below, dict) else {(*path, name): below}
    return found


def known(tree: dict) -> dict:
    """The same with its directories: what stands at each path."""
    found = dict(flat(tree))
    todo: list = [((), tree)]
    while todo:
        path, here = todo.pop()
        for name, below in here.items():
            if isinstance(below, dict):
                found[*path, name] = (b"a directory", 0)
                todo.append(((*path, name), below))
    return found


def expected(bases: list[dict], ours: dict, theirs: dict) -> tuple[dict, set]:
    """The merge of flat dicts, and the keys on which they disagree."""
    merged, conflicts = {}, set()
    for key in ours.keys() | theirs.keys():
        olds = [base.get(key) for base in bases]
        one, other = ours.get(key), theirs.get(key)
        if one != other and (one in olds) == (other in olds):
            if one is not None and other is not None and one[0] == other[0]:
                picked = (one[0], max(one[1], other[1]))  # the same contents: of two times the later one
            elif one is not None and other is not None and contents_merge(olds, one, other):
                continue  # told apart below: contents of one side, time of the other
            else:
                conflicts.add(key)
                continue
        else:
            picked = other if one in olds else one
        if picked is not None:
            merged[key] = picked
    return merged, conflicts


def contents_merge(olds, one, other) -> bool:
    kept = [old[0] for old in olds if old is not None]
    return (one[0] in kept) != (other[0] in kept)


@settings(max_examples=400, deadline=None)
@given(ROOTS, ROOTS, ROOTS)
def test_a_merge_is_the_merge_of_the_files_by_path(base, ours, theirs):
    store = Store()
    merged = store.merge([base], ours, theirs)
    model, disagreed = expected([known(base)], known(ours), known(theirs))
    told = {conflict.path for conflict in merged.conflicts}
    for path in disagreed:
        assert any(path[: len(above)] == above for above in told), "a disagreement is told, there or above"
    if not told:
        result = known(store.listed(merged.root))
        assert result.items() >= model.items()
        assert all(
            contents_merge([known(base).get(path)], flat(ours)[path], flat(theirs)[path])
            for path in result.keys() - model.keys()
        )
    for conflict in merged.conflicts:
        here = at(store.listed(merged.root), conflict.path)
        assert here == at(ours, conflict.path), "a conflict keeps ours"


def at(tree, path):
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


@settings(max_examples=300, deadline=None)
@given(ROOTS, ROOTS, ROOTS)
def test_the_sides_can_be_exchanged(base, ours, theirs):
    store = Store()
    one, other = store.merge([base], ours, theirs), store.merge([base], theirs, ours)
    assert {c.path for c in one.conflicts} == {c.path for c in other.conflicts}
    mirrored = {"removed-by-us": "removed-by-them", "removed-by-them": "removed-by-us"}
    words = {(c.path, mirrored.get(c.word, c.word)) for c in other.conflicts}
    assert {(c.path, c.word) for c in one.conflicts} == words
    if not one.conflicts:
        assert one.root == other.root


@settings(max_examples=200, deadline=None)
@given(ROOTS, ROOTS, ROOTS)
def test_merging_twice_is_merging_once(base, ours, theirs):
    store = Store()
    once = store.merge([base], ours, theirs)
    if not once.conflicts:
        # What was merged has theirs among its ancestors: that is the base from then on.
        result = store.listed(once.root)
        again = store.merge([theirs], result, theirs)
        assert (again.root, again.conflicts, again.fresh) == (once.root, [], [])
        assert store.merge([base], result, result).root == once.root


@settings(max_examples=200, deadline=None)
@given(ROOTS, ROOTS)
def test_a_side_without_changes_gives_the_other(base, side):
    store = Store()
    for ours, theirs in ((side, base), (base, side), (side, side)):
        merged = store.merge([base], ours, theirs)
        assert merged.conflicts == []
        assert merged.root == store.directory(side)


@settings(max_examples=200, deadline=None)
@given(st.lists(ROOTS, min_size=2, max_size=3), ROOTS, ROOTS)
def test_with_several_bases_a_disagreement_is_never_silent(bases, ours, theirs):
    store = Store()
    merged = store.merge(bases, ours, theirs)
    model, disagreed = expected([known(base) for base in bases], known(ours), known(theirs))
    told = {conflict.path for conflict in merged.conflicts}
    for path in disagreed:
        assert any(path[: len(above)] == above for above in told)
    if not told:
        assert known(store.listed(merged.root)).items() >= model.items()


def test_a_directory_that_was_a_file_in_one_of_the_bases_is_not_lost_silently():
    file, directory = {b"c": (b"", 0)}, {b"c": {b"a": (b"1", 5)}}
    merged = Store().merge([file, directory], {}, directory)
    assert [(conflict.word, conflict.path) for conflict in merged.conflicts] == [("removed-by-us", (b"c",))]
    deeper = Store().merge([{b"d": file}, {b"d": directory}], {}, {b"d": directory})
    assert [(conflict.word, conflict.path) for conflict in deeper.conflicts] == [("removed-by-us", (b"d",))]


def test_one_change_in_many_loads_a_path_only():
    store = Store()
    many = {b"%06d" % i: (b"x" * 50, 0) for i in range(30_000)}
    base, ours, theirs = (
        store.directory({b"d": many | change})
        for change in ({}, {b"000007": (b"ours", 0)}, {b"023456": (b"theirs", 0), b"new": (b"n", 0)})
    )
    store.loads = 0
    merged = merge(store.load, [base], ours, theirs)
    assert not merged.conflicts
    assert store.loads < 60
    assert len(merged.fresh) < 10
    store.nodes |= dict(merged.fresh)
    changes = {b"000007": (b"ours", 0), b"023456": (b"theirs", 0), b"new": (b"n", 0)}
    assert merged.root == store.directory({b"d": many | changes})


# Histories: commits by number, each with the numbers of its parents and a clock that may be anything.

HISTORIES = st.lists(
    st.tuples(st.lists(st.integers(0, 30), max_size=3, unique=True), st.integers(0, 9)), min_size=1, max_size=14
)


@settings(max_examples=500, deadline=None)
@given(HISTORIES, st.integers(0, 30), st.integers(0, 30))
def test_merge_bases_come_from_the_graph(shape, one, other):
    commits = {
        b"%02d" % number: Commit(
            EMPTY_DIRECTORY,
            tuple(b"%02d" % parent for parent in parents if parent < number),
            Author("", ""),
            time,
            "",
        )
        for number, (parents, time) in enumerate(shape)
    }
    ours, theirs = b"%02d" % (one % len(shape)), b"%02d" % (other % len(shape))
    load = commits.__getitem__
    common = [c for c in commits if is_ancestor(load, c, ours) and is_ancestor(load, c, theirs)]
    best = [c for c in common if not any(c != d and is_ancestor(load, c, d) for d in common)]
    assert merge_bases(load, ours, theirs) == sorted(best, key=lambda c: (-commits[c].time, c)), "newest first"


def test_a_long_history_is_not_read_to_its_beginning():
    loads = 0
    commits = {b"%06d" % i: (b"%06d" % (i - 1),) if i else () for i in range(10_000)}
    commits |= {b"x": (b"009990",), b"y": (b"009980",)}

    def load(digest):
        nonlocal loads
        loads += 1
        time = int(digest) if digest.isdigit() else 10_001
        return Commit(EMPTY_DIRECTORY, commits[digest], Author("", ""), time, "")

    assert merge_bases(load, b"x", b"y") == [b"009980"]
    assert loads < 100
