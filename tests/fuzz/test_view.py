"""What programs hand to the mount, given to its nodes without FUSE: messages, names, targets, attributes. Done, or
refused with an error that the table of error numbers knows: anything else would be EIO and a traceback in the log.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusefs.errnos import errno_of
from fusefs.layout import ROOT_INODE, Owner
from fusefs.nodes import NoAttribute, Node, NodeTable, NoXattrs
from fusefs.rejections import Rejections
from fusefs.view import View
from storage.errors import ArborError, InvalidName, NotFound
from storage.model.samples import BytesSource
from tests.fuzz.mutations import FUZZ, NESTED, mutated

WRITE = os.O_WRONLY
CONTROL_FILES = [b"commit", b"merge", b"status", b"status.json", b"log", b"log.json", b"errors", b"errors.json"]


@pytest.fixture
def table(engine):
    """The inodes of a repository with a commit, a tag, a second branch and staged work."""
    tree = engine.working_tree("main")
    tree.put_file((b"f",), BytesSource(b"x"))
    engine.create_tag("v1", tree.commit("one"))
    engine.create_branch("side")
    tree.put_file((b"g",), BytesSource(b"staged"))
    view = View(engine, Owner(1000, 1000))
    return NodeTable(view.root, view.snapshots)


@pytest.fixture
def top(table):
    """The root of that repository."""
    return table[ROOT_INODE]


def foreseen(act: Callable[[], object]) -> object:
    """What `act` gives; None where it is refused in a way that has an error number."""
    try:
        return act()
    except Exception as error:
        if errno_of(error) is None or not str(error):
            raise
        return None


def text(directory: Node, name: bytes) -> str:
    """A control file's text as a program reads it, in full: valid UTF-8."""
    handle = directory.child(name).open(os.O_RDONLY)
    data = bytes(handle.read(0, 1 << 30))
    handle.close()
    return data.decode()


def readable(control: Node) -> None:
    """Every control file can be read, and the .json ones are JSON."""
    for name in CONTROL_FILES:
        found = text(control, name)
        if name.endswith(b".json"):
            json.loads(found)


messages = st.one_of(
    st.binary(max_size=200), st.text().map(str.encode), st.sampled_from([b"\0", b"\xff", b"\r\n\x1b[2J"])
)


class TestControlFiles:
    def test_whatever_is_written_to_commit_is_a_message(self, top, engine):
        control = top.child(b"branches").child(b"main").child(b".arborfs")
        tree = engine.working_tree("main")

        @FUZZ
        @given(st.lists(st.tuples(messages, st.integers(0, 2**63 - 1)), max_size=3))
        def examine(writes: list[tuple[bytes, int]]) -> None:
            tree.put_file((b"g",), BytesSource(uuid.uuid4().bytes))
            handle = control.child(b"commit").open(WRITE)
            for data, offset in writes:
                handle.write(offset, data)
            assert handle.read(0, 1000) == b"".join(data for data, _ in writes)[:1000]
            job = handle.submit()
            if job is None:
                assert not any(data for data, _ in writes)
                return
            job()
            message = engine.commit_record(tree.tip()).message
            assert message == b"".join(data for data, _ in writes).decode("utf-8", "replace").strip()
            assert handle.submit() is None

        examine()
        readable(control)

    def test_a_message_without_end_is_refused_and_nothing_is_committed(self, top, engine):
        before = engine.branches()
        handle = top.child(b"branches").child(b"main").child(b".arborfs").child(b"commit").open(WRITE)
        for _ in range(8):
            handle.write(0, b"m" * (1 << 17))
        with pytest.raises(InvalidName):
            handle.write(0, b"m")
        assert engine.branches() == before

    @pytest.mark.parametrize("name", CONTROL_FILES)
    def test_writing_to_the_others(self, top, name):
        control = top.child(b"branches").child(b"main").child(b".arborfs")

        @FUZZ
        @given(st.binary(), st.integers(0, 2**63 - 1), st.sampled_from([WRITE, os.O_RDWR, WRITE | os.O_TRUNC]))
        def examine(data: bytes, offset: int, flags: int) -> None:
            handle = foreseen(lambda: control.child(name).open(flags))
            if handle is not None:
                foreseen(lambda: handle.write(offset, data))
            foreseen(lambda: control.child(name).truncate(offset))
            job = handle.submit() if handle is not None and name != b"commit" else None
            assert job is None or name == b"merge"
            foreseen(job or (lambda: None))

        examine()
        readable(control)

    @pytest.mark.parametrize("where", [b"branches", b"tags"], ids=["branch", "tag"])
    def test_names_in_it(self, top, where):
        control = top.child(where).child(b"main" if where == b"branches" else b"v1").child(b".arborfs")
        there = [name for name, _, _ in control.listing().entries(0)]
        assert set(there) <= {*CONTROL_FILES, b"by", b"rejected", b"diff", b"conflicts", b"stats.json"}

        @FUZZ
        @given(st.binary(min_size=1, max_size=300))
        def examine(name: bytes) -> None:
            if name not in there:
                with pytest.raises(NotFound):
                    control.child(name)
            for act in (control.unlink, control.remove_directory):
                assert foreseen(lambda: (act(name), True)) is None
            assert foreseen(lambda: control.make_file(name, 0o644, 0, 0)) is None
            assert foreseen(lambda: control.rename(name, control, b"x", replace=True)) is None

        examine()
        assert [name for name, _, _ in control.listing().entries(0)] == there


