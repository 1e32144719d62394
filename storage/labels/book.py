"""Labels → paths, made from what a walk has found, and kept true to it piece by piece."""

from __future__ import annotations

import os

from storage.labels.marks import Key, Marker, Scalar, Token, token, value_of
from storage.labels.walk import Directory, Mark

_NOTHING = Directory(0, b"", False, {}, {})


class Book:
    """What is marked in one tree, by path and by label. Paths are texts from the top of the tree.

    Changed by one thread at a time; every single question may be asked by others meanwhile.
    """

    def __init__(self, marker: Marker) -> None:
        self.marker = marker
        self.marked: set[str] = set()
        self.damaged: dict[str, str] = {}
        self.labels: dict[Key, dict[Token, set[str]]] = {}

    def change(self, path: str, old: Directory | None, new: Directory | None) -> None:
        """Take in that at `path`, and below it, there is what `new` says where there was what `old` says."""
        if old is new:
            return
        old, new = old or _NOTHING, new or _NOTHING
        if old.marks or new.marks:
            self.change_marks(path, old.marks, new.marks)
        before = old.children
        path = f"{path}/" if path else ""
        for name, child in new.children.items():
            known = before.get(name)
            if known is not child:
                self.change(path + os.fsdecode(name), known, child)
        for name, child in before.items():
            if name not in new.children:
                self.change(path + os.fsdecode(name), child, None)

    def change_marks(self, path: str, old: dict[bytes, Mark], new: dict[bytes, Mark]) -> None:
        """The same of the marks in the directory itself: all of them, or those files that may have changed."""
        if old == new:
            return
        if old:
            said, wrong = self._said(path, old)
            for where, kept in said.items():
                self._forget(where, kept)
            for where in wrong:
                self.damaged.pop(where, None)
        if new:
            said, wrong = self._said(path, new)
            for where, kept in said.items():
                self._note(where, kept)
            if wrong:
                self.damaged.update(wrong)

    def _said(self, path: str, marks: dict[bytes, Mark]) -> tuple[dict[str, bytes], dict[str, str]]:
        """What the marks in a directory mark, with what they say; and what is damaged, with the reason."""
        if not self.marker.directories:
            good = {below(path, name): mark.kept for name, mark in marks.items() if not mark.problem}
            return good, {below(path, name): mark.problem for name, mark in marks.items() if mark.problem}
        if len(marks) > 1:
            named = ", ".join(sorted(os.fsdecode(name) for name in marks))
            return {}, {path: f"{path or 'the top of the tree'} has {len(marks)} state files where one may be: {named}"}
        ((name, mark),) = marks.items()
        if mark.problem:
            return {}, {path: f"{below(path, name)}: {mark.problem}"}
        return {path: mark.kept}, {}

    def _note(self, path: str, kept: bytes) -> None:
        self.marked.add(path)
        for key, value in self.marker.labels(kept):
            values = self.labels.get(key)
            if values is None:
                values = self.labels[key] = {}
            which = token(value)
            paths = values.get(which)
            if paths is None:
                paths = values[which] = set()
            paths.add(path)

    def _forget(self, path: str, kept: bytes) -> None:
        self.marked.discard(path)
        for key, value in self.marker.labels(kept):
            values, which = self.labels.get(key, {}), token(value)
            paths = values.get(which, set())
            paths.discard(path)
            if not paths:
                values.pop(which, None)
            if not values:
                self.labels.pop(key, None)

    def having(self, key: Key, value: Scalar) -> set[str]:
        """The paths with that label; not to be changed."""
        return self.labels.get(key, {}).get(token(value), _NO_PATHS)

    def values(self, key: Key) -> list[Scalar]:
        """The values under a key."""
        return [value_of(which) for which in list(self.labels.get(key, ()))]


_NO_PATHS: set[str] = set()


def below(path: str, name: bytes) -> str:
    """The path of what stands in a directory under that name."""
    return f"{path}/{os.fsdecode(name)}" if path else os.fsdecode(name)
