"""Weights without their data on the way through tf2onnx, and back again.

    Const w[3,3,512,512] -> Identity r -> Conv2D     =>     Placeholder r[3,3,512,512] -> Conv2D
    input r -> Transpose -> Conv                     =>     initializer r[512,512,3,3] -> Conv

tf2onnx keeps up to thirty copies of every number. Of the weight of a layer it needs the shape alone: whether that is a constant
decides only who transposes it. Names come out as if the constant had gone through: a kernel with one reader keeps its name,
and so does what a MatMul reads as it is; what else was folded has none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ...ir import add_initializer, attribute, constant, consumers, name_of
from ..frozen import GraphDef
from ..large_constants import is_large_constant, placeholder_for
from ..nodes import array_of, data_inputs, node_of, tensor_name

_WEIGHT_OF: Final[Mapping[str, int]] = {
    "Conv2D": 1,
    "DepthwiseConv2dNative": 1,
    "Conv2DBackpropInput": 1,
    "MatMul": 1,
    "BatchMatMul": 1,
    "BatchMatMulV2": 1,
    "BatchMatMulV3": 1,
}
"""Layer -> which of its operands is the weight."""

_TRANSPOSED_IN_PLACE: Final = frozenset({"Conv2D", "Conv2DBackpropInput"})

_FOLDED: Final = "#"
"""What a name begins with that no TensorFlow node can have."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StandIn:
    """A weight that is left out.

    Attributes:
        constant: the Const that holds the data.
        keeps_name: whether its one reader is a layer for which tf2onnx transposes a constant in place.
    """

    constant: Any
    keeps_name: bool


def leave_out_weights(graph_def: GraphDef, ends: Sequence[str]) -> tuple[GraphDef, dict[str, StandIn]]:
    """Puts placeholders in the place of large constants that nothing but layers reads, as their weights.

    Args:
        graph_def: frozen inference graph; it is not changed.
        ends: tensors that must stay what they are: the graph's inputs and outputs.

    Returns:
        The graph (itself where nothing is left out), and name of the placeholder -> what it stands for.
    """
    nodes = {node.name: node for node in graph_def.node}
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in graph_def.node:
        for index, read in enumerate(data_inputs(node)):
            readers.setdefault(node_of(read), []).append((node, index))
    fixed = {node_of(end) for end in ends}
    large = {node.name for node in graph_def.node if is_large_constant(node)}
    found: dict[str, StandIn] = {}
    for name, constant_node in _constants_behind(nodes, readers, large).items():
        read_by = readers.get(name, [])
        weights = [node for node, index in read_by if _WEIGHT_OF.get(node.op) == index]
        if weights and len(weights) == len(read_by) and name not in fixed:
            one = len(weights) == 1 and weights[0].op in _TRANSPOSED_IN_PLACE
            found[name] = StandIn(constant_node, one)
    if not found:
        return graph_def, {}
    result = type(graph_def)(versions=graph_def.versions, library=graph_def.library)
    wanted = _still_read(nodes, readers, found, fixed)
    for node in graph_def.node:
        if node.name in found:
            result.node.append(placeholder_for(node.name, found[node.name].constant))
        elif node.name in wanted:
            result.node.append(node)
    return result, found


def put_back(graph: onnx_ir.Graph, stand_ins: Mapping[str, StandIn]) -> None:
    """Makes initializers of the inputs that stand for weights, with the Transposes and Reshapes behind them done.

    Args:
        graph: what tf2onnx made.
        stand_ins: name of the placeholder -> what it stands for; the graph's input is its tensor, `name:0`.
    """
    found = [(value, stand_ins[node_of(name_of(value))]) for value in graph.inputs if node_of(name_of(value)) in stand_ins]
    names = [name_of(value) for value, _ in found]
    for value, _ in found:
        graph.inputs.remove(value)
        value.name = f"{_FOLDED}{value.name}"
    for (value, stand_in), name in zip(found, names, strict=True):
        _settle(graph, value, name, stand_in)


def _settle(graph: onnx_ir.Graph, value: onnx_ir.Value, name: str, stand_in: StandIn) -> None:
    pending: list[tuple[onnx_ir.Value, Array, bool]] = [(value, array_of(stand_in.constant), True)]
    done: list[onnx_ir.Node] = []
    while pending:
        current, array, named = pending.pop()
        readers = []
        for node in consumers(current):
            moved = _moved(node, current, array)
            if moved is None:
                readers.append(node)
            else:
                pending.append((node.outputs[0], moved, stand_in.keeps_name))
                done.append(node)
        if readers:
            weight = add_initializer(graph, name if named else f"{_FOLDED}{name}", np.ascontiguousarray(array))
            for node in readers:
                for index, operand in enumerate(node.inputs):
                    if operand is current:
                        node.replace_input_with(index, weight)
    for node in reversed(done):
        graph.remove(node, safe=True)


def _moved(node: onnx_ir.Node, value: onnx_ir.Value, array: Array) -> Array | None:
    """What a node makes of a constant, as a view where NumPy can; None for anything but a Transpose or Reshape."""
    if node.inputs[0] is not value or any(output.is_graph_output() for output in node.outputs):
        return None
    if node.op_type == "Transpose":
        return array.transpose(attribute(node, "perm", tuple(reversed(range(array.ndim)))))
    target = constant(node.inputs[1]) if node.op_type == "Reshape" else None
    if target is None:
        return None
    sizes = [array.shape[axis] if size == 0 else int(size) for axis, size in enumerate(target.tolist())]
    return array.reshape(sizes)


def _constants_behind(nodes: Mapping[str, Any], readers: Mapping[str, list[tuple[Any, int]]], large: set[str]) -> dict[str, Any]:
    """The large constants, and Identities of them, in the order of the graph -> the Const; each is reached once."""
    behind: dict[str, Any] = {}
    pending = [(name, nodes[name]) for name in large]
    while pending:
        name, constant_node = pending.pop()
        behind[name] = constant_node
        copies = (node for node, _ in readers.get(name, []) if node.op == "Identity")
        pending.extend((node.name, constant_node) for node in copies if tensor_name(data_inputs(node)[0]).endswith(":0"))
    return {name: behind[name] for name in nodes if name in behind}


def _still_read(
    nodes: Mapping[str, Any], readers: Mapping[str, list[tuple[Any, int]]], found: Mapping[str, StandIn], fixed: set[str]
) -> set[str]:
    """Nodes other than constants, and Identities of them, that nobody reads any more."""
    gone: set[str] = set()
    pending = [node_of(data_inputs(nodes[name])[0]) for name in found if nodes[name].op == "Identity"]
    while pending:
        name = pending.pop()
        if name in fixed or not all(reader.name in found or reader.name in gone for reader, _ in readers.get(name, [])):
            continue
        gone.add(name)
        if nodes[name].op == "Identity":
            pending.append(node_of(data_inputs(nodes[name])[0]))
    return set(nodes) - gone
