"""What is imported while a branch is mounted shows there at once."""

import os

import numpy as np

from tests.conftest import arborfs


def test_an_import_shows_in_a_mount(repository, mounted, tmp_path):
    mount = mounted(repository)
    np.save(tmp_path / "rows.npy", np.arange(6.0).reshape(2, 3))
    assert not (mount.main / "x").exists()
    arborfs("-C", repository, "import", tmp_path / "rows.npy", "x", "--by", "row")
    assert sorted(path.name for path in (mount.main / "x").iterdir()) == ["0.npy", "1.npy"]
    np.save(mount.main / "x" / "mine.npy", np.ones(3))
    arborfs("-C", repository, "import", tmp_path / "rows.npy", "x", "--by", "row")
    names = ["0.npy", "1.npy", "3.npy", "4.npy", "mine.npy"]
    assert sorted(path.name for path in (mount.main / "x").iterdir()) == names
    assert np.array_equal(np.load(mount.main / "x" / "4.npy"), [3, 4, 5])
    (mount.main / "x" / "mine.npy").unlink()
    arborfs("-C", repository, "export", "--staged", ":x", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names[:-1]


def test_a_file_that_is_open_in_the_mount_outlives_an_import(repository, mounted, tmp_path):
    mount = mounted(repository)
    np.save(tmp_path / "a.npy", np.zeros(3))
    arborfs("-C", repository, "import", tmp_path / "a.npy", "x")
    np.save(tmp_path / "b.npy", np.ones(3))
    with open(mount.main / "x" / "note", "w") as file:
        file.write("begun before, ")
        file.flush()
        arborfs("-C", repository, "import", tmp_path / "b.npy", "x")
        file.write("ended after")
    assert (mount.main / "x" / "note").read_text() == "begun before, ended after"
    assert {path.name for path in (mount.main / "x").iterdir()} == {"a.npy", "b.npy", "note"}


def test_who_stands_in_a_directory_sees_what_is_imported_into_it(repository, mounted, tmp_path):
    mount = mounted(repository)
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.save(tmp_path / "b.npy", np.ones(3))
    arborfs("-C", repository, "import", tmp_path / "a.npy", "x")
    place = os.open(mount.main / "x", os.O_RDONLY)
    try:
        assert os.listdir(place) == ["a.npy"]
        arborfs("-C", repository, "import", tmp_path / "b.npy", "x")
        assert sorted(os.listdir(mount.main / "x")) == ["a.npy", "b.npy"]
        assert sorted(os.listdir(f"/proc/self/fd/{place}")) == ["a.npy", "b.npy"]
    finally:
        os.close(place)
