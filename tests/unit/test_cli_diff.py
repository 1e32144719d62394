"""`arborfs diff` on real repositories: what it compares, what it tells, and its exit code."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

from fusefs.cli.commands import main
from storage import Repository
from storage.engine import Engine
from storage.model.samples import BytesSource


@pytest.fixture
def cli(repository):
    """Runs `arborfs diff` on the repository of the test; the output."""

    def run(*words, code=0, color=False):
        result = CliRunner().invoke(main, ["-C", str(repository), "diff", *words], catch_exceptions=False, color=color)
        assert result.exit_code == code, f"{words} ended with {result.exit_code}: {result.output}"
        return result.output

    return run


@pytest.fixture
def put(repository):
    """Puts files on a branch: names to text, bytes, arrays, or None to remove."""

    def stage(branch="main", **files):
        with Engine.open(repository) as engine:
            tree = engine.working_tree(branch)
            for name, value in files.items():
                path = tuple(part.encode() for part in name.replace("__", ".").split("/"))
                if value is None:
                    tree.remove(path)
                    continue
                data = value
                if isinstance(value, np.ndarray):
                    out = io.BytesIO()
                    np.save(out, value)
                    data = out.getvalue()
                tree.put_file(path, BytesSource(data.encode() if isinstance(data, str) else data), mtime=7)

    return stage


@pytest.fixture
def commit(repository):
    """Commits what is staged on main."""

    def make():
        with Engine.open(repository) as engine:
            engine.working_tree("main").commit("a commit")

    return make


def test_staged_work_is_the_default(cli, put, commit):
    put(a="one\n", b="two\n", c="three\n")
    assert cli("--names") == "added    a\nadded    b\nadded    c\n"
    commit()
    assert cli() == ""
    put(a=None, b="two\nand more\n", d="x")
    assert cli("--names") == "removed  a\nchanged  b\nadded    d\n"
    assert cli("main", "--names") == cli("main", "+", "--names") == cli("main", "main+", "--names") == cli("--names")
    assert cli("main+", "main", "--names") == "added    a\nchanged  b\nremoved  d\n"
    assert cli("main", "main") == ""


def test_texts_are_shown_by_line(cli, put, commit):
    put(notes="first\nsecond\nthird")
    commit()
    put(notes="first\nsecond thoughts\nthird\n")
    assert cli() == (
        "changed  notes: 18 B -> 28 B\n"
        "--- main:notes\n+++ main+:notes\n@@ -1,3 +1,3 @@\n first\n"
        "-second\n-third\n\\ No newline at end of file\n+second thoughts\n+third\n"
    )


def test_long_and_binary_files_are_told_by_size(cli, put, commit):
    put(binary=b"\0\1", latin="ä".encode("latin-1"), long="x\n" * 100_000)
    commit()
    put(binary=b"\0\1\2", latin="ö".encode("latin-1"), long="y\n" * 200_000)
    assert cli() == "changed  binary: 2 B -> 3 B\nchanged  latin: 1 B\nchanged  long: 200 kB -> 400 kB\n"


def test_text_cannot_move_the_cursor(cli, put, commit):
    put(evil="a\n")
    commit()
    put(evil="a\x1b[2J\tb\n")
    assert "+a\\x1b[2J\tb\n" in cli()


def test_arrays_are_summed_up(cli, put, commit):
    old = np.arange(1000, dtype=np.float32)
    put(x__npy=old, grown__npy=np.zeros((2, 3), np.int32))
    commit()
    new = old.copy()
    new[::10] += 0.5
    put(x__npy=new, grown__npy=np.zeros((4, 3), np.int64))
    assert cli() == (
        "changed  grown.npy: shape 2x3 -> 4x3, dtype int32 -> int64\n"
        "changed  x.npy: 100 of 1,000 elements differ, at most by 0.5\n"
    )
    rows = json.loads(cli("--json"))["changes"]
    assert [row["path"] for row in rows] == ["grown.npy", "x.npy"]
    assert rows[1]["array"] == {
        "old": {"dtype": "float32", "shape": [1000]},
        "new": {"dtype": "float32", "shape": [1000]},
        "elements": 1000,
        "differing": 100,
        "largest": 0.5,
    }


def test_samples_and_schemas(cli, repository):
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        numbers = co.datasets.init_dataset("numbers", shape=(2,), dtype=np.int64)
        numbers["1"], numbers["2"] = np.array([1, 1]), np.array([2, 2])
        co.commit("two")
        numbers["1"] = np.array([-(2**63), 1])
        assert cli().startswith("changed  numbers/1.npy: 1 of 2 elements differ, at most by 9,223,372,036,854,775,809")
        co.datasets.remove_dset("numbers")
        co.datasets.init_dataset("numbers", shape=(3,), dtype=np.float32)
    found = cli("--names").splitlines()
    assert found == ["changed  numbers/", "removed  numbers/1.npy", "removed  numbers/2.npy"]
    assert cli().splitlines()[0] == "changed  numbers/: <i8 2 -> <f4 3"


def test_renames_types_links_and_attributes(cli, repository, put, commit):
    put(old="the very same\n", kept="k", turned="t")
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.make_symlink((b"link",), b"kept")
        tree.make_directory((b"folder",))
        tree.put_file((b"folder", b"in"), BytesSource(b"inside"))
    commit()
    with Engine.open(repository) as engine:
        tree = engine.working_tree("main")
        tree.rename((b"old",), (b"new",))
        tree.rename((b"folder",), (b"directory",))
        tree.set_attributes((b"kept",), mode=0o600, mtime=9, xattrs={b"user.a": b"b"})
        tree.remove((b"turned",))
        tree.make_directory((b"turned",))
        tree.remove((b"link",))
        tree.make_symlink((b"link",), b"new", mtime=tree.entry((b"new",)).mtime)
        tree.make_symlink((b"longer",), b"x" * 500)
    assert [line.removesuffix(", mtime") for line in cli().splitlines()] == [
        "renamed  folder/ -> directory/",
        "changed  kept: mode 0644 -> 0600, mtime, xattrs",
        "changed  link: kept -> new",
        f"added    longer: {'x' * 500}",
        "renamed  old -> new",
        "changed  turned/: file -> directory",
    ]
    rows = {row["path"]: row for row in json.loads(cli("--json"))["changes"]}
    assert rows["kept"]["only_attributes"] and rows["kept"]["aspects"] == ["mode", "mtime", "xattrs"]
    assert rows["new"]["source"] == "old" and rows["new"]["kind"] == "file"
    assert rows["turned"]["aspects"] == ["type"]


def test_counts_by_directory(cli, put, commit, repository):
    with Engine.open(repository) as engine:
        engine.working_tree("main").make_directory((b"deep",))
    put(**{"a": "a", "b": "b", "deep/c": "c"})
    commit()
    put(**{"a": None, "b": "bb", "deep/d": "d", "deep/e": "e"})
    with Engine.open(repository) as engine:
        engine.working_tree("main").set_attributes((b"deep", b"c"), mode=0o600)
    assert cli("--stat").splitlines() == [
        "./     1 removed, 1 changed",
        "deep/  2 added, 1 attributes only",
        "5 changes: 2 added, 1 removed, 1 changed, 1 attributes only",
    ]
    assert cli("main", "main", "--stat") == "0 changes\n"


def test_one_path_only(cli, put, commit, repository):
    with Engine.open(repository) as engine:
        engine.working_tree("main").make_directory((b"deep",))
    put(**{"deep/c": "c", "other": "o"})
    assert cli("main", "+", "deep", code=3).startswith("Error: branch 'main' has no commit yet")
    commit()
    put(**{"deep/c": "d", "other": "p"})
    assert cli("main", "+", "deep", "--names") == cli("main", "+", "/deep/c", "--names") == "changed  deep/c\n"
    assert "there is no nowhere on either side" in cli("main", "+", "nowhere", code=3)


def test_the_exit_code_tells_only_when_asked(cli, put):
    put(a="a")
    cli(code=0)
    cli("--exit-code", "--names", code=1)
    cli("+", "+", "--exit-code", code=0)


@pytest.mark.parametrize("words, code", [(("nowhere",), 3), (("--stat", "--names"), 2), (("--json", "--stat"), 2)])
def test_wrong_calls(cli, words, code):
    cli(*words, code=code)


def test_colour_only_where_wanted(cli, put):
    put(a="a")
    assert "\x1b[" not in cli("--names")
    assert "\x1b[32madded" in cli("--names", color=True)
