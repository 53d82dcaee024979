"""A value as what two slopes make of another one: `p x` where x is positive, `n x` where it is negative.

    Relu(x)             p = 1, n = 0               x - Abs(x)           p = 0, n = 2
    Max(x, a x)         p = max(1, a), ...         0.5 * (x + Abs(x))   p = 1, n = 0

Sums, differences, maxima and constant multiples of such values are such values again. However a parametric relu is written,
it comes down to `p = 1` and the slopes `n`: one number, or several that meet x by broadcasting (one per channel).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir

from ..ir import ROLE_KEY, attribute, constant
from .rewriting import Float64, is_op, operand_pair

_DEPTH = 6
"""Operators from end to end: the longest spelling has five, `relu(x) + a * (x - abs(x)) * 0.5`."""

_SELECTING = ("Relu", "Abs", "LeakyRelu", "PRelu", "Max", "Min", "Clip")


@dataclass(frozen=True)
class Slopes:
    """What makes one value out of another.

    Attributes:
        positive: float64, factor of numbers above zero.
        negative: float64, factor of numbers below zero.
        selects: whether an operator is involved that tells the two sides apart.
    """

    positive: Float64
    negative: Float64
    selects: bool = False


_ITSELF = Slopes(np.ones(()), np.ones(()))


def sources(value: onnx_ir.Value, depth: int = _DEPTH) -> list[onnx_ir.Value]:
    """The values that `value` is made of by two slopes, itself first, then from the nearest to the farthest."""
    node = value.producer()
    data = None if node is None or depth == 0 else _operands(node)
    if not data:
        return [value]
    first, *others = (sources(operand, depth - 1) for operand in data)
    common = [candidate for candidate in first if all(candidate in other for other in others)]
    return [value, *common]


def slopes_of(value: onnx_ir.Value, source: onnx_ir.Value) -> Slopes:
    """The slopes that make `value` out of one of its `sources`."""
    node = value.producer()
    if value is source or node is None:
        return _ITSELF
    data = _operands(node) or []
    found = [slopes_of(operand, source) for operand in data]
    with np.errstate(all="ignore"):  # what is not finite is for the caller
        made = _combined(node, found)
    return Slopes(made[0], made[1], is_op(node, *_SELECTING) or any(slopes.selects for slopes in found))


def _operands(node: onnx_ir.Node) -> list[onnx_ir.Value] | None:
    """What a node makes a value with two slopes of, where its operands are such values; None of any other node."""
    if ROLE_KEY in node.metadata_props or any(value is None for value in node.inputs[:1]):
        return None
    data = [value for value in node.inputs if value is not None and constant(value) is None]
    pair = operand_pair(node)
    if is_op(node, "Relu", "Abs", "Neg", "LeakyRelu") or (is_op(node, "PRelu") and _is_float(node, 1)):
        return data
    if is_op(node, "Add", "Sub"):
        return data if len(data) == 2 else None
    if is_op(node, "Mul"):
        return data if pair is not None and pair[1].dtype.kind == "f" else None
    if is_op(node, "Div"):
        return data if pair is not None and pair[0] == 0 and pair[1].dtype.kind == "f" and pair[1].all() else None
    if is_op(node, "Max", "Min") and len(node.inputs) == 2:
        return data if len(data) == 2 or (pair is not None and _is_zero(pair[1])) else None
    if is_op(node, "Clip"):
        bounds = _bounds(node)
        return data if len(data) == 1 and None not in bounds else None
    return None


def _is_float(node: onnx_ir.Node, index: int) -> bool:
    array = constant(node.inputs[index])
    return array is not None and array.dtype.kind == "f"


def _is_zero(array: Float64) -> bool:
    return array.size == 1 and array.ndim <= 1 and array.dtype.kind == "f" and not array.any()


def _bounds(node: onnx_ir.Node) -> tuple[float | None, float | None]:
    """Bounds of a Clip that are zero or infinite, None for any other."""
    found: list[float | None] = []
    for index, infinite in ((1, -np.inf), (2, np.inf)):
        value = node.inputs[index] if index < len(node.inputs) else None
        array = constant(value)
        number = infinite if value is None else np.nan if array is None or array.size != 1 else float(array.item())
        found.append(number if number in (0.0, infinite) else None)
    return found[0], found[1]


def _combined(node: onnx_ir.Node, found: list[Slopes]) -> tuple[Float64, Float64]:
    first = found[0]
    p, n = first.positive, first.negative
    q, m = (found[1].positive, found[1].negative) if len(found) > 1 else (np.zeros(()), np.zeros(()))
    pair = operand_pair(node)
    factor = np.ones(()) if pair is None else pair[1].astype(np.float64)
    match node.op_type:
        case "Neg":
            return -p, -n
        case "Add":
            return p + q, n + m
        case "Sub":
            return p - q, n - m
        case "Mul":
            return p * factor, n * factor
        case "Div":
            return p / factor, n / factor
        case "Max":
            return np.maximum(p, q), np.minimum(n, m)
        case "Min":
            return np.minimum(p, q), np.maximum(n, m)
        case "Clip":
            low, high = _bounds(node)
            p, n = (np.maximum(p, 0), np.minimum(n, 0)) if low == 0 else (p, n)
            return (np.minimum(p, 0), np.maximum(n, 0)) if high == 0 else (p, n)
    below = {"Relu": 0.0, "Abs": -1.0}.get(node.op_type, attribute(node, "alpha", 0.01))
    slope = np.asarray(constant(node.inputs[1]) if node.op_type == "PRelu" else below, np.float64)
    return np.where(p >= 0, p, slope * p), np.where(n <= 0, n, slope * n)  # what is positive stays, the rest is scaled
