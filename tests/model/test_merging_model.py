"""Random merges in a repository: what status says, aborting, and that a commit is what the working tree was."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.engine import Engine
from storage.errors import ArborError, OpenConflicts
from storage.maintenance.verify import verify
from storage.merging import CHOICES, Outcome
from storage.model.records import Author
from storage.model.samples import BytesSource
from storage.tree.merge import AttributesChanged

NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), PATHS, st.sampled_from([b"", b"x", b"y" * 100, b"z" * 5000])),
        st.tuples(st.just("make"), PATHS, st.just(b"")),
        st.tuples(st.just("remove"), PATHS, st.just(b"")),
        st.tuples(st.just("move"), PATHS, NAMES),
        st.tuples(st.just("mode"), PATHS, st.sampled_from([b"1", b"2"])),
    ),
    max_size=8,
)


def change(tree, changes) -> None:
    """Make those of the changes that are possible."""
    for what, path, data in changes:
        try:
            if what == "put":
                tree.put_file(path, BytesSource(data))
            elif what == "make":
                tree.make_directory(path, mtime=1)
            elif what == "remove":
                tree.remove_tree(path)
            elif what == "move":
                tree.rename(path, (data,))
            else:
                tree.set_attributes(path, mode=0o600 + data[0])
        except ArborError:
            continue


def walked(tree, path=()) -> dict:
    """What stands at every path: kind, mode, and of files the contents."""
    found = {}
    for name, entry in tree.entries(path):
        here = (*path, name)
        if entry.is_directory:
            found[here] = ("directory", entry.attributes.mode)
            found |= walked(tree, here)
        else:
            content = tree.open(here)[1]
            found[here] = (bytes(content.read(0, content.size)), entry.attributes.mode)
    return found


def told_by(rows, path) -> bool:
    """Whether status has the path, or a directory above it that came, went or was replaced whole."""
    return any(row.path == path or (row.path == path[: len(row.path)] and row.kind.name == "DIRECTORY") for row in rows)


def check_status(tree, tip) -> None:
    """Every path that differs from the tip is told, and nothing that does not."""
    now, before = walked(tree), walked(tip)
    rows = tree.status()
    for path in now.keys() | before.keys():
        if now.get(path) != before.get(path):
            assert told_by(rows, path), f"{path} differs and is not told: {rows}"
    for row in rows:
        assert row.change != "removed" or row.path not in now
        assert row.change != "added" or row.path in now
        assert row.change == "added" or row.path in before


@settings(max_examples=60, deadline=None)
@given(CHANGES, CHANGES, CHANGES, CHANGES, st.lists(st.sampled_from(CHOICES), min_size=1, max_size=4), st.booleans())
def test_a_merge_under_way(first, ours, theirs, later, choices, give_up):
    folder = Path(tempfile.mkdtemp(prefix="arborfs-merging-"))
    try:
        with Engine.create(folder, Author("a", "b")) as engine:
            main = engine.working_tree("main")
            main.put_file((b"always",), BytesSource(b"there"))
            change(main, first)
            main.commit("base")
            engine.create_branch("dev")
            dev = engine.working_tree("dev")
            change(main, ours)
            change(dev, theirs)
            main.put_file((b"ours",), BytesSource(b"x"))
            dev.put_file((b"theirs",), BytesSource(b"x"))
            tip = engine.snapshot(main.commit("ours"))
            other = engine.snapshot(dev.commit("theirs"))
            merging = engine.merging("main")
            result = merging.merge(other.commit, leave_open=True)
            if result.outcome is Outcome.COMMITTED:
                assert main.status() == []
                assert walked(engine.snapshot(result.commit)) == walked(main)
                return
            check_status(main, tip)
            for conflict in result.conflicts:
                now, before = walked(main).get(conflict.path), walked(tip).get(conflict.path)
                if isinstance(conflict, AttributesChanged) and now and before:
                    now, before = now[1], before[1]  # contents are merged
                assert now == before or not conflict.path
            change(main, later)
            check_status(main, tip)
            if give_up:
                merging.abort()
                assert main.status() == []
                assert walked(main) == walked(tip)
                return
            for number, (path, _) in enumerate(merging.open()):
                try:
                    main.commit("too early")
                    raise AssertionError("a commit with open conflicts")
                except OpenConflicts:
                    merging.resolve(path, choices[number % len(choices)])
            check_status(main, tip)
            wanted = walked(main)
            made = engine.snapshot(main.commit("merged"))
            assert made.record.parents == (tip.commit, other.commit)
            assert walked(made) == wanted == walked(main)
            assert main.status() == []
            assert verify(engine) == []
    finally:
        shutil.rmtree(folder)
