"""Wrong bytes and full disks: noticed, named, and everything else stays readable."""

import os
import random
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from storage.engine import Engine
from storage.errors import Corrupt, StorageFull
from storage.exporting import export_tree
from storage.maintenance.rebuild import rebuild
from storage.maintenance.verify import verify
from storage.model.records import Author
from storage.model.samples import BytesSource
from storage.session import Session


def read(tree, name: bytes) -> bytes:
    content = tree.open((name,))[1]
    return bytes(content.read(0, content.size))


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x10]))


def test_a_flipped_bit_is_noticed_named_and_hurts_nothing_else(repository):
    good = {b"a": os.urandom(900_000), b"b": os.urandom(900_000)}
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for name, data in good.items():
            tree.put_file((name,), BytesSource(data))
        tree.commit("one")
        digest = tree.open((b"a",))[1].chunks[0].digest.hex()
    segment = next((repository / ".arborfs" / "segments").glob("*.log"))
    flip(segment, segment.read_bytes().index(good[b"a"][:200_000]) + 5000)
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        with pytest.raises(Corrupt, match=digest) as caught:
            read(tree, b"a")
        assert caught.value.digest == digest
        assert read(tree, b"b") == good[b"b"]
        problems = verify(engine)
        assert [problem.digest for problem in problems] == [digest]
        assert "restore" in problems[0].advice
    assert [problem.digest for problem in rebuild(repository).problems] == [digest]
    with Engine.open(repository) as engine:
        assert read(engine.working_tree("main"), b"b") == good[b"b"]
        assert {problem.digest for problem in verify(engine)} == {digest}


def test_a_flipped_bit_anywhere_never_gives_wrong_data(repository):
    good = {b"%d" % i: bytes([i]) * (1000 + 900 * i) for i in range(8)}
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for name, data in good.items():
            tree.put_file((name,), BytesSource(data))
        tree.commit("one")
        tree.put_file((b"staged",), BytesSource(b"staged" * 100))
    segments = sorted((repository / ".arborfs" / "segments").iterdir())
    for segment in segments:
        size = segment.stat().st_size
        for at in range(0, size, max(size // 40, 1)):
            flip(segment, at)
            with Engine.open(repository) as engine:
                tree = engine.working_tree("main")
                for name, data in {**good, b"staged": b"staged" * 100}.items():
                    try:
                        assert read(tree, name) == data
                    except Corrupt:
                        assert verify(engine)
            flip(segment, at)


def test_a_damaged_staged_value_is_noticed(repository):
    with Engine.open(repository) as engine:
        engine.working_tree("main").put_file((b"f",), BytesSource(b"v" * 1000))
    journal = next((repository / ".arborfs" / "segments").glob("*.journal"))
    flip(journal, journal.read_bytes().index(b"v" * 1000) + 10)
    with Engine.open(repository) as engine:
        with pytest.raises(Corrupt, match="journal"):
            read(engine.working_tree("main"), b"f")
        assert len(verify(engine)) == 1


def test_a_segment_that_was_cut_off_or_is_gone_is_named(repository):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"f",), BytesSource(os.urandom(500_000)))
        tree.commit("one")
    segment = next((repository / ".arborfs" / "segments").glob("*.log"))
    with segment.open("r+b") as file:
        file.truncate(100_000)
    with Engine.open(repository) as engine, pytest.raises(Corrupt, match="00000001"):
        engine.working_tree("main").entry(())
    segment.unlink()
    with Engine.open(repository) as engine:
        assert any("missing" in problem.what for problem in verify(engine))


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_reported_and_what_was_staged_before_is_intact(small_disk):
    engine = Engine.create(small_disk / "r", Author("a", "b"))
    tree = engine.working_tree("main")
    kept = {}
    full = False
    while not full:
        name, data = b"%d" % len(kept), os.urandom(300_000 if len(kept) % 2 else 3000)
        try:
            tree.put_file((name,), BytesSource(data))
            kept[name] = data
        except StorageFull:
            full = True
    assert len(kept) > 10
    assert {name for name, _ in tree.entries(())} == set(kept)
    for name, data in kept.items():
        assert read(tree, name) == data
    # Room comes back: work goes on without opening anything anew.
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    tree.put_file((b"after",), BytesSource(b"after"))
    tip = tree.commit("after all")
    engine.close()
    with Engine.open(small_disk / "r") as again:
        assert again.branches() == {"main": tip}
        assert read(again.working_tree("main"), b"after") == b"after"
        assert verify(again) == []


