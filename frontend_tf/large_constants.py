"""Large constants without their data: what only looks at a graph's structure need not carry its weights along.

TensorFlow copies a graph three times to import it, tf2onnx up to thirty times to convert it. Both look at the shape of a
weight and never at its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..ir import UnsupportedError
from ..ir.external_data import LARGEST
from .nodes import make_node, tensor_shape

LARGE: Final = 1 << 16
"""Bytes from which on a constant is worth the trouble. Shapes, paddings and batch norms are smaller."""

_ALIGNMENT: Final = 64
"""Bytes."""


def is_large_constant(node: Any) -> bool:
    """Whether a node is a float32 Const of many numbers that are stored one by one; to look at them would be to copy them."""
    if node.op != "Const":
        return False
    tensor = node.attr["value"].tensor
    shape = tensor_shape(tensor.tensor_shape)
    if tensor.dtype != tf.float32.as_datatype_enum or shape is None or tensor.float_val:
        return False
    return 4 * math.prod(dim or 0 for dim in shape) >= LARGE


def without_data(graph_def: Any) -> Any:
    """A copy of a graph whose large constants are zeros, stored as one number, or the graph itself where it has none.

    Shapes can be inferred of it as of the graph; it must not be run.
    """
    large = {node.name for node in graph_def.node if is_large_constant(node)}
    if not large:
        return graph_def
    result = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        copy = result.node.add()
        if node.name not in large:
            copy.CopyFrom(node)
            continue
        copy.CopyFrom(make_node(node.name, "Const", list(node.input), dtype=tf.float32))
        copy.device = node.device
        tensor = copy.attr["value"].tensor
        tensor.dtype = tf.float32.as_datatype_enum
        tensor.tensor_shape.CopyFrom(node.attr["value"].tensor.tensor_shape)
        tensor.float_val.append(0.0)
    return result


def fed_from_outside(graph_def: Any) -> tuple[Any, dict[str, Any]]:
    """A copy of a graph whose large constants are placeholders of their shape, and these constants by name.

    Returns:
        The graph (itself where it has no large constants), and node name -> the Const that stood there.
    """
    large = {node.name: node for node in graph_def.node if is_large_constant(node)}
    if not large:
        return graph_def, {}
    result = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    result.node.extend(placeholder_for(node.name, node) if node.name in large else node for node in graph_def.node)
    return result, large


def refuse_too_many(where: str, sizes: Iterable[int]) -> None:
    """Variables that together are larger than a graph can hold: said beforehand, protobuf says it late and in its own words.

    Args:
        where: what messages call the model.
        sizes: bytes of each variable.

    Raises:
        UnsupportedError: more than protobuf serializes, which both TensorFlow's and ONNX's files are made of.
    """
    total = sum(sizes)
    if total > LARGEST:
        raise UnsupportedError(f"{where}: at most {LARGEST} bytes of weights are expected (2 GB). Received: {total}")


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy that TensorFlow can be fed with as it is: one that begins elsewhere it copies in every run."""
    buffer = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    result = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def placeholder_for(name: str, constant: Any) -> Any:
    """A placeholder of the type and shape of a Const."""
    placeholder = make_node(name, "Placeholder", [], dtype=tf.dtypes.as_dtype(constant.attr["dtype"].type))
    placeholder.attr["shape"].shape.CopyFrom(constant.attr["value"].tensor.tensor_shape)
    return placeholder
