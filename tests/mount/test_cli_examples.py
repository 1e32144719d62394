"""The examples in every command's help are run, in order, on a repository with some history."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fusefs.cli.commands import main
from storage import Repository
from storage.engine import Engine
from storage.pods import Tracker
from tests.command_line import all_commands
from tests.conftest import ADA, fuse_missing, is_mounted, wait_until

SHELL = f"""
set -e
arborfs() {{ {sys.executable} -m fusefs.cli "$@"; }}
"""

BEFORE = {
    "": "rm -r data",
    "init": "rm -r data",
    "branch": "arborfs -C data branch -D experiment",
    "branch create": "arborfs -C data branch -D experiment",
    "branch delete": "arborfs -C data branch -D experiment; arborfs -C data branch create experiment",
    "branch default": "arborfs -C data branch create calibrated",
    "tag": "arborfs -C data tag delete v1.0",
    "tag create": "arborfs -C data tag delete v1.0",
    "commit": "arborfs -C data import table.csv people --key name",
    "export": "arborfs -C data import table.csv people --key name",
    "resolve": "! arborfs -C data merge experiment",
    "umount": "arborfs mount data /mnt/data",
    "stats": "arborfs mount data /mnt/data",
}
"""What must be so for a command's examples to make sense, where history alone does not see to it."""

CONFLICT = {"merge": "merge experiment"}
"""Examples that show how a conflict is left open: exit code 4, and the next line settles it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with what the examples name: files, and a repository `data` with a dozen operations."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("measurements", "photos", "mnt/data", "mnt/v1", "mnt/work", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "measurements" / "one.txt").write_text("1\n")
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "photos" / "red.png")
    (folder / "table.csv").write_text("name,age\nada,36\n")
    Engine.create(folder / "data", ADA).close()
    with Tracker(folder / "data" / "tasks") as tracker:
        tracker.add("calibrate")
        tracker.mark_done("calibrate")
    with Repository(folder / "data") as repo:
        with repo.checkout(write=True) as checkout:
            images = checkout.datasets.init_dataset("images", (8, 8), np.uint8)
            for key in range(10):
                images[str(key)] = np.full((8, 8), key, np.uint8)
            checkout.import_files(folder / "measurements", dataset="notes")
            checkout.commit("images and notes")
            repo.create_tag("v1.0")
            repo.create_branch("experiment")
            for key in (1, 2, 7):
                images[str(key)] = np.full((8, 8), 100 + key, np.uint8)
                checkout.commit(f"calibrated image {key}")
        with repo.checkout(write=True, branch="experiment") as checkout:
            for key in (5, 7):
                checkout.datasets["images"][str(key)] = np.full((8, 8), 200 + key, np.uint8)
                checkout.commit(f"another image {key}")
        for number in range(3, 8):
            repo.create_tag(f"v{number}.0")
        assert len(repo.operations()) > 12
    return folder


def examples(command):
    """The lines below `Example:` in a command's help text."""
    _, _, listed = (command.help or "").partition("Example:\n")
    return [line.strip() for line in listed.partition("\n\n")[0].splitlines() if line.strip()]


def shell(folder, line):
    """Run one line in bash, with the folders that the examples name below `folder`."""
    line = re.sub(r"(?<=[ >])/(?=mnt/|tmp/)", f"{folder}/", line)
    return subprocess.run(
        ["bash", "-c", SHELL + line],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in ("EDITOR", "VISUAL")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def take_down(folder):
    """Unmount what an example has mounted, and wait for its daemon."""
    for point in (folder / "mnt").iterdir():
        if is_mounted(point):
            subprocess.run(["fusermount3", "-u", "-z", str(point)], check=False)
            wait_until(lambda: not is_mounted(point))


@pytest.mark.parametrize(
    "words, command",
    list(all_commands(main)),
    ids=lambda value: " ".join(value) or "arborfs" if isinstance(value, tuple) else "",
)
def test_the_examples_of_a_command_work(words, command, world, tmp_path):
    name = " ".join(words)
    lines = examples(command)
    assert lines, "no example"
    before = BEFORE.get(name, "")
    if any(" mount " in line or "/mnt/" in line for line in [*lines, before]) and (missing := fuse_missing()):
        pytest.skip(missing)
    folder = tmp_path / "here"
    shutil.copytree(world, folder)
    try:
        done = shell(folder, before)
        assert done.returncode == 0, f"$ {before}\n{done.stdout}"
        for line in lines:
            done = shell(folder, line)
            expected = 4 if name in CONFLICT and CONFLICT[name] in line and "commit" not in line else 0
            assert done.returncode == expected, f"$ {line}\n{done.stdout}"
            assert "Traceback" not in done.stdout, done.stdout
    finally:
        take_down(folder)
