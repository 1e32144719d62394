"""Revision expressions, through the engine and the API: a commit, or one of the documented errors, and soon."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.engine import Engine
from storage.errors import NotFound, Usage
from storage.model.samples import BytesSource
from storage.repository import Repository
from tests.conftest import ADA
from tests.fuzz.mutations import FUZZ

NAMES = ["main", "HEAD", "v1.0", "side", "@", "abcd", "0" * 64, ""]
STEPS = ["~", "^", "~0", "^0", "~1", "^1", "^2", "~3", "~99999999999999999999", "~-1", "~٣", "~²", "{}", "@"]
DATES = [
    "@{2100-01-01}",
    "@{1970-01-01}",
    "@{0001-01-01}",
    "@{9999-12-31T23:59:59-12:00}",
    "@{}",
    "@{now}",
    "@{2026-W01}",
]

revisions = st.one_of(
    st.text(),
    st.text(alphabet="~^@{}.:/-0123456789abcdefHEADmain"),
    st.lists(st.sampled_from(NAMES + STEPS + DATES), max_size=5).map("".join),
)
"""Text of all kinds, of the right letters, and of the right parts."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A repository of a few commits on two branches, with a tag and a branch that has none."""
    path = tmp_path_factory.mktemp("revisions") / "repository"
    with Engine.create(path, ADA) as engine:
        engine.create_branch("empty")
        tree = engine.working_tree("main")
        for number in range(4):
            tree.put_file((b"f",), BytesSource(b"%d" % number))
            tree.commit(f"number {number}")
        engine.create_tag("v1.0", engine.commits()[1])
        engine.create_branch("side", engine.commits()[2])
    return path


@pytest.fixture(scope="module")
def history(place):
    with Engine.open(place) as opened:
        yield opened


@pytest.fixture(scope="module")
def api(place):
    with Repository(place) as opened:
        yield opened


@FUZZ
@given(revisions)
def test_the_engine_resolves_it_or_says_why_not(history, text):
    try:
        found = history.resolve(text)
    except (NotFound, Usage):
        return
    assert found in history.commits()


def test_what_should_resolve_does(history):
    newest, third, second, first = history.commits()
    wanted = {"main~3": first, "HEAD^^": second, "v1.0": third, "side~1^0": first, newest.hex()[:9].upper(): newest}
    wanted |= {"main@{2100-01-01}~1": third, "HEAD@{9999-12-31T23:59:59-12:00}": newest}
    assert {text: history.resolve(text) for text in wanted} == wanted


@FUZZ
@given(revisions, st.sampled_from(["commit", "branch", "tag"]))
@example("empty", "branch")
@example("\0", "tag")
def test_checking_out(api, text, how):
    try:
        checkout = api.checkout(**{how: text})
    except (NotFound, Usage):
        return
    with checkout:
        assert len(checkout.commit_hash) == 64 or text in ("", "empty")


@FUZZ
@given(revisions)
def test_everything_else_that_takes_a_revision(api, text):
    for call in (
        lambda: api.log(commit=text, return_contents=True),
        lambda: api.log(branch=text, return_contents=True),
        lambda: api.status(text),
        lambda: api.create_branch("new branch", base_commit=text),
        lambda: api.create_tag("new tag", commit=text),
    ):
        try:
            call()
        except (NotFound, Usage):
            continue


@pytest.mark.parametrize(
    "text", ["main" + "~" * 100_000, "main~" + "9" * 10_000, "main" + "^1" * 50_000, "@{" * 10_000, "a" * 10**6]
)
def test_long_ones(history, text):
    with pytest.raises((NotFound, Usage)):
        history.resolve(text)


# A lone surrogate is a str that has no UTF-8.
SURROGATE = "\ud800"
CALLS = {
    "working_tree": lambda engine, name: engine.working_tree(name),
    "set_head": lambda engine, name: engine.set_head(name),
    "tag": lambda engine, name: engine.tag(name),
    "remove_tag": lambda engine, name: engine.remove_tag(name),
    "remove_branch": lambda engine, name: engine.remove_branch(name),
    "rename_branch": lambda engine, name: engine.rename_branch(name, "other"),
    "acquire_writer": lambda engine, name: engine.acquire_writer(name),
}


@pytest.mark.parametrize("name", ["", "a" * 600, "..", "../..", "a\0b", "main/../main", " main", "main\n"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_names_that_no_ref_has(history, call, name):
    with pytest.raises((NotFound, Usage)):
        call(history, name)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_names_that_are_no_text(history, call):
    with pytest.raises((NotFound, Usage)):
        call(history, SURROGATE)


def test_messages_that_are_no_text(history):
    tree = history.working_tree("side")
    tree.put_file((b"g",), BytesSource(b"x"))
    with pytest.raises(Usage):
        tree.commit(SURROGATE)
