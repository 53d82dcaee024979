"""Variables -> constants, by rewriting the graph: no initializer, no restore node, nothing of the file is run.

VariableV2 w -> Identity w/read       ->   Const w -> Identity w/read
VarHandleOp w -> ReadVariableOp       ->   Const w -> Identity

What writes to a variable (Assign, the optimizer) keeps the variable itself, under the name `w/variable`; it belongs to training
and goes when the graph is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from ...ir import ModelError
from ..frozen import GraphDef
from ..large_constants import refuse_too_many
from ..nodes import Nodes, data_inputs, node_of, tensor_shape
from ..rewrites.read_frozen import FROZEN_AS
from .saver import PASSING, variable_of

Array = npt.NDArray[Any]

_REFERENCES: Final = frozenset({"Variable", "VariableV2", "AutoReloadVariable"})
_HANDLE: Final = "VarHandleOp"
_READ: Final = "ReadVariableOp"
_CARRIERS: Final = frozenset({"Identity", _READ})
_SAVES: Final = frozenset({"Save", "SaveSlices", "SaveV2"})


def freeze_variables(graph_def: GraphDef, where: str, value_of: Callable[[str], Array | None]) -> tuple[GraphDef, set[str]]:
    """Turns every variable that something reads into a constant of the same name.

    Args:
        graph_def: calls inlined; it is not changed.
        where: what messages call it.
        value_of: name of a variable node -> its value, None where there is none.

    Returns:
        The graph, and the variables without a value. Where type and shape are known these are constants of NaN: the graph can
        be cut, and whether one of them is left shows whether it was needed. Others stay variables.

    Raises:
        ModelError: a value whose shape or type is not the variable's.
        UnsupportedError: more weights than a graph can hold.
    """
    nodes: Nodes = {node.name: node for node in graph_def.node}
    constants: dict[str, Any] = {}
    missing: set[str] = set()
    total = 0
    for name in _read_variables(nodes):
        value = value_of(name)
        total += 0 if value is None else value.nbytes
        refuse_too_many(where, [total])
        if value is None:
            missing.add(name)
        tensor = _unknown(nodes[name]) if value is None else _tensor(where, nodes[name], value)
        if tensor is not None:
            constants[name] = tensor
    return _rewritten(graph_def, nodes, constants), missing


def variables(graph_def: GraphDef) -> list[str]:
    """Names of the variable nodes."""
    return [node.name for node in graph_def.node if node.op in _REFERENCES or node.op == _HANDLE]


def _read_variables(nodes: Nodes) -> Iterator[str]:
    """Variables whose value something computes with; the optimizer's own are written and saved only."""
    readers: dict[str, list[Any]] = {}
    for node in nodes.values():
        for name in {node_of(read) for index, read in enumerate(node.input) if _by_value(node, index)}:
            readers.setdefault(name, []).append(node)
    for name, node in nodes.items():
        if node.op not in _REFERENCES and node.op != _HANDLE:
            continue
        found = list(readers.get(name, ()))
        while found:
            reader = found.pop()
            if reader.op not in _CARRIERS and reader.op not in _SAVES:
                yield name
                break
            if reader.op in _CARRIERS:
                found.extend(readers.get(reader.name, ()))


def _by_value(node: Any, index: int) -> bool:
    """Whether a node computes with an input, or merely orders, writes to, or asks about it."""
    if node.input[index].startswith("^"):
        return False
    definition = op_def_registry.get(node.op)
    position = 0
    for argument in definition.input_arg if definition is not None else ():
        count = 1
        if argument.number_attr:
            count = node.attr[argument.number_attr].i
        elif argument.type_list_attr:
            count = len(node.attr[argument.type_list_attr].list.type)
        position += count
        if index < position:
            return not argument.is_ref and (argument.type != tf.resource.as_datatype_enum or node.op == _READ)
    return True


def _tensor(where: str, node: Any, value: Array) -> Any:
    dtype = tf.dtypes.as_dtype(node.attr["dtype"].type).base_dtype
    shape = tensor_shape(node.attr["shape"].shape)
    fits = shape is None or not shape or tf.TensorShape(shape).is_compatible_with(value.shape)
    if value.dtype != dtype.as_numpy_dtype or not fits:
        raise ModelError(
            f"{where}: variable {node.name!r} is {dtype.name} {shape}; a checkpoint of this very graph is expected. "
            f"Received: {value.dtype} {list(value.shape)}"
        )
    return tf.make_tensor_proto(value, dtype, value.shape)


def _unknown(node: Any) -> Any:
    dtype = tf.dtypes.as_dtype(node.attr["dtype"].type).base_dtype
    shape = tensor_shape(node.attr["shape"].shape)
    if not shape or None in shape or not dtype.is_floating:  # scalars steer control flow; a guess would be a lie
        return None
    return tf.make_tensor_proto(np.nan, dtype, shape)


def _rewritten(graph_def: GraphDef, nodes: Nodes, constants: Mapping[str, Any]) -> GraphDef:
    originals = {name: _free(f"{name}/variable", nodes) for name in constants}
    result = type(graph_def)()
    result.versions.CopyFrom(graph_def.versions)
    result.library.CopyFrom(graph_def.library)
    values: dict[str, str] = {}
    for node in graph_def.node:
        copy = result.node.add()
        copy.CopyFrom(node)
        copy.attr.pop(FROZEN_AS, None)  # a file does not get to say it
        if node.name in constants:
            copy.name = originals[node.name]
            copy.attr[FROZEN_AS].s = node.name.encode()  # for those who read it inside a branch or function
            _make_constant(result.node.add(), node.name, constants[node.name])
            continue
        variable = variable_of(nodes, node.input[0]) if node.op == _READ and data_inputs(node) else None
        if variable is not None and variable in constants:
            copy.op = "Identity"
            copy.attr.clear()
            copy.attr["T"].type = constants[variable].dtype
            copy.input[0] = _value(result, nodes, values, node.input[0], constants[variable].dtype)
            continue
        for index, read in enumerate(node.input):
            name = node_of(read)
            if name in constants and (nodes[name].op == _HANDLE or not _by_value(node, index)):
                copy.input[index] = f"^{originals[name]}" if read.startswith("^") else originals[name]
    return result


def _make_constant(node: Any, name: str, tensor: Any) -> None:
    node.name, node.op = name, "Const"
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)


def _value(result: GraphDef, nodes: Nodes, values: dict[str, str], handle: str, dtype: int) -> str:
    """The tensor that carries the value where `handle` carries the handle: copies of the operators the handle passes through."""
    chain = []
    while nodes[node_of(handle)].op in PASSING:
        chain.append(handle)
        handle = nodes[node_of(handle)].input[0]
    value = node_of(handle)
    for passed in reversed(chain):
        name, _, port = passed.partition(":")
        if name not in values:
            values[name] = _free(f"{name}/value", nodes)
            copy = result.node.add()
            copy.CopyFrom(nodes[name])
            copy.name = values[name]
            copy.attr["T"].type = dtype
            copy.input[0] = value
        value = f"{values[name]}:{port}" if port else values[name]
    return value


def _free(name: str, nodes: Nodes) -> str:
    while name in nodes:
        name += "_"
    return name
