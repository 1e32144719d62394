"""Data in a directory: arrays, tables and other objects, each in a directory of its own whose path is its handle."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from storage.errors import (
    InvalidName,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotMounted,
    Unsupported,
    WrongType,
)
from storage.files import Data as Contents
from storage.files import Files
from storage.model.names import check_name
from storage.treants import arrays, frames
from storage.treants.pickles import refusal

if TYPE_CHECKING:
    from storage.treants.trees import Tree

ARRAY, FRAME, PICKLE = "npData.h5", "pdData.h5", "pyData.pkl"
"""The files that make a directory a dataset: of arrays, of pandas' tables and series, of pickled objects."""
FILES = (ARRAY, FRAME, PICKLE)

T = TypeVar("T")


class Data:
    """What is stored in and below a directory, by handle: the path of the dataset's directory from there.

    Arrays of numpy and DataFrames and Series of pandas are kept as HDF5, anything else as a pickle, and only with
    `allow_pickle`. Pickles run whatever they say when they are loaded, so none is loaded without that word either. Each change
    is one atomic step. Nothing is cached: what others move, copy or remove in the tree is seen at the next look.

    InvalidName (a ValueError) for handles with `..`, absolute ones and such that cannot be paths of files; NotFound (a
    KeyError) where no data has the handle.
    """

    def __init__(self, tree: Tree, allow_pickle: bool = False) -> None:
        self._tree = tree
        self._allow = allow_pickle

    # Storing

    def add(self, handle: str, data: object, *, allow_pickle: bool | None = None) -> None:
        """Store an object, in place of what has the handle. Unsupported (a ValueError) where it would have to be pickled and
        that is not allowed.
        """
        name, contents = self._encoded(data, allow_pickle)
        path = self._path(handle)
        files = {f"{path}/{kind}": contents if kind == name else None for kind in FILES}
        self._tree.put_files(files, arrays.compression(contents))

    def append(self, handle: str, data: object, *, allow_pickle: bool | None = None) -> None:
        """Put the rows of a DataFrame or Series behind those stored, of the same kind and with the same columns (Unsupported, a
        ValueError, otherwise). WrongType (a TypeError) for other objects.
        """
        if not frames.is_frame(data):
            raise WrongType(f"only tables and series of pandas can be appended, not {type(data).__name__}")
        self._edit(handle, "append to", lambda old, path: frames.appended(old, path, self._allows(allow_pickle), data))

    def remove(
        self,
        handle: str,
        where: Any = None,
        start: int | None = None,
        stop: int | None = None,
        columns: Any = None,
        *,
        allow_pickle: bool | None = None,
    ) -> None:
        """Remove data, and the directories that are empty then; what else is in them stays. Of tables and series also a part:
        the rows that fulfil a condition, or stand from `start` to before `stop`, or else some columns. WrongType (a
        TypeError) for parts of other objects.
        """
        rows = not (where is None and start is None and stop is None)
        allow = self._allows(allow_pickle)
        if rows and columns is not None:
            raise Unsupported("rows or columns can be removed in one step, not both")
        if rows:
            self._edit(
                handle, "remove parts of", lambda old, at: frames.without_rows(old, at, allow, where, start, stop)
            )
        elif columns is not None:
            self._edit(handle, "remove parts of", lambda old, at: frames.without_columns(old, at, allow, columns))
        else:
            self._removed(handle)

    def _removed(self, handle: str) -> None:
        path = self._path(handle)
        self._kind(handle)
        self._tree.put_files({f"{path}/{kind}": None for kind in FILES})
        top = self._tree.place.path
        while path != top:
            try:
                self._files.remove_directory(path)
            except (NotEmpty, NotFound, NotADirectory):
                return
            path = os.path.dirname(path)

    def _edit(self, handle: str, what: str, change: Callable[[bytes, str], bytes]) -> None:
        """Change a table in one step."""
        kind = self._kind(handle)
        if kind != FRAME:
            raise WrongType(f"{handle!r} is neither a table nor a series of pandas: one cannot {what} it")
        path = f"{self._path(handle)}/{FRAME}"

        def changed(old: bytes | None) -> bytes:
            """The file as it shall be."""
            if old is None:
                raise self._missing(handle)
            return change(old, path)

        # Whoever came first is not made to do all of it again by the others.
        with self._files.locked(f"data {path}"):
            self._files.edit(path, changed)

    def _encoded(self, data: object, allow_pickle: bool | None) -> tuple[str, Contents]:
        """The file that is to hold it, and what that holds."""
        try:
            if arrays.is_plain_array(data):
                return ARRAY, arrays.encode_array(data)  # type: ignore[arg-type]  # just looked at
            if frames.is_frame(data):
                return FRAME, frames.encode_frame(data)
        except Unsupported:
            if not self._allows(allow_pickle):
                raise
        if not self._allows(allow_pickle):
            raise Unsupported(
                f"{type(data).__name__} can only be kept as a pickle, which runs whatever it says when it is loaded: pass "
                f"allow_pickle=True if that is what you want"
            )
        try:
            return PICKLE, pickle.dumps(data)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise WrongType(f"{type(data).__name__} cannot be pickled: {error}") from error

    # Reading

    def retrieve(
        self,
        handle: str,
        where: Any = None,
        start: int | None = None,
        stop: int | None = None,
        columns: Any = None,
        iterator: bool = False,
        chunksize: int | None = None,
        *,
        allow_pickle: bool | None = None,
    ) -> Any:
        """The object, or a part of it. NotFound (a KeyError).

        Of tables and series the rows that fulfil a condition, such as `"A < -2 & C > 2"`, those from `start` to before
        `stop`, some columns; with `iterator` or `chunksize` piece by piece. Of arrays the rows from `start` to before
        `stop`. WrongType (a TypeError) for parts that others do not have.
        """
        kind = self._kind(handle)
        path = f"{self._path(handle)}/{kind}"
        table_only = where is not None or columns is not None or iterator or chunksize is not None
        if (kind != FRAME and table_only) or (kind == PICKLE and not (start is None and stop is None)):
            raise WrongType(f"{handle!r} is neither a table nor a series of pandas: it is read whole")
        if kind == ARRAY:
            with self._reading(handle, lambda: self._files.open(path)) as file:
                return arrays.read_array(file, path, start, stop)
        if kind == PICKLE and not self._allows(allow_pickle):
            raise refusal(path, "a pickle")
        data = self._reading(handle, lambda: self._files.read(path))
        if kind == PICKLE:
            return pickle.loads(data)
        part = {"where": where, "start": start, "stop": stop, "columns": columns}
        part |= {"iterator": iterator or None, "chunksize": chunksize}
        return frames.read_frame(data, path, self._allows(allow_pickle), **part)

    def _reading(self, handle: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except (NotFound, NotADirectory):
            raise self._missing(handle) from None

    def keys(self) -> list[str]:
        """The handles, sorted."""
        self._tree.require()
        return sorted(_handles(self._files, self._tree.place.path, ""))

    @overload
    def __getitem__(self, handle: str) -> Any: ...

    @overload
    def __getitem__(self, handle: list[str]) -> list[Any]: ...

    def __getitem__(self, handle: str | list[str]) -> Any:
        """The object that has the handle; for a list of handles the list of theirs."""
        return [self.retrieve(each) for each in handle] if isinstance(handle, list) else self.retrieve(handle)

    def __setitem__(self, handle: str, data: object) -> None:
        """Store an object, as `add` does."""
        self.add(handle, data)

    def __delitem__(self, handle: str) -> None:
        """Remove an object."""
        self.remove(handle)

    def __contains__(self, handle: object) -> bool:
        """Whether data has that handle."""
        return isinstance(handle, str) and self._found(self._path(handle)) is not None

    def __iter__(self) -> Iterator[str]:
        """The handles, sorted."""
        return iter(self.keys())

    def __len__(self) -> int:
        """How many handles there are."""
        return len(self.keys())

    def __repr__(self) -> str:
        """All handles."""
        return f"<Data({self.keys()!r})>"

    # Places

    def locate(self, handle: str) -> str:
        """The absolute path of a dataset's directory, where programs find it and may leave other files.

        NotMounted (a RuntimeError), saying how to mount, where the repository is in no mount of this machine.
        """
        self._kind(handle)
        place = self._tree.place
        top = place.usable()
        if top is None:
            raise NotMounted(
                f"{place.given} is in a repository that is not mounted. `arborfs mount {place.files.repository} "
                f"DIRECTORY` shows it as DIRECTORY/branches/{place.files.branch}/{place.path}"
            )
        return os.path.join(top, *_names(handle))

    def make_filepath(self, handle: str, filename: str) -> str:
        """The absolute path for a file in a dataset's directory, there or not. NotMounted as for `locate`."""
        check_name(os.fsencode(filename))
        return os.path.join(self.locate(handle), filename)

    @property
    def _files(self) -> Files:
        return self._tree.place.files

    def _allows(self, allow_pickle: bool | None) -> bool:
        return self._allow if allow_pickle is None else allow_pickle

    def _path(self, handle: str) -> str:
        return "/".join(filter(None, (self._tree.place.path, *_names(handle))))

    def _found(self, path: str) -> str | None:
        """The kind of data in a directory."""
        return next((kind for kind in FILES if self._files.exists(f"{path}/{kind}")), None)

    def _kind(self, handle: str) -> str:
        kind = self._found(self._path(handle))
        if kind is None:
            raise self._missing(handle)
        return kind

    def _missing(self, handle: str) -> NotFound:
        self._tree.require()
        return NotFound(f"No data for {handle!r}")


def _names(handle: str) -> list[str]:
    """The directories that lead to a dataset. InvalidName for what cannot be a handle."""
    if not isinstance(handle, str):
        raise WrongType(f"a handle is a text, not {type(handle).__name__}")
    names = [name for name in handle.split("/") if name not in ("", ".")]
    if handle.startswith("/") or ".." in names or not names:
        raise InvalidName(f"{handle!r} is no handle: it names a directory below, such as `subjects/leafy`")
    for name in names:
        check_name(os.fsencode(name))
        if name in (*FILES, ".arborfs"):
            raise InvalidName(f"{handle!r} is no handle: {name!r} is a name of arborfs's own")
    return names


def _handles(files: Files, path: str, prefix: str) -> Iterator[str]:
    """The handles below a directory of the tree; what is removed meanwhile may be missing."""
    try:
        found = list(files.list(path))
    except (NotFound, NotADirectory):
        return
    if prefix and any(name in FILES and not info.is_directory for name, info in found):
        yield prefix
    for name, info in found:
        if info.is_directory and name != ".arborfs":
            yield from _handles(files, f"{path}/{name}" if path else name, f"{prefix}/{name}" if prefix else name)
