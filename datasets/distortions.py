"""What augmentation does to one image or a few: random numbers, parts, shifts, colours."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .geometry import Box

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

STREAM: Final = 1
"""Tells these random numbers from those of the order of examples, which has 0."""

FLIP: Final = 0
SHIFT: Final = slice(1, 3)
COLOUR: Final = slice(3, 6)
"""Places in `draw`: every change has its own numbers, so that switching one on moves no other."""

_PLACE: Final = slice(6, 8)
_ATTEMPTS: Final = 10  # as TensorFlow and torchvision have it
_SHAPES: Final = slice(8, 8 + 2 * _ATTEMPTS)
_ASPECT: Final = (3 / 4, 4 / 3)
_BRIGHTNESS: Final = 32.0  # of 255
_FACTOR: Final = 0.5
_GREY: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as images are decoded to grey


def draw(seed: int, epoch: int, row: int) -> Doubles:
    """Numbers 0 <= u < 1 for one example; NumPy keeps the words of a `SeedSequence` the same for all its versions."""
    words = np.random.SeedSequence(seed, spawn_key=(STREAM, epoch, row)).generate_state(_SHAPES.stop, np.uint64)
    numbers: Doubles = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


def random_box(numbers: Doubles, least: float, height: int, width: int) -> Box:
    """A random part of an image: its share of the area is uniform, the logarithm of its aspect ratio too.

    Args:
        numbers: of `draw`.
        least: smallest share.
        height: of the image.
        width: of the image.

    Returns:
        The first of ten that fits; else the largest central one whose aspect ratio is allowed.
    """
    shapes = numbers[_SHAPES].reshape(_ATTEMPTS, 2)
    area = height * width * (least + (1 - least) * shapes[:, 0])
    low, high = np.log(_ASPECT)
    aspect = np.exp(low + (high - low) * shapes[:, 1])
    widths, heights = np.rint(np.sqrt(area * aspect)).astype(int), np.rint(np.sqrt(area / aspect)).astype(int)
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    if not fits.any():
        wide, high_ = min(width, max(1, round(height * _ASPECT[1]))), min(height, max(1, round(width / _ASPECT[0])))
        left, upper = (width - wide) // 2, (height - high_) // 2
        return left, upper, left + wide, upper + high_
    first = int(np.argmax(fits))
    wide, high_ = int(widths[first]), int(heights[first])
    upper, left = (int(u * (room + 1)) for u, room in zip(numbers[_PLACE], (height - high_, width - wide), strict=True))
    return left, upper, left + wide, upper + high_


def recolour(image: Floats, amounts: Doubles) -> None:
    """Changes brightness, then saturation, then contrast around each channel's mean, in place; cut to 0..255 at the end.

    Args:
        image: float32 [H, W, C] with C 1 or 3; a grey image has no saturation.
        amounts: [3], brightness, contrast and saturation, 0 for none, +-1 for the ends of slim's ranges.
    """
    brightness, contrast, saturation = (np.float32(amount) for amount in amounts)
    channels = image.shape[2]
    planes = np.ascontiguousarray(image.reshape(-1, channels).T)  # five times as fast as interleaved channels
    planes += np.float32(_BRIGHTNESS) * brightness
    if channels == 3:
        grey = planes[0] * _GREY[0] + planes[1] * _GREY[1] + planes[2] * _GREY[2]
        planes -= grey
        planes *= 1 + np.float32(_FACTOR) * saturation
        planes += grey
    mean = planes.mean(axis=1, keepdims=True)
    planes -= mean
    planes *= 1 + np.float32(_FACTOR) * contrast
    planes += mean
    image[:] = np.clip(planes, 0, 255, out=planes).T.reshape(image.shape)


def reflected(size: int, shift: int) -> Integers:
    """Positions of a side moved by `shift`; beyond the border it turns back, without repeating the last pixel."""
    last = size - 1
    positions: Integers = last - np.abs(last - np.abs(np.arange(size) + shift))
    return positions
