"""Batch norm written as small operators -> one FusedBatchNormV3.

Keras 3 (like `tf.nn.batch_normalization`) traces an inference batch norm as

    S = rsqrt(variance + epsilon) * gamma            (no `* gamma` with scale=False)
    y = x * S + (beta - mean * S)                    (`(-mean) * S` with center=False)

which becomes, for an x of rank 4,

    y = FusedBatchNormV3(x, gamma, beta, mean, variance; epsilon, is_training=False)

For an x of rank 2 (behind Dense) the same stands between two Reshapes to and from [N, C, 1, 1], for one of rank 3 (behind
Conv1D) between ExpandDims and Squeeze: TensorFlow's operator takes nothing but rank 4. `batch_norm_forms` lists the other
spellings. `mean`, `variance`, `gamma` and `beta` must lie along one axis, the last one or axis 1. What does not match exactly
stays as it is. The two sides are equal up to float32 rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..frozen import GraphDef
from ..nodes import ancestors, data_inputs, make_constant, make_node, tensor_name
from .batch_norm_forms import BatchNorm, match

logger = logging.getLogger(__name__)

RAISED: Final = "/raised_batch_norm"
"""Behind the name of the batch norm's last node come the names of the nodes made here."""

Array = npt.NDArray[Any]


def raise_batch_norm(graph_def: GraphDef, outputs: Sequence[str]) -> GraphDef:
    """The graph with its small-operator batch norms raised, and the operators behind them that nobody reads gone.

    Args:
        graph_def: frozen inference graph; it is not changed.
        outputs: tensors that must stay.

    Returns:
        A copy; where there is nothing to raise, `graph_def` itself.
    """
    nodes: dict[str, Any] = {node.name: node for node in graph_def.node}
    matched = [(name, found) for name, node in nodes.items() if (found := match(nodes, node)) is not None]
    if not matched:
        return graph_def
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    raised: dict[str, list[Any]] = {}
    for name, found in matched:
        replacement = _fuse(name, found, graph.get_tensor_by_name(tensor_name(found.x)).shape)
        if replacement is not None:
            raised[name] = replacement
    if not raised:
        return graph_def
    by_name = {made.name: made for name, node in nodes.items() for made in raised.get(name, [node])}
    kept = ancestors(by_name, outputs, stop=set())
    result = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for name, node in by_name.items():
        if name in kept:
            copy = result.node.add()
            copy.CopyFrom(node)
            del copy.input[:]
            copy.input.extend(data_inputs(node))
    return result


def _fuse(name: str, found: BatchNorm, x_shape: Any) -> list[Any] | None:
    """The nodes that take the place of node `name`, the last of them under that name."""
    axis = _axis(found, x_shape)
    if axis is None:
        logger.debug("%s: batch norm of shape %s is left as small operators", name, x_shape)
        return None
    channels, rank = int(x_shape[axis]), int(x_shape.rank)
    missing = {"gamma": np.ones, "beta": np.zeros}
    constants = []
    for kind in ("gamma", "beta", "mean", "variance"):
        array = getattr(found, kind)
        flat = missing[kind](channels) if array is None else np.broadcast_to(array.reshape(-1), (channels,))
        constants.append(make_constant(f"{name}{RAISED}/{kind}", flat.astype(np.float32)))
    parameters = [constant.name for constant in constants]
    layout = "NCHW" if axis == 1 else "NHWC"
    if rank == 4:
        return [*constants, _fused_node(name, [found.x, *parameters], found.epsilon, layout)]
    if rank == 3:
        widened = _expand_nodes(f"{name}{RAISED}/widened", found.x, 2 if axis == 1 else 1)
        fused = _fused_node(f"{name}{RAISED}", [widened[-1].name, *parameters], found.epsilon, layout)
        return [*constants, *widened, fused, _squeeze_node(name, fused.name, 2 if axis == 1 else 1)]
    widened = _reshape_nodes(f"{name}{RAISED}/widened", found.x, (-1, channels, 1, 1))
    fused = _fused_node(f"{name}{RAISED}", [widened[-1].name, *parameters], found.epsilon, "NCHW")
    return [*constants, *widened, fused, *_reshape_nodes(name, fused.name, (-1, channels))]


def _axis(found: BatchNorm, x_shape: Any) -> int | None:
    """The channel axis of x along which every constant lies, or None where there is no such axis or x is of another rank."""
    rank = x_shape.rank
    arrays = [array for array in (found.mean, found.variance, found.gamma, found.beta) if array is not None]
    if rank not in (2, 3, 4) or any(array.ndim > rank for array in arrays):
        return None
    padded = [(1,) * (rank - array.ndim) + array.shape for array in arrays]
    for axis in (rank - 1, 1):
        channels = x_shape[axis]
        along = tuple(channels if index == axis else 1 for index in range(rank))
        if channels is not None and along in padded and all(shape in (along, (1,) * rank) for shape in padded):
            return int(axis)
    return None


def _reshape_nodes(name: str, x: str, shape: Sequence[int]) -> list[Any]:
    constant = make_constant(f"{name}{RAISED}/shape", np.asarray(shape, np.int32))
    return [constant, make_node(name, "Reshape", [x, constant.name], T=tf.float32, Tshape=tf.int32)]


def _expand_nodes(name: str, x: str, axis: int) -> list[Any]:
    constant = make_constant(f"{name}{RAISED}/axis", np.asarray(axis, np.int32))
    return [constant, make_node(name, "ExpandDims", [x, constant.name], T=tf.float32, Tdim=tf.int32)]


def _squeeze_node(name: str, x: str, axis: int) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="Squeeze", input=[x])
    node.attr["T"].type = tf.float32.as_datatype_enum
    node.attr["squeeze_dims"].list.i.append(axis)
    return node


def _fused_node(name: str, inputs: Sequence[str], epsilon: float, data_format: str) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="FusedBatchNormV3", input=inputs)
    node.attr["T"].type = node.attr["U"].type = tf.float32.as_datatype_enum
    node.attr["epsilon"].f = epsilon
    node.attr["exponential_avg_factor"].f = 1.0
    node.attr["data_format"].s = data_format.encode()
    node.attr["is_training"].b = False
    return node
