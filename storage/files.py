"""The files and directories of a branch or a commit, by path: what a mount shows, without one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from storage.config import folder
from storage.disk.files import make_directory
from storage.disk.locks import alone
from storage.entries import sample_schema
from storage.errors import (
    Collected,
    Conflict,
    Exists,
    IsADirectory,
    NotADirectory,
    NotFound,
    ReadOnly,
    Unsupported,
)
from storage.file_reader import USER, FileInfo, FilePath, FileReader, tree_path
from storage.file_samples import birth_attributes, value_rows
from storage.model.chunking import INLINE_MAX
from storage.model.digest import blake, hexed
from storage.model.names import Path, path_text
from storage.model.records import Attributes, Entry, Kind, Schema, directory_entry
from storage.model.samples import BytesSource, PiecesSource, Source
from storage.model.values import check_file, is_json
from storage.stores.contents import stored_entry
from storage.tree.node import EMPTY
from storage.worktree import WorkingTree

__all__ = ["Data", "FileInfo", "FilePath", "Files", "tree_path"]

Data = bytes | memoryview | tuple[bytes | memoryview, ...]
"""What a file shall hold; pieces of a tuple stand one after the other, and are not joined in memory first."""


TRIES = 1000
"""So often a change is tried again that somebody else got in before."""


class Files(FileReader):
    """The files of a branch as it stands, staged work included, or (read-only) those of a commit. Thread-safe.

    Paths are texts seen from the top of the tree, `""` is the top itself. Each change is one atomic step, as through a
    mount: any number of processes may make them at once, no writer lock is held, and it survives the end of the process when
    the call returns. InvalidName (a ValueError) for a path with `..` or with a name that no file can have; NotFound (a
    KeyError), NotADirectory, IsADirectory for what is not there or is something else; ReadOnly (a PermissionError) for
    changes of a commit.
    """

    def write(self, path: FilePath, data: Data) -> None:
        """Make or replace a file. In a dataset, a sample must fit it: SchemaMismatch (a ValueError), and nothing changes."""
        self._stored(lambda tree: tree.put_file(tree_path(path), _source(data)))

    def write_many(
        self,
        files: Mapping[str, Data | None],
        *,
        new: FilePath | None = None,
        needs: FilePath | None = None,
        compression: str = "",
    ) -> None:
        """Make, replace or (None) remove many files in one step; missing directories are made.

        What is refused of one of them is refused of all. Removing what is not there is well. With `new`, Exists where there
        is anything at that path yet; with `needs`, NotFound where there is nothing at that one: both as of that step. With
        the `compression` "none", what is no sample is stored as it is.
        """
        conditions = (None if new is None else tree_path(new), None if needs is None else tree_path(needs))
        if all(data is None or (isinstance(data, bytes) and len(data) <= INLINE_MAX) for data in files.values()):
            self._write_many(self._writeable(), files, *conditions, compression)  # nothing is stored that gc could take
        else:
            self._stored(lambda tree: self._write_many(tree, files, *conditions, compression))

    def _write_many(
        self,
        tree: WorkingTree,
        files: Mapping[str, Data | None],
        new: Path | None,
        needs: Path | None,
        compression: str,
    ) -> None:
        schemas: dict[Path, Schema | None] = {}
        entries: list[tuple[Path, Entry | None]] = []
        made: dict[Path, Entry] = {}
        now = time.time_ns()
        for text, data in files.items():
            path = tree_path(text)
            if not path:
                raise IsADirectory("the top of a tree is a directory")
            parent = path[:-1]
            if parent not in schemas:
                schemas[parent] = self._schema(parent)
                for depth in range(1, len(path)):
                    made[path[:depth]] = directory_entry(EMPTY, 0, 0, 0, mtime=now)
            if data is None:
                entries.append((path, None))
                continue
            source, schema = _source(data), sample_schema(schemas[parent], path[-1])
            if schema is not None and not source.size and not schema.takes_empty:
                schema = None
            entries.append(
                (path, stored_entry(tree.objects, source, schema, path_text(path), now, compression=compression))
            )
        tree.put_files(entries, made, new=new, needs=needs)

    def write_samples(
        self,
        directory: FilePath,
        samples: Mapping[str, bytes],
        *,
        born: tuple[str, Mapping[str, int]],
        instead: Mapping[str, bytes | None] | None = None,
        remove: Iterable[str] = (),
    ) -> Sequence[str]:
        """Remove samples from a dataset of JSON, str or bytes, then make or replace others, in one step: many at once, fast.

        `born` names an extended attribute that keeps when a name first came, and says when that was, in ns since 1970: a new
        file gets it as decimal digits, none where nothing is said; one that is replaced keeps its attributes, and gets that
        one from its mtime where it has none. Files in `instead` are only replaced while they hold what that says (None: while
        there is none); the names of those that do not are returned. Removing what is not there is well. What is refused of
        one is refused of all: SchemaMismatch; Unsupported for names that are none of samples, and for other datasets.
        """
        where = tree_path(directory)
        schema = self._writeable().schema_of(where)
        if schema is None or schema.nested or schema.kind == "array":
            raise Unsupported(f"{os.fspath(directory)} is no dataset of JSON, str or bytes")
        attribute = os.fsencode(USER + born[0]) if born[0] else b""
        extra = birth_attributes(attribute, born[1])
        left: Sequence[bytes] = ()

        def put(tree: WorkingTree) -> None:
            """Stage them."""
            rows = list(value_rows(tree, schema, samples, extra))
            expected = {os.fsencode(name): data for name, data in (instead or {}).items()}
            nonlocal left
            left = tree.put_values(where, rows, attribute, expected, [os.fsencode(name) for name in remove])

        self._stored(put)
        return [os.fsdecode(name) for name in left]

    def replace_sample(self, path: FilePath, before: bytes, after: bytes, *, born: str) -> bool:
        """Put `after` in the place of a sample that holds `before`, as `write_samples` does with `instead`, faster for one.

        False, and nothing is done, where it does not hold that, or is not there.
        """
        where = tree_path(path)
        directory, name = os.fsdecode(b"/".join(where[:-1])), where[-1]
        if len(after) <= INLINE_MAX and is_json(after):
            attribute = os.fsencode(USER + born)
            replaced = self._writeable().replace_value(where[:-1], name, before, after, attribute)
            if replaced is not None:
                return replaced
        text = os.fsdecode(name)
        return not self.write_samples(directory, {text: after}, born=(born, {}), instead={text: before})

    def edit(self, path: FilePath, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """Change a file in one step: `change` gets what it holds and returns what it shall hold, None for no file at all.

        Nobody else's change comes between, in this process or another; `change` is called again where one did. Whatever it
        raises leaves the file as it was. Returns what it holds now.
        """
        where = tree_path(path)
        for attempt in range(TRIES):
            entry, before = self._version(where)
            after = change(before)
            if after == before:
                return after
            try:
                self._stored(lambda tree, entry=entry, after=after: self._replace(tree, where, entry, after))  # type: ignore[misc]
            except Conflict:
                if attempt == TRIES - 1:
                    raise
            else:
                return after
        raise AssertionError("unreachable")

    def _version(self, path: Path) -> tuple[Entry | None, bytes | None]:
        """A file as it stands, and what it holds."""
        try:
            entry, content = self._tree.open(path)
        except NotFound:
            return None, None
        return entry, bytes(content.read(0, content.size))

    def _replace(self, tree: WorkingTree, path: Path, entry: Entry | None, data: bytes | None) -> None:
        if data is not None:
            tree.put_file(path, BytesSource(data), instead=entry)
        elif entry is not None:
            try:
                tree.remove(path, instead=entry)
            except NotFound:
                raise Conflict(path_text(path), "what was read", "") from None

    def make_directory(self, path: FilePath, *, parents: bool = False, schema: Schema | None = None) -> None:
        """Make a directory, a dataset with a `schema`. Exists where there is something; with `parents` that is well if it is a
        directory, and missing ones above it are made, too.
        """
        where = tree_path(path)
        tree = self._writeable()
        for depth in range(1, len(where)) if parents else ():
            self._make(tree, where[:depth], Attributes())
        if parents:
            self._make(tree, where, Attributes(schema=schema))
        else:
            tree.make_directory(where, attributes=Attributes(schema=schema))

    def _make(self, tree: WorkingTree, path: Path, attributes: Attributes) -> None:
        found = self._found(path)
        if found is None:
            try:
                tree.make_directory(path, attributes=attributes)
            except Exists:
                found = tree.entry(path)
        if found is not None and not found.is_directory:
            raise NotADirectory(f"{path_text(path)} is a file: there can be nothing below it")

    def remove(self, path: FilePath) -> None:
        """Remove a file or link, or a directory with all below it."""
        self._writeable().remove_tree(tree_path(path))

    def remove_directory(self, path: FilePath) -> None:
        """Remove a directory that is empty. NotEmpty (an OSError) otherwise, also if somebody fills it just now."""
        self._writeable().remove_directory(tree_path(path))

    def rename(self, old: FilePath, new: FilePath, *, replace: bool = False) -> None:
        """Move a file or a directory with all below it. Exists, unless a file is to `replace` another; NotEmpty."""
        self._writeable().rename(tree_path(old), tree_path(new), replace=replace)

    def set_attributes(self, path: FilePath, values: Mapping[str, bytes | None]) -> None:
        """Set extended attributes `user.…` by name without `user.`; None removes one."""
        pairs = {os.fsencode(USER + name): value for name, value in values.items()}
        self._writeable().set_attributes(tree_path(path), xattrs=pairs)

    def set_schema(self, path: FilePath, schema: Schema, *, born: str = "") -> None:
        """Make a directory a dataset of JSON, str or bytes; its files with the ending of samples become samples, and get
        their mtime as the extended attribute `born` if that is given and they have none: see write_samples.

        Exists where it is a dataset already; InvalidSample (a ValueError) where a file does not fit, and nothing changes.
        """
        where = tree_path(path)
        tree = self._writeable()
        before = tree.entry(where)
        if not before.is_directory:
            raise NotADirectory(f"{path_text(where)} is a file")
        if before.schema is not None:
            raise Exists(f"{path_text(where)} is a dataset already")
        fitting: dict[str, bytes] = {}
        for name, entry in tree.entries(where):
            if entry.kind is Kind.FILE and entry.size and name.endswith(schema.suffix):
                fitting[os.fsdecode(name)] = data = bytes(tree.content(entry).read(0, entry.size))
                check_file(schema.holds, BytesSource(data), path_text((*where, name)))
        tree.set_schema(where, schema)
        if fitting:
            self.write_samples(path, fitting, born=(born, {}), instead=fitting)

    def sync(self) -> None:
        """Make every change so far survive power loss, too."""
        self._writeable().sync()

    def commit(self, message: str) -> str:
        """Freeze everything staged on the branch and return the commit's name, 64 hexadecimal digits. NothingToCommit."""
        return hexed(self._writeable().commit(message))

    def locked(self, name: str) -> AbstractContextManager[object]:
        """Hold the lock of that name alone among all processes and threads that ask for it; waits for it. Not to be nested."""
        key = blake(f"{self.branch}\0{name}".encode("utf-8", "surrogateescape")).hex()[:32]
        locks = folder(self._home.path) / "locks"
        make_directory(locks)
        return alone(locks / key)

    def _writeable(self) -> WorkingTree:
        if not isinstance(self._tree, WorkingTree):
            raise ReadOnly(f"commit {self.commit_hash[:16]} never changes: change a branch")
        return self._tree

    def _stored(self, put: Callable[[WorkingTree], object]) -> None:
        """Put what may hold long contents; again where gc took them before they were staged."""
        tree = self._writeable()
        try:
            with tree.storing():
                put(tree)
        except Collected:
            with tree.storing():
                put(tree)


def _source(data: Data) -> Source:
    return PiecesSource(data) if isinstance(data, tuple) else BytesSource(data)
