"""Tags and categories of one Treant."""

from __future__ import annotations

import enum
import math
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from storage.treants.treant import Treant
from tests.treants import shell


@pytest.fixture
def treant(repository):
    return Treant(repository / "sprout")


def test_tags_come_and_go(treant):
    treant.tags.add("oak", ["elm", ("tall", {"old"})], "elm")
    assert list(treant.tags) == ["elm", "oak", "old", "tall"] and len(treant.tags) == 4
    assert repr(treant.tags) == "<Tags(['elm', 'oak', 'old', 'tall'])>" and str(treant.tags) == "elm\noak\nold\ntall"
    assert "elm" in treant.tags and "ash" not in treant.tags and 5 not in treant.tags
    treant.tags.remove("oak", ["never", "old"])
    assert list(treant.tags) == ["elm", "tall"]
    treant.tags.remove(all=True)
    assert list(treant.tags) == []
    treant.tags.add("x")
    treant.tags.clear()
    assert len(treant.tags) == 0


def test_what_is_no_tag_changes_nothing(treant):
    treant.tags.add("elm")
    for wrong in (1, None, b"x", {"a": 1}, ["x", 1], object()):
        with pytest.raises(ValueError):
            treant.tags.add("oak", wrong)
        with pytest.raises(ValueError):
            treant.tags.remove("elm", wrong)
    assert list(treant.tags) == ["elm"]


def test_tags_are_replaced(treant):
    other = Treant(treant.location + "/other", tags=["ash"])
    for tags in (["b", "a"], {"a", "b"}, ("a", "b", "a")):
        treant.tags = tags
        assert treant.tags == ["a", "b"]
    treant.tags = other.tags
    assert treant.tags == {"ash"}
    for wrong in ("ash", {"ash": 1}, 5, None):
        with pytest.raises(TypeError):
            treant.tags = wrong
    assert treant.tags == {"ash"}


def test_the_algebra_of_tags(treant):
    treant.tags.add("a", "b")
    other = Treant(treant.location + "/other", tags=["b", "c"])
    for right in ({"b", "c"}, ["b", "c"], other.tags):
        assert treant.tags & right == {"b"} and treant.tags | right == {"a", "b", "c"}
        assert treant.tags - right == {"a"} and treant.tags ^ right == {"a", "c"}
        assert right - treant.tags == {"c"} and right & treant.tags == {"b"}
        assert not treant.tags <= right and treant.tags != right
    assert treant.tags < {"a", "b", "c"} and treant.tags >= ["a"] and {"a"} < treant.tags
    assert type(treant.tags & other.tags) is set
    for wrong in ("ab", 5, {"a": 1}):
        with pytest.raises(TypeError):
            treant.tags & wrong
        with pytest.raises(TypeError):
            print(wrong < treant.tags)


def test_choosing_by_tags(treant):
    treant.tags.add("tree", "elm")
    tags = treant.tags
    assert tags["elm"] and not tags["oak"] and tags[["tree", "elm"]] and not tags[["tree", "oak"]]
    assert tags[("oak", "elm")] and not tags[{"elm"}] and tags[{"elm", "oak"}] and tags["tree and not oak"]
    with pytest.raises(ValueError):
        tags[5]


def test_nearly_the_same_tags(treant):
    treant.tags.add("maple", "maples", "oak", "sequoia")
    assert treant.tags.fuzzy("maple") == ("maple", "maples")
    assert treant.tags.fuzzy(["mapel", "seqoia"]) == ("sequoia", "maple")
    assert treant.tags.fuzzy("maple", threshold=95) == ("maple",)
    assert treant.tags.fuzzy("birch") == ()
    assert set(treant.tags.fuzzy("x", threshold=0)) == {"maple", "maples", "oak", "sequoia"}


