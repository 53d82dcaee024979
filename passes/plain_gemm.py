"""Gemm in plain form: alpha = beta = 1, weight not transposed, bias of rank 1.

    y = Gemm<alpha = 2.0, transB = 1>(x, w, b)       =>       y = Gemm(x, w', b)

    w' = alpha * transpose(w)        b' = beta * b broadcast to the columns                          float64, stored as w is

Refused: a weight or bias that is not constant, a transposed activation, a bias that differs from row to row.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import attribute, constant
from .rewriting import channel_vector, refuse, rewrite_each, set_constant, stored

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlainGemm:
    """Folds alpha, beta and transB into the constants of Gemm."""

    name: ClassVar[str] = "plain-gemm"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _plain, "Gemm")


def _plain(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    weight = constant(node.inputs[1])
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = constant(node.inputs[2]) if has_bias else None
    if attribute(node, "transA", 0):
        return refuse(logger, node, "its activation is transposed")
    if weight is None or weight.dtype.kind != "f" or (has_bias and bias is None):
        return refuse(logger, node, "weight or bias is not a constant of a float type")
    transposed = bool(attribute(node, "transB", 0))
    columns = weight.shape[0 if transposed else 1]
    if bias is not None:
        vector = channel_vector(bias, 2, 1, columns)
        if vector is None:
            return refuse(logger, node, f"its bias of shape {bias.shape} differs from row to row")
    modified = False
    if transposed or alpha != 1.0:
        plain = weight.astype(np.float64) * alpha
        plain = np.ascontiguousarray(plain.T if transposed else plain)
        set_constant(graph, node, 1, stored(plain, weight.dtype), node.inputs[1])
        modified = True
    if bias is not None and vector is not None and (beta != 1.0 or bias.shape != (columns,)):
        set_constant(graph, node, 2, stored(vector * beta, bias.dtype), node.inputs[2])
        modified = True
    for name, default in (("alpha", 1.0), ("beta", 1.0), ("transA", 0), ("transB", 0)):
        modified |= attribute(node, name, default) != default
        node.attributes.pop(name, None)
    return modified
