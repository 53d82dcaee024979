"""Moves that tf2onnx writes with shapes computed at run time -> moves with constants, for the conversion only.

    ReverseV2(x, [1])                     ->   StridedSlice(x, steps [1, -1, 1, 1])
    MirrorPad[SYMMETRIC](x, paddings)     ->   GatherV2(x, [1, 0, 0, 1, ..., n-1, n-1, n-2], axis) for each padded axis

ONNX can say neither in one operator. tf2onnx reverses by ReverseSequence, with the batch as lengths, and mirrors by a reflection
of which it cuts out the doubled rows with Compress. Both forms here only select elements, so that nothing is rounded (L7).

Left as they are: axes or paddings that are computed, mirrored axes of unknown length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..inference.cut import import_graph
from ..nodes import data_inputs, make_constant, make_node
from .surgery import Surgery


def settle_moves(surgery: Surgery) -> bool:
    """Applies both rules; the surgery's nodes must be the cut graph, its placeholders of settled shape."""
    found = [name for name, node in surgery.nodes.items() if node.op in ("ReverseV2", "MirrorPad")]
    if not found:
        return False
    surgery.close()
    graph = import_graph(surgery.where, surgery.result())
    changed = [_settle(surgery, graph.get_operation_by_name(name)) for name in found]
    return any(changed)


def _settle(surgery: Surgery, operation: Any) -> bool:
    node, shape = surgery.nodes[operation.name], operation.inputs[0].shape
    given = tf.get_static_value(operation.inputs[1])
    if given is None or shape.rank is None:
        return False
    if node.op == "ReverseV2":
        _reverse(surgery, node, shape.rank, [int(axis) % shape.rank for axis in given])
        return True
    if node.attr["mode"].s != b"SYMMETRIC":
        return False
    amounts = [(int(before), int(after)) for before, after in given]
    if any(any(both) and length is None for both, length in zip(amounts, shape, strict=True)):
        return False
    _mirror(surgery, node, {axis: (both, int(shape[axis])) for axis, both in enumerate(amounts) if any(both)})
    return True


def _reverse(surgery: Surgery, node: Any, rank: int, axes: list[int]) -> None:
    """Everything, backwards along the axes."""
    name, kind = node.name, tf.dtypes.as_dtype(node.attr["T"].type)
    steps = np.asarray([-1 if axis in axes else 1 for axis in range(rank)], np.int32)
    bounds = [
        make_constant(surgery.fresh(f"{name}/{what}"), array)
        for what, array in (("begin", np.zeros(rank, np.int32)), ("end", np.zeros(rank, np.int32)), ("steps", steps))
    ]
    inputs = [data_inputs(node)[0], *(bound.name for bound in bounds)]
    masks = {"begin_mask": 2**rank - 1, "end_mask": 2**rank - 1, "ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 0}
    surgery.put(*bounds, make_node(name, "StridedSlice", inputs, T=kind, Index=tf.int32, **masks))


def _mirror(surgery: Surgery, node: Any, axes: dict[int, tuple[tuple[int, int], int]]) -> None:
    """One Gather per padded axis, the last under the name of the node."""
    name, kind, source = node.name, tf.dtypes.as_dtype(node.attr["T"].type), data_inputs(node)[0]
    if not axes:
        surgery.put(make_node(name, "Identity", [source], T=kind))
    for axis, ((before, after), length) in axes.items():
        inside = np.arange(length, dtype=np.int32)
        positions = np.concatenate([inside[:before][::-1], inside, inside[length - after :][::-1]])
        chosen = make_constant(surgery.fresh(f"{name}/positions_{axis}"), positions)
        along = make_constant(surgery.fresh(f"{name}/axis_{axis}"), np.int32(axis))
        own = name if axis == max(axes) else surgery.fresh(f"{name}/mirrored_{axis}")
        types = {"Tparams": kind, "Tindices": tf.int32, "Taxis": tf.int32}
        surgery.put(chosen, along, make_node(own, "GatherV2", [source, chosen.name, along.name], **types, batch_dims=0))
        source = own
