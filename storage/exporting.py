"""Export: something stored becomes a file or directory outside, all of it or nothing.

It is written under a temporary name beside the destination and renamed at the end, so that nobody sees half of it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from storage.errors import Exists
from storage.formats import registry
from storage.formats.base import Format, Meter, Options, Silent
from storage.formats.stored import Stored
from storage.formats.tree import TREE
from storage.model.names import Path as TreePath
from storage.model.records import Kind
from storage.session import Session


def export_tree(
    session: Session,
    path: TreePath,
    destination: str | os.PathLike[str],
    *,
    format: str = "",
    force: bool = False,
    meter: Meter | None = None,
) -> Path:
    """Write what is at `path` of a tree to `destination`: see `Checkout.export`."""
    target = Path(destination)
    session.flush()
    stored = Stored(session, path)
    chosen = _format(stored, target, format)
    if not force:
        _require_free(target)
    options = Options(meter=meter or Silent())
    # What is staged in a directory is not counted: the meter shows no end then.
    options.meter.start(0 if stored.entry.kind is Kind.STAGED else stored.entry.size)
    temporary = target.with_name(f".{target.stem[:100]}-{secrets.token_hex(6)}{target.suffix}")
    try:
        chosen.save(stored, temporary, options)
        _publish(temporary, target, force)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename = str(target)  # of a full disk the system tells no name, else one that nobody knows
        raise
    finally:
        _remove(temporary)
    return target


def _format(stored: Stored, target: Path, name: str) -> Format:
    """The format that is named, else that of the destination's ending; a plain file keeps its bytes, whatever the name."""
    if name:
        return registry.named(name)
    whole = stored.entry.is_directory or stored.entry.kind is Kind.SAMPLE
    return registry.for_suffix(target) if target.suffix and whole else TREE


def _require_free(target: Path) -> None:
    if os.path.lexists(target):
        raise Exists(f"{target} is there already: force replaces it")


def _publish(temporary: Path, target: Path, force: bool) -> None:
    """Give what was written its name. A directory in the way is put aside first, and back again if that fails."""
    if not force:
        _require_free(target)
    if not (target.is_dir() and not target.is_symlink()):
        if temporary.is_dir():
            with suppress(FileNotFoundError):
                target.unlink()
        os.replace(temporary, target)
        return
    aside = target.with_name(f".{target.name[:100]}-{secrets.token_hex(6)}")
    os.rename(target, aside)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.rename(aside, target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
