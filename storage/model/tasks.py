"""Tasks of a tracker, as their files say: what other programs, and other parts of arborfs, need to know of them.

A tracker is a directory with a schema of kind `json` and the extended attribute `user.pod.kind` = `tracker`. Each file
`<key>.json` in it is a task: a JSON object in which `_tries` is how often it was begun, `_done` and `_aborted` whether it is
done, or was given up. What is left out counts as 0 and false; other names are the user's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from storage.model.format import MALFORMED

KIND = "pod.kind"
"""The extended attribute of a directory that says what it is kept for, without `user.`."""
TRACKER = b"tracker"
"""Its value for a tracker."""

State = Literal["todo", "done", "aborted"]


class Task(msgspec.Struct, frozen=True, gc=False, rename={"tries": "_tries", "done": "_done", "aborted": "_aborted"}):
    """How it stands with a task."""

    tries: int = 0
    done: bool = False
    aborted: bool = False

    @property
    def state(self) -> State:
        """What is done is done, even if it was given up before."""
        return "done" if self.done else "aborted" if self.aborted else "todo"


_decoder = msgspec.json.Decoder(Task)


def read_task(data: bytes | memoryview) -> Task:
    """How it stands with the task whose file holds `data`. ValueError for a file that is none of a task."""
    try:
        return _decoder.decode(data)
    except MALFORMED as error:
        raise ValueError(f"that is no task of a tracker: {error}") from error
