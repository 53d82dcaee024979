"""Batches in slices, so that memory is bounded by a few images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy.typing as npt
import onnx_ir

from ..ir import attribute, constant

Feeds = Mapping[str, npt.NDArray[Any]]
"""Graph input name -> array, batch first."""

ELEMENTS: Final = 640_000
"""Input elements computed at once: four images of 224 x 224 x 3, whose tensors take about half a gigabyte as int64."""

MOST_IMAGES: Final = 64
"""Images computed at once, however small they are."""


def slices(feeds: Feeds) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The feeds in slices of a few large or many small images; an empty batch is one empty slice."""
    batch = max((array.shape[0] for array in feeds.values()), default=0)
    elements = sum(array.size for array in feeds.values()) // max(batch, 1)
    size = min(max(ELEMENTS // max(elements, 1), 1), MOST_IMAGES)
    for start in range(0, max(batch, 1), size):
        yield {name: array[start : start + size] for name, array in feeds.items()}


def moves_batch(node: onnx_ir.Node) -> bool:
    """Whether the node may select or move along the first axis, so that a batch cannot be computed in slices."""
    if node.op_type == "Transpose":
        return bool(attribute(node, "perm", (-1,))[0] != 0)
    if node.op_type == "Tile":
        repeats = constant(node.inputs[1])
        return repeats is None or int(repeats[0]) != 1
    if node.op_type == "Gather":
        return _is_first(node, attribute(node, "axis", 0))
    if node.op_type == "Slice":
        given = node.inputs[3] if len(node.inputs) > 3 else None
        axes = constant(given)
        if given is None:  # the first ones, all that there are starts for
            return True
        return axes is None or any(_is_first(node, int(axis)) for axis in axes)
    return False


def _is_first(node: onnx_ir.Node, axis: int) -> bool:
    """Whether the axis is, or may be, the first; a negative one depends on the rank."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis == 0 or (axis < 0 and (shape is None or axis + len(shape) == 0))
