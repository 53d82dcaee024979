"""In which arithmetic a sum of products is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels.fixed_point import Integers
from ..fixed_tensor import check_magnitude, magnitude

FLOAT64_EXACT = 1 << 53
"""float64 holds every integer up to here, so sums below it are exact in whatever order BLAS adds them."""


def sum_bound(x: Integers, weights: Integers, channel_axis: int) -> int:
    """Bound of every partial sum `sum w x`: `max|x|` times the largest `sum|w|` of one output channel."""
    if not x.size or not weights.size:
        return 0
    check_magnitude(magnitude(weights) * weights.size, "sum of weights")
    others = tuple(axis for axis in range(weights.ndim) if axis != channel_axis % weights.ndim)
    return magnitude(x) * int(np.abs(weights).sum(axis=others).max())


def exact_dtype(bound: int, what: str) -> npt.DTypeLike:
    """float64 (BLAS) where it is exact, else int64.

    Raises:
        UnsupportedError: int64 could overflow.
    """
    check_magnitude(bound, what)
    return np.float64 if bound < FLOAT64_EXACT else np.int64


def as_integers(total: npt.NDArray[Any]) -> Integers:
    """Sums back as int64."""
    return total.astype(np.int64, copy=False)
