"""Everything a convolution or pooling leaves to defaults is written out.

    y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)                              x[n,C,8,8], w[K,C,3,3]
=>  y = Conv<kernel_shape = [3, 3], strides = [2, 2], dilations = [1, 1], pads = [0, 0, 1, 1], group = 1>(x, w)

    out = ceil(in / stride)      total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - in, 0)
    SAME_UPPER: begin = floor(total / 2), end = the rest.     SAME_LOWER: the other way round.     VALID: zeros.

Conv, MaxPool, AveragePool. With stride 1 `total` does not depend on the input's size. An AveragePool that is not dilated
says nothing of dilations: onnxruntime 1.31 hands the attribute on to its QLinearAveragePool, which does not know it, and
then does not load the model.

Refused: SAME with a stride above 1 on a spatial dimension that is not fixed: the pads are then not constants.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir

from ..ir import attribute, constant, static_shape
from .rewriting import refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExplicitPads:
    """Writes kernel_shape, strides, dilations, pads and group explicitly; removes auto_pad."""

    name: ClassVar[str] = "explicit-pads"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place. Shapes must have been inferred for SAME with strides."""
        return rewrite_each(model.graph, _write_out, "Conv", "MaxPool", "AveragePool")


def _write_out(_: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    kernel = attribute(node, "kernel_shape", None)
    if kernel is None:
        weight = None if len(node.inputs) < 2 or node.inputs[1] is None else static_shape(node.inputs[1])
        array = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        kernel = array.shape[2:] if array is not None else None if weight is None else weight[2:]
    if kernel is None or any(size is None for size in kernel):
        return refuse(logger, node, "its kernel size is not known")
    ones = (1,) * len(kernel)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    mode = attribute(node, "auto_pad", "NOTSET")
    pads = _pads(node, mode, kernel, strides, dilations)
    if pads is None:
        return refuse(logger, node, f"auto_pad {mode} with strides {strides} needs fixed spatial dimensions")
    wanted = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    if node.op_type == "Conv":
        wanted["group"] = attribute(node, "group", 1)
    modified = node.attributes.pop("auto_pad", None) is not None
    if node.op_type == "AveragePool" and wanted["dilations"] == ones:
        del wanted["dilations"]
        modified |= node.attributes.pop("dilations", None) is not None
    for name, value in wanted.items():
        if name not in node.attributes:
            modified = True
        if attribute(node, name, None) != value:
            plain = value if isinstance(value, int) else list(value)
            node.attributes[name] = onnx_ir.AttrInt64(name, plain) if isinstance(plain, int) else onnx_ir.AttrInt64s(name, plain)
            modified = True
    return modified


def _pads(
    node: onnx_ir.Node, mode: str, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[int, ...] | None:
    """All begins, then all ends, as ONNX orders them; None where they depend on an unknown size."""
    if mode == "NOTSET":
        return tuple(attribute(node, "pads", (0,) * (2 * len(kernel))))
    if mode == "VALID":
        return (0,) * (2 * len(kernel))
    shape = None if node.inputs[0] is None else static_shape(node.inputs[0])
    sizes = (None,) * len(kernel) if shape is None else shape[2:]
    begins, ends = [], []
    for size, extent, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (extent - 1) * dilation + 1
        if stride == 1:
            total = reach - 1
        elif size is None:
            return None
        else:
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return (*begins, *ends)
