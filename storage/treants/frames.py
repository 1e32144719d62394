"""Tables and series of pandas as HDF5 files in memory, in pandas' table form: parts of them are read, and rows come and go."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from storage.errors import InvalidInput, NotFound, NotInstalled, Unsupported, WrongType
from storage.treants.pickles import refuse_pickles

NAME = "main"
COLUMNS_MAX = 256
"""Tables with more columns are stored faster, but `where` knows only their index."""

_RESERVED = ("index", "columns")


def is_frame(value: object) -> bool:
    """Whether it is a DataFrame or a Series of pandas, which need not be installed for this."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and type(value) in (pandas.DataFrame, pandas.Series)


def pandas_installed() -> Any:
    """The module, with which PyTables is needed; NotInstalled (an ImportError) where one is not there."""
    try:
        import pandas
        import tables  # noqa: F401
    except ImportError as error:
        raise NotInstalled("tables of pandas", "treants") from error
    return pandas


@contextmanager
def _opened(mode: str, data: bytes = b"") -> Iterator[Any]:
    """A store in memory."""
    pandas = pandas_installed()
    image = {"driver_core_image": data} if data else {}
    # No file of that name is touched: the name is all that HDF5's driver for memory knows its files by.
    with pandas.HDFStore("arborfs.h5", mode=mode, driver="H5FD_CORE", driver_core_backing_store=0, **image) as store:
        yield store


def _image(store: Any) -> bytes:
    store.flush()
    return bytes(store.root._v_file.get_file_image())


def encode_frame(frame: Any) -> bytes:
    """The bytes of an HDF5 file that holds it. Unsupported (a ValueError) for what HDF5 does not hold."""
    options: dict[str, Any] = {"format": "table", "data_columns": _searchable(frame), "index": False}
    if not len(frame) or not getattr(frame, "shape", (1, 1))[-1]:
        options = {"format": "fixed"}  # a table cannot be empty
    with warnings.catch_warnings(), _opened("w") as store:
        warnings.simplefilter("ignore")  # on names that are no identifiers of Python, and on pickles of column names
        try:
            store.put(NAME, frame, track_times=False, **options)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise Unsupported(f"HDF5 does not hold this: {error}. Convert it, or allow pickles") from error
        return _image(store)


def _searchable(frame: Any) -> list[str] | None:
    """The columns that `where` may name."""
    names = list(frame.columns) if hasattr(frame, "columns") else []
    if len(names) > COLUMNS_MAX or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        return None
    return [name for name in names if name.isidentifier() and name not in _RESERVED] or None


def read_frame(data: bytes, path: str, allow_pickle: bool, **part: Any) -> Any:
    """What a file holds, or the part of it that pandas' `select` gives for `part`; with `iterator` or `chunksize` piece by
    piece.

    Unsupported (a ValueError) for a file that holds pickles, unless they are allowed; InvalidInput for one that holds no table.
    """
    pandas_installed()
    pieces = _pieces(data, path, allow_pickle, **part)
    if part.get("iterator") or part.get("chunksize"):
        return pieces
    return next(pieces)


def _pieces(data: bytes, path: str, allow_pickle: bool, **part: Any) -> Iterator[Any]:
    if not allow_pickle:
        refuse_pickles(data, path)
    wanted = {name: value for name, value in part.items() if value is not None}
    with _opened("r", data) as store:
        if NAME not in store:
            raise InvalidInput(f"it holds no table {NAME!r}", where=path)
        found = store.select(NAME, **wanted) if store.get_storer(NAME).is_table else _whole(store, wanted)
        if wanted.get("iterator") or wanted.get("chunksize"):
            yield from found
        else:
            yield found


def _whole(store: Any, part: dict[str, Any]) -> Any:
    """What was stored in one piece: nothing in it can be searched."""
    if any(part.pop(name, None) is not None for name in ("where", "iterator", "chunksize")):
        raise Unsupported("it is empty, or was not stored as a table: read it whole")
    found = store.get(NAME).iloc[part.get("start") : part.get("stop")]
    return found[part["columns"]] if "columns" in part else found


def appended(data: bytes, path: str, allow_pickle: bool, more: Any) -> bytes:
    """The file with the rows of `more` behind its own. WrongType (a TypeError) for another kind of object, Unsupported (a
    ValueError) for other columns. Types become as wide as both need.
    """
    _require_alike(read_frame(data, path, allow_pickle, stop=1), more)
    with warnings.catch_warnings(), _opened("a", data) as store:
        warnings.simplefilter("ignore")
        if len(more) and store.get_storer(NAME).is_table:
            try:
                store.append(NAME, more, format="table", index=False)
                return _image(store)
            except (ValueError, TypeError):
                pass  # longer texts, wider numbers: all of it is stored anew
    pandas = pandas_installed()
    old = read_frame(data, path, allow_pickle)
    return encode_frame(pandas.concat([old, more]) if len(old) and len(more) else more if len(more) else old)


def _require_alike(old: Any, more: Any) -> None:
    if type(old) is not type(more):
        raise WrongType(f"it is a {type(old).__name__}: a {type(more).__name__} cannot be appended to it")
    if hasattr(old, "columns") and list(old.columns) != list(more.columns):
        raise Unsupported(f"its columns are {list(old.columns)!r:.200}, not {list(more.columns)!r:.200}")


def without_rows(data: bytes, path: str, allow_pickle: bool, where: Any, start: int | None, stop: int | None) -> bytes:
    """The file without the rows that fulfil a condition, or stand at those positions."""
    frame = read_frame(data, path, allow_pickle)
    if not len(frame):
        return data
    with _opened("r", data) as store:
        gone = store.select_as_coordinates(NAME, where=where, start=start, stop=stop)
    kept = np.ones(len(frame), bool)
    kept[np.asarray(gone)] = False
    return encode_frame(frame[kept])


def without_columns(data: bytes, path: str, allow_pickle: bool, columns: Any) -> bytes:
    """The file without some columns. NotFound (a KeyError) for one that is not there, WrongType (a TypeError) for a Series."""
    frame = read_frame(data, path, allow_pickle)
    if not hasattr(frame, "columns"):
        raise WrongType("a Series has no columns")
    names = [columns] if isinstance(columns, str) else list(columns)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise NotFound(f"there are no columns {missing!r} in {path}")
    return encode_frame(frame.drop(columns=names))
