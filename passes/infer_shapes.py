"""Shape inference that raises.

    X[n,32,32,3] -> Transpose -> t            X[n,32,32,3] -> Transpose -> t[n,3,32,32]
    t, W[16,3,3,3] -> Conv -> y        =>     t, W[16,3,3,3] -> Conv -> y[n,16,30,30]

Every value of the main graph gets the element type and shape that ONNX's own strict inference finds. Declared shapes of
graph inputs and outputs are the user's (O3): an output's declared dimension is only ever made more precise, and never
in its first place, so that the batch stays dynamic. onnx_ir's own pass swallows errors, which is why it is not used.

Large initializers are handed over as typed inputs without their data: inference reads the *values* of shapes, axes and
pads only.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_ir

from ..ir import ModelError, name_of

logger = logging.getLogger(__name__)

_DATA_LIMIT = 1024
"""Initializers of at most this many elements take their data along; shapes, axes and pads are far smaller."""


@dataclass(frozen=True)
class InferShapes:
    """Gives every value its element type and shape."""

    name: ClassVar[str] = "infer-shapes"

    def apply(self, model: onnx_ir.Model) -> bool:
        """Rewrites types and shapes of values in place.

        Raises:
            ModelError: the shapes or types of the model contradict each other; the message is onnx's.
        """
        try:
            inferred = onnx.shape_inference.infer_shapes(_without_data(model), check_type=True, strict_mode=True, data_prop=True)
        except Exception as error:  # onnx raises InferenceError, ValueError and RuntimeError here
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise ModelError(f"shape inference fails: {' '.join(lines)[:300]}") from error
        found = {info.name: onnx_ir.serde.deserialize_value_info_proto(info, None) for info in inferred.graph.value_info}
        found |= {info.name: onnx_ir.serde.deserialize_value_info_proto(info, None) for info in inferred.graph.output}
        modified = False
        for node in model.graph:
            for value in node.outputs:
                known = found.get(value.name or "")
                if known is not None:
                    modified |= _copy(known, value)
        return modified


def _without_data(model: onnx_ir.Model) -> onnx.ModelProto:
    """The main graph as a proto whose intermediate values are bare and whose large initializers are typed inputs."""
    serde = onnx_ir.serde
    graph = model.graph
    proto = onnx.GraphProto(name=graph.name or "graph")
    proto.node.extend(serde.serialize_node(node) for node in graph)
    proto.input.extend(serde.serialize_value(value) for value in graph.inputs)
    proto.output.extend(serde.serialize_value(value) for value in graph.outputs)
    inputs = {value.name for value in graph.inputs}
    for value in graph.initializers.values():
        if value.const_value is None:
            raise ModelError(f"initializer {value.name!r} has no data")
        if value.const_value.size <= _DATA_LIMIT:
            tensor = serde.serialize_tensor(value.const_value)
            tensor.name = name_of(value)  # a tensor shared with another model may be called as there
            proto.initializer.append(tensor)
        elif value.name not in inputs:
            proto.input.append(
                onnx.helper.make_tensor_value_info(name_of(value), value.const_value.dtype, list(value.const_value.shape.numpy()))
            )
    # Inference knows nothing about operators of other domains: what is recorded about their outputs is kept.
    proto.value_info.extend(
        serde.serialize_value(value)
        for node in graph
        if node.domain not in ("", "ai.onnx")
        for value in node.outputs
        if value.name and value.type is not None and not value.is_graph_output()
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    functions = [serde.serialize_function(function) for function in model.functions.values()]
    return onnx.helper.make_model(proto, opset_imports=opsets, functions=functions, ir_version=model.ir_version)


def _copy(known: onnx_ir.Value, value: onnx_ir.Value) -> bool:
    """Takes over type and shape; a graph output keeps what it declares and only gains fixed inner dimensions."""
    modified = False
    if known.type is not None and value.type != known.type:
        value.type = known.type
        modified = True
    if known.shape is None:
        return modified
    shape = known.shape
    if value.is_graph_output() and value.shape is not None and len(value.shape) == len(shape):
        shape = onnx_ir.Shape(
            [
                new if isinstance(new, int) and axis > 0 else old
                for axis, (old, new) in enumerate(zip(value.shape, shape, strict=True))
            ]
        )
    if not _same(value.shape, shape):
        value.shape = shape
        modified = True
    return modified


def _same(old: onnx_ir.Shape | None, new: onnx_ir.Shape) -> bool:
    return old is not None and [str(dim) for dim in old] == [str(dim) for dim in new]
