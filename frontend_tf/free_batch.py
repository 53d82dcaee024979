"""Graphs frozen for one batch size: their reshapes say the size again, and here it is taken out of them.

Placeholder [1,16,16,3] ... Reshape(x, [1, -1])   ->   Placeholder [?,16,16,3] ... Reshape(x, [-1, 2048])

A Reshape from [b, ...] to [b, ...] keeps the images apart, since both sides count the same elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .frozen import GraphDef

_SUFFIX = "/any_batch"


def free_batch(graph_def: GraphDef, batches: Mapping[str, int], import_graph: Callable[[GraphDef], Any]) -> None:
    """Rewrites the constant targets of reshapes in place.

    Args:
        graph_def: the graph, its placeholders of open batch size.
        batches: placeholder -> the batch size it was frozen with; nothing is done where there is none or where they differ.
        import_graph: makes a `tf.Graph`, which infers the shapes.
    """
    sizes = set(batches.values())
    reshapes = [node for node in graph_def.node if node.op == "Reshape"]
    if len(sizes) != 1 or not reshapes:
        return
    batch = sizes.pop()
    graph = import_graph(_with_batch(graph_def, batches))
    names = {node.name for node in graph_def.node}
    for node in reshapes:
        operation = graph.get_operation_by_name(node.name)
        before, after = operation.inputs[0].shape, operation.outputs[0].shape
        target = tf.get_static_value(operation.inputs[1])
        if target is None or not before.is_fully_defined() or not after.is_fully_defined() or not before.rank or not after.rank:
            continue
        if before[0] != batch or after[0] != batch or target[0] != batch or node.name + _SUFFIX in names:
            continue
        constant = graph_def.node.add(name=node.name + _SUFFIX, op="Const")
        value = np.asarray([-1, *after[1:]], operation.inputs[1].dtype.as_numpy_dtype)
        constant.attr["dtype"].type = operation.inputs[1].dtype.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        node.input[1] = constant.name


def _with_batch(graph_def: GraphDef, batches: Mapping[str, int]) -> GraphDef:
    """A copy with the batch sizes in place."""
    copy = tf.compat.v1.GraphDef()
    copy.CopyFrom(graph_def)
    for node in copy.node:
        if node.name in batches and node.op == "Placeholder":
            node.attr["shape"].shape.dim[0].size = batches[node.name]
    return copy
