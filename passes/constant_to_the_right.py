"""A constant matrix in front of a computed one goes behind it, where a layer has its weight.

    y = MatMul(w, x)              w[P,K], x[n,K,M]            =>      t = Transpose<perm = [0, 2, 1]>(x)
                                                                      m = MatMul(t, w')                     w' = transpose(w)
                                                                      y = Transpose<perm = [0, 2, 1]>(m)

The sums are the same, term by term. A batch of constant matrices is transposed matrix by matrix.

Refused: a rank that is not known, or is 2: the product would add up over the images of the batch; a constant of a higher rank
than what it multiplies.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import add_initializer, add_node, constant, name_of
from .layers import rank_of
from .rewriting import drop, inherited, refuse, rewrite_each, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConstantToTheRight:
    """Writes MatMul of a constant and a tensor as MatMul of that tensor, transposed, and a constant."""

    name: ClassVar[str] = "constant-to-the-right"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        return rewrite_each(model.graph, _rewrite, "MatMul")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    data, array = node.inputs[1], constant(node.inputs[0])
    if data is None or array is None or constant(data) is not None:
        return False
    rank = rank_of(data)
    if rank is None or rank < 3 or not 2 <= array.ndim <= rank:
        return refuse(logger, node, "what its constant multiplies is no batch of matrices")
    label, metadata = name_of(node.outputs[0]), inherited(node)
    perm = {"perm": [*range(rank - 2), rank - 1, rank - 2]}
    turned = np.ascontiguousarray(np.swapaxes(array, -1, -2))
    weight = add_initializer(graph, f"{name_of(node.inputs[0])}__transposed", turned)
    behind = add_node(graph, "Transpose", [data], f"{label}__turned", attributes=perm, before=node, metadata=metadata)
    product = add_node(graph, "MatMul", [behind, weight], f"{label}__product", before=node, metadata=metadata)
    back = add_node(graph, "Transpose", [product], f"{label}__back", attributes=perm, before=node, metadata=metadata)
    for value, shape in ((behind, data.shape), (product, node.outputs[0].shape)):
        value.type = data.type
        value.shape = None if shape is None else onnx_ir.Shape([*shape[:-2], shape[-1], shape[-2]])
    back.type, back.shape = node.outputs[0].type, node.outputs[0].shape
    take_over(node.outputs[0], back)
    drop(node)
    return True
