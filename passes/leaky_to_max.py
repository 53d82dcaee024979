r"""Leaky relu -> the larger of x and a * x, each with a value of its own for its 16-bit quantizer (L3).

    y = LeakyRelu(x; a)     =>     y__scaled = Mul(x, a),  y = Max(x, y__scaled)         a <= 1
                                   y__scaled = Mul(x, a),  y = Min(x, y__scaled)         a > 1

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

import onnx_ir

from ..ir import ROLE_KEY, SOURCE_KEY, add_initializer, add_node, name_of, only_consumer, scalar
from .flow import LEAKY_ROLE, RESCALE_ROLE, SLOPE_ROLE, Flow, analyse, leaky_slope
from .rewriting import drop, is_op, refuse, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeakyToMax:
    """Lowers every LeakyRelu.

    Attributes:
        unsigned_input: the network's inputs are never negative.
    """

    unsigned_input: bool = False

    name: ClassVar[str] = "leaky-to-max"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Returns whether any was lowered."""
        flow = analyse(model.graph, unsigned_input=self.unsigned_input)
        found = [found for node in model.graph if is_op(node, "LeakyRelu") and (found := _look_at(node, flow))]
        for leaky in found:  # only now: what is rewritten is not known to the analysis
            _lower(model.graph, leaky)
        return bool(found)


@dataclass(frozen=True)
class Leaky:
    """A LeakyRelu and what is known of its input: its sign, and whether it may carry the 16-bit quantizer."""

    node: onnx_ir.Node
    slope: float
    signed: bool
    is_its_own: bool


def _look_at(node: onnx_ir.Node, flow: Flow) -> Leaky | None:
    data, slope = node.inputs[0], leaky_slope(node)
    if data is None or slope is None or flow.kind[node] != "leaky":
        refuse(logger, node, "its slope is not finite, or it is part of the float tail")
        return None
    return Leaky(node, slope, flow.signed[data], flow.is_unrounded(data) and only_consumer(data) is node)


def _lower(graph: onnx_ir.Graph, leaky: Leaky) -> None:
    node, slope = leaky.node, leaky.slope
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
        alpha = add_initializer(graph, f"{label}__alpha", scalar(slope))
        product = source | {ROLE_KEY: SLOPE_ROLE}
        scaled = add_node(graph, "Mul", [data, alpha], f"{label}__scaled", before=node, like=data, metadata=product)
        operator, role = "Max" if slope <= 1.0 else "Min", source | {ROLE_KEY: LEAKY_ROLE}
        result = add_node(graph, operator, [data, scaled], f"{label}__leaky", before=node, like=output, metadata=role)
    take_over(output, result)
    drop(node)
