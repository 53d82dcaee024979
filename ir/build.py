"""Small builders: the few ways in which passes add to a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx_ir

from .errors import ModelError
from .graph import name_of

_NAMES = "tqt_onnx.names"
_NODE_NAMES = "tqt_onnx.node_names"


def add_initializer(
    graph: onnx_ir.Graph, name: str, array: npt.NDArray[Any], dtype: onnx_ir.DataType | None = None
) -> onnx_ir.Value:
    """Registers a constant under `name` (made unique) and returns its value.

    Args:
        graph: the graph it is added to.
        name: wanted name.
        array: contents; shape and, unless `dtype` says otherwise, element type are taken from it.
        dtype: element type where NumPy has none of that width (INT4, UINT4).
    """
    unique = unique_name(graph, name)
    tensor = onnx_ir.Tensor(array, dtype=dtype, name=unique) if dtype is not None else onnx_ir.tensor(array, name=unique)
    value = onnx_ir.Value(name=unique, shape=onnx_ir.Shape(array.shape), type=onnx_ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def add_node(
    graph: onnx_ir.Graph,
    op_type: str,
    inputs: Sequence[onnx_ir.Value | None],
    output: str,
    *,
    attributes: Mapping[str, Any] | None = None,
    after: onnx_ir.Node | None = None,
    before: onnx_ir.Node | None = None,
    like: onnx_ir.Value | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx_ir.Value:
    """Inserts a node with one output and returns that output.

    Args:
        graph: the graph it is added to.
        op_type: operator of the default domain.
        inputs: values it reads.
        output: wanted name of its output (made unique); the node is called after it.
        attributes: plain Python values.
        after: node it is put behind; without `after` and `before` it goes to the end.
        before: node it is put in front of.
        like: value whose shape and type the output takes over.
        metadata: node metadata (`ROLE_KEY`, `SOURCE_KEY`).
    """
    node = onnx_ir.node(op_type, inputs, attributes, num_outputs=1)
    value = node.outputs[0]
    value.name = unique_name(graph, output)
    node.name = _unique_node_name(graph, f"{op_type}:{value.name}")
    node.metadata_props.update(metadata or {})
    if like is not None:
        value.shape = like.shape
        value.type = like.type
    if after is not None:
        graph.insert_after(after, node)
    elif before is not None:
        graph.insert_before(before, node)
    else:
        graph.append(node)
    return value


def taken_names(graph: onnx_ir.Graph) -> set[str]:
    """Every value name in the graph."""
    names = {value.name for value in graph.inputs} | set(graph.initializers)
    names.update(value.name for node in graph for value in node.outputs)
    return {name for name in names if name}


def unique_name(graph: onnx_ir.Graph, name: str) -> str:
    """`name`, or `name_1`, `name_2`, ... where it is taken.

    The names of a graph are collected once and kept in its `meta` (memory only), so that a pass over n nodes costs O(n).
    """
    return _unique(_cached(graph, _NAMES), name)


def _unique_node_name(graph: onnx_ir.Graph, name: str) -> str:
    """As `unique_name` for nodes, whose names are a space of their own; onnxruntime refuses two of one name."""
    return _unique(_cached(graph, _NODE_NAMES), name)


def _cached(graph: onnx_ir.Graph, key: str) -> set[str]:
    """The collected names; a clone shares the `meta` of its original, hence the look at whose names they are."""
    owner, names = graph.meta.get(key, (None, set()))
    if owner is not graph:
        names = taken_names(graph) if key == _NAMES else {node.name for node in graph if node.name}
        graph.meta[key] = (graph, names)
    return cast("set[str]", names)


def _unique(taken: set[str], name: str) -> str:
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def forget_names(graph: onnx_ir.Graph) -> None:
    """Drops the collected names: to be called after renaming or removing values by hand."""
    graph.meta.pop(_NAMES, None)
    graph.meta.pop(_NODE_NAMES, None)


def own_tensor(tensor: onnx_ir.TensorProtocol, name: str) -> onnx_ir.TensorProtocol:
    """The same numbers (not copied) under a name of their own: the tensors of a model are shared with its clones.

    Args:
        tensor: of any shape and element type; is not changed.
        name: of the tensor returned.
    """
    if tensor.dtype == onnx_ir.DataType.STRING:
        return onnx_ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
    return onnx_ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)


def rename(value: onnx_ir.Value, name: str) -> None:
    """Gives a value another name, which must be free; initializers stay registered under it.

    Raises:
        ModelError: the name is taken.
    """
    graph = value.graph
    if graph is not None:
        if unique_name(graph, name) != name:
            raise ModelError(f"the name {name!r} is taken")
        _cached(graph, _NAMES).discard(value.name or "")
    if value.const_value is not None:  # onnx_ir renames the tensor along with its value, a clone's tensor too
        value.const_value = own_tensor(value.const_value, name)
    value.name = name


def replace_value(old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    """Every reader of `old` reads `new`; where `old` is a graph output, `new` takes over its place *and its name* (O3).

    The node behind `old` is left in place without readers, for the caller to remove.

    Raises:
        ModelError: `new` is an input, output or constant, whose own name must not change.
    """
    if old.is_graph_output():
        graph = old.graph
        assert graph is not None
        name = name_of(old)
        if new.is_graph_input() or new.is_graph_output() or new.is_initializer():
            raise ModelError(f"output {name!r} cannot be merged with {new.name!r}, which has a name of its own to keep (O3)")
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = new
        old.name = unique_name(graph, f"{name}__replaced")
        new.name = name
        if old.shape is not None:
            new.shape = old.shape
    old.replace_all_uses_with(new)


def scalar(array: npt.NDArray[Any] | float, dtype: Any = np.float32) -> npt.NDArray[Any]:
    """A 0-d array of the given dtype."""
    return np.asarray(array, dtype)
