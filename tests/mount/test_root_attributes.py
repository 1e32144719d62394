"""The root of a branch has a mode and xattrs like any directory in it: `chmod` of it is staged work."""

import json
import os


def test_the_root_s_mode_is_staged_and_committed(mounted, repository):
    mount = mounted(repository)
    control = mount.main / ".arborfs"
    (mount.main / "a").write_text("a")
    (control / "commit").write_text("first")
    mount.main.chmod(0o700)
    os.setxattr(mount.main, "user.x", b"1")
    assert (control / "status").read_text() == "changed  .\n"
    assert json.loads((control / "status.json").read_text()) == [
        {"path": ".", "change": "changed", "kind": "directory"}
    ]
    (control / "commit").write_text("mode")
    assert (control / "status").read_text() == ""
    assert mount.main.stat().st_mode & 0o777 == 0o700 and os.getxattr(mount.main, "user.x") == b"1"
