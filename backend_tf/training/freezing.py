"""Incremental freezing of thresholds: which ones have come to rest. Vectors in, indices out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating[Any]]


def turns(step: int, first: float, every: float) -> int:
    """Thresholds whose turn has come when `step` steps are done: one at `first`, one more every `every` (both may be fractions)."""
    return 0 if step < first else 1 + math.floor((step - first) / every)


def settled(log2_t: Vector, average: Vector) -> npt.NDArray[np.bool_]:
    """Where a threshold is on the side of the power of two on which it has been most of the time.

    Args:
        log2_t: float32 [groups], where the thresholds are.
        average: float64 [groups], their debiased exponential moving average.
    """
    return np.asarray(np.ceil(log2_t) == np.ceil(average))


def to_freeze(gradient: Vector, log2_t: Vector, average: Vector, frozen: npt.NDArray[np.bool_], most: int = 1) -> tuple[int, ...]:
    """The thresholds to freeze now: of those that are neither frozen nor on the wrong side, the ones with the smallest gradient.

    Args:
        gradient: float [groups], mean gradient since the last turn; its magnitude counts. NaN is never the smallest.
        log2_t: float32 [groups].
        average: float64 [groups], debiased moving average of `log2_t`.
        frozen: bool [groups].
        most: how many turns there are.

    Returns:
        At most `most` indices, the smallest gradient first, ties in the order of the groups.
    """
    order = np.argsort(np.abs(gradient), kind="stable")
    free = settled(log2_t, average) & ~frozen
    return tuple(int(index) for index in order if free[index])[:most]


def debiased(average: Vector, decay: float, steps: int) -> Vector:
    """A moving average that began at zero, corrected for its beginning: after one step it is the first value itself."""
    return average / (1 - decay**steps)
