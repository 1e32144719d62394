"""The metadata of a checkout: short texts by name, versioned with the data."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping

from storage import notebook, reprs
from storage.errors import InvalidName, NotFound, Unsupported
from storage.model.names import CONTROL, Path, check_key
from storage.model.records import Entry, Kind
from storage.model.samples import BytesSource
from storage.session import Session

FOLDER: Path = (CONTROL, b"metadata")
"""Where metadata stand in a tree: one file for each key."""

_WHAT = "Metadata key"


class Metadata(MutableMapping[str, str]):
    """A dict of str to str that is committed together with the data.

    Keys are names like those of samples. Each change is staged at once. Read-only where the checkout is.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getitem__(self, key: str | int) -> str:
        """The text under `key`; KeyError where there is none."""
        tree = self._session.tree
        entry = self._entry(check_key(key, _WHAT))
        if entry is None:
            raise NotFound(f"no metadata {key!r}")
        return bytes(tree.content(entry).read(0, entry.size)).decode()

    def __setitem__(self, key: str | int, value: str) -> None:
        """Stage `value` under `key`, in place of what was there."""
        self.add(key, value)

    def add(self, key: str | int, value: str) -> str:
        """Stage `value` under `key`, and return the key. The same value as before changes nothing."""
        tree = self._session.working_tree
        name = check_key(key, _WHAT)
        if not isinstance(value, str):
            raise Unsupported(f"metadata are texts: the value for {name!r} is {type(value).__name__}")
        try:
            source = BytesSource(value.encode())
        except UnicodeEncodeError as error:
            raise Unsupported(f"the value for {name!r} is not valid Unicode: {error}") from error
        if self.get(name) == value:
            return name
        self._make_folder()
        tree.put_file((*FOLDER, name.encode()), source, mtime=time.time_ns())
        return name

    def __delitem__(self, key: str | int) -> None:
        """Remove `key`; KeyError where there is none."""
        tree = self._session.working_tree
        name = check_key(key, _WHAT)
        if self._entry(name) is None:
            raise NotFound(f"no metadata {name!r}")
        tree.remove((*FOLDER, name.encode()))

    def remove(self, key: str | int) -> str:
        """Remove `key` and return it; KeyError where there is none."""
        del self[key]
        return check_key(key, _WHAT)

    def __contains__(self, key: object) -> bool:
        """Whether there is a text under `key`."""
        try:
            return self._entry(check_key(key, _WHAT)) is not None
        except InvalidName:
            return False

    def __iter__(self) -> Iterator[str]:
        """The keys, in order."""
        tree = self._session.tree
        try:
            for name, entry in tree.entries(FOLDER):
                if entry.kind is Kind.FILE:
                    yield name.decode()
        except NotFound:
            return

    def __len__(self) -> int:
        """How many keys there are."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Number of keys and access mode."""
        return reprs.metadata_text(self._session, self)

    def _repr_html_(self) -> str:
        return notebook.metadata_html(self._session, FOLDER)

    def _ipython_key_completions_(self) -> list[str]:
        return reprs.completions(self)

    def _entry(self, key: str) -> Entry | None:
        try:
            entry = self._session.tree.entry((*FOLDER, key.encode()))
        except NotFound:
            return None
        return entry if entry.kind is Kind.FILE else None

    def _make_folder(self) -> None:
        tree = self._session.working_tree
        for depth in range(1, len(FOLDER) + 1):
            try:
                tree.entry(FOLDER[:depth])
            except NotFound:
                tree.make_directory(FOLDER[:depth], mtime=time.time_ns())
