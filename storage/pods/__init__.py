"""Dicts that survive, and work lists. What they are made of stands in storage.pods.format."""

from storage.errors import (
    CalledClosedTrackerError,
    DuplicateKeyError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
)
from storage.pods.pod import POD, PersistentOrderedDict
from storage.pods.shared import SharedPOD, SharedTracker
from storage.pods.tracker import ProgressTracker, Tracker

__all__ = [
    "POD",
    "CalledClosedTrackerError",
    "DuplicateKeyError",
    "PersistentOrderedDict",
    "PersistentOrderedDictException",
    "PersistentOrderedDictIntegrityError",
    "ProgressTracker",
    "SharedPOD",
    "SharedTracker",
    "Tracker",
]
