"""What a foreign ONNX model may not hold, each refused by the name of its node.

Refused here: control flow, operators of other domains, quantized operators, training mode, types other than float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx

from ..ir.errors import ModelError, UnsupportedError
from ..ir.reading import STANDARD, label

QUANTIZED: Final = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)
"""Operators of models that another tool has quantized."""

_MOMENTS: Final = 1
"""Outputs of a BatchNormalization at inference; the others are the statistics of the batch."""

_REAL: Final[Mapping[int, str]] = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.COMPLEX64: "complex64",
    onnx.TensorProto.COMPLEX128: "complex128",
}
"""Real and complex types of which a network may hold no tensor."""


def refuse_nodes(proto: onnx.ModelProto, file: object) -> None:
    """Looks at every node of the main graph; functions must have been inlined.

    Raises:
        UnsupportedError: names the first node that cannot be taken over.
    """
    constants = constants_of(proto.graph)
    for node in proto.graph.node:
        where = f"{file}: {node.op_type} node {label(node)!r}"
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise UnsupportedError(f"{where} is control flow (it holds a graph of its own); a network without branches is expected")
        if node.domain not in STANDARD:
            raise UnsupportedError(f"{where}: an operator of ONNX itself is expected. Received: domain {node.domain!r}")
        if node.op_type in QUANTIZED:
            raise UnsupportedError(f"{where}: the model has been quantized by another tool; a float model is expected")
        refused = _TRAINING.get(node.op_type)
        why = None if refused is None else refused(node, constants)
        if why:
            raise UnsupportedError(f"{where} is in training mode ({why}); a network as it is at inference is expected")


def refuse_types(proto: onnx.ModelProto, file: object) -> None:
    """Looks at the types of the inputs and of all tensors; those of computed tensors must have been inferred.

    Raises:
        UnsupportedError: an input that is not float32, or a tensor of another float type.
    """
    float32 = onnx.TensorProto.FLOAT
    advice = "a float32 network is expected: thresholds and exactness are decided on float32"
    for value in proto.graph.input:
        found = value.type.tensor_type.elem_type
        if not value.type.HasField("tensor_type") or found != float32:
            kind = onnx.TensorProto.DataType.Name(found) if found in onnx.TensorProto.DataType.values() else str(found)
            raise UnsupportedError(f"{file}: input {value.name!r}: {advice}. Received: {kind.lower()}")
    typed = [(value.name, value.type.tensor_type.elem_type) for value in (*proto.graph.value_info, *proto.graph.output)]
    typed += [(tensor.name, tensor.data_type) for tensor in proto.graph.initializer]
    for name, found in typed:
        if found in _REAL:
            raise UnsupportedError(f"{file}: tensor {name!r}: {advice}. Received: {_REAL[found]}")


def refuse_nan(proto: onnx.ModelProto, file: object) -> None:
    """Looks at the constants; infinite ones may be bounds and paddings, so what they do is for the passes to see (Q6).

    Raises:
        ModelError: a constant holds a NaN.
    """
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.isnan(onnx.numpy_helper.to_array(tensor)).any():
            raise ModelError(f"{file}: constant {tensor.name!r}: numbers are expected. Received: a NaN")


def refuse_boundary(proto: onnx.ModelProto, file: object) -> None:
    """Looks at what the graph is between: something to feed, and outputs that something computes.

    Raises:
        ModelError: no inputs or outputs, or an output that is an input or a constant.
    """
    made = {name for node in proto.graph.node for name in node.output}
    if not proto.graph.input or not proto.graph.output:
        missing = "output" if proto.graph.input else "input"
        raise ModelError(f"{file}: a network with inputs and outputs is expected; it has no {missing}")
    for value in proto.graph.output:
        if value.name not in made:
            raise ModelError(f"{file}: output {value.name!r} is an input or a constant; the result of a node is expected")


Constants = Mapping[str, onnx.TensorProto]


def constants_of(graph: onnx.GraphProto) -> Constants:
    """Initializers and the results of Constant nodes that hold a tensor, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
    return found


def _dropout(node: onnx.NodeProto, constants: Constants) -> str:
    if len(node.input) < 3 or not node.input[2]:
        return ""
    mode = constants.get(node.input[2])
    if mode is None:
        return f"its mode is computed, by {node.input[2]!r}"
    return "training_mode is true" if onnx.numpy_helper.to_array(mode).any() else ""


def _batch_normalization(node: onnx.NodeProto, _: Constants) -> str:
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if attributes.get("training_mode", 0):
        return "training_mode = 1"
    if not attributes.get("spatial", 1):
        return "spatial = 0: statistics for each element"
    return "it gives out the statistics of the batch" if any(list(node.output)[_MOMENTS:]) else ""


_TRAINING: Final[Mapping[str, Callable[[onnx.NodeProto, Constants], str]]] = {
    "Dropout": _dropout,
    "BatchNormalization": _batch_normalization,
}
"""Operator -> why a node of it is in training mode; empty where it is not."""
