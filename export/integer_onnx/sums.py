"""Conv, ConvTranspose, Gemm and MatMul as ConvInteger and MatMulInteger: exact int32 sums, then the bias.

Both factors are written as uint8: a signed `x` becomes `x + 128` with the zero point 128, the weights once and for all, a tensor
by flipping its highest bit. The products are the same. Kernels for uint8 times int8 may saturate where there is no VNNI (X4), and
ConvInteger with int8 weights is several times slower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import UnsupportedError
from ..integers.network import Operation
from .graph import I32, INT32_MOST, S8, U8, Builder, Carried, widest

_HALF: Final = 128
"""Zero point of a signed factor."""


def convolution(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """`y[n, o] = sum w[o, i, t] x[n, i, s p + d t - pad] + b[o]`."""
    names = ("kernel_shape", "strides", "dilations", "pads", "group")
    attributes = {name: operation.attributes[name] for name in names}
    return _with_bias(builder, operation, _convolved(builder, operation, operands[0], operands[1], attributes), operands)


def transposed_convolution(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """Zeros between the elements, then a convolution with the flipped weights.

    `stride - 1` zeros behind each element: `[N, C, H] -> [N, C, H, 1] -> Pad -> [N, C, H, stride] -> [N, C, H * stride]`.
    """
    x, weights, attributes = operands[0], operands[1], operation.attributes
    group, strides, kernel = attributes["group"], attributes["strides"], attributes["kernel_shape"]
    spatial = len(kernel)
    flipped = _flipped(_constant(operation, weights), group)
    reach = [step * (taps - 1) for step, taps in zip(attributes["dilations"], kernel, strict=True)]
    begins = [reach[axis] - attributes["pads"][axis] for axis in range(spatial)]
    ends = [
        reach[axis] - attributes["pads"][axis + spatial] + attributes["output_padding"][axis] - (strides[axis] - 1)
        for axis in range(spatial)
    ]
    spread = _spread(builder, operation, x, strides)
    cut = [min(width, 0) for width in (*begins, *ends)]
    if any(cut):
        widths = [0, 0, *cut[:spatial], 0, 0, *cut[spatial:]]
        spread = _padded(builder, operation, spread, widths)
    pads = [max(width, 0) for width in (*begins, *ends)]
    own = {"kernel_shape": kernel, "strides": [1] * spatial, "dilations": attributes["dilations"], "pads": pads, "group": group}
    constant = Carried(f"{weights.name}__flipped", flipped.shape, weights.low, weights.high, integers=flipped)
    return _with_bias(builder, operation, _convolved(builder, operation, spread, constant, own), operands)


def dense(builder: Builder, operation: Operation, operands: Sequence[Carried]) -> Carried:
    """`y = a b + c`, of matrices or of stacks of them."""
    for name in ("alpha", "beta"):
        if operation.attributes.get(name, 1) != 1:
            raise _refusal(operation, f"{name} = {operation.attributes[name]}", "a Gemm whose alpha and beta are 1 is expected")
    a, b = (
        _matrix(builder, operation, operand, transposed=bool(operation.attributes.get(flag, 0)))
        for operand, flag in zip(operands[:2], ("transA", "transB"), strict=True)
    )
    if b.integers is not None:
        bound = a.magnitude * int(np.abs(b.integers).sum(-2 if b.integers.ndim > 1 else 0).max(initial=0))
    else:
        taps = a.shape[-1]
        if taps is None:
            received = f"factors {list(a.shape)} and {list(b.shape)}"
            raise _refusal(operation, received, "a known number of products in each sum is expected")
        bound = taps * a.magnitude * b.magnitude
    return _with_bias(builder, operation, _sum(builder, operation, "MatMulInteger", a, b, bound, {}), operands)


def _convolved(builder: Builder, operation: Operation, x: Carried, weights: Carried, attributes: Mapping[str, object]) -> Carried:
    rows = np.abs(_constant(operation, weights)).reshape(weights.shape[0] or 0, -1)
    return _sum(builder, operation, "ConvInteger", x, weights, x.magnitude * int(rows.sum(1).max(initial=0)), attributes)


def _constant(operation: Operation, weights: Carried) -> npt.NDArray[np.int64]:
    if weights.integers is None:
        raise _refusal(operation, f"{weights.name!r}, which is computed", "the weights of a convolution must be constant")
    return weights.integers


def _sum(
    builder: Builder, operation: Operation, op: str, x: Carried, weights: Carried, bound: int, attributes: Mapping[str, object]
) -> Carried:
    """The sum of products, without the bias, in int32; the certificate may know a smaller bound than `bound`.

    Raises:
        UnsupportedError: a factor of more than 8 bits, or sums beyond int32.
    """
    bound = bound if operation.bound is None else min(bound, operation.bound)
    if bound > INT32_MOST:
        raise _refusal(operation, f"partial sums of up to {bound}", f"{op} adds up in int32, at most {INT32_MOST}")
    (first, first_zero), (second, second_zero) = (_unsigned(builder, operation, factor) for factor in (x, weights))
    value = Carried(f"{operation.output}__sum", operation.shape, -bound, bound)
    return builder.made(op, [first, second, first_zero, second_zero], value, I32, **attributes)


def _unsigned(builder: Builder, operation: Operation, x: Carried) -> tuple[onnx_ir.Value, onnx_ir.Value]:
    """A factor as uint8, and its zero point."""
    if x.low < -_HALF or x.high > 255 or (x.low < 0 and x.high >= _HALF):
        received = f"{x.name!r} with integers from {x.low} to {x.high}"
        raise _refusal(operation, received, "ConvInteger and MatMulInteger take factors of 8 bits")
    zero = 0 if x.low >= 0 else _HALF
    point = builder.number(zero, U8)
    if x.integers is not None:
        moved = Carried(x.name, x.shape, x.low + zero, x.high + zero, integers=x.integers + zero)
        return builder.read(moved, U8), point
    if zero == 0:
        return builder.read(x, U8), point
    bits = builder.convert(builder.read(x, S8), U8)  # keeps the eight bits: two's complement
    return builder.node("BitwiseXor", [bits, builder.number(_HALF, U8)], f"{x.name}__plus_128"), point


def _with_bias(builder: Builder, operation: Operation, total: Carried, operands: Sequence[Carried]) -> Carried:
    """The sum and a bias on its grid; the bound of the whole is the certificate's where there is one."""
    low, high = total.low, total.high
    if len(operands) > 2:
        bias = operands[2]
        channels = len(operation.shape) - 2 if operation.op.startswith("Conv") else 0
        low, high = low + bias.low, high + bias.high
    bound = max(-low, high) if operation.bound is None else operation.bound
    low, high = max(low, -bound), min(high, bound)
    like = Carried(operation.output, operation.shape, low, high, total.value)
    if len(operands) == 2:
        return like
    dtype = widest(min(low, total.low, bias.low), max(high, total.high, bias.high), f"layer {operation.node!r}")
    if bias.integers is not None and channels:
        column = bias.integers.reshape(-1, *[1] * channels)
        bias = Carried(bias.name, column.shape, bias.low, bias.high, integers=column)
    elif channels:
        raise _refusal(operation, f"bias {bias.name!r}, which is computed", "a convolution takes a constant bias")
    return builder.made("Add", [builder.read(total, dtype), builder.read(bias, dtype)], like, dtype)


