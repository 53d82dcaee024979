"""Every way of writing a leaky relu with one slope becomes LeakyRelu.

    s = Mul(x, a), y = Max(x, s)                                 a <= 1      =>      y = LeakyRelu(x; a)
    s = Mul(x, a), y = Min(x, s)                                 a >= 1      =>      y = LeakyRelu(x; a)
    y = PRelu(x, a)                                                          =>      y = LeakyRelu(x; a)
    p = Relu(x), n = Neg(x), m = Relu(n), s = Mul(m, -a), y = Add(p, s)      =>      y = LeakyRelu(x; a)

The last is how Keras writes PReLU; `Sub(p, Mul(m, a))` is the same. LeakyRelu with the slope 0 is Relu, with the slope 1
Identity. All are equal bit for bit in floats too: both sides multiply once and select.

Operands may come in either order. Refused: slopes that differ (between channels, say), that are not finite or on the other
side of 1, where the larger of the two is no leaky relu; products that others read too are kept for them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import ROLE_KEY, attribute, constant, name_of, static_shape
from .rewriting import drop, inherited, is_op, operand_pair, refuse, rewrite_each, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaxToLeaky:
    """Recognises leaky relus; their slopes 0 and 1 are Relu and Identity."""

    name: ClassVar[str] = "max-to-leaky"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        found = rewrite_each(model.graph, _recognise, "Max", "Min", "PRelu", "Add", "Sub")
        return rewrite_each(model.graph, _simplify, "LeakyRelu") or found


def _recognise(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if ROLE_KEY in node.metadata_props:  # lowering wrote it
        return False
    pair = _of_parametric(node) or _of_extreme(node) or _of_two_halves(node)
    if pair is None:
        return False
    data, slope = pair
    if slope is None or not math.isfinite(slope):
        return refuse(logger, node, "a leaky relu needs one finite slope")
    if (is_op(node, "Max") and slope > 1) or (is_op(node, "Min") and slope < 1):
        return refuse(logger, node, f"with the slope {slope} it is no leaky relu")
    _replace(graph, node, "LeakyRelu", data, slope)
    return True


def _simplify(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    slope, data = attribute(node, "alpha", 0.01), node.inputs[0]
    if slope not in (0.0, 1.0) or data is None:
        return False
    _replace(graph, node, "Relu" if slope == 0.0 else "Identity", data, None)
    return True


Pair = tuple[onnx_ir.Value, float | None]
"""What goes in, and the slope: None where there is not one of it."""


def _of_parametric(node: onnx_ir.Node) -> Pair | None:
    data = node.inputs[0] if is_op(node, "PRelu") else None
    return None if data is None else (data, _one_number(node.inputs[1], data))


def _of_extreme(node: onnx_ir.Node) -> Pair | None:
    """`Max(x, a x)` or `Min(x, a x)`."""
    if not is_op(node, "Max", "Min") or len(node.inputs) != 2:
        return None
    for data, other in (tuple(node.inputs), tuple(reversed(node.inputs))):
        scaled = None if other is None else _scaled(other)
        if data is not None and scaled is not None and scaled[0] is data:
            return scaled
    return None


def _of_two_halves(node: onnx_ir.Node) -> Pair | None:
    """`Relu(x) + c Relu(-x)`, or minus."""
    if not is_op(node, "Add", "Sub"):
        return None
    sign = -1.0 if is_op(node, "Add") else 1.0
    operands = tuple(node.inputs)
    for positive, negative in (operands, tuple(reversed(operands))) if is_op(node, "Add") else (operands,):
        data = _argument(positive, "Relu")
        scaled = None if negative is None else _scaled(negative)
        if data is None or scaled is None or _argument(_argument(scaled[0], "Relu"), "Neg") is not data:
            continue
        return data, None if scaled[1] is None else sign * scaled[1]
    return None


def _argument(value: onnx_ir.Value | None, op_type: str) -> onnx_ir.Value | None:
    """What the operator behind `value` reads, None where it is another."""
    producer = None if value is None else value.producer()
    return producer.inputs[0] if producer is not None and is_op(producer, op_type) else None


def _scaled(value: onnx_ir.Value) -> Pair | None:
    """`c * x` as x and c."""
    node = value.producer()
    pair = operand_pair(node) if node is not None and is_op(node, "Mul") else None
    if node is None or pair is None:
        return None
    data = node.inputs[pair[0]]
    return None if data is None else (data, _one_number(node.inputs[1 - pair[0]], data))


def _one_number(value: onnx_ir.Value | None, data: onnx_ir.Value) -> float | None:
    """The number a constant consists of; None where there are several, or where `data` would grow by it."""
    array = constant(value)
    if array is None or not array.size or array.dtype.kind != "f" or (array != array.flat[0]).any():
        return None
    if array.ndim:
        shape = static_shape(data)
        if shape is None or array.ndim > len(shape):
            return None
        if any(length not in (1, other) for length, other in zip(array.shape[::-1], shape[::-1], strict=False)):
            return None
    return float(array.flat[0])


def _replace(graph: onnx_ir.Graph, node: onnx_ir.Node, op_type: str, data: onnx_ir.Value, slope: float | None) -> None:
    attributes = {} if slope is None else {"alpha": slope}
    new = onnx_ir.node(op_type, [data], attributes, name=node.name, metadata_props=inherited(node))
    new.outputs[0].name = f"{name_of(node.outputs[0])}__leaky"
    graph.insert_before(node, new)
    take_over(node.outputs[0], new.outputs[0])
    drop(node)
