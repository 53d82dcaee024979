"""A Split becomes one Slice per output that is read: what follows has one output per node.

    a, b = Split<axis = 1>(x, {1, 3})          =>      a = Slice(x, {0}, {1}, {1}),  b = Slice(x, {1}, {4}, {1})

Slices move elements and carry the scale of what they cut (L7). An output that holds all of `x` is `x` behind an Identity.

Refused: parts whose sizes are computed, or equal parts of an axis of unknown length.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import add_initializer, add_node, attribute, constant, name_of, static_shape
from .rewriting import drop, inherited, refuse, rewrite_each, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitToSlices:
    """Writes Split as Slices."""

    name: ClassVar[str] = "split-to-slices"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred for Splits into equal parts."""
        return rewrite_each(model.graph, _rewrite, "Split")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    source, sizes = node.inputs[0], _sizes(node)
    shape = None if source is None else static_shape(source)
    if source is None or shape is None or sizes is None:
        return refuse(logger, node, "the sizes of its parts are not known")
    axis = attribute(node, "axis", 0) % len(shape)
    start = 0
    for value, size in zip(node.outputs, sizes, strict=True):
        end = start + size
        if value.uses() or value.is_graph_output():
            name, metadata = name_of(value), inherited(node)
            if (start, end) == (0, shape[axis]):
                part = add_node(graph, "Identity", [source], f"{name}__part", before=node, like=value, metadata=metadata)
            else:
                bounds = [
                    add_initializer(graph, f"{name}__{what}", np.asarray([number], np.int64))
                    for what, number in (("start", start), ("end", end), ("axis", axis))
                ]
                part = add_node(graph, "Slice", [source, *bounds], f"{name}__part", before=node, like=value, metadata=metadata)
            take_over(value, part)
        start = end
    drop(node)
    return True


def _sizes(node: onnx_ir.Node) -> list[int] | None:
    """Lengths of the parts along the axis: given, or the whole in equal parts of which the last may be shorter."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = constant(node.inputs[1])
        fits = given is not None and given.ndim == 1 and given.size == len(node.outputs)
        return [int(size) for size in given] if given is not None and fits else None
    shape = None if node.inputs[0] is None else static_shape(node.inputs[0])
    length = None if not shape else shape[attribute(node, "axis", 0) % len(shape)]
    if length is None:
        return None
    part = -(-length // len(node.outputs))
    sizes = [min(part, max(length - index * part, 0)) for index in range(len(node.outputs))]
    return sizes if sum(sizes) == length else None
