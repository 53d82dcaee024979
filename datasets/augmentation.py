"""Random changes to training images: mirroring, shifting, cropping, colours.

They work on pixels of 0..255, in front of the map of values that evaluation has too. What happens to an example is a function of
the seed, the epoch and its row alone: neither the batch it comes in nor a training that was resumed changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from ..ir import DataError, UsageError
from .dataset import PixelReader, Reader
from .distortions import COLOUR, FLIP, SHIFT, draw, random_box, recolour, reflected

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_DEFAULTS: Final = {"flip": 1.0, "pad": 4.0, "crop": 0.08, "colour": 1.0}


@dataclass(frozen=True)
class Augmentation:
    """Which changes are made. All are off by default.

    Attributes:
        flip: half of the examples are mirrored left to right.
        pad: pixels by which an example is shifted at most, in each direction; its borders are reflected (CIFAR: 4).
        crop: smallest share of the area that a random part covers which is stretched to the network's size, its aspect ratio
            between 3/4 and 4/3 (ImageNet: 0.08); 0 is off. Images are cut before they are resized, in place of the
            preprocessing's crop.
        colour: brightness +-32 of 255, contrast and saturation x0.5 to x1.5 (slim's ranges) for 1, in proportion to it for
            other magnitudes up to 2; 0 is off.

    Raises:
        UsageError: a number out of its range, or `pad` and `crop` together.
    """

    flip: bool = False
    pad: int = 0
    crop: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        if self.pad < 0 or not 0 <= self.crop <= 1 or not 0 <= self.colour <= 2:
            raise UsageError(
                f"augmentation: pad 0 or more pixels, crop 0..1 and colour 0..2 are expected. "
                f"Received: pad {self.pad}, crop {self.crop:g}, colour {self.colour:g}"
            )
        if self.pad and self.crop:
            raise UsageError(f"augmentation: either pad or crop is expected. Received: pad {self.pad} and crop {self.crop:g}")

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Reads `flip,pad=4` or `flip,crop=0.08,colour=0.5`; without a number `pad` is 4, `crop` 0.08, `colour` 1.

        Raises:
            UsageError: another word, a word twice, or something that is no number.
        """
        found: dict[str, float] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, equals, number = item.partition("=")
            value = _number(number) if equals and name != "flip" else None if equals else _DEFAULTS.get(name)
            if name not in _DEFAULTS or name in found or value is None or (name == "pad" and value % 1):
                raise UsageError(
                    "augmentation: flip, pad[=PIXELS], crop[=SHARE] and colour[=MAGNITUDE], each at most once, joined by commas, "
                    "are expected. "
                    f"Received: {text!r}"
                )
            found[name] = value
        types = {"flip": bool, "pad": int}
        return cls(**{name: types.get(name, float)(value) for name, value in found.items()})

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return any(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        """As `parse` reads it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return ",".join(name if value is True else f"{name}={value:g}" for name, value in values.items() if value)

    def checked(self, reader: Reader, source: str) -> PixelReader:
        """The same reader; refuses examples that cannot be changed so.

        Raises:
            DataError: not images [H, W, C], smaller than the padding, or colours of numbers that are no pixels.
        """
        shape = reader.shape
        if not isinstance(reader, PixelReader) or len(shape) != 3 or (shape[0] in (1, 3) and shape[2] not in (1, 3)):
            raise DataError(f"{source}: augmentation wants images [H, W, C], channels last. Received: {list(shape)}")
        if self.pad >= min(shape[:2]):
            raise DataError(f"{source}: a padding smaller than the images is expected. Received: {self}, images {list(shape)}")
        if self.colour and not (reader.holds_pixels and shape[2] in (1, 3)):
            raise DataError(
                f"{source}: augmentation of colours wants grey or RGB pixels of 0..255, images or arrays of integers. "
                f"Received: {'pixels' if reader.holds_pixels else 'floating-point numbers'} {list(shape)}"
            )
        return reader

    def read(self, reader: PixelReader, rows: Integers, seed: int, epochs: Integers) -> Floats:
        """Changed examples, their values mapped: float32 [n, H, W, C].

        Args:
            reader: of `checked`.
            rows: int64 [n], rows of the reader.
            seed: not negative.
            epochs: int64 [n], the epoch in which each is drawn.
        """
        draws = [draw(seed, epoch, row) for epoch, row in zip(epochs.tolist(), rows.tolist(), strict=True)]
        regions = [partial(random_box, numbers, self.crop) for numbers in draws] if self.crop else None
        pixels = reader.pixels(rows, regions)
        for image, numbers in zip(pixels, draws, strict=True):
            self._move(image, numbers)
            if self.colour:
                recolour(image, self.colour * (2 * numbers[COLOUR] - 1))
        return reader.prepare.values(pixels)

    def _move(self, image: Floats, numbers: Doubles) -> None:
        """Shifts and mirrors one image [H, W, C] in place."""
        if self.pad:
            down, right = np.floor(numbers[SHIFT] * (2 * self.pad + 1)).astype(np.int64) - self.pad
            image[:] = image.take(reflected(image.shape[0], down), 0).take(reflected(image.shape[1], right), 1)
        if self.flip and numbers[FLIP] < 0.5:
            image[:] = image[:, ::-1].copy()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
