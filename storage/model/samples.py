"""Samples and their file form: an array is a .npy file (numpy.lib.format, versions 1.0 and 2.0), other values as in values.

In the repository an array is its bytes alone; the header is made again from the schema. A file whose header is not the
one numpy writes today (another version, padding, Fortran order) keeps its header, so that it reads back the same.
"""

from __future__ import annotations

import io
import math
import tokenize
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.lib import format as npy

from storage.errors import InvalidSample, SchemaMismatch, Unsupported
from storage.model.digest import blake
from storage.model.dtypes import dtype_of, dtype_text, why_no_array
from storage.model.records import PLAIN, Attributes, Schema
from storage.model.values import check_file

if TYPE_CHECKING:
    from storage.model.chunking import ChunkRef

Array = np.ndarray[Any, Any]

HEADER_MAX = 1 << 16
ARRAYS = frozenset({"array", "array/sample"})
"""Kinds of directories whose samples are arrays."""
_BYTE = np.dtype(np.uint8)
_MAGIC = b"\x93NUMPY"
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Base(Protocol):
    """The stored version that a Source is an edit of."""

    @property
    def size(self) -> int:
        """Bytes of the file form."""

    @property
    def payload_offset(self) -> int:
        """Where in the file form the chunks begin: after the header."""

    @property
    def chunks(self) -> Sequence[ChunkRef]:
        """The stored chunks, none when the contents are inline."""


class Source(Protocol):
    """New contents of a file, ready to be stored."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    @property
    def base(self) -> Base | None:
        """The stored version that this is an edit of, if any."""

    @property
    def dirty(self) -> Sequence[tuple[int, int]]:
        """Ranges [start, end) that differ from the base."""

    def read(self, offset: int, size: int) -> bytes | bytearray | memoryview:
        """`size` bytes from `offset`, fewer only at the end."""


@dataclass(frozen=True, slots=True)
class BytesSource:
    """Contents that are in memory."""

    data: bytes | memoryview
    base: Base | None = None
    dirty: Sequence[tuple[int, int]] = ()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """`size` bytes from `offset`, fewer only at the end."""
        return self.data[offset : offset + size]


class PiecesSource:
    """Contents that are in memory in pieces: what is read from one of them is not copied."""

    base: Base | None = None
    dirty: Sequence[tuple[int, int]] = ()

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._pieces = [memoryview(piece).cast("B") for piece in pieces if memoryview(piece).nbytes]
        self._ends = list(accumulate(map(len, self._pieces)))

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._ends[-1] if self._ends else 0

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """`size` bytes from `offset`, fewer only at the end."""
        end = min(offset + size, self.size)
        found: list[memoryview] = []
        for number in range(bisect_right(self._ends, offset), len(self._ends)):
            start = self._ends[number] - len(self._pieces[number])
            if start >= end:
                break
            found.append(self._pieces[number][max(offset - start, 0) : end - start])
        return found[0] if len(found) == 1 else b"".join(found)


def make_schema(
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    *,
    variable: bool = False,
    named: bool = True,
    compression: str = "",
    uuid: str = "",
    kind: str = "array",
) -> Schema:
    """The schema of a dataset; Unsupported for dtypes that hold Python objects."""
    if dtype.hasobject:
        raise Unsupported(f"dtype {dtype} holds Python objects: arborfs never pickles; use numbers, bytes or strings")
    text = dtype_text(dtype)
    if why := why_no_array(text, shape, variable=variable):
        raise Unsupported(why)
    hashed = blake(repr((kind, text, shape, variable, named)).encode()).hex()[:16]
    return Schema(kind, text, shape, variable, named, compression, uuid, hashed)


@dataclass(frozen=True, slots=True)
class Header:
    """What a .npy file says of itself; `length` is where its data begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of data that must follow."""
        return self.dtype.itemsize * math.prod(self.shape)


@lru_cache(maxsize=1024)
def canonical_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header that numpy.save writes for a C-ordered array."""
    out = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(dtype_of(dtype)), "fortran_order": False, "shape": shape}
    try:
        npy.write_array_header_1_0(out, described)
    except ValueError:  # longer than 64 KiB: format 2.0 has room
        out = io.BytesIO()
        npy.write_array_header_2_0(out, described)
    return out.getvalue()


# The last one comes from Python's own tokenizer, by which numpy reads headers.
_UNREADABLE = (
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    RecursionError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
)


