"""Extended attributes: kept ones, derived ones, and those of other namespaces."""

from __future__ import annotations

import errno
import os
import subprocess

import numpy as np
import pytest

from storage.engine import Engine
from storage.model.digest import blake
from storage.model.records import Attributes
from storage.model.samples import make_schema


@pytest.fixture
def mount(mounted, repository):
    """A mounted repository with a dataset."""
    with Engine.open(repository) as engine:
        schema = make_schema(np.dtype("<f8"), (8, 8), uuid="u")
        engine.working_tree("main").make_directory((b"images",), attributes=Attributes(schema=schema))
    return mounted(repository)


def test_setting_listing_and_removing(mount):
    path = mount.main / "file"
    path.write_bytes(b"x")
    os.setxattr(path, "user.note", b"a \0 value")
    os.setxattr(path, "user.other", b"")
    assert os.getxattr(path, "user.note") == b"a \0 value"
    assert {"user.note", "user.other"} <= set(os.listxattr(path))
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.note", b"y", os.XATTR_CREATE)
    os.setxattr(path, "user.note", b"y", os.XATTR_REPLACE)
    os.removexattr(path, "user.other")
    assert "user.other" not in os.listxattr(path)
    for act in (lambda: os.getxattr(path, "user.other"), lambda: os.removexattr(path, "user.other")):
        with pytest.raises(OSError, match=f"Errno {errno.ENODATA}]"):
            act()


def test_they_are_versioned(mount):
    for path in (mount.main / "file", mount.main / "directory"):
        path.touch() if path.name == "file" else path.mkdir()
        os.setxattr(path, "user.k", b"v1")
    (mount.main / ".arborfs" / "commit").write_text("one")
    os.setxattr(mount.main / "file", "user.k", b"v2")
    assert os.getxattr(mount.path / "commits" / "main" / "file", "user.k") == b"v1"
    assert os.getxattr(mount.path / "commits" / "main" / "directory", "user.k") == b"v1"
    assert "changed  file" in (mount.main / ".arborfs" / "status").read_text()


def test_set_while_writing_they_come_with_the_contents(mount):
    with open(mount.main / "file", "wb", buffering=0) as file:
        file.write(b"data")
        os.setxattr(file.fileno(), "user.k", b"v")
        assert os.getxattr(file.fileno(), "user.k") == b"v"
        with pytest.raises(OSError, match=f"Errno {errno.ENODATA}]"):
            os.removexattr(file.fileno(), "user.none")
    assert os.getxattr(mount.main / "file", "user.k") == b"v"
    (mount.main / "file").write_bytes(b"other data")
    assert os.getxattr(mount.main / "file", "user.k") == b"v"


@pytest.mark.parametrize("name", ["security.capability", "security.selinux", "system.posix_acl_access", "trusted.x"])
def test_other_namespaces_are_not_supported(mount, name):
    (mount.main / "file").touch()
    with pytest.raises(OSError, match=f"Errno {errno.ENOTSUP}]"):
        os.getxattr(mount.main / "file", name)
    # The kernel itself refuses values that make no sense in its own namespaces.
    with pytest.raises(OSError, match=f"Errno ({errno.ENOTSUP}|{errno.EINVAL})]"):
        os.setxattr(mount.main / "file", name, b"x")


def test_derived_ones(mount):
    array = np.arange(64.0).reshape(8, 8)
    sample = mount.main / "images" / "a.npy"
    np.save(sample, array)
    found = {name: os.getxattr(sample, name).decode() for name in os.listxattr(sample)}
    assert found["user.arborfs.dtype"] == "<f8"
    assert found["user.arborfs.shape"] == "8x8"
    assert found["user.arborfs.digest"] == blake(array.tobytes()).hex()
    dataset = {
        name: os.getxattr(sample.parent, name).decode() for name in os.listxattr(sample.parent) if "commit" not in name
    }
    assert dataset["user.arborfs.schema"]
    (mount.main / ".arborfs" / "commit").write_text("one")
    tip = (mount.main / ".arborfs" / "commit").read_text().strip()
    frozen = mount.path / "commits" / "main"
    assert os.getxattr(frozen, "user.arborfs.commit").decode() == tip
    assert os.getxattr(frozen / "images" / "a.npy", "user.arborfs.digest") == os.getxattr(sample, "user.arborfs.digest")
    assert os.getxattr(mount.main, "user.arborfs.commit").decode() == tip
    assert "user.arborfs.schema" in os.listxattr(frozen / "images")


def test_setting_derived_ones_changes_nothing(mount):
    path = mount.main / "file"
    path.write_bytes(b"x")
    before = os.getxattr(path, "user.arborfs.digest")
    os.setxattr(path, "user.arborfs.digest", b"forged")
    assert os.getxattr(path, "user.arborfs.digest") == before


def test_copying_with_everything_works(mount, tmp_path):
    array = np.arange(64.0).reshape(8, 8)
    np.save(mount.main / "images" / "a.npy", array)
    os.setxattr(mount.main / "images" / "a.npy", "user.note", b"n")
    subprocess.run(["cp", "-a", mount.main / "images" / "a.npy", mount.main / "images" / "b.npy"], check=True)
    subprocess.run(["cp", "-a", mount.main / "images", mount.main / "copy"], check=True)
    assert os.getxattr(mount.main / "images" / "b.npy", "user.note") == b"n"
    assert (np.load(mount.main / "copy" / "a.npy") == array).all()


def test_whatever_is_listed_can_be_read(mount):
    np.save(mount.main / "images" / "a.npy", np.zeros((8, 8)))
    os.symlink("x", mount.main / "link")

    def check(top):
        for path in [top, *top.rglob("*")]:
            for name in os.listxattr(path, follow_symlinks=False):
                os.getxattr(path, name, follow_symlinks=False)

    check(mount.main)
    (mount.main / ".arborfs" / "commit").write_text("one")
    check(mount.main)
    check(mount.path / "commits" / "main")
