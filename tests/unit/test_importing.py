"""An import is one change: what it lays over what is there, and what it leaves when it fails."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from storage import Repository
from storage.engine import Engine
from storage.errors import (
    Conflict,
    Exists,
    InvalidName,
    IsADirectory,
    NotADirectory,
    NotFound,
    SchemaMismatch,
    Unsupported,
)
from storage.maintenance.verify import verify
from storage.model.samples import BytesSource
from storage.worktree import WorkingTree
from tests.conftest import arborfs


@pytest.fixture
def rows(tmp_path):
    """A function that writes an array to a file and gives the file."""

    def write(array, name="x"):
        np.save(tmp_path / f"{name}.npy", array)
        return tmp_path / f"{name}.npy"

    return write


def clean(co):
    """Whether nothing is staged."""
    return not co._session.working_tree.is_dirty()


def test_an_import_is_one_row_of_the_status(co, rows):
    co.import_files(rows(np.zeros((1000, 3))), dataset="a/b/c", by="row")
    assert [(row.path, row.change) for row in co._session.working_tree.status()] == [((b"a",), "added")]
    assert len(co.datasets["a/b/c"]) == 1000
    assert co.commit("a thousand") and clean(co)
    assert len(co.datasets["a/b/c"]) == 1000


def test_what_is_staged_is_added_to_and_stays_staged(co, rows):
    data = co.datasets.init_dataset("x", shape=(3,), dtype=np.float64)
    with data:
        data["kept"] = np.ones(3)  # in a batch that is still open
        co.import_files(rows(np.zeros(3), "new"), dataset="x")
        data["later"] = np.ones(3)
    assert set(data) == {"kept", "new", "later"}
    co.commit("three")
    assert set(co.datasets["x"]) == {"kept", "new", "later"}


def test_the_same_again_changes_nothing(co, rows):
    co.import_files(rows(np.arange(3.0)), dataset="x")
    co.commit("one")
    co.import_files(rows(np.arange(3.0)), dataset="x")
    assert clean(co)


def test_a_name_that_is_taken_is_kept_unless_it_may_be_overwritten(co, rows):
    co.import_files(rows(np.zeros(3)), dataset="x")
    co.commit("one")
    with pytest.raises(Exists, match=r"x/x\.npy is there already"):
        co.import_files(rows(np.ones(3)), dataset="x")
    assert clean(co)
    co.import_files(rows(np.ones(3)), dataset="x", overwrite=True)
    assert np.array_equal(co.datasets["x"]["x"], np.ones(3))


def test_numbered_rows_overwrite_from_the_first_on(co, rows):
    co.import_files(rows(np.zeros((5, 2))), dataset="x", by="row")
    co.import_files(rows(np.ones((3, 2))), dataset="x", by="row", overwrite=True)
    assert [array.sum() for array in co.datasets["x"].values()] == [2, 2, 2, 0, 0]


def test_directories_become_one_and_files_stay_files(co, tmp_path):
    for place in ("one/sub/a", "one/top", "two/sub/b", "two/top2"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    co.import_files(tmp_path / "one", dataset="x")
    co.commit("one")
    co.import_files(tmp_path / "two", dataset="x")
    co.export("x", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["sub", "top", "top2"]
    assert sorted(os.listdir(tmp_path / "out" / "sub")) == ["a", "b"]
    co.commit("two")
    for clash, error in (("sub", IsADirectory), ("top/x", NotADirectory)):
        shutil.rmtree(tmp_path / "two")
        (tmp_path / "two" / clash).parent.mkdir(parents=True)
        (tmp_path / "two" / clash).write_text("in the way")
        with pytest.raises(error, match=f"x/{clash[:3]}"):
            co.import_files(tmp_path / "two", dataset="x", overwrite=True)
        assert clean(co)


def test_what_cannot_be_laid_over_what_is_there(co, rows, tmp_path):
    tree = co._session.working_tree
    tree.put_file((b"file",), BytesSource(b"x"))
    tree.make_directory((b"folder",))
    tree.put_file((b"folder", b"a.npy"), BytesSource(b"no sample"))
    co.datasets.init_dataset("other", shape=(4,), dtype=np.int8)
    before = tree.status()
    array = rows(np.zeros(3))
    with pytest.raises(NotADirectory):
        co.import_files(array, dataset="file")
    with pytest.raises(NotADirectory):
        co.import_files(array, dataset="file/below")
    with pytest.raises(Exists, match=r"folder/a\.npy"):
        co.import_files(array, dataset="folder")
    with pytest.raises(SchemaMismatch, match=r"x\.npy"):
        co.import_files(array, dataset="other")
    for name in ("", "..", "a//b", "a/../b", ".arborfs"):
        with pytest.raises(InvalidName):
            co.import_files(array, dataset=name)
    with pytest.raises(Unsupported, match="by column"):
        co.import_files(array, dataset="x", by="column")
    assert tree.status() == before


def test_a_change_of_the_dataset_meanwhile_is_not_lost(co, rows, monkeypatch):
    co.import_files(rows(np.zeros(3), "a"), dataset="x")
    co.commit("one")
    graft = WorkingTree.graft
    meanwhile = [lambda: co._session.working_tree.remove((b"x", b"a.npy")), lambda: co.commit("gone")]

    def slow(tree, *arguments):
        if meanwhile:
            meanwhile.pop(0)()
        graft(tree, *arguments)

    monkeypatch.setattr(WorkingTree, "graft", slow)
    co.import_files(rows(np.zeros(3), "b"), dataset="x")
    assert set(co.datasets["x"]) == {"b"}
    co.commit("both")
    assert set(co.datasets["x"]) == {"b"}


def test_a_change_elsewhere_does_not_hold_it_up(co, rows, monkeypatch):
    co.import_files(rows(np.zeros(3), "a"), dataset="x/y")
    graft, tries = WorkingTree.graft, []

    def slow(tree, *arguments):
        co._session.working_tree.put_file((b"other",), BytesSource(bytes(len(tries))))
        tries.append(arguments)
        graft(tree, *arguments)

    monkeypatch.setattr(WorkingTree, "graft", slow)
    co.import_files(rows(np.zeros(3), "b"), dataset="x/y")
    assert len(tries) == 1 and set(co.datasets["x/y"]) == {"a", "b"}


def test_a_dataset_that_never_stands_still_is_a_conflict(co, rows, monkeypatch):
    co.import_files(rows(np.zeros(3), "a"), dataset="x")
    graft = WorkingTree.graft

    def busy(tree, *arguments):
        co._session.working_tree.put_file((b"x", b"note"), BytesSource(os.urandom(8)))
        graft(tree, *arguments)

    monkeypatch.setattr(WorkingTree, "graft", busy)
    with pytest.raises(Conflict):
        co.import_files(rows(np.zeros(3), "b"), dataset="x")
    assert set(co.datasets["x"]) == {"a"}


def test_a_commit_in_the_middle_and_a_rebuild_keep_everything(repository, rows):
    class Commits:
        """Commits other work whenever the import reads on."""

        def start(self, total):
            self.number = 0

        def advance(self, nbytes):
            tree.put_file((b"note",), BytesSource(str(self.number).encode()))
            tree.commit(f"note {self.number}")
            self.number += 1

    with Repository(repository) as repo, repo.checkout(write=True) as co:
        tree = co._session.working_tree
        big = rows(np.arange(3_000_000.0).reshape(-1, 3))
        co.import_files(big, dataset="x", by="row", meter=Commits())
        assert len(co.datasets["x"]) == 1_000_000 and len(list(co._engine.log(tree.tip()))) > 3
    shutil.rmtree(repository / ".arborfs" / "index")
    with Repository(repository) as repo, repo.checkout(write=True) as co:
        assert np.array_equal(co.datasets["x"][999_999], [2999997, 2999998, 2999999])
        co.commit("all")
        assert np.array_equal(co.datasets["x"][500_000], np.arange(1_500_000.0, 1_500_003))
    engine = Engine.open(repository)
    assert not verify(engine)
    engine.close()


def test_an_error_of_the_meter_ends_it_with_nothing_staged(co, rows):
    class Full:
        def start(self, total):
            assert total > 0

        def advance(self, nbytes):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        co.import_files(rows(np.zeros((100_000, 9))), dataset="x", by="row", meter=Full())
    assert clean(co) and "x" not in co.datasets
    co.import_files(rows(np.zeros(3)), dataset="x")


# --- export ---------------------------------------------------------------------------------------------------


def test_an_export_never_overwrites_unless_told_to(co, rows, tmp_path):
    co.import_files(rows(np.zeros(3)), dataset="x")
    target = tmp_path / "out.npy"
    target.write_text("mine")
    with pytest.raises(Exists, match=r"out\.npy"):
        co.export("x", target)
    assert target.read_text() == "mine"
    co.export("x", target, force=True)
    assert np.array_equal(np.load(target), np.zeros((1, 3)))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(Exists):
        co.export("x", folder)
    co.export("x", folder, force=True)
    assert os.listdir(folder) == ["x.npy"]
    co.export("x", target, format="tree", force=True)
    assert os.listdir(target) == ["x.npy"]
    co.export("x/x.npy", target, force=True)
    assert target.is_file()
    (tmp_path / "dangling.npy").symlink_to("nowhere")
    with pytest.raises(Exists):
        co.export("x", tmp_path / "dangling.npy")
    co.export("x", tmp_path / "dangling.npy", force=True)
    assert not (tmp_path / "dangling.npy").is_symlink() and not (tmp_path / "nowhere").exists()


def test_an_export_that_fails_leaves_what_was_there(co, rows, tmp_path):
    co.import_files(rows(np.zeros((2, 1))), dataset="x", variable_shape=True)
    (tmp_path / "out.npy").write_text("mine")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(Unsupported, match="vary in shape"):
        co.export("x", tmp_path / "out.npy", force=True)
    with pytest.raises(NotFound):
        co.export("missing", tmp_path / "out")
    with pytest.raises(Unsupported, match=r"\.what"):
        co.export("x", tmp_path / "out.what")

    class Full:
        def start(self, total):
            pass

        def advance(self, nbytes):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        co.export("x", tmp_path / "folder", meter=Full())
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "out.npy").read_text() == "mine"


def test_an_export_sees_what_its_checkout_sees(repository, rows, tmp_path):
    with Repository(repository) as repo:
        with repo.checkout(write=True) as co:
            co.import_files(rows(np.zeros(3)), dataset="x")
            commit = co.commit("zeros")
            with co.datasets["x"] as data:
                data["x"] = np.ones(3)
                co.export("x", tmp_path / "staged.npy")
        with repo.checkout(commit=commit) as reader:
            reader.export("x", tmp_path / "committed.npy")
            reader.export("", tmp_path / "everything")
    assert np.load(tmp_path / "staged.npy").sum() == 3 and np.load(tmp_path / "committed.npy").sum() == 0
    assert os.listdir(tmp_path / "everything") == ["x"]


# --- command line ---------------------------------------------------------------------------------------------


def test_the_commands(repository, rows, tmp_path):
    done = arborfs("-C", repository, "import", rows(np.arange(6.0).reshape(2, 3)), "x", "--by", "row")
    assert done.stdout == "Staged 2 samples in x on branch main.\n"
    assert done.stderr == ""  # no bar without a terminal
    assert arborfs("-C", repository, "import", "-q", rows(np.zeros(3), "more"), "x").stdout == ""
    arborfs("-C", repository, "export", "--staged", "main:x", tmp_path / "staged.npz")
    arborfs("-C", repository, "commit", "-m", "three")
    arborfs("-C", repository, "export", ":x", tmp_path / "out.npz")
    assert set(np.load(tmp_path / "out.npz")) == {"0", "1", "more"} == set(np.load(tmp_path / "staged.npz"))
    again = arborfs("-C", repository, "export", ":x", tmp_path / "out.npz", check=False)
    assert again.returncode == 4 and "there already" in again.stderr
    (tmp_path / "bad.csv").write_text("a,b\n1\n")
    bad = arborfs("-C", repository, "import", tmp_path / "bad.csv", "y", check=False)
    assert bad.returncode == 2 and "bad.csv, line 2" in bad.stderr
    raw = arborfs("-C", repository, "import", "--raw", tmp_path / "bad.csv", "y", "--json")
    assert '"files": 1' in raw.stdout
    assert arborfs("-C", repository, "export", "nothing", tmp_path / "z", check=False).returncode == 2
    assert (
        arborfs(
            "-C", repository, "import", "--raw", "--format", "csv", tmp_path / "bad.csv", "y", check=False
        ).returncode
        == 2
    )


def test_no_command_waits_for_libraries_that_it_does_not_need():
    script = "import sys, storage, fusefs.cli; print({'PIL', 'tqdm', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
