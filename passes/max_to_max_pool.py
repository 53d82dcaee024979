"""A maximum over height and width becomes a MaxPool of that size, which only moves integers (L7).

    y = ReduceMax<keepdims = 1>(x, {2, 3})           =>      y = MaxPool<kernel_shape = [H, W]>(x)          x[n,C,H,W]

    y = ReduceMax<keepdims = 0>(x, {2, 3})           =>      p = MaxPool<kernel_shape = [H, W]>(x)
                                                             y = Flatten<axis = 1>(p)

    t = Transpose<perm = [0, 2, 3, 1]>(x)            =>      as above: the channels are in axis 1 of x
    y = ReduceMax<keepdims = 0>(t, {1, 2})

    y = GlobalMaxPool(x)                             =>      as the first

    y = ReduceMax(x, {2})                            =>      as means of sequences x[n,C,L]: MaxPool of Unsqueeze(x, {2})

    y = ReduceMax(x, axes of one element)            =>      y = Identity(x), or Squeeze(x, axes) without keepdims

Refused: other axes, height or width that are not fixed, a maximum behind a channels-last transpose that keeps its dimensions
(`sink-transposes` brings it into the first form).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import add_node, attribute, name_of, static_shape
from .mean_to_global_average_pool import finish_reduction, image_reduced, only_moves, reduced_axes
from .rewriting import inherited, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaxToMaxPool:
    """Writes ReduceMax over height and width, and GlobalMaxPool, as MaxPool."""

    name: ClassVar[str] = "max-to-max-pool"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        return rewrite_each(model.graph, _rewrite, "ReduceMax", "GlobalMaxPool")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    source = node.inputs[0]
    whole = node.op_type == "GlobalMaxPool"
    axes, keep = (2, 3) if whole else reduced_axes(node), whole or bool(attribute(node, "keepdims", 1))
    if not whole and only_moves(graph, node, axes):
        return True
    known = None if source is None else static_shape(source)
    image = image_reduced(graph, node, source, axes) if known is not None and None not in known[1:] else None
    shape = None if image is None else static_shape(image)
    if shape is None or shape[2] is None or shape[3] is None:
        return refuse(logger, node, f"it reduces axes {axes}, not those of an image or sequence of fixed size")
    result, metadata = node.outputs[0], inherited(node)
    attributes: dict[str, int | list[int]] = {
        "kernel_shape": [shape[2], shape[3]],
        "strides": [1, 1],
        "dilations": [1, 1],
        "pads": [0, 0, 0, 0],
    }
    name = name_of(result)
    pooled = add_node(graph, "MaxPool", [image], f"{name}__pool", attributes=attributes, before=node, metadata=metadata)
    finish_reduction(graph, node, pooled, keep=keep)
    return True
