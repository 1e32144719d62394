"""`Files.labels`: what is marked in a tree, held against a walk over all of its files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storage import Repository
from storage.engine import Engine
from storage.errors import ArborError, DamagedMark, NotFound
from storage.files import Files
from storage.labels import keeping
from storage.labels.keeping import FILES
from storage.labels.walk import Walk
from storage.model.samples import make_schema
from storage.model.tasks import KIND, TRACKER
from storage.treants.state import STATE_NAME, State, decode_state, encode_state

TAG = ("tag",)


def uuid_of(number: int) -> str:
    """A uuid of version 4."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def state_file(
    number: int, *tags: str, kind: str = "Treant", **categories: bool | int | float | str
) -> tuple[str, bytes]:
    """Name and contents of a state file."""
    state = State(uuid_of(number), kind, tuple(sorted(tags)), categories)
    return state.file_name, encode_state(state)


def make(tree: Files, path: str, number: int, *tags: str, **categories: bool | int | float | str) -> None:
    """Make a Treant, or label one anew."""
    name, data = state_file(number, *tags, **categories)
    tree.write_many({f"{path}/{name}" if path else name: data})


def walked(tree: Files) -> tuple[dict[str, State], set[str]]:
    """The Treants of a tree by path, and the directories whose state is damaged, found by looking at every file."""
    good: dict[str, State] = {}
    bad: set[str] = set()
    waiting = [""]
    while waiting:
        path = waiting.pop()
        states = []
        for name, info in tree.list(path):
            here = f"{path}/{name}" if path else name
            if info.is_directory:
                waiting.append(here)
            elif info.kind == "file" and STATE_NAME.fullmatch(name):
                states.append(here)
        try:
            found = [decode_state(tree.read(state)) for state in states]
        except ArborError:
            found = []
        if len(states) == 1 == len(found):
            good[path] = found[0]
        elif states:
            bad.add(path)
    return good, bad


def assert_true(tree: Files) -> None:
    """What the index says is what the files say, by every question."""
    labels, (good, bad) = tree.labels(), walked(tree)
    assert labels.marked() == sorted(good)
    assert labels.damaged().keys() == bad
    tags = {tag for state in good.values() for tag in state.tags}
    assert set(labels.values(TAG)) == tags
    for tag in tags:
        assert labels.having(TAG, tag) == {path for path, state in good.items() if tag in state.tags}
    names = {("category", name) for state in good.values() for name in state.categories}
    assert set(labels.keys()) == names | ({TAG} if tags else set()) | ({("kind",)} if good else set())
    for key in names:
        for value in labels.values(key):
            same = {(path, state.categories.get(key[1])) for path, state in good.items()}
            found = {
                path for path, other in same if other == value and isinstance(other, bool) == isinstance(value, bool)
            }
            assert labels.having(key, value) == found
    for path, state in good.items():
        assert labels.state(path) == state
        inside = [other for other in good if f"{other}/".startswith(f"{path}/") or not path]
        assert labels.marked(path) == sorted(inside)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many nodes and rows each walk from now on has read."""
    looked: list[int] = []
    finish = Walk.finish
    monkeypatch.setattr(Walk, "finish", lambda walk: (finish(walk), looked.append(walk.looked)))
    return looked


def remember_few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon it is too long ago to know what has changed."""
    monkeypatch.setattr("storage.stores.staging.KEPT_CHANGES", 3)
    monkeypatch.setattr("storage.stores.staging._TRIM", 1)


