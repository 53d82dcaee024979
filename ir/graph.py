"""Read-only questions about a graph that several rooms ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from .errors import ModelError

if TYPE_CHECKING:
    import onnx_ir

ROLE_KEY = "tqt_onnx.role"
"""Node metadata: why a lowered node exists (`input`, `rescale`, `reciprocal`)."""

SOURCE_KEY = "tqt_onnx.source"
"""Node metadata: name of the TensorFlow node it came from (O4)."""

PASS_THROUGH: frozenset[str] = frozenset(
    {
        "MaxPool",
        "Pad",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Gather",
        "SpaceToDepth",
        "DepthToSpace",
        "Resize",
        "Tile",
        "Identity",
        "Dropout",
    }
)
"""Operators that only move or select elements: the output carries the scale of the first input (L7)."""

COMPUTE: frozenset[str] = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that multiply by weights and accumulate."""


LAYER_KEY = "tqt_onnx.layer"
"""Node metadata of a compute layer: the TensorFlow node that multiplies, where `SOURCE_KEY` names the last one folded into it."""


def constant(value: onnx_ir.Value | None) -> npt.NDArray[Any] | None:
    """The array behind an initializer or a Constant node, else None; `None` inputs give None."""
    if value is None:
        return None
    if value.const_value is not None and not value.is_graph_input():
        return value.const_value.numpy()
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return producer.attributes["value"].as_tensor().numpy()
    return None


def fed_inputs(graph: onnx_ir.Graph) -> list[onnx_ir.Value]:
    """The graph inputs that must be fed: those that are no initializers."""
    return [value for value in graph.inputs if not value.is_initializer()]


def consumers(value: onnx_ir.Value) -> list[onnx_ir.Node]:
    """Distinct nodes that read `value`, in the order of its uses."""
    return list(dict.fromkeys(node for node, _ in value.uses()))


def only_consumer(value: onnx_ir.Value) -> onnx_ir.Node | None:
    """The one node that reads `value`, or None where there are none or several, or the value leaves the graph."""
    readers = consumers(value)
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def is_forked(value: onnx_ir.Value) -> bool:
    """Whether more than one party sees the value: several nodes, or a node and the outside."""
    return len(consumers(value)) + int(value.is_graph_output()) > 1


def static_shape(value: onnx_ir.Value) -> tuple[int | None, ...] | None:
    """The shape with None for dimensions that are not fixed, or None where even the rank is unknown."""
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def compute_nodes(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Node]:
    """Nodes of `COMPUTE` whose second input is constant, directly or behind DequantizeLinear, in graph order."""
    for node in graph:
        if node.op_type in COMPUTE and node.domain == "" and len(node.inputs) > 1:
            weight = node.inputs[1]
            producer = None if weight is None else weight.producer()
            behind = producer.inputs[0] if producer is not None and producer.op_type == "DequantizeLinear" else weight
            if constant(behind) is not None:
                yield node


def attribute(node: onnx_ir.Node, name: str, default: Any) -> Any:
    """Value of an attribute as a plain Python object (lists as tuples), or the default where it is absent."""
    found = node.attributes.get(name)
    if found is None or found.value is None:
        return default
    return tuple(found.value) if isinstance(found.value, (list, tuple)) else found.value


def name_of(value: onnx_ir.Value | None) -> str:
    """The name of a value that must have one.

    Raises:
        ModelError: the value is absent or nameless.
    """
    if value is None or not value.name:
        raise ModelError("the graph holds a value without a name where one is needed")
    return value.name
