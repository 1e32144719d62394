"""Differences against plain dicts: what a comparison of two trees tells, applied to the one, gives the other."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.engine import Engine
from storage.errors import ArborError
from storage.model.history import is_ancestor, merge_bases
from storage.model.records import Attributes, Author, Commit, Entry, Kind, sample_head
from storage.model.samples import BytesSource, make_schema

NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
DATA = st.sampled_from([b"", b"x", b"y" * 100, b"z" * 5000, b"w" * 5000, b"big" * 30_000])
BRANCHES = st.sampled_from(["main", "other"])
STEPS = st.one_of(
    st.tuples(st.just("put"), BRANCHES, PATHS, DATA),
    st.tuples(st.just("put"), BRANCHES, PATHS, DATA),
    st.tuples(st.just("link"), BRANCHES, PATHS, DATA),
    st.tuples(st.just("mkdir"), BRANCHES, PATHS, st.none()),
    st.tuples(st.just("remove"), BRANCHES, PATHS, st.none()),
    st.tuples(st.just("rename"), BRANCHES, PATHS, PATHS),
    st.tuples(st.just("mode"), BRANCHES, PATHS, st.sampled_from([0o600, 0o750])),
    st.tuples(st.just("xattr"), BRANCHES, PATHS, DATA),
    st.tuples(st.just("touch"), BRANCHES, PATHS, st.integers(1, 3)),
    st.tuples(st.just("commit"), BRANCHES, st.just(()), st.none()),
)


def do(engine, what, branch, path, value):
    """One step, as far as it is possible; times come from the step alone, so that equal things are equal."""
    tree = engine.working_tree(branch)
    calls = {
        "put": lambda: tree.put_file(path, BytesSource(value), mtime=7),
        "link": lambda: tree.make_symlink(path, value[:50] or b"t", mtime=7),
        "mkdir": lambda: tree.make_directory(path, mtime=7),
        "remove": lambda: tree.remove_tree(path),
        "rename": lambda: tree.rename(path, value),
        "mode": lambda: tree.set_attributes(path, mode=value),
        "xattr": lambda: tree.set_attributes(path, xattrs={b"user.x": value[:10] or None}),
        "touch": lambda: tree.set_attributes(path, mtime=value),
        "commit": lambda: tree.commit("a commit"),
    }
    with suppress(ArborError):
        calls[what]()


def facts(engine, tree, path, entry: Entry):
    """What counts of an entry, without the tree's own terms."""
    attributes = Attributes(entry.attributes.mode, xattrs=entry.attributes.xattrs)
    if entry.is_directory:
        return Kind.DIRECTORY, attributes, None, None
    if entry.kind is Kind.SYMLINK:
        return Kind.SYMLINK, attributes, entry.value, entry.mtime
    content = engine.contents(tree, path, entry, None)
    return entry.kind, attributes, bytes(content.read(0, entry.size)), entry.mtime


def model(engine, tree):
    """Path → facts of everything in a tree, read in the plain way."""
    reader = engine.working_tree(tree.branch) if tree.branch else engine.snapshot(tree.commit)
    found = {(): facts(engine, tree, (), reader.entry(()))}
    todo = [()]
    while todo:
        directory = todo.pop()
        for name, entry in reader.entries(directory):
            path = (*directory, name)
            found[path] = facts(engine, tree, path, entry)
            if entry.is_directory:
                todo.append(path)
    return found


