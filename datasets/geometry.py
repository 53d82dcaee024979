"""How an image gets the height and width of the network: three rules that TensorFlow's image pipelines use, and Pillow's.

The first three sample as `tf.compat.v1.image.resize_bilinear` does, with which the networks concerned were trained and their
accuracies published: output pixel i lies at source position i * (size / new size), between the two pixels beside it, without
averaging over the source area when it shrinks, and the result is not rounded to whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Size = tuple[int, int]
"""(height, width)."""
Box = tuple[int, int, int, int]
"""(left, upper, right, lower) in whole pixels, right and lower excluded."""
Region = Callable[[int, int], Box]
"""A part of an image whose height and width are known only when it is decoded."""
Taps = tuple[Integers, Integers, Floats]
"""For each output position along one side: the source pixel before it, the one behind it, and the share of the latter."""


class Geometry(Protocol):
    """A rule."""

    def fit(self, image: Image.Image, target: Size) -> Floats:
        """Pixels [H, W, C] (0..255) of an 8-bit grey or RGB image, at the target's height and width."""
        ...


@dataclass(frozen=True)
class CentralCrop:
    """The central part of each side, resized to the target; the aspect ratio is not kept.

    `preprocess_for_eval` of slim's `inception_preprocessing.py`.

    Attributes:
        share: kept part of the height and of the width; 1 keeps the whole image.
    """

    share: float = 0.875

    def fit(self, image: Image.Image, target: Size) -> Floats:
        """As `Geometry.fit`."""
        top, left = (int((side - side * self.share) / 2) for side in (image.height, image.width))
        box = (left, top, image.width - left, image.height - top)
        return stretched(_pixels(image.crop(box)), target)


@dataclass(frozen=True)
class ShorterSide:
    """Resized, aspect ratio kept, until the target is a part of its size; the central H x W of that.

    `preprocess_for_eval` of slim's `vgg_preprocessing.py`, where a shorter side of 256 serves a target of 224 x 224. New sides
    are rounded to the nearest whole number (older copies of slim's file cut the fraction off, which may leave 255 of 256).

    Attributes:
        share: the target's part of the resized image, along the side where it is largest.
    """

    share: float = 0.875

    def fit(self, image: Image.Image, target: Size) -> Floats:
        """As `Geometry.fit`."""
        scale = max(target[0] / image.height, target[1] / image.width) / self.share
        size = tuple(max(side, round(old * scale)) for side, old in zip(target, (image.height, image.width), strict=True))
        vertical, horizontal = (
            _part(taps(old, new), (new - side) // 2, side)
            for old, new, side in zip((image.height, image.width), size, target, strict=True)
        )
        return sample(_pixels(image), vertical, horizontal)


@dataclass(frozen=True)
class Letterbox:
    """Resized, aspect ratio kept, to fit into the target; what is left over on two sides is filled.

    What darknet does with pictures for its detectors (`letterbox_image`, a grey of 0.5).

    Attributes:
        fill: pixel value of the borders, 0..255.
    """

    fill: float = 127.5

    def fit(self, image: Image.Image, target: Size) -> Floats:
        """As `Geometry.fit`."""
        scale = min(target[0] / image.height, target[1] / image.width)
        height, width = (
            min(side, max(1, round(old * scale))) for side, old in zip(target, (image.height, image.width), strict=True)
        )
        pixels = _pixels(image)
        result = np.full((*target, pixels.shape[2]), self.fill, np.float32)
        top, left = (target[0] - height) // 2, (target[1] - width) // 2
        result[top : top + height, left : left + width] = sample(pixels, taps(image.height, height), taps(image.width, width))
        return result


@dataclass(frozen=True)
class Shrink:
    """The largest central box of the target's aspect ratio, a part of it, resized by Pillow and rounded to 8 bits.

    Pillow's `BILINEAR` averages over the source area when it shrinks. For pictures of no particular network.

    Attributes:
        share: kept part of the largest box.
    """

    share: float = 0.875

    def fit(self, image: Image.Image, target: Size) -> Floats:
        """As `Geometry.fit`."""
        box = central_box(image.width, image.height, target, self.share)
        return cut_out(image, box, target, self)


def cut_out(image: Image.Image, box: Box, target: Size, geometry: Geometry) -> Floats:
    """A part of an image stretched to the target, sampled as `geometry` samples whole ones: pixels [H, W, C]."""
    if isinstance(geometry, Shrink):
        return _pixels(image.crop(box).resize((target[1], target[0]), Image.Resampling.BILINEAR)).astype(np.float32)
    return stretched(_pixels(image.crop(box)), target)


def stretched(pixels: npt.NDArray[Any], target: Size) -> Floats:
    """Pixels [h, w, C] resized to the target as TensorFlow does."""
    return sample(pixels, taps(pixels.shape[0], target[0]), taps(pixels.shape[1], target[1]))


def central_box(width: int, height: int, target: Size, share: float) -> Box:
    """The central box of the target's aspect ratio, `share` of the largest."""
    scale = share * min(height / target[0], width / target[1])
    box_height, box_width = max(1, round(target[0] * scale)), max(1, round(target[1] * scale))
    left, upper = (width - box_width) // 2, (height - box_height) // 2
    return left, upper, left + box_width, upper + box_height


def taps(size: int, new: int) -> Taps:
    """Where the `new` output positions lie among `size` source pixels, computed in float32 as TensorFlow's kernel does."""
    position = np.arange(new, dtype=np.float32) * (np.float32(size) / np.float32(new))
    before = np.minimum(np.floor(position).astype(np.int64), size - 1)
    return before, np.minimum(before + 1, size - 1), position - before.astype(np.float32)


def sample(pixels: npt.NDArray[Any], vertical: Taps, horizontal: Taps) -> Floats:
    """Bilinear interpolation, along the rows first: [h, w, C] -> float32 [len(vertical), len(horizontal), C]."""
    top, bottom, down = vertical
    left, right, along = horizontal
    channels = pixels.shape[2]
    first = int(top[0])
    rows = pixels[first : int(bottom[-1]) + 1].reshape(-1, pixels.shape[1] * channels).astype(np.float32)
    rows = _between(rows, _flat(left, channels), _flat(right, channels), np.repeat(along, channels), axis=1)
    return _between(rows, top - first, bottom - first, down[:, None], axis=0).reshape(len(top), len(left), channels)


def _between(values: Floats, before: Integers, behind: Integers, share: Floats, axis: int) -> Floats:
    """Interpolates: before + (behind - before) * share, in this order, as TensorFlow's kernel does."""
    low, result = values.take(before, axis), values.take(behind, axis)
    result -= low
    result *= share
    result += low
    return result


def _flat(columns: Integers, channels: int) -> Integers:
    """Positions of all channels of these pixels in a row."""
    flat: Integers = (columns[:, None] * channels + np.arange(channels)).reshape(-1)
    return flat


def _part(whole: Taps, start: int, length: int) -> Taps:
    before, behind, share = whole
    return before[start : start + length], behind[start : start + length], share[start : start + length]


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    pixels = np.asarray(image, np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
