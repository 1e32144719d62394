"""How tags are chosen, and the algebra of sets of tags."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.treants.grammar import TagAlgebra, choice, is_chosen

TREE = {"tree", "old"}


@pytest.mark.parametrize(
    "expression, chosen",
    [
        ("tree", True),
        ("elm", False),
        (["tree", "old"], True),
        (["tree", "elm"], False),
        (("tree", "elm"), True),
        (("elm", "oak"), False),
        ({"elm"}, True),
        ({"tree"}, False),
        ({"tree", "elm"}, True),  # not both
        ({"tree", "old"}, False),
        ([], True),
        ((), False),
        (["tree", ("elm", "old")], True),
        ([{"tree"}, "old"], False),
        ([{"elm"}, "old"], True),
        (("elm", {"oak"}), True),
        (("oak", {"tree"}), False),
        (["tree", frozenset({"old"})], False),
        ([{"elm"}, {"oak"}, ("tree",)], True),
        ("tree and (elm or not oak)", True),
        ("tree and (elm or not old)", False),
        ("not tree or old", True),
        ("not (tree or old)", False),
        ("not not tree", True),
        ("elm or tree and old", True),
        ("(elm or tree) and oak", False),
        (["tree and old", {"elm or oak"}], True),
    ],
)
def test_a_choice(expression, chosen):
    assert is_chosen(expression, TREE) is chosen


@pytest.mark.parametrize(
    "text",
    [
        "big tree",
        "and",
        "not",
        "elm and",
        "elm or or oak",
        "(elm",
        "elm)",
        "",
        " ",
        "f(x)",
        "()",
        "salt and not",
        '"',
        "a 'b",
    ],
)
def test_a_text_that_is_no_sentence_is_a_tag_as_it_stands(text):
    assert is_chosen(text, {text})
    assert not is_chosen(text, {"elm", "oak", "a", "b", "f", "x"})


def test_quotes_keep_a_tag_together():
    assert is_chosen("'salt and pepper' and not \"big tree\"", {"salt and pepper"})
    assert not is_chosen("'salt and pepper'", {"salt", "pepper"})
    assert is_chosen("don't and o'clock", {"don't", "o'clock"})


@pytest.mark.parametrize("wrong", [1, None, b"elm", {"elm": 1}, ["elm", 2], ("elm", ["oak", None])])
def test_other_types_are_refused(wrong):
    with pytest.raises(ValueError, match="tags are chosen by a text, a list"):
        choice(wrong)


def test_a_text_of_ten_thousand_parentheses_does_no_harm():
    text = "(" * 10_000 + "elm" + ")" * 10_000
    assert is_chosen(text, {text}) or is_chosen(text, {"elm"})


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "c", "a and not b", "b or (c and a)"]),
    lambda inner: st.lists(inner, max_size=3).flatmap(
        lambda parts: st.sampled_from([parts, tuple(parts)] + ([frozenset(parts)] if _hashable(parts) else []))
    ),
    max_leaves=8,
)


def _hashable(parts):
    try:
        hash(tuple(parts))
    except TypeError:
        return False
    return True


@given(EXPRESSIONS)
def test_choosing_among_many_is_choosing_each(expression):
    sets = [frozenset(c) for c in chain.from_iterable(combinations("abc", n) for n in range(4))]
    chosen = choice(expression).chosen(lambda tag: {s for s in sets if tag in s} | {"somebody else"})
    assert list(chosen.among(sets)) == [s for s in sets if is_chosen(expression, s)]
    assert list(chosen.flags(sets)) == [is_chosen(expression, s) for s in sets]


class Some(TagAlgebra):
    def __init__(self, *tags):
        self._tags = tags

    def __iter__(self):
        return iter(self._tags)


@pytest.mark.parametrize("other", [{"b", "c"}, ["b", "c"], frozenset({"b", "c"}), Some("b", "c")])
def test_algebra_from_either_side(other):
    some = Some("a", "b")
    assert some & other == {"b"} == other & some
    assert some | other == {"a", "b", "c"} == other | some
    assert some ^ other == {"a", "c"} == other ^ some
    assert some - other == {"a"}
    assert other - some == {"c"}
    assert type(some & other) is set
    assert some != other
    assert not some < other and not some <= other and not some > other and not some >= other


def test_comparisons():
    some = Some("a", "b")
    assert some == {"a", "b"} and some == ["b", "a"] and some == Some("b", "a")
    assert some < {"a", "b", "c"} and some <= {"a", "b"} and some > {"a"} and some >= Some("a", "b")
    assert {"a"} < some
    assert some != "ab" and some != 1


@pytest.mark.parametrize("wrong", ["ab", 1, None, ("a",)])
def test_algebra_with_other_types_is_a_type_error(wrong):
    for operation in ("__and__", "__or__", "__xor__", "__sub__", "__rsub__", "__lt__", "__ge__"):
        assert getattr(Some("a"), operation)(wrong) is NotImplemented
    with pytest.raises(TypeError):
        assert Some("a") & wrong
    with pytest.raises(TypeError):
        assert Some("a") < wrong