ODD = [
    b"",
    b".",
    b"..",
    b"../..",
    b"a/b",
    b"/",
    b"\0",
    b"a\0b",
    b".arborfs",
    b"HEAD",
    b"main",
    b"v1",
    b"-x",
    b"a" * 600,
]
names = st.one_of(
    st.binary(max_size=300),
    st.text(alphabet="abcABC019._-/~^@{}\0 ", max_size=80).map(str.encode),
    st.sampled_from(ODD),
)
targets = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from([b"..", b"commits", b"/", b"main", b"v1", b"HEAD", b"~1", b"etc", b"\xff"]), max_size=6
    ).map(b"/".join),
    st.just(b"a/" * 2000),
)


class TestRefs:
    @pytest.mark.parametrize(
        "where", [b"branches", b"tags", b"commits", b""], ids=["branches", "tags", "commits", "top"]
    )
    def test_names_and_targets(self, top, engine, where):
        directory = top.child(where) if where else top
        before = sorted(os.walk(engine.path.parent), key=lambda found: found[0])[0]
        allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")

        @FUZZ
        @given(names, names, targets)
        @example(b"x", b"y", b"../commits/main")
        def examine(name: bytes, other: bytes, target: bytes) -> None:
            foreseen(lambda: directory.child(name).stat())
            foreseen(lambda: directory.make_symlink(name, target, 0, 0).target())
            foreseen(lambda: directory.make_directory(name, 0o755, 0, 0).stat())
            foreseen(lambda: directory.make_file(name, 0o644, 0, 0))
            foreseen(lambda: directory.rename(name, directory, other, replace=True))
            foreseen(lambda: directory.exchange(name, directory, other))
            foreseen(lambda: directory.unlink(other))
            for left in (name, other):
                if left not in (b"main", b"side", b"v1"):
                    foreseen(lambda: directory.remove_directory(left))
            refs = [*engine.branches(), *engine.tags()]
            assert all(set(ref) <= allowed and not ref.startswith(".") for ref in refs)

        examine()
        assert [found for found, _, _ in directory.listing().entries(0)] == sorted(directory.names())
        assert sorted(os.walk(engine.path.parent), key=lambda found: found[0])[0] == before

    def test_names_in_a_branch(self, top):
        """Whatever the kernel may hand over as a name: any bytes but / and NUL, and not . or .. themselves."""
        root = top.child(b"branches").child(b"main")
        valid = st.binary(min_size=1, max_size=300).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
        valid = valid.filter(lambda name: name not in (b".", b"..", b"f", b"g"))

        @FUZZ
        @given(valid, valid, st.binary(min_size=1, max_size=5000))
        def examine(name: bytes, other: bytes, target: bytes) -> None:
            link = foreseen(lambda: root.make_symlink(name, target, 0, 0))
            foreseen(lambda: root.rename(name, root, other, replace=False))
            moved = name != other and other != b".arborfs" and len(other) < 256
            if link is not None:
                assert root.child(other if moved else name)
            for left in {name, other}:
                foreseen(lambda: root.unlink(left))

        examine()
        assert [name for name, _, _ in root.listing().entries(0)] == [b"f", b"g"]

    def test_links_lead_where_they_say(self, top):
        """Their target is kept byte for byte and followed by the kernel alone: here nothing is."""
        root = top.child(b"branches").child(b"main")

        @FUZZ
        @given(targets.filter(bool))
        def examine(target: bytes) -> None:
            root.make_symlink(b"link", target, 0, 0)
            assert root.child(b"link").target() == target
            root.unlink(b"link")

        examine()


