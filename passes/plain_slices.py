"""A Slice names the axes that it cuts, and only those; one that cuts nothing goes.

    y = Slice(x, {0, 1}, {2^31 - 1, 7})                           =>      y = Slice(x, {1}, {7}, {1})           x[n,8]
    y = Slice(x, {0, 0}, {10^9, 10^9}, {0, 1}, {1, 1})            =>      y = x

TensorFlow's slices list every axis and mean "to the end" by a number beyond any length. Left in, such a cut of the batch is a
dimension that shape inference does not know, and a Slice that may select images. An axis of unknown length is whole where it
is cut from 0 to 2^31 - 1 or beyond (10^9 in tf2onnx).

Refused: bounds that are computed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import constant, static_shape
from .rewriting import bypass, is_op, refuse, rewrite_each, set_constant

logger = logging.getLogger(__name__)

_BEYOND = 10**9
"""No axis is as long: what tf2onnx writes for "to the end"."""

Cut = tuple[int, int, int, int]
"""Axis, start, end, step."""


@dataclass(frozen=True)
class PlainSlices:
    """Writes Slices with the axes they cut."""

    name: ClassVar[str] = "plain-slices"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        return rewrite_each(model.graph, _rewrite, "Slice")


def cuts_of(node: onnx_ir.Node) -> list[Cut] | None:
    """What a Slice with constant bounds cuts, axes counted from the front and in order; None for any other node."""
    shape = None if not is_op(node, "Slice") or node.inputs[0] is None else static_shape(node.inputs[0])
    if shape is None:
        return None
    given = [constant(value) for value in node.inputs[1:]]
    if any(array is None and value is not None for array, value in zip(given, node.inputs[1:], strict=True)):
        return None
    starts, ends, axes, steps = (*given, None, None, None, None)[:4]
    if starts is None or ends is None:
        return None
    axes = np.arange(starts.size) if axes is None else axes
    steps = np.ones(starts.size, np.int64) if steps is None else steps
    return sorted(
        (int(axis) % len(shape), int(start), int(end), int(step))
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    )


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    cuts, source = cuts_of(node), node.inputs[0]
    shape = None if source is None else static_shape(source)
    if cuts is None or shape is None:
        return refuse(logger, node, "its bounds are computed")
    kept = [cut for cut in cuts if not _is_whole(cut, shape[cut[0]])]
    if not kept:
        return bypass(logger, node, source)
    if kept == cuts and len(node.inputs) > 3 and node.inputs[3] is not None and _is_listed(node, kept):
        return False
    columns = list(zip(*kept, strict=True))
    order = [columns[1], columns[2], columns[0]] + ([columns[3]] if any(step != 1 for step in columns[3]) else [])
    old = list(node.inputs)
    node.resize_inputs(1 + len(order))
    for index, (column, what) in enumerate(zip(order, ("starts", "ends", "axes", "steps"), strict=False), start=1):
        like = old[index] if index < len(old) else None
        set_constant(graph, node, index, np.asarray(column, np.int64), like, fallback=f"{node.outputs[0].name}__{what}")
    return True


def _is_listed(node: onnx_ir.Node, cuts: list[Cut]) -> bool:
    """Whether the axes are written as they are meant: from the front, in order."""
    axes = constant(node.inputs[3])
    return axes is not None and axes.tolist() == [cut[0] for cut in cuts]


def _is_whole(cut: Cut, length: int | None) -> bool:
    _, start, end, step = cut
    if step != 1:
        return length is not None and length == 1 and len(range(1)[start:end:step]) == 1
    if length is None:
        return start == 0 and end >= _BEYOND
    return range(length)[start:end] == range(length)
