"""Transposed convolution: every kernel tap adds its matrix product with the whole input to a shifted, strided place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir

from ...ir import attribute
from ...kernels.fixed_point import Integers
from ..fixed_tensor import FixedPoint
from .conv import with_bias
from .operands import Op, Operand, fixed, optional, sliding, window_at
from .products import as_integers, exact_dtype, sum_bound


def conv_transpose(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`y[n, o, s p + d t - pad] = sum w[i, o, t] x[n, i, p] + b[o]`; the exponents add."""
    x, weights, bias = fixed(inputs[0]), fixed(inputs[1]), optional(inputs, 2)
    spatial = x.integers.ndim - 2
    total = spread(
        x.integers,
        weights.integers,
        beyond=attribute(node, "output_padding", (0,) * spatial),
        **sliding(node, spatial),
    )
    return with_bias(node, FixedPoint(total, x.exponent + weights.exponent), bias)


def spread(
    x: Integers,
    weights: Integers,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    beyond: Sequence[int],
    group: int,
) -> Integers:
    """Integer transposed convolution of `x [N, C, ...]` with `weights [C, O / group, ...]`.

    Args:
        x: int64 input.
        weights: int64 kernel.
        strides: one per spatial axis.
        dilations: one per spatial axis.
        pads: begins, then ends: what is cut off.
        beyond: zeros behind what the kernel reaches, one count per spatial axis, before the cut (`output_padding`).
        group: number of groups.
    """
    images, depth, kernel = x.shape[0], weights.shape[1], weights.shape[2:]
    spatial, size = len(kernel), x.shape[2:]
    dtype = exact_dtype(sum_bound(x, weights, 1), "ConvTranspose")
    steps = list(zip(size, strides, kernel, dilations, beyond, strict=True))
    full = [(length - 1) * stride + (taps - 1) * step + 1 + more for length, stride, taps, step, more in steps]
    total = np.zeros((images, group, depth, *full), dtype)
    columns = x.astype(dtype).reshape(images, group, x.shape[1] // group, math.prod(size))
    rows = weights.astype(dtype).reshape(group, x.shape[1] // group, depth, *kernel)
    for tap in np.ndindex(*kernel):
        starts = [position * step for position, step in zip(tap, dilations, strict=True)]
        at_tap: tuple[Any, ...] = (..., *tap)
        product = np.swapaxes(rows[at_tap], 1, 2) @ columns
        total[window_at(starts, strides, size)] += product.reshape(images, group, depth, *size)
    kept = [length - pads[axis] - pads[spatial + axis] for axis, length in enumerate(full)]
    window = window_at(pads[:spatial], (1,) * spatial, kept)
    return as_integers(np.ascontiguousarray(total[window])).reshape(images, group * depth, *kept)


CONV_TRANSPOSE: dict[str, Op] = {"ConvTranspose": conv_transpose}
