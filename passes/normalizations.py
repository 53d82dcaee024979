"""Layer normalizations written as small operators, recognised by what they compute and not by how it is written.

    y = g * (x - m) / sqrt(c * var(x) + eps) + b         m, var: mean and variance of x over some axes
    y = g * x / sqrt(c * mean(x^2) + eps) + b            without the mean (RMS, l2)

What ends as one of the two lines, in the polynomials of `normalization_algebra`, is a normalization.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir

from ..ir import constant, consumers, static_shape
from .mean_to_global_average_pool import reduced_axes
from .normalization_algebra import M_OVER_ROOT, ONE, X_OVER_ROOT, Algebra, Root
from .rewriting import Float64, is_op


@dataclass(frozen=True)
class Normalization:
    """A recognised normalization.

    Attributes:
        source: x.
        result: y.
        axes: of the mean, from the front, in order.
        root: epsilon, and whether the mean is subtracted.
        scale: g, of the rank of x.
        shift: b likewise, or None.
    """

    source: onnx_ir.Value
    result: onnx_ir.Value
    axes: tuple[int, ...]
    root: Root
    scale: Float64
    shift: Float64 | None


def normalization_at(node: onnx_ir.Node) -> Normalization | None:
    """The normalization whose first mean or sum a node is, as large as it is: terms and factors behind it belong to it.

    Nothing on the way may be read by anybody else; the axes of the mean have known lengths and are not that of the batch.
    """
    value, axes = node.inputs[0], reduced_axes(node)
    before = None if value is None else value.producer()
    squared = before is not None and (
        (is_op(before, "Mul") and before.inputs[0] is before.inputs[1])
        or (is_op(before, "Pow") and constant(before.inputs[1]) is not None)
    )
    for source in (value, before.inputs[0] if squared and before is not None else None):
        shape = None if source is None else static_shape(source)
        if source is None or shape is None or not axes or axes[0] == 0 or any(shape[axis] is None for axis in axes):
            continue
        algebra = Algebra(source, axes, shape)
        for result in reversed(algebra.walk()):
            is_read = bool(result.uses()) or result.is_graph_output()
            found = _as_normalization(algebra, result) if is_read else None
            if found is not None and node in (inside := _between(source, result)) and _is_closed(inside, result):
                return found
    return None


def _as_normalization(algebra: Algebra, result: onnx_ir.Value) -> Normalization | None:
    parts = dict(algebra.known[result])
    scale, shift, root = parts.pop(X_OVER_ROOT, None), parts.pop(ONE, None), algebra.root
    mean = parts.pop(M_OVER_ROOT, None)
    if scale is None or root is None or parts or (mean is not None) != root.centred:
        return None
    if mean is not None and np.any(scale != -mean):
        return None
    widest = reduce(np.broadcast_shapes, [scale.shape, *([] if shift is None else [shift.shape])])
    if any(wide not in (1, size) for wide, size in zip(widest, algebra.shape, strict=True)):
        return None
    return Normalization(algebra.source, result, algebra.axes, root, scale, shift)


def _between(source: onnx_ir.Value, result: onnx_ir.Value) -> set[onnx_ir.Node]:
    """The nodes that compute one value from another."""
    inside: set[onnx_ir.Node] = set()
    pending: list[onnx_ir.Value] = [result]
    while pending:
        value = pending.pop()
        node = value.producer()
        if value is not source and node is not None and node not in inside and constant(value) is None:
            inside.add(node)
            pending.extend(operand for operand in node.inputs if operand is not None)
    return inside


def _is_closed(inside: set[onnx_ir.Node], result: onnx_ir.Value) -> bool:
    """Whether `result` is all that anybody else reads."""
    values = [value for node in inside for value in node.outputs if value is not result]
    return not any(value.is_graph_output() or any(reader not in inside for reader in consumers(value)) for value in values)
