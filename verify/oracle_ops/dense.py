"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir

from ...ir import DataError, attribute
from ...kernels.fixed_point import Integers
from ..fixed_tensor import FixedPoint
from .elementwise import add_fixed
from .operands import Op, Operand, fixed, optional
from .products import BLOCK, as_integers, exact_dtype, sum_bound


def product(a: Integers, b: Integers) -> Integers:
    """`a @ b` in float64 BLAS where exact, else in int64; a large `b` some columns at a time."""
    dtype = exact_dtype(sum_bound(a, b, -1), "MatMul")
    left = a.astype(dtype)
    if b.ndim < 2 or b.size <= BLOCK:
        return as_integers(left @ b.astype(dtype))
    step = max(1, BLOCK * b.shape[-1] // b.size)
    parts = [as_integers(left @ b[..., start : start + step].astype(dtype)) for start in range(0, b.shape[-1], step)]
    return np.concatenate(parts, axis=-1)


def matmul(_node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`a @ b`, of any rank; the exponents add."""
    a, b = fixed(inputs[0]), fixed(inputs[1])
    return FixedPoint(product(a.integers, b.integers), a.exponent + b.exponent)


def gemm(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`a @ b + c`, with alpha = beta = 1.

    Raises:
        DataError: `c` has one row per image, but not for so many images.
    """
    a, b, c = fixed(inputs[0]), fixed(inputs[1]), optional(inputs, 2)
    left = a.integers.T if attribute(node, "transA", 0) else a.integers
    right = b.integers.T if attribute(node, "transB", 0) else b.integers
    y = FixedPoint(product(left, right), a.exponent + b.exponent)
    if c is None:
        return y
    bias = fixed(c)
    what = f"Gemm {node.name!r}"
    pairs = zip(reversed(bias.integers.shape), reversed(y.integers.shape), strict=False)
    if bias.integers.ndim > 2 or any(length not in {1, wanted} for length, wanted in pairs):
        raise DataError(f"{what}: a bias that fits sums of shape {y.integers.shape} is expected. Received: {bias.integers.shape}")
    return add_fixed(y, bias, what)


DENSE: dict[str, Op] = {"Gemm": gemm, "MatMul": matmul}
