"""Which directories and files of a tree are marked, and with which labels: found by an index, not by a walk.

    labels = repository.files().labels()
    labels.having(("tag",), "oak")            paths of the Treants with that tag
    labels.marked()                           of all Treants

An index is built by one walk when it is first asked, kept in memory, brought up to date from what the repository notes of
every change before each answer, and kept in a file for the next process.
"""

from __future__ import annotations

from storage.labels.index import LabelIndex
from storage.labels.labels import Labels
from storage.labels.marks import Key, Label, Marker, Scalar, marker_named

__all__ = ["Key", "Label", "LabelIndex", "Labels", "Marker", "Scalar", "marker_named"]
