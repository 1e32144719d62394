"""Datasets through the mount: samples as .npy files, checked when they are closed or moved."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from storage.engine import Engine
from storage.model.records import Attributes
from storage.model.samples import make_schema
from tests.conftest import wait_until


@pytest.fixture
def images(mounted, repository):
    """A mounted dataset of 8x8 floats, and its mount."""
    with Engine.open(repository) as engine:
        schema = make_schema(np.dtype("<f8"), (8, 8), uuid="u")
        tree = engine.working_tree("main")
        tree.make_directory((b"images",), attributes=Attributes(schema=schema))
        variable = make_schema(np.dtype("<i4"), (100, 100), variable=True, uuid="v")
        tree.make_directory((b"ragged",), attributes=Attributes(schema=variable))
        tree.commit("datasets")
    return mounted(repository).main / "images"


def refused(act) -> None:
    with pytest.raises(OSError, match=f"Errno {errno.EINVAL}]"):
        act()


def array(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(8, 8))


def control(images):
    return images.parent / ".arborfs"


def rejected(images) -> list[str]:
    return os.listdir(control(images) / "rejected")


class TestWhatFits:
    def test_saving_and_loading(self, images):
        np.save(images / "a.npy", array())
        assert (np.load(images / "a.npy") == array()).all()
        assert (np.load(images / "a.npy", mmap_mode="r") == array()).all()

    def test_copies_are_byte_identical(self, images, tmp_path):
        np.save(tmp_path / "plain.npy", array())
        with open(tmp_path / "fortran.npy", "wb") as file:
            np.lib.format.write_array(file, np.asfortranarray(array()))
        with open(tmp_path / "version2.npy", "wb") as file:
            np.lib.format.write_array(file, array(), version=(2, 0))
        for name in ("plain.npy", "fortran.npy", "version2.npy"):
            shutil.copy(tmp_path / name, images / name)
            subprocess.run(["cmp", tmp_path / name, images / name], check=True)
        assert len(np.load(images / "fortran.npy")) == 8

    def test_the_api_sees_the_sample(self, images, repository):
        np.save(images / "a.npy", array())
        with Engine.open(repository) as engine:
            tree = engine.working_tree("main")
            assert tree.count_samples((b"images",)) == 1
            assert bytes(tree.open((b"images", b"a.npy"))[1].payload()) == array().tobytes()

    def test_side_files_are_anything(self, images):
        (images / "README").write_text("about these")
        (images / "picture.png").write_bytes(b"\x89PNG")
        assert sorted(os.listdir(images)) == ["README", "picture.png"]

    def test_saving_beside_and_renaming(self, images):
        np.save(images / "a.npy", array(1))
        with open(images / ".a.npy.tmp", "wb") as file:
            np.save(file, array(2))
        os.replace(images / ".a.npy.tmp", images / "a.npy")
        assert (np.load(images / "a.npy") == array(2)).all()
        os.rename(images / "a.npy", images.parent / "out.npy")
        assert (np.load(images.parent / "out.npy") == array(2)).all()

    def test_an_empty_file_is_not_an_error_yet(self, images):
        (images / "a.npy").touch()
        assert (images / "a.npy").stat().st_size == 0
        np.save(images / "a.npy", array())
        assert (np.load(images / "a.npy") == array()).all()

    def test_variable_shapes(self, images):
        ragged = images.parent / "ragged"
        np.save(ragged / "a.npy", np.ones((3, 100), "<i4"))
        assert np.load(ragged / "a.npy").shape == (3, 100)
        refused(lambda: np.save(ragged / "b.npy", np.ones((3, 101), "<i4")))

    def test_a_commit_and_the_snapshot(self, images):
        np.save(images / "a.npy", array())
        (control(images) / "commit").write_text("sample")
        frozen = images.parent.parent.parent / "commits" / "main" / "images"
        assert (np.load(frozen / "a.npy") == array()).all()


BAD = {
    "dtype": array().astype("<f4"),
    "shape": np.zeros((8, 9)),
    "objects": np.array([[{}] * 8] * 8, dtype=object),
}


class TestWhatDoesNotFit:
    @pytest.mark.parametrize("what", BAD)
    def test_close_fails_and_says_why(self, images, what, tmp_path):
        np.save(tmp_path / "bad.npy", BAD[what], allow_pickle=True)
        refused(lambda: shutil.copyfile(tmp_path / "bad.npy", images / "bad.npy"))
        wait_until(lambda: rejected(images) == ["1-bad.npy"])
        assert (control(images) / "rejected" / "1-bad.npy").read_bytes() == (tmp_path / "bad.npy").read_bytes()
        assert not (images / "bad.npy").exists()
        text = (control(images) / "errors").read_text()
        assert "images/bad.npy" in text and "rejected/1-bad.npy" in text
        row = json.loads((control(images) / "errors.json").read_text())[0]
        assert row["path"] == "images/bad.npy"
        (control(images) / "rejected" / "1-bad.npy").unlink()
        assert rejected(images) == []
        (control(images) / "errors").write_text("")
        assert (control(images) / "errors").read_text() == ""

    def test_expected_and_found_are_named(self, images):
        refused(lambda: np.save(images / "bad.npy", BAD["shape"]))
        wait_until(lambda: rejected(images))
        text = (control(images) / "errors").read_text()
        assert "(8, 8)" in text and "(8, 9)" in text

    def test_the_version_before_stays(self, images):
        np.save(images / "a.npy", array(1))
        before = (images / "a.npy").read_bytes()
        refused(lambda: np.save(images / "a.npy", BAD["shape"]))
        wait_until(lambda: rejected(images))
        wait_until(lambda: (images / "a.npy").read_bytes() == before)
        assert (np.load(images / "a.npy") == array(1)).all()
        assert (images / "a.npy").stat().st_size == len(before)

    def test_the_version_before_survives_a_shells_redirection(self, images, tmp_path):
        np.save(images / "a.npy", array(1))
        np.save(tmp_path / "bad.npy", BAD["dtype"])
        subprocess.run(["sh", "-c", f"cat {tmp_path}/bad.npy > {images}/a.npy"], check=False, capture_output=True)
        wait_until(lambda: rejected(images))
        wait_until(lambda: (images / "a.npy").stat().st_size == 640)
        assert (np.load(images / "a.npy") == array(1)).all()

    @pytest.mark.parametrize("cut", [5, 100, 200, -1])
    def test_truncated(self, images, tmp_path, cut):
        np.save(tmp_path / "whole.npy", array())
        data = (tmp_path / "whole.npy").read_bytes()[:cut]
        refused(lambda: (images / "bad.npy").write_bytes(data))
        wait_until(lambda: rejected(images))

    def test_truncating_a_sample_is_refused_and_changes_nothing(self, images):
        np.save(images / "a.npy", array(1))
        refused(lambda: os.truncate(images / "a.npy", 100))
        wait_until(lambda: (images / "a.npy").stat().st_size == 640)
        assert (np.load(images / "a.npy") == array(1)).all()

    def test_renaming_into_the_dataset(self, images):
        np.save(images.parent / "bad.npy", BAD["shape"])
        refused(lambda: os.rename(images.parent / "bad.npy", images / "bad.npy"))
        assert (images.parent / "bad.npy").exists()
        assert "images/bad.npy" in (control(images) / "errors").read_text()

    def test_a_descriptor_closed_half_way_does_no_harm(self, images, tmp_path):
        """A child process inherits the file and ends: that closes it, with half a sample in it."""
        np.save(tmp_path / "good.npy", array())
        data = (tmp_path / "good.npy").read_bytes()
        with open(images / "a.npy", "wb", buffering=0) as file:
            file.write(data[:300])
            with pytest.raises(OSError, match="Errno 22"):
                os.close(os.dup(file.fileno()))
            file.write(data[300:])
        assert (np.load(images / "a.npy") == array()).all()
        assert rejected(images) == []

    def test_fsync_tells_too(self, images):
        file = open(images / "a.npy", "wb", buffering=0)
        file.write(b"not an array")
        refused(lambda: os.fsync(file.fileno()))
        refused(file.close)

    def test_kept_bytes_survive_the_daemon(self, images, mounted, repository):
        refused(lambda: (images / "bad.npy").write_bytes(b"junk"))
        wait_until(lambda: rejected(images))
        again = mounted(repository).main / ".arborfs"
        assert (again / "rejected" / "1-bad.npy").read_bytes() == b"junk"
        assert "bad.npy" in (again / "errors").read_text()
