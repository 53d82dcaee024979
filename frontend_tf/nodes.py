"""Names and questions about the nodes of a GraphDef, and the few nodes we write ourselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from ..ir import ModelError

PLACEHOLDERS: Final = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
"""Operators through which a graph is fed."""

Nodes = Mapping[str, Any]
"""Node name -> NodeDef, in the order of the file."""


def node_of(name: str) -> str:
    """Node behind a tensor or control input: `a:1` and `^a` give `a`."""
    return name.removeprefix("^").partition(":")[0]


def index_of(name: str) -> int:
    """Which output of its node a tensor is: `a` and `a:0` give 0.

    Raises:
        ModelError: what follows the colon is no number.
    """
    index = name.partition(":")[2] or "0"
    if not (index.isascii() and index.isdigit()):
        raise ModelError(f"a tensor is called by its node and a number, 'a:1'. Received: {name!r}")
    return int(index)


def tensor_name(name: str) -> str:
    """Full tensor name: `a` gives `a:0`."""
    return name if ":" in name else f"{name}:0"


def data_inputs(node: Any) -> list[str]:
    """The tensors a node reads, without control inputs."""
    return [name for name in node.input if not name.startswith("^")]


def tensor_shape(proto: Any) -> list[int | None] | None:
    """A TensorShapeProto as a list, None for open dimensions; None where the rank is unknown."""
    return None if proto.unknown_rank else [dim.size if dim.size >= 0 else None for dim in proto.dim]


def ancestors(nodes: Nodes, tensors: Iterable[str], stop: set[str]) -> set[str]:
    """Names of the nodes that `tensors` are computed from, themselves included; nothing behind `stop`."""
    found: set[str] = set()
    pending = [node_of(tensor) for tensor in tensors]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            if name not in stop:
                pending.extend(node_of(read) for read in data_inputs(nodes[name]))
    return found


def readers_of(nodes: Nodes) -> dict[str, list[str]]:
    """Node -> the nodes that read one of its tensors, in the order of the file."""
    readers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for read in dict.fromkeys(node_of(tensor) for tensor in data_inputs(node)):
            readers.setdefault(read, []).append(name)
    return readers


def constant_of(nodes: Nodes, tensor: str) -> npt.NDArray[Any] | None:
    """The array behind a tensor that is a Const, seen through Identity; None where it is computed."""
    node = nodes.get(node_of(tensor))
    while node is not None and node.op == "Identity":
        node = nodes.get(node_of(node.input[0]))
    if node is None or node.op != "Const":
        return None
    return array_of(node)


def array_of(node: Any) -> npt.NDArray[Any]:
    """The array of a Const.

    Raises:
        ModelError: the file promises other contents than it has.
    """
    try:
        array: npt.NDArray[Any] = tf.make_ndarray(node.attr["value"].tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"constant {node.name!r} is damaged: {' '.join(str(error).split())[:120]}") from None
    return array


def make_node(name: str, op: str, inputs: Sequence[str], **attributes: Any) -> Any:
    """A NodeDef. Attributes by their Python type: bool, int, float, str, list of int, and `tf.DType` or a list of them."""
    node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        attr = node.attr[key]
        if isinstance(value, tf.DType):
            attr.type = value.as_datatype_enum
        elif isinstance(value, bool):
            attr.b = value
        elif isinstance(value, int):
            attr.i = value
        elif isinstance(value, float):
            attr.f = value
        elif isinstance(value, str):
            attr.s = value.encode()
        elif value and isinstance(value[0], tf.DType):
            attr.list.type.extend(one.as_datatype_enum for one in value)
        else:
            attr.list.i.extend(value)
    return node


def make_constant(name: str, array: npt.ArrayLike) -> Any:
    """A Const node."""
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.asarray(array)))
    node.attr["dtype"].type = node.attr["value"].tensor.dtype
    return node


def batch_and_rest(name: str, tensor: str, kind: int, rest: Sequence[int]) -> list[Any]:
    """Nodes whose last one, `name`, is the shape [batch of `tensor`, *rest], int32; `kind` is the tensor's element type."""
    shape = make_node(f"{name}/shape", "Shape", [tensor], T=tf.dtypes.as_dtype(kind), out_type=tf.int32)
    bounds = [make_constant(f"{name}/{key}", np.asarray([n], np.int32)) for key, n in (("from", 0), ("to", 1), ("step", 1))]
    masks = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask"), 0)
    reads = [shape.name, *(bound.name for bound in bounds)]
    batch = make_node(f"{name}/batch", "StridedSlice", reads, T=tf.int32, Index=tf.int32, shrink_axis_mask=1, **masks)
    constants = [make_constant(f"{name}/{axis}", np.int32(size)) for axis, size in enumerate(rest, start=1)]
    pack = make_node(name, "Pack", [batch.name, *(one.name for one in constants)], N=1 + len(rest), T=tf.int32, axis=0)
    return [shape, *bounds, batch, *constants, pack]


def output_types(node: Any) -> list[Any] | None:
    """Element types of a node's outputs by its operator's definition; None where TensorFlow does not know the operator."""
    definition = op_def_registry.get(node.op)
    if definition is None:
        return None
    types: list[Any] = []
    for output in definition.output_arg:
        if output.type_list_attr:
            types.extend(node.attr[output.type_list_attr].list.type)
        else:
            kind = output.type or node.attr[output.type_attr].type
            types.extend([kind] * (node.attr[output.number_attr].i if output.number_attr else 1))
    return [tf.dtypes.as_dtype(kind) for kind in types]
