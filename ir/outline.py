"""A model without the data of its large initializers: onnx's C++ copies whatever it is given three times over.

    W float[512,512,3,3] = {2359296 numbers}      =>      input W float[512,512,3,3]

The checker, shape inference and the version converter read the values of shapes, axes and pads, which are small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import onnx

_SMALL: Final = 1024
"""Elements up to which a tensor may stand for a shape, axes or pads."""

_LISTS: Final = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data", "external_data")


def outline(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large initializers of the main graph are inputs, behind the others, of their type and shape.

    Those that are not stored as plain bytes stay, for the checker to say so.
    """
    result = onnx.ModelProto()
    for field, content in proto.ListFields():
        if field.name != "graph":
            _copy(result, field.name, content)
    for field, content in proto.graph.ListFields():
        if field.name != "initializer":
            _copy(result.graph, field.name, content)
    given = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if not _holds_data(tensor):
            result.graph.initializer.append(tensor)
        elif tensor.name not in given:
            result.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    result.graph.SetInParent()
    return result


def completed(result: onnx.ModelProto, initializers: Iterable[onnx.TensorProto], inputs: Iterable[str]) -> onnx.ModelProto:
    """Gives an outline its large initializers back.

    Args:
        result: what was made of an outline; changed in place.
        initializers: those of the model that the outline was made from.
        inputs: names of that model's inputs.
    """
    known = {tensor.name: tensor for tensor in initializers}
    wanted = set(inputs)
    for index in reversed(range(len(result.graph.input))):
        name = result.graph.input[index].name
        if name in known and name not in wanted:
            del result.graph.input[index]
    kept = {tensor.name for tensor in result.graph.initializer}
    result.graph.initializer.extend(tensor for name, tensor in known.items() if name not in kept)
    return result


def _holds_data(tensor: onnx.TensorProto) -> bool:
    if min(tensor.dims, default=0) < 1 or math.prod(tensor.dims) <= _SMALL or tensor.data_location != onnx.TensorProto.DEFAULT:
        return False
    return tensor.HasField("raw_data") and not any(len(getattr(tensor, name)) for name in _LISTS)


def _copy(message: onnx.ModelProto | onnx.GraphProto, name: str, content: object) -> None:
    if isinstance(content, (int, str)):
        setattr(message, name, content)
    else:
        getattr(message, name).MergeFrom(content)
