"""Which TensorFlow node an ONNX node came from (O4), and names that follow from it.

tf2onnx keeps TensorFlow's names where it can and adds a counter of the whole process where it cannot
(`conv/BiasAdd__408:0`, `Conv__333`), so that the same model gets other names the next time. Everything that hangs on value
names (quantizer ids, reports, golden files) wants them stable: here they are made from the sources alone.
"""

from __future__ import annotations

import re
from typing import Final

import onnx_ir

from ...ir import COMPUTE, LAYER_KEY, SOURCE_KEY, consumers, forget_names
from ..frozen import GraphDef
from ..nodes import data_inputs, node_of
from ..rewrites.raise_batch_norm import RAISED

_COUNTER: Final = re.compile(r"(__\d+)+$")
_CARRIERS: Final = frozenset({"Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Cast"})
"""TensorFlow operators through which a constant reaches its consumer."""


_LAYERS: Final = frozenset(
    {"Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2DBackpropInput"}
)
_BEHIND: Final = frozenset(
    {"BiasAdd", "Add", "AddV2", "Sub", "Mul", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"} | _CARRIERS
)
"""What a layer's bias and batch norm are written with."""


class Sources:
    """The nodes of a TensorFlow graph as possible sources."""

    def __init__(self, graph_def: GraphDef) -> None:
        self._ops: dict[str, str] = {node.name: node.op for node in graph_def.node}
        self._readers: dict[str, list[str]] = {}
        self._reads: dict[str, list[str]] = {node.name: [node_of(name) for name in data_inputs(node)] for node in graph_def.node}
        for node in graph_def.node:
            for name in data_inputs(node):
                self._readers.setdefault(node_of(name), []).append(node.name)

    def base(self, name: str | None) -> str | None:
        """The TensorFlow node in an ONNX name, or None where there is none."""
        plain = (name or "").partition(":")[0]
        for candidate in (plain, _COUNTER.sub("", plain)):
            if candidate.partition(RAISED)[0] in self._ops:
                return candidate.partition(RAISED)[0]
        return None

    def constant(self, name: str | None) -> str | None:
        """The name of a constant without counters: the TensorFlow constant's, or what a raised batch norm calls it."""
        base, tail = self.base(name), (name or "").partition(":")[0].partition(RAISED)[2]
        return base if base is None or not tail else base + _COUNTER.sub("", tail)

    def of(self, node: onnx_ir.Node) -> str | None:
        """By its own name, else by its outputs', else by the reader of the last constant it reads (weights, bias)."""
        for name in (node.name, *(output.name for output in node.outputs)):
            found = self.base(name)
            if found is not None:
                return found
        for value in reversed(node.inputs):
            constant = self.base(value.name) if value is not None and value.is_initializer() else None
            if constant is not None:
                return self._reader(constant)
        return None

    def layer(self, source: str) -> str | None:
        """The layer that `source` belongs to: itself, or the one in front of the bias or batch norm that it is."""
        found: set[str] = set()
        pending, seen = [source], {source}
        while pending:
            name = pending.pop()
            if self._ops.get(name) in _LAYERS:
                found.add(name)
            elif self._ops.get(name) in _BEHIND:
                pending += [read for read in self._reads[name] if read not in seen]
                seen.update(pending)
        return found.pop() if len(found) == 1 else None

    def _reader(self, name: str) -> str | None:
        readers = self._readers.get(name, [])
        while len(readers) == 1 and self._ops[readers[0]] in _CARRIERS:
            readers = self._readers.get(readers[0], [])
        return readers[0] if len(readers) == 1 else None


def record_sources(graph: onnx_ir.Graph, sources: Sources) -> None:
    """Writes each node's source, where known, into its metadata; nameless nodes (layout changes) have their neighbour's."""
    for node in graph:
        source = sources.of(node)
        if source is None and node.inputs and node.inputs[0] is not None:
            producer = node.inputs[0].producer()
            source = None if producer is None else producer.metadata_props.get(SOURCE_KEY)
        if source is not None:
            node.metadata_props[SOURCE_KEY] = source
            layer = sources.layer(source) if node.op_type in COMPUTE else None
            if layer is not None:
                node.metadata_props[LAYER_KEY] = layer
    for node in reversed(graph):
        readers = [reader for output in node.outputs for reader in consumers(output)]
        if SOURCE_KEY not in node.metadata_props and readers and SOURCE_KEY in readers[0].metadata_props:
            node.metadata_props[SOURCE_KEY] = readers[0].metadata_props[SOURCE_KEY]


def name_by_sources(graph: onnx_ir.Graph, sources: Sources) -> None:
    """Names nodes and values after their sources; the graph's inputs and outputs keep their names (O3).

    The output of the node that carries the source's own name is called as the source, others `source__transpose` and so on;
    initializers are called as the TensorFlow constant, else `reader__1` (its place among the reader's inputs).
    """
    ends = {id(value) for value in (*graph.inputs, *graph.outputs)}
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    names: list[tuple[onnx_ir.Value, str]] = []

    def claim(wanted: str) -> str:
        candidate, count = wanted, 0
        while candidate in taken:
            count += 1
            candidate = f"{wanted}_{count}"
        taken.add(candidate)
        return candidate

    own = {id(node) for node in graph if (node.name or "") == node.metadata_props.get(SOURCE_KEY)}
    claimed = {node.metadata_props[SOURCE_KEY] for node in graph if id(node) in own}
    for node in graph:
        source = node.metadata_props.get(SOURCE_KEY)
        if source is None:
            label = node.op_type.lower()
        elif id(node) in own or source not in claimed:
            label = source
            claimed.add(source)
        else:
            label = f"{source}__{node.op_type.lower()}"
        for index, value in enumerate(node.outputs):
            if id(value) not in ends:
                names.append((value, claim(label if index == 0 else f"{label}:{index}")))
        node.name = label
    for node in graph:
        for index, operand in enumerate(node.inputs):
            if operand is not None and operand.is_initializer() and id(operand) not in ends:
                ends.add(id(operand))
                constant = sources.constant(operand.name)
                known = constant is not None and constant not in claimed
                names.append((operand, claim(constant if constant and known else f"{node.name}__{index}")))
    for index, (value, _) in enumerate(names):  # first out of each other's way
        value.name = f"{RAISED}{index}"
    for value, name in names:
        value.name = name
    _unique_node_names(graph)
    forget_names(graph)


def _unique_node_names(graph: onnx_ir.Graph) -> None:
    seen: set[str] = set()
    for node in graph:
        wanted, count = node.name or node.op_type, 0
        name = wanted
        while name in seen:
            count += 1
            name = f"{wanted}_{count}"
        seen.add(name)
        node.name = name
