"""What repeats a whole tensor along an axis is a Tile, the only operator of its kind behind this pass.

    y = Expand(x, {1,2,4,4})            =>      y = Tile(x, {1,2,1,4})           x[n,1,4,1]
    y = Expand(x, shape)                =>      the same, where all of y's shape but the batch is known
    y = Tile(x, {1,1,1,1})              =>      y = x

A Tile moves elements and carries its input's scale (L7).

Refused: an Expand that adds axes, or whose result has an unknown dimension that is not the batch of its input.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import constant, name_of
from .known_dims import Dims, all_known_dims, known_dims
from .rewriting import bypass, drop, inherited, refuse, rewrite_each, set_constant, take_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpandToTile:
    """Writes Expand as Tile; a Tile of everything once goes."""

    name: ClassVar[str] = "expand-to-tile"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred."""
        known = all_known_dims(model.graph)
        modified = rewrite_each(model.graph, lambda graph, node: _expand(graph, node, known), "Expand")
        return rewrite_each(model.graph, _splice, "Tile") or modified


def _expand(graph: onnx_ir.Graph, node: onnx_ir.Node, known: dict[onnx_ir.Value, Dims | None]) -> bool:
    source, wanted = node.inputs[0], known_dims(node.inputs[1], known)
    shape = None if source is None or source.shape is None else list(source.shape)
    if source is None or shape is None or wanted is None or wanted.ndim != 1 or len(wanted) > len(shape):
        return refuse(logger, node, "its shapes are not known, or it adds axes")
    repeats = [1] * len(shape)
    for axis, length in enumerate(wanted, start=len(shape) - len(wanted)):
        own = shape[axis] if isinstance(shape[axis], int) else getattr(shape[axis], "value", None)
        if length in (1, own) and length is not None:
            continue
        if own != 1 or not isinstance(length, int):
            return refuse(logger, node, f"it makes the axis {axis} of length {own} one of length {length}")
        repeats[axis] = length
    tile = onnx_ir.node("Tile", [source], name=node.name, metadata_props=inherited(node))
    tile.outputs[0].name = f"{name_of(node.outputs[0])}__tile"
    graph.insert_before(node, tile)
    take_over(node.outputs[0], tile.outputs[0])
    drop(node)
    set_constant(graph, tile, 1, np.asarray(repeats, np.int64), None, fallback=f"{name_of(tile.outputs[0])}__repeats")
    return True


def _splice(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    repeats = constant(node.inputs[1])
    return repeats is not None and bool((repeats == 1).all()) and bypass(logger, node, node.inputs[0])
