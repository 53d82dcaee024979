"""Shapes of what operations compute, for one example."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir import UnsupportedError
from ..integers.network import MOVES, Operation
from .moves import positions

Shape = tuple[int, ...]

_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Max", "Min", "Relu", "Clip", "Table"})

_SPATIAL = (1, 2)
"""Spatial axes of windows: signals and images."""


def shape_of(operation: Operation, shapes: Sequence[Shape]) -> Shape:
    """Shape of the result of an operation, from the shapes of its inputs.

    Raises:
        UnsupportedError: naming the layer; inputs that do not fit each other, or an operation that has no form in C.
    """
    what = f"target c: layer {operation.node!r}: {operation.op}"
    try:
        if operation.op in _ELEMENTWISE:
            return np.broadcast_shapes(*shapes)
        if operation.op == "Concat":
            return np.concatenate([np.empty(shape, np.bool_) for shape in shapes], operation.attributes["axis"]).shape
        if operation.op in MOVES:
            return positions(operation, shapes[0]).shape
        if operation.op in {"Conv", "ConvTranspose", "MaxPool"}:
            return _slid(operation, shapes, what)
        if operation.op in {"Gemm", "MatMul"}:
            return _product(operation, shapes)
    except ValueError as error:
        raise UnsupportedError(f"{what} of shapes {[list(shape) for shape in shapes]} for a single example: {error}") from None
    raise UnsupportedError(f"{what} has no form in C; it must be an operation on integers")


def _product(operation: Operation, shapes: Sequence[Shape]) -> Shape:
    """Of a matrix product; zero strides keep it from being computed or stored."""
    left, right = (np.broadcast_to(np.zeros((), np.bool_), shape) for shape in shapes[:2])
    left = left.T if operation.attributes.get("transA") else left
    right = right.T if operation.attributes.get("transB") else right
    if min(left.ndim, right.ndim) < 2:
        raise ValueError("matrices are expected")
    if left.shape[-1] != right.shape[-2]:
        raise ValueError("rows and columns do not fit")
    shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    if len(shapes) > 2 and np.broadcast_shapes(shape, shapes[2]) != shape:
        raise ValueError("the bias does not fit")
    return shape


def _slid(operation: Operation, shapes: Sequence[Shape], what: str) -> Shape:
    """Of a window that slides: a convolution or a pool."""
    a, x = operation.attributes, shapes[0]
    kernel = a["kernel_shape"]
    if len(kernel) not in _SPATIAL or len(x) != len(kernel) + 2:
        raise UnsupportedError(f"{what}: windows over 1 or 2 axes of [batch, channels, ...] are accepted. Received: {list(x)}")
    spatial, sizes = len(kernel), []
    for axis, taps in enumerate(kernel):
        cut = a["pads"][axis] + a["pads"][axis + spatial]
        reach, length = a["dilations"][axis] * (taps - 1) + 1, x[2 + axis]
        if operation.op == "ConvTranspose":
            sizes.append((length - 1) * a["strides"][axis] + reach + a["output_padding"][axis] - cut)
        else:
            sizes.append((length + cut - reach) // a["strides"][axis] + 1)
    if operation.op == "MaxPool":
        return (*x[:2], *sizes)
    weights, group = shapes[1], a["group"]
    transposed = operation.op == "ConvTranspose"
    channels = weights[0] if transposed else weights[1] * group
    if tuple(weights[2:]) != tuple(kernel) or channels != x[1] or weights[0] % group:
        raise ValueError(f"weights do not fit {group} groups")
    filters = weights[1] * group if transposed else weights[0]
    if len(shapes) > 2 and shapes[2] != (filters,):
        raise ValueError("one bias for each output channel is expected")
    return (x[0], filters, *sizes)
