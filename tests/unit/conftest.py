"""What the tests below share: the Python API and the command line, on a fresh repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import Repository
from storage.checkout import WriterCheckout
from tests.command_line import Cli


@pytest.fixture
def repo(repository: Path) -> Iterator[Repository]:
    """A fresh repository, opened by the Python API; closed at the end."""
    with Repository(repository) as opened:
        yield opened


@pytest.fixture
def co(repo: Repository) -> Iterator[WriterCheckout]:
    """A writer on its main branch, without any dataset."""
    with repo.checkout(write=True) as writer:
        yield writer


@pytest.fixture
def cli(repository: Path) -> Cli:
    """The command line, run in this process on a fresh repository."""
    return Cli(repository)
