"""Treants: directories of a branch with tags, categories and data, found again by them."""

from __future__ import annotations

from storage.errors import MultipleTreants as MultipleTreantsError
from storage.errors import NotATreant as NotATreantError
from storage.errors import NoTreants as NoTreantsError
from storage.treants.bundles import Bundle
from storage.treants.discovery import discover
from storage.treants.group import Group
from storage.treants.leaves import Leaf
from storage.treants.treant import Treant
from storage.treants.trees import Tree
from storage.treants.veg import Veg
from storage.treants.views import View

__all__ = [
    "Bundle",
    "Group",
    "Leaf",
    "MultipleTreantsError",
    "NoTreantsError",
    "NotATreantError",
    "Treant",
    "Tree",
    "Veg",
    "View",
    "discover",
]
