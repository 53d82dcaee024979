"""Types and shapes of a proto, by ONNX's own inference and what it leaves out; onnx_ir's swallows errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import onnx

from .errors import ModelError, UnsupportedError
from .outline import completed, outline
from .reading import label, reason

_LARGEST: Final = 2**31 - 1
"""Elements of the largest tensor for one example: what onnxruntime's kernels count with an int."""

Shape = list[int]


def infer(proto: onnx.ModelProto, file: object) -> onnx.ModelProto:
    """A copy of the model with the types and shapes that `inferred_outline` finds.

    Raises:
        ModelError: as there.
        UnsupportedError: as there.
    """
    inputs = [value.name for value in proto.graph.input]
    return completed(inferred_outline(proto, file), proto.graph.initializer, inputs)


def inferred_outline(proto: onnx.ModelProto, file: object) -> onnx.ModelProto:
    """Types and shapes of all values, strictly and from the inputs, outputs and constants alone.

    Args:
        proto: its recorded types and shapes of inner values are removed.
        file: for messages.

    Returns:
        The `outline` of the model, with what was found.

    Raises:
        ModelError: they contradict each other, or a window is larger than what it slides over.
        UnsupportedError: a tensor of more than 2^31 elements.
    """
    del proto.graph.value_info[:]
    try:
        inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(
            outline(proto), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:  # InferenceError, ValueError and RuntimeError
        raise ModelError(f"{file}: shape inference fails: {reason(error)}") from None
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    fed = {value.name for value in inferred.graph.input}  # where -1 is how some exporters write an open dimension
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    for name, shape in shapes.items():
        if name not in fed and min(shape, default=0) < 0:
            raise ModelError(f"{file}: tensor {name!r}: windows that fit into their input are expected. Received: {shape}")
        if math.prod(max(dim, 1) for dim in shape[1:]) > _LARGEST:
            raise UnsupportedError(
                f"{file}: tensor {name!r}: at most {_LARGEST} elements an example are expected. Received: {shape}"
            )
    for value in values:
        tensor = value.type.tensor_type
        if tensor.elem_type == onnx.TensorProto.FLOAT and any(
            dim.HasField("dim_value") and not dim.dim_value for dim in tensor.shape.dim
        ):
            raise ModelError(f"{file}: tensor {value.name!r}: at least one element is expected. Received: {shapes[value.name]}")
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
    for node in inferred.graph.node:
        if node.op_type == "Conv":
            _check_convolution(node, shapes, file)
    return inferred


def _check_convolution(node: onnx.NodeProto, shapes: Mapping[str, Shape], file: object) -> None:
    """Channels, groups and bias, which inference does not compare; a dimension of 0 is one that is not known."""
    image, weight = (shapes.get(name, []) for name in node.input[:2])
    bias = shapes.get(node.input[2], []) if len(node.input) > 2 else []
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    if len(weight) < 2 or not all(weight):
        return
    wrong_depth = len(image) > 1 and image[1] and image[1] != weight[1] * groups
    if groups < 1 or weight[0] % groups or wrong_depth or (bias and bias != weight[:1]):
        raise ModelError(
            f"{file}: Conv node {label(node)!r}: an image [N, C, ...], a weight [K, C / group, ...] and a bias [K] are expected. "
            f"Received: {image}, {weight}{f', {bias}' if bias else ''}, group {groups}"
        )
