"""Average pool -> depthwise convolution (L6).

Where all windows hold equally many elements, the reciprocal of their number is the weight:

    AveragePool(kernel k x l, strides, pads)(x)   ->   Conv(group=C, weight[C,1,k,l] = 1/(k l), strides, pads)(x)
    GlobalAveragePool(x[N,C,H,W])                 ->   the same with k x l = H x W

Where windows at the borders hold fewer (TensorFlow's SAME divides by the number of *valid* elements), the sum is exact, and the
reciprocals are a map over the positions:

    AveragePool(kernel k x l, strides, pads)(x)   ->   Mul(Conv(group=C, weight[C,1,k,l] = 1, strides, pads)(x), map[1,1,H',W'])

Refused, and left as a float island with the reason: `ceil_mode` (what `ceil-to-pads` left), dilation, unknown channels or size,
windows of more than 258 elements that hold fewer at the borders.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import ROLE_KEY, SOURCE_KEY, add_initializer, add_node, attribute, name_of, replace_value, static_shape
from .flow import RECIPROCAL_ROLE, SUM_ROLE

logger = logging.getLogger(__name__)


_LARGEST_SUM = (1 << 24) // (255 * 255)
"""Elements whose sum, 8 bits each, times a reciprocal of 8 bits stays within 2^24: exact in float32 (X1)."""


def why_not(node: onnx_ir.Node) -> str | None:
    """The reason why an average pool cannot become a depthwise convolution, or None where it can."""
    data = node.inputs[0]
    shape = None if data is None else static_shape(data)
    if shape is None or len(shape) != 4 or any(dim is None for dim in shape[1:]):
        return "its channels, height or width are not known"
    if node.op_type == "GlobalAveragePool":
        return None
    if attribute(node, "ceil_mode", 0):
        return "ceil_mode lets windows leave the input"
    if any(attribute(node, "dilations", (1, 1))[i] != 1 for i in (0, 1)):
        return "it is dilated"
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its padding is not explicit"
    counts = _counts(node, shape[2:], attribute(node, "kernel_shape", ()))
    if counts.min() != counts.max() and counts.max() > _LARGEST_SUM:
        return f"its windows of up to {counts.max()} elements are too large for a sum times a map of reciprocals (X1)"
    return None


@dataclass(frozen=True)
class AveragePoolToDepthwise:
    """Lowers every average pool of known size."""

    name: ClassVar[str] = "average-pool-to-depthwise"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Returns whether any pool was lowered."""
        modified = False
        for node in list(model.graph):
            if node.op_type not in ("AveragePool", "GlobalAveragePool"):
                continue
            reason = why_not(node)
            if reason is not None:
                logger.debug("%s %s stays: %s", node.op_type, node.name, reason)
                continue
            _lower(model.graph, node)
            modified = True
        return modified


def _lower(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    data, output = node.inputs[0], node.outputs[0]
    assert data is not None and data.shape is not None
    channels, height, width = (int(dim) for dim in data.shape[1:])  # type: ignore[arg-type]
    kernel = attribute(node, "kernel_shape", (height, width)) if node.op_type == "AveragePool" else (height, width)
    label = name_of(output)
    source = {key: text for key, text in node.metadata_props.items() if key == SOURCE_KEY}
    counts = _counts(node, (height, width), kernel)
    smallest, largest = int(counts.min()), int(counts.max())
    weight = np.full((channels, 1, *kernel), 1.0 / largest if smallest == largest else 1.0, np.float32)
    suffix, role = ("pooled", RECIPROCAL_ROLE) if smallest == largest else ("sum", SUM_ROLE)
    pooled = add_node(
        graph,
        "Conv",
        [data, add_initializer(graph, f"{label}__{'reciprocal' if smallest == largest else 'ones'}", weight)],
        f"{label}__{suffix}",
        attributes={
            "kernel_shape": list(kernel),
            "strides": list(attribute(node, "strides", (1, 1))),
            "pads": list(attribute(node, "pads", (0, 0, 0, 0))),
            "dilations": [1, 1],
            "group": channels,
        },
        before=node,
        like=output,
        metadata=source | {ROLE_KEY: role},
    )
    if smallest != largest:
        reciprocals = add_initializer(graph, f"{label}__reciprocal", (1.0 / counts).astype(np.float32)[None, None])
        metadata = source | {ROLE_KEY: RECIPROCAL_ROLE}
        pooled = add_node(graph, "Mul", [pooled, reciprocals], f"{label}__pooled", before=node, like=output, metadata=metadata)
    _take_over(graph, node, pooled)


def _counts(node: onnx_ir.Node, sizes: Sequence[int | None], kernel: Sequence[int]) -> npt.NDArray[np.int64]:
    """By how many elements each window of the pool divides: int64 `[H', W']`."""
    if node.op_type == "GlobalAveragePool":
        return np.full((1, 1), int(sizes[0] or 0) * int(sizes[1] or 0), np.int64)
    strides, pads = attribute(node, "strides", (1, 1)), attribute(node, "pads", (0, 0, 0, 0))
    along = []
    for axis, size in enumerate(int(size or 0) for size in sizes):
        starts = np.arange(0, size + pads[axis] + pads[axis + 2] - kernel[axis] + 1, strides[axis]) - pads[axis]
        inside = np.minimum(starts + kernel[axis], size) - np.maximum(starts, 0)
        along.append(np.full_like(starts, kernel[axis]) if attribute(node, "count_include_pad", 0) else inside)
    return np.asarray(np.multiply.outer(*along))


def _take_over(graph: onnx_ir.Graph, node: onnx_ir.Node, new: onnx_ir.Value) -> None:
    """The new value stands for the old node's output under its name (O3)."""
    old = node.outputs[0]
    name = name_of(old)
    was_output = old.is_graph_output()
    replace_value(old, new)
    graph.remove(node, safe=True)
    if not was_output:
        new.name = name
