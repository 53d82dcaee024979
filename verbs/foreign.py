"""Models that are not ours to understand: integers of another tool, foreign operators. They are listed, never rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx
import onnx_ir

from ..ir import name_of, static_shape
from .cost import multiply_accumulates, parameters
from .inspection import Layer

QUANTIZED: Final = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)
"""Operators that only a quantized model has."""


def with_shapes(model: onnx_ir.Model) -> onnx_ir.Model:
    """The model with the shapes that ONNX can infer; unknown operators have none."""
    proto = onnx_ir.serde.serialize_model(model)
    try:
        return onnx_ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    except (onnx.shape_inference.InferenceError, ValueError):  # contradicting shapes, more than 2 GB: fewer columns, no error
        return model


def is_quantized_elsewhere(model: onnx_ir.Model) -> bool:
    """Whether a model without our metadata holds integers."""
    return any(node.op_type in QUANTIZED for node in model.graph)


def listing(model: onnx_ir.Model) -> Iterator[Layer]:
    """One row for each node that is no Constant."""
    for node in model.graph:
        if node.op_type != "Constant":
            output = node.outputs[0]
            name = node.name or name_of(output)
            yield Layer(
                name=name,
                node=name,
                nodes=(name,),
                op_type=node.op_type,
                source="",
                topology=f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type,
                value=name_of(output),
                shape=static_shape(output),
                parameters=sum(parameters([node]).values()),
                macs=multiply_accumulates(node),
            )
