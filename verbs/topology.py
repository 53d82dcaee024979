"""The layers of a lowered graph: runs of nodes that one quantizer ends, each with the name of its topology (L1-L7).

    Conv -> Add(bias) -> Clip(0, 6)          conv+bias+relu6
    Conv(reciprocals, group = channels)      avgpool->depthwise
    Add -> Relu                              eltwise add+relu
    Conv -> Mul(slope), Max                  conv+leaky relu

Every node of the graph belongs to exactly one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx_ir

from ..ir import PASS_THROUGH, attribute, constant, consumers, only_consumer
from ..passes.flow import Flow
from ..passes.node_roles import INPUT_ROLE, RECIPROCAL_ROLE, RESCALE_ROLE, SUM_ROLE, role_of, upper_limit

_WORDS: Final = {
    "DepthToSpace": "depth to space",
    "MaxPool": "max pool",
    "Resize": "nearest resize",
    "SpaceToDepth": "space to depth",
}
"""Operators that pass their input's scale on (L7) and whose names are more than one word."""


@dataclass(frozen=True)
class Run:
    """Nodes that form one layer.

    Attributes:
        nodes: in topological order; the first computes, the others finish.
        topology: its name.
        carries: whether it passes its input's scale on.
    """

    nodes: tuple[onnx_ir.Node, ...]
    topology: str
    carries: bool

    @property
    def main(self) -> onnx_ir.Node:
        """The node the layer is called after."""
        return self.nodes[0]

    @property
    def output(self) -> onnx_ir.Value:
        """What the layer ends in."""
        return self.nodes[-1].outputs[0]


_BEGINS: Final = frozenset({"compute", "bias", "add", "product", "select", "average", "own"})
"""Kinds behind which more of the same layer may stand."""


def runs(graph: onnx_ir.Graph, flow: Flow) -> list[Run]:
    """The layers of a lowered (or any float) graph, in the order of their first nodes."""
    taken: set[onnx_ir.Node] = set()
    found = []
    for node in graph:
        if node not in taken:
            nodes = tuple(_finished(node, flow))
            taken.update(nodes)
            found.append(Run(nodes, _topology(nodes, flow), flow.kind[node] in ("carry", "float", "select", "concat")))
    return found


def _finished(first: onnx_ir.Node, flow: Flow) -> list[onnx_ir.Node]:
    """The node and what finishes it: bias, relu, leaky relu."""
    nodes = [first]
    while flow.kind[nodes[-1]] in _BEGINS and role_of(nodes[-1]) != INPUT_ROLE:
        value = nodes[-1].outputs[0]
        reader = only_consumer(value)
        kind = None if reader is None else flow.kind[reader]
        if reader is None or kind == "slope":
            leaky = _leaky(value, flow)
            return nodes + leaky
        is_requantized = kind == "own" and flow.kind[nodes[-1]] == "compute"
        if not (kind in ("bias", "average") or is_requantized or (kind == "rectify" and flow.is_sum(value))):
            break
        nodes.append(reader)
    return nodes


def _leaky(value: onnx_ir.Value, flow: Flow) -> list[onnx_ir.Node]:
    """The two nodes of a leaky relu that alone reads the value, else none (L3)."""
    readers = {flow.kind[node]: node for node in consumers(value)}
    if set(readers) == {"slope", "leaky"} and len(consumers(value)) == 2 and not value.is_graph_output():
        return [readers["slope"], readers["leaky"]]
    return []


def _topology(nodes: tuple[onnx_ir.Node, ...], flow: Flow) -> str:
    names = [_name(nodes[0], flow)]
    for node in nodes[1:]:
        kind = flow.kind[node]
        names += (
            [_rectifier(node)] if kind == "rectify" else ["bias"] if kind == "bias" else ["leaky relu"] if kind == "leaky" else []
        )
    if names[0] == "rescale" and names[1:] == ["leaky relu"]:
        return "leaky relu"
    return "+".join(names)


def _name(node: onnx_ir.Node, flow: Flow) -> str:
    match flow.kind[node]:
        case "compute":
            bias = "+bias" if len(node.inputs) > 2 and node.inputs[2] is not None else ""
            return _compute(node) + bias
        case "own":
            return {INPUT_ROLE: "input", RESCALE_ROLE: "rescale"}.get(role_of(node), "requantize")
        case "add" | "product" | "select":
            word = {"Mul": "multiply"}.get(node.op_type, node.op_type.lower())
            return f"{word} constant" if any(constant(value) is not None for value in node.inputs) else f"eltwise {word}"
        case "concat":
            return "concat"
        case "fill":
            return "pad"
        case "rectify":
            return _rectifier(node)
        case "leaky" | "slope":
            return "leaky relu"
        case "bias":
            return "bias"
        case "carry" | "float" if node.op_type in PASS_THROUGH:
            return _WORDS.get(node.op_type, node.op_type.lower())
        case "carry" | "float" if node.op_type == "Relu":
            return "relu of what is never negative"
        case "carry":
            return _rectifier(node)
    return node.op_type


def _compute(node: onnx_ir.Node) -> str:
    if node.op_type == "ConvTranspose":
        return "deconv"
    if node.op_type != "Conv":
        return "dense"
    group, weight = attribute(node, "group", 1), constant(node.inputs[1])
    channels = group * weight.shape[1] if weight is not None else 0
    if role_of(node) in (RECIPROCAL_ROLE, SUM_ROLE):
        return "bilinear->depthwise" if _is_interpolation(node) else "avgpool->depthwise"
    if group == 1:
        return "conv"
    return "depthwise" if group == channels else "grouped conv"


def _is_interpolation(node: onnx_ir.Node) -> bool:
    """Whether a convolution with reciprocals reads what was repeated (`bilinear-to-depthwise`)."""
    before = None if node.inputs[0] is None else node.inputs[0].producer()
    if before is not None and before.op_type == "Pad" and before.inputs[0] is not None:
        before = before.inputs[0].producer()
    return before is not None and before.op_type == "Resize"


def _rectifier(node: onnx_ir.Node) -> str:
    if node.op_type == "Relu":
        return "relu"
    limit = upper_limit(node)
    return "clip" if limit is None else f"relu{limit:g}"
