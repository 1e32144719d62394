"""Names of files for keys, and values as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import InvalidName, NotJSON
from storage.model.tasks import read_task
from storage.pods.format import Births, born, decode_value, encode_value, file_name, key_of

PATIENT = settings(deadline=None)
TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30) | st.from_regex(r'=["\[]?[0-9a"\]\\]{0,4}')
KEYS = st.recursive(TEXTS | st.integers(), lambda parts: st.lists(parts, max_size=3).map(tuple), max_leaves=4)


@PATIENT
@given(KEYS)
def test_every_key_has_a_name_and_comes_back_with_its_type(key):
    try:
        name = file_name(key)
    except InvalidName:
        assert len(repr(key).encode()) > 50
        return
    assert "/" not in name and "\0" not in name and 0 < len(name.encode()) <= 255
    assert repr(key_of(name)) == repr(key)


@PATIENT
@given(TEXTS.filter(lambda text: "/" not in text and "\0" not in text))
def test_every_name_is_that_of_one_key(stem):
    assert file_name(key_of(stem + ".json")) == stem + ".json"


def test_names_that_people_see():
    assert file_name("sample 1.5 %") == "sample 1.5 %.json"
    assert file_name(5) == "=5.json"
    assert file_name(("a", (1,))) == '=["a",[1]].json'
    assert file_name("a/b") == '="a\\u002fb".json'
    assert file_name("=5") == '="=5".json'
    assert file_name("=x") == "=x.json"


@pytest.mark.parametrize(
    "key", [None, 1.5, True, ["a"], ("a", None), b"a", "x" * 251, "é" * 126, ("x" * 250,), "\ud800"]
)
def test_what_is_no_key(key):
    with pytest.raises(ValueError):
        file_name(key)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=8,
)


@PATIENT
@given(JSON)
def test_values_come_back_and_any_program_reads_them(value):
    data = encode_value(value, "k")
    assert repr(decode_value(data)) == repr(value)
    assert json.loads(data) == value


class Text(str):
    """A subclass, as programs have."""


def test_what_json_says_differently():
    value = {0: "bar", None: (1, 2), True: Text("x"), "f": {1.5: 2}, 7: 10**40}
    assert decode_value(encode_value(value, "k")) == json.loads(json.dumps(value))


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value, place",
    [
        ({1, 2}, ""),
        ({"a": [1, {"b": object()}]}, "['a'][1]['b']"),
        (float("nan"), ""),
        ([0.0, float("inf")], "[1]"),
        ({"a": b""}, "['a']"),
        ({1: 1, "1": 2}, ""),
        ({"x": "\ud800"}, "['x']"),
        ({"x": {(1,): 2}}, "['x'][(1,)]"),
        (LOOP, ""),
    ],
)
def test_what_json_cannot_hold_is_named_with_its_place(value, place):
    with pytest.raises(TypeError, match="'key': ") as caught:
        encode_value(value, "key")
    assert isinstance(caught.value, NotJSON)
    assert (caught.value.key, caught.value.place) == ("key", place)


def test_births_grow_and_files_without_one_are_as_old_as_they_are():
    births = Births()
    given = [births.next() for _ in range(1000)]
    assert given == sorted(set(given))
    assert born(b"17", 5) == 17
    assert born(None, 5) == born(b"soon", 5) == born(b"9" * 30, 5) == 5


def test_how_it_stands_with_a_task():
    assert read_task(b'{"x": 1}').state == "todo"
    assert read_task(b'{"_tries": 3, "_aborted": true}').state == "aborted"
    assert read_task(b'{"_done": true, "_aborted": true}').state == "done"
    for none in (b"[]", b'{"_tries": "x"}', b"", b"{"):
        with pytest.raises(ValueError, match="no task"):
            read_task(none)