def parse_header(start: bytes | bytearray | memoryview) -> Header:
    """Read the header that a .npy file starts with; InvalidSample where it is not one that can be trusted.

    `start` needs to hold the whole header, at most HEADER_MAX bytes. Nothing is unpickled or evaluated.
    """
    raw = bytes(start[:HEADER_MAX])
    if not raw.startswith(_MAGIC) or len(raw) < 10:
        raise InvalidSample("not a .npy file: it does not begin with the .npy magic bytes", found=repr(raw[:8]))
    stream = io.BytesIO(raw)
    try:
        version = npy.read_magic(stream)
        if version not in _READERS:
            raise ValueError(f"format version {version} is not one of {', '.join(map(str, _READERS))}")
        shape, fortran, dtype = _READERS[version](stream, max_header_size=HEADER_MAX)
    except _UNREADABLE as error:
        raise InvalidSample(f"the .npy header cannot be read: {str(error)[:200]}") from error
    if dtype.hasobject:
        raise InvalidSample(f"dtype {dtype} holds pickled Python objects, which are never loaded", found=str(dtype))
    if any(n < 0 for n in shape):
        raise InvalidSample(f"the .npy header claims the shape {shape}", found=str(shape))
    return Header(dtype, shape, fortran, stream.tell())


def check_array(schema: Schema, dtype: np.dtype[Any], shape: tuple[int, ...], what: str = "array") -> None:
    """SchemaMismatch, naming expected and found, unless such an array is a sample under `schema`."""
    if schema.kind not in ARRAYS:
        holds = f"directories of {schema.holds}" if schema.nested else schema.holds
        raise SchemaMismatch(f"{what} is an array, the dataset holds {holds}", expected=holds, found="array")
    expected = dtype_of(schema.dtype)
    if dtype != expected:
        raise SchemaMismatch(
            f"{what} has dtype {dtype}, the dataset holds {expected}", expected=str(expected), found=str(dtype)
        )
    if not schema.variable:
        fits = shape == schema.shape
    else:
        fits = len(shape) == len(schema.shape) and all(n <= most for n, most in zip(shape, schema.shape, strict=True))
    if not fits:
        wanted = f"shape {schema.shape}" if not schema.variable else f"a shape of at most {schema.shape}"
        raise SchemaMismatch(
            f"{what} has shape {shape}, the dataset holds {wanted}", expected=str(schema.shape), found=str(shape)
        )


def read_file_form(schema: Schema, source: Source, what: str) -> tuple[Header, Attributes]:
    """Check that `source` is a whole sample under `schema`; where its data begin, and what must be kept of its header.

    InvalidSample for a file that is truncated, too long or forged, SchemaMismatch for one of another dtype or shape.
    """
    if schema.holds != "array":
        check_file(schema.holds, source, what)
        return Header(_BYTE, (source.size,), False, 0), PLAIN
    header = parse_header(source.read(0, HEADER_MAX))
    check_array(schema, header.dtype, header.shape, what)
    if header.length + header.nbytes != source.size:
        raise InvalidSample(
            f"{what} has {source.size} bytes, its header promises {header.length + header.nbytes}",
            expected=str(header.length + header.nbytes),
            found=str(source.size),
        )
    raw = bytes(source.read(0, header.length))
    usual = raw == canonical_header(schema.dtype, header.shape)
    shape = header.shape if schema.variable else None
    return header, Attributes(header=None if usual else raw, shape=shape)


def file_header(schema: Schema | None, attributes: Attributes) -> bytes:
    """The header of a sample's file form: the kept one, or the one numpy writes."""
    if attributes.header is not None:
        return attributes.header
    if schema is None or schema.kind not in ARRAYS:
        return b""
    return canonical_header(schema.dtype, attributes.shape if attributes.shape is not None else schema.shape)


def array_from(
    payload: bytes | bytearray | memoryview, schema: Schema, attributes: Attributes, *, copy: bool = True
) -> Array:
    """The array that a sample's payload holds: fresh, writeable memory of its own. InvalidSample.

    Without `copy` a view of the payload, which cannot be written to.
    """
    shape = attributes.shape if attributes.shape is not None else schema.shape
    fortran = attributes.header is not None and parse_header(attributes.header).fortran
    dtype = dtype_of(schema.dtype)
    if dtype.hasobject:
        raise InvalidSample(f"dtype {dtype} holds Python objects: they are never made of stored bytes")
    try:
        if copy:
            payload = bytearray(payload)
        elif type(payload) is not bytes:  # which nobody can write to either
            payload = memoryview(payload).toreadonly()
        return np.ndarray(shape, dtype, payload, order="F" if fortran else "C")
    except (TypeError, ValueError) as error:
        raise InvalidSample(f"{len(payload)} bytes are no array of {dtype} and shape {shape}: {error}") from error
