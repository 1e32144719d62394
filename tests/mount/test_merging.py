"""Merging by the shell: `.arborfs/merge`, `.arborfs/conflicts/`, and who sees the result."""

from __future__ import annotations

import errno
import os
import subprocess
import time

import numpy as np
import pytest

from storage.engine import Engine
from tests.conftest import arborfs, wait_until
from tests.mount.conftest import refused
from tests.mount.test_refs import commit


def shell(command: str, where, code: int = 0) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=where, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def mount(mounted, repository):
    """main and feature, both mounted and looked at; feature is one commit ahead."""
    made = mounted(repository)
    (made.main / "d").mkdir()
    for name in ("both", "ours", "theirs", "gone"):
        (made.main / "d" / name).write_text(f"base of {name}\n")
    commit(made.main, "base\n")
    feature = made.path / "branches" / "feature"
    feature.mkdir()
    (feature / "d" / "theirs").write_text("by feature\n")
    (feature / "d" / "new").write_text("new in feature\n")
    (feature / "d" / "gone").unlink()
    commit(feature, "on feature\n")
    shell("cat d/*; ls -l d", made.main)  # the kernel knows all of it
    return made


@pytest.fixture
def feature(mount):
    return mount.path / "branches" / "feature"


def conflicted(mount, feature):
    """Both sides change `both`; main removes `top`, which feature changes."""
    (mount.main / "d" / "both").write_text("ours\n")
    (feature / "d" / "both").write_text("theirs\n")
    (feature / "top").write_text("only there\n")
    commit(feature, "more\n")
    commit(mount.main, "on main\n")


def test_echo_merges(mount):
    (mount.main / "d" / "ours").write_text("by main\n")
    commit(mount.main, "on main\n")
    with open(mount.main / "d" / "theirs") as before:
        shell("echo feature > .arborfs/merge", mount.main)
        found = shell("cat d/ours d/theirs d/new; ls d", mount.main)
        assert found == "by main\nby feature\nnew in feature\nboth\nnew\nours\ntheirs\n"
        assert before.read() == "base of theirs\n"
    assert (mount.main / ".arborfs" / "status").read_text() == ""
    assert (mount.main / ".arborfs" / "merge").read_text() == ""
    assert "merge feature" in (mount.main / ".arborfs" / "log").read_text().splitlines()[0]
    assert shell("diff -r main feature", mount.path / "branches", 1).count("\n") == 5, "only d/ours differs"


def test_fast_forward_is_seen_at_once_every_time(mount, feature):
    for number in range(20):
        (feature / "d" / "new").write_text(f"version {number}\n")
        (feature / "d" / f"file {number}").write_text("x")
        commit(feature, f"{number}\n")
        shell("echo feature > .arborfs/merge", mount.main)
        assert (mount.main / "d" / "new").read_text() == f"version {number}\n"
        assert f"file {number}" in os.listdir(mount.main / "d")
        assert commit_of(mount.main) == commit_of(feature)


def commit_of(tree) -> str:
    return (tree / ".arborfs" / "commit").read_text()


def test_a_message_on_further_lines(mount):
    (mount.main / "d" / "ours").write_text("by main\n")
    commit(mount.main, "on main\n")
    shell("printf 'feature\\n\\ntake it over\\nwith care\\n' > .arborfs/merge", mount.main)
    assert "take it over" in (mount.main / ".arborfs" / "log").read_text().splitlines()[0]


def test_what_stands_in_the_way_is_told_to_the_writer(mount):
    (mount.main / "d" / "ours").write_text("not committed\n")
    assert "Device or resource busy" in shell("echo feature > .arborfs/merge", mount.main, 1)
    assert "staged work that is not committed: d/ours" in (mount.main / ".arborfs" / "errors").read_text()
    commit(mount.main, "on main\n")
    assert "No such file" in shell("echo nothing > .arborfs/merge", mount.main, 1)
    assert "nothing" in (mount.main / ".arborfs" / "errors").read_text()


@pytest.mark.parametrize("command", [b"--abort", b"--abort\n"])
def test_an_abort_without_a_merge_is_told_to_the_writer(mount, command):
    control = mount.main / ".arborfs"
    opened = os.open(control / "merge", os.O_WRONLY)
    try:
        with refused(errno.EINVAL):
            os.write(opened, command)
    finally:
        os.close(opened)
    assert "no merge of branch 'main' is under way" in (control / "errors").read_text()