class Colour(str, enum.Enum):  # noqa: UP042  # whose str() is another text
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def test_categories_come_and_go(treant):
    categories = treant.categories
    categories.add({"home": "forest", "age": 5}, height=1.5, old=False)
    assert categories.keys() == ["home", "age", "height", "old"] == list(categories)
    assert categories.values() == ["forest", 5, 1.5, False]
    assert [type(value) for value in categories.values()] == [str, int, float, bool]
    assert categories.items() == list(zip(categories.keys(), categories.values(), strict=True))
    assert categories["age"] == 5 and categories[["age", "home"]] == [5, "forest"]
    assert categories[{"age", "home"}] == {"age": 5, "home": "forest"}
    assert len(categories) == 4 and "age" in categories and "x" not in categories
    assert categories == {"home": "forest", "age": 5, "height": 1.5, "old": False} == categories and categories != {}
    assert repr(categories) == "<Categories({'home': 'forest', 'age': 5, 'height': 1.5, 'old': False})>"
    assert str(categories).splitlines()[1] == "age: 5"
    categories["age"] = 6
    categories.add(home=None)
    categories["old"] = None
    del categories["height"]
    assert categories == {"age": 6}
    categories.remove("age", "never")
    assert not len(categories)
    categories.add(a=1)
    categories.clear()
    assert categories.keys() == []


def test_values_come_back_as_pythons_own(treant):
    treant.categories.add(a=np.float64(1.5), b=Colour.RED, c=Level.HIGH, d=np.str_("x"), e=math.inf, f=1 << 80)
    assert treant.categories.values() == [1.5, "red", 3, "x", math.inf, 1 << 80]
    assert [type(value) for value in treant.categories.values()] == [float, str, int, str, float, int]


def test_what_is_no_category_changes_nothing(treant):
    treant.categories.add(a=1)
    for wrong in ([1], (), {}, 1j, b"x", object(), np.int64(1)):
        with pytest.raises(TypeError, match="'b'"):
            treant.categories.add(a=2, b=wrong)
    with pytest.raises(TypeError):
        treant.categories.add({5: 1})
    with pytest.raises(ValueError, match="no category 'b'"):
        treant.categories.add(a=2, b=None)
    for key in ("b", ["a", "b"], {"b"}):
        with pytest.raises(KeyError):
            treant.categories[key]
    for key in (5, ("a",), None):
        with pytest.raises(TypeError):
            treant.categories[key]
    with pytest.raises(KeyError):
        del treant.categories["b"]
    assert treant.categories == {"a": 1}


def test_categories_are_replaced(treant):
    other = Treant(treant.location + "/other", categories={"b": 1})
    treant.categories = {"a": 1, "c": None}
    assert treant.categories == {"a": 1}
    treant.categories = other.categories
    assert treant.categories == other.categories == {"b": 1}
    for wrong in ([("a", 1)], 5, None, {"a": []}):
        with pytest.raises(TypeError):
            treant.categories = wrong
    assert treant.categories == {"b": 1}


def _label(work: tuple[str, int]) -> None:
    path, number = work
    treant = Treant(path)
    for turn in range(10):
        treant.tags.add(f"{number}.{turn}")
        treant.categories[f"c{number}"] = turn


def test_several_threads_and_processes_label_one(treant):
    work = [(treant.abspath, number) for number in range(6)]
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        others = processes.map_async(_label, work[:2])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(_label, work[2:]))
        others.get()
    assert len(treant.tags) == 60
    assert treant.categories == {f"c{number}": 9 for number in range(6)}


def test_two_branches_have_labels_of_their_own(repository, mounted):
    treant = Treant(repository / "sprout", tags="elm")
    treant.commit("first")
    mount = mounted(repository)
    (mount.path / "branches" / "other").mkdir()
    other = Treant(mount.path / "branches" / "other" / "sprout")
    other.tags.add("oak")
    assert list(treant.tags) == ["elm"] and list(other.tags) == ["elm", "oak"] and treant.uuid == other.uuid


def test_a_state_file_copied_over_it_is_seen(place):
    one = Treant(place / "one", tags="elm")
    one.commit("as it was")
    shell.copy(place, "one", "kept")
    one.tags.add("oak")
    name = one.filepath.rpartition("/")[2]
    shell.write(place, f"one/{name}", one.place.files.read(f"kept/{name}"))
    assert list(one.tags) == ["elm"]
