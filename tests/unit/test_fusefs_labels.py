"""`.arborfs/by/` without FUSE: names, and nodes that wait for nobody and go when the kernel forgets."""

from __future__ import annotations

import gc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.label_view import ByNode, name_of, text_of
from fusefs.layout import Owner
from fusefs.nodes import NodeTable
from fusefs.view import View
from storage.errors import NotFound
from storage.model.names import check_name
from storage.model.samples import BytesSource
from storage.treants.state import State, encode_state


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_every_text_has_a_name_of_its_own(text):
    name = name_of(text)
    assert check_name(name) == name if name != b".arborfs" else text == ".arborfs"
    assert text_of(name) == text


@given(st.binary(max_size=12))
def test_every_name_is_that_of_one_text(name):
    text = text_of(name)
    assert text is None or name_of(text) == name


@pytest.mark.parametrize("text", ["x" * 256, "/" * 100, "\ud800", "ü" * 200])
def test_what_does_not_fit_in_a_name_is_told_by_its_digest(text):
    name = name_of(text)
    assert b"%~" in name and len(name) <= 255 and text_of(name) is None
    assert name != name_of(text + "x")


@pytest.fixture
def view(engine):
    """A view of a repository with 50 Treants in main."""
    tree = engine.working_tree("main")
    for number in range(50):
        state = State(f"{number:08x}-0000-4000-8000-000000000000", tags=("all", str(number % 5)))
        tree.make_directory((b"t%d" % number,))
        tree.put_file((b"t%d" % number, state.file_name.encode()), BytesSource(encode_state(state)))
    return View(engine, Owner(0, 0), branch="main")


def ready(node):
    """The node, once what is pending has been worked out, as the event loop has it done in a thread."""
    job = node.pending()
    if job is not None:
        job()
    return node


def test_looking_up_waits_for_nobody(view, engine):
    tags = ready(view.root.child(b".arborfs").child(b"by").child(b"tag"))
    assert tags.pending() is None
    labels = view._labels.of_branch("main", "treant")
    with labels._lock:  # as while another thread reads a large tree
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(tags.child(b"3").child(b"t8").target()))
        thread.start()
        thread.join(20)
        assert found == [b"../../../../t8"]
    engine.working_tree("main").make_directory((b"new",))
    assert tags.pending() is not None


def test_a_listing_takes_its_names_in_a_thread(view):
    tags = ready(view.root.child(b".arborfs").child(b"by").child(b"tag"))
    listing = tags.child(b"3").listing()
    job = listing.pending(0)
    assert job is not None and not list(listing.entries(0))
    job()
    found = [(name, node.target(), following) for name, node, following in listing.entries(0)]
    assert found == [
        (b"t%d" % n, b"../../../../t%d" % n, i) for i, n in enumerate([13, 18, 23, 28, 3, 33, 38, 43, 48, 8], 1)
    ]
    assert listing.pending(4) is None and [name for name, _, _ in listing.entries(8)] == [b"t48", b"t8"]


def test_names_that_went_while_they_are_listed_are_left_out(view, engine):
    tags = ready(view.root.child(b".arborfs").child(b"by").child(b"tag"))
    listing = ready(tags.child(b"3")).listing()
    listing.pending(0)()
    engine.working_tree("main").remove_tree((b"t8",))
    ready(tags)
    assert [name for name, _, _ in listing.entries(8)] == [b"t48"]
    with pytest.raises(NotFound):
        tags.child(b"3").child(b"t8")


def test_nodes_go_when_the_kernel_forgets(view):
    table = NodeTable(view.root, view.snapshots)
    tags = ready(view.root.child(b".arborfs").child(b"by").child(b"tag"))
    met = []
    for name in tags.names():
        directory = tags.child(name)
        table.remember(directory)
        assert tags.child(name) is directory
        met.append(directory)
        for link in directory.names():
            table.remember(directory.child(link))
            met.append(directory.child(link))
    assert len(met) == 6 + 100
    table.forget_many([(node.ino, 1) for node in met])
    del met, directory
    gc.collect()
    assert (
        sum(issubclass(type(each), ByNode) and each.name.startswith(b"t") for each in gc.get_objects()) <= 1
    )  # by/tag
