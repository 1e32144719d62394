"""How Treants and bundles look in a notebook."""

from __future__ import annotations

import numpy as np

from storage.places import place_of
from storage.treants import Bundle, Group, Treant, discover


def test_a_treant(repository):
    treant = Treant(repository / "el<m>", tags=["old", "<b>"], categories={"home": "a & b"})
    treant.data.add("deep/numbers", np.arange(3))
    shown = treant._repr_html_()
    for text in ("el&lt;m&gt;", "&lt;b&gt;, old", "a &amp; b", "deep/numbers", treant.uuid, "Arborfs Treant"):
        assert text in shown
    assert "<b>," not in shown and "el<m>" not in shown
    group = Group(repository / "wood", members=[treant])
    assert "Arborfs Group" in group._repr_html_() and "Members" in group._repr_html_()
    place_of(repository).files.remove("wood")
    assert "Unreadable" in group._repr_html_() and "no Treant any more" in group._repr_html_()


def test_a_bundle(repository):
    assert "no members" in Bundle()._repr_html_()
    for number in range(23):
        Treant(repository / f"t{number:02}", tags=[f"tag{number}"], categories={"number": number})
    bundle = discover(repository)
    shown = bundle._repr_html_()
    assert "23 Treants" in shown and "tag19" in shown and "number: 19" in shown and "tag20" not in shown
    assert "… and 3 more" in shown
    place_of(repository).files.remove("t00")
    assert "t00 is no Treant" in bundle._repr_html_() and "tag1" in bundle._repr_html_()


def test_groups_are_found_as_groups(repository):
    Group(repository / "wood", members=[Treant(repository / "elm")])
    assert [type(member) for member in discover(repository)] == [Treant, Group]
    assert repr(discover(repository)) == "<Bundle([<Treant: 'elm'>, <Group: 'wood' | 1 Members: 1 Treant>])>"
