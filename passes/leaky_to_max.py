r"""Leaky relu -> the larger of x and a * x, each with a value of its own for its 16-bit quantizer (L3).

    y = LeakyRelu(x; a)     =>     y__scaled = Mul(x, a),  y = Max(x, y__scaled)         a <= 1
                                   y__scaled = Mul(x, a),  y = Min(x, y__scaled)         a > 1

    y = PRelu(x, a)         =>     one slope per channel: a constant of that shape, above 1 or not above 1 throughout; else
                                   m = Max(x, min(a, 1) x),  y = Min(m, max(a, 1) m)

For `x >= 0` the two operands are `x` and `a x`, of which `x` is the larger where `a <= 1`; for `x < 0` it is `a x`. Beyond
`a = 1` both comparisons turn round. Negative slopes are slopes like others: the result is then never negative.

    a = Add(p, q)                       a = Add(p, q)                    c = Concat(p, q)                c = Concat(p, q)
    y = LeakyRelu(a)                    s = Mul(a, alpha)                y = LeakyRelu(c)                w = Identity(rescale)(c)
                            =>          y = Max(a, s)                                          =>        s = Mul(w, alpha)
                                                                                                         y = Max(w, s)

What is about to be rounded, a layer's sum with no other reader, carries the 16-bit quantizer itself: it is rounded once.
Everything else (a graph input, a concatenation, what others read too) has or carries an 8-bit quantizer already; an Identity
marked `rescale` behind it carries the 16-bit one, whose other type keeps onnxruntime from merging the two (O5).

Where `x` is never negative a leaky relu is a Relu, and becomes one. A slope that is not finite is refused and stays float.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import ROLE_KEY, SOURCE_KEY, add_initializer, add_node, name_of, only_consumer
from .flow import Flow, analyse
from .node_roles import LEAKY_ROLE, RESCALE_ROLE, SLOPE_ROLE, leaky_slopes
from .rewriting import Float64, drop, is_op, refuse, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeakyToMax:
    """Lowers every LeakyRelu, and every PRelu with constant slopes.

    Attributes:
        unsigned_input: the network's inputs are never negative.
    """

    unsigned_input: bool = False

    name: ClassVar[str] = "leaky-to-max"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Returns whether any was lowered."""
        flow = analyse(model.graph, unsigned_input=self.unsigned_input)
        found = [found for node in model.graph if is_op(node, "LeakyRelu", "PRelu") and (found := _look_at(node, flow))]
        for leaky in found:  # only now: what is rewritten is not known to the analysis
            _lower(model.graph, leaky)
        return bool(found)


@dataclass(frozen=True)
class Leaky:
    """A leaky relu and what is known of its input: its sign, and whether it may carry the 16-bit quantizer."""

    node: onnx_ir.Node
    slopes: Float64
    signed: bool
    is_its_own: bool


def _look_at(node: onnx_ir.Node, flow: Flow) -> Leaky | None:
    data, slopes = node.inputs[0], leaky_slopes(node)
    if data is None or slopes is None or flow.kind[node] != "leaky":
        refuse(logger, node, "its slopes are computed or not finite, or it is part of a function or of the float tail")
        return None
    return Leaky(node, slopes, flow.signed[data], flow.is_unrounded(data) and only_consumer(data) is node)


def _lower(graph: onnx_ir.Graph, leaky: Leaky) -> None:
    node = leaky.node
    data, output = node.inputs[0], node.outputs[0]
    assert data is not None
    label = name_of(output)
    source = {key: text for key, text in node.metadata_props.items() if key == SOURCE_KEY}
    if not leaky.signed:
        result = add_node(graph, "Relu", [data], f"{label}__relu", before=node, like=output, metadata=source)
    else:
        if not leaky.is_its_own:
            own = {ROLE_KEY: RESCALE_ROLE}
            data = add_node(graph, "Identity", [data], f"{name_of(data)}__to__{label}", before=node, like=data, metadata=own)
        product, role = source | {ROLE_KEY: SLOPE_ROLE}, source | {ROLE_KEY: LEAKY_ROLE}
        result = data
        for operator, name, slopes in _stages(leaky.slopes, label):
            alpha = add_initializer(graph, f"{name}__alpha", slopes.astype(np.float32))
            scaled = add_node(graph, "Mul", [result, alpha], f"{name}__scaled", before=node, like=data, metadata=product)
            result = add_node(graph, operator, [result, scaled], f"{name}__leaky", before=node, like=output, metadata=role)
    take_over(output, result)
    drop(node)


def _stages(slopes: Float64, label: str) -> list[tuple[str, str, Float64]]:
    """Which extremes a leaky relu consists of, how they are called, and their slopes: where some are above 1, of two."""
    if (slopes <= 1).all():
        return [("Max", label, slopes)]
    if (slopes >= 1).all():
        return [("Min", label, slopes)]
    return [("Max", f"{label}__up_to_1", np.minimum(slopes, 1)), ("Min", label, np.maximum(slopes, 1))]
