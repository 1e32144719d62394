"""Ctrl-C before a command is at work and after it: the process ends with 130, and nothing is said."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PRESSED_AT_IMPORT = """
import os, signal, sys

class Pressed:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressed())
"""

PRESSED_AT_THE_END = """
import atexit, os, signal

atexit.register(os.kill, os.getpid(), signal.SIGINT)
"""

RUN = """
from fusefs.cli import main

main()
"""


def ended(repository, pressed, *words, ignoring=False):
    """Exit code, output and messages of a command that Ctrl-C strikes where the code `pressed` has it."""
    # What a shell does for a command that it starts in the background.
    ignore = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignoring else None
    command = [sys.executable, "-c", pressed + RUN, "-C", repository, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=ignore)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("module", ["click", "fusefs.cli.commands", "fusefs.cli.history", "numpy", "storage.engine"])
def test_while_modules_are_imported(repository, module):
    assert ended(repository, PRESSED_AT_IMPORT.format(module=module), "status") == (130, "", "")


def test_while_a_command_that_asks_for_help_starts(repository):
    assert ended(repository, PRESSED_AT_IMPORT.format(module="fusefs.cli.history"), "--help") == (130, "", "")


def test_while_the_interpreter_ends(repository):
    assert ended(repository, PRESSED_AT_THE_END, "status") == (130, "On branch main, nothing staged.\n", "")


def test_where_it_is_ignored_the_command_goes_on(repository):
    pressed = PRESSED_AT_IMPORT.format(module="click") + PRESSED_AT_THE_END
    found = ended(repository, pressed, "status", ignoring=True)
    assert found == (0, "On branch main, nothing staged.\n", "")
