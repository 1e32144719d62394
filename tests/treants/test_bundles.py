"""Bundles: ordered sets of Treants, chosen by tags and categories."""

from __future__ import annotations

import operator
import os
import pickle
import subprocess

import numpy as np
import pytest

from storage.errors import NotATreant
from storage.places import place_of
from storage.treants.bundles import Bundle
from storage.treants.treant import Treant
from storage.treants.trees import Tree
from storage.treants.views import View
from tests.treants import mapped_functions

TREES = {
    "elm": ({"tree", "deciduous", "old"}, {"bark": "mossy", "age": 200, "home": "wood"}),
    "maple": ({"tree", "syrup", "plant"}, {"bark": "smooth", "home": "wood"}),
    "oak": ({"tree", "old"}, {"bark": "mossy", "age": 300, "home": "hill"}),
    "sequoia": ({"tree", "tall", "for building"}, {"bark": "fibrous", "age": 200, "home": "hill"}),
}


@pytest.fixture
def bundle(repository):
    return Bundle(planted(repository))


def planted(path):
    return [Treant(path / name, tags=list(tags), categories=values) for name, (tags, values) in TREES.items()]


def test_made_of_all_that_names_treants(place):
    elm, maple, oak, _ = planted(place.path)
    bundle = Bundle(elm, [str(maple.abspath), (Tree(oak.abspath), elm)], Bundle(maple), {place / "sequoia"}, View(oak))
    assert bundle.names == ["elm", "maple", "oak", "sequoia"] and len(Bundle()) == 0
    assert [type(member) for member in bundle] == [Treant] * 4 and bundle[0] == elm and bundle[0].uuid == elm.uuid
    assert Bundle(elm.filepath).abspaths == [elm.abspath] and Bundle(iter([oak]))[0].uuid == oak.uuid
    assert bundle.uuids == [member.uuid for member in bundle]


def test_a_tree_is_one_path_and_not_its_characters(bundle, repository):
    assert Bundle(Tree(repository / "elm")).abspaths == [f"{repository}/elm/"]


@pytest.mark.parametrize("wrong", [5, None, b"elm", ["elm", 5], {"elm": 1}])
def test_other_types_are_refused(bundle, repository, monkeypatch, wrong):
    monkeypatch.chdir(repository)
    with pytest.raises(TypeError, match="a Bundle is made of"):
        Bundle(wrong)


def test_directories_that_are_no_treants_are_refused(bundle, repository, tmp_path):
    Tree(repository / "plain" / "deep").make()
    (tmp_path / "ordinary").mkdir()
    for wrong in (
        repository / "plain",
        repository,
        repository / "nothing",
        tmp_path / "ordinary",
        Tree(repository / "plain"),
    ):
        with pytest.raises(NotATreant, match="is no Treant"):
            Bundle(bundle, wrong)
    assert not (repository / "nothing").exists() and not Tree(repository / "nothing").exists
    assert os.listdir(tmp_path / "ordinary") == []


def test_choosing(bundle):
    assert bundle[1].name == "maple" and bundle[-1].name == "sequoia"
    assert bundle[1:3].names == ["maple", "oak"] and bundle[[3, 0]].names == ["sequoia", "elm"]
    assert bundle[[True, False, False, True]].names == bundle[np.array([True, False, False, True])].names
    assert bundle["oak"].names == ["oak"] and type(bundle["oak"]) is Bundle
    with pytest.raises(KeyError):
        bundle["ash"]
    with pytest.raises(IndexError):
        bundle[4]


def test_algebra(bundle, repository):
    left, right = bundle[[3, 0, 1]], bundle[[2, 1, 3]]
    assert (left | right).names == (left + right).names == ["sequoia", "elm", "maple", "oak"]
    assert (left & right).names == ["sequoia", "maple"] and (left - right).names == ["elm"]
    assert (left ^ right).names == ["elm", "oak"]
    assert (left - Treant(repository / "elm")).names == ["sequoia", "maple"]
    assert (left + Treant(repository / "oak")).names == ["sequoia", "elm", "maple", "oak"]
    assert left == left[::-1] and left != right and Treant(repository / "elm") in left
    for operation in (operator.add, operator.sub, operator.and_, operator.or_, operator.xor):
        for wrong in (["elm"], Tree(repository / "plain"), View(left[0])):
            with pytest.raises(TypeError):
                operation(left, wrong)


