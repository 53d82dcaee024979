"""What a Resize asks for, read off its attributes and inputs: which lengths, by which coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import MOST_ELEMENTS, attribute, constant, static_shape
from .known_dims import Dims, known_dims
from .rewriting import is_op

Float32 = npt.NDArray[np.float32]

REPETITION: Final = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
"""Attributes of the one form in which a Resize repeats elements: TensorFlow's `i // factor`."""


@dataclass(frozen=True)
class Side:
    """One axis that changes its length.

    Attributes:
        axis: counted from the front.
        length: before.
        resized: behind.
        scale: the factor the coordinates are computed with.
    """

    axis: int
    length: int
    resized: int
    scale: np.float32

    @property
    def factor(self) -> int | None:
        """The whole number of times it becomes longer, None where there is none."""
        whole = self.length > 0 and self.resized % self.length == 0 and self.scale == self.resized // self.length
        return self.resized // self.length if whole else None


def sides_of(node: onnx_ir.Node, known: dict[onnx_ir.Value, Dims | None] | None = None) -> list[Side] | None:
    """The axes of known length that a Resize changes; None where that is not known beforehand (`why_no_sides`).

    Args:
        node: any node.
        known: answers of `known_dims`, where targets computed from shapes are to be understood.
    """
    return None if why_no_sides(node, known) is not None else _sides(node, known if known is not None else {})


def why_no_sides(node: onnx_ir.Node, known: dict[onnx_ir.Value, Dims | None] | None = None) -> str | None:
    """The reason why nothing is known about a Resize, where it is another one than sizes or scales that are computed."""
    if not is_op(node, "Resize"):
        return "it is no Resize"
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch" and len(node.inputs) > 3 and node.inputs[3] is not None:
        return f"it keeps the proportions of its input (keep_aspect_ratio_policy {policy!r}), not the sizes it is given"
    sides = _sides(node, known if known is not None else {})
    largest = max((side.resized for side in sides or ()), default=0)
    return f"it makes an axis of {largest} elements; at most {MOST_ELEMENTS} are looked at" if largest > MOST_ELEMENTS else None


def _sides(node: onnx_ir.Node, known: dict[onnx_ir.Value, Dims | None]) -> list[Side] | None:
    data = node.inputs[0]
    shape = None if data is None else static_shape(data)
    if data is None or data.shape is None or shape is None:
        return None
    axes = [axis % len(shape) for axis in attribute(node, "axes", range(len(shape)))]
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    sizes = known_dims(node.inputs[3], known) if len(node.inputs) > 3 else None
    if sizes is not None and sizes.size == len(axes):
        return _by_sizes(shape, list(data.shape), axes, sizes)
    if scales is None or scales.size != len(axes):
        return None
    found = []
    for axis, scale in zip(axes, scales.astype(np.float32), strict=True):
        length = shape[axis]
        if scale == 1:
            continue
        if length is None:
            return None
        found.append(Side(axis, length, int(length * float(scale)), scale))  # as shape inference has it
    return found


def _by_sizes(
    shape: tuple[int | None, ...], names: list[int | onnx_ir.SymbolicDim], axes: list[int], sizes: Dims
) -> list[Side] | None:
    found = []
    for axis, resized in zip(axes, sizes, strict=True):
        length, name = shape[axis], names[axis]
        if resized is not None and resized == (name.value if isinstance(name, onnx_ir.SymbolicDim) else length):
            continue
        if length is None or not isinstance(resized, int):
            return None
        found.append(Side(axis, length, resized, np.float32(resized) / np.float32(length)))
    return found


def coordinates(node: onnx_ir.Node, side: Side) -> Float32 | None:
    """Where in the input each element of the output lies along one axis, float32 [resized]; None for a crop or an unknown mode.

    Computed in float32 by the formulas of the standard, as onnxruntime does.
    """
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    x, half = np.arange(side.resized, dtype=np.float32), np.float32(0.5)
    match mode:
        case "asymmetric":
            return x / side.scale
        case "tf_half_pixel_for_nn":
            return (x + half) / side.scale
        case "half_pixel":
            return (x + half) / side.scale - half
        case "pytorch_half_pixel":
            return (x + half) / side.scale - half if side.resized > 1 else np.zeros_like(x)
        case "align_corners":
            return np.zeros_like(x) if side.resized == 1 else x * np.float32(side.length - 1) / np.float32(side.resized - 1)
    return None


def nearest(node: onnx_ir.Node, side: Side) -> npt.NDArray[np.int64] | None:
    """Which element of the input each element of the output is, int64 [resized]; None for an unknown mode."""
    x = coordinates(node, side)
    if x is None:
        return None
    below = np.floor(x)
    match attribute(node, "nearest_mode", "round_prefer_floor"):
        case "floor":
            chosen = below
        case "ceil":
            chosen = np.ceil(x)
        case "round_prefer_floor":
            chosen = np.ceil(x - np.float32(0.5))
        case "round_prefer_ceil":
            chosen = np.floor(x + np.float32(0.5))
        case _:
            return None
    return np.clip(chosen, 0, side.length - 1).astype(np.int64)


def repeats_whole(node: onnx_ir.Node) -> bool:
    """Whether a Resize is in the plain form: every element of an image a whole number of times (`plain-resizes`)."""
    if not is_op(node, "Resize") or attribute(node, "mode", "nearest") != "nearest" or len(node.inputs) != 3:
        return False
    scales = constant(node.inputs[2])
    if any(attribute(node, key, "") != value for key, value in REPETITION.items() if key != "mode"):
        return False
    if scales is None or attribute(node, "axes", None) is not None:
        return False
    return scales.size == 4 and bool((scales >= 1).all() and (scales == np.floor(scales)).all() and (scales[:2] == 1).all())
