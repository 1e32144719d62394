"""Functions that worker processes import."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path


def name_of(member, suffix=""):
    return member.name + suffix


def process_of(member):
    return os.getpid()


def fails_at(member, name):
    if member.name == name:
        raise LookupError(f"{member.name} is none")
    return member.name


def is_killed(member):
    os.kill(os.getpid(), signal.SIGKILL)


def noted(member, folder):
    (Path(folder) / member.name).write_text(member.read() if hasattr(member, "read") else "")


def fails_or_never_ends(member, name):
    if member.name == name:
        raise LookupError(f"{member.name} is none")
    threading.Event().wait()
