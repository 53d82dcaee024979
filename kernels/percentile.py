"""A percentile of `|x|` from one pass over the data: counts by the leading bits of float32 (C2).

Bin `i` holds the magnitudes whose bit pattern lies in `((i - 1) << 16, i << 16]`; bin 0 holds zeros alone. A bin's upper edge
is a float of 7 mantissa bits (a bfloat16), so an octave has 128 bins and every power of two is the last number of its bin:
`ceil(log2 t)` of the edge is that of the numbers in it, and the scale that follows (Q4) is exactly that of the sorted data
(not below 2^-126, where Q5 refuses every scale). The counts depend on the set of numbers alone, not on batches or threads.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .fixed_point import log2_threshold
from .histogram import Range, chunks
from .thresholds import ZERO_LOG2

PERCENTILE: Final = 99.99
"""Default percentage: one number in 10,000 may saturate."""

_SHIFT: Final = 16
_BINS: Final = 1 << 15


class FloatHistogram(Range):
    """Counts of `|x|` over the whole range of float32, 128 bins an octave.

    Attributes:
        signed: whether negative numbers count by their magnitude; for an unsigned quantizer they count as 0.
        counts: int64 [2^15].
    """

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        self.counts = np.zeros(_BINS, np.int64)

    def update(self, x: npt.NDArray[Any]) -> None:
        """Takes in a float32 array of any shape.

        Raises:
            ValueError: as `Range.update`.
        """
        super().update(x)
        if x.size == 0:
            return
        for part, _, narrow, index in chunks(x):
            np.copyto(narrow, part.view(np.int32))
            if self.signed:
                np.bitwise_and(narrow, 0x7FFFFFFF, out=narrow)
            else:
                np.maximum(narrow, 0, out=narrow)  # the sign bit makes the integer negative
            np.add(narrow, (1 << _SHIFT) - 1, out=narrow)
            np.right_shift(narrow, _SHIFT, out=narrow)
            np.copyto(index, narrow)
            self.counts += np.bincount(index, minlength=_BINS)

    def merge(self, other: Range) -> None:
        """Takes in everything that `other`, a histogram of the same sign, has seen."""
        if not isinstance(other, FloatHistogram) or other.signed != self.signed:
            raise TypeError(f"a histogram merges with a histogram of its sign. Received: {type(other).__name__}")
        super().merge(other)
        self.counts += other.counts

    def edge(self, rank: int) -> float:
        """Upper edge of the bin that holds the `rank`-th smallest magnitude, 1 to `count`; never above the largest one."""
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        edge = float(np.array(index << _SHIFT, np.int32).view(np.float32))
        return min(edge, self.magnitude(self.signed))


def percentile_log2(seen: FloatHistogram, percentage: float) -> float:
    """`log2 t`, with `t` the smallest magnitude that at least `percentage` percent of all numbers do not exceed (nearest rank).

    Zeros count. Where so many numbers are zeros that the percentile is 0, the maximum is taken: a threshold of 0 would
    lose the tensor. `t` is rounded up by less than 1/128 of itself, never across a power of two.

    Args:
        seen: everything seen.
        percentage: above 0, at most 100; 100 is `max`. Taken as it is printed: 99.9 is 999/1000.

    Returns:
        The logarithm with the exact ceiling of Q4; `ZERO_LOG2` where nothing but zeros was seen.
    """
    largest = seen.magnitude(seen.signed)
    if largest == 0:
        return ZERO_LOG2
    share = Fraction(str(percentage)) / 100
    rank = -(-seen.count * share.numerator // share.denominator)  # the ceiling, in integers
    return log2_threshold(seen.edge(rank) or largest)