xattr_names = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda space, rest: space + rest,
        st.sampled_from([b"user.", b"user.arborfs.", b"security.", b"system.", b"trusted.", b"user"]),
        st.one_of(st.binary(max_size=250), st.sampled_from([b"digest", b"dtype", b"shape", b"schema", b"commit"])),
    ),
)
xattr_values = st.one_of(
    st.binary(max_size=100),
    st.builds(lambda byte, n: byte * n, st.binary(min_size=1, max_size=1), st.integers(0, 1 << 17)),
)


class TestXattrs:
    @pytest.mark.parametrize("what", ["file", "directory", "root", "unlinked", "frozen"])
    def test_names_and_values(self, top, table, what):
        root = top.child(b"branches").child(b"main")
        table.remember(root)
        node: Node = root
        if what == "frozen":
            node = top.child(b"tags").child(b"v1").child(b"f")
        elif what == "directory":
            node = root.make_directory(b"d", 0o755, 1000, 1000)
        elif what != "root":
            node = root.child(b"g")
        if what == "unlinked":
            table.remember(node)
            node.open(os.O_RDWR)
            root.unlink(b"g")

        @FUZZ
        @given(xattr_names, xattr_values)
        @example(b"user.x", b"v" * 65536)
        @example(b"user." + b"n" * 250, b"")
        def examine(name: bytes, value: bytes) -> None:
            before = node.xattrs()
            kept = foreseen(lambda: (node.set_xattr(name, value), True))
            if not name.startswith(b"user."):
                assert not kept
                with pytest.raises(NoXattrs):
                    node.xattr(name)
                return
            if kept and not name.startswith(b"user.arborfs."):
                assert node.xattr(name) == value
                assert name in node.xattrs()
                node.set_xattr(name, None)
                with pytest.raises(NoAttribute):
                    node.set_xattr(name, None)
            foreseen(lambda: node.xattr(name))
            assert node.xattrs() == before

        examine()
        for name in node.xattrs():
            assert node.xattr(name)

    def test_derived_ones_cannot_be_forged(self, top):
        node = top.child(b"branches").child(b"main").child(b"g")
        before = node.xattr(b"user.arborfs.digest")

        @FUZZ
        @given(st.binary(), st.booleans())
        def examine(value: bytes, remove: bool) -> None:
            node.set_xattr(b"user.arborfs.digest", None if remove else value)
            assert node.xattr(b"user.arborfs.digest") == before

        examine()

    def test_any_of_them_are_committed(self, top, engine):
        root = top.child(b"branches").child(b"main")
        wanted = {b"user.\xff\xfe": b"\0" * 65536, b"user.": b"", "user.é".encode(): bytes(range(256))}
        for name, value in wanted.items():
            root.child(b"g").set_xattr(name, value)
        engine.working_tree("main").commit("attributes")
        frozen = top.child(b"commits").child(b"main").child(b"g")
        assert {name: frozen.xattr(name) for name in wanted} == wanted

    def test_more_than_the_kernel_can_list(self, top):
        """listxattr(2) gives out 64 KiB of names; a file with more can never be listed again (E2BIG)."""
        node = top.child(b"branches").child(b"main").child(b"g")
        for number in range(300):
            foreseen(lambda: node.set_xattr(b"user.%03d" % number + b"n" * 240, b""))
        assert sum(len(name) + 1 for name in node.xattrs()) <= 65536


