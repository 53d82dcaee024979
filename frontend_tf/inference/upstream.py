"""What the part of a graph in front of the inputs says about them, where the user cuts it behind its own placeholders."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from ...ir import ModelError
from ..frozen import GraphDef
from ..nodes import PLACEHOLDERS, Nodes, ancestors, data_inputs, index_of, node_of, output_types, tensor_name
from ..rewrites.static_values import Evaluation
from .cut import cut, import_graph
from .ends import component_shape
from .outside_ops import acts_outside

logger = logging.getLogger(__name__)


def inner_inputs(
    where: str, nodes: Nodes, names: Mapping[str, str], like: GraphDef
) -> dict[str, tuple[int, list[int | None] | None]]:
    """Placeholder -> element type and shape, None where nothing tells it, for tensors inside the graph at which it is cut.

    Operators in front of the cut may be unknown, or such as a session must not run: what they make is of unknown shape.

    Args:
        where: for messages.
        nodes: the graph.
        names: tensor at which it is cut -> name of the placeholder there.
        like: whose versions and functions are taken over.
    """
    tensors = [tensor for tensor in names if nodes[node_of(tensor)].op not in PLACEHOLDERS]
    if not tensors:
        return {}
    graph = _operations(where, disarmed(nodes, tensors, like))
    found = {}
    for tensor in tensors:
        shape, kind = None, _type_of(nodes, tensor)
        if node_of(tensor) in graph:
            value = graph[node_of(tensor)].outputs[index_of(tensor)]
            kind, shape = value.dtype, None if value.shape.rank is None else value.shape.as_list()
        if shape is None or None in shape[1:]:
            shape = component_shape(nodes, tensor) or shape
        found[names[tensor]] = (kind.as_datatype_enum, shape)
    return found


def _operations(where: str, graph_def: GraphDef) -> dict[str, Any]:
    try:
        return {operation.name: operation for operation in import_graph(where, graph_def).get_operations()}
    except ModelError as error:
        logger.info("%s: shapes in front of the inputs are not known: %s", where, error)
        return {}


def disarmed(nodes: Nodes, tensors: Iterable[str], like: GraphDef) -> GraphDef:
    """The graph behind `tensors`, to look at shapes: what TensorFlow must not run even for that is a placeholder.

    To infer shapes TensorFlow computes what it takes for constant, and what is not called stateful is constant to it.

    Args:
        nodes: the graph.
        tensors: tensors or nodes of it.
        like: whose versions and functions are taken over.
    """
    tensors = list(tensors)
    behind = ancestors(nodes, tensors, stop=set())
    barriers = {name for name in behind if _is_barred(nodes[name])}
    barriers |= set(Evaluation(nodes, behind, barriers).too_large)
    kept = ancestors(nodes, tensors, stop=barriers)
    starts: dict[str, str] = {}
    for name in kept - barriers:
        for read in data_inputs(nodes[name]):
            if node_of(read) in barriers:
                starts.setdefault(tensor_name(read), f"{tensor_name(read).replace(':', '_')}_unknown_{len(starts)}")
    part = cut(nodes, kept - (barriers - {node_of(start) for start in starts}), starts, like)
    types = {called: _type_of(nodes, tensor) for tensor, called in starts.items()}
    for node in part.node:
        if node.name in types:
            node.attr.clear()
            node.attr["dtype"].type = types[node.name].as_datatype_enum
    return part


def _is_barred(node: Any) -> bool:
    definition = op_def_registry.get(node.op)
    return definition is None or (not definition.is_stateful and acts_outside(node))


def _type_of(nodes: Nodes, tensor: str) -> Any:
    """Element type of a tensor, by its own operator or by one that reads it; float32 where nobody knows."""
    try:
        types = output_types(nodes[node_of(tensor)])
        if types is not None and index_of(tensor) < len(types):
            return types[index_of(tensor)]
        read_as = (_read_type(node, tensor) for node in nodes.values())
        return next((kind for kind in read_as if kind is not None), tf.float32)
    except TypeError:  # no such type: the import says so
        return tf.float32


def _read_type(node: Any, tensor: str) -> Any:
    """What an operator with a fixed number of operands takes a tensor for; None where it does not read it."""
    definition = op_def_registry.get(node.op)
    if definition is None or any(one.number_attr or one.type_list_attr for one in definition.input_arg):
        return None
    for argument, read in zip(definition.input_arg, data_inputs(node), strict=False):
        if tensor_name(read) == tensor_name(tensor):
            return tf.dtypes.as_dtype(argument.type or node.attr[argument.type_attr].type)
    return None
