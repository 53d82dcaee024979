"""From the bytes of an image file to pixels of the network's size.

Colours: grey is repeated for a network of three channels, RGB is weighed to grey (ITU-R 601) for one of a single channel; alpha
is dropped, and what lies under transparent places counts; CMYK is turned into RGB by Pillow, without colour profiles. Files of
more than 8 bits a channel are refused. Orientation tags are ignored. All this but CMYK and the refusal is what TensorFlow's
decoders do; JPEG pixels may still differ by a few steps, since TensorFlow asks libjpeg for a faster, coarser transform.
"""

from __future__ import annotations

import zlib
from typing import IO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from ..ir import DataError
from .geometry import Region, cut_out
from .preprocess import Preprocessing

Floats = npt.NDArray[np.float32]

_MODES: Final = {1: "L", 3: "RGB"}
_UNREADABLE: Final = (OSError, ValueError, SyntaxError, EOFError, zlib.error, Image.DecompressionBombError)


def image_size(file: IO[bytes], name: str) -> tuple[int, int]:
    """Height and width from the header.

    Raises:
        DataError: not an image.
    """
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except _UNREADABLE as error:
        raise _unreadable(name, error) from None


def decode(
    file: IO[bytes],
    name: str,
    shape: tuple[int, int, int],
    prepare: Preprocessing,
    *,
    resize: bool,
    region: Region | None = None,
) -> Floats:
    """Pixels [H, W, C] float32 of 0..255 of one image; their values are not mapped yet.

    Args:
        file: an open image file.
        name: what an error message calls it.
        shape: (H, W, C) with C 1 (grey) or 3 (RGB).
        prepare: preprocessing whose geometry an image of another size goes through.
        resize: whether it does (else it is an error).
        region: the part of the image to be stretched to the network's size, in place of the geometry's choice.

    Raises:
        DataError: not an image, truncated, more than 8 bits a channel, or of another size without `resize`.
    """
    height, width, channels = shape
    try:
        with Image.open(file) as image:
            _check_depth(image, name)
            pixels = image.convert(_MODES[channels])
            fits = pixels.size == (width, height)
            if fits and region is None:
                return np.asarray(pixels, np.float32).reshape(shape)
            if not fits and not resize:
                raise DataError(
                    f"{name}: the images differ in size; give the input shape to have them resized. "
                    f"Received: {pixels.height}x{pixels.width} after {height}x{width}"
                )
            if region is None:
                return prepare.geometry.fit(pixels, (height, width))
            return cut_out(pixels, region(pixels.height, pixels.width), (height, width), prepare.geometry)
    except _UNREADABLE as error:
        raise _unreadable(name, error) from None


def _check_depth(image: ImageFile.ImageFile, name: str) -> None:
    """Pillow would clip grey of 16 bits at 255, and take the upper half of colours."""
    raw = next((str(tile[3]) for tile in image.tile), "")
    if image.mode.startswith(("I", "F")) or ";16" in raw:
        raise DataError(f"{name}: an image of 8 bits a channel is expected. Received: mode {raw or image.mode}")


def _unreadable(name: str, error: BaseException) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # Pillow's text is the address of the open file
        reason = "of no known format"
    return DataError(f"{name}: cannot be read as an image ({reason}); JPEG, PNG, BMP, WebP or PPM is expected")