def applied(engine, new, differences, start):
    """`start` with the differences applied: everything goes where the longest renamed path above it goes."""
    moves = {each.source: each.path for each in differences if each.source is not None}
    removed = {each.path for each in differences if each.change == "removed"}
    result = {}
    for path, found in start.items():
        source = next((path[:depth] for depth in range(len(path), 0, -1) if path[:depth] in moves), ())
        if path not in removed:
            result[(*moves.get(source, ()), *path[len(source) :])] = found
    for each in differences:
        if each.new is not None:
            result[each.path] = facts(engine, new, each.path, each.new)
    return result


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=12), st.lists(STEPS, max_size=12))
def test_differences_applied_to_the_old_tree_give_the_new_one(before, after):
    with (
        tempfile.TemporaryDirectory(prefix="arborfs-model-") as folder,
        Engine.create(Path(folder), Author("a", "b")) as engine,
    ):
        engine.create_branch("other")
        for step in before:
            do(engine, *step)
        with suppress(ArborError):
            engine.working_tree("main").commit("between")
        for step in after:
            do(engine, *step)
        trees = [engine.committed(commit) for commit in engine.commits()]
        trees += [engine.standing("main"), engine.standing("other")]
        models = [model(engine, tree) for tree in trees]
        for (old, one), (new, other) in product(zip(trees, models, strict=True), repeat=2):
            check(engine, old, new, one, other)


def check(engine, old, new, one, other):
    """Both ways to list the differences between two trees are right, and list nothing that does not differ."""
    plain = list(engine.comparison(old, new).differences())
    assert [each.path for each in plain] == sorted(path for path in one | other if one.get(path) != other.get(path))
    assert applied(engine, new, plain, one) == other
    for each in plain:
        if each.change == "changed":
            same = one[each.path][0] == other[each.path][0] and one[each.path][2] == other[each.path][2]
            assert each.only_attributes == same
    assert applied(engine, new, engine.compared(old, new), one) == other


@settings(deadline=None)
@given(st.data())
def test_merge_bases_are_those_that_no_other_one_descends_from(data):

    commits = {}
    for number in range(data.draw(st.integers(2, 9))):
        parents = data.draw(st.lists(st.sampled_from(sorted(commits)), max_size=2, unique=True)) if commits else []
        digest = bytes([number]) * 32
        time = data.draw(st.integers(0, 5))  # clocks are wrong now and then
        commits[digest] = Commit(Entry(Kind.DIRECTORY), tuple(parents), Author("a", "b"), time, "")
    load = commits.__getitem__
    a, b = data.draw(st.sampled_from(sorted(commits))), data.draw(st.sampled_from(sorted(commits)))
    common = [c for c in commits if is_ancestor(load, c, a) and is_ancestor(load, c, b)]
    best = {c for c in common if not any(c != d and is_ancestor(load, c, d) for d in common)}
    found = merge_bases(load, a, b)
    assert set(found) == best and len(found) == len(best)


def rows(differences):
    """Change, path and old path of each, as text."""
    texts = [(each.change, b"/".join(each.path), b"/".join(each.source or ())) for each in differences]
    return [tuple(part.decode() if isinstance(part, bytes) else part for part in text if part) for text in texts]


@pytest.fixture
def tree(engine):
    """A working tree with two directories of 300 files each, committed."""
    tree = engine.working_tree("main")
    for directory in (b"one", b"two"):
        tree.make_directory((directory,))
        for number in range(300):
            tree.put_file((directory, b"%03d" % number), BytesSource(b"%s %d" % (directory, number)), mtime=7)
    tree.commit("600 files")
    return tree


def staged_and_committed(engine, tree):
    """What is staged, twice: before the commit and after it. Both ways it must be told alike."""
    found = rows(engine.compared(engine.committed(tree.tip()), engine.standing("main")))
    tip = tree.tip()
    tree.commit("more")
    assert rows(engine.compared(engine.committed(tip), engine.committed(tree.tip()))) == found
    return found


