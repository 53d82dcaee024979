"""Average pool -> depthwise convolution (L6).

Where all windows hold equally many elements, the reciprocal of their number is the weight:

    AveragePool(kernel k x l, strides, pads)(x)   ->   Conv(group=C, weight[C,1,k,l] = 1/(k l), strides, pads)(x)
    GlobalAveragePool(x[N,C,H,W])                 ->   the same with k x l = H x W

Where windows at the borders hold fewer (TensorFlow's SAME divides by the number of *valid* elements), the sum is exact, and the
reciprocals are a map over the positions:

    AveragePool(kernel k x l, strides, pads)(x)   ->   Mul(Conv(group=C, weight[C,1,k,l] = 1, strides, pads)(x), map[1,1,H',W'])

Refused, and left as a float island with the reason: `ceil_mode` (what `ceil-to-pads` left), unknown channels or size, images
too large to be looked at, windows of more than 258 elements that hold fewer at the borders.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import MOST_ELEMENTS, ROLE_KEY, SOURCE_KEY, add_initializer, add_node, attribute, name_of, static_shape
from .node_roles import RECIPROCAL_ROLE, SUM_ROLE
from .rewriting import drop, take_over

logger = logging.getLogger(__name__)

Counts = npt.NDArray[np.int64]

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
        if attribute(node, "count_include_pad", 0):
            return "ceil_mode lets windows leave the padding, which it counts, while it does not count what lies beyond"
        return "ceil_mode lets windows leave the input"
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its padding is not explicit"
    if max(int(size or 0) for size in shape[2:]) > MOST_ELEMENTS:
        return f"its input has more than {MOST_ELEMENTS} rows or columns"
    rows, columns = _counts(node, shape[2:])
    if not rows.size or not columns.size:
        return "no window fits into its input"
    if rows.min() < 1 or columns.min() < 1:
        return "a window holds nothing but padding"
    largest = int(rows.max() * columns.max())
    if rows.min() == rows.max() and columns.min() == columns.max():
        return None
    if largest > _LARGEST_SUM:
        return f"its windows of up to {largest} elements are too large for a sum times a map of reciprocals (X1)"
    if rows.size * columns.size > MOST_ELEMENTS:
        return f"its map of {rows.size}x{columns.size} reciprocals is too large; at most {MOST_ELEMENTS} are made"
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
    counts = np.multiply.outer(*_counts(node, (height, width)))
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
            "dilations": list(attribute(node, "dilations", (1, 1))),
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
    take_over(output, pooled)
    drop(node)


def _counts(node: onnx_ir.Node, sizes: Sequence[int | None]) -> tuple[Counts, Counts]:
    """How many rows and how many columns each window of the pool divides by: int64 `[H']` and `[W']`, to be multiplied."""
    height, width = (int(size or 0) for size in sizes)
    if node.op_type == "GlobalAveragePool":
        return np.asarray([height]), np.asarray([width])
    return _along(node, 0, height), _along(node, 1, width)


def _along(node: onnx_ir.Node, axis: int, size: int) -> Counts:
    taps = int(attribute(node, "kernel_shape", ())[axis])
    pads, dilation = attribute(node, "pads", (0, 0, 0, 0)), attribute(node, "dilations", (1, 1))[axis]
    room = size + pads[axis] + pads[axis + 2] - (taps - 1) * dilation
    starts = np.arange(0, room, attribute(node, "strides", (1, 1))[axis]) - pads[axis]
    if attribute(node, "count_include_pad", 0):
        return np.full_like(starts, taps)
    first = np.maximum(-(starts // dilation), 0)  # taps in front of the image, and those up to its end
    last = np.minimum((size - 1 - starts) // dilation + 1, taps)
    return np.asarray(last - first)
