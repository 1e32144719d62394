"""The list of mounts, the checks before a mount, and what the kernel is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs import mountinfo, preflight
from fusefs.mountinfo import MountError, mounted_at, mounts, source_name, source_path
from fusefs.options import MountOptions

LINES = (
    "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "40 22 0:38 / /mnt/with\\040space rw,nosuid,nodev,relatime shared:7 - fuse.arborfs /data/my\\040repo rw,user_id=0\n"
    "41 22 0:39 / /mnt/snapshot ro,nosuid - fuse.arborfs /data/%C3%BCn%2C%25 ro,user_id=0\n"
    "42 22 0:40 / /mnt/covered rw - fuse.arborfs /data/one rw\n"
    "43 42 0:41 / /mnt/covered rw - tmpfs tmpfs rw\n"
)


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """The kernel's list says LINES."""
    (tmp_path / "mountinfo").write_text(LINES)
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "mountinfo")


@pytest.mark.usefixtures("listed")
class TestList:
    def test_only_ours(self):
        assert [str(mount.mountpoint) for mount in mounts()] == ["/mnt/with space", "/mnt/snapshot", "/mnt/covered"]

    def test_escapes(self):
        found = mounted_at(Path("/mnt/with space"))
        assert found is not None
        assert (found.repository, found.device, found.read_only) == (Path("/data/my repo"), "0:38", False)
        frozen = mounted_at(Path("/mnt/snapshot"))
        assert frozen is not None
        assert (frozen.repository, frozen.read_only) == (Path("/data/ün,%"), True)

    def test_what_is_on_top_counts(self):
        assert mounted_at(Path("/mnt/covered")) is None

    def test_nothing_there(self):
        assert mounted_at(Path("/mnt/elsewhere")) is None
        with pytest.raises(MountError, match="not an arborfs mount"):
            mountinfo.unmount(Path("/mnt/elsewhere"))
        assert not mountinfo.is_dead(Path("/mnt/elsewhere"))


@given(st.binary(min_size=1, max_size=60).filter(lambda raw: 0 not in raw))
def test_any_path_can_be_a_source(raw):
    path = Path(os.fsdecode(b"/" + raw))
    name = source_name(path)
    assert name.isascii() and "," not in name and "\\" not in name
    assert source_path(name) == path


class TestPlaces:
    @pytest.fixture
    def place(self, tmp_path):
        (tmp_path / "repository" / "inside").mkdir(parents=True)
        (tmp_path / "m").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to(tmp_path / "repository" / "inside")
        return tmp_path

    @pytest.mark.parametrize(
        "mountpoint, reason",
        [
            ("nowhere", "does not exist"),
            ("file", "not a folder"),
            ("repository", "inside the repository"),
            ("repository/inside", "inside the repository"),
            ("link", "inside the repository"),
            (".", "would be hidden"),
            ("file/x", "cannot be used"),
        ],
    )
    def test_refused(self, place, mountpoint, reason):
        with pytest.raises(MountError, match=reason):
            preflight.check_places(place / "repository", place / mountpoint)

    def test_accepted(self, place):
        preflight.check_places(place / "repository", place / "m")


class TestOtherUsers:
    def test_root_may_always(self, tmp_path):
        preflight.check_allow_other(0, tmp_path / "missing")

    def test_users_need_the_configuration(self, tmp_path):
        for text in (None, "#user_allow_other\n", "mount_max = 10\n"):
            if text is not None:
                (tmp_path / "fuse.conf").write_text(text)
            with pytest.raises(MountError, match="user_allow_other"):
                preflight.check_allow_other(1000, tmp_path / "fuse.conf")
        (tmp_path / "fuse.conf").write_text("mount_max = 10\n user_allow_other \n")
        preflight.check_allow_other(1000, tmp_path / "fuse.conf")


def test_ref_and_branch_exclude_each_other(tmp_path):
    with pytest.raises(MountError, match="not both"):
        preflight.check(MountOptions(tmp_path, tmp_path / "m", ref="a", branch="b"))


def test_no_device(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "DEVICE", tmp_path / "fuse")
    with pytest.raises(MountError, match="modprobe fuse"):
        preflight.check_device()


def test_options_for_the_kernel(tmp_path):
    from fusefs.daemon import mount_options

    plain = mount_options(MountOptions(Path("/a,b"), tmp_path))
    assert plain == {"fsname=/a%2Cb", "subtype=arborfs", "default_permissions"}
    assert "ro" in mount_options(MountOptions(Path("/a"), tmp_path, ref="v1"))
    assert "ro" in mount_options(MountOptions(Path("/a"), tmp_path, read_only=True))
    assert "allow_other" in mount_options(MountOptions(Path("/a"), tmp_path, allow_other=True))
