"""Moves that tf2onnx writes with shapes computed at run time -> moves with constants, for the conversion only.

    ReverseV2(x, [1])                     ->   StridedSlice(x, steps [1, -1, 1, 1])
    MirrorPad[SYMMETRIC](x, paddings)     ->   GatherV2(x, [1, 0, 0, 1, ..., n-1, n-1, n-2], axis) for each padded axis

    ResizeNearestNeighbor(x, [7, 8])      ->   GatherV2 for each axis that changes, x of 6 rows

ONNX can say neither of the first two in one operator. tf2onnx reverses by ReverseSequence, with the batch as lengths, and mirrors
by a reflection of which it cuts out the doubled rows with Compress. Of a resize it writes the scale, and float32(7 / 6) * 6 is
less than 7: a row would be missing. From 14 rows to 2, TensorFlow's `i * 7` is row 7, ONNX's `i / float32(2 / 14)` row 6. All
forms here only select elements, so that nothing is rounded (L7).

A size or padding beyond 2^24 elements is refused: positions are made of it.

Left as they are: axes, paddings or sizes that are computed, mirrored axes of unknown length, sizes whose scale reaches them
with the same elements.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ...ir import MOST_ELEMENTS, UnsupportedError
from ..inference.cut import import_graph
from ..nodes import data_inputs, make_constant, make_node
from .surgery import Surgery


def settle_moves(surgery: Surgery) -> bool:
    """Applies the rules; the surgery's nodes must be the cut graph, its placeholders of settled shape."""
    found = [name for name, node in surgery.nodes.items() if node.op in ("ReverseV2", "MirrorPad", "ResizeNearestNeighbor")]
    if not found:
        return False
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
    if node.op == "ResizeNearestNeighbor":
        return _resize(surgery, node, list(shape), [int(size) for size in given])
    if node.attr["mode"].s != b"SYMMETRIC":
        return False
    amounts = [(int(before), int(after)) for before, after in given]
    if any(any(both) and length is None for both, length in zip(amounts, shape, strict=True)):
        return False
    lengths = {axis: sum(both) + int(shape[axis]) for axis, both in enumerate(amounts) if any(both)}
    _check_length(surgery, node, lengths.values())
    _select(surgery, node, {axis: _mirrored(amounts[axis], int(shape[axis])) for axis in lengths})
    return True


def _check_length(surgery: Surgery, node: Any, lengths: Collection[int]) -> None:
    if max(lengths, default=0) > MOST_ELEMENTS:
        raise UnsupportedError(
            f"{surgery.where}: {node.op} {node.name!r}: axes of at most {MOST_ELEMENTS} elements are expected. "
            f"Received: {max(lengths)}"
        )


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


def _mirrored(amounts: tuple[int, int], length: int) -> npt.NDArray[np.int32]:
    """The elements of an axis, those at its ends once more outside."""
    inside = np.arange(length, dtype=np.int32)
    return np.concatenate([inside[: amounts[0]][::-1], inside, inside[length - amounts[1] :][::-1]])


def _resize(surgery: Surgery, node: Any, shape: list[int | None], sizes: list[int]) -> bool:
    """The elements that TensorFlow takes, by its own arithmetic, where a scale would not reach the size or take others."""
    _check_length(surgery, node, sizes)
    pairs = [(axis, shape[axis], size) for axis, size in zip((1, 2), sizes, strict=True)]
    if any(length is None or not length for _, length, _ in pairs):
        return False
    known = [(axis, length or 0, size) for axis, length, size in pairs if length != size]
    chosen = {axis: _nearest(node, length, size) for axis, length, size in known}
    if all(
        int(length * float(np.float32(size) / np.float32(length))) == size
        and np.array_equal(chosen[axis], _nearest_by_scale(node, length, size))
        for axis, length, size in known
    ):
        return False
    _select(surgery, node, chosen)
    return True


def _nearest(node: Any, length: int, size: int) -> npt.NDArray[np.int32]:
    places = np.arange(size, dtype=np.float32)
    if node.attr["align_corners"].b and size > 1:
        chosen = np.floor(places * (np.float32(length - 1) / np.float32(size - 1)) + np.float32(0.5))
    else:
        half = np.float32(0.5 if node.attr["half_pixel_centers"].b else 0.0)
        chosen = np.floor((places + half) * (np.float32(length) / np.float32(size)))
    return np.asarray(np.minimum(chosen, length - 1), np.int32)


def _nearest_by_scale(node: Any, length: int, size: int) -> npt.NDArray[np.int32]:
    """What ONNX's formulas take, in the modes that tf2onnx writes."""
    places, half = np.arange(size, dtype=np.float32), np.float32(0.5)
    scale = np.float32(size) / np.float32(length)
    if node.attr["align_corners"].b:
        chosen = np.floor(places * np.float32(length - 1) / np.float32(max(size - 1, 1)) + half)
    else:
        chosen = np.floor((places + (half if node.attr["half_pixel_centers"].b else np.float32(0))) / scale)
    return np.asarray(np.minimum(chosen, length - 1), np.int32)


def _select(surgery: Surgery, node: Any, positions: dict[int, npt.NDArray[np.int32]]) -> None:
    """One Gather per axis, the last under the name of the node."""
    name, kind, source = node.name, tf.dtypes.as_dtype(node.attr["T"].type), data_inputs(node)[0]
    if not positions:
        surgery.put(make_node(name, "Identity", [source], T=kind))
    for axis, indices in positions.items():
        chosen = make_constant(surgery.fresh(f"{name}/positions_{axis}"), indices)
        along = make_constant(surgery.fresh(f"{name}/axis_{axis}"), np.int32(axis))
        own = name if axis == max(positions) else surgery.fresh(f"{name}/axis_{axis}_chosen")
        types = {"Tparams": kind, "Tindices": tf.int32, "Taxis": tf.int32}
        surgery.put(chosen, along, make_node(own, "GatherV2", [source, chosen.name, along.name], **types, batch_dims=0))
        source = own
