"""What stays float, and why (L8, L10): no layer is ever silently left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx_ir

from ..ir import COMPUTE, SOURCE_KEY, attribute, constant
from .average_pool_to_depthwise import why_not
from .bilinear_to_depthwise import why_not as why_not_bilinear
from .flow import OF_SEVERAL, TAIL_OPS, analyse, is_flat
from .fold_pad import constant_pads, fill_of
from .resizes import why_no_sides


@dataclass(frozen=True)
class Island:
    """One node that stays float.

    Attributes:
        node: its name.
        op_type: its operator.
        source: the TensorFlow node it came from, or the empty string.
        reason: why it has no fixed-point form here.
        expected: part of every network's end (Softmax and what follows), not a loss.
    """

    node: str
    op_type: str
    source: str
    reason: str
    expected: bool


def islands(model: onnx_ir.Model, *, unsigned_input: bool = False) -> list[Island]:
    """Nodes of an optimized or lowered float graph that no quantizer covers, in graph order.

    Args:
        model: the float graph.
        unsigned_input: the network's inputs are never negative, as `annotate` was told.
    """
    flow = analyse(model.graph, unsigned_input=unsigned_input)
    found = []
    for node in model.graph:
        if flow.kind[node] in ("island", "tail"):
            reason = _UNREAD if node in flow.unread else _reason(node, flow.kind[node] == "tail")
            expected = flow.kind[node] == "tail" and node.op_type not in COMPUTE
            source = node.metadata_props.get(SOURCE_KEY, "")
            found.append(Island(node.name or node.outputs[0].name or "", node.op_type, source, reason, expected))
    return found


_UNREAD: Final = "part of a function that only float operators read (L12)"


def _reason(node: onnx_ir.Node, tail: bool) -> str:
    if tail:
        return "stays float (L8)" if node.op_type in TAIL_OPS else "behind a Softmax, which stays float (L8)"
    if node.domain:
        return f"operator of the foreign domain {node.domain!r}"
    if node.op_type in ("AveragePool", "GlobalAveragePool"):
        return f"average pool: {why_not(node)}"
    if node.op_type == "Resize":
        return f"resize: {_why_not_resized(node)}"
    if node.op_type == "Pad":
        return _why_not_padded(node)
    if node.op_type in COMPUTE:
        return _why_no_layer(node)
    return _REASONS.get(node.op_type, f"{node.op_type} has no fixed-point form")


_REASONS: Final = {
    **dict.fromkeys(TAIL_OPS, "stays float (L8); the layers behind it are quantized"),
    **dict.fromkeys(OF_SEVERAL, "none of its operands is on a fixed-point grid"),
    "MaxPool": "max pool: ceil_mode lets windows leave the input, or somebody reads where the maxima are",
    **dict.fromkeys(("Relu", "Clip"), "stands between float operators"),
    "LayerNormalization": "layer normalization: its mean and variance are computed for each position",
    "InstanceNormalization": "instance normalization: its mean and variance are computed for each image and channel",
    "GroupNormalization": "group normalization: its mean and variance are computed for each image and group of channels",
    "ReduceSumSquare": "root mean square or l2 normalization: the sum of squares is computed for each position",
    "PRelu": "its slopes are computed or not finite; constant ones have a fixed-point form (L3)",
    "LeakyRelu": "its slope is not finite",
    "ReduceMean": "only means over height and width have a fixed-point form (L6)",
}


def _why_no_layer(node: onnx_ir.Node) -> str:
    if not is_flat(node):
        return "only convolutions over height and width are quantized"
    if constant(node.inputs[0]) is not None:
        return "its constant is the left operand: it adds up over the batch"
    return "both operands are computed; only constant weights are quantized"


def _why_not_resized(node: onnx_ir.Node) -> str:
    if attribute(node, "mode", "nearest") == "nearest":
        return why_no_sides(node) or "which elements it takes is computed, or not known before it runs"
    return why_not_bilinear(node) or "it is lowered"


def _why_not_padded(node: onnx_ir.Node) -> str:
    if constant_pads(node) is None:
        return "by how much it pads is computed"
    fill = fill_of(node)
    if fill is None:
        return "what it pads with is computed"
    return f"it pads with {fill:g}, which no power-of-two grid holds; in front of a MaxPool that is the pool's own padding"
