"""In which arithmetic a sum of products is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels.fixed_point import Integers
from ..fixed_tensor import check_magnitude, magnitude

FLOAT64_EXACT = 1 << 53
"""float64 holds every integer up to here, so sums below it are exact in whatever order BLAS adds them."""

BLOCK = 1 << 22
"""Weights looked at together: those of a large layer would take several times the memory of the model."""


def sum_bound(x: Integers, weights: Integers, channel_axis: int) -> int:
    """Bound of every partial sum `sum w x`: `max|x|` times the largest `sum|w|` of one output channel."""
    if not x.size or not weights.size:
        return 0
    check_magnitude(magnitude(weights) * weights.size, "sum of weights")
    channels = np.moveaxis(weights, channel_axis, 0)
    step = max(1, BLOCK * len(channels) // weights.size)
    totals = (
        np.abs(channels[start : start + step]).reshape(-1, weights.size // len(channels)).sum(axis=1).max()
        for start in range(0, len(channels), step)
    )
    return magnitude(x) * int(max(totals))


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