RECORD = b'{"time": 1760000000000000000, "path": "d/x.npy", "reason": "too short", "kept": "1-x.npy"}\n'


class TestRejected:
    @pytest.fixture
    def rejections(self, top, engine):
        found = Rejections(engine.path / ".arborfs" / "rejected" / "main")
        found.keep((b"x.npy",), 3, lambda offset, size: b"abc")
        return found

    def test_keeping_under_a_long_name_that_is_text(self, rejections):
        name = ("é" * 125 + "x.npy").encode()
        assert len(name) == 255
        assert rejections.keep((b"d", name), 0, lambda offset, size: b"")

    def test_keeping_under_any_short_name(self, rejections, engine):
        valid = st.binary(min_size=1, max_size=100).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))

        @FUZZ
        @given(valid, st.binary(max_size=20))
        def examine(name: bytes, data: bytes) -> None:
            kept = rejections.keep((b"d", name), len(data), lambda offset, size: data[offset : offset + size])
            path = rejections.path(os.fsencode(kept))
            assert os.path.dirname(path) == os.fsencode(engine.path / ".arborfs" / "rejected" / "main")
            with open(path, "rb") as file:
                assert file.read() == data
            rejections.remove(os.fsencode(kept))

        examine()
        assert rejections.names() == [b"1-x.npy"]

    def test_refusing_a_name_that_is_no_text(self, top, rejections):
        rejections.note((b"\xff.npy",), "why", rejections.keep((b"\xff.npy",), 0, lambda offset, size: b""))
        readable(top.child(b"branches").child(b"main").child(b".arborfs"))

    def test_finding_and_removing(self, top, rejections, engine):
        directory = top.child(b"branches").child(b"main").child(b".arborfs").child(b"rejected")

        @FUZZ
        @given(names.filter(lambda name: b"/" not in name))
        def examine(name: bytes) -> None:
            with pytest.raises(NotFound):
                directory.child(name)
            with pytest.raises(ArborError):
                directory.unlink(name)

        examine()
        assert [name for name, _, _ in directory.listing().entries(0)] == [b"1-x.npy"]
        assert (engine.path / ".arborfs" / "config.json").exists()

    @pytest.mark.parametrize("name", [b"../../config.json", b"/etc/passwd", b"../main/1-x.npy"])
    def test_names_that_lead_out(self, top, rejections, name):
        directory = top.child(b"branches").child(b"main").child(b".arborfs").child(b"rejected")
        with pytest.raises(NotFound):
            directory.child(name)

    def test_links_that_lead_out(self, top, rejections, engine):
        os.symlink("/etc/passwd", engine.path / ".arborfs" / "rejected" / "main" / "2-x")
        directory = top.child(b"branches").child(b"main").child(b".arborfs").child(b"rejected")
        with pytest.raises(NotFound):
            directory.child(b"2-x").open(os.O_RDONLY)

    @pytest.mark.parametrize(
        "line",
        [
            b"x}",
            b"{}",
            b"\xff}",
            RECORD.replace(b"1760000000000000000", b"1e30").strip(),
            RECORD.replace(b"1760000000000000000", b'"now"').strip(),
            RECORD.replace(b"too short", b"\\ud800").strip(),
            b"[" * NESTED + b"}",
        ],
        ids=["no JSON", "no fields", "no UTF-8", "no time", "no number", "no text", "too deep"],
    )
    def test_damaged_lines(self, top, rejections, engine, line):
        (engine.path / ".arborfs" / "rejected" / "main" / "errors.jsonl").write_bytes(RECORD + line + b"\n" + RECORD)
        control = top.child(b"branches").child(b"main").child(b".arborfs")
        readable(control)
        assert text(control, b"errors").count("too short") == 2

    def test_damaged_errors(self, top, rejections, engine):
        control = top.child(b"branches").child(b"main").child(b".arborfs")

        @FUZZ
        @given(mutated(RECORD, RECORD * 3))
        @example(b"{}\n")
        def examine(data: bytes) -> None:
            (engine.path / ".arborfs" / "rejected" / "main" / "errors.jsonl").write_bytes(data)
            readable(control)

        examine()
