"""Scale and storage of a QuantizeLinear or DequantizeLinear node, as power-of-two models have them (Q3, Q4, O2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir

from .errors import UnsupportedError
from .graph import constant, only_consumer
from .quantizers import integer_bounds

STORAGE: dict[onnx_ir.DataType, tuple[int, bool]] = {
    onnx_ir.DataType.INT4: (4, True),
    onnx_ir.DataType.UINT4: (4, False),
    onnx_ir.DataType.INT8: (8, True),
    onnx_ir.DataType.UINT8: (8, False),
    onnx_ir.DataType.INT16: (16, True),
    onnx_ir.DataType.UINT16: (16, False),
    onnx_ir.DataType.INT32: (32, True),
}
"""Integer types of Q/DQ: bits and sign."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Scale and storage of a QuantizeLinear or DequantizeLinear node.

    Attributes:
        exponent: `log2` of the scale.
        bits: width of the integer type.
        signed: two's complement or unsigned.
    """

    exponent: int
    bits: int
    signed: bool

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return integer_bounds(self.bits, self.signed)


def grid_of(node: onnx_ir.Node) -> Grid:
    """Reads scale and zero point (Q3, Q4, O2).

    Raises:
        UnsupportedError: the scale is not one constant power of two, the zero point not zero, or the type not a Q/DQ integer.
    """
    where = f"{node.op_type} {node.name!r}"
    scale = constant(node.inputs[1])
    if scale is None or scale.size != 1:
        received = "a computed one" if scale is None else f"{scale.size} values"
        raise UnsupportedError(f"{where}: the scale must be one constant per tensor (Q4). Received: {received}")
    mantissa, exponent = math.frexp(float(scale.reshape(())))
    if mantissa != 0.5:
        raise UnsupportedError(f"{where}: the scale must be a power of two (Q4). Received: {float(scale.reshape(()))!r}")
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is not None:
        zero = constant(zero_point)
        if zero is None or np.any(zero.astype(np.int64) != 0):
            raise UnsupportedError(f"{where}: the zero point must be the constant 0 (Q3). Received: {zero}")
    dtype = _storage(node, zero_point)
    if dtype not in STORAGE:
        raise UnsupportedError(f"{where}: expected one of {', '.join(t.name for t in STORAGE)}. Received: {dtype}")
    bits, signed = STORAGE[dtype]
    return Grid(exponent - 1, bits, signed)


def kept_bounds(node: onnx_ir.Node) -> tuple[int, int]:
    """Smallest and largest integer kept behind a QuantizeLinear: the grid's, cut by a Clip that alone reads them (L2).

    Raises:
        UnsupportedError: as `grid_of`.
    """
    low, high = grid_of(node).bounds
    clip = only_consumer(node.outputs[0])
    if clip is None or clip.op_type != "Clip":
        return low, high
    least, most = (constant(value) if value is not None else None for value in (*clip.inputs[1:3], None, None)[:2])
    return (low if least is None else max(low, int(least))), (high if most is None else min(high, int(most)))


def _storage(node: onnx_ir.Node, zero_point: onnx_ir.Value | None) -> onnx_ir.DataType | None:
    """The integer type: of the zero point; without one that of DequantizeLinear's input, or uint8 (ONNX's default)."""
    if zero_point is not None and zero_point.const_value is not None:
        return zero_point.const_value.dtype
    if node.op_type == "QuantizeLinear":
        chosen = node.attributes.get("output_dtype")
        return onnx_ir.DataType(chosen.as_int()) if chosen is not None and chosen.as_int() else onnx_ir.DataType.UINT8
    value = node.inputs[0]
    if value is not None and value.const_value is not None:
        return value.const_value.dtype
    return None if value is None else value.dtype
