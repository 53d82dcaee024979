"""A GraphDef on the operating table: what every rewrite works on.

A rewrite never renames and never rewires: a node that goes *becomes* something else, an Identity of the tensor that takes
its place, under its own name. So names that the user knows stay valid, and who reads what need not be known. `close`
then lets readers read past these nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from ...ir import ModelError
from ..frozen import GraphDef
from ..nodes import data_inputs, index_of, make_node, node_of, output_types, tensor_name


@dataclass(frozen=True)
class Rewrite:
    """One row of the table of rewrites.

    Attributes:
        name: as `tqt-onnx passes` prints it.
        summary: what it does, in one line.
        apply: edits a `Surgery` in place; returns whether it changed anything.
    """

    name: str
    summary: str
    apply: Callable[[Surgery], bool]


@dataclass
class Surgery:
    """A graph under rewrite.

    Attributes:
        where: what messages call it.
        graph_def: where the nodes came from; its library and versions are those of the result. It is not changed.
        inputs: nodes at which the user cuts: what they are does not matter.
        nodes: by name, copies to be edited; constants are the file's own, to be replaced by `put` only.
        ranges: tensor -> the smallest and largest value that a FakeQuant node recorded for it.
        bypassed: nodes that nobody reads any more because their readers went or read past them now.
        moved: tensors of calls -> what they are since their functions were inlined.
    """

    where: str
    graph_def: GraphDef
    inputs: set[str] = field(default_factory=set)
    nodes: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    bypassed: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    _replaced: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._fill(self.graph_def)

    def take_over(self, graph_def: GraphDef, moved: Mapping[str, str]) -> None:
        """Goes on with another form of the graph, in which the tensors `moved` have other names."""
        self.nodes.clear()
        self._fill(graph_def)
        self.moved.update(moved)
        self.inputs = {node_of(self.moved.get(tensor_name(name), name)) for name in self.inputs}

    def followed(self, tensor: str) -> str:
        """The name that a tensor of the graph as it was written has now."""
        seen: set[str] = set()
        while tensor in self.moved and tensor not in seen:
            seen.add(tensor)
            tensor = tensor_name(self.moved[tensor])
        return tensor

    def _fill(self, graph_def: GraphDef) -> None:
        for node in graph_def.node:
            if node.op == "Const" and not node.input:  # most of the graph's memory, and nothing about it is ever edited
                self.nodes[node.name] = node
                continue
            copy = tf.compat.v1.NodeDef()
            copy.CopyFrom(node)
            self.nodes[node.name] = with_defaults(copy)

    def become(self, name: str, sources: Sequence[str]) -> None:
        """Node `name` hands on the tensors `sources`, one for each of its outputs, and reads nothing else."""
        node = self.nodes[name]
        self.bypassed |= {node_of(read) for read in data_inputs(node)} - {node_of(source) for source in sources}
        types = output_types(node)
        if types is None or len(types) != len(sources):
            raise ModelError(f"{self.where}: node {name!r} has other outputs than its operator {node.op!r} should have")
        if len(sources) == 1:
            replacement = make_node(name, "Identity", sources, T=types[0])
        else:
            replacement = make_node(name, "IdentityN", sources, T=types)
        self.nodes[name] = replacement
        self._replaced[name] = list(sources)

    def put(self, *nodes: Any) -> None:
        """Adds nodes, or puts them in the place of those with their names."""
        for node in nodes:
            self.nodes[node.name] = node

    def fresh(self, name: str) -> str:
        """`name`, or `name_1` and so on where that is taken."""
        candidate, count = name, 0
        while candidate in self.nodes:
            count += 1
            candidate = f"{name}_{count}"
        return candidate

    def close(self) -> None:
        """Readers of nodes that became something else read that directly."""
        for node in self.nodes.values():
            inputs = [name if name.startswith("^") else self.source(name) for name in node.input]
            if inputs != list(node.input):
                del node.input[:]
                node.input.extend(inputs)

    def source(self, tensor: str) -> str:
        """The tensor that has taken the place of `tensor`.

        Raises:
            ModelError: nodes that hand on each other's output.
        """
        passed: dict[str, None] = {}
        while node_of(tensor) in self._replaced:
            if tensor in passed:
                raise ModelError(f"{self.where}: a graph without circles is expected. Received: {node_of(tensor)!r} reads itself")
            passed[tensor] = None
            tensor = self._replaced[node_of(tensor)][index_of(tensor)]
        for one in passed:  # the next one who asks is told at once: chains of guards are as long as networks
            self.bypassed.add(node_of(one))
            self._replaced[node_of(one)][index_of(one)] = tensor
        return tensor

    def result(self) -> GraphDef:
        """The graph as it is now, with the functions it still calls."""
        self.close()
        result = self.frame()
        result.node.extend(self.nodes.values())
        return result

    def frame(self) -> GraphDef:
        """The graph without its nodes: versions, and the functions that nodes still call."""
        result = tf.compat.v1.GraphDef(versions=self.graph_def.versions)
        result.library.CopyFrom(used_functions(self.nodes.values(), self.graph_def.library))
        return result


def with_defaults(node: Any) -> Any:
    """The node with the attributes that were left out because they have their default (an absent `is_training` is True)."""
    definition = op_def_registry.get(node.op)
    for attr in () if definition is None else definition.attr:
        if attr.HasField("default_value") and attr.name not in node.attr:
            node.attr[attr.name].CopyFrom(attr.default_value)
    return node


def used_functions(nodes: Any, library: Any) -> Any:
    """The part of a function library that `nodes` call, directly or not. tf2onnx would convert the rest too."""
    by_name = {function.signature.name: function for function in library.function}
    kept: set[str] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        called = [node.op, *(attr.func.name for attr in node.attr.values())]
        called += [function.name for attr in node.attr.values() for function in attr.list.func]
        for name in called:
            if name in by_name and name not in kept:
                kept.add(name)
                pending.extend(by_name[name].node_def)
    result = type(library)()
    result.function.extend(by_name[name] for name in by_name if name in kept)
    result.gradient.extend(one for one in library.gradient if one.function_name in kept and one.gradient_func in kept)
    return result
