"""Constant factors and terms behind a compute layer go into its weight and bias.

    c = Conv(x, w, b)
    m = Mul(c, g)              =>      y = Conv(x, g*w, g*b + h)                per output channel, in float64
    y = Add(m, h)

Mul, Div by a constant, Add and Sub (in both orders) with a scalar or one number per channel: batch norms written as
small operators, Keras' BatchNormalization behind Dense. A Sub that stays becomes an Add of the negative: exact.

Refused: a sum with other readers or that is a graph output, constants that are not per channel, division *of* a
constant, a term behind a MatMul of rank above 2.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from .bias_from_add import fold_affine_node
from .rewriting import drop, inherited, operand_pair, rewrite_each, set_constant, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldAffine:
    """Folds constant Mul, Div, Add and Sub into the layer in front; writes other subtractions as additions."""

    name: ClassVar[str] = "fold-affine"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        modified = rewrite_each(model.graph, _fold, "Add", "Sub", "Mul", "Div")
        return rewrite_each(model.graph, _add_of_negative, "Sub") or modified


def _fold(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    return fold_affine_node(graph, node, logger)


def _add_of_negative(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    pair = operand_pair(node)
    if pair is None or pair[0] != 0 or pair[1].dtype.kind != "f":
        return False
    add = onnx_ir.node("Add", node.inputs, name=node.name, metadata_props=inherited(node))
    add.outputs[0].name = f"{node.outputs[0].name}__add"
    graph.insert_before(node, add)
    take_over(node.outputs[0], add.outputs[0])
    like = node.inputs[1]
    drop(node)
    set_constant(graph, add, 1, -pair[1], like)
    return True
