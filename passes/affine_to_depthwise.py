"""A per-channel scale without a layer to go into becomes a layer: a depthwise 1x1 Conv.

    a = Relu(x)                                              a = Relu(x)
    y = BatchNormalization(a, gamma, beta, mean, var)   =>   y = Conv<group = C>(a, w[C,1,1,1], b[C])

    w = gamma / sqrt(var + epsilon),  b = beta - w * mean             float64, stored float32

The same for Mul or Div by a scalar or one number per channel, together with a constant term around it:
`(x + a) * g` gives w = g, b = a * g; a term behind it is for `fold-affine`. So Keras' Rescaling at the input and batch
norms behind an activation get quantized like any other layer. A constant term *alone* stays an Add.

Refused: tensors that are not of rank 4 with a fixed channel dimension in axis 1, constants that are not per channel.
Only float32 tensors; the layout must have been settled before (pass `sink-transposes`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import name_of, only_consumer, static_shape
from .fold_batch_norm import batch_norm_affine
from .layers import affine_of
from .rewriting import Float64, drop, inherited, is_op, operand_pair, refuse, rewrite_each, set_constant, stored, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AffineToDepthwise:
    """Writes lone batch norms and constant factors on images as depthwise 1x1 convolutions.

    Attributes:
        batch_norms: False leaves batch norms alone, for a model that is to be retrained with them (B0).
    """

    name: ClassVar[str] = "affine-to-depthwise"
    batch_norms: bool = True

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place.

        Raises:
            UnsupportedError: a BatchNormalization in training mode.
        """
        batch_norms = ("BatchNormalization",) if self.batch_norms else ()
        return rewrite_each(model.graph, _rewrite, *batch_norms, "Mul", "Div")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if is_op(node, "BatchNormalization"):
        affine = batch_norm_affine(node)
        if affine is None or _channels(node.inputs[0]) is None:
            return refuse(logger, node, "its parameters are not constant, or its input is not [n, C, h, w] with C fixed")
        _write(graph, node, node.inputs[0], *affine, node.inputs[1], node.inputs[2])
        return True
    pair = operand_pair(node)
    source = None if pair is None else node.inputs[pair[0]]
    channels = _channels(source)
    if pair is None or source is None or channels is None:
        return False
    factor = affine_of(node, 4, 1, channels)
    if factor is None:
        return refuse(logger, node, f"its constant of shape {pair[1].shape} is not one number per channel")
    _, scale, shift = factor
    scale_like, term, inner = node.inputs[1 - pair[0]], source.producer(), None
    if term is not None and is_op(term, "Add", "Sub") and only_consumer(source) is node:
        inner = affine_of(term, 4, 1, channels)
    if term is None or inner is None or _channels(term.inputs[inner[0]]) != channels:
        _write(graph, node, source, scale, shift, scale_like, None)
    else:
        position, inner_scale, inner_shift = inner
        shift_like, source = term.inputs[1 - position], term.inputs[position]
        _write(graph, node, source, scale * inner_scale, scale * inner_shift, scale_like, shift_like, term)
    return True


def _channels(value: onnx_ir.Value | None) -> int | None:
    """C of a float32 tensor [n, C, h, w], None for anything else."""
    shape = None if value is None else static_shape(value)
    if value is None or shape is None or len(shape) != 4 or value.dtype != onnx_ir.DataType.FLOAT:
        return None
    return shape[1]


def _write(
    graph: onnx_ir.Graph,
    node: onnx_ir.Node,
    source: onnx_ir.Value | None,
    scale: Float64,
    shift: Float64,
    scale_like: onnx_ir.Value | None,
    shift_like: onnx_ir.Value | None,
    term: onnx_ir.Node | None = None,
) -> None:
    """Puts the Conv in the place of `node`, under its names; `term` is the node in front that it takes along."""
    channels = len(scale)
    attributes: dict[str, int | list[int]] = {
        "group": channels,
        "kernel_shape": [1, 1],
        "strides": [1, 1],
        "dilations": [1, 1],
        "pads": [0, 0, 0, 0],
    }
    conv = onnx_ir.node("Conv", [source, scale_like], attributes, name=node.name, metadata_props=inherited(node))
    conv.outputs[0].name = f"{name_of(node.outputs[0])}__conv"
    graph.insert_before(node, conv)
    take_over(node.outputs[0], conv.outputs[0])
    drop(node)
    if term is not None:
        drop(term)
    set_constant(graph, conv, 1, stored(scale, np.float32).reshape(channels, 1, 1, 1), scale_like)
    if shift.any():
        set_constant(graph, conv, 2, stored(shift, np.float32), shift_like, fallback=f"{name_of(conv.outputs[0])}__bias")
