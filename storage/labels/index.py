"""The labels of all trees of one open repository."""

from __future__ import annotations

import threading
from collections import OrderedDict

from storage.config import folder
from storage.engine import Engine
from storage.labels.branches import BranchLabels
from storage.labels.keeping import Shelf
from storage.labels.labels import CommitLabels, Labels
from storage.labels.marks import marker_named
from storage.model.digest import Digest

COMMITS = 8
"""Of so many commits the labels are kept in memory."""


class LabelIndex:
    """Gives the labels of branches and commits, those of a branch always the same object. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._shelf = Shelf(folder(engine.path) / "labels")
        self._branches: dict[tuple[str, str], BranchLabels] = {}
        self._commits: OrderedDict[tuple[Digest, str], CommitLabels] = OrderedDict()
        self._lock = threading.Lock()

    def of_branch(self, branch: str, what: str) -> Labels:
        """What is marked as `what` in a branch. NotFound where nothing is ever marked so."""
        marker = marker_named(what)
        with self._lock:
            labels = self._branches.get((branch, what))
            if labels is None:
                labels = BranchLabels(self.engine.parts(), marker, self._shelf, branch)
                self._branches[branch, what] = labels
            return labels

    def of_commit(self, commit: Digest, what: str) -> Labels:
        """The same in a commit, which whoever asks must hold."""
        marker = marker_named(what)
        with self._lock:
            labels = self._commits.pop((commit, what), None)
            if labels is None:
                labels = CommitLabels(self.engine.parts(), marker, self._shelf, commit)
            self._commits[commit, what] = labels
            if len(self._commits) > COMMITS:
                self._commits.popitem(last=False)
            return labels
