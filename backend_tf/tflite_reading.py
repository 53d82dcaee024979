"""The operators of a TFLite file, with the integers and scales of what they read: what an exporter compares with its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tensorflow.lite.python import schema_py_generated as schema

_NUMPY: Final = {
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.FLOAT32: np.float32,
}

_OPERATORS: Final = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPES: Final = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


def operators_of(data: bytes) -> tuple[Mapping[str, Any], ...]:
    """The operators of a TFLite file in order.

    Returns:
        For each one `op` (its name in TFLite), `inputs`, `outputs` (tensors; None for an input that is left out) and `options`
        (its numbers, by name). A tensor has `name`, `index` (in the file), `shape`, `type`, `scales` (float64 array, empty
        without), `zero_point` and `constant` (an array, or None).
    """
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    found = []
    for graph in model.subgraphs:
        tensors = [_tensor(model, tensor, index) for index, tensor in enumerate(graph.tensors)]
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            options = {} if operator.builtinOptions is None else dict(vars(operator.builtinOptions))
            found.append(
                {
                    "op": _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)],
                    "inputs": tuple(None if index < 0 else tensors[index] for index in operator.inputs),
                    "outputs": tuple(tensors[index] for index in operator.outputs),
                    "options": options,
                }
            )
    return tuple(found)


def _tensor(model: Any, tensor: Any, index: int) -> dict[str, Any]:
    quantization = tensor.quantization
    scales: Any = () if quantization is None or quantization.scale is None else quantization.scale
    points: Any = () if quantization is None or quantization.zeroPoint is None else quantization.zeroPoint
    return {
        "name": tensor.name.decode(),
        "index": index,
        "shape": () if tensor.shape is None else tuple(int(length) for length in tensor.shape),
        "type": _TYPES[tensor.type],
        "scales": np.asarray(scales, np.float64),
        "zero_point": int(points[0]) if len(points) else 0,
        "constant": _constant(model.buffers[tensor.buffer].data, tensor),
    }


def _constant(data: Any, tensor: Any) -> npt.NDArray[Any] | None:
    if data is None or not len(data) or tensor.type not in _NUMPY:
        return None
    return np.frombuffer(bytes(data), _NUMPY[tensor.type]).reshape([int(length) for length in tensor.shape])