class TestRenames:
    def test_a_directory_that_was_renamed_and_changed(self, engine, tree):
        tree.rename((b"one",), (b"three",))
        tree.put_file((b"three", b"007"), BytesSource(b"another"), mtime=8)
        tree.remove((b"three", b"008"))
        tree.put_file((b"three", b"new"), BytesSource(b"brand new"), mtime=8)
        assert staged_and_committed(engine, tree) == [
            ("removed", "one/008"),
            ("renamed", "three", "one"),
            ("renamed", "three/007", "one/007"),
            ("added", "three/new"),
        ]

    def test_a_file_that_leaves_a_renamed_directory(self, engine, tree):
        tree.rename((b"one",), (b"three",))
        tree.rename((b"three", b"007"), (b"out",))
        assert staged_and_committed(engine, tree) == [("renamed", "out", "one/007"), ("renamed", "three", "one")]

    def test_two_directories_change_places(self, engine, tree):
        tree.exchange((b"one",), (b"two",))
        # Both names are on both sides: what is below them changed.
        found = staged_and_committed(engine, tree)
        assert len(found) == 600 and {change for change, *_ in found} == {"changed"}

    def test_a_directory_moves_into_a_new_one_and_out_of_one_that_goes(self, engine, tree):
        tree.make_directory((b"new",), mtime=7)
        tree.rename((b"one",), (b"new", b"one"))
        assert staged_and_committed(engine, tree) == [("added", "new"), ("renamed", "new/one", "one")]
        tree.rename((b"new", b"one"), (b"back",))
        tree.remove_tree((b"new",))
        assert staged_and_committed(engine, tree) == [("renamed", "back", "new/one"), ("removed", "new")]

    def test_of_several_alike_the_one_of_the_same_name(self, engine, tree):
        for name in (b"a", b"b", b"c"):
            tree.put_file((name,), BytesSource(b"all alike"), mtime=7)
        tree.commit("three alike")
        tree.make_directory((b"d",), mtime=7)
        for name in (b"a", b"b"):
            tree.rename((name,), (b"d", name))
        tree.rename((b"c",), (b"d", b"other"))
        assert staged_and_committed(engine, tree) == [
            ("added", "d"),
            ("renamed", "d/a", "a"),
            ("renamed", "d/b", "b"),
            ("renamed", "d/other", "c"),
        ]

    def test_of_several_alike_none_where_nothing_tells_them_apart(self, engine, tree):
        for name in (b"a", b"b"):
            tree.put_file((name,), BytesSource(b"all alike"), mtime=7)
        tree.commit("two alike")
        tree.rename((b"a",), (b"x",))
        tree.rename((b"b",), (b"y",))
        assert [change for change, *_ in staged_and_committed(engine, tree)] == ["removed", "removed", "added", "added"]

    def test_empty_files_and_directories_are_never_renamed(self, engine, tree):
        tree.make_file((b"a",), mtime=7)
        tree.make_directory((b"b",), mtime=7)
        tree.commit("nothing in them")
        tree.rename((b"a",), (b"x",))
        tree.rename((b"b",), (b"y",))
        assert [change for change, *_ in staged_and_committed(engine, tree)] == ["removed", "removed", "added", "added"]

    def test_a_file_of_another_kind_is_another_file(self, engine, tree):
        tree.put_file((b"a",), BytesSource(b"target"), mtime=7)
        tree.commit("a file")
        tree.remove((b"a",))
        tree.make_symlink((b"b",), b"target", mtime=7)
        assert staged_and_committed(engine, tree) == [("removed", "a"), ("added", "b")]


