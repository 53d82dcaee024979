"""A Pad says how much it pads for every axis.

    y = Pad(x, {1, 2}, , {3})             =>      y = Pad(x, {0,0,0,1, 0,0,0,2})                            x[n,C,H,W]
    y = Pad(x, {1, 2, 3, 0}, c, {-1, 2})  =>      y = Pad(x, {0,0,2,1, 0,0,0,3}, c)

onnxruntime 1.31 reorders the amounts of a Pad with axes as if there were one for each axis, where it moves a Transpose across.

Refused: amounts or axes that are computed, an input of unknown rank.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from .fold_pad import constant_pads
from .rewriting import refuse, rewrite_each, set_constant

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlainPads:
    """Writes Pads with amounts for all axes."""

    name: ClassVar[str] = "plain-pads"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        return rewrite_each(model.graph, _rewrite, "Pad")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return False
    amounts = constant_pads(node)
    if amounts is None:
        return refuse(logger, node, "its amounts or axes are computed, or its rank is not known")
    node.resize_inputs(3 if node.inputs[2] is not None else 2)
    set_constant(graph, node, 1, np.asarray([*amounts[0], *amounts[1]], np.int64), node.inputs[1])
    return True