def test_conflicts_are_files_and_cp_and_rm_resolve_them(mount, feature):
    conflicted(mount, feature)
    (mount.main / "top").write_text("by main as well\n")
    commit(mount.main, "top\n")
    shell("echo feature > .arborfs/merge", mount.main)
    control = mount.main / ".arborfs"
    assert (control / "merge").read_text() == "merge feature\nboth-changed d/both\nboth-added top\n"
    assert "conflict d/both\nconflict top\n" in (control / "status").read_text()
    assert "changed  d/theirs\n" in (control / "status").read_text()
    assert shell("find conflicts | sort", control).split() == [
        "conflicts",
        "conflicts/d",
        "conflicts/d/both",
        "conflicts/d/both/base",
        "conflicts/d/both/ours",
        "conflicts/d/both/theirs",
        "conflicts/top",
        "conflicts/top/ours",
        "conflicts/top/theirs",
    ]
    assert shell("cat conflicts/d/both/*", control) == "base of both\nours\ntheirs\n"
    assert os.stat(control / "conflicts" / "d" / "both" / "theirs").st_size == 7
    with refused(errno.EROFS):
        (control / "conflicts" / "d" / "both" / "ours").write_text("no")
    assert (mount.main / "d" / "both").read_text() == "ours\n"
    assert (mount.main / "d" / "theirs").read_text() == "by feature\n"
    assert not (mount.main / "d" / "gone").exists()
    assert "resource busy" in shell("echo early > .arborfs/commit", mount.main, 1)
    assert "open conflicts: d/both (both-changed), top (both-added)" in (control / "errors").read_text()
    shell("cp .arborfs/conflicts/d/both/theirs d/both", mount.main)
    assert os.listdir(control / "conflicts") == ["top"]
    shell("rm top; echo resolved > .arborfs/commit", mount.main)
    assert os.listdir(control / "conflicts") == []
    assert (control / "merge").read_text() == ""
    assert (mount.main / "d" / "both").read_text() == "theirs\n"
    assert not (mount.main / "top").exists()
    assert len((control / "log.json").read_text().split('"parents"')[1].split("]")[0].split(",")) == 2


@pytest.mark.parametrize("copy", ["cp", "cp -p", "cat < {0} > d/both && true"])
def test_taking_ours_by_a_copy(mount, feature, copy):
    conflicted(mount, feature)
    shell("echo feature > .arborfs/merge", mount.main)
    side = ".arborfs/conflicts/d/both/ours"
    shell(copy.format(side) if "{0}" in copy else f"{copy} {side} d/both", mount.main)
    assert os.listdir(mount.main / ".arborfs" / "conflicts") == []
    shell("echo resolved > .arborfs/commit", mount.main)
    assert (mount.main / "d" / "both").read_text() == "ours\n"


def test_abort_is_seen_at_once(mount, feature):
    conflicted(mount, feature)
    before = shell("ls -l --time-style=full-iso . d; cat d/*", mount.main)
    shell("echo feature > .arborfs/merge; echo more > d/more; echo x > d/both; cat d/*", mount.main)
    shell("echo --abort > .arborfs/merge", mount.main)
    assert shell("ls -l --time-style=full-iso . d; cat d/*", mount.main) == before
    assert (mount.main / ".arborfs" / "status").read_text() == ""
    assert not (mount.main / ".arborfs" / "conflicts" / "d").exists()


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_undo_brings_the_merge_back(mount, feature, repository, end):
    (mount.main / "top").write_text("another one here\n")
    conflicted(mount, feature)
    shell("echo feature > .arborfs/merge; cat .arborfs/conflicts/*/*", mount.main, 1)
    shell("cp .arborfs/conflicts/d/both/theirs d/both", mount.main)
    if end == "commit":
        shell("echo both > top", mount.main)
    before = shell("cat .arborfs/merge d/both; find .arborfs/conflicts | sort", mount.main)
    assert ("top" in before) == (end == "abort")
    shell("echo together > .arborfs/commit" if end == "commit" else "echo --abort > .arborfs/merge", mount.main)
    assert shell("cat .arborfs/merge", mount.main) == ""
    arborfs("-C", repository, "undo")
    wait_until(lambda: shell("cat .arborfs/merge d/both; find .arborfs/conflicts | sort", mount.main) == before)


