"""Batch norm written as small operators -> one FusedBatchNormV3.

Keras 3 (like `tf.nn.batch_normalization`) traces an inference batch norm as

    S = rsqrt(variance + epsilon) * gamma            (no `* gamma` with scale=False)
    y = x * S + (beta - mean * S)                    (`(-mean) * S` with center=False)

which becomes, for an x of rank 4,

    y = FusedBatchNormV3(x, gamma, beta, mean, variance; epsilon, is_training=False)

and for an x of rank 2 (behind Dense) the same between two Reshapes to and from [N, C, 1, 1]: TensorFlow's operator takes
nothing but rank 4. `mean`, `variance`, `gamma` and `beta` must be constants (behind Identity and Reshape) along one axis,
the last one or axis 1 of 4. What does not match exactly stays as it is. The two sides are equal up to float32 rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .frozen import GraphDef
from .nodes import Nodes, ancestors, data_inputs, node_of, tensor_name

logger = logging.getLogger(__name__)

RAISED: Final = "/raised_batch_norm"
"""Behind the name of the batch norm's last node come the names of the nodes made here."""

Array = npt.NDArray[Any]
_ADD: Final = ("AddV2", "Add")


@dataclass(frozen=True)
class _BatchNorm:
    """What a match has found: the tensor normalized, and the constants in whatever shape they broadcast from."""

    x: str
    mean: Array
    variance: Array
    gamma: Array | None
    beta: Array | None
    epsilon: float


def raise_batch_norm(graph_def: GraphDef, outputs: Sequence[str]) -> GraphDef:
    """A copy of the graph with its small-operator batch norms raised, and the operators behind them that nobody reads gone.

    Args:
        graph_def: frozen inference graph.
        outputs: tensors that must stay.
    """
    nodes: dict[str, Any] = {node.name: node for node in graph_def.node}
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    raised: dict[str, list[Any]] = {}
    for name, node in nodes.items():
        found = _match(nodes, node)
        if found is not None:
            replacement = _fuse(name, found, graph.get_tensor_by_name(tensor_name(found.x)).shape)
            if replacement is not None:
                raised[name] = replacement
    result = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for name, node in nodes.items():
        result.node.extend(raised.get(name, [node]))
    by_name = {node.name: node for node in result.node}
    kept = ancestors(by_name, outputs, stop=set())
    pruned = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for name, node in by_name.items():
        if name in kept:
            copy = pruned.node.add()
            copy.CopyFrom(node)
            del copy.input[:]
            copy.input.extend(data_inputs(node))
    return pruned


def _match(nodes: Nodes, node: Any) -> _BatchNorm | None:
    """Reads `node` as the last Add of a batch norm, or None."""
    for product, shift in _operands(node, _ADD):
        for x, scale in _operands(nodes[node_of(product)], ("Mul",)):
            inverse = _scale(nodes, scale)
            if inverse is None:
                continue
            offset = _shift(nodes, shift, scale)
            if offset is None:
                continue
            (variance, gamma, epsilon), (mean, beta) = inverse, offset
            return _BatchNorm(x, mean, variance, gamma, beta, epsilon)
    return None


def _scale(nodes: Nodes, tensor: str) -> tuple[Array, Array | None, float] | None:
    """`rsqrt(variance + epsilon)`, possibly times gamma, as (variance, gamma, epsilon)."""
    node = nodes[node_of(tensor)]
    if node.op == "Rsqrt":
        found = _constants(nodes, nodes[node_of(node.input[0])], _ADD, lambda a, b: b.size == 1 and b.ndim <= a.ndim)
        return None if found is None else (found[0], None, float(found[1].reshape(())))
    for root, other in _operands(node, ("Mul",)):
        gamma = _constant(nodes, other)
        if gamma is not None and nodes[node_of(root)].op == "Rsqrt":
            inner = _scale(nodes, root)
            return None if inner is None else (inner[0], gamma, inner[2])
    return None


def _shift(nodes: Nodes, tensor: str, scale: str) -> tuple[Array, Array | None] | None:
    """`beta - mean * S` or `(-mean) * S`, with the same S, as (mean, beta)."""
    node = nodes[node_of(tensor)]
    if node.op == "Sub":
        beta = _constant(nodes, node.input[0])
        mean = _factor(nodes, node.input[1], scale)
        constant = None if mean is None else _constant(nodes, mean)
        return None if beta is None or constant is None else (constant, beta)
    mean = _factor(nodes, tensor, scale)
    if mean is None or nodes[node_of(mean)].op != "Neg":
        return None
    constant = _constant(nodes, nodes[node_of(mean)].input[0])
    return None if constant is None else (constant, None)


