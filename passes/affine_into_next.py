"""Per-feature factors and terms in front of a matrix go into its rows and its bias.

    r = Relu(x)                                                            r = Relu(x)                  x[n,K], w[K,M]
    s = BatchNormalization(r, gamma, beta, mean, var)              =>      y = Gemm(r, g * w, b + h . w)
    y = Gemm(s, w, b)

    g = gamma / sqrt(var + epsilon),  h = beta - g * mean                  per row, in float64

The same for Mul, Div, Add and Sub with a scalar or one number per feature: Keras' BatchNormalization behind the activation
of a Dense layer or behind Flatten, Rescaling of vectors. No padding stands between, so this is exact algebra; in front of
a convolution it would not be (`affine-to-depthwise`). Every reader must be such a matrix, or none is changed.

Refused: what a layer in front could take (`fold-batch-norm`, `fold-affine`), other readers, a graph output, tensors of other ranks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import attribute, consumers, name_of, only_consumer, static_shape
from .fold_batch_norm import batch_norm_affine
from .layers import Layer, affine_of, as_gemm, layer_behind
from .rewriting import Float64, drop, inherited, is_op, operand_pair, refuse, set_constant, stored

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AffineIntoNext:
    """Folds batch norms and constant factors and terms on vectors into the matrices behind them.

    Attributes:
        batch_norms: False leaves batch norms alone, for a model that is to be retrained with them (B0).
    """

    name: ClassVar[str] = "affine-into-next"
    batch_norms: bool = True

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred.

        Raises:
            UnsupportedError: a BatchNormalization in training mode.
        """
        batch_norms = ("BatchNormalization",) if self.batch_norms else ()
        nodes = [node for node in model.graph if is_op(node, *batch_norms, "Mul", "Div", "Add", "Sub")]
        modified = False
        for node in reversed(nodes):  # the last of a chain first: each meets the matrix
            modified |= _fold(model.graph, node)
        return modified


def _fold(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    position, affine = _affine(node)
    source = node.inputs[position]
    if affine is None or source is None:
        return False
    layer = layer_behind(source)
    if layer is not None and only_consumer(source) is node:
        return refuse(logger, node, "it is for the layer in front")
    result = node.outputs[0]
    matrices = [_matrix(reader, result) for reader in consumers(result)]
    if result.is_graph_output() or not matrices or None in matrices:
        return refuse(logger, node, "something else than a matrix with constant weight reads it")
    for matrix in matrices:
        if matrix is not None:
            _into(graph, matrix, node, source, *affine)
    drop(node)
    return True


def _affine(node: onnx_ir.Node) -> tuple[int, tuple[Float64, Float64] | None]:
    """Which operand of the node is data, and its factor and term per feature; None where it has no such form."""
    if is_op(node, "BatchNormalization"):
        return 0, batch_norm_affine(node) if _features(node.inputs[0]) is not None else None
    pair = operand_pair(node)
    features = None if pair is None else _features(node.inputs[pair[0]])
    found = None if features is None else affine_of(node, 2, 1, features)
    return (0, None) if found is None else (found[0], found[1:])


def _features(value: onnx_ir.Value | None) -> int | None:
    """K of a float32 tensor [n, K], None for anything else."""
    shape = None if value is None else static_shape(value)
    if value is None or shape is None or len(shape) != 2 or value.dtype != onnx_ir.DataType.FLOAT:
        return None
    return shape[1]


def _matrix(reader: onnx_ir.Node, value: onnx_ir.Value) -> Layer | None:
    if not is_op(reader, "Gemm", "MatMul") or reader.inputs[0] is not value or attribute(reader, "transA", 0):
        return None
    return layer_behind(reader.outputs[0])


def _into(graph: onnx_ir.Graph, layer: Layer, node: onnx_ir.Node, source: onnx_ir.Value, scale: Float64, shift: Float64) -> None:
    matrix, weight = layer.node, layer.weight.astype(np.float64)
    old = matrix.inputs[1]
    bias = shift @ weight
    matrix.metadata_props.update(inherited(matrix, node))
    if bias.any() and matrix.op_type == "MatMul":
        matrix = as_gemm(graph, matrix)
    matrix.replace_input_with(0, source)
    set_constant(graph, matrix, 1, stored(scale[:, None] * weight, layer.weight.dtype), old)
    if bias.any():
        like = matrix.inputs[2] if layer.bias is not None else None
        total = bias if layer.bias is None else layer.bias + bias
        set_constant(graph, matrix, 2, stored(total, layer.weight.dtype), like, fallback=f"{name_of(matrix.inputs[1])}__bias")