@pytest.fixture
def tree(repository: Path) -> Iterator[Files]:
    with Repository(repository) as opened:
        yield opened.files()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is to find, it is kept for the next process."""
    monkeypatch.setattr(keeping, "WORTH", 0)


def test_treants_are_found_by_tag_and_category(tree):
    make(tree, "forest/oak", 1, "tree", "old", height=30, alive=True)
    make(tree, "forest/fir", 2, "tree", height=20.5, alive=1)
    make(tree, "forest/fir/cone", 3, "seed", where="ground")
    make(tree, "", 4, "top")
    labels = tree.labels()
    assert labels.marked() == ["", "forest/fir", "forest/fir/cone", "forest/oak"]
    assert labels.marked("forest/fir") == ["forest/fir", "forest/fir/cone"]
    assert labels.marked("forest/f") == [] == labels.marked("nowhere")
    assert labels.having(TAG, "tree") == {"forest/fir", "forest/oak"}
    assert labels.having(TAG, "tree", "forest/oak") == {"forest/oak"}
    assert labels.having(("category", "alive"), True) == {"forest/oak"}
    assert labels.having(("category", "alive"), 1) == {"forest/fir"}
    assert labels.having(("category", "height"), 30.0) == {"forest/oak"}
    assert labels.having(("kind",), "Treant") == set(labels.marked())
    assert labels.having(TAG, "none") == set() == labels.having(("no", "such"), "key")
    assert labels.keys() == [("category", name) for name in ("alive", "height", "where")] + [("kind",), ("tag",)]
    assert set(labels.values(("category", "height"))) == {30, 20.5}
    assert labels.state("forest/fir/cone") == State(uuid_of(3), "Treant", ("seed",), {"where": "ground"})
    with pytest.raises(NotFound):
        labels.state("forest")
    assert_true(tree)


def test_odd_values_are_found(tree):
    make(tree, "a", 1, "", "a/b", "ü", nan=float("nan"), big=2**80, quoted="1")
    make(tree, "b", 2, quoted=1, nan=float("nan"))
    labels = tree.labels()
    assert labels.having(("category", "quoted"), 1) == {"b"}
    assert labels.having(("category", "quoted"), "1") == {"a"}
    assert labels.having(("category", "nan"), float("nan")) == {"a", "b"}
    assert labels.having(("category", "big"), 2**80) == {"a"}
    assert set(labels.values(TAG)) == {"", "a/b", "ü"}


def test_each_change_is_seen_at_the_next_question(tree):
    labels = tree.labels()
    assert labels.marked() == []
    make(tree, "a/b/c", 1, "x")
    assert labels.having(TAG, "x") == {"a/b/c"}
    make(tree, "a/b/c", 1, "y")
    assert labels.having(TAG, "x") == set() and labels.values(TAG) == ["y"]
    tree.rename("a", "z")
    assert labels.marked() == ["z/b/c"]
    tree.commit("all of it")
    assert labels.marked() == ["z/b/c"]
    tree.rename("z/b", "b")
    make(tree, "b/c/d", 2)
    assert labels.marked() == ["b/c", "b/c/d"]
    tree.remove("b/c/" + state_file(1)[0])
    assert labels.marked() == ["b/c/d"]
    tree.remove("b")
    assert labels.marked() == [] == labels.keys()


def test_a_commit_keeps_its_labels(repository, tree):
    make(tree, "a", 1, "x")
    first = tree.commit("one")
    make(tree, "a", 1, "y")
    tree.commit("two")
    with Repository(repository) as other:
        assert other.files(commit=first).labels().values(TAG) == ["x"]
        assert tree.labels().values(TAG) == ["y"]
        assert_true(other.files(commit=first))


def test_a_damaged_state_file_is_told_of_its_directory_alone(tree):
    for number, path in enumerate("abcd"):
        make(tree, path, number, "x")
    tree.write("b/" + state_file(1)[0], b"nonsense")
    tree.write("d/" + state_file(9)[0], state_file(9)[1])
    labels = tree.labels()
    assert labels.having(TAG, "x") == {"a", "c"} == set(labels.marked())
    assert labels.damaged().keys() == {"b", "d"}
    assert state_file(1)[0] in labels.damaged()["b"] and "2 state files" in labels.damaged()["d"]
    assert labels.damaged("d").keys() == {"d"}
    with pytest.raises(DamagedMark, match="cannot be understood"):
        labels.state("b")
    tree.commit("damage and all")
    assert_true(tree)
    make(tree, "b", 1, "x")
    tree.remove("d/" + state_file(3)[0])
    assert labels.marked() == ["a", "b", "c", "d"] and not labels.damaged()


def test_bytes_that_changed_in_a_journal_are_told_of_their_directory_alone(repository, tree):
    for number in range(20):
        make(tree, f"t{number}", number, "x")
    _, data = state_file(7, "x")
    (journal,) = (repository / ".arborfs/segments").glob("*.journal")
    raw = bytearray(journal.read_bytes())
    at = raw.index(data)
    raw[at + len(data) - 40] ^= 1
    journal.write_bytes(raw)
    labels = tree.labels()
    assert labels.damaged().keys() == {"t7"} and len(labels.marked()) == 19


def test_what_another_process_changes_is_seen_at_once(repository, tree):
    make(tree, "here", 1, "x")
    labels = tree.labels()
    assert labels.marked() == ["here"]
    program = (
        "import sys; from storage import Repository\n"
        "with Repository(sys.argv[1]) as r: r.files().rename('here', 'there')"
    )
    subprocess.run([sys.executable, "-c", program, str(repository)], check=True, timeout=60)
    assert labels.marked() == ["there"]


def test_a_branch_that_is_reset_moved_merged_and_undone(repository):
    with Repository(repository) as opened, Engine.open(repository) as engine:
        tree = opened.files()
        make(tree, "a", 1, "one")
        first = tree.commit("one")
        assert tree.labels().values(TAG) == ["one"]
        engine.create_branch("side", engine.branches()["main"])
        side = opened.files(branch="side")
        make(side, "b", 2, "two")
        side.commit("two")
        assert_true(side)
        engine.merging("main").merge(engine.resolve("side"))
        assert tree.labels().marked() == ["a", "b"]
        engine.undo()
        assert tree.labels().marked() == ["a"]
        engine.reset_hard("side", engine.resolve(first))
        assert side.labels().marked() == ["a"]
        make(side, "c", 3)
        assert side.labels().marked() == ["a", "c"]
        engine.rename_branch("side", "old")
        engine.create_branch("side", engine.branches()["main"])
        make(side, "d", 4)
        assert side.labels().marked() == ["a", "d"] and opened.files(branch="old").labels().marked() == ["a", "c"]
        engine.rename_branch("side", "other")
        with pytest.raises(NotFound):
            side.labels().marked()
        assert opened.files(branch="other").labels().marked() == ["a", "d"]


def test_unchanged_directories_are_not_read_again(tree, monkeypatch):
    for number in range(300):
        make(tree, f"g{number % 3}/t{number}", number, "x")
    tree.commit("all")
    looked = watched(monkeypatch)
    labels = tree.labels()
    assert len(labels.marked()) == 300 and looked[-1] > 300
    remember_few_changes(monkeypatch)
    for number in range(10):
        make(tree, "g1/new", 1000, str(number))
    assert labels.having(TAG, "9") == {"g1/new"} and len(labels.marked()) == 301
    assert looked[-1] < 20  # though it was too long ago to know what had changed


def test_what_was_found_before_a_commit_is_known_after_it(repository, tree, kept, monkeypatch):
    for number in range(300):
        make(tree, f"g{number % 3}/t{number}", number, "x")
    labels = tree.labels()
    assert len(labels.marked()) == 300
    commit = tree.commit("all")
    assert len(labels.marked()) == 300
    looked = watched(monkeypatch)
    remember_few_changes(monkeypatch)
    for number in range(10):
        make(tree, "g1/new", 1000, str(number))
    assert labels.having(TAG, "9") == {"g1/new"} and len(labels.marked()) == 301
    with Repository(repository) as other:
        assert len(other.files(commit=commit).labels().marked()) == 300
        assert_true(other.files(commit=commit))
    assert sum(looked) < 30


def test_only_what_changed_is_looked_at(tree, monkeypatch):
    for number in range(300):
        make(tree, f"g{number % 3}/t{number}", number, "x")
    labels = tree.labels()
    labels.look()
    looked = watched(monkeypatch)
    make(tree, "g1/t1", 1, "other")
    assert labels.having(TAG, "other") == {"g1/t1"}
    tree.rename("g2/t2", "g1/moved")
    assert "g1/moved" in labels.having(TAG, "x")
    assert sum(looked) < 10


def test_an_interrupted_look_leaves_nothing_half_known(tree, monkeypatch):
    make(tree, "a", 1, "x")
    assert tree.labels().values(TAG) == ["x"]
    make(tree, "a", 1, "y")
    make(tree, "b", 2, "z")

    def interrupted(walk: Walk) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(Walk, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tree.labels().marked()
    assert_true(tree)


# Between processes


def test_the_next_process_begins_with_what_was_kept(repository, kept, monkeypatch):
    with Repository(repository) as opened:
        for number in range(50):
            make(opened.files(), f"t{number}", number, "x", n=number)
        opened.files().labels().look()
        make(opened.files(), "late", 99, "y")
    looked = watched(monkeypatch)
    with Repository(repository) as opened:
        labels = opened.files().labels()
        assert len(labels.having(TAG, "x")) == 50 and labels.having(TAG, "y") == {"late"}
        assert labels.having(("category", "n"), 7) == {"t7"}
    assert 0 < sum(looked) < 5  # the changes since were all there was to look at


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_file_of_what_was_kept_is_as_if_it_were_not_there(repository, kept, damage):
    with Repository(repository) as opened:
        make(opened.files(), "a", 1, "x")
        opened.files().labels().look()
    (path,) = (repository / ".arborfs/labels").iterdir()
    data = path.read_bytes()
    flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
    path.write_bytes({"cut": data[:-1], "flip": flipped, "empty": b"", "other": b"x" * 100}[damage])
    with Repository(repository) as opened:
        assert opened.files().labels().having(TAG, "x") == {"a"}
        assert_true(opened.files())
    assert path.read_bytes()[:4] == data[:4]


def test_an_old_file_of_what_was_kept_is_not_believed(repository, kept):
    with Repository(repository) as opened:
        tree = opened.files()
        make(tree, "a", 1, "x")
        tree.labels().look()
        (path,) = (repository / ".arborfs/labels").iterdir()
        old = path.read_bytes()
        make(tree, "a", 1, "y")
        tree.rename("a", "b")
        tree.labels().look()
    path.write_bytes(old)
    with Repository(repository) as opened:
        assert_true(opened.files())
    path.write_bytes(old)
    Engine.open(repository).close()
    for part in (repository / ".arborfs/index").iterdir():
        part.unlink()
    with Repository(repository) as opened:  # another index: nothing tells what changed since
        assert opened.files().labels().marked() == ["b"]
        assert_true(opened.files())


def test_changes_of_another_index_are_not_taken_for_those_since(repository, kept):
    with Repository(repository) as opened:
        make(opened.files(), "a", 1, "x")
        opened.files().labels().look()
    for part in (repository / ".arborfs/index").iterdir():
        part.unlink()
    with Repository(repository) as opened:  # its changes are counted from the beginning again
        opened.files().rename("a", "b")
        for number in range(30):
            opened.files().write("other", b"%d" % number)
    with Repository(repository) as opened:
        assert opened.files().labels().marked() == ["b"]


def test_few_files_are_kept(repository, kept):
    with Repository(repository) as opened:
        for number in range(FILES + 5):
            make(opened.files(), "a", 1, str(number))
            commit = opened.files().commit("next")
            assert opened.files(commit=commit).labels().values(TAG) == [str(number)]
        assert len(os.listdir(repository / ".arborfs/labels")) <= FILES


def test_many_threads_may_ask_while_others_change(tree):
    answers: list[set[str]] = []

    def ask() -> None:
        while not done.is_set():
            answers.append(tree.labels().having(TAG, "stays"))

    done = threading.Event()
    make(tree, "fixed", 1, "stays")
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2, 80):
        make(tree, f"t{number % 7}", number % 7 + 10, str(number))
        if number % 20 == 0:
            tree.commit("so far")
    done.set()
    for thread in threads:
        thread.join()
    assert answers and all(answer == {"fixed"} for answer in answers)
    assert_true(tree)


# Tasks


def test_tasks_of_trackers_have_a_state(tree):
    schema = make_schema(np.dtype(np.uint8), (), kind="json")
    tree.make_directory("work/list", parents=True, schema=schema)
    tree.make_directory("other", schema=schema)
    for number in range(6):
        tree.write(f"work/list/k{number}.json", b'{"_tries": 1, "_done": %s}' % (b"true" if number < 2 else b"false"))
        tree.write(f"other/k{number}.json", b'{"_done": true}')
    labels = tree.labels("task")
    assert labels.marked() == []
    tree.set_attributes("work/list", {KIND: TRACKER})
    assert labels.having(("state",), "done") == {"work/list/k0.json", "work/list/k1.json"}
    assert len(labels.having(("state",), "todo")) == 4
    tree.write("work/list/k5.json", b'{"_aborted": true}')
    assert labels.having(("state",), "aborted") == {"work/list/k5.json"}
    assert len(labels.marked("work")) == 6 and labels.marked("work/list/k5.json") == ["work/list/k5.json"]
    tree.commit("some")
    assert len(labels.having(("state",), "todo")) == 3
    tree.rename("work", "play")
    tree.write("play/list/k2.json", b"[1]")
    assert labels.damaged().keys() == {"play/list/k2.json"}
    assert labels.state("play/list/k5.json") == "aborted"
    tree.set_attributes("play/list", {KIND: None})
    assert labels.marked() == []


# Histories at random


def a_change(random: random.Random, repo: Repository, engine: Engine) -> None:
    """One change of any kind, by this repository."""
    tree = repo.files()
    places = ["", "a", "b", "a/a", "a/b", "b/a", "a/a/a"]
    place, other, number = random.choice(places), random.choice(places), random.randrange(5)
    tags = random.sample(["red", "green", "blue"], random.randrange(3))
    kind = random.randrange(12)
    if kind <= 3:
        make(tree, place, number, *tags, n=random.randrange(3))
    elif kind == 4:
        tree.remove(f"{place}/{state_file(number)[0]}")
    elif kind == 5:
        tree.rename(place, other)
    elif kind == 6:
        tree.remove(place)
    elif kind == 7:
        tree.write(f"{place}/{state_file(number)[0]}", random.choice([b"", b"junk", state_file(number, "odd")[1]]))
    elif kind == 8:
        tree.commit("step")
    elif kind == 9:
        engine.undo()
    elif kind == 10:
        name, data = state_file(number, *tags)
        tree.write_many({f"{place}/many/x{i}/{name}": data for i in range(random.choice([3, 70]))})
    else:
        tree.remove(f"{place}/many")


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happened_the_index_says_what_the_files_say(repository, kept, seed, monkeypatch):
    chance = random.Random(seed)
    if seed % 2:
        remember_few_changes(monkeypatch)
    with Repository(repository) as one, Repository(repository) as other, Engine.open(repository) as engine:
        for _ in range(60):
            try:
                a_change(chance, chance.choice([one, other]), engine)
            except (ArborError, ValueError):
                continue
            if chance.random() < 0.4:
                assert_true(chance.choice([one, other]).files())
            if chance.random() < 0.1:
                with Repository(repository) as fresh:
                    assert_true(fresh.files())
            commit = one.files().commit_hash
            if commit and chance.random() < 0.05:
                assert_true(one.files(commit=commit))
        assert_true(one.files())
        assert_true(other.files())
