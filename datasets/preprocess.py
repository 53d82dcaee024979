"""From an image file to the numbers a network was trained on: decode, crop, resize, map.

An image that already has the network's height and width is neither cropped nor resized. Any other is reduced to the
largest central box of the network's aspect ratio, scaled by 0.875 (for a 224 x 224 network what "shorter side to 256, then
the central 224 x 224" selects), in whole pixels; that box is resized by Pillow's `BILINEAR`, which averages over the source
area when it shrinks (`tf.image.resize` does not, unless told to), and rounded to 8 bits.

Orientation tags are ignored, as TensorFlow's decoder does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..ir import DataError

Floats = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

_CROP: Final = 0.875
_MODES: Final = {1: "L", 3: "RGB"}
_UNREADABLE: Final = (OSError, ValueError, SyntaxError, EOFError, zlib.error, Image.DecompressionBombError)


def central_box(width: int, height: int, target: tuple[int, int]) -> Box:
    """(left, upper, right, lower) of the central box of the aspect ratio of `target` (height, width), 87.5% of the largest."""
    scale = _CROP * min(height / target[0], width / target[1])
    box_height, box_width = max(1, round(target[0] * scale)), max(1, round(target[1] * scale))
    left, upper = (width - box_width) // 2, (height - box_height) // 2
    return left, upper, left + box_width, upper + box_height


def crop_and_shrink(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """`central_box`, resized to `target` (height, width) as the head of this file says; the same image where it fits."""
    if image.size == (target[1], target[0]):
        return image
    box = central_box(image.width, image.height, target)
    return image.crop(box).resize((target[1], target[0]), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Preset:
    """One way to prepare images.

    Attributes:
        resize: (image, (height, width)) -> an image of that size.
        values: float32 pixels [..., C] of 0..255 -> float32 inputs.
        help: one line for people.
    """

    resize: Callable[[Image.Image, tuple[int, int]], Image.Image]
    values: Callable[[Floats], Floats]
    help: str


_VGG_MEAN: Final = np.array([123.68, 116.78, 103.94], np.float32)

PREPROCESS: Final = MappingProxyType(
    {
        "none": Preset(crop_and_shrink, lambda x: x, "pixels as they are, 0..255"),
        "unit": Preset(crop_and_shrink, lambda x: x / np.float32(255), "x / 255, in 0..1"),
        "inception": Preset(
            crop_and_shrink, lambda x: x / np.float32(127.5) - np.float32(1), "x / 127.5 - 1, in -1..1 (Inception, MobileNet)"
        ),
        "vgg": Preset(crop_and_shrink, lambda x: x - _VGG_MEAN, "RGB minus (123.68, 116.78, 103.94) (VGG, ResNet v1)"),
    }
)
"""Presets by name."""


def preset(name: str, channels: int | None = None) -> Preset:
    """The preset of that name.

    Raises:
        DataError: there is none, or it does not fit that number of channels.
    """
    if name not in PREPROCESS:
        raise DataError(f"preprocess must be one of {', '.join(PREPROCESS)}. Received: {name!r}")
    if name == "vgg" and channels not in (None, 3):
        raise DataError(f"preprocess 'vgg' subtracts three channel means; inputs of 3 channels are expected. Received: {channels}")
    return PREPROCESS[name]


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


def decode(file: IO[bytes], name: str, shape: tuple[int, int, int], prepare: Preset, *, resize: bool) -> npt.NDArray[np.uint8]:
    """Pixels [H, W, C] uint8 of one image.

    Args:
        file: an open image file.
        name: what an error message calls it.
        shape: (H, W, C) with C 1 (grey) or 3 (RGB).
        prepare: preset that says how a differing size is resized.
        resize: whether a differing size is resized (else it is an error).

    Raises:
        DataError: not an image, truncated, more than 8 bits a channel, or of another size without `resize`.
    """
    height, width, channels = shape
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would clip these to 8 bits, not scale them
                raise DataError(f"{name}: an image of 8 bits a channel is expected. Received: mode {image.mode}")
            pixels = image.convert(_MODES[channels])
            if pixels.size != (width, height) and not resize:
                raise DataError(
                    f"{name}: the images differ in size; give the input shape to have them resized. "
                    f"Received: {pixels.height}x{pixels.width} after {height}x{width}"
                )
            return np.asarray(prepare.resize(pixels, (height, width)), np.uint8).reshape(shape)
    except _UNREADABLE as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: BaseException) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{name}: cannot be read as an image ({reason}); JPEG, PNG, BMP, WebP or PPM is expected")
