"""A Transpose that only moves dimensions of size 1 is a Reshape; Reshapes in a row are one.

    t = Transpose<perm = [0, 2, 3, 1]>(x)            x[n,1001,1,1]
    y = Reshape(t, {-1, 1001})                =>     y = Reshape(x, {-1, 1001})

Elements in memory stay in order when the dimensions above 1 do. Reshape, Flatten, Squeeze and Unsqueeze merge pairwise
into the last one's shape (at most one dimension of it unknown: the batch, written -1); one that changes nothing goes.

Refused: a transpose to channels-first of anything but a reshaped value (it is the network's one layout change, and
stays recognizable even where the image has one channel); results of which more than the batch is unknown. Other readers
of a value in between keep it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import constant, name_of, replace_value, static_shape
from .rewriting import can_merge_outputs, drop, inherited, is_op, refuse, rewrite_each, set_constant, take_over
from .sink_transposes import perm_of, to_channels_last

logger = logging.getLogger(__name__)

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class TransposeToReshape:
    """Turns Transposes of size-1 dimensions into Reshapes and merges Reshapes in a row."""

    name: ClassVar[str] = "transpose-to-reshape"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        modified = rewrite_each(model.graph, _turn, "Transpose")
        modified |= rewrite_each(model.graph, _merge, *_RESHAPES)
        return rewrite_each(model.graph, _splice, *_RESHAPES) or modified


def _turn(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    source, perm = node.inputs[0], perm_of(node)
    shape = None if source is None else static_shape(source)
    if source is None or perm is None or shape is None:
        return refuse(logger, node, "its shape is not known")
    moved = [axis for axis in perm if shape[axis] != 1]
    if moved != sorted(moved):
        return False
    if perm != to_channels_last(len(perm)) and not is_op(source.producer(), *_RESHAPES):
        return refuse(logger, node, "it is the change to channels-first")
    target = _target(tuple(shape[axis] for axis in perm))
    return target is not None and _reshape(graph, node, source, target)


def _merge(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    middle = node.inputs[0]
    before = None if middle is None else middle.producer()
    if middle is None or before is None or not is_op(before, *_RESHAPES):
        return False
    shape = static_shape(node.outputs[0])
    target = None if shape is None or not _is_fixed(before) or not _is_fixed(node) else _target(shape)
    if target is None or before.inputs[0] is None:
        return refuse(logger, node, "more than the batch of its result is unknown")
    _reshape(graph, node, before.inputs[0], target)
    if not middle.uses() and not middle.is_graph_output():
        drop(before)
    return True


def _splice(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if source is None:
        return False
    shape = static_shape(source)
    if shape is None or shape != static_shape(result) or sum(dim is None for dim in shape) > 1 or not _is_fixed(node):
        return False
    if not can_merge_outputs(result, source):
        return refuse(logger, node, f"{source.name!r} and {result.name!r} are both names to keep (O3)")
    replace_value(result, source)
    drop(node)
    return True


def _is_fixed(node: onnx_ir.Node) -> bool:
    """Whether the node's result is a matter of its input's shape only, not of computed targets or axes."""
    return all(constant(value) is not None for value in node.inputs[1:])


def _target(shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """The constant that reshapes to `shape`, where at most one dimension is unknown and none is empty."""
    if sum(dim is None for dim in shape) > 1 or 0 in shape:
        return None
    return tuple(-1 if dim is None else dim for dim in shape)


def _reshape(graph: onnx_ir.Graph, node: onnx_ir.Node, source: onnx_ir.Value, target: tuple[int, ...]) -> bool:
    """Puts `Reshape(source, target)` in the place of `node`."""
    name = name_of(node.outputs[0])
    like = node.inputs[1] if is_op(node, "Reshape") else None
    reshape = onnx_ir.node("Reshape", [source], name=node.name, metadata_props=inherited(node))
    reshape.outputs[0].name = f"{name}__reshape"
    graph.insert_before(node, reshape)
    take_over(node.outputs[0], reshape.outputs[0])
    drop(node)
    set_constant(graph, reshape, 1, np.asarray(target, np.int64), like, fallback=f"{name}__shape")
    return True
