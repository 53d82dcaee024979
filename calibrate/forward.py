"""Quantizing what has been measured: the integers of Q, fast, in storage of their own width."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..ir import Quantizer

_CHUNK = 1 << 17


def storage(quantizer: Quantizer) -> np.dtype[Any]:
    """Smallest integer type that holds the quantizer's integers (2 to 16 bits)."""
    return np.dtype(f"{'i' if quantizer.signed else 'u'}{1 if quantizer.bits <= 8 else 2}")


def integers(x: npt.NDArray[np.float32], quantizer: Quantizer) -> npt.NDArray[Any]:
    """`clip(rhe(x / 2^e), n, p)`, equal to `kernels.fixed_point.quantize` for finite float32 `x` and 2 to 16 bits.

    In float32: the factor `2^-e` is exact, and where the product under- or overflows it rounds to 0 or saturates (Q5).
    """
    flat = np.ascontiguousarray(x, np.float32).reshape(-1)
    result = np.empty(flat.size, storage(quantizer))
    scratch = np.empty(min(_CHUNK, flat.size), np.float32)
    factor = np.float32(math.ldexp(1.0, -quantizer.decided_exponent))
    lower, upper = np.float32(quantizer.lower), np.float32(quantizer.upper)
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            scaled = scratch[: part.size]
            np.multiply(part, factor, out=scaled)
            np.rint(scaled, out=scaled)  # Q1, then Q2
            np.clip(scaled, lower, upper, out=scaled)
            np.copyto(result[start : start + _CHUNK], scaled, casting="unsafe")
    return result.reshape(x.shape)


def reals(x: npt.NDArray[Any], quantizer: Quantizer) -> npt.NDArray[np.float32]:
    """`x * 2^e` in float32, exact (Q5)."""
    result = np.multiply(x, np.float32(math.ldexp(1.0, quantizer.decided_exponent)), dtype=np.float32)
    return cast("npt.NDArray[np.float32]", result)