def test_members_are_trees(bundle, repository, monkeypatch):
    monkeypatch.chdir(repository)
    bundle[0]["notes/x"].make()
    assert bundle.trees().relpaths == ["elm/notes/"] and bundle.loc["x"].relpaths[0] == "elm/x"
    assert bundle.globfilter("*a*").names == ["maple", "oak", "sequoia"]
    assert bundle.parents().abspaths == [f"{repository}/"]
    assert bundle.relpaths[0] == "elm/" and View(bundle).names == bundle.names
    assert repr(bundle[:2]) == "<Bundle([<Treant: 'elm'>, <Treant: 'maple'>])>" == str(bundle[:2])
    assert pickle.loads(pickle.dumps(bundle)).names == bundle.names


def test_what_became_of_a_member_is_seen(bundle):
    elm, files = bundle[0], place_of(bundle[0].abspath).files
    files.remove("elm")
    assert bundle.exists == [False, True, True, True] and len(bundle) == 4
    assert "no Treant" in repr(bundle) and "<Treant: 'maple'>" in repr(bundle)
    for look in (lambda: bundle[0], lambda: bundle.tags.any, lambda: bundle.categories.all, lambda: elm.tags.add("x")):
        with pytest.raises(NotATreant):
            look()
    assert bundle.tags["tree"] == [False, True, True, True]


def test_choosing_by_tags(bundle):
    def names(expression):
        assert [bundle.names[i] for i, chosen in enumerate(bundle.tags[expression]) if chosen] == (
            bundle.tags.filter(expression).names
        )
        return bundle[bundle.tags[expression]].names

    assert names("tree") == bundle.names and names("old") == ["elm", "oak"] and names("nothing") == []
    assert names(["old", "deciduous"]) == ["elm"] and names(("syrup", "tall")) == ["maple", "sequoia"]
    assert names({"old"}) == ["maple", "sequoia"] and names({"old", "deciduous"}) == ["maple", "oak", "sequoia"]
    assert names("tree and not (old or tall)") == ["maple"] and names("for building") == ["sequoia"]
    assert names("'for building' or syrup") == ["maple", "sequoia"] and names([]) == bundle.names and names(()) == []
    assert bundle[::-1].tags["old"] == [False, True, False, True]
    for wrong in (5, None, ["old", 5]):
        with pytest.raises(ValueError, match="tags are chosen by"):
            bundle.tags[wrong]


def test_choosing_by_tags_and_categories(bundle):
    assert bundle.get("old").names == ["elm", "oak"] and bundle.get().names == bundle.names
    assert bundle.get("tree", home="hill").names == ["oak", "sequoia"]
    assert bundle.get(age=200, home="hill").names == ["sequoia"] and bundle.get("old", {"deciduous"}).names == ["oak"]
    assert bundle.get(nothing=1).names == [] == bundle.get(age="200").names


def test_the_tags_of_all(bundle):
    tags = bundle.tags
    assert tags.all == {"tree"} and tags.any == {tag for tags, _ in TREES.values() for tag in tags}
    assert list(tags) == ["tree"] and len(tags) == 1 and "tree" in tags and "old" not in tags
    assert repr(tags) == "<AggTags(['tree'])>" and str(tags) == "tree"
    assert tags & {"tree", "old"} == {"tree"} and {"old"} | tags == {"tree", "old"} and tags <= ["tree", "x"]
    assert Bundle().tags.all == Bundle().tags.any == set() and Bundle().tags["x"] == []
    tags.add("new", ["newer", {"newest"}])
    assert tags.all == {"tree", "new", "newer", "newest"}
    tags.remove("tree", "newer", "syrup")
    assert tags.all == {"new", "newest"} and "syrup" not in tags.any
    with pytest.raises(ValueError):
        tags.add("fine", 5)
    assert "fine" not in tags.any
    bundle.tags = ["one"]
    assert tags.any == {"one"}
    tags.clear()
    assert tags.any == set()


def test_tags_that_are_nearly_it(bundle):
    assert bundle.tags.fuzzy("trees") == ("tree",) and bundle.tags.fuzzy("oldd") == ()
    assert bundle.tags.fuzzy("oldd", scope="any") == ("old",)
    assert bundle.tags.fuzzy(["oldd", "syrop"], threshold=70, scope="any") == ("old", "syrup")
    with pytest.raises(ValueError, match="the scope is"):
        bundle.tags.fuzzy("tree", scope="some")


