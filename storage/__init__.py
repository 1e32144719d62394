"""arborfs: a versioned dataset repository. The Python API starts at `Repository`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.repository import Repository

__all__ = ["Repository"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what is asked for: whoever needs the errors alone, such as a command line, does not wait for all the rest."""
    if name in __all__:
        from storage.repository import Repository

        return Repository
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
