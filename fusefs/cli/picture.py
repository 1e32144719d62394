"""Arrays as text for people: numbers with shape and dtype, images as a picture made of characters."""

from __future__ import annotations

import numpy as np

from storage.model.samples import Array

INK = " .:-=+*#%@"
"""From nothing to full, ten steps."""
SMALLEST = 8
"""Arrays with fewer rows or columns than this are numbers to people, no picture."""
WIDEST = 96
"""A picture takes no more columns, however wide the terminal is."""

_CHANNELS = (1, 3, 4)


def looks_like_image(array: Array) -> bool:
    """Whether it is height x width, or height x width x 1, 3 or 4, of bytes or truth values, and large enough to see."""
    return array.dtype in (np.uint8, np.bool_) and can_be_drawn(array) and min(array.shape[:2]) >= SMALLEST


def can_be_drawn(array: Array) -> bool:
    """Whether it has rows and columns of real numbers."""
    rows_and_columns = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    return rows_and_columns and array.size > 0 and array.dtype.kind in "buif"


def picture(array: Array, width: int) -> list[str]:
    """The lines of a picture at most `width` characters wide: the brighter, the more ink.

    A character is taken to be twice as high as wide. Bytes are as bright as they are; of other numbers the least is black
    and the greatest white, and what is no number is black.
    """
    from PIL import Image  # Not above: every command would wait for it.

    grey = Image.fromarray(_grey(array))
    columns = max(1, min(width, WIDEST, 2 * grey.width))
    rows = max(1, round(grey.height * columns / grey.width / 2))
    small = np.asarray(grey.resize((columns, rows), Image.Resampling.BOX), dtype=np.uint16)
    return ["".join(INK[level] for level in row).rstrip() for row in small * len(INK) // 256]


def _grey(array: Array) -> Array:
    """Its brightness, as bytes, height x width."""
    if array.ndim == 3:
        # Where there is transparency, it is left out; red, green and blue weigh as the eye has it.
        array = array[..., :3] @ np.array([0.299, 0.587, 0.114]) if array.shape[2] > 1 else array[..., 0]
        if array.dtype.kind == "f" and array.size and array.max() <= 255 and array.min() >= 0:
            return array.astype(np.uint8)
    if array.dtype == np.uint8:
        return array
    values = array.astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    scaled = (np.where(finite, values, low) - low) / ((high - low) or 1.0)
    return np.asarray(scaled * 255, dtype=np.uint8)


def numbers(array: Array, width: int) -> str:
    """The elements as numpy prints them, the middle of large arrays left out."""
    with np.printoptions(linewidth=max(20, width), threshold=1000):
        return str(array)
