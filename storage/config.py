"""A repository's folder, and the configuration in it.

The command line reads these before it knows whether it needs anything else: what is imported here is light.
"""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec

from storage.disk import files
from storage.errors import Corrupt, NewerFormat, NotARepository, StorageFailed
from storage.model.format import FORMAT_VERSION, MALFORMED
from storage.model.names import CONTROL

CONFIG_MAX = 1 << 26
"""Bytes that `config.json` has at most."""


class Config(msgspec.Struct, frozen=True):
    """`config.json`: the format, the repository's own id, and who commits."""

    format: int
    id: str
    name: str
    email: str


def folder(path: Path) -> Path:
    """The folder inside a repository's folder that holds its data."""
    return path / CONTROL.decode()


def read_config(path: Path) -> Config:
    """A repository's configuration. NotARepository, NewerFormat, Corrupt."""
    where = folder(path) / "config.json"
    try:
        data = files.read_file(where, CONFIG_MAX)
    except FileNotFoundError:
        raise NotARepository(f"{path} holds no arborfs repository: make one with `arborfs init {path}`") from None
    except StorageFailed as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise NotARepository(f"{path} holds no arborfs repository: {error}") from error
        raise
    try:
        version = msgspec.json.decode(data).get("format", 0)
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise NewerFormat(
                f"{path} has format {version}, this arborfs reads up to {FORMAT_VERSION}: install a newer arborfs"
            )
        config = msgspec.json.decode(data, type=Config)
        if config.format < 1:
            raise Corrupt(f"{where} cannot be read: there is no format {config.format}", where=str(where))
        return config
    except (*MALFORMED, AttributeError) as error:
        raise Corrupt(f"{where} cannot be read: {error}", where=str(where)) from error
