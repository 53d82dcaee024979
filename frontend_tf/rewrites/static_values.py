"""Tensors that do not depend on any input, computed by TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from ..nodes import Nodes, ancestors, data_inputs, tensor_name
from ..quiet import quiet


def static_values(nodes: Nodes, tensors: Iterable[str], skip: Iterable[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Values of those `tensors` that are computed from constants alone, by pure operators.

    Args:
        nodes: the graph.
        tensors: names; each is computed once.
        skip: nodes that are fed from outside.
    """
    outside = set(skip)
    known: dict[str, bool] = {}
    needed: dict[str, Any] = {}
    wanted = []
    for tensor in dict.fromkeys(tensors):
        behind = ancestors(nodes, [tensor], stop=outside)
        if all(known.setdefault(name, name not in outside and _is_pure(nodes[name])) for name in behind):
            needed.update((name, nodes[name]) for name in behind)
            wanted.append(tensor)
    if not wanted:
        return {}
    graph_def = tf.compat.v1.GraphDef()
    for node in needed.values():
        copy = graph_def.node.add()
        copy.CopyFrom(node)
        copy.device = ""
        for key in ("_output_shapes", "_class"):
            copy.attr.pop(key, None)
        del copy.input[:]
        copy.input.extend(data_inputs(node))
    graph = tf.Graph()
    try:
        with quiet(), graph.as_default():
            tf.import_graph_def(graph_def, name="")
            with tf.compat.v1.Session(graph=graph) as session:
                values = session.run([tensor_name(tensor) for tensor in wanted])
    except (ValueError, TypeError, tf.errors.OpError):  # an ill-formed part: the import of the whole says so by name
        return {}
    return dict(zip(wanted, values, strict=True))


def _is_pure(node: Any) -> bool:
    definition = op_def_registry.get(node.op)
    if definition is None or definition.is_stateful or (not data_inputs(node) and node.op != "Const"):
        return False
    return node.op not in ("Switch", "Merge", "Enter", "Exit", "NextIteration") and not any(
        attr.HasField("func") for attr in node.attr.values()
    )
