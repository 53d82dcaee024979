"""Streaming statistics of a tensor: its range, and a signed histogram whose range is a power of two and grows by itself.

Both are functions of the *set* of numbers seen: neither the order nor the cutting into batches or threads changes them,
because the bin of `x` is `floor(x * 2^m)`, which float32 computes exactly, and a bin twice as wide is two whole bins.
(Only a negative number that is 2^100 times smaller than the range may underflow into the bin on the other side of zero.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]

BINS: Final = 1 << 13
"""Bins on either side of zero: 32 per step of a uint8 grid that spans the range, 64 of an int8 grid."""

LOWEST_RANGE: Final = -100
"""The histogram's range is never below `2^-100`, so that the factor that leads to bin numbers stays a float32."""

CHUNK: Final = 1 << 17
"""Elements handled at a time: the working set of a chunk stays in the second-level cache."""


class Range:
    """Count, minimum and maximum of the numbers seen."""

    def __init__(self) -> None:
        self.count = 0
        self.minimum = math.inf
        self.maximum = -math.inf

    def update(self, x: npt.NDArray[Any]) -> None:
        """Takes in an array of any shape; an empty one changes nothing.

        Raises:
            ValueError: the array holds a NaN or an infinity (Q6); nothing of it has been counted.
        """
        if x.size == 0:
            return
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):  # a NaN anywhere makes both of them NaN
            raise ValueError("NaN" if math.isnan(low) else "infinity")
        self.count += x.size
        self.minimum = min(self.minimum, low)
        self.maximum = max(self.maximum, high)

    def merge(self, other: Range) -> None:
        """Takes in everything that `other` has seen."""
        self.count += other.count
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def magnitude(self, signed: bool) -> float:
        """`max |x|`; for an unsigned quantizer `max x`, at least 0, since what is negative becomes 0 whatever the threshold."""
        return max(self.maximum, -self.minimum if signed else 0.0, 0.0)


class PowerOfTwoHistogram(Range):
    """Counts of `floor(x / width)` with `width = 2^range / BINS`, over `[-2^range, 2^range)`; exact zeros are counted apart.

    Attributes:
        range_log2: binary logarithm of the range; grows when a larger number arrives.
        counts: int64 [2 * BINS]; entry `BINS + i` is bin `i`.
        zeros: how many numbers were exactly 0; they are in no bin, because they have no error on any grid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.range_log2 = LOWEST_RANGE
        self.counts = np.zeros(2 * BINS, np.int64)
        self.zeros = 0

    @property
    def width_log2(self) -> int:
        """Binary logarithm of the width of a bin."""
        return self.range_log2 - (BINS.bit_length() - 1)

    def update(self, x: npt.NDArray[Any]) -> None:
        """Takes in a float32 array of any shape.

        Raises:
            ValueError: as `Range.update`.
        """
        super().update(x)
        if x.size == 0:
            return
        self._grow(self._needed())
        scale = np.float32(math.ldexp(1.0, -self.width_log2))
        for part, scaled, narrow, index in chunks(x):
            np.multiply(part, scale, out=scaled)
            np.floor(scaled, out=scaled)
            np.add(scaled, np.float32(BINS), out=scaled)
            np.copyto(narrow, scaled, casting="unsafe")  # two fast conversions: float32 -> int64 in one step is slow
            np.copyto(index, narrow)
            self.counts += np.bincount(index, minlength=2 * BINS)
            zeros = int(np.count_nonzero(part == 0))
            self.counts[BINS] -= zeros
            self.zeros += zeros

    def merge(self, other: Range) -> None:
        """Takes in everything that `other`, a histogram too, has seen; `other` may become coarser."""
        if not isinstance(other, PowerOfTwoHistogram):
            raise TypeError(f"a histogram merges with a histogram. Received: {type(other).__name__}")
        super().merge(other)
        target = max(self.range_log2, other.range_log2)
        self._grow(target)
        other._grow(target)
        self.counts += other.counts
        self.zeros += other.zeros

    def _needed(self) -> int:
        """`r` with every number seen in `[-2^r, 2^r)`."""
        largest = self.magnitude(signed=True)
        return max(LOWEST_RANGE, math.frexp(largest)[1]) if largest > 0 else LOWEST_RANGE

    def _grow(self, range_log2: int) -> None:
        for _ in range(min(range_log2 - self.range_log2, BINS.bit_length() + 1)):  # by then only bins -1 and 0 are left
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[BINS // 2 : BINS // 2 + BINS] = pairs
        self.range_log2 = max(self.range_log2, range_log2)


Chunk = tuple[Float32s, Float32s, npt.NDArray[np.int32], npt.NDArray[np.intp]]


def chunks(x: npt.NDArray[Any]) -> Iterator[Chunk]:
    """Cuts an array into pieces that fit the cache, each with scratch of its length: float32, int32, intp."""
    flat = np.ascontiguousarray(x, np.float32).reshape(-1)
    size = min(CHUNK, flat.size)
    scaled, narrow, index = np.empty(size, np.float32), np.empty(size, np.int32), np.empty(size, np.intp)
    for start in range(0, flat.size, size):
        part = flat[start : start + size]
        yield part, scaled[: part.size], narrow[: part.size], index[: part.size]


class MagnitudeHistogram:
    """Counts of `|x|` in equal bins over `[0, maximum]`: what the KL-J search of C3 looks at.

    Attributes:
        counts: int64 [bins].
    """

    def __init__(self, maximum: float, bins: int, signed: bool) -> None:
        """Starts empty.

        Args:
            maximum: upper edge of the last bin, positive; found in a pass before this one.
            bins: number of bins.
            signed: whether negative numbers count by their magnitude; for an unsigned quantizer they count as 0.
        """
        self.maximum = maximum
        self.signed = signed
        self.counts = np.zeros(bins, np.int64)

    def update(self, x: npt.NDArray[Any]) -> None:
        """Takes in a float32 array of any shape, every |x| at most `maximum`."""
        bins = self.counts.size
        if self.maximum <= 0:
            self.counts[0] += x.size
            return
        factor = bins / self.maximum
        if not 1e-30 < factor < 1e30:  # far from 1 the factor, or the product, may not be a float32
            x, factor = np.ldexp(x, -math.frexp(self.maximum)[1]), bins / math.frexp(self.maximum)[0]
        for part, scaled, narrow, index in chunks(x):
            np.multiply(part, np.float32(factor), out=scaled)
            if self.signed:
                np.abs(scaled, out=scaled)
            np.clip(scaled, 0.0, bins - 1, out=scaled)
            np.copyto(narrow, scaled, casting="unsafe")
            np.copyto(index, narrow)
            self.counts += np.bincount(index, minlength=bins)

    def merge(self, other: MagnitudeHistogram) -> None:
        """Takes in everything that `other`, of the same bins, has seen."""
        self.counts += other.counts
