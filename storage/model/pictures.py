"""Small pictures of arrays, for notebooks: thumbnails as PNG, curves as SVG. Whatever the array, a few kilobytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from storage.model.samples import Array

SIDE = 72
"""Pixels of a thumbnail's longer side as it is shown."""

SMALLEST = 8
"""Arrays with fewer rows or columns are tables of numbers rather than images."""

LONGEST = 16
"""Images are at most so many times longer on one side than on the other."""

BINS = 60
"""A curve of more values than twice that shows the least and the greatest of each of so many stretches."""

_CHANNELS = (1, 3, 4)
_WIDTH, _HEIGHT = 160, 28  # of a curve, in pixels


def is_image(dtype: np.dtype[Any], shape: Sequence[int]) -> bool:
    """Whether arrays of that dtype and shape can be looked at: numbers H x W, or with 1, 3 or 4 channels last or first."""
    sides = _sides(tuple(shape))
    return dtype.kind in "buif" and sides is not None and min(sides) >= SMALLEST and max(sides) <= LONGEST * min(sides)


def is_curve(dtype: np.dtype[Any], shape: Sequence[int]) -> bool:
    """Whether arrays of that dtype and shape can be drawn as a curve: a row of at least two numbers."""
    return dtype.kind in "buif" and len(shape) == 1 and shape[0] > 1


def thumbnail(array: Array) -> tuple[str, int, int]:
    """An image of `is_image` as the URI of a PNG, with the width and the height in pixels to show it at.

    Bytes are taken as brightness. Other numbers are spread from black for the least to white for the greatest; those that
    are not finite are black.
    """
    from PIL import Image  # here, as whoever draws no picture need not wait for Pillow

    height, width = _sides(array.shape) or (0, 0)
    if array.ndim == 3:
        array = array if array.shape[2] in _CHANNELS else np.moveaxis(array, 0, 2)
        array = array[:, :, 0] if array.shape[2] == 1 else array
    # Every so many pixels only: averaging millions of them for a picture of this size would be seen in the time alone.
    array = array[:: max(1, height // (4 * SIDE)), :: max(1, width // (4 * SIDE))]

    image = Image.fromarray(np.ascontiguousarray(_brightness(array)))
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "PNG")
    scale = SIDE / max(height, width)
    uri = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    return uri, max(1, round(width * scale)), max(1, round(height * scale))


def curve(array: Array) -> str:
    """Numbers in a row as an SVG element in the colour of the text around it; numbers that are not finite are left out.

    Empty where fewer than two are left.
    """
    with np.errstate(all="ignore"):
        numbers = np.asarray(array).ravel().astype(np.float64)
    places = np.flatnonzero(np.isfinite(numbers))
    if places.size < 2:
        return ""
    low, high = float(numbers[places].min()), float(numbers[places].max())
    places, heights = _condensed(places, _spread(numbers[places], low, high))
    x = 1 + places / max(1, numbers.size - 1) * (_WIDTH - 2)
    y = 1 + (1 - heights) * (_HEIGHT - 2)
    points = " ".join(f"{a:.4g},{b:.4g}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'style="vertical-align:middle;overflow:visible"><title>{low:.4g} … {high:.4g}</title><polyline points="{points}" '
        f'fill="none" stroke="currentColor" stroke-width="1.2" stroke-linejoin="round" opacity="0.8"/></svg>'
    )


def _sides(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Height and width of an image with that shape; None where it is none."""
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) == 3 and shape[2] in _CHANNELS:
        return shape[0], shape[1]
    if len(shape) == 3 and shape[0] in _CHANNELS:
        return shape[1], shape[2]
    return None


def _brightness(array: Array) -> Array:
    if array.dtype == np.uint8:
        return array
    with np.errstate(all="ignore"):
        numbers = array.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return np.zeros(array.shape, np.uint8)
    spread = _spread(numbers, float(numbers[finite].min()), float(numbers[finite].max()))
    return np.where(finite, spread * 255, 0).astype(np.uint8)


def _spread(numbers: Array, low: float, high: float) -> Array:
    """Numbers from `low` to `high` as numbers from 0 to 1; equal ones are all in the middle."""
    if low == high:
        return np.full(numbers.shape, 0.5)
    # Halves first: the greatest float less the least one is too large for a float.
    with np.errstate(all="ignore"):
        spread: Array = (numbers / 2 - low / 2) / (high / 2 - low / 2)
    return spread


def _condensed(places: Array, heights: Array) -> tuple[Array, Array]:
    if heights.size <= 2 * BINS:
        return places, heights
    starts = np.linspace(0, heights.size, BINS, endpoint=False).astype(np.intp)
    both = np.stack([np.minimum.reduceat(heights, starts), np.maximum.reduceat(heights, starts)], axis=1)
    return np.repeat(places[starts], 2), both.ravel()
