"""Per-channel factors and terms in front of a layer go into its weight and its bias.

    r = Relu(x)                                                            r = Relu(x)                  x[n,K], w[K,M]
    s = BatchNormalization(r, gamma, beta, mean, var)              =>      y = Gemm(r, g * w, b + h . w)
    y = Gemm(s, w, b)

    s = BatchNormalization(x, gamma, beta, mean, var)              =>      y = Conv(x, g * w, b + sum(h * w))
    y = Conv<pads = [0, 0, 0, 0]>(s, w, b)                                              over inputs and kernel, x[n,C,h,w]

    g = gamma / sqrt(var + epsilon),  h = beta - g * mean                  per input channel, in float64

The same for Mul, Div, Add and Sub with a scalar or one number per channel: Keras' BatchNormalization behind the activation
of a Dense layer or behind Flatten, Rescaling at the input, pre-activation networks. This is exact algebra where no padding
stands between. A convolution that pads with zeros would need the border padded with -h/g instead, so it takes factors only
(h = 0); terms in front of it are for `affine-to-depthwise`. Every reader must be such a layer, or none is changed.

Refused: what a layer in front could take (`fold-batch-norm`, `fold-affine`), padding and a term (a factor behind a term that
stays, too: one layer takes both), other readers, a graph output.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import attribute, batch_norm_of, consumers, name_of, only_consumer, remember_batch_norm, static_shape
from .affine_chain import place_behind
from .fold_batch_norm import batch_norm_affine
from .layers import Layer, affine_of, as_gemm, layer_behind
from .rewriting import Float64, drop, inherited, is_op, operand_pair, refuse, set_constant, stored

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AffineIntoNext:
    """Folds batch norms and constant factors and terms into the layers behind them.

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
        for node in reversed(nodes):  # the last of a chain first: each meets the layer
            modified |= _fold(model.graph, node)
        return modified


def _fold(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    position, affine = _affine(node)
    source = node.inputs[position]
    if affine is None or source is None:
        return False
    if place_behind(source) is not None and only_consumer(source) is node:
        return refuse(logger, node, "it is for the layer in front")
    result = node.outputs[0]
    factor_only = not affine[1].any() and not _follows_term(source, node)
    layers = [_layer(reader, result, may_pad=factor_only) for reader in consumers(result)]
    if result.is_graph_output() or not layers or None in layers:
        return refuse(logger, node, "something else reads it than layers with constant weights that do not pad")
    for layer in layers:
        if layer is not None:
            _into(graph, layer, node, source, *affine)
    drop(node)
    return True


def _follows_term(source: onnx_ir.Value, node: onnx_ir.Node) -> bool:
    """Whether a constant term stands right in front, which padding would hold back: the two belong together."""
    before = source.producer()
    pair = None if before is None or not is_op(before, "Add", "Sub") else operand_pair(before)
    return pair is not None and only_consumer(source) is node


def _affine(node: onnx_ir.Node) -> tuple[int, tuple[Float64, Float64] | None]:
    """Which operand of the node is data, and its factor and term per channel; None where it has no such form."""
    if is_op(node, "BatchNormalization"):
        return 0, batch_norm_affine(node) if _channels(node.inputs[0]) is not None else None
    pair = operand_pair(node)
    known = None if pair is None else _channels(node.inputs[pair[0]])
    found = None if known is None else affine_of(node, known[0], 1, known[1])
    return (0, None) if found is None else (found[0], found[1:])


def _channels(value: onnx_ir.Value | None) -> tuple[int, int] | None:
    """Rank and channels of a float32 tensor [n, K] or [n, C, h, w], None for anything else."""
    shape = None if value is None else static_shape(value)
    if value is None or shape is None or len(shape) not in (2, 4) or value.dtype != onnx_ir.DataType.FLOAT:
        return None
    return None if shape[1] is None else (len(shape), shape[1])


def _layer(reader: onnx_ir.Node, value: onnx_ir.Value, *, may_pad: bool) -> Layer | None:
    """The reader as a layer that can take what stands in front of it."""
    if reader.inputs[0] is not value or not is_op(reader, "Conv", "Gemm", "MatMul") or attribute(reader, "transA", 0):
        return None
    if is_op(reader, "Conv") and not may_pad:
        pads = any(attribute(reader, "pads", ()))
        if pads or attribute(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return None
    if (static_shape(value) or ())[2:] and not is_op(reader, "Conv"):
        return None  # the rows of a matrix are the last axis of what it multiplies
    return layer_behind(reader.outputs[0])


def _into(graph: onnx_ir.Graph, layer: Layer, node: onnx_ir.Node, source: onnx_ir.Value, scale: Float64, shift: Float64) -> None:
    reader, weight = layer.node, layer.weight.astype(np.float64)
    old = reader.inputs[1]
    if is_op(reader, "Conv"):
        factors, terms = (_per_weight(vector, weight.shape) for vector in (scale, shift))
        bias = (terms * weight).sum(axis=tuple(range(1, weight.ndim)))
    else:
        factors, bias = scale[:, None], shift @ weight
    reader.metadata_props.update(inherited(reader, node))
    if is_op(node, "BatchNormalization") or batch_norm_of(reader) is not None:
        remember_batch_norm(reader, "what stood in front of it was folded into it too")
    if bias.any() and reader.op_type == "MatMul":
        reader = as_gemm(graph, reader)
    reader.replace_input_with(0, source)
    set_constant(graph, reader, 1, stored(factors * weight, layer.weight.dtype), old)
    if bias.any():
        like = reader.inputs[2] if layer.bias is not None else None
        total = bias if layer.bias is None else layer.bias + bias
        set_constant(graph, reader, 2, stored(total, layer.weight.dtype), like, fallback=f"{name_of(reader.inputs[1])}__bias")


def _per_weight(vector: Float64, shape: tuple[int, ...]) -> Float64:
    """One number per input channel, as [M, C/group, 1, ...]: outputs of one group read the same channels."""
    outputs, inputs = shape[:2]
    groups = len(vector) // inputs
    return np.repeat(vector.reshape(groups, inputs), outputs // groups, axis=0).reshape(outputs, inputs, *(1 for _ in shape[2:]))