def test_the_categories_of_all(bundle):
    categories = bundle.categories
    assert categories.all == {"bark": ["mossy", "smooth", "mossy", "fibrous"], "home": ["wood", "wood", "hill", "hill"]}
    assert categories.any == {**categories.all, "age": [200, None, 300, 200]}
    assert categories["age"] == [200, None, 300, 200] and categories["nothing"] == [None] * 4
    assert categories[["home", "age"]] == [["wood", "wood", "hill", "hill"], [200, None, 300, 200]]
    assert categories[{"home"}] == {"home": ["wood", "wood", "hill", "hill"]}
    assert sorted(categories.keys()) == ["bark", "home"] and sorted(categories.keys(scope="any")) == [
        "age",
        "bark",
        "home",
    ]
    assert dict(categories.items(scope="any")) == categories.any and categories.values() == list(
        categories.all.values()
    )
    assert (
        "home" in categories
        and "age" not in categories
        and len(categories) == 2
        and sorted(categories) == ["bark", "home"]
    )
    assert repr(bundle[:1].categories).startswith("<AggCategories({") and "home: ['wood'" in str(bundle[:1].categories)
    for wrong in (5, ("home",), ["home", 5], None):
        with pytest.raises(TypeError, match="categories are named by"):
            categories[wrong]
    with pytest.raises(ValueError, match="the scope is"):
        categories.keys(scope="some")


def test_setting_categories_of_all(bundle):
    bundle.categories["kind"] = "tree"
    assert bundle.categories["kind"] == ["tree"] * 4
    bundle.categories["height"] = [1, 2.5, None, True]
    assert bundle.categories["height"] == [1, 2.5, None, True] and bundle.categories["height"][3] is True
    bundle.categories["height"] = bundle.categories["height"][::-1]
    assert bundle.categories["height"] == [True, None, 2.5, 1]
    for wrong, error in (([1], ValueError), ([1, 2, 3, object()], TypeError), ({}, TypeError)):
        with pytest.raises(error):
            bundle.categories["kind"] = wrong
    assert bundle.categories["kind"] == ["tree"] * 4
    bundle.categories.add({"kind": 5}, sort="x")
    assert bundle.categories[["kind", "sort"]] == [[5] * 4, ["x"] * 4]
    bundle.categories.remove("kind", "age", "nothing")
    assert "kind" not in bundle.categories.any and "age" not in bundle.categories.any
    bundle.categories = {"only": 1}
    assert bundle.categories.any == {"only": [1] * 4}
    bundle.categories.clear()
    assert bundle.categories.any == {}


def test_groups(bundle):
    groups = bundle.categories.groupby("bark")
    assert {bark: group.names for bark, group in groups.items()} == {
        "mossy": ["elm", "oak"], "smooth": ["maple"], "fibrous": ["sequoia"]
    }  # fmt: skip
    assert {age: group.names for age, group in bundle.categories.groupby("age").items()} == {
        200: ["elm", "sequoia"], 300: ["oak"]
    }  # fmt: skip
    both = bundle[::-1].categories.groupby(["age", "home"])
    assert {key: group.names for key, group in both.items()} == {
        (200, "hill"): ["sequoia"], (300, "hill"): ["oak"], (200, "wood"): ["elm"]
    }  # fmt: skip
    assert bundle.categories.groupby(["home"])[("hill",)].names == ["oak", "sequoia"]
    assert bundle.categories.groupby("nothing") == {} and bundle[1:2].categories.groupby("age") == {}
    for wrong in (5, {"age"}, ("age",), None, ["age", 5]):
        with pytest.raises(TypeError):
            bundle.categories.groupby(wrong)


def test_members_of_several_trees(tmp_path, repository):
    first = planted(repository)
    Tree(repository).commit("planted")
    second = Treant(tmp_path / "elsewhere", tags=["old"], categories={"home": "city"})
    bundle = Bundle(first[0], second, first[1])
    assert [bundle[at].name for at in (0, 1, 2, -1, -2)] == ["elm", "elsewhere", "maple", "maple", "elsewhere"]
    assert bundle[1:].names == ["elsewhere", "maple"] and bundle[[2, 1]].names == ["maple", "elsewhere"]
    with pytest.raises(IndexError):
        bundle[3]
    assert bundle.tags["old"] == [True, True, False] and bundle.tags[{"old"}] == [False, False, True]
    assert bundle.get("old", home="city").names == ["elsewhere"] and bundle.tags.all == set()
    groups = bundle.categories.groupby("home")
    assert {home: group.names for home, group in groups.items()} == {"wood": ["elm", "maple"], "city": ["elsewhere"]}
    assert bundle[[2, 0]].categories.groupby(["bark", "home"])[("mossy", "wood")].names == ["elm"]


def test_a_commit_and_its_branch_are_two_trees(repository, mounted):
    mount = mounted(repository)
    elm = planted(mount.main)[0]
    commit = elm.commit("planted")
    elm.tags.remove("old")
    frozen = Bundle(mount.path / "commits" / commit / "elm", elm)
    assert frozen.tags["old"] == [True, False] and frozen.names == ["elm", "elm"]
    with pytest.raises(PermissionError):
        frozen.tags.add("x")


