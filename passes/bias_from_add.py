"""A constant per channel added to a compute layer becomes its bias.

    c = Conv(x, w)                                          m = MatMul(x, w)       (x of rank 2)
    y = Add(c, b)         =>    y = Conv(x, w, b)           y = Add(m, b)          =>      y = Gemm(x, w, b)

An existing bias is added in float64, several constants at once (B1). The other operand may come first, and be a scalar.
Conv, ConvTranspose, Gemm, MatMul.

Refused: a layer whose sum somebody else reads too or that is a graph output, a constant that is not per channel or would
enlarge the result, a MatMul of rank above 2 (Gemm has no such form; the Add stays).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import only_consumer
from .affine_chain import Step, chain_from, fold_chain, place_behind
from .layers import affine_of
from .rewriting import is_op, operand_pair, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BiasFromAdd:
    """Folds constant additions into the bias of the layer in front."""

    name: ClassVar[str] = "bias-from-add"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _fold, "Add")


def _fold(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    return fold_small_operators(graph, node, logger, "Add")


def fold_small_operators(graph: onnx_ir.Graph, node: onnx_ir.Node, log: logging.Logger, *op_types: str) -> bool:
    """Folds the chain of Add, Sub, Mul and Div with constant operands that begins at `node` into the layer in front.

    Args:
        graph: the graph of the node.
        node: of one of the kinds `op_types`.
        log: of the pass.
        op_types: what the chain may consist of.
    """
    pair = operand_pair(node)
    place = None if pair is None else place_behind(node.inputs[pair[0]])
    if pair is None or place is None:
        return False
    layer = place.layer
    if only_consumer(layer.output) is not node:
        return refuse(log, node, f"{layer.output.name!r} has other readers or is a graph output")

    def step(member: onnx_ir.Node) -> Step | None:
        found = affine_of(member, place.rank, place.axis, layer.channels) if is_op(member, *op_types) else None
        return None if found is not None and found[2].any() and not layer.takes_bias else found

    chain = chain_from(node, step)
    if chain is None:
        return refuse(log, node, f"its constant of shape {pair[1].shape} is not one number per channel, or a term without a bias")
    fold_chain(graph, layer, chain)
    return True
