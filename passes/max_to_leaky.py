"""Every way of writing a leaky relu becomes LeakyRelu, or PRelu where its slopes differ.

    s = Mul(x, a), y = Max(x, s)                                 a <= 1      =>      y = LeakyRelu(x; a)
    s = Mul(x, a), y = Min(x, s)                                 a >= 1      =>      y = LeakyRelu(x; a)
    y = PRelu(x, a)                                                          =>      y = LeakyRelu(x; a)
    p = Relu(x), n = Neg(x), m = Relu(n), s = Mul(m, -a), y = Add(p, s)      =>      y = LeakyRelu(x; a)
    p = Relu(x), m = Min(x, 0), s = Mul(m, a), y = Add(p, s)                 =>      y = LeakyRelu(x; a)
    p = Relu(x), d = Sub(x, Abs(x)), s = Mul(d, a / 2), y = Add(p, s)        =>      y = LeakyRelu(x; a)

The fourth is how Keras writes PReLU. Others of the kind are found by what they compute (`two_slopes`): 1 times what is
positive, a times what is negative. With one slope per channel (or per element) they become PRelu(x, a). LeakyRelu with the
slope 0 is Relu, with the slope 1 Identity. In floats both sides multiply once and select, so the numbers stay; where a
spelling multiplies twice they may move by a rounding.

Operands may come in either order. Refused: slopes that are not finite, or on the other side of 1, where the larger of the
two is no leaky relu; slopes by which x would grow. Products that others read too are kept for them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import ROLE_KEY, add_initializer, attribute, name_of, static_shape
from .rewriting import Array, Float64, drop, inherited, is_op, refuse, rewrite_each, take_over
from .two_slopes import slopes_of, sources

logger = logging.getLogger(__name__)

_ROUNDING = 1e-6
"""How far from 1 the slope above zero may be where it was put together from float32 constants."""


@dataclass(frozen=True)
class MaxToLeaky:
    """Recognises leaky and parametric relus; the slopes 0 and 1 are Relu and Identity."""

    name: ClassVar[str] = "max-to-leaky"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        found = rewrite_each(model.graph, _recognise, "Max", "Min", "PRelu", "Add", "Sub", "Mul")
        return rewrite_each(model.graph, _simplify, "LeakyRelu") or found


def _recognise(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if ROLE_KEY in node.metadata_props:  # lowering wrote it
        return False
    for data in sources(node.outputs[0])[1:]:
        found = slopes_of(node.outputs[0], data)
        if not found.selects:
            continue
        with np.errstate(invalid="ignore"):
            is_kept = bool((np.abs(found.positive - 1) <= _ROUNDING).all())
            slopes = found.negative + 0 * found.positive  # as large as both
        if not is_kept or not np.isfinite(slopes).all():
            refuse(logger, node, "a leaky relu leaves what is positive as it is, and its slopes are finite")
        elif not slopes.size or not _fits(slopes, data):
            refuse(logger, node, f"slopes of shape {slopes.shape} do not meet {data.name!r} element by element")
        elif (slopes == slopes.flat[0]).all():
            _replace(graph, node, "LeakyRelu", data, {"alpha": float(np.float32(slopes.flat[0]))})
            return True
        elif is_op(node, "PRelu") and node.inputs[0] is data:
            return False  # written so already
        else:
            label = f"{name_of(node.outputs[0])}__slopes"
            _replace(graph, node, "PRelu", data, {}, add_initializer(graph, label, _stored(slopes, data)))
            return True
    return False


def _stored(slopes: Float64, data: onnx_ir.Value) -> Array:
    return np.ascontiguousarray(slopes.astype(np.float32 if data.dtype is None else data.dtype.numpy()))


def _simplify(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    slope, data = attribute(node, "alpha", 0.01), node.inputs[0]
    if slope not in (0.0, 1.0) or data is None:
        return False
    _replace(graph, node, "Relu" if slope == 0.0 else "Identity", data, {})
    return True


def _fits(slopes: Float64, data: onnx_ir.Value) -> bool:
    """Whether `data` keeps its shape where it meets the slopes, and is of their type."""
    if data.dtype is not None and not data.dtype.is_floating_point():
        return False
    shape = static_shape(data)
    if not slopes.ndim:
        return True
    if shape is None or slopes.ndim > len(shape):
        return False
    return all(length in (1, other) for length, other in zip(slopes.shape[::-1], shape[::-1], strict=False))


def _replace(
    graph: onnx_ir.Graph,
    node: onnx_ir.Node,
    op_type: str,
    data: onnx_ir.Value,
    attributes: dict[str, float],
    slopes: onnx_ir.Value | None = None,
) -> None:
    inputs = [data] if slopes is None else [data, slopes]
    new = onnx_ir.node(op_type, inputs, attributes, name=node.name, metadata_props=inherited(node))
    new.outputs[0].name = f"{name_of(node.outputs[0])}__leaky"
    graph.insert_before(node, new)
    take_over(node.outputs[0], new.outputs[0])
    drop(node)
