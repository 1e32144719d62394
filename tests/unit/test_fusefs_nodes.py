"""Inodes without FUSE: numbers, lookup counts, snapshots by rank, working trees against a model."""

from __future__ import annotations

import os
import stat
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from fusefs import nodes
from fusefs.facts import packed, unpacked
from fusefs.layout import LIVE, ROOT_INODE, Owner
from fusefs.nodes import CrossDevice, NodeTable, Stale
from fusefs.placed import Gone
from fusefs.view import View
from fusefs.working import Notice, WorkingDirectory
from fusefs.working_file import CLOSED, WorkingFile
from storage import snapshot as snapshot_module
from storage.engine import Engine
from storage.errors import ArborError, NotFound
from storage.model.records import PLAIN, Attributes, Author, Entry, Kind, Place, directory_entry
from storage.model.samples import BytesSource
from storage.stores.contents import value_check
from storage.tree.node import EMPTY

ADA = Author("Ada", "ada@example.org")
OWNER = Owner(1000, 1000)


def put(engine: Engine, path: str, data: bytes = b"x") -> None:
    engine.working_tree("main").put_file(tuple(path.encode().split(b"/")), BytesSource(data))


def names(listing) -> list[bytes]:
    return [name for name, _, _ in listing.entries(0)]


@pytest.fixture
def snapshot(engine):
    """The view of a snapshot of 500 files in a directory, and its table."""
    tree = engine.working_tree("main")
    tree.make_directory((b"d",))
    for number in range(500):
        put(engine, f"d/{number:03d}", b"%d" % number)
    tree.commit("files")
    view = View(engine, OWNER, ref="main")
    return view, NodeTable(view.root, view.snapshots)


class TestFacts:
    @given(
        kind=st.sampled_from([Kind.SAMPLE, Kind.FILE, Kind.SYMLINK]),
        size=st.integers(0, 2**63),
        mtime=st.integers(-(2**63), 2**63 - 1),
        attributes=st.builds(
            Attributes,
            mode=st.none() | st.integers(0, 0o7777),
            uid=st.none() | st.integers(0, 2**32 - 1),
            xattrs=st.just(()) | st.just(((b"user.a", b"x" * 500),)),
            header=st.none() | st.binary(min_size=1),
        ),
        flags=st.integers(0, 3),
        value=st.binary(max_size=100),
    )
    def test_all_but_contents_comes_back(self, kind, size, mtime, attributes, flags, value):
        entry = Entry(kind, size, mtime, attributes, flags, value)
        again = unpacked(packed(entry))
        assert replace(again, value=b"") == replace(entry, value=b"")
        assert value_check(again.value) == value_check(value)
        assert not flags or not value or again.value == value

    def test_of_directories_everything_comes_back(self):
        for entry in (directory_entry(EMPTY, 5, 3, 100, mtime=7), Entry(Kind.STAGED, 0, 9, PLAIN, 0, bytes(8))):
            assert unpacked(packed(entry)) == entry

    def test_a_staged_value_is_known_by_its_checksum(self):
        entry = Entry(Kind.FILE, 100, 7, PLAIN, 1, Place(3, 40, 100, 12345))
        assert value_check(unpacked(packed(entry)).value) == 12345


class TestSnapshots:
    def test_nodes_are_found_again_by_their_numbers(self, snapshot):
        _view, table = snapshot
        directory = table[ROOT_INODE].child(b"d")
        table.remember(directory)
        numbers = set()
        for number in range(500):
            node = directory.child(b"%03d" % number)
            table.remember(node)
            numbers.add(node.ino)
            again = table[node.ino]
            assert again.stat() == node.stat()
            assert bytes(again.open(0).read(0, 10)) == b"%d" % number
        assert len(numbers) == 500
        assert not any(number & LIVE for number in numbers)

    def test_no_object_is_kept_for_an_entry(self, snapshot):
        view, table = snapshot
        directory = table[ROOT_INODE].child(b"d")
        table.remember(directory)
        nodes = [directory.child(b"%03d" % number) for number in range(500)]
        for node in nodes:
            table.remember(node)
        assert len(table) == 1
        assert len(view.snapshots) == 2
        for node in nodes:
            table.forget(node.ino, 1)
        assert len(view.snapshots) == 1, "a directory in which nothing is known is let go"
        with pytest.raises(Stale):
            table[nodes[0].ino]
        assert table[directory.ino].child(b"000").stat().size == 1

    def test_lookups_are_counted(self, snapshot):
        _view, table = snapshot
        directory = table[ROOT_INODE].child(b"d")
        node = directory.child(b"000")
        for _ in range(3):
            table.remember(node)
        table.forget(node.ino, 2)
        assert table[node.ino].stat().size == 1
        table.forget(node.ino, 1)
        with pytest.raises(Stale):
            table[node.ino]

    def test_listing_from_any_position(self, snapshot):
        _view, table = snapshot
        listing = table[ROOT_INODE].child(b"d").listing()
        everything = [(name, following) for name, _, following in listing.entries(0)]
        assert [name for name, _ in everything] == [b"%03d" % number for number in range(500)]
        for at in (1, 17, 499):
            assert [name for name, _, _ in listing.entries(everything[at - 1][1])] == [
                name for name, _ in everything[at:]
            ]
        half = listing.entries(0)
        for _ in range(10):
            next(half)
        # The tenth was handed out and found no room: it comes again.
        assert next(listing.entries(9))[0] == b"009"
        listing.close()

    def test_unknown_numbers_are_stale(self, snapshot):
        _, table = snapshot
        for number in (12345 << 32 | 1, LIVE + 7, 5 << 32):
            with pytest.raises(Stale):
                table[number]


