"""Division by a constant that no layer took becomes multiplication by its reciprocal, which has a fixed-point form (L13).

    y = Div(x, c)      =>      y = Mul(x, 1 / c)          float64, stored in the type of c

Numbers may move by a rounding of the reciprocal. What is one number per channel has become a layer before (`affine-to-depthwise`).

Refused: constants with a zero in them or whose reciprocal overflows, divisions of integers, division *of* a constant.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from .rewriting import drop, inherited, operand_pair, refuse, rewrite_each, set_constant, stored, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DivToMul:
    """Writes divisions by constants as products."""

    name: ClassVar[str] = "div-to-mul"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _rewrite, "Div")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    pair = operand_pair(node)
    if pair is None or pair[0] != 0 or pair[1].dtype.kind != "f":
        return refuse(logger, node, "a division by a constant number is expected")
    with np.errstate(divide="ignore"):
        reciprocal = stored(1 / pair[1].astype(np.float64), pair[1].dtype)
    if not np.isfinite(reciprocal).all():
        return refuse(logger, node, "its reciprocal is not finite")
    product = onnx_ir.node("Mul", node.inputs, name=node.name, metadata_props=inherited(node))
    product.outputs[0].name = f"{node.outputs[0].name}__mul"
    graph.insert_before(node, product)
    take_over(node.outputs[0], product.outputs[0])
    like = node.inputs[1]
    drop(node)
    set_constant(graph, product, 1, reciprocal, like)
    return True
