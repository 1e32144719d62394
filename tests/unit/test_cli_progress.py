"""The line that shows how far long work is: on a terminal only, and gone at the end."""

import os
import pty
import subprocess
import sys

import pytest

from storage.engine import Engine
from storage.model.samples import BytesSource


def on_terminal(*words: str) -> tuple[str, str]:
    """Standard output, and what a terminal as standard error was sent."""
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "fusefs.cli", *words]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=terminal, stdin=subprocess.DEVNULL, timeout=60, check=True
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:  # a terminal whose other side is closed
        pass
    finally:
        os.close(master)
    return done.stdout.decode(), shown.decode()


@pytest.fixture
def filled(repository):
    with Engine.open(repository) as engine:
        engine.working_tree("main").put_file((b"f",), BytesSource(os.urandom(2_000_000)))
        engine.working_tree("main").commit("one")
    return str(repository)


@pytest.mark.parametrize("command", ["verify", "rebuild"])
def test_a_terminal_sees_bytes_and_a_rate_which_are_wiped_at_the_end(filled, command):
    said, shown = on_terminal("-C", filled, command)
    assert "reading" in shown and " of 2 MB, " in shown and "/s" in shown
    assert shown.endswith("\r\x1b[K")
    assert "reading" not in said


@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_nothing_is_shown_to_who_asked_for_quiet(filled, flag):
    assert on_terminal("-C", filled, "verify", flag)[1] == ""
