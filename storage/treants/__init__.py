"""Treants: directories of a branch with tags, categories and data, found again by them."""

from __future__ import annotations

from storage.treants.bundles import Bundle
from storage.treants.discovery import discover
from storage.treants.leaves import Leaf
from storage.treants.treant import Treant
from storage.treants.trees import Tree
from storage.treants.veg import Veg
from storage.treants.views import View

__all__ = ["Bundle", "Leaf", "Treant", "Tree", "Veg", "View", "discover"]
