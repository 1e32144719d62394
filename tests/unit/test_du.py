"""du: sizes of trees, and what they share, against sums made by hand."""

import os

import pytest

from storage.engine import Engine
from storage.errors import Unsupported
from storage.maintenance.du import Room, overlap, room
from storage.model.samples import BytesSource
from tests.command_line import Cli, stage


@pytest.fixture
def engine(repository):
    """Two commits: `both` is in both, `first` and `second` in one each; `packed` shrinks; `d/copy` is `both` again."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        both = os.urandom(600_000)
        tree.put_file((b"both",), BytesSource(both))
        tree.put_file((b"first",), BytesSource(os.urandom(400_000)))
        tree.put_file((b"tiny",), BytesSource(b"tiny"))
        engine.create_tag("one", tree.commit("one"))
        tree.remove((b"first",))
        tree.make_directory((b"d",))
        tree.put_file((b"d", b"copy"), BytesSource(both))
        tree.put_file((b"d", b"packed"), BytesSource(bytes(500_000)))
        engine.create_tag("two", tree.commit("two"))
        yield engine


def entry(engine, revision, *path):
    return engine.snapshot(engine.resolve(revision)).entry(tuple(name.encode() for name in path))


def test_a_tree_s_size_counts_files_and_its_room_counts_objects_once(engine):
    whole = entry(engine, "two")
    assert whole.size == 600_000 * 2 + 500_000 + 4
    taken = room(engine, whole)
    assert 600_000 + 500_000 < taken.bytes < 600_000 + 500_000 + 5000
    assert 600_000 < taken.stored < 610_000


def test_two_commits_tell_what_each_needs_alone(engine):
    found = overlap(engine, entry(engine, "one"), entry(engine, "two"))
    assert 400_000 < found.first.bytes < 402_000 and found.first.stored > 400_000
    assert 500_000 < found.second.bytes < 502_000 and found.second.stored < 5000
    assert 600_000 <= found.shared.bytes < 601_000
    one, two = room(engine, entry(engine, "one")), room(engine, entry(engine, "two"))
    for whole, alone in ((one, found.first), (two, found.second)):
        assert whole == Room(
            alone.objects + found.shared.objects,
            alone.bytes + found.shared.bytes,
            alone.stored + found.shared.stored,
        )


def test_a_commit_shares_all_with_itself(engine):
    one = entry(engine, "one")
    found = overlap(engine, one, one)
    assert found.first == found.second == Room(0, 0, 0) and found.shared == room(engine, one)


def test_files_take_their_chunks_and_small_ones_nothing_of_their_own(engine):
    assert room(engine, entry(engine, "one", "both")).bytes == 600_000
    assert room(engine, entry(engine, "one", "tiny")) == Room(0, 0, 0)
    found = overlap(engine, entry(engine, "one", "both"), entry(engine, "two", "d", "copy"))
    assert found.shared.bytes == 600_000 and found.first.objects == 0


def test_an_empty_commit_takes_nothing(repository):
    with Engine.open(repository) as engine:
        engine.working_tree("main").put_file((b"f",), BytesSource(b"x"))
        engine.working_tree("main").commit("one")
        engine.working_tree("main").remove((b"f",))
        engine.working_tree("main").commit("two")
        assert room(engine, entry(engine, "main")) == Room(0, 0, 0)


def test_what_is_staged_is_not_measured(engine):
    tree = engine.working_tree("main")
    tree.put_file((b"d", b"new"), BytesSource(b"x"))
    with pytest.raises(Unsupported):
        room(engine, tree.entry((b"d",)))


def test_the_command_lists_directories_and_compares_two(engine):
    engine.close()
    cli = Cli(engine.path)
    text = cli("du", "two", "--stored")
    assert "500 kB" not in text and "1.1 MB" in text and "d/" in text and "files in ./" in text
    facts = cli.json("du", "two")
    assert facts["targets"] == [{"name": "two", "bytes": 1_700_004, "entries": 3}]
    assert [row["bytes"] for row in facts["entries"]] == [1_100_000, 600_004]
    compared = cli.json("du", "one", "two")
    assert compared["overlap"]["shared"]["objects"] >= 1
    assert "only in the first" in cli("du", "one", "two")
    assert cli.json("du", ":d/packed")["targets"] == [{"name": ":d/packed", "bytes": 500_000}]
    assert "there is no" in cli("du", "two:nothing", code=3)
    stage(engine.path, "more")
    assert cli.json("du")["targets"][0]["bytes"] == 1_700_004
