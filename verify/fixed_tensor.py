"""A tensor of exact fixed-point numbers, and the bringing of several onto one grid.

Between DequantizeLinear and QuantizeLinear every float of a Q/DQ model is an integer times a power of two. The oracle
carries just that: integers and one exponent. Nothing here rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..ir import UnsupportedError
from ..kernels.fixed_point import Integers

LIMIT: Final = 1 << 62
"""Integers stay below this in magnitude: int64 cannot overflow, and a shift by more than 62 leaves less than a half."""


@dataclass(frozen=True, slots=True, eq=False)
class FixedPoint:
    """`integers * 2^exponent`, exactly.

    Attributes:
        integers: int64 array of any shape.
        exponent: binary logarithm of the scale.
    """

    integers: Integers
    exponent: int

    def __post_init__(self) -> None:
        assert self.integers.dtype == np.int64, self.integers.dtype

    @property
    def magnitude(self) -> int:
        """Largest `|integer|`, 0 for an empty tensor."""
        return magnitude(self.integers)

    def real(self) -> npt.NDArray[np.float64]:
        """The numbers in float64; exact while `|integers| <= 2^53`."""
        return np.asarray(np.ldexp(self.integers.astype(np.float64), self.exponent))


def magnitude(integers: Integers) -> int:
    """Largest absolute value as a Python int (so that -2^63 does not wrap), 0 for an empty array."""
    return 0 if integers.size == 0 else max(-int(integers.min()), int(integers.max()))


def check_magnitude(bound: int, what: str) -> None:
    """Refuses numbers that could leave int64.

    Raises:
        UnsupportedError: `bound` reaches 2^62.
    """
    if bound >= LIMIT:
        raise UnsupportedError(f"{what}: integers must stay below 2^62 to be computed exactly. Received: up to {bound}")


def aligned(operands: Sequence[FixedPoint], what: str) -> tuple[list[Integers], int]:
    """The integers of all operands on the finest of their grids, and its exponent: left shifts only, hence exact.

    Args:
        operands: one or more fixed-point tensors.
        what: for the error message, where this happens.

    Raises:
        UnsupportedError: the exponents are so far apart that an integer would reach 2^62.
    """
    exponent = min(operand.exponent for operand in operands)
    result = []
    for operand in operands:
        shift = operand.exponent - exponent
        largest = operand.magnitude
        check_magnitude(largest << min(shift, LIMIT.bit_length()), f"{what}: scales 2^{operand.exponent} and 2^{exponent} meet")
        result.append(operand.integers << shift if largest else operand.integers)
    return result, exponent


def exact(reals: npt.NDArray[Any], coarsest: int) -> FixedPoint:
    """Float constants (the bounds of a Clip) as fixed point, on the grid `2^coarsest` or, where they need it, a finer one.

    Raises:
        UnsupportedError: a value is not finite, or needs more than 62 bits.
    """
    values = np.asarray(reals, np.float64)
    if not np.isfinite(values).all():
        raise UnsupportedError("a constant must be finite to be fixed point")
    denominators = [value.as_integer_ratio()[1].bit_length() - 1 for value in values.ravel().tolist() if value]
    exponent = min([coarsest, *(-bits for bits in denominators)])
    scaled = np.ldexp(values, -exponent)
    if scaled.size and not np.abs(scaled).max() < LIMIT:
        raise UnsupportedError(f"a constant needs more than 62 bits on the grid 2^{exponent}")
    return FixedPoint(scaled.astype(np.int64), exponent)
