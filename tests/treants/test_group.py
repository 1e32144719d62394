"""Groups and their members."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest

from storage import places
from storage.errors import NotATreant, NotFound
from storage.treants.bundles import Bundle
from storage.treants.group import Group
from storage.treants.state import STATE_NAME
from storage.treants.treant import Treant
from tests.treants import shell


@pytest.fixture
def wood(place):
    """Three Treants and two Groups, one of which is a member of itself."""
    treants = [Treant(place / "wood" / name, tags=name) for name in ("elm", "oak", "ash")]
    inner = Group(place / "inner", members=treants[:2])
    group = Group(place / "gruffy", members=[*treants, inner], tags="group", categories={"n": 1})
    group.members.add(group)
    return group


def test_a_group_is_a_treant_that_knows_others(place, wood):
    assert repr(wood) == "<Group: 'gruffy' | 5 Members: 3 Treant, 2 Group>"
    assert repr(Group(place / "empty")) == "<Group: 'empty' | 0 Members>"
    assert wood.members.names == ["elm", "oak", "ash", "inner", "gruffy"]
    assert wood.members.treanttypes == ["Treant"] * 3 + ["Group"] * 2
    assert wood.members.basedirs == [
        str(place / path) for path in ("wood/elm", "wood/oak", "wood/ash", "inner", "gruffy")
    ]
    assert wood.members.uuids[4] == wood.uuid and wood in wood.members and wood.treanttype == "Group"
    assert len(wood.members) == 5 and [type(member) for member in wood.members][3:] == [Group, Group]
    assert STATE_NAME.fullmatch(wood.filepath.rpartition("/")[2]) and list(wood.tags) == ["group"]
    assert repr(wood.members).startswith("<Members([<Treant: 'elm'>, ")
    again = Group(place / "gruffy")
    assert again == wood and again.uuid == wood.uuid and again.members.uuids == wood.members.uuids
    assert isinstance(pickle.loads(pickle.dumps(wood)), Group)
    wood.tags.add("more")
    wood.categories.add(m=2)
    wood.tags = ["other"]
    assert len(again.members) == 5


def test_members_by_position_name_and_uuid(wood):
    members = wood.members
    assert members[0].name == "elm" and members[-1] == wood and members["oak"].name == "oak"
    assert members[members.uuids[2]].name == "ash" and isinstance(members["inner"], Group)
    assert isinstance(members[1:3], Bundle) and members[1:3].names == ["oak", "ash"]
    for wrong in ("birch", 7):
        with pytest.raises(LookupError):
            members[wrong]
    assert members.map(lambda member: member.name) == members.names
    assert members.map(lambda member: None) is None
    assert sorted(members.bundle[:3].tags.any) == ["ash", "elm", "oak"]


def test_members_come_and_go(place, wood):
    wood.members.remove(wood, "elm", 1)
    assert wood.members.names == ["ash", "inner"]
    wood.members.add(place / "wood" / "elm", [Bundle(place / "wood" / "oak")])
    wood.members.add(place / "wood" / "elm")
    assert wood.members.names == ["ash", "inner", "elm", "oak"]
    with pytest.raises(NotFound):
        wood.members.remove("birch")
    with pytest.raises(NotATreant):
        wood.members.add(place / "wood")
    wood.members.remove(all=True)
    assert len(wood.members) == 0 and Treant(place / "wood" / "elm").exists


def test_a_treant_is_no_group(place):
    treant = Treant(place / "a")
    with pytest.raises(NotATreant, match="no Group"):
        Group(place / "a", tags=["x"])
    assert list(treant.tags) == []
    group = Treant(Group(place / "g", members=treant))
    group.tags.add("x")
    assert group.treanttype == "Group" and Group(place / "g").members.names == ["a"]


def test_moved_members_are_found_again(place, wood):
    shell.move(place, "wood", "forest")
    shell.move(place, "forest/oak", "oak")
    assert wood.members.names == ["elm", "oak", "ash", "inner", "gruffy"]
    assert wood.state.members[0].path == "forest/elm" and wood.members["oak"].basedir == str(place / "oak")
    shell.move(place, "gruffy", "group")
    moved = Group(place / "group")
    assert moved.members.names == ["elm", "oak", "ash", "inner", "group"]
    shell.remove(place, "forest/ash")
    assert moved.members.names == ["elm", "oak", None, "inner", "group"] and len(moved.members) == 5
    with pytest.raises(NotATreant, match="not at forest/ash"):
        moved.members[2]
    assert len(moved.members.bundle) == 4


def test_data_of_the_members(wood):
    elm, oak, ash = wood.members[:3]
    elm.data["x"], oak.data["x"], ash.data["y"] = pd.Series([1, 2]), pd.Series([3]), np.arange(3)
    data = wood.members.data
    assert data.keys() == ["x", "y"] and data.keys(mode="all") == []
    assert data.retrieve("x").index.get_level_values(0).tolist() == [elm.uuid, elm.uuid, oak.uuid]
    assert list(data.retrieve("y", by="name")) == ["ash"] and repr(data) == "<Data(['x', 'y'])>"
    assert data["y"][ash.uuid].tolist() == [0, 1, 2]


def test_members_that_are_repositories_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    group = Group("group", members=[Treant("sprout", tags="elm"), Treant("twig")])
    assert group.members.names == ["sprout", "twig"]
    places.let_go()
    shutil.move("sprout", "tree")
    group = Group("group")
    assert group.members.names == ["tree", "twig"] and list(group.members[0].tags) == ["elm"]
    assert group.state.members[0].path == str(tmp_path / "tree")
    places.let_go()
    shutil.rmtree("twig")
    assert Group("group").members.names == ["tree", None]