class TestWorkingTrees:
    @pytest.fixture
    def root(self, engine):
        view = View(engine, OWNER, branch="main")
        self.view, self.table = view, NodeTable(view.root, view.snapshots)
        return view.root

    def test_finding_is_not_remembering(self, root, engine):
        put(engine, "f")
        one, other = root.child(b"f"), root.child(b"f")
        assert one is not other
        assert one.known == 0
        assert len(self.table) == 1
        self.table.remember(one)
        assert root.child(b"f") is one
        assert one.ino & LIVE

    def test_forgotten_nodes_are_made_anew(self, root, engine):
        put(engine, "f")
        node = root.child(b"f")
        self.table.remember(node)
        number = node.ino
        self.table.forget(number, 1)
        with pytest.raises(Stale):
            self.table[number]
        again = root.child(b"f")
        self.table.remember(again)
        assert again.ino != number

    def test_listing_resumes_where_there_was_no_room(self, root, engine):
        for number in range(1200):
            put(engine, f"{number:04d}")
        listing = root.listing()
        seen, position = [], 0
        while True:
            taken = 0
            for name, _, following in listing.entries(position):
                if taken == 7:
                    break
                seen.append(name)
                position, taken = following, taken + 1
                if len(seen) % 100 == 0:
                    engine.working_tree("main").remove((name,))
            if not taken:
                break
        assert seen == [b"%04d" % number for number in range(1200)]
        assert len(names(listing)) == 1188

    def test_a_replaced_file_is_not_opened_again(self, root, engine):
        """Not even while the kernel has not heard of it: there is nothing behind the node any more."""
        put(engine, "f", b"one")
        node = root.child(b"f")
        self.table.remember(node)
        put(engine, "f", b"another")
        list(root.recheck(b"f"))
        with pytest.raises(Stale):
            node.open(os.O_RDONLY)
        assert bytes(root.child(b"f").open(os.O_RDONLY).read(0, 100)) == b"another"

    def test_a_file_that_another_process_removed_is_looked_up_again(self, root, engine):
        """Stale, not NotFound: who opens with O_CREAT gets a new file then, and not ENOENT."""
        put(engine, "f", b"one")
        node = root.child(b"f")
        self.table.remember(node)
        engine.working_tree("main").remove((b"f",))
        with pytest.raises(Stale):
            node.open(os.O_WRONLY)
        assert b"f" not in root.children

    def test_opening_sees_what_others_staged_also_while_the_file_is_open(self, root, engine):
        put(engine, "f", b"one")
        node = root.child(b"f")
        self.table.remember(node)
        old = node.open(os.O_RDONLY)
        put(engine, "f", b"another")
        with pytest.raises(Stale):
            node.open(os.O_RDONLY)
        assert bytes(old.read(0, 100)) == b"one"
        assert bytes(root.child(b"f").open(os.O_RDONLY).read(0, 100)) == b"another"

    @pytest.mark.parametrize("size", [0, 10, 4000, 60_000, 200_000])
    def test_a_node_holds_no_contents_and_knows_new_ones(self, root, engine, size):
        put(engine, "f", b"a" * size)
        node = root.child(b"f")
        self.table.remember(node)
        node.open(os.O_RDWR).write(0, b"b" * size)
        node.stage()
        node.close()
        assert node.opened is CLOSED
        assert sys.getsizeof(packed(node.entry)) < 120
        engine.working_tree("main").set_attributes((b"f",), mode=0o600)
        assert Notice(node.ino) in list(root.recheck(b"f")), "the same bytes are the same inode"
        assert not node.gone
        assert stat.S_IMODE(node.stat().mode) == 0o600
        assert bytes(node.open(os.O_RDONLY).read(0, size)) == b"b" * size
        put(engine, "f", b"c" * size + b"d")
        list(root.recheck(b"f"))
        assert node.gone, "other bytes are another one"

    def test_contents_of_the_same_size_are_told_apart_before_and_after_a_commit(self, root, engine):
        for first, then in ((False, False), (False, True), (True, False), (True, True)):
            for size in (20, 3000, 50_000, 200_000):
                put(engine, "f", b"a" * size)
                if first:
                    engine.working_tree("main").commit("one")
                node = root.child(b"f")
                self.table.remember(node)
                put(engine, "f", b"b" * size)
                if then:
                    engine.working_tree("main").commit("another")
                with pytest.raises(Stale):
                    node.open(os.O_RDONLY)

    def test_a_commit_elsewhere_leaves_the_inodes(self, root, engine):
        for size in (20, 3000, 50_000, 200_000):
            put(engine, "f", b"a" * size)
            node = root.child(b"f")
            self.table.remember(node)
            engine.working_tree("main").commit("one")
            list(root.recheck(b"f"))
            assert not node.gone
            engine.working_tree("main").remove((b"f",))
            list(root.recheck(b"f"))

    def test_a_listing_says_what_stat_says(self, root, engine):
        put(engine, "known", b"12345")
        put(engine, "new", b"123")
        engine.working_tree("main").make_directory((b"d",))
        engine.working_tree("main").set_attributes((b"new",), mode=0o640, mtime=77)
        known = root.child(b"known")
        self.table.remember(known)
        handle = known.open(os.O_RDWR)
        handle.write(5, b"6")
        listing, sizes = root.listing(), {}
        for name, node, _ in listing.entries(0):
            assert listing.stat(node) == node.stat()
            sizes[name] = listing.stat(node).size
        assert sizes == {b"d": 0, b"known": 6, b"new": 3}
        known.close()

    def test_what_is_forgotten_leaves_nothing(self, root, engine, monkeypatch):
        monkeypatch.setattr(nodes, "MANY", 200)
        for number in range(300):
            put(engine, f"{number:03d}")
        assert not self.table.forget_many([])
        for _ in range(2):
            known = [root.child(b"%03d" % number) for number in range(300)]
            for node in known:
                self.table.remember(node)
            assert len(list(self.table)) == len(self.table) == 301
            given_back = [(node.ino, 1) for node in known]
            empty = sys.getsizeof({})
            assert not self.table.forget_many(given_back[:150])
            assert self.table.forget_many(given_back[150:])
            assert not self.table.forget_many([]), "it is told once"
            assert list(self.table) == [root]
            assert sys.getsizeof(root.children) == empty
            assert len(self.table._pages) == 1

    def test_the_table_is_read_again_after_letting_go(self, root, engine):
        put(engine, "f", b"x" * 100_000)
        engine.working_tree("main").commit("one")
        assert bytes(root.child(b"f").open(os.O_RDONLY).read(0, 1)) == b"x"
        assert engine.objects._nodes
        self.view.let_go()
        assert not engine.objects._nodes
        assert not engine.objects._chunks
        assert bytes(root.child(b"f").open(os.O_RDONLY).read(0, 1)) == b"x"

    def test_a_large_directory_is_listed_without_keeping_its_leaves(self, root, engine, monkeypatch):
        tree = engine.working_tree("main")
        entry = Entry(Kind.FILE, 1, 1, PLAIN, 0, b"x")
        tree.put_rows((), [(b"%05d" % number, entry) for number in range(5000)])
        commit = tree.commit("many")
        for large, kept in ((10, 1), (10_000, 6)):
            monkeypatch.setattr(snapshot_module, "LARGE", large)
            engine.objects.empty_caches()
            assert len(names(root.listing())) == 5000
            below = engine.snapshot(commit)
            assert len(list(below.rows(below.record.root.root))) == 5000
            assert (len(engine.objects._nodes) > 5) == (kept > 5)

    def test_a_refused_sample_is_tried_once_for_each_version(self, root, engine, monkeypatch):
        import numpy as np

        from storage.errors import SchemaMismatch
        from storage.model.records import Attributes
        from storage.model.samples import make_schema

        schema = make_schema(np.dtype("<f8"), (2,), uuid="u")
        engine.working_tree("main").make_directory((b"d",), attributes=Attributes(schema=schema))
        directory = root.child(b"d")
        file = directory.make_file(b"x.npy", 0o644, 1000, 1000)
        handle = file.open(os.O_RDWR)
        handle.write(0, b"junk")
        for _ in range(3):
            with pytest.raises(SchemaMismatch):
                file.stage()
        assert file.close() is True
        assert root.branch.rejections.names() == [b"1-x.npy"]
        assert len(root.branch.rejections.errors()) == 1
        assert file.gone is Gone.REPLACED
        with pytest.raises(NotFound):
            directory.child(b"x.npy")

    def test_trees_do_not_mix(self, engine, root):
        put(engine, "f")
        engine.create_branch("other")
        other = self.view.open_branch("other")
        with pytest.raises(CrossDevice):
            root.rename(b"f", other, b"f", replace=True)


