"""Element by element: sums, products, maxima, relu, clip."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..fixed_tensor import FixedPoint, aligned, check_magnitude
from .operands import Op, Operand, fixed, optional
from .selection import beside


def add_fixed(a: FixedPoint, b: FixedPoint, what: str) -> FixedPoint:
    """`a + b` on the finer grid, with broadcasting.

    Raises:
        UnsupportedError: the scales are too far apart for int64.
    """
    (left, right), exponent = aligned((a, b), what)
    check_magnitude(FixedPoint(left, 0).magnitude + FixedPoint(right, 0).magnitude, what)
    return FixedPoint(left + right, exponent)


def add(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`a + b`."""
    return add_fixed(fixed(inputs[0]), fixed(inputs[1]), f"Add {node.name!r}")


def subtract(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`a - b` (L4)."""
    b = fixed(inputs[1])
    return add_fixed(fixed(inputs[0]), FixedPoint(-b.integers, b.exponent), f"Sub {node.name!r}")


def multiply(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`a * b`, with broadcasting; the exponents add (L3, L13).

    Raises:
        UnsupportedError: the product does not fit int64.
    """
    a, b = fixed(inputs[0]), fixed(inputs[1])
    check_magnitude(a.magnitude * b.magnitude, f"Mul {node.name!r}")
    return FixedPoint(a.integers * b.integers, a.exponent + b.exponent)


def maximum(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """The largest of all inputs, with broadcasting, on the finest of their grids (L3, L5)."""
    integers, exponent = aligned([fixed(operand) for operand in inputs], f"Max {node.name!r}")
    return FixedPoint(functools.reduce(np.maximum, integers), exponent)


def minimum(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """The smallest of all inputs, likewise: a leaky relu with a slope above 1 (L3)."""
    integers, exponent = aligned([fixed(operand) for operand in inputs], f"Min {node.name!r}")
    return FixedPoint(functools.reduce(np.minimum, integers), exponent)


def relu(_node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`max(x, 0)`."""
    x = fixed(inputs[0])
    return FixedPoint(np.maximum(x.integers, 0), x.exponent)


def clip(node: onnx_ir.Node, inputs: Sequence[Operand | None]) -> FixedPoint:
    """`min(max(x, low), high)`: integer bounds limit the integers themselves (L2), float bounds the real value."""
    x = fixed(inputs[0])
    for bound, limit in ((optional(inputs, 1), np.maximum), (optional(inputs, 2), np.minimum)):
        if bound is None or isinstance(bound, FixedPoint) or np.isinf(bound.astype(np.float64)).all():
            continue
        if bound.dtype.kind == "f" and _never_binds(x, bound, upper=limit is np.minimum):
            continue  # before it is put on the grid of x, which may be too fine for so large a number
        if bound.dtype.kind != "f":
            x = FixedPoint(limit(x.integers, bound.astype(np.int64)), x.exponent)
        else:
            (values, edge), exponent = beside(node, x, bound)
            x = FixedPoint(limit(values, edge), exponent)
    return x


def _never_binds(x: FixedPoint, bound: npt.NDArray[Any], *, upper: bool) -> bool:
    """Whether no value of `x` lies beyond the bound."""
    largest = np.ldexp(float(x.magnitude), x.exponent)
    return bool((bound >= largest).all() if upper else (bound <= -largest).all())


ELEMENTWISE: dict[str, Op] = {
    "Add": add,
    "Clip": clip,
    "Max": maximum,
    "Min": minimum,
    "Mul": multiply,
    "Relu": relu,
    "Sub": subtract,
}
