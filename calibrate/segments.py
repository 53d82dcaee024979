"""The lowered graph cut at its quantizers: parts that are run one after the other, each node in exactly one (C4).

A part ends at one node whose outputs are measured (they have a quantizer) or needed by several later parts (they are only
carried: one quantized MaxPool read by two convolutions). Nodes that no quantizer depends on are in no part.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from ..ir import PASS_THROUGH, ModelError, Quantizer, QuantizerGraph, name_of


@dataclass(frozen=True)
class Segment:
    """A part of the graph.

    Attributes:
        nodes: in topological order.
        inputs: graph inputs and outputs of earlier segments that it reads.
        outputs: values it hands on.
        constants: initializers it reads that have a quantizer.
    """

    nodes: tuple[onnx_ir.Node, ...]
    inputs: tuple[onnx_ir.Value, ...]
    outputs: tuple[onnx_ir.Value, ...]
    constants: tuple[onnx_ir.Value, ...]


def sites(model: onnx_ir.Model, quantizers: QuantizerGraph) -> dict[str, onnx_ir.Value]:
    """Value name -> the value, for every quantizer.

    Raises:
        ModelError: a quantizer sits on a value that does not exist, or on a graph input, which cannot be its own (S).
    """
    graph = model.graph
    known: dict[str | None, onnx_ir.Value] = {value.name: value for node in graph for value in node.outputs}
    known.update(graph.initializers)
    found = {}
    for quantizer in quantizers.quantizers:
        value = known.get(quantizer.value)
        if value is None:
            raise ModelError(
                f"quantizer {quantizer.id!r}: an initializer or the output of a node is expected. Received: {quantizer.value!r}"
            )
        found[quantizer.value] = value
    return found


def split(model: onnx_ir.Model, quantizers: Mapping[str, Quantizer]) -> list[Segment]:
    """The segments in topological order.

    Args:
        model: lowered float graph, its nodes in topological order.
        quantizers: by the name of their value.
    """
    nodes = list(model.graph)
    owner: dict[onnx_ir.Node, onnx_ir.Node] = {}  # node -> last node of its segment
    for node in reversed(nodes):
        owners = {owner[reader] for value in node.outputs for reader, _ in value.uses() if reader in owner}
        if any(value.name in quantizers for value in node.outputs) or len(owners) > 1:
            owner[node] = node
        elif owners:
            owner[node] = owners.pop()
    members: dict[onnx_ir.Node, list[onnx_ir.Node]] = {}
    for node in nodes:
        if node in owner:
            members.setdefault(owner[node], []).append(node)
    return [_segment(members[last], last, owner, quantizers) for last in nodes if owner.get(last) is last]


def needed_segments(segments: Sequence[Segment], measured: Container[str]) -> list[Segment]:
    """The segments that compute a measured value or lead to one, in order; the others would be run for nothing.

    Args:
        segments: as `split` gives them.
        measured: names of values.
    """
    wanted: set[onnx_ir.Value] = set()
    needed = []
    for segment in reversed(segments):
        if any(value in wanted or value.name in measured for value in segment.outputs):
            needed.append(segment)
            wanted.update(segment.inputs)
    return needed[::-1]


def _segment(
    nodes: Sequence[onnx_ir.Node],
    last: onnx_ir.Node,
    owner: Mapping[onnx_ir.Node, onnx_ir.Node],
    quantizers: Mapping[str, Quantizer],
) -> Segment:
    read = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    inside = {value for node in nodes for value in node.outputs}
    outputs = [
        value
        for value in last.outputs
        if value.name in quantizers or any(reader in owner and owner[reader] is not last for reader, _ in value.uses())
    ]
    return Segment(
        nodes=tuple(nodes),
        inputs=tuple(value for value in read if value not in inside and not value.is_initializer()),
        outputs=tuple(outputs),
        constants=tuple(value for value in read if value.is_initializer() and value.name in quantizers),
    )


def multiples(model: onnx_ir.Model, quantizers: Mapping[str, Quantizer]) -> dict[str, list[tuple[str, onnx_ir.Value]]]:
    """Value -> the products with a constant that share its threshold, with that constant: `a * x` of a leaky relu (L3).

    What is known of the value tells everything about them, so the walk need not compute them before the group is decided.
    """
    found: dict[str, list[tuple[str, onnx_ir.Value]]] = {}
    for node in model.graph:
        if node.op_type != "Mul":
            continue
        product = quantizers.get(name_of(node.outputs[0]))
        for source, factor in (tuple(node.inputs), tuple(reversed(node.inputs))):
            own = quantizers.get(name_of(source))
            if own is None or product is None or own.group != product.group or factor is None or not factor.is_initializer():
                continue
            found.setdefault(own.value, []).append((product.value, factor))
    return found


def carried_quantizer(value: onnx_ir.Value, quantizers: Mapping[str, Quantizer]) -> Quantizer | None:
    """The quantizer on whose grid a value lies (L5, L7): its own, or the one that moving, concatenating and selecting carry on."""
    pending, found = [value], None
    while pending:
        current = pending.pop()
        own = quantizers.get(name_of(current))
        node = current.producer()
        if own is None and node is not None and node.op_type in PASS_THROUGH:
            pending.extend(filter(None, node.inputs[:1]))
        elif own is None and node is not None and node.op_type in ("Concat", "Max", "Min"):
            pending.extend(filter(None, node.inputs))
        elif own is None or (found is not None and found.group != own.group):
            return None
        else:
            found = own
    return found


def needed_nodes(model: onnx_ir.Model, values: Sequence[onnx_ir.Value]) -> list[onnx_ir.Node]:
    """Nodes that `values` depend on, in graph order."""
    wanted = set(values)
    nodes = []
    for node in reversed(list(model.graph)):
        if any(value in wanted for value in node.outputs):
            nodes.append(node)
            wanted.update(value for value in node.inputs if value is not None)
    return nodes[::-1]
