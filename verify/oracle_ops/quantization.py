"""QuantizeLinear and DequantizeLinear: the only places where the oracle rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir

from ...ir import DataError, UnsupportedError, grid_of
from ...kernels import fixed_point
from ...kernels.fixed_point import Integers
from ..fixed_tensor import FixedPoint, check_magnitude
from .operands import Op, Operand

Requantize = Callable[[Integers, int, int, int, bool], Integers]
"""`(integers, exponent, new exponent, bits, signed) -> integers`: `kernels.fixed_point.requantize` or another rounding."""


def quantize_with(requantize: Requantize) -> Op:
    """QuantizeLinear with a given rounding: Q1 by default, a target's own for `--rounding`, a wrong one for tests."""

    def quantize_linear(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
        """Shifts for fixed point; true division (exact, Q5) for the floats of a graph input or an island."""
        grid, x = grid_of(node), inputs[0]
        if isinstance(x, FixedPoint):
            check_magnitude(x.magnitude, f"QuantizeLinear {node.name!r}")
            return FixedPoint(requantize(x.integers, x.exponent, grid.exponent, grid.bits, grid.signed), grid.exponent)
        assert x is not None
        try:
            return FixedPoint(fixed_point.quantize(x, grid.exponent, grid.bits, grid.signed), grid.exponent)
        except ValueError as error:
            raise DataError(f"QuantizeLinear {node.name!r}: {error} (Q6)") from None

    return quantize_linear


def dequantize_linear(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """Puts integers on the grid the node names; they do not change."""
    x, grid = inputs[0], grid_of(node)
    if isinstance(x, FixedPoint):
        return FixedPoint(x.integers, grid.exponent)
    if x is None or not _is_integer(x):
        raise UnsupportedError(f"DequantizeLinear {node.name!r}: integers expected. Received: {None if x is None else x.dtype}")
    return FixedPoint(x.astype(np.int64), grid.exponent)


def _is_integer(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    """NumPy's own integers, or a 4-bit type, which NumPy knows only by name."""
    return array.dtype.kind in "iu" or array.dtype.name in {"int4", "uint4"}


def requantize_half_up(integers: Integers, exponent: int, new_exponent: int, bits: int, signed: bool) -> Integers:
    """As `kernels.fixed_point.requantize`, but ties go up: what FINN thresholds and DPU activations do (H1)."""
    shift = new_exponent - exponent
    if not 0 < shift <= 62:
        return fixed_point.requantize(integers, exponent, new_exponent, bits, signed)
    rounded = (integers >> shift) + ((integers >> (shift - 1)) & 1)  # the bit below the last: one half or more
    return np.clip(rounded, *fixed_point.bounds(bits, signed))


ROUNDINGS: dict[str, Requantize] = {"half_even": fixed_point.requantize, "half_up": requantize_half_up}
"""Rounding of the requantizations; the graph's float input is always rounded by Q1, for that happens on the host."""

QUANTIZATION: dict[str, Op] = {
    "DequantizeLinear": dequantize_linear,
    "QuantizeLinear": quantize_with(fixed_point.requantize),
}
