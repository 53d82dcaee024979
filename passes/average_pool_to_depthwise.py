"""Average pool -> depthwise convolution with the reciprocal as its weight (L6).

    AveragePool(kernel k x l, strides, pads)(x)   ->   Conv(group=C, weight[C,1,k,l] = 1/(k l), strides, pads)(x)
    GlobalAveragePool(x[N,C,H,W])                 ->   the same with k x l = H x W

Refused, and left as a float island with the reason: a padded pool that divides by the number of *valid* elements at the
borders (TensorFlow's SAME), which no constant weight expresses; `ceil_mode`; unknown channels or size.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import ROLE_KEY, SOURCE_KEY, add_initializer, add_node, attribute, name_of, replace_value, static_shape
from .flow import RECIPROCAL_ROLE

logger = logging.getLogger(__name__)


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
    if any(attribute(node, "pads", (0, 0, 0, 0))) and not attribute(node, "count_include_pad", 0):
        return "padded windows divide by fewer elements at the borders"
    return None


@dataclass(frozen=True)
class AveragePoolToDepthwise:
    """Lowers every average pool whose windows all have the same size."""

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
    strides = attribute(node, "strides", (1, 1))
    pads = attribute(node, "pads", (0, 0, 0, 0))
    label = name_of(output)
    reciprocal = np.full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1]), np.float32)
    metadata = {ROLE_KEY: RECIPROCAL_ROLE}
    if SOURCE_KEY in node.metadata_props:
        metadata[SOURCE_KEY] = node.metadata_props[SOURCE_KEY]
    pooled = add_node(
        graph,
        "Conv",
        [data, add_initializer(graph, f"{label}__reciprocal", reciprocal)],
        f"{label}__pooled",
        attributes={
            "kernel_shape": list(kernel),
            "strides": list(strides),
            "pads": list(pads),
            "dilations": [1, 1],
            "group": channels,
        },
        before=node,
        like=output,
        metadata=metadata,
    )
    _take_over(graph, node, pooled)


def _take_over(graph: onnx_ir.Graph, node: onnx_ir.Node, new: onnx_ir.Value) -> None:
    """The new value stands for the old node's output under its name (O3)."""
    old = node.outputs[0]
    name = name_of(old)
    was_output = old.is_graph_output()
    replace_value(old, new)
    graph.remove(node, safe=True)
    if not was_output:
        new.name = name
