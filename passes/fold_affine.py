"""Constant factors and terms behind a compute layer go into its weight and bias, behind a batch norm into gamma and beta.

    c = Conv(x, w, b)
    m = Mul(c, g)              =>      y = Conv(x, g*w, g*b + h)                per output channel, in float64
    y = Add(m, h)

    n = BatchNormalization(x, gamma, beta, mean, var)
    m = Mul(n, g)              =>      y = BatchNormalization(x, g*gamma, g*beta + h, mean, var)
    y = Add(m, h)

Mul, Div by a constant, Add and Sub (in both orders) with a scalar or one number per channel, all that follow each other
at once. The second form leaves one batch norm per layer where they are kept for training (B0), and is taken where they
are not as well, so that folding them later gives the same bits. A Sub that stays becomes an Add of the negative: exact.

Refused: a sum with other readers or that is a graph output, constants that are not per channel, division *of* a
constant, a term behind a MatMul of rank above 2.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import constant, only_consumer
from .affine_chain import chain_from, small_step
from .bias_from_add import fold_small_operators
from .rewriting import drop, inherited, is_op, operand_pair, refuse, rewrite_each, set_constant, stored, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldAffine:
    """Folds constant Mul, Div, Add and Sub into the layer in front; writes other subtractions as additions."""

    name: ClassVar[str] = "fold-affine"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        modified = rewrite_each(model.graph, _fold, *_SMALL)
        return rewrite_each(model.graph, _add_of_negative, "Sub") or modified


_SMALL = ("Add", "Sub", "Mul", "Div")


def _fold(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    return fold_small_operators(graph, node, logger, *_SMALL) or _into_batch_norm(graph, node)


def _into_batch_norm(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    pair = operand_pair(node)
    value = None if pair is None else node.inputs[pair[0]]
    norm = None if value is None else value.producer()
    if value is None or norm is None or not is_op(norm, "BatchNormalization") or value.shape is None or len(norm.outputs) != 1:
        return False
    if only_consumer(value) is not node:
        return refuse(logger, node, f"{value.name!r} has other readers or is a graph output")
    gamma, beta = constant(norm.inputs[1]), constant(norm.inputs[2])
    if gamma is None or beta is None or gamma.dtype.kind != "f":
        return refuse(logger, node, "the batch norm's parameters are not constant")
    chain = chain_from(node, small_step(len(value.shape), 1, len(gamma)))
    if chain is None:
        return refuse(logger, node, "its constant is not one number per channel")
    last = chain.collapse()
    norm.metadata_props.update(inherited(norm, last))
    take_over(last.outputs[0], value)
    drop(last)
    shift = chain.scale * beta.astype("float64") + chain.shift
    set_constant(graph, norm, 1, stored(chain.scale * gamma.astype("float64"), gamma.dtype), norm.inputs[1])
    set_constant(graph, norm, 2, stored(shift, beta.dtype), norm.inputs[2])
    return True


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
