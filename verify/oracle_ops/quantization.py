"""QuantizeLinear and DequantizeLinear: the only places where the oracle rounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir

from ...ir import PASS_THROUGH, ROLE_KEY, DataError, UnsupportedError, constant, grid_of
from ...kernels import fixed_point
from ..fixed_tensor import FixedPoint, check_magnitude
from .operands import Op, Operand
from .roundings import Requantize, requantize_down, requantize_half_away, requantize_half_up


def quantize_with(requantize: Requantize, pools: Requantize | None = None) -> Op:
    """QuantizeLinear with a given rounding: Q1 by default, a target's own for `--rounding`, a wrong one for tests.

    Args:
        requantize: rounds wherever fixed point is brought to another scale.
        pools: rounds the outputs of average pools instead, where it is given.
    """

    def quantize_linear(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
        """Shifts for fixed point; true division (exact, Q5) for the floats of a graph input or an island."""
        grid, x = grid_of(node), inputs[0]
        if isinstance(x, FixedPoint):
            check_magnitude(x.magnitude, f"QuantizeLinear {node.name!r}")
            chosen = pools if pools is not None and rounds_average_pool(node) else requantize
            return FixedPoint(chosen(x.integers, x.exponent, grid.exponent, grid.bits, grid.signed), grid.exponent)
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


_RECIPROCAL = "reciprocal"
"""Role of the node that makes an average of a sum (L6)."""

_HANDS_ON = (PASS_THROUGH - {"MaxPool"}) | {"Relu", "Clip"}


def rounds_average_pool(node: onnx_ir.Node) -> bool:
    """Whether a QuantizeLinear rounds the output of an average pool: a sum whose terms all have the same reciprocal (L6).

    An enlargement by interpolation is no average pool, unless it weights all its elements alike.
    """
    above = node.inputs[0].producer() if node.inputs[0] is not None else None
    while above is not None and above.op_type in _HANDS_ON and above.inputs[0] is not None:
        above = above.inputs[0].producer()
    if above is None or above.metadata_props.get(ROLE_KEY) != _RECIPROCAL:
        return False
    if above.op_type == "Mul":  # a map of reciprocals, behind a sum
        return True
    weights = above.inputs[1].producer() if above.inputs[1] is not None else None
    stored = constant(above.inputs[1] if weights is None else weights.inputs[0])
    return stored is not None and bool((stored == stored.reshape(-1)[0]).all())


ROUNDINGS: dict[str, Requantize] = {
    "half_even": fixed_point.requantize,
    "half_up": requantize_half_up,
    "half_away": requantize_half_away,
    "floor_pool": fixed_point.requantize,
}
"""Rounding of the requantizations; the graph's float input is always rounded by Q1, for that happens on the host."""

POOL_ROUNDINGS: dict[str, Requantize] = {"floor_pool": requantize_down}
"""Rounding of the outputs of average pools, where it is another one: Graffitist's."""

QUANTIZATION: dict[str, Op] = {
    "DequantizeLinear": dequantize_linear,
    "QuantizeLinear": quantize_with(fixed_point.requantize),
}