def test_map(bundle):
    assert bundle.map(lambda treant: treant.name) == bundle.names
    assert bundle.map(lambda treant: None) is None
    with pytest.raises(LookupError, match="oak is none"):
        bundle.map(mapped_functions.fails_at, processes=2, name="oak")


def test_data_of_all(bundle):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"A": [1.0, 2.0]})
    elm, maple, oak, _ = bundle
    elm.data.add("table", frame)
    maple.data.add("table", frame * 10)
    for number, treant in enumerate(bundle):
        treant.data.add("numbers", np.arange(3) + number)
    oak.data.add("mixed", np.arange(2))
    elm.data.add("mixed", frame)
    data = bundle.data
    assert data.keys() == ["numbers"] == list(data) and data.keys(scope="any") == ["mixed", "numbers", "table"]
    assert data.all == {"numbers"} and data.any == {"mixed", "numbers", "table"} and len(data) == 1
    assert repr(data) == "<AggData(['numbers'])>"
    together = data.retrieve("table", by="name")
    assert together.index.tolist() == [("elm", 0), ("elm", 1), ("maple", 0), ("maple", 1)]
    assert together.loc["maple", "A"].tolist() == [10.0, 20.0]
    assert data["table"].index.levels[0].tolist() == [elm.abspath, maple.abspath]
    assert data.retrieve("table", by="uuid").index.tolist()[0] == (elm.uuid, 0)
    assert len(data.retrieve("table", start=1)) == 2
    numbers = data["numbers"]
    assert list(numbers) == bundle.abspaths and numbers[oak.abspath].tolist() == [2, 3, 4]
    assert set(data.retrieve("mixed", by="name")) == {"elm", "oak"}
    with pytest.raises(KeyError, match="no member has data"):
        data["nothing"]
    for wrong in ("colour", None):
        with pytest.raises(ValueError, match="labelled by"):
            data.retrieve("numbers", by=wrong)
    with pytest.raises(ValueError, match="the scope is"):
        data.keys(scope="some")
    other = Treant(elm.path.parent / "other" / "elm")
    other.data.add("numbers", np.arange(3))
    with pytest.raises(KeyError, match="several members"):
        Bundle(elm, other).data.retrieve("numbers", by="name")
    assert View(elm, other["x"], Tree(elm.path)).data.keys() == ["mixed", "numbers", "table"]
    with pytest.raises(ValueError, match="has no uuid"):
        View(Tree(elm.path)).data.retrieve("numbers", by="uuid")


# Worked examples


def test_DT_13E_tags_and_categories_of_many(place):
    t = Treant(place / "sprout")
    t.tags.add("syrup", "plant")
    assert t.tags & {"plant"} == {"plant"}
    for name, (tags, values) in TREES.items():
        Treant(place / name, tags=tags, categories=values)
    b = Bundle(*(place / name for name in TREES))
    assert b.tags.any == {tag for tags, _ in TREES.values() for tag in tags} and b.tags.all == {"tree"}
    assert b[b.tags["tree"]].names == b.names
    assert b[b.tags[["tree", "old"]]].names == ["elm", "oak"]
    assert b[b.tags[("syrup", "tall")]].names == ["maple", "sequoia"]
    assert b[b.tags[{"old"}]].names == ["maple", "sequoia"]
    assert {bark: group.names for bark, group in b.categories.groupby("bark").items()} == {
        "mossy": ["elm", "oak"], "smooth": ["maple"], "fibrous": ["sequoia"]
    }  # fmt: skip
    groups = b.categories.groupby(["bark", "home"])
    assert groups[("mossy", "hill")].names == ["oak"] and len(groups) == 4
    if place.mounted:
        place.seen(lambda: (place / "oak").is_dir())
        subprocess.run(["cp", "-r", place / "oak", place / "ash"], check=True)
        subprocess.run(["rm", "-r", place / "maple"], check=True)
        subprocess.run(["mv", place / "elm", place / "wych elm"], check=True)
        assert b.exists == [False, False, True, True] and b.tags["tree"] == [False, False, True, True]
        moved = Bundle(place / "wych elm", place / "ash")
        assert moved.tags.all == {"tree", "old"} and moved.categories["age"] == [200, 300]


def test_DT_14E_map(place):
    b = Bundle(planted(place.path))
    assert b.map(lambda t: t.name) == b.names
    assert b.map(operator.attrgetter("name"), processes=2) == b.names
