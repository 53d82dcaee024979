"""A constant per channel added to a compute layer becomes its bias.

    c = Conv(x, w)                                          m = MatMul(x, w)       (x of rank 2)
    y = Add(c, b)         =>    y = Conv(x, w, b)           y = Add(m, b)          =>      y = Gemm(x, w, b)

An existing bias is added in float64. The other operand may come first, and be a scalar.

Refused: a layer whose sum somebody else reads too or that is a graph output, a constant that is not per channel or would
enlarge the result, a MatMul of rank above 2 (Gemm has no such form; the Add stays).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import only_consumer
from .layers import affine_of, channel_axis_of_output, fold_into, layer_behind
from .rewriting import operand_pair, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BiasFromAdd:
    """Folds constant additions into the bias of the layer in front."""

    name: ClassVar[str] = "bias-from-add"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _fold, "Add")


def _fold(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    return fold_affine_node(graph, node, logger)


def fold_affine_node(graph: onnx_ir.Graph, node: onnx_ir.Node, log: logging.Logger) -> bool:
    """Folds one Add, Sub, Mul or Div with a constant operand into the layer in front, where there is one."""
    pair = operand_pair(node)
    layer = None if pair is None else layer_behind(node.inputs[pair[0]])
    if pair is None or layer is None:
        return False
    if only_consumer(layer.output) is not node:
        return refuse(log, node, f"{layer.output.name!r} has other readers or is a graph output")
    place = channel_axis_of_output(layer)
    affine = None if place is None else affine_of(node, *place, layer.channels)
    if affine is None:
        return refuse(log, node, f"its constant of shape {pair[1].shape} is not one number per channel")
    _, scale, shift = affine
    if shift.any() and not layer.takes_bias:
        return refuse(log, node, "a MatMul takes a bias only where its input is known to have rank 2")
    scales = node.op_type in ("Mul", "Div") or bool((scale != 1).any())
    adds = node.op_type in ("Add", "Sub")
    fold_into(graph, layer, node, scale if scales else None, shift if adds else None, node.inputs[1 - pair[0]] if adds else None)
    return True
