"""Nodes that do nothing at inference go.

    a = Conv(x, w)
    b = Identity(a)          =>      a = Conv(x, w)
    y = Relu(b)                      y = Relu(a)

The same for a Cast to the type its input has, and for SpaceToDepth and DepthToSpace with blocks of one element (what
tf2onnx makes of a SpaceToBatchND that only pads). Where the removed value is a graph output, its name passes to the value
in front of it (O3). Dropout is `remove-training-nodes`' business.

Refused: an Identity with a role (`tqt_onnx.role`: lowering put it there to give a quantizer a value of its own), and a node
between two graph boundaries whose names must both stay.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import ROLE_KEY, attribute
from .rewriting import bypass, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpliceIdentities:
    """Removes Identity, Cast to the same type and blocks of one element."""

    name: ClassVar[str] = "splice-identities"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _splice, "Identity", "Cast", "SpaceToDepth", "DepthToSpace")


def _splice(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    before = node.inputs[0]
    if before is None:
        return False
    if node.op_type == "Identity" and ROLE_KEY in node.metadata_props:
        return refuse(logger, node, f"its role is {node.metadata_props[ROLE_KEY]}")
    if node.op_type == "Cast" and (before.dtype is None or before.dtype != attribute(node, "to", None)):
        return False
    if node.op_type in ("SpaceToDepth", "DepthToSpace") and attribute(node, "blocksize", 0) != 1:
        return False
    return bypass(logger, node, before)
