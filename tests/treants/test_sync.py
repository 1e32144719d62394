"""Copying trees by the real rsync."""

from __future__ import annotations

import shutil
import sys

import pytest

from storage.errors import NotMounted, RsyncFailed
from storage.treants.leaves import Leaf
from storage.treants.trees import Tree

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
RSYNC = shutil.which("rsync") or ""


@pytest.fixture
def wood(repository, mounted):
    """A mounted tree with x, y.txt, and z.txt in a directory."""
    main = mounted(repository).main
    (main / "wood" / "deep").mkdir(parents=True)
    for name in ("x", "y.txt", "deep/z.txt"):
        (main / "wood" / name).write_text(name)
    return Tree(main / "wood")


def contents(path):
    return {str(file.relative_to(path)): file.read_text() for file in sorted(path.rglob("*")) if file.is_file()}


def test_there_and_back(wood, tmp_path, repository):
    command = wood.sync(tmp_path / "there", rsync_path=RSYNC)
    assert command[0] == RSYNC and command[-2:] == [wood.abspath, f"{tmp_path}/there/"]
    assert contents(tmp_path / "there") == {"x": "x", "y.txt": "y.txt", "deep/z.txt": "deep/z.txt"}
    (tmp_path / "there" / "new").write_text("new")
    (tmp_path / "there" / "x").write_text("other")
    wood.sync(tmp_path / "there", mode="download", rsync_path=RSYNC)
    assert wood["new"].read() == "new" and wood["x"].read() == "x"
    Tree(repository / "wood").sync(
        str(tmp_path / "there"), mode="download", overwrite=True, backup=True, rsync_path=RSYNC
    )
    assert wood["x"].read() == "other" and wood["x~"].read() == "x"


def test_a_tree_of_another_place(wood, repository):
    copy = Tree(wood.path.parent / "copy")
    wood.sync(copy, rsync_path=RSYNC)
    assert copy.leaves().names == ["x", "y.txt"] and copy["deep/z.txt"].read() == "deep/z.txt"
    wood.sync(repository / "second", rsync_path=RSYNC)
    assert Tree(repository / "second").leaves().names == ["x", "y.txt"] and not (repository / "second").exists()


def test_patterns(wood, tmp_path):
    wood.sync(tmp_path / "in", include="*.txt", rsync_path=RSYNC)
    assert contents(tmp_path / "in") == {"y.txt": "y.txt"}
    wood.sync(tmp_path / "in2", include=["*/", "*.txt"], rsync_path=RSYNC)
    assert contents(tmp_path / "in2") == {"y.txt": "y.txt", "deep/z.txt": "deep/z.txt"}
    wood.sync(tmp_path / "out", exclude=["*.txt"], rsync_path=RSYNC)
    assert contents(tmp_path / "out") == {"x": "x"}


def test_the_options(wood, tmp_path):
    everything = wood.sync(tmp_path / "dry", dry=True, rsync_path=RSYNC)
    assert everything[1:-3] == ["-r", "--ignore-existing", "-z", "-c", "--dry-run"]
    assert not (tmp_path / "dry").exists()
    nothing = wood.sync(tmp_path / "a", compress=False, checksum=False, overwrite=True, backup=True, rsync_path=RSYNC)
    assert nothing[1:-3] == ["-r", "-b"]
    command = wood.sync(tmp_path / "b", include=["a", "b"], exclude="c", rsync_path=RSYNC)
    assert command[5:-3] == ["--include=a", "--include=b", "--exclude=c", "--exclude=*"]


def test_a_remote_place_is_named_as_rsync_has_it(wood, tmp_path):
    program = tmp_path / "rsync"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit(0)\n")
    program.chmod(0o755)
    for other in ("host:path", "ada@host:/data", "rsync://host/module"):
        assert wood.sync(other, rsync_path=str(program))[-1] == other
    assert wood.sync("host:path", mode="download", rsync_path=str(program))[-2:] == ["host:path/", wood.abspath]


def test_what_goes_wrong(wood, tmp_path):
    with pytest.raises(ValueError, match="the mode is"):
        wood.sync(tmp_path / "there", mode="sideways", rsync_path=RSYNC)
    with pytest.raises(RsyncFailed, match="ended with 23") as caught:
        wood.sync(tmp_path / "nothing" / "there", mode="download", rsync_path=RSYNC)
    assert caught.value.code == 23
    with pytest.raises(OSError, match="install rsync"):
        wood.sync(tmp_path / "there", rsync_path=str(tmp_path / "no-rsync"))


def test_without_a_mount_it_is_said_how_to_mount(repository, tmp_path):
    leaf = Leaf(repository / "wood" / "x").make()
    with pytest.raises(NotMounted, match=f"arborfs mount {repository} FOLDER"):
        leaf.parent.sync(tmp_path / "there", rsync_path=RSYNC)
    (tmp_path / "ordinary").mkdir()
    (tmp_path / "ordinary" / "x").write_text("x")
    with pytest.raises(NotMounted):
        Tree(tmp_path / "ordinary").sync(repository / "wood", rsync_path=RSYNC)
    Tree(tmp_path / "ordinary").sync(tmp_path / "there", rsync_path=RSYNC)
    assert contents(tmp_path / "there") == {"x": "x"}
