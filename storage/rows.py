"""What a repository tells of its branches, tags and operations."""

from __future__ import annotations

from typing import NamedTuple

from storage.model.texts import short_fields
from storage.stores.revisions import Operation


class BranchHead(NamedTuple):
    """A branch and its last commit, 64 hexadecimal digits; empty before the first one."""

    name: str
    digest: str

    def __repr__(self) -> str:
        """One line, long texts cut."""
        return short_fields(self)


class Tag(NamedTuple):
    """A tag: its commit, 64 hexadecimal digits, why it was made, and when, in seconds since 1970."""

    name: str
    digest: str
    message: str
    time: float

    def __repr__(self) -> str:
        """One line, long texts cut."""
        return short_fields(self)


class OperationRow(NamedTuple):
    """One row of the operation log: `moved` are refs with where they were and are, empty where they did not exist."""

    number: int
    time: float
    author: str
    description: str
    moved: tuple[tuple[str, str, str], ...]

    def __repr__(self) -> str:
        """One line, long texts cut."""
        return short_fields(self)


def operation_row(operation: Operation) -> OperationRow:
    """An operation, as users see it."""
    return OperationRow(
        operation.number, operation.time / 1e9, operation.author, operation.description, tuple(operation.changes)
    )