NAMES = st.sampled_from([b"a", b"b", b"c"])


class WorkingMachine(RuleBasedStateMachine):
    """Random operations on the nodes of a working tree, against nested dicts; open files included."""

    handles = Bundle("handles")

    @initialize()
    def start(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.engine = Engine.create(self.folder.name + "/r", ADA)
        self.view = View(self.engine, OWNER, branch="main")
        self.table = NodeTable(self.view.root, self.view.snapshots)
        self.model: dict = {}
        self.open: list = []

    def teardown(self):
        if hasattr(self, "engine"):
            self.engine.close()
            self.folder.cleanup()

    def at(self, path):
        node, model = self.view.root, self.model
        for name in path:
            model = model.get(name) if isinstance(model, dict) else None
            if not isinstance(model, dict):
                return None, None
            node = node.child(name)
            self.table.remember(node)
        return node, model

    def agree(self, act, model_act) -> None:
        """Either both do it or neither."""
        try:
            expected = model_act()
        except (KeyError, ValueError):
            with pytest.raises(ArborError):
                act()
            return
        assert expected is None
        act()

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES, data=st.binary(max_size=30))
    def write(self, path, name, data):
        node, model = self.at(path)
        if node is None or isinstance(model.get(name), dict):
            return
        file = node.child(name) if name in model else node.make_file(name, 0o644, 1000, 1000)
        self.table.remember(file)
        handle = file.open(os.O_WRONLY | os.O_TRUNC)
        handle.write(0, data)
        file.stage()
        file.close()
        model[name] = data

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES)
    def make_directory(self, path, name):
        node, model = self.at(path)
        if node is None:
            return

        def model_act():
            if name in model:
                raise ValueError
            model[name] = {}

        self.agree(lambda: node.make_directory(name, 0o755, 1000, 1000), model_act)

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES)
    def unlink(self, path, name):
        node, model = self.at(path)
        if node is None:
            return

        def model_act():
            if isinstance(model[name], dict):
                raise ValueError
            del model[name]

        self.agree(lambda: node.unlink(name), model_act)

    @rule(path=st.lists(NAMES, max_size=2), name=NAMES)
    def remove_directory(self, path, name):
        node, model = self.at(path)
        if node is None:
            return

        def model_act():
            if model[name] != {}:
                raise ValueError
            del model[name]

        self.agree(lambda: node.remove_directory(name), model_act)

    @rule(one=st.lists(NAMES, max_size=2), name=NAMES, other=st.lists(NAMES, max_size=2), new=NAMES, over=st.booleans())
    def rename(self, one, name, other, new, over):
        source, source_model = self.at(one)
        target, target_model = self.at(other)
        if source is None or target is None:
            return

        def model_act():
            moved, there = source_model[name], target_model.get(new)
            inside = [*other, new][: len(one) + 1] == [*one, name] and (one, name) != (other, new)
            if inside or (there is not None and not over):
                raise ValueError
            if (one, name) == (other, new):
                return
            if there is not None and (
                isinstance(moved, dict) != isinstance(there, dict) or (isinstance(there, dict) and there)
            ):
                raise ValueError
            del source_model[name]
            target_model[new] = moved

        self.agree(lambda: source.rename(name, target, new, replace=over), model_act)

    @rule(target=handles, path=st.lists(NAMES, max_size=2), name=NAMES)
    def open_file(self, path, name):
        node, model = self.at(path)
        if node is None or not isinstance(model.get(name), bytes):
            return None
        file = node.child(name)
        self.table.remember(file)
        data = model[name]
        file.open(os.O_RDWR)
        self.open.append(file)
        return file, data

    @rule(entry=handles)
    def read_open(self, entry):
        if entry is not None and entry[0] in self.open and entry[0].gone:
            assert isinstance(entry[0], WorkingFile)

    @rule()
    def commit(self):
        tree = self.engine.working_tree("main")
        if tree.is_dirty():
            tree.commit("step")

    @rule()
    def forget_everything(self):
        for node in list(self.table):
            if node.ino != ROOT_INODE and not getattr(node, "handles", 0):
                self.table.forget(node.ino, node.known)

    @invariant()
    def same(self):
        if hasattr(self, "view"):
            assert shown(self.view.root) == self.model


def shown(directory: WorkingDirectory) -> dict:
    found = {}
    for name, node, _ in directory.listing().entries(0):
        if isinstance(node, WorkingDirectory):
            found[name] = shown(node)
        else:
            assert isinstance(node, WorkingFile)
            handle = node.open(os.O_RDONLY)
            found[name] = bytes(handle.read(0, 1000))
            node.close()
            assert node.stat().size == len(found[name])
    return found


WorkingMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestWorkingMachine = WorkingMachine.TestCase