def _factor(nodes: Nodes, tensor: str, scale: str) -> str | None:
    """The other factor where `tensor` is a product with `scale`."""
    for factor, other in _operands(nodes[node_of(tensor)], ("Mul",)):
        if tensor_name(other) == tensor_name(scale):
            return factor
    return None


def _constants(nodes: Nodes, node: Any, ops: Sequence[str], accept: Callable[[Array, Array], bool]) -> tuple[Array, Array] | None:
    for a, b in _operands(node, ops):
        first, second = _constant(nodes, a), _constant(nodes, b)
        if first is not None and second is not None and accept(first, second):
            return first, second
    return None


def _operands(node: Any, ops: Sequence[str]) -> list[tuple[str, str]]:
    """Both orders of the operands of a float32 node of one of the kinds `ops`; nothing for another node."""
    reads = data_inputs(node)
    if node.op not in ops or len(reads) != 2 or node.attr["T"].type != tf.float32.as_datatype_enum:
        return []
    return [(reads[0], reads[1]), (reads[1], reads[0])]


def _constant(nodes: Nodes, tensor: str) -> Array | None:
    """The array behind a tensor that is a Const, seen through Identity and Reshape."""
    shapes: list[Array] = []
    node = nodes[node_of(tensor)]
    while node.op in ("Identity", "Reshape"):
        if node.op == "Reshape":
            shape = nodes[node_of(node.input[1])]
            if shape.op != "Const":
                return None
            shapes.append(tf.make_ndarray(shape.attr["value"].tensor))
        node = nodes[node_of(node.input[0])]
    if node.op != "Const":
        return None
    array: Array = tf.make_ndarray(node.attr["value"].tensor)
    for shape in reversed(shapes):
        array = array.reshape(shape)
    return array


def _fuse(name: str, found: _BatchNorm, x_shape: Any) -> list[Any] | None:
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
        constants.append(_const_node(f"{name}{RAISED}/{kind}", flat.astype(np.float32)))
    parameters = [constant.name for constant in constants]
    if rank == 4:
        fused = _fused_node(name, [found.x, *parameters], found.epsilon, "NCHW" if axis == 1 else "NHWC")
        return [*constants, fused]
    widened = _reshape_nodes(f"{name}{RAISED}/widened", found.x, (-1, channels, 1, 1))
    fused = _fused_node(f"{name}{RAISED}", [widened[-1].name, *parameters], found.epsilon, "NCHW")
    return [*constants, *widened, fused, *_reshape_nodes(name, fused.name, (-1, channels))]


def _axis(found: _BatchNorm, x_shape: Any) -> int | None:
    """The channel axis of x along which every constant lies, or None where there is no such axis or x is of another rank."""
    rank = x_shape.rank
    arrays = [array for array in (found.mean, found.variance, found.gamma, found.beta) if array is not None]
    if rank not in (2, 4) or any(array.ndim > rank for array in arrays):
        return None
    padded = [(1,) * (rank - array.ndim) + array.shape for array in arrays]
    for axis in (rank - 1, 1):
        channels = x_shape[axis]
        along = tuple(channels if index == axis else 1 for index in range(rank))
        if channels is not None and along in padded and all(shape in (along, (1,) * rank) for shape in padded):
            return int(axis)
    return None


def _const_node(name: str, array: Array) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
    node.attr["dtype"].type = node.attr["value"].tensor.dtype
    return node


def _reshape_nodes(name: str, x: str, shape: Sequence[int]) -> list[Any]:
    constant = _const_node(f"{name}{RAISED}/shape", np.asarray(shape, np.int32))
    node = tf.compat.v1.NodeDef(name=name, op="Reshape", input=[x, constant.name])
    node.attr["T"].type = tf.float32.as_datatype_enum
    node.attr["Tshape"].type = tf.int32.as_datatype_enum
    return [constant, node]


def _fused_node(name: str, inputs: Sequence[str], epsilon: float, data_format: str) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="FusedBatchNormV3", input=inputs)
    node.attr["T"].type = node.attr["U"].type = tf.float32.as_datatype_enum
    node.attr["epsilon"].f = epsilon
    node.attr["exponential_avg_factor"].f = 1.0
    node.attr["data_format"].s = data_format.encode()
    node.attr["is_training"].b = False
    return node
