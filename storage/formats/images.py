"""Images, through Pillow: a sample is the array of an image's pixels, height x width x channels.

Grey images have one channel, colour three, with transparency one more; 8 bits each, or 16 where the file has them.
Palettes and other colour spaces are turned into these. Pixels are taken as they lie in the file: a note of how the
camera was held is not applied. To keep the files themselves, import them as a tree.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from storage.errors import InvalidInput, Unsupported
from storage.formats.base import Item, Options, Samples, Stored, natural_file, regular_file
from storage.formats.npy import require_by
from storage.model.records import Kind
from storage.model.samples import Array

_DIRECT = {"L", "RGB", "RGBA", "LA"}
_CONVERTED = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
    "RGBX": "RGB",
}
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N")
# Pillow refuses to unpack twice this many pixels, and warns above it: to us the warning is the limit.
_UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    SyntaxError,
    ValueError,
)


class ImageFormat:
    """Images of all kinds that Pillow reads."""

    name = "image"
    suffixes = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm")

    def weigh(self, path: Path, options: Options) -> int:
        """The file's size."""
        return path.stat().st_size

    def load(self, path: Path, options: Options) -> Iterator[Item]:
        """The image as one sample, named as the file."""
        require_by(options, self.name, "file")
        yield Samples(load_image(path)[None], [natural_file(path)], str(path))
        options.meter.advance(path.stat().st_size)

    def save(self, stored: Stored, path: Path, options: Options) -> None:
        """One sample as an image; a dataset as a directory of `.png` files."""
        dataset = stored.dataset
        if dataset is None:
            _save(stored, path, options)
            return
        path.mkdir()
        for name, child in stored.children():
            if child.entry.kind is Kind.SAMPLE:
                _save(
                    child,
                    path / (name[: -len(dataset.schema.suffix)].decode("utf-8", "surrogateescape") + ".png"),
                    options,
                )


def load_image(path: Path) -> Array:
    """An image's pixels: height x width x channels. InvalidInput."""
    fd, _ = regular_file(path)
    try:
        with open(fd, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                frames = getattr(image, "n_frames", 1)
                if frames != 1:
                    raise InvalidInput(f"the image has {frames} frames: a sample is one", where=str(path))
                return _array(image, path)
    except InvalidInput:
        raise
    except (*_UNREADABLE, OSError) as error:
        raise InvalidInput(f"the image cannot be read: {error}", where=str(path)) from error


def _array(image: Image.Image, path: Path) -> Array:
    if image.mode in _WIDE:
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode in ("I", "F"):
        return np.asarray(image)[..., None]
    mode = image.mode if image.mode in _DIRECT else _CONVERTED.get(image.mode)
    if mode is None:
        raise InvalidInput(f"the image's mode {image.mode} is not known", where=str(path))
    if image.mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    array = np.asarray(image if mode == image.mode else image.convert(mode))
    return array if array.ndim == 3 else array[..., None]


def _save(stored: Stored, path: Path, options: Options) -> None:
    array = stored.array
    if array is None:
        raise Unsupported(f"{stored.name} is neither a sample nor a dataset: it is no image")
    save_image(array, path, stored.name)
    options.meter.advance(stored.entry.size)


def save_image(array: Array, path: Path, what: str) -> None:
    """Write an image to a new file, in the format of its ending. Unsupported, FileExistsError."""
    pixels = _fitting(array, what)
    with open(path, "xb") as out:
        _write(pixels, out, Image.registered_extensions().get(path.suffix.lower(), "PNG"), what)


def png(array: Array, what: str) -> bytes:
    """An image as the bytes of a `.png` file. Unsupported."""
    out = io.BytesIO()
    _write(_fitting(array, what), out, "PNG", what)
    return out.getvalue()


def _fitting(array: Array, what: str) -> Array:
    fits = array.dtype in (np.uint8, np.uint16, np.bool_) and array.ndim in (2, 3) and array.size
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not fits or (array.ndim == 3 and (array.shape[2] not in (2, 3, 4) or array.dtype != np.uint8)):
        raise Unsupported(f"{what} of {array.dtype} {array.shape} is no image: that is uint8, height x width x 1 to 4")
    return array


def _write(pixels: Array, out: IO[bytes], kind: str, what: str) -> None:
    try:
        Image.fromarray(pixels).save(out, kind)
    except (OSError, ValueError) as error:
        raise Unsupported(f"{what} cannot be written as {kind}: {error}") from error
