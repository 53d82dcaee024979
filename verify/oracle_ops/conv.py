"""Convolution: for every kernel tap, one matrix product of the weights with the shifted input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...kernels.fixed_point import Integers
from ..fixed_tensor import FixedPoint
from .elementwise import add_fixed
from .operands import Op, Operand, fixed, optional, sliding, window_at
from .products import as_integers, exact_dtype, sum_bound


def conv(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`y[n, o] = sum w[o, i, t] x[n, i, s p + d t - pad] + b[o]`; the exponents add."""
    x, weights, bias = fixed(inputs[0]), fixed(inputs[1]), optional(inputs, 2)
    spatial = x.integers.ndim - 2
    total = convolve(
        x.integers,
        weights.integers,
        **sliding(node, spatial),
    )
    return with_bias(node, FixedPoint(total, x.exponent + weights.exponent), bias)


def with_bias(node: onnx_ir.Node, y: FixedPoint, bias: Operand | None) -> FixedPoint:
    """The sum `y [N, O, ...]` of a convolution and its bias [O], where it has one."""
    if bias is None:
        return y
    b = fixed(bias)
    column = FixedPoint(b.integers.reshape(-1, *(1,) * (y.integers.ndim - 2)), b.exponent)
    return add_fixed(y, column, f"{node.op_type} {node.name!r}")


def convolve(
    x: Integers,
    weights: Integers,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int,
    dtype: npt.DTypeLike | None = None,
) -> Integers:
    """Integer convolution of `x [N, C, ...]` with `weights [O, C / group, ...]`.

    Args:
        x: int64 input.
        weights: int64 kernel.
        strides: one per spatial axis.
        dilations: one per spatial axis.
        pads: begins, then ends.
        group: number of groups.
        dtype: arithmetic; None takes float64 where the bound proves it exact, else int64.
    """
    images, outputs, depth, kernel = x.shape[0], weights.shape[0], weights.shape[1], weights.shape[2:]
    spatial = len(kernel)
    dtype = dtype or exact_dtype(sum_bound(x, weights, 0), "Conv")
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)]).astype(dtype)
    steps = list(zip(padded.shape[2:], kernel, strides, dilations, strict=True))
    size = tuple((length - step * (taps - 1) - 1) // stride + 1 for length, taps, stride, step in steps)
    padded = padded.reshape(images, group, depth, *padded.shape[2:])
    grouped = weights.astype(dtype).reshape(group, outputs // group, depth, *kernel)
    total, scratch = (np.empty((images, group, outputs // group, *size), dtype) for _ in range(2))
    for count, tap in enumerate(np.ndindex(*kernel)):
        starts = [position * step for position, step in zip(tap, dilations, strict=True)]
        target = scratch if count else total
        _tap_products(grouped[(..., *tap)], padded[window_at(starts, strides, size)], target)
        if count:
            total += scratch
    return as_integers(total).reshape(images, outputs, *size)


def _tap_products(weights: npt.NDArray[Any], window: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """`weights [G, O, I]` times `window [N, G, I, ...]` into `target [N, G, O, ...]`; depthwise without a matrix product."""
    if window.shape[2] == 1:
        np.multiply(weights.reshape(*weights.shape[:2], *(1,) * (window.ndim - 3)), window, out=target)
    else:
        flat = (*target.shape[:3], math.prod(target.shape[3:]))
        np.matmul(weights, window.reshape(*window.shape[:3], flat[3]), out=target.reshape(flat))


CONV: dict[str, Op] = {"Conv": conv}
