"""What the command line does to datasets and branches shows in a mount at once, and works in one."""

import os

import numpy as np

from tests.conftest import arborfs, wait_until


def test_datasets_made_renamed_and_removed_show_in_a_mount(repository, mounted):
    mount = mounted(repository)
    arborfs("-C", repository, "dataset", "create", "images", "uint8", "2", "3")
    np.save(mount.main / "images" / "0.npy", np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert "[3 4 5]" in arborfs("-C", repository, "view", "images", "0").stdout
    arborfs("-C", repository, "dataset", "rename", "images", "camera/left")
    assert os.listdir(mount.main / "camera" / "left") == ["0.npy"]
    assert not (mount.main / "images").exists()
    arborfs("-C", repository, "dataset", "remove", "camera/left")
    assert os.listdir(mount.main / "camera") == []


def test_in_a_mount_a_command_is_about_the_branch_that_one_stands_in(repository, mounted):
    mount = mounted(repository)
    (mount.path / "branches" / "side").mkdir()
    place = mount.path / "branches" / "side"
    arborfs("dataset", "create", "images", "uint8", "2", cwd=place)
    assert os.listdir(place) == ["images"] and os.listdir(mount.main) == []
    assert "images" in arborfs("dataset", cwd=place).stdout
    assert arborfs("dataset", cwd=mount.main).stdout == ""


def test_checking_out_a_branch_turns_head(repository, mounted):
    mount = mounted(repository)
    (mount.path / "branches" / "side").mkdir()
    arborfs("-C", repository, "checkout", "side")
    wait_until(lambda: os.readlink(mount.path / "HEAD") == "branches/side")
    assert "On branch main" in arborfs("status", cwd=mount.main).stdout
    assert "On branch side" in arborfs("status", cwd=mount.path).stdout
