"""arborfs: a versioned dataset repository. The Python API starts at `Repository`."""

from __future__ import annotations

from storage.repository import Repository

__all__ = ["Repository"]
__version__ = "0.1.0"
