"""Bilinear enlargement by whole factors -> repetition and a depthwise convolution with constant weights (L6).

    r = Resize<nearest>(x, by 2), p = Pad<edge>(r, 1 all round), y = Conv<group = C>(p, [1,2,1]/4 along each axis)

            instead of      y = Resize<linear, half_pixel>(x, by 2)

    r = Resize<nearest>(x, by 2), p = Pad<edge>(r, 1 behind), y = Conv<group = C>(p, [1,1]/2 along each axis)

            instead of      y = Resize<linear, asymmetric>(x, by 2)

    r = Resize<nearest>(x, by 2), y = Conv<group = C>(r, [1,1]/2 along each axis)

            instead of      y = Resize<linear, align_corners>(x[n,C,H,W], to {n,C,2H-1,2W-1})

Repeated k times, a window of k neighbours holds j copies of one element and k - j of the next: its mean is the interpolation
between the two, with j growing from window to window. So the weights of TensorFlow's three kinds of coordinates are

    asymmetric (legacy)     k ones over k, the windows beginning at their element; the last element is repeated
    half pixels             the same, centred: for even k the mean of both centred windows, [1/2, 1, ..., 1, 1/2] over k
    corners aligned         k ones over k and nothing repeated: to k (n - 1) + 1 elements

Made shorter by an even factor with half pixels, every element is the mean of the two in the middle of its window, and the
convolution takes steps of that factor.

For powers of two the weights are powers of two, exact in 8 bits (Q7), and the one rounding is that of the result; for other
factors the quantized 1/k is that of an average pool. They carry the role of a reciprocal: no retraining moves them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import MOST_ELEMENTS, ROLE_KEY, SOURCE_KEY, add_initializer, add_node, attribute, name_of, static_shape
from .node_roles import RECIPROCAL_ROLE
from .resizes import REPETITION, Side, sides_of, why_no_sides
from .rewriting import drop, take_over

logger = logging.getLogger(__name__)

_MOST_TAPS = (1 << 31) // (255 * 255)
"""Products of 8 bits whose sum stays within 32 bits, the accumulators of hardware."""

_KINDS = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")


@dataclass(frozen=True)
class _Axis:
    """What one axis needs: how often each element is repeated, the edge put in front and behind, the kernel and its step."""

    factor: int
    front: int
    back: int
    kernel: npt.NDArray[np.float64]
    stride: int = 1


_UNCHANGED = _Axis(1, 0, 0, np.ones(1))


@dataclass(frozen=True)
class BilinearToDepthwise:
    """Lowers every bilinear Resize of images by whole factors."""

    name: ClassVar[str] = "bilinear-to-depthwise"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Returns whether any Resize was lowered. Shapes must have been inferred."""
        modified = False
        for node in [node for node in model.graph if node.op_type == "Resize" and node.domain == ""]:
            reason = why_not(node)
            if reason is not None:
                logger.debug("Resize %s stays: %s", node.name, reason)
                continue
            _lower(model.graph, node)
            modified = True
        return modified


def why_not(node: onnx_ir.Node) -> str | None:
    """The reason why a Resize cannot become a depthwise convolution, or None where it can."""
    mode = attribute(node, "mode", "nearest")
    if mode != "linear":
        return f"mode {mode!r} has no fixed-point form here" if mode != "nearest" else "it only moves elements"
    if attribute(node, "antialias", 0):
        return "its window grows with the step (antialias)"
    shape = None if node.inputs[0] is None else static_shape(node.inputs[0])
    if shape is None or len(shape) != 4 or None in shape[1:]:
        return "its channels, height or width are not known"
    sides = sides_of(node)
    if sides is None:
        return why_no_sides(node) or "what it resizes by is computed"
    kind = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if kind not in _KINDS:
        return f"its coordinates are {kind!r}"
    for side in sides:
        if side.axis < 2:
            return "it resizes batch or channels"
        if _factor(side, kind) is None and _shrinks_by(side, kind) is None:
            what = "does not take corners to corners in whole steps" if kind == "align_corners" else "is not by a whole factor"
            return f"bilinear from {side.length} to {side.resized} {what}"
    taps = math.prod(_taps(side, kind) for side in sides)
    if taps > _MOST_TAPS or taps * int(shape[1] or 0) > MOST_ELEMENTS:
        return f"its windows of {taps} elements are too many: a sum of products of 8 bits has 32 bits, {_MOST_TAPS} of them"
    return None