def test_a_disk_without_any_room_can_still_be_read_from(small_disk):
    with Engine.create(small_disk / "r", Author("a", "b")) as engine:
        engine.working_tree("main").put_file((b"x",), BytesSource(b"kept"))
        tip = engine.working_tree("main").commit("one")
    with suppress(OSError), open(small_disk / "fill", "wb", buffering=0) as fill:
        while fill.write(bytes(4096)):
            pass
    assert os.statvfs(small_disk).f_bavail == 0
    for _ in range(2):
        with Engine.open(small_disk / "r") as engine:
            assert engine.branches() == {"main": tip} and read(engine.working_tree("main"), b"x") == b"kept"
    (small_disk / "fill").unlink()
    with Engine.open(small_disk / "r") as engine:
        engine.working_tree("main").put_file((b"y",), BytesSource(b"more"))
        assert engine.working_tree("main").commit("two") and verify(engine) == []


def test_an_export_to_a_full_disk_says_where_and_leaves_nothing(repository, small_disk):
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.put_file((b"big",), BytesSource(os.urandom(20 << 20)))
        with pytest.raises(OSError, match="No space") as caught:
            export_tree(Session(tree), (b"big",), small_disk / "out")
    assert caught.value.filename == str(small_disk / "out") and not list(small_disk.iterdir())


def answer(call):
    """What a call gives, or what its error says."""
    try:
        return call()
    except Corrupt as error:
        return str(error)


def test_a_change_of_any_byte_is_found(repository):
    """By `verify`, wherever it is; and reading gives the right bytes or an error that says where."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for number in range(12):
            tree.put_file((b"%d" % number,), BytesSource(b"contents %d" % number * 30))
        tree.put_file((b"chunk",), BytesSource(bytes(range(256)) * 20))
        tree.commit("one")
        tree.put_file((b"staged",), BytesSource(b"staged" * 30))
    rng = random.Random(5)
    for path in sorted((repository / ".arborfs" / "segments").iterdir()):
        whole = path.read_bytes()
        for at in sorted(rng.sample(range(len(whole)), min(400, len(whole)))):
            told = f"{path.name}, byte {at}"
            damaged = bytearray(whole)
            damaged[at] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            with Engine.open(repository) as engine:
                tree = engine.working_tree("main")
                for name, data in (
                    (b"3", b"contents 3" * 30),
                    (b"chunk", bytes(range(256)) * 20),
                    (b"staged", b"staged" * 30),
                ):
                    found = answer(lambda: read(tree, name))
                    assert found == data or (isinstance(found, str) and "segment" in found), told
                problems = answer(lambda: verify(engine))
                assert problems != [], told
                assert not isinstance(problems, str) or "segment" in problems, told
        path.write_bytes(whole)
    with Engine.open(repository) as engine:
        assert verify(engine) == []


def test_opening_after_a_rebuild_destroys_nothing_of_a_damaged_end(repository):
    """What cannot be read may be read again after a repair from a copy: it stays where it is."""
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        for number in range(5):
            tree.put_file((b"%d" % number,), BytesSource(b"contents %d" % number))
    journal = max((repository / ".arborfs" / "segments").glob("*.journal"), key=lambda path: path.stat().st_size)
    whole = journal.read_bytes()
    for place in (len(whole) - 3, whole.rfind(b"arb\x01") + 5):  # in the last record's payload, in its header
        damaged = bytearray(whole)
        damaged[place] ^= 1
        journal.write_bytes(damaged)
        for _ in range(2):
            shutil.rmtree(repository / ".arborfs" / "index", ignore_errors=True)
            for _ in range(2):
                with Engine.open(repository) as engine:
                    assert {name for name, _ in engine.working_tree("main").entries(())} >= {b"0", b"1", b"2", b"3"}
            assert journal.read_bytes() == damaged
        journal.write_bytes(whole)
        shutil.rmtree(repository / ".arborfs" / "index")
        with Engine.open(repository) as engine:
            assert len(list(engine.working_tree("main").entries(()))) == 5
