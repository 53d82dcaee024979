"""The arithmetic of fixed point, in NumPy: the executable specification of numerics Q.

Every other engine (the TensorFlow operator, onnxruntime, the oracle) is compared with these functions by `==`.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

_PART = 1 << 20
"""Numbers that are quantized at once where the result is narrower than the int64 in between."""


def bounds(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest integer `(n, p)` of `bits` bits, full range (Q3)."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def ceil_log2(threshold: float) -> int:
    """`ceil(log2(threshold))` without rounding error, for a finite positive threshold (Q4).

    Raises:
        ValueError: the threshold is not finite and positive.
    """
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"a threshold must be finite and positive. Received: {threshold}")
    mantissa, exponent = math.frexp(threshold)  # threshold = mantissa * 2^exponent, mantissa in [0.5, 1)
    return exponent - 1 if mantissa == 0.5 else exponent


def log2_threshold(threshold: float) -> float:
    """`log2(threshold)` as a float32 value with the exact ceiling: `ceil(log2_threshold(t)) == ceil_log2(t)` (Q4).

    The plain float32 logarithm of a number just above a power of two rounds down to the integer, one scale too small.
    """
    ceiling = ceil_log2(threshold)
    if math.frexp(threshold)[0] == 0.5:
        return float(ceiling)
    lowest = float(np.nextafter(np.float32(ceiling - 1), np.float32(np.inf)))
    return min(max(float(np.float32(math.log2(threshold))), lowest), float(ceiling))


def exponent_for(log2_ceiling: int, bits: int, signed: bool) -> int:
    """Exponent `e` of the scale `2^e` whose range reaches `2^log2_ceiling` (Q4)."""
    return log2_ceiling - bits + int(signed)


def round_half_even(x: Floats) -> npt.NDArray[np.float64]:
    """Nearest integer, ties to even, as float64 (Q1)."""
    return np.rint(np.asarray(x, np.float64))


def quantize(x: Floats, exponent: int, bits: int, signed: bool, upper: int | None = None) -> Integers:
    """Integers of `x` on the grid `2^exponent`: round, then saturate (Q1, Q2, Q5).

    Args:
        x: real numbers of any shape. Infinities saturate.
        exponent: `log2` of the scale.
        bits: width, 2 to 32.
        signed: two's complement or unsigned.
        upper: integer upper bound below that of the type (relu6, L2), or None.

    Returns:
        int64 array of the shape of `x`.

    Raises:
        ValueError: `x` holds a NaN (Q6).
    """
    lowest, highest = bounds(bits, signed)
    highest = highest if upper is None else min(highest, upper)
    values = np.asarray(x, np.float64)
    if np.isnan(values).any():
        raise ValueError("NaN has no fixed-point value")
    with np.errstate(over="ignore"):  # saturates
        scaled = np.ldexp(values, -exponent)
    return np.clip(np.rint(scaled), lowest, highest).astype(np.int64)


def dequantize(integers: npt.NDArray[Any], exponent: int) -> npt.NDArray[np.float32]:
    """`integers * 2^exponent` in float32; exact while `|integers| <= 2^24` and the exponent obeys Q5."""
    reals = np.asarray(integers).astype(np.float32)
    return cast("npt.NDArray[np.float32]", np.ldexp(reals, exponent, out=reals))


def fake_quantize(x: Floats, exponent: int, bits: int, signed: bool, upper: int | None = None) -> npt.NDArray[np.float32]:
    """`q(x) = 2^e * clip(rhe(x / 2^e), n, p)` (Q5): `quantize` followed by `dequantize`."""
    flat = np.asarray(x).reshape(-1)
    result = np.empty(flat.size, np.float32)
    for start in range(0, flat.size, _PART):
        part = slice(start, start + _PART)
        result[part] = dequantize(quantize(flat[part], exponent, bits, signed, upper), exponent)
    return result.reshape(np.shape(x))


def quantize_as(x: Floats, exponent: int, bits: int, signed: bool, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """`quantize`, stored in a type of its own width: for large constants, of which it makes no copy in float64 or int64."""
    flat = np.asarray(x).reshape(-1)
    result = np.empty(flat.size, dtype)
    for start in range(0, flat.size, _PART):
        part = slice(start, start + _PART)
        result[part] = quantize(flat[part], exponent, bits, signed).astype(dtype)
    return result.reshape(np.shape(x))


def shift_half_even(integers: Integers, shift: int) -> Integers:
    """`integers / 2^shift` rounded to nearest, ties to even, in integer arithmetic (Q1); `shift >= 0`."""
    values = np.asarray(integers, np.int64)
    if shift == 0:
        return values
    if shift > 62:  # |values| < 2^62 wherever this is used: all of them lie below one half
        return np.zeros_like(values)
    floor = values >> shift
    remainder = values & ((1 << shift) - 1)
    half = 1 << (shift - 1)
    return cast("Integers", floor + ((remainder > half) | ((remainder == half) & ((floor & 1) == 1))))


def requantize(integers: Integers, exponent: int, new_exponent: int, bits: int, signed: bool, upper: int | None = None) -> Integers:
    """The integers `integers * 2^exponent` on the grid `2^new_exponent`, with shifts alone: what the hardware does.

    Equal to `quantize` of the real values. A left shift saturates first, so that it cannot overflow.
    """
    lowest, highest = bounds(bits, signed)
    highest = highest if upper is None else min(highest, upper)
    shift = new_exponent - exponent
    if shift >= 0:
        return np.clip(shift_half_even(integers, shift), lowest, highest)
    saturated = np.clip(np.asarray(integers, np.int64), *bounds(bits, signed))
    return cast("Integers", np.clip(saturated << min(-shift, 31), lowest, highest))
