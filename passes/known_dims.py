"""What small integer tensors hold where they are computed from shapes.

TensorFlow computes the target of a Reshape from the shape of its input: Shape -> Cast -> Slice -> Concat. All entries
but the batch are known before anything runs; this module reads them off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from ..ir import attribute, constant
from .rewriting import is_op

Dims = npt.NDArray[Any]
"""Array of objects, 0-d or 1-d: int where known, a dimension's name where only that is known, None where nothing is."""


def known_dims(value: onnx_ir.Value | None, cache: dict[onnx_ir.Value, Dims | None]) -> Dims | None:
    """The entries of an integer tensor of rank 0 or 1, as far as shapes tell.

    Args:
        value: the tensor; its producers have been asked before (callers walk in graph order).
        cache: answers so far, added to.
    """
    if value is None:
        return None
    if value not in cache:
        array = constant(value)
        if array is not None:
            small = array.ndim <= 1 and array.size <= 64 and array.dtype.kind in "iu"
            cache[value] = array.astype(object) if small else None
        else:
            producer = value.producer()
            cache[value] = None if producer is None else _of_node(producer, cache)
    return cache[value]


def all_known_dims(graph: onnx_ir.Graph) -> dict[onnx_ir.Value, Dims | None]:
    """`known_dims` of every value that a graph computes, asked in its order: the cache for further questions."""
    known: dict[onnx_ir.Value, Dims | None] = {}
    for node in graph:
        for value in node.outputs:
            known_dims(value, known)
    return known


def _of_node(node: onnx_ir.Node, cache: dict[onnx_ir.Value, Dims | None]) -> Dims | None:
    if is_op(node, "Shape"):
        return _shape(node)
    if not is_op(node, "Cast", "Identity", "Gather", "Slice", "Squeeze", "Unsqueeze", "Concat"):
        return None
    if is_op(node, "Cast") and attribute(node, "to", 0) not in (onnx_ir.DataType.INT64, onnx_ir.DataType.INT32):
        return None
    inputs = [known_dims(value, cache) for value in node.inputs]
    if any(dims is None for dims in inputs):
        return None
    data, *rest = (dims for dims in inputs if dims is not None)
    if node.op_type == "Concat":
        parts = [data, *rest]
        return np.concatenate(parts) if all(part.ndim == 1 for part in parts) else None
    if node.op_type in ("Cast", "Identity"):
        return data
    if node.op_type == "Squeeze":
        return data.reshape(()) if data.shape == (1,) else None
    if node.op_type == "Unsqueeze":
        return data.reshape(1) if data.ndim == 0 else None
    if any(not isinstance(entry, int) for dims in rest for entry in dims.reshape(-1)):
        return None
    if node.op_type == "Gather":
        indices = rest[0].astype(np.int64)
        fits = data.ndim == 1 and indices.size and -data.size <= indices.min() and indices.max() < data.size
        return np.asarray(data[indices], object) if fits else None
    return _slice(data, [dims.astype(np.int64) for dims in rest])


def _shape(node: onnx_ir.Node) -> Dims | None:
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if shape is None:
        return None
    entries = np.empty(len(shape), object)
    entries[:] = [dim if isinstance(dim, int) else dim.value for dim in shape]
    return entries[slice(attribute(node, "start", 0), attribute(node, "end", None))]


def _slice(data: Dims, rest: list[npt.NDArray[np.int64]]) -> Dims | None:
    """Slice(data, starts, ends, axes, steps) on one axis, forwards (the strided slices of TensorFlow)."""
    if data.ndim != 1 or len(rest) < 2 or any(dims.size != 1 for dims in rest):
        return None
    start, stop = (int(dims.reshape(-1)[0]) for dims in rest[:2])
    step = int(rest[3].reshape(-1)[0]) if len(rest) == 4 else 1
    return data[start:stop:step] if step > 0 else None