def test_an_aborted_merge_can_begin_again_with_other_files(mount, feature):
    conflicted(mount, feature)
    shell("echo feature > .arborfs/merge; cat .arborfs/conflicts/d/both/*; echo --abort > .arborfs/merge", mount.main)
    (feature / "d" / "both").write_text("THEIRS\n")
    commit(feature, "same size\n")
    found = shell("echo feature > .arborfs/merge; cat .arborfs/conflicts/d/both/*", mount.main)
    assert found == "base of both\nours\nTHEIRS\n"


def test_datasets_in_conflict(mounted, repository):
    with Engine.open(repository):
        pass
    mount = mounted(repository)
    script = (
        "import sys, numpy as np; from storage import Repository\n"
        "repo = Repository(sys.argv[1])\n"
        "co = repo.checkout(write=True)\n"
        "d = co.datasets.init_dataset('d', prototype=np.arange(3.0)); d['0'] = np.zeros(3); co.commit('base'); co.close()\n"
        "repo.create_branch('feature')\n"
        "co = repo.checkout(write=True); co.datasets['d']['0'] = np.ones(3); co.commit('ours'); co.close()\n"
        "co = repo.checkout(write=True, branch='feature'); co.datasets['d']['0'] = np.full(3, 2.0); co.commit('theirs')\n"
    )
    subprocess.run([os.sys.executable, "-c", script, str(repository)], check=True, timeout=60)
    shell("echo feature > .arborfs/merge", mount.main)
    sides = mount.main / ".arborfs" / "conflicts" / "d" / "0.npy"
    assert [np.load(sides / side)[0] for side in ("base", "ours", "theirs")] == [0, 1, 2]
    np.save(mount.main / "d" / "0.npy", np.full(3, 1.5))
    shell("echo done > .arborfs/commit", mount.main)
    assert np.load(mount.path / "commits" / "main" / "d" / "0.npy")[0] == 1.5


def test_a_removed_directory_is_a_directory_in_conflicts(mount, feature):
    shell("rm -r d", mount.main)
    commit(mount.main, "no d\n")
    shell("echo feature > .arborfs/merge", mount.main)
    conflicts = mount.main / ".arborfs" / "conflicts" / "d"
    assert sorted(os.listdir(conflicts)) == ["base", "theirs"]
    assert (conflicts / "theirs" / "new").read_text() == "new in feature\n"
    shell("cp -r .arborfs/conflicts/d/theirs d && echo taken > .arborfs/commit", mount.main)
    assert shell("diff -r main feature", mount.path / "branches") == ""


def test_other_mounts_and_processes_see_it_in_200_ms(mounted, mount, feature, repository):
    other = mounted(repository)
    assert (other.main / "d" / "theirs").read_text() == "base of theirs\n"
    assert shell("cat d/*", other.main)
    started = None

    def seen():
        return (
            (other.main / "d" / "theirs").read_text() == "by feature\n"
            and (other.main / "d" / "new").exists()
            and not (other.main / "d" / "gone").exists()
        )

    shell("echo feature > .arborfs/merge", mount.main)
    started = time.monotonic()
    wait_until(seen)
    assert time.monotonic() - started < 0.2
    (feature / "d" / "new").write_text("and by command line\n")
    commit(feature, "more\n")
    arborfs("-C", repository, "merge", "feature")
    started = time.monotonic()
    wait_until(lambda: (mount.main / "d" / "new").read_text() == "and by command line\n")
    wait_until(lambda: (other.main / "d" / "new").read_text() == "and by command line\n")
    assert time.monotonic() - started < 0.2


def test_a_merge_survives_the_daemon(mounted, mount, feature, repository):
    conflicted(mount, feature)
    shell("echo feature > .arborfs/merge", mount.main)
    mount.kill()
    again = mounted(repository)
    assert (again.main / ".arborfs" / "merge").read_text() == "merge feature\nboth-changed d/both\n"
    shell("cp .arborfs/conflicts/d/both/theirs d/both; echo done > .arborfs/commit", again.main)
    assert (again.main / "d" / "both").read_text() == "theirs\n"
