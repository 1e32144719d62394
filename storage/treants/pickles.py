"""What may be unpickled without anybody having asked for it: nothing but plain values, times and time zones.

PyTables keeps attributes of its nodes as pickles, and loads them when a file is opened: so a table from somebody else could run
any program. Every such pickle is loaded here first, by a loader that knows a few harmless names only; PyTables' own loader then
does exactly the same steps.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import h5py

from storage.errors import InvalidInput, Unsupported

_OFFSETS = "pandas._libs.tslibs.offsets"
_HARMLESS = {
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("datetime", "datetime"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("zoneinfo", "ZoneInfo"),
}
# What h5py raises for files that are damaged, and what loading a text that is no pickle may end in.
_UNREADABLE = (OSError, RuntimeError, KeyError, TypeError)
_NO_PICKLE = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    ImportError,
    OverflowError,
)


class _Forbidden(Exception):
    """A pickle wants something that is not harmless."""


def _zone_getattr(owner: object, name: object) -> Any:
    """How a time zone is loaded, and nothing else."""
    if owner is ZoneInfo and name == "_unpickle":
        return ZoneInfo._unpickle  # type: ignore[attr-defined]  # what its own pickles name
    raise _Forbidden(f"getattr of {name!r}")


class _Harmless(pickle.Unpickler):
    """Loads pickles of plain values, times and time zones."""

    def find_class(self, module: str, name: str) -> Any:
        """The harmless thing of that name."""
        if name == "getattr" and module in ("__builtin__", "builtins"):
            return _zone_getattr
        if (module, name) in _HARMLESS or (module == _OFFSETS and name.isidentifier() and name[0].isupper()):
            return super().find_class(module, name)
        raise _Forbidden(f"{module}.{name}")


def refuse_pickles(data: bytes, where: str) -> None:
    """Look through an HDF5 file that PyTables is to read. Unsupported (a ValueError) where it would unpickle more than plain
    values and times, or read other files; InvalidInput where it cannot be read.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            for text in _texts(file, where):
                _try(text, where)
    except _UNREADABLE as error:
        raise InvalidInput(f"it cannot be read: {error}", where=where) from error


def _texts(file: h5py.File, where: str) -> Iterator[bytes]:
    """Everything in a file that PyTables may take for a pickle."""
    found: list[Any] = [file]
    file.visititems(lambda _, item: found.append(item))
    links: list[Any] = []
    file.visititems_links(lambda _, link: links.append(link))
    if any(isinstance(link, h5py.ExternalLink) for link in links):
        raise refusal(where, "a link to another file")
    for item in found:
        for name, value in item.attrs.items():
            if isinstance(value, bytes) and value.endswith(b"."):
                if name == "FILTERS":  # PyTables changes such ones before it loads them
                    raise refusal(where, "filters as a pickle")
                yield bytes(value)
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise refusal(where, "data that lie in another file")
            if h5py.check_vlen_dtype(item.dtype) is not None:
                yield from (row.tobytes() for row in item)


def _try(text: bytes, where: str) -> None:
    for encoding in ("ASCII", "latin1", "bytes"):  # PyTables tries one after the other
        try:
            _Harmless(io.BytesIO(text), encoding=encoding).load()
        except _Forbidden as error:
            raise refusal(where, f"a pickle of {error}") from None
        except _NO_PICKLE:
            continue  # any text may end in a full stop


def refusal(where: str, what: str) -> Unsupported:
    """Why something is not read."""
    return Unsupported(
        f"{where} holds {what}, which could run any program: pass allow_pickle=True if you trust whoever wrote it"
    )
