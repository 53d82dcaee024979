"""A Transpose in front of a flattening and a matrix is a permutation of the matrix' rows.

    t = Transpose<perm = [0, 2, 3, 1]>(x)                 f = Reshape(x, {-1, C*H*W})            x[n,C,H,W]
    f = Reshape(t, {-1, H*W*C})                   =>      y = Gemm(f, w', b)
    y = Gemm(f, w, b)

    w' = w as [H, W, C, K], transposed to [C, H, W, K], as [C*H*W, K]             exact: numbers only move

Flatten or Reshape to rank 2; Gemm or MatMul; activations element by element may stand between. Every reader of the
flattened value must be such a matrix, or none is changed.

Refused: other readers of the flattened value, a flattened value that is a graph output (O3), a transposed batch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import attribute, constant, consumers, move_batch_norm, static_shape
from .axis_moves import Perm, inverse
from .rewriting import Array, inherited, is_op, refuse, rewrite_each, set_constant
from .sink_transposes import perm_of

logger = logging.getLogger(__name__)

_BETWEEN = ("Relu", "Clip", "Identity", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Dropout")


@dataclass(frozen=True)
class PermuteGemmRows:
    """Folds a Transpose in front of a flattening into the weight behind it."""

    name: ClassVar[str] = "permute-gemm-rows"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        return rewrite_each(model.graph, _permute, "Reshape", "Flatten")


def _permute(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    source = node.inputs[0]
    transpose = None if source is None else source.producer()
    perm = perm_of(transpose)
    if source is None or transpose is None or perm is None:
        return False
    shape, flat = static_shape(source), static_shape(node.outputs[0])
    if perm[0] != 0 or shape is None or flat is None or None in shape[1:]:
        return refuse(logger, node, "the transpose in front moves the batch, or its shape is not fixed")
    sizes = [dim for dim in shape[1:] if dim is not None]
    if len(flat) != 2 or flat[1] != int(np.prod(sizes)):
        return refuse(logger, node, f"it does not flatten to [n, {int(np.prod(sizes))}]")
    matrices = _matrices(node.outputs[0])
    if not matrices:
        return refuse(logger, node, "something else than a matrix with constant weight reads the flattened value")
    for matrix in matrices:
        weight = constant(matrix.inputs[1])
        assert weight is not None
        set_constant(graph, matrix, 1, _rows(weight, sizes, perm), matrix.inputs[1])
        move_batch_norm(matrix, lambda rows: _rows(rows, sizes, perm))
    node.replace_input_with(0, transpose.inputs[0])
    node.metadata_props.update(inherited(node, transpose))
    return True


def _rows(weight: Array, sizes: list[int], perm: Perm) -> Array:
    """The weight with its rows in the order of the axes before the transpose."""
    order = [axis - 1 for axis in inverse(perm)[1:]]
    return np.ascontiguousarray(weight.reshape(*sizes, -1).transpose(*order, len(sizes)).reshape(weight.shape))


def _matrices(value: onnx_ir.Value) -> list[onnx_ir.Node]:
    """The matrices that read `value`, directly or through activations; empty where anything else does."""
    if value.is_graph_output():
        return []
    found: list[onnx_ir.Node] = []
    for reader in consumers(value):
        if is_op(reader, "MatMul", "Gemm"):
            weight = constant(reader.inputs[1])
            plain = not attribute(reader, "transA", 0) and not attribute(reader, "transB", 0)
            if reader.inputs[0] is not value or weight is None or weight.ndim != 2 or not plain:
                return []
            found.append(reader)
        elif is_op(reader, *_BETWEEN) and len(reader.outputs) == 1:
            behind = _matrices(reader.outputs[0])
            if not behind:
                return []
            found += behind
        else:
            return []
    return found