def _spread(builder: Builder, operation: Operation, x: Carried, strides: Sequence[int]) -> Carried:
    """`stride - 1` zeros behind each element."""
    if all(stride == 1 for stride in strides):
        return x
    sizes = [size for size in x.shape[2:] if size is not None]
    if len(sizes) < len(strides):
        raise _refusal(operation, f"an input of shape {list(x.shape)}", "height and width must be known")
    single = [0, 0, *(part for size in sizes for part in (size, 1))]
    behind = [0] * len(single) + [0, 0, *(part for stride in strides for part in (0, stride - 1))]
    joined = [0, 0, *(size * stride for size, stride in zip(sizes, strides, strict=True))]
    return _reshaped(builder, operation, _padded(builder, operation, _reshaped(builder, operation, x, single), behind), joined)


def _padded(builder: Builder, operation: Operation, x: Carried, widths: Sequence[int]) -> Carried:
    """Zeros around what a transposed convolution reads."""
    like = Carried(f"{operation.output}__padded", x.shape, min(x.low, 0), max(x.high, 0))
    return builder.pad(x, widths, 0, like, S8 if x.low < 0 else U8)


def _reshaped(builder: Builder, operation: Operation, x: Carried, shape: Sequence[int]) -> Carried:
    """Other axes for what a transposed convolution reads; 0 is the batch as it is."""
    like = Carried(f"{operation.output}__spread", tuple(size or None for size in shape), x.low, x.high)
    dtype = S8 if x.low < 0 else U8
    return builder.made("Reshape", [builder.read(x, dtype), builder.list(f"{operation.output}__shape", shape)], like, dtype)


def _flipped(weights: npt.NDArray[np.int64], group: int) -> npt.NDArray[np.int64]:
    """`[C, O / group, ...]` of a transposed convolution as `[O, C / group, ...]` of the convolution, taps in reverse order."""
    depth, filters, kernel = weights.shape[0], weights.shape[1], weights.shape[2:]
    grouped = weights.reshape(group, depth // group, filters, *kernel).swapaxes(1, 2)
    merged = grouped.reshape(group * filters, depth // group, *kernel)
    return np.ascontiguousarray(np.flip(merged, tuple(range(2, merged.ndim))))


def _matrix(builder: Builder, operation: Operation, x: Carried, *, transposed: bool) -> Carried:
    if not transposed:
        return x
    shape = x.shape[::-1]
    if x.integers is not None:
        return Carried(x.name, shape, x.low, x.high, integers=np.ascontiguousarray(x.integers.T))
    assert x.value is not None and x.value.dtype is not None
    like = Carried(f"{operation.output}__transposed", shape, x.low, x.high)
    return builder.made("Transpose", [x.value], like, x.value.dtype, perm=[1, 0])


def _refusal(operation: Operation, received: str, why: str) -> UnsupportedError:
    return UnsupportedError(f"target integer: layer {operation.node!r}: {operation.op}: {why}. Received: {received}")
