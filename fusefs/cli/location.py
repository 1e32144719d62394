"""Which repository, and which branch of it, a command is about."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusefs import mountinfo
from fusefs.cli.daemons import daemon_of
from storage.config import folder
from storage.errors import NotARepository
from storage.model.names import Path as TreePath

if TYPE_CHECKING:
    from storage.engine import Engine
    from storage.snapshot import Snapshot
    from storage.worktree import WorkingTree

# The first colon that is not inside braces: main@{2026-11-01 12:30}:images
_OBJECT = re.compile(r"(?P<revision>(?:[^:{]|\{[^}]*\})*)(?::(?P<path>.*))?", re.DOTALL)


def split_object(text: str) -> tuple[str, TreePath | None]:
    """`[REVISION][:PATH]` as its two parts; the path is None where there is no colon."""
    parts = _OBJECT.fullmatch(text)
    if parts is None:
        raise click.UsageError(f"{text!r} is not REVISION, :PATH or REVISION:PATH.")
    return parts["revision"], None if parts["path"] is None else tree_path(parts["path"])


def tree_path(text: str) -> TreePath:
    """A path as given on the command line, seen from the top of a tree; `.` and nothing are the top itself."""
    return tuple(name for name in os.fsencode(text).split(b"/") if name not in (b"", b"."))


@dataclass(frozen=True)
class Location:
    """Where the user stands: `named` is the folder given by -C, None where the working directory decides."""

    named: Path | None

    def repository(self) -> Path:
        """The repository's folder; NotARepository when there is none here.

        In a mount it is the mounted one: the `.arborfs` directories in there hold control files.
        """
        if self.named is not None:
            return self.named
        here = Path.cwd()
        if (mount := mount_around(here)) is not None:
            return mount.repository
        for parent in (here, *here.parents):
            if (folder(parent) / "config.json").exists():
                return parent
        raise NotARepository(f"no repository in {here} or above it: name one with -C, or make one with init")

    def branch(self, engine: Engine) -> str:
        """The branch whose working tree the user stands in; anywhere else the default branch."""
        if self.named is not None or (mount := mount_around(Path.cwd())) is None:
            return engine.head()
        daemon = daemon_of(mount)
        if daemon is not None and daemon.branch is not None:
            return daemon.branch
        match Path.cwd().relative_to(mount.mountpoint).parts:
            case ("branches", name, *_) if daemon is None or daemon.ref is None:
                return name
            case _:
                return engine.head()

    def tree(self, engine: Engine, revision: str) -> Snapshot | WorkingTree:
        """What a revision holds; with a `+` behind a branch, or for nothing at all, a working tree as it stands. NotFound."""
        if revision in ("", "+"):
            return engine.working_tree(self.branch(engine))
        if revision.endswith("+"):
            return engine.working_tree(revision[:-1])
        return engine.snapshot(engine.resolve(revision))

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """The repository, open for one command."""
        from storage.engine import Engine  # here: commands about mounts need none, and are not to wait for it

        engine = Engine.open(self.repository())
        try:
            yield engine
        finally:
            engine.close()


def mount_around(place: Path) -> mountinfo.Mount | None:
    """The innermost arborfs mount that holds `place`."""
    around = [mount for mount in mountinfo.mounts() if place.is_relative_to(mount.mountpoint)]
    return max(around, key=lambda mount: len(mount.mountpoint.parts), default=None)
