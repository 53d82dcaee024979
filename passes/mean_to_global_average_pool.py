"""A mean over height and width becomes GlobalAveragePool (L6).

    y = ReduceMean<keepdims = 1>(x, {2, 3})          =>      y = GlobalAveragePool(x)

    y = ReduceMean<keepdims = 0>(x, {2, 3})          =>      p = GlobalAveragePool(x)
                                                             y = Flatten<axis = 1>(p)

    t = Transpose<perm = [0, 2, 3, 1]>(x)            =>      as above: the channels are in axis 1 of x
    y = ReduceMean<keepdims = 0>(t, {1, 2})

    y = ReduceMean<keepdims = 0>(t, {1, 2})          =>      as above, of Transpose<perm = [0, 3, 1, 2]>(t); with kept dimensions,
                                                             Unsqueeze(y, {1, 2}) behind

    y = ReduceMean<keepdims = 0>(x, {2})             =>      u = Unsqueeze(x, {2})          sequences x[n,C,L], [n,L,C] behind a
                                                             y = Flatten(GlobalAveragePool(u))                     transpose

    y = ReduceMean(x, axes of one element)           =>      y = Identity(x), or Squeeze(x, axes) without keepdims

Axes may be an attribute (before opset 18) or an input, and negative.

Refused: means over other axes, tensors that are not of rank 3 or 4.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import add_initializer, add_node, attribute, constant, name_of, static_shape
from .layers import rank_of
from .rewriting import drop, inherited, is_op, refuse, rewrite_each, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeanToGlobalAveragePool:
    """Writes ReduceMean over height and width as GlobalAveragePool."""

    name: ClassVar[str] = "mean-to-global-average-pool"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _rewrite, "ReduceMean")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    source, axes = node.inputs[0], reduced_axes(node)
    if only_moves(graph, node, axes):
        return True
    keep = bool(attribute(node, "keepdims", 1))
    image = image_reduced(graph, node, source, axes)
    if image is None:
        return refuse(logger, node, f"it averages over axes {axes}, not those of an image or sequence in axis order n, C, ...")
    result, metadata = node.outputs[0], inherited(node)
    pooled = add_node(graph, "GlobalAveragePool", [image], f"{name_of(result)}__pool", before=node, metadata=metadata)
    finish_reduction(graph, node, pooled, keep=keep)
    return True


def image_reduced(
    graph: onnx_ir.Graph, node: onnx_ir.Node, source: onnx_ir.Value | None, axes: tuple[int, ...] | None
) -> onnx_ir.Value | None:
    """The image [n, C, h, w] whose height and width a reduction takes together.

    A sequence becomes an image of height 1, as Conv1D computes it. None where the axes are others. One with its channels last
    is turned, or taken from in front of the transpose that turned it.
    """
    rank = rank_of(source)
    if source is None or axes is None or rank not in (3, 4):
        return None
    last = tuple(range(1, rank - 1))
    producer = source.producer()
    if axes == last and axes != tuple(range(2, rank)):
        if producer is not None and is_op(producer, "Transpose") and attribute(producer, "perm", None) == (0, *range(2, rank), 1):
            source = producer.inputs[0]
        else:
            source = _channels_first(graph, node, source, rank)
    elif axes != tuple(range(2, rank)):
        return None
    if source is None or rank == 4:
        return source
    label = f"{name_of(node.outputs[0])}__image"
    axis = add_initializer(graph, f"{label}__axis", np.asarray([2], np.int64))
    image = add_node(graph, "Unsqueeze", [source, axis], label, before=node, like=source, metadata=inherited(node))
    image.shape = None if source.shape is None else onnx_ir.Shape([*source.shape[:2], 1, *source.shape[2:]])
    return image


def _channels_first(graph: onnx_ir.Graph, node: onnx_ir.Node, source: onnx_ir.Value, rank: int) -> onnx_ir.Value:
    perm = (0, rank - 1, *range(1, rank - 1))
    name = f"{name_of(node.outputs[0])}__nchw"
    turned = add_node(
        graph, "Transpose", [source], name, attributes={"perm": perm}, before=node, like=source, metadata=inherited(node)
    )
    if source.shape is not None:
        turned.shape = onnx_ir.Shape([source.shape[axis] for axis in perm])
    return turned


def finish_reduction(graph: onnx_ir.Graph, node: onnx_ir.Node, pooled: onnx_ir.Value, *, keep: bool) -> None:
    """A pooled image [N, C, 1, 1] takes the place of a reduction's output, flattened to [N, C] unless dimensions are kept.

    Kept dimensions are those of its input: two, or one for a sequence, in front of the channels where those come last.
    """
    result, metadata = node.outputs[0], inherited(node)
    pooled.type = result.type
    rank = rank_of(node.inputs[0])
    axes = (2, 3) if node.op_type == "GlobalMaxPool" else reduced_axes(node)
    last = keep and rank is not None and axes == tuple(range(1, rank - 1)) and axes != tuple(range(2, rank))
    if not keep or last:
        if result.shape is not None:
            kept = [dim for axis, dim in enumerate(result.shape) if not last or axis not in (axes or ())]
            pooled.shape = onnx_ir.Shape([*kept, 1, 1])
        label = f"{name_of(result)}__flat"
        pooled = add_node(graph, "Flatten", [pooled], label, attributes={"axis": 1}, before=node, metadata=metadata)
        if last:
            axis = add_initializer(graph, f"{name_of(result)}__axes", np.asarray(axes, np.int64))
            pooled = add_node(graph, "Unsqueeze", [pooled, axis], f"{name_of(result)}__kept", before=node, metadata=metadata)
    elif rank == 3:
        if result.shape is not None:
            pooled.shape = onnx_ir.Shape([*result.shape, 1])
        axis = add_initializer(graph, f"{name_of(result)}__axis", np.asarray([2], np.int64))
        pooled = add_node(graph, "Squeeze", [pooled, axis], f"{name_of(result)}__sequence", before=node, metadata=metadata)
    take_over(result, pooled)
    drop(node)


def only_moves(graph: onnx_ir.Graph, node: onnx_ir.Node, axes: tuple[int, ...] | None) -> bool:
    """Writes a mean or maximum over axes that hold one element each (an image of 1 x 1) as the move it is."""
    source, result = node.inputs[0], node.outputs[0]
    shape = None if source is None else static_shape(source)
    if source is None or not axes or shape is None or any(shape[axis] != 1 for axis in axes):
        return False
    inputs, op_type = [source], "Identity"
    if not attribute(node, "keepdims", 1):
        inputs.append(add_initializer(graph, f"{name_of(result)}__axes", np.asarray(axes, np.int64)))
        op_type = "Squeeze"
    take_over(result, add_node(graph, op_type, inputs, f"{name_of(result)}__one", before=node, metadata=inherited(node)))
    drop(node)
    return True


def reduced_axes(node: onnx_ir.Node) -> tuple[int, ...] | None:
    """Sorted, non-negative axes of a Reduce node; None where they are not constant or the rank is unknown."""
    rank = rank_of(node.inputs[0])
    axes = attribute(node, "axes", None)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant(node.inputs[1])
        if array is None:
            return None
        axes = tuple(int(axis) for axis in array.reshape(-1))
    if rank is None:
        return None
    if not axes:
        return () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in axes))
