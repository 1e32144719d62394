"""Trees and leaves: on a repository alone, in a mount, and in ordinary folders."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest

from storage.errors import NotEmpty, ReadOnly, Unsupported, WrongKind
from storage.places import place_of
from storage.treants.leaves import Leaf
from storage.treants.trees import Tree
from storage.treants.veg import Veg


def planted(place):
    """`wood/` with two directories, three files and hidden ones."""
    files = place_of(place.path).files
    paths = ["a/x.txt", "a/deep/y.txt", "b/z.dat", "one.txt", "two.txt", ".hidden", ".dir/inner"]
    files.write_many({f"wood/{path}": path.encode() for path in paths})
    return Tree(place / "wood")


def test_paths(place, monkeypatch):
    monkeypatch.chdir(place.repository.parent)
    for veg, slash in ((Tree(place / "d"), "/"), (Leaf(place / "d"), ""), (Veg(place / "d"), "")):
        assert not veg.exists
        assert veg.path == place / "d" and isinstance(veg.path, Path)
        assert veg.abspath == str(veg) == os.fspath(veg) == f"{place.path}/d{slash}"
        assert veg.relpath == os.path.relpath(place / "d") + slash
        assert veg.name == "d"
        assert type(veg.parent) is Tree and veg.parent.path == place.path
    assert repr(Tree("q/r")) == "<Tree: 'q/r/'>" and repr(Leaf("q/r")) == "<Leaf: 'q/r'>"
    assert Tree("~").path == Path.home()
    with pytest.raises(TypeError):
        Tree(5)
    with pytest.raises(TypeError):
        Leaf(b"x")


def test_equal_ordered_and_hashed_by_path(place):
    one, other = Tree(place / "d"), Tree(f"{place.path}/e/../d/")
    assert one == other and hash(one) == hash(other) and not one < other
    assert one < Tree(place / "e") and sorted([Tree(place / "z"), Leaf(place / "a")])[0].name == "a"
    assert one != str(one) and one != Leaf(place / "d")
    assert pickle.loads(pickle.dumps(one)) == one and type(pickle.loads(pickle.dumps(Leaf("x")))) is Leaf


def test_making(place):
    tree = Tree(place / "a" / "b")
    assert tree.make() is tree and tree.exists and tree.makedirs() is tree
    leaf = Leaf(place / "c" / "d" / "leaf")
    assert leaf.makedirs() is leaf and Tree(place / "c" / "d").exists and not leaf.exists
    assert leaf.touch() is leaf and leaf.exists and leaf.read() == "" and leaf.make().exists
    leaf.place.files.write(leaf.place.path, "grün\nblau".encode())
    assert leaf.touch().read() == "grün\nblau" and leaf.read(3) == "grü"
    if place.mounted:
        place.seen(lambda: (place / "c" / "d" / "leaf").exists())
        assert (place / "c" / "d" / "leaf").read_text() == "grün\nblau"
    with pytest.raises(ValueError, match="is a file"):
        Tree(place / "c" / "d" / "leaf")
    with pytest.raises(ValueError, match="is a directory"):
        Leaf(place / "c" / "d")
    with pytest.raises(NotADirectoryError):
        Tree(place / "c" / "d" / "leaf" / "below").make()
    with pytest.raises(KeyError):
        Leaf(place / "nothing").read()
    raced = Leaf(place / "later")
    Tree(place / "later").make()
    with pytest.raises(IsADirectoryError):
        raced.read()


def test_what_another_one_changes_is_seen_at_once(place):
    tree, leaf = Tree(place / "t"), Leaf(place / "t" / "x")
    assert not tree.exists
    place_of(place.path).files.write_many({"t/x": b"1"})
    assert tree.exists and leaf.exists and leaf.read() == "1"
    if place.mounted:
        place.seen(lambda: (place / "t" / "x").exists())
        subprocess.run(["mv", place / "t", place / "u"], check=True)
        assert not tree.exists and not leaf.exists and Tree(place / "u").leaves().names == ["x"]
        subprocess.run(["cp", "-r", place / "u", place / "t"], check=True)
        assert tree.exists and leaf.read() == "1"
        subprocess.run(["rm", "-r", place / "t"], check=True)
    else:
        place_of(place.path).files.remove("t")
    assert not tree.exists and not leaf.exists


def test_what_is_in_it(place):
    wood = planted(place)
    assert wood["a/x.txt"] == wood["a"]["x.txt"] == Leaf(place / "wood" / "a" / "x.txt")
    assert type(wood["a"]) is Tree and type(wood["new"]) is Leaf and type(wood["new/"]) is Tree
    assert wood["a/../b"] == Tree(place / "wood" / "b") and wood[".."] == Tree(place.path)
    assert wood[["a", "one.txt", "new"]].names == wood[("a", "one.txt", "new")].names == ["a", "one.txt", "new"]
    assert wood.loc["a"] == wood["a"] and wood.loc[["a"]].abspaths == [wood["a"].abspath]
    assert type(wood.treeloc["new"]) is Tree and type(wood.leafloc["new"]) is Leaf
    assert wood[Path("a")] == wood["a"]
    for wrong in ("a", "new/"):
        with pytest.raises(WrongKind):
            wood.leafloc[wrong]
    with pytest.raises(WrongKind):
        wood.treeloc["one.txt"]
    for wrong in (5, None, ["a", 5], {"a"}):
        with pytest.raises(ValueError, match="named by a path"):
            wood[wrong]


def test_containing(place):
    wood = Tree(place / "wood")
    assert place / "wood" / "a" in wood and str(place / "wood" / "not" / "there") in wood and wood in wood
    assert wood in Tree(place.path) and Leaf(place / "wood" / "x") in wood
    assert place / "woods" not in wood and place / "wood" / ".." not in wood
    with pytest.raises(TypeError):
        5 in wood  # noqa: B015


def test_listing(place):
    wood = planted(place)
    assert wood.leaves().names == ["one.txt", "two.txt"] and wood.trees().names == ["a", "b"]
    assert wood.children().names == ["a", "b", "one.txt", "two.txt"]
    assert wood.leaves(hidden=True).names == [".hidden", "one.txt", "two.txt"]
    assert wood.trees(hidden=True).names == [".dir", "a", "b"]
    assert [type(limb) for limb in wood.children()] == [Tree, Tree, Leaf, Leaf]
    assert wood.leaves()[0].read() == "one.txt"
    looks = [Tree.leaves, Tree.trees, Tree.children, Tree.draw]
    for look in [*looks, lambda tree: tree.glob("*"), lambda tree: next(tree.walk())]:
        with pytest.raises(OSError, match="Tree doesn't exist"):
            look(Tree(place / "nowhere"))


@pytest.mark.parametrize(
    "pattern, found",
    [
        ("*", ["a", "b", "one.txt", "two.txt"]),
        ("*/", ["a", "b"]),
        ("*.txt", ["one.txt", "two.txt"]),
        ("o?e.[st]xt", ["one.txt"]),
        ("*/*", ["a/deep", "a/x.txt", "b/z.dat"]),
        ("a/x.txt", ["a/x.txt"]),
        ("./a//*.txt", ["a/x.txt"]),
        ("**/*.txt", ["a/deep/y.txt", "a/x.txt", "one.txt", "two.txt"]),
        ("a/**", ["a", "a/deep", "a/deep/y.txt", "a/x.txt"]),
        ("**/", ["a", "a/deep", "b"]),
        (".*", [".dir", ".hidden"]),
        (".dir/*", [".dir/inner"]),
        ("one.txt/*", []),
        ("nothing/*", []),
    ],
)
def test_patterns(repository, pattern, found):
    place_of(repository).files.write_many(
        {
            f"wood/{p}": b""
            for p in ("a/x.txt", "a/deep/y.txt", "b/z.dat", "one.txt", "two.txt", ".hidden", ".dir/inner")
        }
    )
    wood = Tree(repository / "wood")
    assert sorted(path.removeprefix(wood.abspath).rstrip("/") for path in wood.glob(pattern).abspaths) == found


def test_patterns_stay_below_the_tree(place):
    wood = planted(place)
    assert wood.glob("a/*").names == ["deep", "x.txt"]
    for wrong in ("../*", "/etc/*"):
        with pytest.raises(ValueError, match="out of the tree"):
            wood.glob(wrong)


def test_walking(place):
    wood = planted(place)
    rows = [(tree.name, trees.names, leaves.names) for tree, trees, leaves in wood.walk()]
    assert rows == [
        ("wood", [".dir", "a", "b"], [".hidden", "one.txt", "two.txt"]),
        (".dir", [], ["inner"]),
        ("a", ["deep"], ["x.txt"]),
        ("deep", [], ["y.txt"]),
        ("b", [], ["z.dat"]),
    ]
    assert [tree.name for tree, *_ in wood.walk(topdown=False)] == [".dir", "deep", "a", "b", "wood"]


def test_walking_tells_what_goes_wrong_below(place):
    wood = planted(place)
    wrong: list[OSError] = []
    for tree, *_ in wood.walk(onerror=wrong.append):
        if tree == wood:
            wood.place.files.remove("wood/a")
    assert [str(error) for error in wrong] == [f"Tree doesn't exist: {wood.abspath}a/"]


def test_links_are_leaves_and_may_be_followed(repository, mounted):
    main = mounted(repository).main
    (main / "wood" / "a").mkdir(parents=True)
    (main / "else").mkdir()
    (main / "else" / "y").write_text("y")
    (main / "wood" / "a" / "back").symlink_to("..")
    (main / "wood" / "link").symlink_to("../else")
    for wood in (Tree(main / "wood"), Tree(repository / "wood")):
        assert wood.leaves().names == ["link"] and wood.trees().names == ["a"]
        assert [tree.name for tree, *_ in wood.walk()] == ["wood", "a"]
        assert [tree.name for tree, *_ in wood.walk(followlinks=True)] == ["wood", "a", "else"]
    commit = Tree(repository).commit("planted")
    frozen = Tree(main.parent.parent / "commits" / commit / "wood")
    assert [tree.name for tree, *_ in frozen.walk(followlinks=True)] == ["wood", "a", "else"]
    with pytest.raises(Unsupported, match="is no link"):
        frozen.place.files.target("wood")


def test_drawing(place, capsys):
    planted(place).draw()
    lines = ["wood/", "+-- a/", "|   +-- deep/", "|   |   +-- y.txt", "|   +-- x.txt", "+-- b/", "|   +-- z.dat"]
    assert capsys.readouterr().out.splitlines() == [*lines, "+-- one.txt", "+-- two.txt"]
    Tree(place / "wood").draw(depth=1, hidden=True)
    assert capsys.readouterr().out.splitlines() == [
        "wood/", "+-- .dir/", "+-- .hidden", "+-- a/", "+-- b/", "+-- one.txt", "+-- two.txt"
    ]  # fmt: skip
    Tree(place / "wood").draw(depth=0)
    assert capsys.readouterr().out == "wood/\n"


def test_a_commit_is_read_and_never_changed(repository, mounted):
    mount = mounted(repository)
    Leaf(mount.main / "wood" / "x").make()
    commit = Tree(mount.main).commit("planted")
    wood = Tree(mount.path / "commits" / commit / "wood")
    assert wood.exists and wood.leaves().names == ["x"] and wood.make() is wood and wood["x"].touch().exists
    for change in (wood["new"].touch, wood["new/"].make, lambda: wood.commit("again")):
        with pytest.raises(ReadOnly):
            change()


def test_ordinary_folders_are_shown_and_not_changed(tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "x").write_text("x")
    (tmp_path / "d" / "e" / "up").symlink_to("..")
    (tmp_path / "d" / "broken").symlink_to("nowhere")
    tree = Tree(tmp_path / "d")
    assert tree.exists and tree.trees().names == ["e"] and tree.leaves().names == ["broken", "x"]
    assert tree["x"].read() == "x" and type(tree["e"]) is Tree and tree["broken"].exists and not tree["x/y"].exists
    assert [found.name for found, *_ in tree.walk(followlinks=True)] == ["d", "e"]
    for change in (tree["new"].make, tree["new/"].make().parent.make, tree.make):
        with pytest.raises(NotEmpty, match="is no repository"):
            change()
    assert sorted(os.listdir(tmp_path / "d")) == ["broken", "e", "new", "x"]


def test_a_tree_alone_makes_no_repository_and_make_does(tmp_path):
    tree = Tree(tmp_path / "new")
    assert not tree.exists and not tree["x"].exists
    assert not (tmp_path / "new").exists()
    tree.make()
    assert tree.exists and os.listdir(tmp_path / "new") == [".arborfs"]
    assert tree["a/x"].touch().exists and tree["a"].leaves().names == ["x"] and tree["a"].parent == tree
    assert Tree(tmp_path).trees().names == ["new"] and Tree(tmp_path)["new/a/x"].exists
    assert Leaf(tmp_path / "other" / "x").make().exists and os.listdir(tmp_path / "other") == [".arborfs"]
    assert len(tree.commit("first")) == 64
