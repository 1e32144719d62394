"""Dicts that survive, and work lists. What they are made of stands in storage.pods.format."""

from storage.errors import (
    CalledClosedTrackerError,
    DuplicateKeyError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
)
from storage.pods.pod import POD, PersistentOrderedDict

__all__ = [
    "POD",
    "CalledClosedTrackerError",
    "DuplicateKeyError",
    "PersistentOrderedDict",
    "PersistentOrderedDictException",
    "PersistentOrderedDictIntegrityError",
]
