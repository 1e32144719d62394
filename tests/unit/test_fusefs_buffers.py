"""Write buffers against a bytearray, in memory and spilled, over a base and over nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusefs import buffers
from fusefs.buffers import Buffer, Room


@dataclass
class Stored:
    """Contents as storage gives them; counts what is read of it."""

    data: bytes
    read_bytes: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        self.read_bytes += len(self.data[offset : offset + size])
        return self.data[offset : offset + size]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 300), st.binary(min_size=1, max_size=120)),
        st.tuples(st.just("truncate"), st.integers(0, 400), st.just(b"")),
        st.tuples(st.just("stage"), st.just(0), st.just(b"")),
    ),
    max_size=20,
)


@pytest.mark.parametrize("spilled", [False, True])
@given(base=st.one_of(st.none(), st.binary(max_size=250)), operations=OPERATIONS, memory=st.integers(50, 400))
@settings(max_examples=150, deadline=None)
def test_a_buffer_is_a_bytearray(tmp_path_factory, spilled, base, operations, memory):
    room = Room(tmp_path_factory.getbasetemp())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers, "MEMORY_LIMIT", memory)
        patch.setattr(buffers, "BASE_LIMIT", 0 if spilled else 1 << 20)
        stored = None if base is None else Stored(base)
        buffer = Buffer(room, stored)
        model, last = bytearray(base or b""), bytes(base or b"")
        for what, at, data in operations:
            if what == "write":
                buffer.write(at, data)
                model.extend(bytes(max(0, at - len(model))))
                model[at : at + len(data)] = data
            elif what == "truncate":
                buffer.truncate(at)
                model[at:] = b""
                model.extend(bytes(at - len(model)))
            else:
                last = bytes(buffer.read(0, 1000))
                buffer.staged(Stored(last))
                assert not buffer.changed
            assert buffer.size == len(model)
            assert bytes(buffer.read(0, 1000)) == model
            assert bytes(buffer.read(37, 50)) == model[37:87]
            unchanged = set(range(min(len(last), len(model)))) - {p for s, e in buffer.dirty for p in range(s, e)}
            if buffer.base is not None:
                assert all(model[point] == last[point] for point in unchanged), "dirty must cover every change"
        buffer.close()


def test_a_small_change_of_a_large_base_reads_next_to_nothing(tmp_path):
    stored = Stored(os.urandom(20_000_000))
    buffer = Buffer(Room(tmp_path), stored)
    buffer.write(5_000_000, b"change")
    assert stored.read_bytes == 0
    assert buffer.dirty == [(5_000_000, 5_000_006)]
    assert (
        bytes(buffer.read(4_999_998, 10))
        == stored.data[4_999_998:5_000_000] + b"change" + stored.data[5_000_006:5_000_008]
    )
    buffer.close()


def test_large_buffers_leave_memory(tmp_path):
    room = Room(tmp_path)
    buffer = Buffer(room, None)
    before = room.left
    buffer.write(0, bytes(buffers.MEMORY_LIMIT))
    assert buffer.in_memory
    assert room.left == before - buffers.MEMORY_LIMIT
    buffer.write(buffers.MEMORY_LIMIT, b"x")
    assert not buffer.in_memory
    assert room.left == before
    assert list(tmp_path.iterdir()) == [], "spill files have no name"
    buffer.close()


def test_all_buffers_share_their_memory(tmp_path):
    room = Room(tmp_path, limit=3_000_000)
    made = [Buffer(room, None) for _ in range(5)]
    for buffer in made:
        buffer.write(0, bytes(1_000_000))
    assert [buffer.in_memory for buffer in made] == [True, True, True, False, False]
    made[0].close()
    assert room.left == 1_000_000


def test_a_full_disk_leaves_the_buffer_as_it_was(tmp_path, monkeypatch):
    buffer = Buffer(Room(tmp_path), None)
    buffer.write(0, b"kept")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        buffer.write(buffers.MEMORY_LIMIT, b"x")
    assert bytes(buffer.read(0, 100)) == b"kept"
    assert buffer.size == 4


def test_a_reading_function_reads_what_was_there(tmp_path):
    buffer = Buffer(Room(tmp_path), None)
    buffer.write(0, b"before")
    read = buffer.reading(0, 10)
    buffer.write(0, b"after!")
    assert bytes(read()) == b"before"