def _taps(side: Side, kind: str) -> int:
    """At most how many elements the window has along one axis."""
    if side.length == 1:
        return 1
    return (_shrinks_by(side, kind) or _factor(side, kind) or 1) + 1


def _factor(side: Side, kind: str) -> int | None:
    """By how much an axis grows, None where not by a whole number."""
    if kind != "align_corners":
        return side.factor
    if side.resized <= 1:
        return None
    if side.length == 1:
        return side.resized
    factor, rest = divmod(side.resized - 1, max(side.length - 1, 1))
    return factor if rest == 0 and factor > 0 else None


def _shrinks_by(side: Side, kind: str) -> int | None:
    """The even number of elements of which the two in the middle are averaged, None where it is something else."""
    step = side.length // max(side.resized, 1)
    shrinks = "half_pixel" in kind and side.resized * step == side.length and step % 2 == 0 and side.resized > 1
    return step if shrinks and side.scale * step == 1 else None


def _axis(side: Side, kind: str) -> _Axis:
    step = _shrinks_by(side, kind)
    if step is not None:
        return _Axis(1, 0, 0, np.asarray([0.5 if tap in (step // 2 - 1, step // 2) else 0.0 for tap in range(step)]), step)
    factor = _factor(side, kind)
    assert factor is not None
    if side.length == 1:
        return _Axis(factor, 0, 0, np.ones(1))  # one element between which nothing lies
    box = np.full(factor, 1.0 / factor)
    if kind == "asymmetric":
        return _Axis(factor, 0, factor - 1, box)
    if kind == "align_corners":
        return _Axis(factor, 0, 0, box)
    centred = box if factor % 2 else np.convolve(box, [0.5, 0.5])
    return _Axis(factor, len(centred) // 2, len(centred) // 2, centred)


def _lower(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    data, output = node.inputs[0], node.outputs[0]
    kind = attribute(node, "coordinate_transformation_mode", "half_pixel")
    sides = {side.axis: _axis(side, kind) for side in sides_of(node) or ()}
    assert data is not None and data.shape is not None
    channels, name = int(data.shape[1]), name_of(output)  # type: ignore[arg-type]
    high, wide = (sides.get(axis, _UNCHANGED) for axis in (2, 3))
    source = {SOURCE_KEY: node.metadata_props[SOURCE_KEY]} if SOURCE_KEY in node.metadata_props else {}
    value, lengths = data, [int(data.shape[axis]) * side.factor for axis, side in ((2, high), (3, wide))]  # type: ignore[arg-type]
    if high.factor * wide.factor > 1:
        scales = add_initializer(graph, f"{name}__scales", np.asarray([1, 1, high.factor, wide.factor], np.float32))
        value = add_node(
            graph, "Resize", [data, None, scales], f"{name}__repeated", attributes=REPETITION, before=node, metadata=source
        )
        value.type, value.shape = data.type, onnx_ir.Shape([data.shape[0], channels, *lengths])
    pads = [0, 0, high.front, wide.front, 0, 0, high.back, wide.back]
    if any(pads):
        amounts = add_initializer(graph, f"{name}__edges", np.asarray(pads, np.int64))
        value = add_node(
            graph, "Pad", [value, amounts], f"{name}__edged", attributes={"mode": "edge"}, before=node, metadata=source
        )
        padded = [length + side.front + side.back for length, side in zip(lengths, (high, wide), strict=True)]
        value.type, value.shape = data.type, onnx_ir.Shape([data.shape[0], channels, *padded])
    kernel = np.multiply.outer(high.kernel, wide.kernel)
    weights = add_initializer(graph, f"{name}__weights", np.broadcast_to(kernel, (channels, 1, *kernel.shape)).astype(np.float32))
    convolved = add_node(
        graph,
        "Conv",
        [value, weights],
        f"{name}__interpolated",
        attributes={
            "kernel_shape": list(kernel.shape),
            "strides": [high.stride, wide.stride],
            "pads": [0, 0, 0, 0],
            "dilations": [1, 1],
            "group": channels,
        },
        before=node,
        like=output,
        metadata={ROLE_KEY: RECIPROCAL_ROLE} | source,
    )
    take_over(output, convolved)
    drop(node)
