"""What the README shows is run, and prints what the README says. `…` stands for anything."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.conftest import fuse_missing

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found
    return found


def steps(block: str) -> list[tuple[str, str]]:
    """Commands and what they print."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def pattern(expected: str) -> str:
    return ".*".join(re.escape(part) for part in expected.split("…"))


@pytest.mark.parametrize("block", blocks("console"))
def test_shell_examples_print_what_the_readme_says(block, tmp_path):
    if missing := fuse_missing():
        pytest.skip(missing)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    try:
        for command, expected in steps(block):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
            assert re.fullmatch(pattern(expected), done.stdout, re.DOTALL), f"$ {command}\n{done.stdout}"
            assert done.returncode == (1 if command.startswith("diff") else 0), command
    finally:
        for point in ("snapshot", "M"):
            if os.path.ismount(tmp_path / point):
                subprocess.run(["fusermount3", "-u", "-z", str(tmp_path / point)], check=False)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_run(block, tmp_path, monkeypatch, capsys):
    if "torch" in block:
        pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No repository exists")
        exec(compile(block, "README.md", "exec"), {})
    assert ("the dataset holds float32" in capsys.readouterr().out) == ("print(error)" in block)


def test_the_two_commands_are_there():
    for command in ("./scripts/demo", "./scripts/test"):
        assert command in README
        assert os.access(Path(__file__).parent.parent / command, os.X_OK)
