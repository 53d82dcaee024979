"""Graphs frozen for one batch size: their reshapes say the size again, and here it is taken out of them.

Placeholder [1,16,16,3] ... Reshape(x, [1, -1])   ->   Placeholder [?,16,16,3] ... Reshape(x, [-1, 2048])

A Reshape from [b, ...] to [b, ...] keeps the images apart, since both sides count the same elements: if these first
dimensions are the batch, and not another size that happens to be b. So what was rewritten is looked at again with a batch
size that no other dimension has, and goes back where its first dimensions are something else.

Where the placeholder does not say for which size it was frozen, 1 is tried, and only 1: Reshape(x, [20, -1]) may be boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import tensorflow as tf

from ..frozen import GraphDef
from ..nodes import batch_and_rest, make_constant

STAND_IN: Final = 1009
"""Batch size while shapes are looked at: a prime that no other dimension is likely to have."""

_SUFFIX: Final = "/any_batch"


def free_reshapes(graph_def: GraphDef, batch: int, graph: Any) -> set[str]:
    """Rewrites the constant targets of reshapes in place.

    Args:
        graph_def: the graph.
        batch: the size that it was frozen with.
        graph: the same as a `tf.Graph`, its placeholders of that batch size.

    Returns:
        Names of the Reshapes that were rewritten.
    """
    names = {node.name for node in graph_def.node}
    freed = set()
    for node in [node for node in graph_def.node if node.op == "Reshape" and node.name + _SUFFIX not in names]:
        operation = graph.get_operation_by_name(node.name)
        before, after = operation.inputs[0].shape, operation.outputs[0].shape
        target = tf.get_static_value(operation.inputs[1])
        if target is None or not before.rank or not after.rank or 0 in target:
            continue
        if before[0] != batch or after[0] != batch or target[0] != batch:
            continue
        if after.is_fully_defined():
            constant = make_constant(node.name + _SUFFIX, np.asarray([-1, *after[1:]], operation.inputs[1].dtype.as_numpy_dtype))
            graph_def.node.append(constant)
            node.input[1] = constant.name
        else:
            rest = [int(dim) for dim in target[1:]]
            made = batch_and_rest(node.name + _SUFFIX, node.input[0], node.attr["T"].type, rest)
            graph_def.node.extend(made)
            node.input[1], node.attr["Tshape"].type = made[-1].name, tf.int32.as_datatype_enum
        freed.add(node.name)
    return freed


def wrongly_freed(freed: set[str], graph: Any) -> set[str]:
    """Those of the rewritten Reshapes that do not go from one row per example to one row per example.

    Args:
        freed: names.
        graph: the graph for a batch of `STAND_IN` examples.
    """
    operations = {name: graph.get_operation_by_name(name) for name in freed}
    return {
        name
        for name, operation in operations.items()
        if any(
            tensor.shape.rank and tensor.shape[0] not in (None, STAND_IN) for tensor in (operation.inputs[0], *operation.outputs)
        )
    }


def set_batch(graph_def: GraphDef, names: Sequence[str], size: int | None) -> None:
    """Writes the first dimension of placeholders."""
    for node in graph_def.node:
        if node.op == "Placeholder" and node.name in names:
            node.attr["shape"].shape.dim[0].size = -1 if size is None else size


def restore(graph_def: GraphDef, nodes: Mapping[str, Any], where: Callable[[str], bool]) -> None:
    """Puts nodes back as they were."""
    for node in graph_def.node:
        if node.name in nodes and where(node.name):
            node.CopyFrom(nodes[node.name])
