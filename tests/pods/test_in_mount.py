"""PODs in a mount, next to ordinary programs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from storage.pods import POD, Tracker
from tests.conftest import wait_until


@pytest.fixture
def tree(repository, mounted):
    return mounted(repository).main


def shown(folder: Path) -> list[str]:
    """The names in a folder of the mount, which others' changes reach within moments."""
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_keys_are_files(tree):
    pod = POD(tree / "my.pod", init={"foo": "bar", 5: [1]})
    pod.sync()
    wait_until(lambda: shown(tree / "my.pod") == ["=5.json", "foo.json"], what="the files")
    assert json.loads((tree / "my.pod" / "foo.json").read_text()) == "bar"
    assert int(os.getxattr(tree / "my.pod" / "foo.json", "user.pod.born")) < int(
        os.getxattr(tree / "my.pod" / "=5.json", "user.pod.born")
    )
    (tree / "my.pod" / "by hand.json").write_text('{"x": 1}\n')
    assert pod["by hand"] == {"x": 1} and pod.keys() == ["foo", 5, "by hand"]
    pod["by hand"]["x"] = 2
    pod.sync()
    (tree / "my.pod" / "README").write_text("side files are no keys")
    assert pod.keys() == ["foo", 5, "by hand"] and len(pod) == 3


def test_an_editor_changes_a_value(tree):
    pod = POD(tree / "my.pod", init={"k": {"n": 1}})
    pod.sync()
    file = tree / "my.pod" / "k.json"
    wait_until(file.exists, what="the file")
    subprocess.run(["sed", "-i", "s/1/17/", file], check=True)
    assert pod["k"] == {"n": 17}


def test_a_broken_edit_is_refused_with_the_reason(tree):
    pod = POD(tree / "my.pod", init={"k": {"n": 1}})
    pod.sync()
    file = tree / "my.pod" / "k.json"
    wait_until(file.exists, what="the file")
    with pytest.raises(OSError) as caught:
        file.write_text('{"n": 1')
    assert caught.value.errno == errno.EINVAL
    said = (tree / ".arborfs" / "errors").read_text()
    assert "k.json is not JSON" in said
    assert pod["k"] == {"n": 1} and json.loads(file.read_text()) == {"n": 1}


def test_files_are_removed_moved_and_copied_by_the_shell(tree):
    pod = POD(tree / "my.pod", init={"a": 1, "b": 2, "c": 3})
    pod.sync()
    wait_until(lambda: len(shown(tree / "my.pod")) == 3, what="the files")
    subprocess.run("rm a.json && mv b.json z.json", shell=True, check=True, cwd=tree / "my.pod")
    assert pod.items() == [("z", 2), ("c", 3)]
    subprocess.run(["cp", "-a", tree / "my.pod", tree / "copy.pod"], check=True)
    subprocess.run("cp -r my.pod plain.pod && touch -d 2001-01-01 plain.pod/c.json", shell=True, check=True, cwd=tree)
    assert POD(tree / "copy.pod").items() == [("z", 2), ("c", 3)]
    subprocess.run(["mv", tree / "copy.pod", tree / "moved.pod"], check=True)
    moved = POD(tree / "moved.pod")
    assert moved.items() == [("z", 2), ("c", 3)] and len(moved) == 2
    plain = POD(tree / "plain.pod", init={"new": 4})
    assert plain.items() == [("c", 3), ("z", 2), ("new", 4)]
    plain["c"] = 5
    plain.sync()
    assert plain.items() == [("c", 5), ("z", 2), ("new", 4)] and len(plain) == 3
    with pytest.raises(OSError):
        (tree / "plain.pod" / "z.json").write_text("{")
    subprocess.run(["rm", "-r", tree / "my.pod"], check=True)
    assert pod.keys() == [] and "z" not in pod


def test_a_folder_made_by_hand_becomes_one(tree):
    (tree / "new.pod").mkdir()
    with POD(tree / "new.pod") as pod:
        pod["a"] = 1
    wait_until((tree / "new.pod" / "a.json").exists, what="the file")


def test_the_top_of_a_mounted_branch(repository, mounted):
    mount = mounted(repository, "--branch", "main")
    with POD(mount.path) as pod:
        pod["a"] = 1
    wait_until((mount.path / "a.json").exists, what="the file")
    with pytest.raises(OSError):
        (mount.path / "a.json").write_text("{")
    pod = POD(repository)
    commit = pod.commit("first")
    pod["b"] = 1
    assert pod.items() == [("a", 1), ("b", 1)] and len(commit) == 64
    pod.close()
    (mount.path / "c.json").write_text("[3]")
    with pytest.raises(OSError):
        (mount.path / "d.json").write_text("{")


def test_a_task_is_done_by_hand(tree):
    tracker = Tracker(tree / "tasks")
    tracker.add("a")
    tracker.sync()
    file = tree / "tasks" / "a.json"
    wait_until(file.exists, what="the file")
    assert os.getxattr(tree / "tasks", "user.pod.kind") == b"tracker"
    file.write_text('{"_done": true}')
    assert tracker.done("a") and not tracker.try_it("a") and tracker.num_done() == 1
