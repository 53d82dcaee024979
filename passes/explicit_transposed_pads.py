"""Everything a transposed convolution leaves to defaults is written out, above all what is cut off its output.

    y = ConvTranspose<strides = [2, 2], output_shape = [8, 8]>(x, w)                      x[n,C,4,4], w[C,K,3,3]
=>  y = ConvTranspose<kernel_shape = [3, 3], strides = [2, 2], dilations = [1, 1], pads = [1, 1, 0, 0], group = 1>(x, w)

    total = (in - 1) * stride + (kernel - 1) * dilation + 1 + output_padding - out
    SAME_UPPER: begin = floor(total / 2), end = the rest.     Otherwise: the other way round.

`out` is `output_shape`, or `in * stride` with SAME padding. `output_padding` stays only where something is left of it behind the
cut: `pads = [1, 1, 1, 1], output_padding = [1, 1]` is `pads = [1, 1, 0, 0]`.

Refused: unknown height or width where the pads depend on them; an output that is larger than kernel and `output_padding` reach;
SAME padding where `in * stride` is (the standard and onnxruntime disagree).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import attribute, constant, static_shape
from .rewriting import refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExplicitTransposedPads:
    """Writes kernel_shape, strides, dilations, pads and group of ConvTranspose explicitly; removes auto_pad and output_shape."""

    name: ClassVar[str] = "explicit-transposed-pads"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred for SAME and `output_shape`."""
        return rewrite_each(model.graph, _write_out, "ConvTranspose")


def _write_out(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    weight = constant(node.inputs[1])
    shape = weight.shape if weight is not None else None if node.inputs[1] is None else static_shape(node.inputs[1])
    kernel = attribute(node, "kernel_shape", None if shape is None else shape[2:])
    if kernel is None or any(size is None for size in kernel):
        return refuse(logger, node, "its kernel size is not known")
    ones = (1,) * len(kernel)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    beyond = list(attribute(node, "output_padding", (0,) * len(kernel)))
    pads = _pads(node, kernel, strides, dilations, beyond)
    if pads is None:
        return refuse(logger, node, "its pads depend on a height or width that is not fixed, or SAME asks for more than it reaches")
    for axis, end in enumerate(range(len(kernel), 2 * len(kernel))):
        if pads[axis] < 0 or (pads[end] < 0 and beyond[axis] - pads[end] >= max(strides[axis], dilations[axis])):
            return refuse(logger, node, f"it is to be larger than its kernel reaches: pads {pads}")
        common = min(pads[end], beyond[axis])  # negative: zeros that output_padding adds
        pads[end], beyond[axis] = pads[end] - common, beyond[axis] - common
    wanted: dict[str, list[int]] = {
        "kernel_shape": list(kernel),
        "strides": list(strides),
        "dilations": list(dilations),
        "pads": pads,
    }
    if any(beyond):
        wanted["output_padding"] = beyond
    stale = [name for name in ("auto_pad", "output_shape", "output_padding") if name in node.attributes and name not in wanted]
    for name in stale:
        del node.attributes[name]
    modified = bool(stale)
    for name, value in wanted.items():
        if name not in node.attributes or list(attribute(node, name, ())) != value:
            node.attributes[name] = onnx_ir.AttrInt64s(name, value)
            modified = True
    if "group" not in node.attributes:
        node.attributes["group"] = onnx_ir.AttrInt64("group", 1)
        modified = True
    return modified


def _pads(
    node: onnx_ir.Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], beyond: Sequence[int]
) -> list[int] | None:
    """All begins, then all ends; None where they depend on an unknown size."""
    mode, wanted = attribute(node, "auto_pad", "NOTSET"), attribute(node, "output_shape", None)
    if wanted is None and mode in ("NOTSET", "VALID"):
        return list(attribute(node, "pads", (0,) * (2 * len(kernel)))) if mode == "NOTSET" else [0] * (2 * len(kernel))
    shape = None if node.inputs[0] is None else static_shape(node.inputs[0])
    begins, ends = [], []
    for axis, (extent, stride, dilation, more) in enumerate(zip(kernel, strides, dilations, beyond, strict=True)):
        size = None if shape is None else shape[2 + axis]
        if size is None:
            return None
        target = size * stride if wanted is None else wanted[len(wanted) - len(kernel) + axis]
        total = (size - 1) * stride + (extent - 1) * dilation + 1 + more - target
        if total < 0 and wanted is None:
            return None  # the standard asks for zeros behind, onnxruntime 1.31 gives a smaller image
        small, large = (total // 2, total - total // 2) if total > 0 else (0, total)
        begins.append(small if mode == "SAME_UPPER" or total <= 0 else large)
        ends.append(large if mode == "SAME_UPPER" or total <= 0 else small)
    return [*begins, *ends]
