"""A compute layer with constant weights, and the one way in which a scale and a shift go into it.

    y = scale * (w . x + b) + shift    =    (scale * w) . x  +  (scale * b + shift)         per output channel, float64

Used by every pass that folds something into a layer, so that the algebra exists once (B1, B3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir

from ..ir import attribute, constant, name_of
from ..kernels.batch_norm import scale_bias, scale_weight
from .rewriting import Array, Float64, channel_vector, drop, inherited, is_op, operand_pair, set_constant, stored, take_over


@dataclass(frozen=True)
class Layer:
    """Conv, ConvTranspose, Gemm or MatMul whose weight is constant.

    Attributes:
        node: the node.
        weight: its constant.
        channels: number of output channels.
        bias: float64 [channels]; None where it has none.
    """

    node: onnx_ir.Node
    weight: Array
    channels: int
    bias: Float64 | None

    @property
    def output(self) -> onnx_ir.Value:
        """What the layer computes."""
        return self.node.outputs[0]

    @property
    def takes_bias(self) -> bool:
        """Whether a bias can be given to it: a MatMul of rank 2 becomes a Gemm, one of higher rank has no such form."""
        return self.node.op_type != "MatMul" or rank_of(self.node.inputs[0]) == 2

    def scaled(self, scale: Float64) -> Array:
        """Its weight with every output channel scaled, float64 [channels]."""
        return scale_weight(self.weight, scale, self.node.op_type, attribute(self.node, "group", 1))


def rank_of(value: onnx_ir.Value | None) -> int | None:
    """Number of dimensions, None where unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def layer_behind(value: onnx_ir.Value | None) -> Layer | None:
    """The layer that produces `value`, if its weight and bias are constant and its output channels are known.

    Gemm is expected in plain form (alpha = beta = 1, nothing transposed; pass `plain-gemm`).
    """
    node = None if value is None else value.producer()
    if node is None or not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    weight = constant(node.inputs[1])
    if weight is None or weight.dtype.kind != "f":
        return None
    if node.op_type == "Conv":
        channels = weight.shape[0]
    elif node.op_type == "ConvTranspose":
        channels = weight.shape[1] * attribute(node, "group", 1)
    elif (
        weight.ndim == 2
        and attribute(node, "transB", 0) == 0
        and attribute(node, "alpha", 1.0) == 1.0 == attribute(node, "beta", 1.0)
    ):
        channels = weight.shape[1]
    else:
        return None
    bias: Float64 | None = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        array = constant(node.inputs[2])
        bias = None if array is None else channel_vector(array, max(array.ndim, 1), max(array.ndim, 1) - 1, channels)
        if bias is None:
            return None
    return Layer(node, weight, channels, bias)


def affine_of(node: onnx_ir.Node, rank: int, axis: int, channels: int) -> tuple[int, Float64, Float64] | None:
    """`node` as `scale * x + shift` per channel of x.

    Args:
        node: any node; Add, Sub, Mul and Div with one constant operand have this form.
        rank: rank of x.
        axis: channel axis of x.
        channels: length of that axis.

    Returns:
        Which operand x is, scale and shift (float64 [channels]); None where the node has no such form.
    """
    pair = operand_pair(node) if is_op(node, "Add", "Sub", "Mul", "Div") else None
    if pair is None:
        return None
    position, array = pair
    vector = channel_vector(array, rank, axis, channels)
    if vector is None:
        return None
    zero, one = np.zeros(channels), np.ones(channels)
    if node.op_type == "Add":
        return position, one, vector
    if node.op_type == "Sub":
        return (position, one, -vector) if position == 0 else (position, -one, vector)
    if node.op_type == "Mul":
        return position, vector, zero
    if position == 1 or (vector == 0).any():  # constant / x is not affine
        return None
    return position, 1 / vector, zero


def channel_axis_of_output(layer: Layer) -> tuple[int, int] | None:
    """Rank of the layer's output and the position of its channel axis."""
    spatial = layer.node.op_type in ("Conv", "ConvTranspose")
    rank = rank_of(layer.output) or (layer.weight.ndim if spatial else rank_of(layer.node.inputs[0]))
    if rank is None:
        return None
    return (rank, 1) if spatial else (rank, rank - 1)


def fold_into(
    graph: onnx_ir.Graph,
    layer: Layer,
    last: onnx_ir.Node,
    scale: Float64 | None,
    shift: Float64 | None,
    shift_like: onnx_ir.Value | None,
) -> onnx_ir.Node:
    """Folds `last` (the layer's only reader) into the layer; the layer's output takes over the name of `last`'s.

    Args:
        graph: graph of both.
        layer: the layer.
        last: the node that computes `scale * layer + shift`; removed.
        scale: float64 [channels], None for ones.
        shift: float64 [channels], None for zeros.
        shift_like: constant whose name a new bias gets.

    Returns:
        The layer's node: another one where a MatMul got a bias.
    """
    node, dtype = layer.node, layer.weight.dtype
    result = last.outputs[0]
    like_bias = node.inputs[2] if layer.bias is not None else shift_like
    if scale is not None:
        set_constant(graph, node, 1, layer.scaled(scale), node.inputs[1])
    node.metadata_props.update(inherited(node, last))
    adds = shift is not None and (layer.bias is not None or shift.any())
    bias = scale_bias(layer.bias, scale, shift if adds else None)
    take_over(result, node.outputs[0])
    drop(last)
    if bias is None:
        return node
    if node.op_type == "MatMul":
        node = as_gemm(graph, node)
    set_constant(graph, node, 2, stored(bias, dtype), like_bias, fallback=f"{name_of(node.inputs[1])}__bias")
    return node


def as_gemm(graph: onnx_ir.Graph, node: onnx_ir.Node) -> onnx_ir.Node:
    """A MatMul of two matrices as Gemm, in its place and under its names."""
    gemm = onnx_ir.node("Gemm", [node.inputs[0], node.inputs[1]], name=node.name, metadata_props=dict(node.metadata_props))
    gemm.meta.update(node.meta)
    gemm.outputs[0].name = f"{name_of(node.outputs[0])}__gemm"
    graph.insert_before(node, gemm)
    take_over(node.outputs[0], gemm.outputs[0])
    drop(node)
    return gemm
