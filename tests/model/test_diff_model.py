"""Differences against plain dicts: what a comparison of two trees tells, applied to the one, gives the other."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from itertools import product
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from storage.engine import Engine
from storage.errors import ArborError
from storage.model.history import best_common_ancestors, is_ancestor
from storage.model.records import Attributes, Author, Commit, Entry, Kind
from storage.model.samples import BytesSource

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


def below(mapping, path):
    return [each for each in mapping if each[: len(path)] == path]


def applied(engine, old, new, differences, start):
    """`start` with the differences applied: first everything leaves, then everything comes."""
    result = dict(start)
    moved = {}
    for each in differences:
        if each.source is not None:
            whole = below(start, each.source)
            moved |= {(*each.path, *path[len(each.source) :]): start[path] for path in whole}
    for each in differences:
        if each.change == "renamed":
            for path in below(start, each.source):
                result.pop(path, None)
        elif each.change == "removed":
            del result[each.path]
    result |= moved
    for each in differences:
        if each.new is not None:
            result[each.path] = facts(engine, new, each.path, each.new)
    return result


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
    assert applied(engine, old, new, plain, one) == other
    for each in plain:
        if each.change == "changed":
            same = one[each.path][0] == other[each.path][0] and one[each.path][2] == other[each.path][2]
            assert each.only_attributes == same
    assert applied(engine, old, new, engine.compared(old, new), one) == other


@given(st.data())
def test_best_common_ancestors_are_those_that_no_other_one_descends_from(data):

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
    found = best_common_ancestors(load, a, b)
    assert set(found) == best and len(found) == len(best)
