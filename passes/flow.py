"""How integers flow through a lowered graph: one forward walk that classifies every node and follows every scale.

All structural decisions of quantization (what is quantized, with which sign, what shares a scale, what stays float) are
read off this analysis, never off node names (L1-L12).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir

from ..ir import (
    COMPUTE,
    PASS_THROUGH,
    FunctionRegion,
    attribute,
    compute_nodes,
    constant,
    consumers,
    function_regions,
    only_consumer,
)
from .fold_pad import constant_pads, fill_of
from .function_signs import may_be_negative
from .node_roles import (
    BIAS_ROLE,
    INPUT_ROLE,
    OWN_ROLES,
    RECIPROCAL_ROLE,
    RESCALE_ROLE,
    SUM_ROLE,
    is_rectifier,
    is_slope,
    is_unsigned_rectifier,
    leaky_slopes,
    role_of,
)
from .resizes import repeats_whole

Kind = Literal[
    "compute",
    "bias",
    "own",
    "add",
    "product",
    "select",
    "concat",
    "rectify",
    "slope",
    "leaky",
    "function",
    "fill",
    "average",
    "carry",
    "float",
    "island",
    "tail",
]

TAIL_OPS = frozenset({"Softmax", "LogSoftmax"})
"""What stays float, and, where no layer follows, everything behind it (L8)."""

_WHOLE = frozenset({"Add", "Sub", "Mul", "Max", "Min", "Concat"})
"""Operators whose constants are operands like any other, not parameters."""

OF_SEVERAL: dict[str, Kind] = {
    "Add": "add",
    "Sub": "add",
    "Mul": "product",
    "Max": "select",
    "Min": "select",
    "Concat": "concat",
}
"""Operators of several tensors, or of a tensor and a constant that no layer took (L4, L5, L13)."""

ROUNDED = frozenset({"compute", "bias", "add", "product", "select", "average", "own", "rectify", "leaky", "fill"})
"""Kinds that compute what a quantizer behind them rounds."""

_BY_ROLE: dict[tuple[str, str], Kind] = {
    ("Add", BIAS_ROLE): "bias",
    ("Mul", RECIPROCAL_ROLE): "average",
    **{("Identity", role): "own" for role in OWN_ROLES},
}
"""What a node is that lowering put there: operator and role."""


@dataclass
class Flow:
    """What `analyse` found.

    Attributes:
        kind: class of every node.
        signed: whether a value may be negative; constants are missing, they take the sign of what they meet.
        integers: values that are, or will be, on a fixed-point grid (or a sum about to be rounded onto one).
        origin: the value that sets the scale of a value: itself, or what pass-through operators lead back to.
        wide: values that a lowered leaky relu computes with, rounded to 16 bits instead of 8 (L3).
        functions: what leaves a function of one tensor -> its part of the graph (L12).
        unread: nodes of functions that only float operators read: islands, whatever else they could be (L12).
    """

    kind: dict[onnx_ir.Node, Kind] = field(default_factory=dict)
    signed: dict[onnx_ir.Value, bool] = field(default_factory=dict)
    integers: set[onnx_ir.Value] = field(default_factory=set)
    origin: dict[onnx_ir.Value, onnx_ir.Value] = field(default_factory=dict)
    wide: set[onnx_ir.Value] = field(default_factory=set)
    functions: dict[onnx_ir.Value, FunctionRegion] = field(default_factory=dict)
    unread: set[onnx_ir.Node] = field(default_factory=set)

    def is_unrounded(self, value: onnx_ir.Value) -> bool:
        """Whether the value is computed, not moved: what comes next may read it before it is rounded."""
        producer = value.producer()
        if producer is None or self.kind.get(producer) not in ROUNDED:
            return False
        return role_of(producer) not in (INPUT_ROLE, RESCALE_ROLE)

    def is_selected(self, value: onnx_ir.Value) -> bool:
        """Whether the value is a maximum or minimum that stays on the grid of its operands: nothing rounds it (L5)."""
        producer = value.producer()
        selects = producer is not None and self.kind.get(producer) == "select"
        return selects and value not in self.wide and not self.is_sum(value)

    def is_sum(self, value: onnx_ir.Value) -> bool:
        """Whether the value is an accumulator whose only reader rectifies it, or averages it: no quantizer in between (L2, L6)."""
        reader = only_consumer(value)
        return reader is not None and self.kind.get(reader) in ("rectify", "average") and self.is_unrounded(value)


def analyse(graph: onnx_ir.Graph, *, unsigned_input: bool = False) -> Flow:
    """Classifies the nodes of a topologically sorted float graph in one walk.

    A function that only float islands read stays one itself, and so does a rectifier between two of them; that is known behind
    it: then the graph is walked again.

    Args:
        graph: an optimized or lowered float graph.
        unsigned_input: the user states that the network's inputs are never negative.
    """
    regions, inner, unread = function_regions(graph), set[onnx_ir.Node](), set[onnx_ir.Node]()
    while True:
        flow = _walk(graph, regions, inner | unread, unsigned_input)
        leading = _leading(graph, flow)
        lost = {node for value, region in flow.functions.items() if value not in leading for node in region.nodes}
        new = {node for node in flow.kind if _is_off_grid(node, flow) and node.outputs[0] not in leading}
        if not lost and not new:
            flow.unread = unread
            return flow
        inner, unread = inner | new, unread | lost


def _is_off_grid(node: onnx_ir.Node, flow: Flow) -> bool:
    """Whether a rectifier reads what is on no grid: where its result does not lead on either, it is between float islands."""
    return flow.kind[node] == "rectify" and node.inputs[0] not in flow.integers


def _leading(graph: onnx_ir.Graph, flow: Flow) -> set[onnx_ir.Value]:
    """The values that more than float islands read: the outside, a layer, a shared scale, the float tail; in one walk up.

    What moves a value leads where its result does, and so do a function and a rectifier of what is on no grid.
    """
    exit_of = {node: value for value, region in flow.functions.items() for node in region.nodes}
    leading: set[onnx_ir.Value] = set()

    def leads(node: onnx_ir.Node) -> bool:
        kind = flow.kind.get(node, "island")  # what stands in the graph of an If or Loop is float
        if kind in ("carry", "float") or (kind == "rectify" and _is_off_grid(node, flow)):
            return any(value in leading for value in node.outputs)
        return exit_of[node] in leading if kind == "function" else kind != "island"

    for node in reversed(list(graph)):
        leading.update(value for value in node.outputs if value.is_graph_output() or any(map(leads, consumers(value))))
    return leading


def tail_of(graph: onnx_ir.Graph) -> set[onnx_ir.Node]:
    """The float end of a network: each Softmax that no layer follows, and what follows it (L8).

    One in the middle, as attention has it, is a float island like others: the layers behind it are quantized.
    """
    leads: set[onnx_ir.Node] = set(compute_nodes(graph))
    for node in reversed(list(graph)):
        if any(reader in leads for value in node.outputs for reader in consumers(value)):
            leads.add(node)
    tail: set[onnx_ir.Node] = set()
    for node in graph:
        ends = node.op_type in TAIL_OPS and node.domain == "" and node not in leads
        if ends or any(value is not None and value.producer() in tail for value in node.inputs):
            tail.add(node)
    return tail


def _walk(graph: onnx_ir.Graph, regions: list[FunctionRegion], islands: set[onnx_ir.Node], unsigned_input: bool) -> Flow:
    flow = Flow()
    region_of = {node: region for region in regions for node in region.nodes}
    for value in graph.inputs:
        flow.integers.add(value)
        flow.signed[value] = not unsigned_input
        flow.origin[value] = value
    tail = tail_of(graph)
    for node in graph:
        data = [value for value in node.inputs if value is not None and constant(value) is None]
        region = region_of.get(node)
        kind = "tail" if node in tail else "island" if node in islands else _classify(node, data, flow, region)
        flow.kind[node] = kind
        if kind == "function" and region is not None and node is region.nodes[-1]:
            flow.functions[node.outputs[0]] = region
        signed = _may_be_negative(node, kind, data, flow)
        if kind == "slope":
            flow.wide.update((data[0], node.outputs[0]))
        for value in node.outputs:
            flow.signed[value] = signed
            flow.origin[value] = flow.origin.get(data[0], data[0]) if kind in ("carry", "float") and data else value
            if kind not in ("tail", "float", "island", "function") or value in flow.functions:
                flow.integers.add(value)
    return flow


def _classify(
    node: onnx_ir.Node,
    data: list[onnx_ir.Value],
    flow: Flow,
    region: FunctionRegion | None,
) -> Kind:
    if region is not None:
        return "function"
    if node.domain != "" or not data:
        return "island"
    role = role_of(node)
    integer_inputs = [value in flow.integers for value in data]
    if node.op_type in COMPUTE and len(data) == 1 and node.inputs[0] is data[0]:
        return "compute" if is_flat(node) else "island"
    if (node.op_type, role) in _BY_ROLE:
        return _BY_ROLE[node.op_type, role]
    if is_slope(node):
        return "slope"
    if leaky_slopes(node) is not None:
        return "leaky"
    if node.op_type in OF_SEVERAL and any(integer_inputs):
        return OF_SEVERAL[node.op_type]
    if is_rectifier(node):
        return "carry" if integer_inputs[0] and _keeps_the_grid(node, data[0], flow) else "rectify"
    if node.op_type in PASS_THROUGH and node.inputs[0] is data[0] and _moves_exactly(node):
        return "carry" if integer_inputs[0] else "float"
    if node.op_type == "Pad" and integer_inputs[0] and is_fill(node):
        return "fill"
    return "island"


def is_fill(node: onnx_ir.Node) -> bool:
    """Whether a Pad puts a finite number other than zero around its input: what leaves it is rounded anew (L7)."""
    fill = fill_of(node)
    return bool(fill) and abs(fill or 0.0) <= float(np.finfo(np.float32).max) and constant_pads(node) is not None


def _keeps_the_grid(node: onnx_ir.Node, value: onnx_ir.Value, flow: Flow) -> bool:
    """Whether a rectifier reads what is rounded already and leaves its sign as it is: its bounds go on that grid (L7).

    A quantizer of its own would have the type of the one in front, and onnxruntime merges the two (O5).
    """
    if node.op_type == "Relu":
        return not flow.signed[value]
    if flow.is_unrounded(value) and only_consumer(value) is node:
        return False  # L2
    high = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return not is_unsigned_rectifier(node) if flow.signed[value] else high is None or float(high.item()) >= 0.0


def is_flat(node: onnx_ir.Node) -> bool:
    """Whether a compute node is no convolution of volumes or sequences: those have no fixed-point form here."""
    weight = constant(node.inputs[1])
    return node.op_type not in ("Conv", "ConvTranspose") or weight is None or weight.ndim == 4


def _moves_exactly(node: onnx_ir.Node) -> bool:
    """Whether a pass-through operator really only moves: a Pad pads with zero or with what it holds, a MaxPool has one output.

    A MaxPool must not round its size up either (`ceil-to-pads` writes that as padding).
    A Slice moves whatever its indices are; a Gather or Tile is at home here only where they are constant (a Gather may else be a
    lookup), a Resize only in the form that repeats elements (`plain-resizes`).
    """
    if node.op_type == "Pad":
        return constant_pads(node) is not None and (attribute(node, "mode", "constant") != "constant" or fill_of(node) == 0)
    if node.op_type == "MaxPool" and attribute(node, "ceil_mode", 0):
        return False
    if node.op_type in ("Gather", "Tile") and constant(node.inputs[1]) is None:
        return False
    return len(node.outputs) == 1 and (node.op_type != "Resize" or repeats_whole(node))


def _may_be_negative(node: onnx_ir.Node, kind: Kind, data: list[onnx_ir.Value], flow: Flow) -> bool:
    if kind == "rectify":
        return not is_unsigned_rectifier(node)
    if kind == "fill":
        return flow.signed.get(data[0], True) or (fill_of(node) or 0.0) < 0
    if kind == "leaky":
        slopes = leaky_slopes(node)
        return slopes is None or (bool((slopes > 0).any()) and flow.signed.get(data[0], True))
    if kind == "product" and len(set(node.inputs)) == 1:
        return False  # a square
    if node.op_type == "Softmax" and node.domain == "":
        return False
    if node.outputs[0] in flow.functions:
        region = flow.functions[node.outputs[0]]
        return may_be_negative(region, signed=flow.signed.get(region.source, True))
    if kind == "compute":
        return role_of(node) not in (RECIPROCAL_ROLE, SUM_ROLE) or flow.signed.get(data[0], True)
    if kind in ("carry", "float", "own") or node.op_type == "AveragePool":
        return flow.signed.get(data[0], True) if data else True  # further inputs say where to, not what
    if kind in ("product", "select", "average", "concat") or (kind == "add" and node.op_type == "Add"):
        return group_is_signed(node, flow)
    return True


def group_is_signed(node: onnx_ir.Node, flow: Flow) -> bool:
    """Whether any operand of a node may be negative; operands on one scale have one sign."""
    for value in node.inputs:
        if value is None:
            continue
        array = constant(value)
        if array is None:
            if flow.signed.get(value, True):
                return True
        elif node.op_type in _WHOLE and (array < 0).any():
            return True
    return False
