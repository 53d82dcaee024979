"""Thresholds from statistics (numerics C): which `log2 t` a tensor gets before any training.

Activations: `max_log2`, `mse_log2` here and `klj_log2` in `klj`. Weights and reciprocals: `weight_mse_log2`, or the
paper's `weight_log2`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .fixed_point import bounds, ceil_log2, exponent_for, log2_threshold
from .histogram import BINS, PowerOfTwoHistogram, Range

ZERO_LOG2: Final = 0.0
"""`log2 t` of a tensor that holds nothing but zeros (Q6): the threshold 1. Whoever asks warns and names the tensor."""

_OCTAVES: Final = 12
"""How far down `weight_mse_log2` looks: a tensor is then cut to 1/2,000 of its maximum, where saturation dwarfs all else."""

_PART: Final = 1 << 16
"""Numbers looked at together: what fits into a processor's cache, and no further copy of a large tensor in float64."""

_TINY: Final = 2.0**-90
"""Below this the histogram has no resolution left; such a scale is refused by Q5 for every width in use anyway."""


def weight_log2(w: npt.NDArray[Any], bits: int, signed: bool) -> float:
    """`log2 t` of a constant: `t = max|w|` (C1), or the next power of two where Q7 says so.

    Where `max|w|` is exactly `2^k`, the thresholds `2^k` (which may saturate the maximum) and `2^(k+1)` are compared
    by the squared error of the tensor, in float64; a tie goes to the smaller one (Q7).

    Args:
        w: real numbers, any shape.
        bits: width of the quantizer.
        signed: its sign; unsigned looks at `max w` only.

    Returns:
        The logarithm, with the exact ceiling of Q4; `ZERO_LOG2` for zeros.

    Raises:
        ValueError: a NaN or an infinity (Q6).
    """
    largest = _largest(w, signed)
    if largest == 0:
        return ZERO_LOG2
    ceiling = ceil_log2(largest)
    if math.frexp(largest)[0] == 0.5:  # largest is a power of two
        exponent = exponent_for(ceiling, bits, signed)
        next_error = 4.0 * _squared_error(w, exponent + 1, bits, signed)  # in units of the finer step
        if next_error < _squared_error(w, exponent, bits, signed):
            return float(ceiling + 1)
    return log2_threshold(largest)


def weight_mse_log2(w: npt.NDArray[Any], bits: int, signed: bool) -> float:
    """`log2 t` of a constant: the power of two whose grid has the smallest squared error, a tie to the smaller one.

    Contains the choice of Q7 and goes on below `max|w|`: where few weights are large, saturating them costs less than the
    coarser grid costs all the others. Measured in float64 on the numbers themselves, on the `_OCTAVES` octaves
    from one above the maximum downwards.

    Args:
        w: real numbers, any shape.
        bits: width of the quantizer.
        signed: its sign; unsigned looks at `max w` only.

    Returns:
        A whole number; `ZERO_LOG2` for zeros.

    Raises:
        ValueError: a NaN or an infinity (Q6).
    """
    largest = _largest(w, signed)
    if largest == 0:
        return ZERO_LOG2
    top = ceil_log2(largest) + 1
    best, best_error = top, math.inf
    for candidate in range(top, top - _OCTAVES, -1):
        exponent = exponent_for(candidate, bits, signed)
        error = math.ldexp(_squared_error(w, exponent, bits, signed), 2 * (candidate - top))  # all in one unit
        if error <= best_error:
            best, best_error = candidate, error
    return float(best)


def weight_exponent(w: npt.NDArray[Any], bits: int, signed: bool) -> int:
    """Exponent of a constant's scale under `max`: that of `weight_log2` (C1, Q4, Q7).

    Raises:
        ValueError: a NaN or an infinity (Q6).
    """
    return exponent_for(math.ceil(weight_log2(w, bits, signed)), bits, signed)


def _largest(w: npt.NDArray[Any], signed: bool) -> float:
    """The largest magnitude a quantizer of that sign has to reach; refuses NaN and infinities (Q6)."""
    seen = Range()
    seen.update(w)
    return seen.magnitude(signed)


def weight_log2_for_training(w: npt.NDArray[Any]) -> float:
    """`log2(|mean| + 3 * std)`, the initial threshold of weights whose thresholds are trained (C1, population std).

    Raises:
        ValueError: a NaN or an infinity (Q6).
    """
    Range().update(w)
    values = np.asarray(w, np.float64)
    threshold = float(abs(values.mean()) + 3.0 * values.std()) if values.size else 0.0
    return log2_threshold(threshold) if threshold > 0 else ZERO_LOG2


def max_log2(seen: Range, signed: bool) -> float:
    """`log2 max|x|` of everything seen (C2), or `ZERO_LOG2` where that is 0."""
    largest = seen.magnitude(signed)
    return log2_threshold(largest) if largest > 0 else ZERO_LOG2


def mse_log2(seen: PowerOfTwoHistogram, bits: int, signed: bool) -> float:
    """The power of two whose grid has the smallest squared error over everything seen (C2), a tie to the smaller one.

    Only `ceil(log2 t)` matters (Q4), so only whole logarithms are compared: from one above the maximum's downwards, until
    saturation alone costs more than the best grid does. Within a bin the numbers are taken as evenly spread.

    Returns:
        A whole number, or `ZERO_LOG2` where nothing but zeros (or, unsigned, nothing positive) was seen.
    """
    largest = seen.magnitude(signed)
    if largest < _TINY:
        return max_log2(seen, signed)
    filled = np.flatnonzero(seen.counts) if signed else BINS + np.flatnonzero(seen.counts[BINS:])
    numbers = seen.counts[filled].astype(np.float64)
    centres = filled.astype(np.float64) - (BINS - 0.5)  # in bins, like everything below
    best, best_error = ceil_log2(largest) + 1, math.inf
    candidate = best
    while True:
        step_log2 = exponent_for(candidate, bits, signed) - seen.width_log2
        rounding, saturation = _binned_error(centres, numbers, step_log2, bits, signed)
        if rounding + saturation <= best_error:
            best, best_error = candidate, rounding + saturation
        if saturation > best_error:  # it only grows as the threshold falls
            return float(best)
        candidate -= 1


def _binned_error(
    centres: npt.NDArray[np.float64], numbers: npt.NDArray[np.float64], step_log2: int, bits: int, signed: bool
) -> tuple[float, float]:
    """Squared error, in units of the squared bin width, of a grid of `2^step_log2` bins: of rounding, of saturation."""
    lowest, highest = bounds(bits, signed)
    step = math.ldexp(1.0, step_log2)
    integers = np.rint(centres / step)
    saturated = (integers > highest) | (integers < lowest)
    error = numbers * ((centres - np.clip(integers, lowest, highest) * step) ** 2 + 1 / 12)
    saturation = float(error[saturated].sum())
    if step_log2 < 1:  # several grid points in a bin
        return float(numbers[~saturated].sum()) * step * step / 12, saturation
    return float(error[~saturated].sum()), saturation


def _squared_error(w: npt.NDArray[Any], exponent: int, bits: int, signed: bool) -> float:
    """Squared error of a tensor on the grid `2^exponent`, in units of the squared step."""
    flat = np.asarray(w).reshape(-1)
    squares = np.empty(flat.size, np.float64)
    for start in range(0, flat.size, _PART):
        part = squares[start : start + _PART]
        part[...] = flat[start : start + _PART]
        np.ldexp(part, -exponent, out=part)
        part -= np.clip(np.rint(part), *bounds(bits, signed))
        part *= part
    return float(squares.reshape(np.shape(w)).sum())  # all at once: a sum of sums would round elsewhere
