"""Pools that round their size up get the padding that makes them so.

    y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(x)               x[n,C,6,6]
=>  y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [0, 0, 1, 1]>(x)

    out = ceil((in + pads - reach) / stride) + 1
    end pad = (out - 1) * stride + reach - in - begin pad

A maximum takes no notice of padding. An average that leaves padding out of its count leaves this one out too.

Refused: a height or width that is not fixed, where the size depends on it; an average that counts its padding, which does not
count what lies beyond it; a last window that would begin in the padding behind, which onnxruntime leaves out and the standard's
shape inference does not.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import attribute, static_shape
from .rewriting import refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CeilToPads:
    """Writes `ceil_mode` of MaxPool and AveragePool as padding."""

    name: ClassVar[str] = "ceil-to-pads"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred, pads written out (`explicit-pads`)."""
        return rewrite_each(model.graph, _rewrite, "MaxPool", "AveragePool")


def _rewrite(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    if not attribute(node, "ceil_mode", 0):
        return False
    kernel = attribute(node, "kernel_shape", ())
    ones = (1,) * len(kernel)
    shape = None if node.inputs[0] is None else static_shape(node.inputs[0])
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or shape is None or any(size is None for size in shape[2:]):
        return refuse(logger, node, "its height or width is not fixed")
    pads = list(attribute(node, "pads", (0,) * 2 * len(kernel)))
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    for axis, (taps, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        size, begin, end, reach = int(shape[2 + axis] or 0), pads[axis], pads[axis + len(kernel)], (taps - 1) * dilation + 1
        windows = -(-(size + begin + end - reach) // stride) + 1
        if (windows - 1) * stride >= size + begin:
            return refuse(logger, node, "its last window would begin behind the image")
        missing = (windows - 1) * stride + reach - size - begin
        pads[axis + len(kernel)] = max(end, missing)
    if pads != list(attribute(node, "pads", (0,) * 2 * len(kernel))):
        if node.op_type == "AveragePool" and attribute(node, "count_include_pad", 0):
            return refuse(logger, node, "it counts its padding, but not what lies beyond")
        if any(pad >= taps for pad, taps in zip(pads, kernel * 2, strict=True)):
            return refuse(logger, node, f"pads {pads} are no smaller than the window")
        node.attributes["pads"] = onnx_ir.AttrInt64s("pads", pads)
    del node.attributes["ceil_mode"]
    return True