def test_a_comparison_reads_what_differs_and_no_more(engine):
    """100,000 samples: nodes are counted, not time."""
    tree = engine.working_tree("main")
    schema = make_schema(np.dtype("<i4"), (4,))
    tree.make_directory((b"data",), attributes=Attributes(schema=schema))
    names = [b"%06d.npy" % number for number in range(100_000)]
    head = sample_head(144, 7)
    for first in range(0, len(names), 10_000):
        some = range(first, first + 10_000)
        values = [number.to_bytes(16, "little") for number in some]
        tree.put_samples((b"data",), names[first : first + 10_000], values, head)
    before = engine.committed(tree.commit("100,000"))
    tree.put_samples((b"data",), names[77:78], [bytes(16)], head)
    one = engine.standing("main")
    changed, height = loads(engine, before, one)
    assert changed == 1 and height <= 5  # a look at what the row replaces: nothing else is read
    one = engine.committed(tree.commit("one"))
    changed, loaded = loads(engine, before, one)
    assert changed == 1 and loaded <= 2 * height  # two paths from the root down
    tree.put_samples((b"data",), names[::1000], [b"\xff" * 16] * 100, head)
    hundred = engine.committed(tree.commit("a hundred"))
    changed, loaded = loads(engine, one, hundred)
    assert changed == 100 and loaded <= 100 * 2 * height
    tree.rename((b"data",), (b"moved",))
    renamed = engine.committed(tree.commit("renamed"))
    assert loads(engine, hundred, renamed)[0] == 1 and loads(engine, hundred, renamed)[1] <= 4
    leaves = 100_000 // 60
    tree.put_samples((b"moved",), names[5:6], [bytes(16)], head)
    tree.rename((b"moved",), (b"again",))
    changed, loaded = loads(engine, renamed, engine.standing("main"))
    assert changed == 2 and loaded < leaves / 10  # inner nodes tell that it is the same directory


def loads(engine, old, new):
    """How many differences there are between two trees, and how many nodes are loaded to find them."""
    loaded = []
    load = engine.objects.node
    engine.objects.node = lambda digest: loaded.append(digest) or load(digest)
    try:
        return len(engine.compared(old, new)), len(set(loaded))
    finally:
        engine.objects.node = load


def test_deep_directories(engine):
    tree = engine.working_tree("main")
    tree.make_directory((b"top",), mtime=7)
    path = (b"top",)
    for _ in range(400):
        path = (*path, b"d")
        tree.make_directory(path, mtime=7)
    tree.put_file((*path, b"file"), BytesSource(b"deep down"), mtime=7)
    standing = engine.standing("main")
    assert len(list(engine.comparison(engine.committed(None), standing).differences())) == 402
    assert len(engine.compared(standing, engine.committed(None))) == 402
    tree.put_file((b"other",), BytesSource(b"deep down"), mtime=7)
    tree.put_file((*path, b"file"), BytesSource(b"changed"), mtime=7)
    ((_, changed, *_), (_, other, *_)) = rows(engine.compared(standing, engine.standing("main")))
    assert changed == "other" and other.endswith("/d/file")


def test_a_name_that_came_and_went_in_a_new_directory(engine, tree):
    # As rsync and editors do: a temporary name first, then a rename.
    tree.make_directory((b"new",), mtime=7)
    tree.put_file((b"new", b".a.tmp"), BytesSource(b"a"), mtime=7)
    tree.rename((b"new", b".a.tmp"), (b"new", b"a"))
    tip, staged = engine.committed(tree.tip()), engine.standing("main")
    assert rows(engine.compared(tip, staged)) == [("added", "new"), ("added", "new/a")]
    assert rows(engine.compared(staged, tip)) == [("removed", "new"), ("removed", "new/a")]


def test_what_a_soft_reset_left_staged(engine, tree):
    """The staged rows then lie over another tree than the tip's."""
    first = tree.tip()
    tree.put_file((b"one", b"007"), BytesSource(b"second"), mtime=8)
    tree.remove((b"two", b"008"))
    second = tree.commit("second")
    tree.put_file((b"one", b"009"), BytesSource(b"staged"), mtime=8)
    wanted = rows(engine.compared(engine.committed(first), engine.standing("main")))
    assert wanted == [("changed", "one/007"), ("changed", "one/009"), ("removed", "two/008")]
    engine.reset_soft("main", first)
    standing = engine.standing("main")
    assert standing.commit == first
    assert rows(engine.compared(engine.committed(first), standing)) == wanted
    assert rows(engine.compared(engine.committed(second), standing)) == [("changed", "one/009")]
