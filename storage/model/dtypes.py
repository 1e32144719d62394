"""Numpy's dtypes as text, and which of them a stored schema may name."""

from __future__ import annotations

import ast
import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib import format as npy

from storage.errors import Unsupported

DIMENSIONS_MAX = 64
"""numpy 2 has no more; numpy 1 has 32."""
BYTES_MAX = 1 << 60
_NO_DTYPE = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, OverflowError, KeyError, IndexError)


def dtype_text(dtype: np.dtype[Any]) -> str:
    """A dtype as text: numpy's `dtype.str`, or the literal of its description for structured ones.

    Unsupported for what no `.npy` file can say: fields that overlap or are out of order.
    """
    try:
        described: Any = npy.dtype_to_descr(dtype)
    except ValueError as error:
        raise Unsupported(
            f"dtype {dtype} has overlapping or out-of-order fields: numpy.lib.recfunctions.repack_fields makes others"
        ) from error
    return described if isinstance(described, str) else repr(described)


@lru_cache(maxsize=256)
def dtype_of(text: str) -> np.dtype[Any]:
    """The dtype that dtype_text wrote."""
    description: Any = ast.literal_eval(text) if text.startswith(("[", "(")) else text
    return npy.descr_to_dtype(description)


def why_no_array(text: str, shape: tuple[int, ...], *, variable: bool) -> str:
    """Why no array can have that dtype and shape (the largest one where `variable`); empty where one can."""
    try:
        dtype = dtype_of(text)
    except _NO_DTYPE as error:
        return f"{text[:80]!r} is no dtype: {error}"
    if dtype.hasobject:
        return f"{text[:80]!r} holds Python objects"
    if len(shape) > DIMENSIONS_MAX or any(size < 0 for size in shape):
        return f"no array has the shape {shape[:DIMENSIONS_MAX]}"
    if not variable and dtype.itemsize * math.prod(shape) > BYTES_MAX:
        return f"no array of {text[:80]} has room for the shape {shape}"
    return ""
