"""Where PODs are tried: in an embedded repository, and in a branch of a real mount."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import places
from storage.pods import store


@pytest.fixture(autouse=True)
def letting_go() -> Iterator[None]:
    """What a test leaves dirty is written before its repositories are closed."""
    yield
    for each in list(store._stores.values()):
        each.write()
    places.let_go()


@pytest.fixture(params=["embedded", "mounted"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A path at which nothing is yet."""
    if request.param == "embedded":
        yield tmp_path / "my.pod"
    else:
        mount = request.getfixturevalue("mounted")(request.getfixturevalue("repository"))
        (mount.main / "lab").mkdir()
        yield mount.main / "lab" / "my.pod"


def python(program: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with its arguments in `argv[1:]`; what it prints is kept."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)],
        **({"capture_output": True, "text": True, "timeout": 60, "check": True} | options),
    )


def begun(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Begin such a program, which can be written to and read from."""
    return subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
