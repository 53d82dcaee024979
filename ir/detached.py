"""Large initializers beside a serialized model instead of inside it: onnxruntime reads them where they are.

    bytes = {..., W = 2359296 numbers}     =>     bytes = {..., W = external}  and  {"W": the array itself}

Serialized with its data a model exists four times: in memory, as a proto, as bytes, and as what onnxruntime makes of these.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir

from .graph import name_of

_LARGE: Final = 1 << 16
"""Bytes from which on it is worth the trouble."""

_LOCATION: Final = "beside the model"
"""A file name that there cannot be: an initializer that is not handed over is an error, not a read."""

_TYPES: Final = frozenset(
    {
        onnx_ir.DataType.FLOAT,
        onnx_ir.DataType.INT8,
        onnx_ir.DataType.UINT8,
        onnx_ir.DataType.INT16,
        onnx_ir.DataType.UINT16,
        onnx_ir.DataType.INT32,
    }
)
"""Those that NumPy lays out as onnxruntime does; 4-bit integers are packed."""

Arrays = dict[str, npt.NDArray[Any]]


def by_reference(model: onnx_ir.Model) -> tuple[onnx.ModelProto, Arrays]:
    """The model as a proto whose large initializers have no data, and their data by name: the model's own, not copied.

    Args:
        model: is as it was again afterwards.
    """
    held = {
        value: value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and is_large(value.const_value)
    }
    arrays = {name_of(value): np.asarray(tensor.numpy(), order="C") for value, tensor in held.items()}
    try:
        for value, tensor in held.items():
            value.const_value = _without_data(tensor, name_of(value))
        proto = onnx_ir.serde.serialize_model(model)
    finally:
        for value, tensor in held.items():
            value.const_value = tensor
    return proto, arrays


def is_large(tensor: onnx_ir.TensorProtocol) -> bool:
    """Whether a tensor is large enough to stay where it is, and of a type that NumPy lays out as onnxruntime does."""
    return tensor.dtype in _TYPES and tensor.nbytes >= _LARGE


def reference(name: str, array: npt.NDArray[Any]) -> onnx.TensorProto:
    """An initializer without its data, as `by_reference` writes it."""
    tensor = onnx_ir.Tensor(array, name=name)
    return onnx_ir.serde.serialize_tensor(_without_data(tensor, name))


def _without_data(tensor: onnx_ir.TensorProtocol, name: str) -> onnx_ir.ExternalTensor:
    return onnx_ir.ExternalTensor(_LOCATION, 0, tensor.nbytes, tensor.dtype, shape=onnx_ir.Shape(tensor.shape.numpy()), name=name)
