"""Constant nodes become initializers.

    c = Constant<value = {2.0}>()
    y = Mul(x, c)                    =>     <float[1] c = {2.0}>  y = Mul(x, c)

The value keeps its name. Refused: a Constant that is itself a graph output (an initializer may not be one everywhere),
and strings or sparse tensors.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ..ir import name_of, own_tensor
from .rewriting import drop, refuse, rewrite_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiftConstants:
    """Turns Constant nodes into initializers."""

    name: ClassVar[str] = "lift-constants"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites the main graph in place."""
        return rewrite_each(model.graph, _lift, "Constant")


def _lift(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    old = node.outputs[0]
    if old.is_graph_output():
        return refuse(logger, node, "it is a graph output (O3)")
    tensor = _tensor(node)
    if tensor is None:
        return refuse(logger, node, f"no plain tensor in its attributes: {', '.join(node.attributes)}")
    name = name_of(old)
    value = onnx_ir.Value(
        name=name,
        shape=onnx_ir.Shape(tensor.shape.numpy()),
        type=onnx_ir.TensorType(tensor.dtype),
        const_value=own_tensor(tensor, name),
    )
    old.replace_all_uses_with(value)
    drop(node)
    graph.register_initializer(value)
    return True


def _tensor(node: onnx_ir.Node) -> onnx_ir.TensorProtocol | None:
    attributes = node.attributes
    if "value" in attributes:
        return attributes["value"].as_tensor()
    if "value_float" in attributes:
        return onnx_ir.tensor(np.float32(attributes["value_float"].as_float()))
    if "value_floats" in attributes:
        return onnx_ir.tensor(np.asarray(attributes["value_floats"].as_floats(), np.float32))
    if "value_int" in attributes:
        return onnx_ir.tensor(np.int64(attributes["value_int"].as_int()))
    if "value_ints" in attributes:
        return onnx_ir.tensor(np.asarray(attributes["value_ints"].as_ints(), np.int64))
    return None
