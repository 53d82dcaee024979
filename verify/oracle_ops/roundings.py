"""How targets round otherwise than the model (Q1): right shifts of integers, each followed by saturation (Q2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...kernels import fixed_point
from ...kernels.fixed_point import Integers

Requantize = Callable[[Integers, int, int, int, bool], Integers]
"""`(integers, exponent, new exponent, bits, signed) -> integers`: `kernels.fixed_point.requantize` or another rounding."""

_MOST_SHIFT = 62
"""`|integers| < 2^62`: shifted further they lie within a half of 0."""


def requantize_half_up(integers: Integers, exponent: int, new_exponent: int, bits: int, signed: bool) -> Integers:
    """As `kernels.fixed_point.requantize`, but ties go up, towards +infinity: FINN thresholds, DPU activations (H1)."""
    shift = new_exponent - exponent
    if not 0 < shift <= _MOST_SHIFT:
        return fixed_point.requantize(integers, exponent, new_exponent, bits, signed)
    rounded = (integers >> shift) + ((integers >> (shift - 1)) & 1)  # the bit below the last: one half or more
    return np.clip(rounded, *fixed_point.bounds(bits, signed))


def requantize_half_away(integers: Integers, exponent: int, new_exponent: int, bits: int, signed: bool) -> Integers:
    """As `kernels.fixed_point.requantize`, but ties go away from zero, as C's `round` does (H1)."""
    shift = new_exponent - exponent
    if not 0 < shift <= _MOST_SHIFT:
        return fixed_point.requantize(integers, exponent, new_exponent, bits, signed)
    rounded: Integers = np.sign(integers) * ((np.abs(integers) + (1 << (shift - 1))) >> shift)
    return np.clip(rounded, *fixed_point.bounds(bits, signed))


def requantize_down(integers: Integers, exponent: int, new_exponent: int, bits: int, signed: bool) -> Integers:
    """As `kernels.fixed_point.requantize`, but rounded down, towards -infinity: the shift alone."""
    shift = new_exponent - exponent
    if shift <= 0:
        return fixed_point.requantize(integers, exponent, new_exponent, bits, signed)
    floor: Integers = integers >> min(shift, 63)
    return np.clip(floor, *fixed_point.bounds(bits, signed))
