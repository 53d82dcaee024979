"""The one rounding at the end of a step: `clip(round(x / 2^shift), lower, upper)`, ties to even (Q1, Q2), exactly (X2).

Integers up to 2^24 are float32 numbers, and so are their quotients by powers of two: QuantizeLinear with the scale `2^shift`
rounds and saturates them in one kernel. Larger ones take Cast to float64, Mul, Round, Clip, Cast.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir

from ..integers.network import Tensor
from .graph import F32, F64, FLOAT32_EXACT, I32, S8, U8, Builder, Carried, narrowest, widest

_FARTHEST: Final = 60
"""Whatever is computed is at most 2^53: divided by 2^60 it is 0, as by every larger power."""

_QUANTIZED: Final = {
    (True, True): S8,
    (True, False): U8,
    (False, True): onnx_ir.DataType.INT16,
    (False, False): onnx_ir.DataType.UINT16,
}
"""(At most 8 bits, signed) -> what QuantizeLinear writes."""


def stored_type(tensor: Tensor) -> onnx_ir.DataType:
    """The element type of an integer tensor in the graph."""
    return _QUANTIZED[True, tensor.signed] if tensor.bits <= 8 else I32


def requantize(builder: Builder, x: Carried, shift: int, tensor: Tensor) -> onnx_ir.Value:
    """The integers of a step's tensor, in its stored type.

    Args:
        builder: the graph.
        x: what is rounded.
        shift: exponent of the tensor minus that of `x`; negative shifts go to the left.
        tensor: what is computed.
    """
    if shift <= 0:
        return _shifted_left(builder, x, -shift, tensor)
    shift = min(shift, _FARTHEST)
    if x.magnitude <= FLOAT32_EXACT and tensor.bits <= 16:
        return quantize(builder, builder.read(x, F32), shift, tensor)
    scaled = builder.node("Mul", [builder.read(x, F64), builder.number(2.0**-shift, F64)], f"{tensor.name}__scaled")
    rounded = builder.node("Round", [scaled], f"{tensor.name}__rounded")
    clipped = _clip(builder, rounded, tensor.lower, tensor.upper, tensor, F64)
    return builder.convert(clipped, stored_type(tensor))


def quantize(builder: Builder, real: onnx_ir.Value, exponent: int, tensor: Tensor) -> onnx_ir.Value:
    """`clip(round(real / 2^exponent), lower, upper)` of a float32 tensor, for at most 16 bits."""
    dtype = _QUANTIZED[tensor.bits <= 8, tensor.signed]
    value = builder.node("QuantizeLinear", _parameters(builder, real, exponent, dtype), f"{tensor.name}__quantized")
    value.dtype = dtype
    limits = np.iinfo(dtype.numpy())
    value = value if tensor.bits <= 8 else builder.convert(value, I32)
    if tensor.lower <= limits.min and tensor.upper >= limits.max:
        return value
    return _clip(builder, value, tensor.lower, tensor.upper, tensor, stored_type(tensor))


def dequantize(builder: Builder, integers: onnx_ir.Value, exponent: int, name: str) -> onnx_ir.Value:
    """`integers * 2^exponent` in float32, of a tensor in its stored type."""
    assert integers.dtype is not None
    value = builder.node("DequantizeLinear", _parameters(builder, integers, exponent, integers.dtype), f"{name}__real")
    value.dtype = F32
    return value


def real_numbers(builder: Builder, x: Carried, exponent: int, name: str) -> onnx_ir.Value:
    """The float32 numbers nearest to `x * 2^exponent`; up to the last Cast all is float64, which is exact beyond 2^24, too."""
    scaled = builder.node("Mul", [builder.read(x, F64), builder.number(2.0**exponent, F64)], f"{name}__scaled")
    real = builder.node("Cast", [scaled], f"{name}__real", {"to": int(F32)})
    real.dtype = F32
    return real


def _parameters(builder: Builder, value: onnx_ir.Value, exponent: int, dtype: onnx_ir.DataType) -> list[onnx_ir.Value]:
    """Input, scale and zero point of a Q/DQ node."""
    return [value, builder.number(float(np.ldexp(1.0, exponent)), F32), builder.number(0, dtype)]


def _shifted_left(builder: Builder, x: Carried, places: int, tensor: Tensor) -> onnx_ir.Value:
    """As many places as the type has bits take all but 0 out of range; what is far out is cut off first, lest it overflow."""
    stored, what = stored_type(tensor), f"layer {x.name!r}"
    if places == 0:
        if tensor.lower <= x.low and x.high <= tensor.upper:
            return builder.read(x, stored)
        dtype = narrowest(min(x.low, tensor.lower), max(x.high, tensor.upper), what)
        return builder.convert(_clip(builder, builder.read(x, dtype), tensor.lower, tensor.upper, tensor, dtype), stored)
    places = min(places, tensor.bits)
    beyond = 1 << (tensor.bits - places)
    dtype = widest(x.low, x.high, what)
    value = builder.read(x, dtype)
    if x.magnitude > beyond:
        value = _clip(builder, value, -beyond, beyond, tensor, dtype)
    moved = builder.node("Mul", [builder.convert(value, I32), builder.number(1 << places, I32)], f"{tensor.name}__shifted")
    moved.dtype = I32
    return builder.convert(_clip(builder, moved, tensor.lower, tensor.upper, tensor, I32), stored)


def _clip(builder: Builder, value: onnx_ir.Value, lower: int, upper: int, tensor: Tensor, dtype: onnx_ir.DataType) -> onnx_ir.Value:
    """Saturation."""
    bounds = [builder.number(bound, dtype) for bound in (lower, upper)]
    clipped = builder.node("Clip", [value, *bounds], f"{tensor.name}__clipped")
    clipped.dtype = dtype
    return clipped
