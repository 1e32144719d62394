"""What the files of tasks say to the index of labels: see storage.labels."""

from __future__ import annotations

import re

from storage.labels import Label, Marker
from storage.model.records import Attributes
from storage.model.tasks import KIND, TRACKER, State, read_task

_KIND = b"user." + KIND.encode()
_STATES: dict[bytes, State] = {b"todo": "todo", b"done": "done", b"aborted": "aborted"}
_KEPT = {state: kept for kept, state in _STATES.items()}  # one object for each, of a million tasks


def kept_of(data: bytes) -> bytes:
    """The state of the task whose file holds that. ValueError."""
    return _KEPT[read_task(data).state]


def state_of(kept: bytes) -> State:
    """The state of which `kept_of` gave that."""
    return _STATES[kept]


def labels_of(kept: bytes) -> list[Label]:
    """`todo`, `done` or `aborted` under `("state",)`."""
    return [(("state",), _STATES[kept])]


def is_tracker(attributes: Attributes) -> bool:
    """Whether a directory with these attributes is one of tasks."""
    return (_KIND, TRACKER) in attributes.xattrs


TASKS = Marker("task", re.compile(rb".*\.json", re.DOTALL), kept_of, state_of, labels_of, False, True, is_tracker)
"""The tasks of trackers: samples of JSON in directories that say so."""
