"""State files: values to bytes and back, files of other writers, damaged ones, and the merge of two sides."""

from __future__ import annotations

import io
import json
import math
import uuid
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import DamagedState, NewerFormat
from storage.treants.state import GROUP, STATE_NAME, STEP, Member, State, decode_state, encode_state, merged

ID = "2b4b5800-48a7-4814-ba6d-1e631a09a199"
SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def other_file(value: Any, name: str = "state", **options: Any) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        file[name] = value
    return memory.getvalue()


@given(tags=st.sets(st.text()), categories=st.dictionaries(st.text(), SCALARS))
def test_what_was_encoded_is_decoded(tags, categories):
    state = State(ID, tags=tuple(sorted(tags)), categories=categories)
    data = encode_state(state)
    assert decode_state(data) == state
    assert [type(value) for value in decode_state(data).categories.values()] == [type(v) for v in categories.values()]
    assert encode_state(decode_state(data)) == data


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, 1 << 63, 1 << 64, -(1 << 63) - 1, 10**400, -0.0, 1e308, "\ud800", ""]
)
def test_values_that_other_jsons_do_not_have(value):
    state = State(ID, tags=("\udcff",), categories={"x": value})
    found = decode_state(encode_state(state)).categories["x"]
    assert (type(found), repr(found)) == (type(value), repr(value))


def test_it_is_an_hdf5_file_whose_state_is_json():
    state = State(ID, tags=("elm", "größe"), categories={"n": 1, "x": math.inf})
    with h5py.File(io.BytesIO(encode_state(state)), "r") as file:
        assert file["state"].dtype.itemsize % STEP == 0
        text = file["state"][()]
    assert json.loads(text) == {
        "format": 1,
        "kind": "Treant",
        "uuid": ID,
        "tags": ["elm", "größe"],
        "categories": {"n": 1, "x": math.inf},
    }
    assert math.isnan(decode_state(encode_state(State(ID, categories={"x": math.nan}))).categories["x"])


def test_a_small_one_is_kept_among_its_directorys_entries():
    assert len(encode_state(State(ID, tags=("elm",)))) < 1024


def test_a_group_keeps_the_order_of_its_members():
    members = (Member(str(uuid.uuid4()), "Treant", "b"), Member(str(uuid.uuid4()), GROUP, "/elsewhere/a"))
    state = State(ID, GROUP, members=members)
    assert decode_state(encode_state(state)) == state


def test_names_of_state_files():
    assert STATE_NAME.fullmatch(State(ID).file_name)
    assert STATE_NAME.fullmatch(State(str(uuid.uuid4()), GROUP).file_name)
    for name in (f"Treant.{ID}.h5.bak", f"Tree.{ID}.h5", f"Treant.{ID.upper()}.h5", "Treant.h5", f"x/Treant.{ID}.h5"):
        assert not STATE_NAME.fullmatch(name), name


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 512}])
@pytest.mark.parametrize("kind", [bytes, np.bytes_, str])
def test_files_of_other_writers_are_read(options, kind):
    text = json.dumps({"kind": "Treant", "uuid": ID, "tags": ["oak", "elm", "oak"], "more": [1]})
    value = text if kind is str else kind(text.encode())
    assert decode_state(other_file(value, **options)) == State(ID, tags=("elm", "oak"))


@pytest.mark.parametrize(
    "data, problem",
    [
        (b"", "file"),
        (b"no HDF5 at all", "file"),
        (encode_state(State(ID))[:-STEP], "truncated|text|file"),
        (encode_state(State(ID)).replace(b'"tags"', b'"tags '), "delimiter|:"),
        (encode_state(State(ID)).replace(b'"kind":"Treant"', b'"kind":"Tree"  '), "neither a Treant nor a Group"),
        (encode_state(State(ID)).replace(b"4814", b"3814"), "neither a Treant nor a Group"),
        (other_file(b"{}", "other"), "state"),
        (other_file([1, 2]), "single text"),
        (other_file(1.5), "not text"),
        (other_file(b"[1]"), "object"),
        (other_file(b'{"kind": "Treant"}'), "uuid"),
        (other_file(json.dumps({"uuid": ID, "tags": [1]})), "str"),
        (other_file(json.dumps({"uuid": ID, "categories": {"a": [1]}})), "array"),
        (other_file(json.dumps({"uuid": ID, "members": [["x"]]})), "array|length"),
    ],
)
def test_a_damaged_one_is_named_with_its_problem(data, problem):
    with pytest.raises(DamagedState, match=problem) as caught:
        decode_state(data, "main:lab/sprout/Treant.h5")
    assert str(caught.value).startswith("main:lab/sprout/Treant.h5 cannot be understood")
    assert caught.value.where == "main:lab/sprout/Treant.h5" and caught.value.problem
    assert isinstance(caught.value, ValueError)


def test_one_of_a_newer_arborfs_is_told_apart_from_damage():
    with pytest.raises(NewerFormat, match="format 2"):
        decode_state(other_file(json.dumps({"uuid": ID, "format": 2})))


def state(tags: str = "", members: tuple[Member, ...] = (), **categories: Any) -> State:
    return State(ID, GROUP if members else "Treant", tuple(sorted(tags.split())), categories, members)


@pytest.mark.parametrize(
    "base, ours, theirs, expected",
    [
        (state(), state("elm", a=1), state("oak", b=2), state("elm oak", a=1, b=2)),
        (state("elm oak", a=1, b=2), state("oak", b=2), state("elm", a=1), state()),
        (state("elm", a=1), state("elm", a=2), state("elm oak", a=1), state("elm oak", a=2)),
        (state(a=1), state(), state(a=1, b=2), state(b=2)),
        (state(a=1), state(a=2), state(a=2), state(a=2)),
        (None, state("elm", a=1), state("oak", b=1), state("elm oak", a=1, b=1)),
        (state(a=1), state(a=2), state(a=3), None),
        (state(a=1), state(a=2), state(), None),
        (state(), state(a=1), state(a=True), None),
        (state(a=1), state(a=1.0), state(a=True), None),
        (state(a=math.nan), state(a=math.nan), state(a=1), state(a=1)),
    ],
)
def test_two_sides_are_merged(base, ours, theirs, expected):
    assert merged(base, ours, theirs) == expected
    backwards = merged(base, theirs, ours)
    assert backwards == expected


def test_members_are_merged_by_who_they_are():
    one, two, three = (Member(str(uuid.UUID(int=n, version=4)), "Treant", f"t{n}") for n in range(3))
    moved = msgspec.structs.replace(one, path="elsewhere")
    base = state(members=(one, two))
    assert merged(base, state(members=(one,)), state(members=(moved, two, three))) == state(members=(moved, three))
    assert merged(base, state(members=(moved,)), state(members=(one, two, three))) == state(members=(moved, three))


def test_another_treant_or_kind_is_no_merge():
    assert merged(None, state(), State(str(uuid.uuid4()))) is None
    assert merged(None, state(), State(ID, GROUP)) is None
