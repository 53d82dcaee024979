"""What stays float, and why (L8, L10): no layer is ever silently left out."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir

from ..ir import COMPUTE, SOURCE_KEY, attribute, constant
from .average_pool_to_depthwise import why_not
from .bilinear_to_depthwise import why_not as why_not_bilinear
from .flow import INPUT_ROLE, RESCALE_ROLE, TAIL_OPS, Flow, analyse, is_flat, is_rectifier, role_of
from .fold_pad import constant_pads, fill_of

_EXACT_OPS = frozenset({"Mul", "Max", "Min"})
"""Float operators that engines compute exactly where all operands are quantized: products and choices of integers (X1)."""


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


def islands(model: onnx_ir.Model) -> list[Island]:
    """Nodes of an optimized or lowered float graph that no quantizer covers, in graph order.

    A product or maximum of quantized values needs none: it is fixed point as it is, as `verify` computes it.
    """
    flow = analyse(model.graph)
    exact = _exact_nodes(model.graph, flow)
    found = []
    for node in model.graph:
        if node in exact:
            continue
        if flow.kind[node] in ("island", "tail"):
            reason = _reason(node, flow.kind[node] == "tail")
            expected = flow.kind[node] == "tail" and node.op_type not in COMPUTE
            source = node.metadata_props.get(SOURCE_KEY, "")
            found.append(Island(node.name or node.outputs[0].name or "", node.op_type, source, reason, expected))
    return found


def _reason(node: onnx_ir.Node, tail: bool) -> str:
    if tail:
        return "stays float (L8)" if node.op_type in TAIL_OPS else "behind a Softmax, which stays float (L8)"
    if node.op_type in ("AveragePool", "GlobalAveragePool"):
        return f"average pool: {why_not(node)}"
    if node.op_type == "MaxPool":
        return "max pool: ceil_mode lets windows leave the input, or somebody reads where the maxima are"
    if node.op_type == "Resize":
        return f"resize: {_why_not_resized(node)}"
    if node.op_type == "Pad":
        return _why_not_padded(node)
    if node.op_type in COMPUTE and not is_flat(node):
        return "only convolutions over height and width are quantized"
    if node.op_type in COMPUTE and constant(node.inputs[0]) is not None:
        return "its constant is the left operand: it adds up over the batch"
    if node.op_type in COMPUTE:
        return "both operands are computed; only constant weights are quantized"
    if node.op_type == "PRelu":
        return "its slopes are computed or not finite; constant ones have a fixed-point form (L3)"
    if node.op_type == "LeakyRelu":
        return "its slope is not finite"
    if node.domain:
        return f"operator of the foreign domain {node.domain!r}"
    return f"{node.op_type} has no fixed-point form"


def _why_not_resized(node: onnx_ir.Node) -> str:
    if attribute(node, "mode", "nearest") == "nearest":
        return "which elements it takes is computed, or not known before it runs"
    return why_not_bilinear(node) or "it is lowered"


def _why_not_padded(node: onnx_ir.Node) -> str:
    if constant_pads(node) is None:
        return "by how much it pads is computed"
    fill = fill_of(node)
    if fill is None:
        return "what it pads with is computed"
    return f"it pads with {fill:g}, which no power-of-two grid holds; in front of a MaxPool that is the pool's own padding"


def _exact_nodes(graph: onnx_ir.Graph, flow: Flow) -> set[onnx_ir.Node]:
    """Nodes of `_EXACT_OPS` all of whose operands are on a fixed-point grid in the quantized model."""
    needed = _needed_origins(graph, flow)
    fixed = {value for value in graph.inputs if value in needed}
    exact = set()
    for node in graph:
        kind, operands = flow.kind[node], [value for value in node.inputs if value is not None]
        if kind == "island" and node.domain == "" and node.op_type in _EXACT_OPS and all(value in fixed for value in operands):
            exact.add(node)
        rounded = (
            kind in ("compute", "bias", "add", "concat", "rectify", "slope", "leaky", "fill", "average")
            or node.outputs[0] in needed
        )
        rounded = rounded or node.outputs[0] in flow.functions
        own = kind == "own" and role_of(node) != INPUT_ROLE
        moved = kind in ("carry", "float", "own") and operands[0] in fixed
        if rounded or own or moved or node in exact:
            fixed.update(node.outputs)
    return exact


def _needed_origins(graph: onnx_ir.Graph, flow: Flow) -> set[onnx_ir.Value]:
    """Values that get a quantizer because a layer, a shared scale or a rectifier behind them reads integers (annotation)."""
    needed = {flow.origin.get(region.source, region.source) for region in flow.functions.values()}
    for node in graph:
        kind = flow.kind[node]
        readable = node.inputs if kind in ("add", "concat") else node.inputs[:1]
        reads = kind in ("compute", "add", "concat", "fill") or (kind == "carry" and is_rectifier(node))
        for value in readable if reads or kind == "rectify" or role_of(node) == RESCALE_ROLE else ():
            if value is not None and (reads or (value in flow.integers and not flow.is_sum(value))):
                needed.add(flow.origin.get(value, value))
    return needed
