"""A Resize to the nearest element only moves elements: written as what it moves, it carries its input's scale (L7).

    y = Resize<nearest, half pixels>(x[n,c,4,4], by 2)            =>      y = Resize<nearest, asymmetric, floor>(x, {1,1,2,2})
    y = Resize<nearest>(x[n,c,4,4], to {n,c,2,4})                 =>      y = Slice(x, {1}, {4}, {2}, {2})
    y = Resize<nearest>(x[n,c,4,4], to {n,c,7,4})                 =>      y = Gather<axis = 2>(x, {0,0,1,1,2,2,3})

Which element each one is follows from lengths and coordinates alone. Where every one comes a whole number of times it stays a
Resize, whatever its coordinates were, in the one form that is TensorFlow's `i // factor`; every n-th element is a Slice; any
other choice of elements is one Gather per axis.

A Resize that changes no length goes. One that interpolates keeps its coordinates, but says by how much in constant scales of
all axes; where all of them lie on elements (TensorFlow's legacy form made shorter by a whole factor), or there is one element
only (an image-level feature spread over an image), nothing is interpolated.

Refused: lengths that are not known, crops, sizes that keep the proportions, other interpolations.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import add_initializer, add_node, attribute, name_of, static_shape
from .known_dims import Dims, all_known_dims
from .resizes import REPETITION, Side, coordinates, nearest, repeats_whole, sides_of, why_no_sides
from .rewriting import bypass, drop, inherited, refuse, rewrite_each, set_constant, take_over

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlainResizes:
    """Writes Resize to the nearest element as repetition, Slice or Gather."""

    name: ClassVar[str] = "plain-resizes"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        known = all_known_dims(model.graph)
        return rewrite_each(model.graph, lambda graph, node: _rewrite(graph, node, known), "Resize")


def _rewrite(graph: onnx_ir.Graph, node: onnx_ir.Node, known: dict[onnx_ir.Value, Dims | None]) -> bool:
    sides = sides_of(node, known)
    if sides is None:
        return refuse(logger, node, why_no_sides(node, known) or "what it resizes by is not known")
    if not sides:
        return bypass(logger, node, node.inputs[0])
    if attribute(node, "mode", "nearest") != "nearest" and not all(_selects(node, side) for side in sides):
        return _constant_scales(graph, node, sides)
    chosen = {side.axis: (side, nearest(node, side)) for side in sides}
    if repeats_whole(node) or any(indices is None for _, indices in chosen.values()):
        return refuse(logger, node, "it is plain already, or its coordinates are a crop's")
    steps = [(side, indices) for side, indices in chosen.values() if indices is not None]
    factors = {side.axis: factor for side, indices in steps if (factor := _factor(side, indices)) is not None}
    value = node.inputs[0]
    assert value is not None
    for side, indices in steps:
        if side.axis not in factors or not _is_image(node, factors):
            value = _select(graph, node, value, side, indices)
    if factors and _is_image(node, factors):
        value = _repeat(graph, node, value, factors)
    take_over(node.outputs[0], value)
    drop(node)
    return True


def _selects(node: onnx_ir.Node, side: Side) -> bool:
    """Whether interpolation takes elements as they are: it lies on them (without antialias, inside the image), or has only one."""
    x = coordinates(node, side)
    if x is None or attribute(node, "mode", "nearest") != "linear":
        return False
    inside = bool((x == np.floor(x)).all() and (x >= 0).all() and (x <= side.length - 1).all())
    return side.length == 1 or (inside and not attribute(node, "antialias", 0))


def _constant_scales(graph: onnx_ir.Graph, node: onnx_ir.Node, sides: list[Side]) -> bool:
    """Sizes, known beforehand, and scales of some axes as scales of all: what `bilinear-to-depthwise` and TensorFlow read."""
    if (len(node.inputs) < 4 or node.inputs[3] is None) and "axes" not in node.attributes:
        return False
    shape = static_shape(node.inputs[0]) if node.inputs[0] is not None else None
    if shape is None or any(int(side.length * float(side.scale)) != side.resized for side in sides):
        return refuse(logger, node, "its sizes have no scales in float32")
    scales = np.ones(len(shape), np.float32)
    for side in sides:
        scales[side.axis] = side.scale
    node.attributes.pop("axes", None)
    node.resize_inputs(3)
    node.replace_input_with(1, None)
    node.replace_input_with(2, None)
    set_constant(graph, node, 2, scales, None, fallback=f"{name_of(node.outputs[0])}__scales")
    return True


def _factor(side: Side, indices: Indices) -> int | None:
    """How often every element comes, one after the other."""
    factor = side.factor
    return factor if factor is not None and np.array_equal(indices, np.arange(side.length).repeat(factor)) else None


def _is_image(node: onnx_ir.Node, factors: dict[int, int]) -> bool:
    """Whether it is height and width of images that grow."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return shape is not None and len(shape) == 4 and min(factors) >= 2


def _repeat(graph: onnx_ir.Graph, node: onnx_ir.Node, value: onnx_ir.Value, factors: dict[int, int]) -> onnx_ir.Value:
    name = name_of(node.outputs[0])
    scales = add_initializer(graph, f"{name}__scales", np.asarray([factors.get(axis, 1) for axis in range(4)], np.float32))
    return add_node(
        graph, "Resize", [value, None, scales], f"{name}__repeated", attributes=REPETITION, before=node, metadata=inherited(node)
    )


def _select(graph: onnx_ir.Graph, node: onnx_ir.Node, value: onnx_ir.Value, side: Side, indices: Indices) -> onnx_ir.Value:
    """Every n-th element as a Slice, any other choice as a Gather."""
    name, metadata = name_of(node.outputs[0]), inherited(node)
    steps = np.diff(indices)
    if indices.size and (steps == steps[:1]).all() and (indices.size == 1 or steps[0] > 0):
        step = int(steps[0]) if steps.size else 1
        numbers = (("start", int(indices[0])), ("end", int(indices[-1]) + 1), ("axis", side.axis), ("step", step))
        bounds = [add_initializer(graph, f"{name}__{what}", np.asarray([number], np.int64)) for what, number in numbers]
        return add_node(graph, "Slice", [value, *bounds], f"{name}__part", before=node, metadata=metadata)
    positions = add_initializer(graph, f"{name}__positions", indices)
    return add_node(
        graph, "Gather", [value, positions], f"{name}__chosen", attributes={"axis": side.axis}, before=node, metadata=metadata
    )
