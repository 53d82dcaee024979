"""Graphs frozen for one batch size: their reshapes say the size again, and here it is taken out of them.

Placeholder [1,16,16,3] ... Reshape(x, [1, -1])   ->   Placeholder [?,16,16,3] ... Reshape(x, [-1, 2048])

A Reshape from [b, ...] to [b, ...] keeps the images apart, since both sides count the same elements. Where the placeholder
does not say for which size it was frozen, the reshapes do, if they agree: Reshape(x, [1, 30]) of an x [?,h,w,c] becomes
Reshape(x, [-1, 30]) unless h * w * c is known to be another number than 30, and Reshape(x, [1, -1]) takes x's batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..frozen import GraphDef
from ..nodes import batch_and_rest, make_constant

_SUFFIX = "/any_batch"


def free_batch(graph_def: GraphDef, batches: Mapping[str, int], import_graph: Callable[[GraphDef], Any]) -> None:
    """Rewrites the constant targets of reshapes in place.

    Args:
        graph_def: the graph, its placeholders of open batch size.
        batches: placeholder -> the batch size it was frozen with; nothing is done where they differ.
        import_graph: makes a `tf.Graph`, which infers the shapes.
    """
    sizes = set(batches.values())
    reshapes = [node for node in graph_def.node if node.op == "Reshape"]
    if not sizes and reshapes:
        _free_unsaid(graph_def, reshapes, import_graph(graph_def))
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
        _set_target(graph_def, node, operation, [-1, *after[1:]])


def _set_target(graph_def: GraphDef, node: Any, operation: Any, target: Sequence[int]) -> None:
    constant = make_constant(node.name + _SUFFIX, np.asarray(target, operation.inputs[1].dtype.as_numpy_dtype))
    graph_def.node.append(constant)
    node.input[1] = constant.name


def _free_unsaid(graph_def: GraphDef, reshapes: Sequence[Any], graph: Any) -> None:
    """The rule for placeholders of unknown batch size."""
    names = {node.name for node in graph_def.node}
    found = []
    for node in reshapes:
        operation = graph.get_operation_by_name(node.name)
        before, target = operation.inputs[0].shape, tf.get_static_value(operation.inputs[1])
        if target is None or len(target) < 2 or target[0] <= 0 or before.rank is None or before.rank < 2:
            continue
        if before[0] not in (None, target[0]) or 0 in target or node.name + _SUFFIX in names:
            continue
        per_image, inferred = before[1:].num_elements(), int(min(target)) < 0
        if inferred or per_image in (None, math.prod(target[1:])):
            found.append((node, operation, [int(dim) for dim in target]))
    if len({target[0] for _, _, target in found}) == 1:
        for node, operation, target in found:
            if min(target) > 0:
                _set_target(graph_def, node, operation, [-1, *target[1:]])
            else:
                made = batch_and_rest(node.name + _SUFFIX, node.input[0], node.attr["T"].type, target[1:])
                graph_def.node.extend(made)
                node.input[1], node.attr["Tshape"].type = made[-1].name, tf.int32.as_datatype_enum


def _with_batch(graph_def: GraphDef, batches: Mapping[str, int]) -> GraphDef:
    """A copy with the batch sizes in place."""
    copy = tf.compat.v1.GraphDef()
    copy.CopyFrom(graph_def)
    for node in copy.node:
        if node.name in batches and node.op == "Placeholder":
            node.attr["shape"].shape.dim[0].size = batches[node.name]
    return copy
