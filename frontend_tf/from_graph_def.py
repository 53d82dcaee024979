"""Frozen graphs: reading a binary GraphDef, finding its ends, and cutting out what lies between them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from ..ir import ModelError, UnsupportedError
from .free_batch import free_batch
from .frozen import FrozenGraph, GraphDef
from .nodes import Nodes, ancestors, data_inputs, node_of, tensor_name, tensor_shape
from .shapes import settle_shape

logger = logging.getLogger(__name__)

_PLACEHOLDERS: Final = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
_VARIABLES: Final = frozenset(
    {"Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp", "VarIsInitializedOp", "ReadVariableOp", "HashTableV2"}
)
_SHAPELESS_SCALAR_PRODUCER: Final = 24
"""Before this version of the GraphDef format a placeholder of unknown shape was written as a scalar."""


def load_graph_def(
    path: Path, inputs: Sequence[str] | None, outputs: Sequence[str] | None, input_shape: Sequence[int] | None
) -> FrozenGraph:
    """Reads a frozen graph and cuts out the part between its inputs and outputs.

    Raises:
        ModelError: see `load`.
        UnsupportedError: operators that this TensorFlow does not know.
    """
    return freeze_graph_def(read_graph_def(path), str(path), path.stem, inputs, outputs, input_shape)


def freeze_graph_def(
    graph_def: GraphDef,
    where: str,
    name: str,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    input_shape: Sequence[int] | None,
) -> FrozenGraph:
    """Cuts the part between inputs and outputs out of a graph without variables.

    Args:
        graph_def: variables turned into constants; training nodes may still be there.
        where: what messages call it.
        name: of the model.
        inputs: see `load`.
        outputs: see `load`.
        input_shape: see `load`.

    Raises:
        ModelError: see `load`.
        UnsupportedError: operators that this TensorFlow does not know.
    """
    nodes: Nodes = {node.name: node for node in graph_def.node}
    _check_references(where, nodes)
    given = None if inputs is None else _resolve(where, nodes, inputs, "input")
    ends = _find_outputs(where, nodes, given) if outputs is None else _resolve(where, nodes, outputs, "output")
    starts = _find_inputs(where, nodes, ends) if given is None else given
    kept = ancestors(nodes, ends, stop={node_of(start) for start in starts})
    _check_kept(where, graph_def, nodes, kept, starts, ends)
    frozen = _cut(where, graph_def, nodes, kept, starts, input_shape)
    graph = _import(where, frozen)
    for tensor in ends:
        if int(tensor.partition(":")[2]) >= len(graph.get_operation_by_name(node_of(tensor)).outputs):
            raise ModelError(f"{where}: node {node_of(tensor)!r} has no such output. Received: {tensor!r}")
    return FrozenGraph(
        graph_def=frozen,
        input_tensors={_outside_name(tensor): tensor for tensor in starts},
        output_tensors={_outside_name(tensor): tensor for tensor in ends},
        name=name,
    )


def read_graph_def(path: Path) -> GraphDef:
    """Parses a binary GraphDef.

    Raises:
        ModelError: the file is something else, or truncated.
    """
    expected = "a frozen graph (binary GraphDef) is expected"
    if path.name == "saved_model.pb":
        raise ModelError(f"{path}: is part of a SavedModel; {expected}")
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, by whichever of its implementations is installed
        raise ModelError(f"{path}: cannot be read; {expected}. Received: {type(error).__name__}") from None
    if not graph_def.node or not all(node.name and node.op for node in graph_def.node):
        raise ModelError(f"{path}: holds no graph; {expected}")
    return graph_def


def _check_references(where: str, nodes: Nodes) -> None:
    for node in nodes.values():
        for name in node.input:
            if node_of(name) not in nodes:
                raise ModelError(f"{where}: truncated: node {node.name!r} reads {name!r}, which is not in the file")


def _resolve(where: str, nodes: Nodes, names: Sequence[str], kind: str) -> list[str]:
    """Full tensor names of what the user asked for."""
    tensors = []
    for name in names:
        tensor = tensor_name(name.strip())
        node = node_of(tensor)
        if node not in nodes or not tensor.partition(":")[2].isdecimal():
            close = difflib.get_close_matches(node, list(nodes), n=3, cutoff=0.5)
            hint = f"close names: {', '.join(close)}" if close else f"the last node is {list(nodes)[-1]}"
            raise ModelError(f"{where}: no {kind} of that name; {hint}. Received: {name!r}")
        tensors.append(tensor)
    if not tensors or len(set(tensors)) != len(tensors):
        raise ModelError(f"{where}: distinct {kind} names are expected. Received: {list(names)}")
    return tensors


def _find_outputs(where: str, nodes: Nodes, inputs: Sequence[str] | None) -> list[str]:
    """The one node that depends on an input and that nobody reads."""
    read = {node_of(name) for node in nodes.values() for name in data_inputs(node)}
    starts = (
        {node_of(name) for name in inputs} if inputs is not None else {n for n, node in nodes.items() if node.op in _PLACEHOLDERS}
    )
    fed: set[str] = set()
    for name in _topological(nodes):
        if name in starts or any(node_of(read_name) in fed for read_name in data_inputs(nodes[name])):
            fed.add(name)
    found = [name for name in nodes if name in fed - read - starts and _has_output(nodes[name])]
    if len(found) != 1:
        listed = ", ".join(found[:12]) or "none"
        raise ModelError(f"{where}: give the outputs; nodes that nobody reads: {listed}. Received: no output names")
    return [f"{found[0]}:0"]


def _find_inputs(where: str, nodes: Nodes, outputs: Sequence[str]) -> list[str]:
    """The one placeholder that the outputs depend on."""
    reached = ancestors(nodes, outputs, stop=set())
    found = [name for name in nodes if name in reached and nodes[name].op in _PLACEHOLDERS]
    needed = [name for name in found if nodes[name].op != "PlaceholderWithDefault"] or found
    if len(needed) != 1:
        listed = ", ".join(needed[:12]) or "none"
        raise ModelError(f"{where}: give the inputs; placeholders that the outputs depend on: {listed}. Received: no input names")
    return [f"{needed[0]}:0"]


def _check_kept(where: str, graph_def: GraphDef, nodes: Nodes, kept: set[str], starts: Sequence[str], ends: Sequence[str]) -> None:
    """Refuses what cannot be run as it is."""
    functions = {function.signature.name for function in graph_def.library.function}
    start_nodes = {node_of(start) for start in starts}
    for start in starts:
        if node_of(start) not in kept:
            raise ModelError(f"{where}: no output depends on input {start!r}; outputs: {', '.join(ends)}")
        if start in ends:
            raise ModelError(f"{where}: {start!r} cannot be input and output at once")
        if not start.endswith(":0"):
            raise ModelError(f"{where}: an input must be the first output of its node (name:0). Received: {start!r}")
    inner = [nodes[name] for name in nodes if name in kept - start_nodes]
    variables = [node.name for node in inner if node.op in _VARIABLES]
    if variables:
        raise ModelError(
            f"{where}: is not frozen: it reads {len(variables)} variables, the first is {variables[0]!r}; "
            "a graph whose variables have been turned into constants is expected"
        )
    for node in inner:
        if node.op in ("Placeholder", "PlaceholderV2"):
            raise ModelError(f"{where}: the outputs also depend on placeholder {node.name!r}. Received: inputs {', '.join(starts)}")
        if op_def_registry.get(node.op) is None and node.op not in functions:
            raise UnsupportedError(f"{where}: TensorFlow has no operator {node.op!r} (node {node.name!r})")
        if node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b:
            raise UnsupportedError(
                f"{where}: batch norm {node.name!r} is in training mode; a graph frozen for inference is expected. "
                "Received: is_training=True"
            )


def _cut(
    where: str, graph_def: GraphDef, nodes: Nodes, kept: set[str], starts: Sequence[str], input_shape: Sequence[int] | None
) -> GraphDef:
    """The kept nodes in a graph of their own, with placeholders of settled shape at its inputs."""
    result = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    placeholders = {node_of(start) for start in starts}
    batches: dict[str, int] = {}
    inferred = _infer_ends(where, graph_def, starts) if any(nodes[name].op not in _PLACEHOLDERS for name in placeholders) else {}
    for name, node in nodes.items():
        if name not in kept:
            continue
        copy = result.node.add()
        if name in placeholders:
            dtype, known = inferred.get(name) or _placeholder_type(node, graph_def.versions.producer)
            shape = settle_shape(f"{where}: input {name!r}", known, input_shape)
            if known and known[0] is not None:
                batches[name] = known[0]
            copy.name, copy.op = name, "Placeholder"
            copy.attr["dtype"].type = dtype
            copy.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
            continue
        copy.CopyFrom(node)
        copy.device = ""  # the machine it was trained on is not this one
        copy.attr.pop("_output_shapes", None)  # they may contradict the settled input shape
        del copy.input[:]  # control inputs order side effects, of which a frozen graph has none
        copy.input.extend(data_inputs(node))
        if node.op == "PlaceholderWithDefault":
            copy.op = "Identity"
            dtype = copy.attr["dtype"].type
            copy.attr.clear()
            copy.attr["T"].type = dtype
    free_batch(result, batches, lambda graph: _import(where, graph))
    return result


def _placeholder_type(node: Any, producer: int) -> tuple[int, list[int | None] | None]:
    """Element type and shape of a placeholder, by its attributes."""
    known = tensor_shape(node.attr["shape"].shape) if "shape" in node.attr else None
    if known == [] and producer < _SHAPELESS_SCALAR_PRODUCER:
        known = None
    if known is None and node.attr["_output_shapes"].list.shape:
        known = tensor_shape(node.attr["_output_shapes"].list.shape[0])
    return node.attr["dtype"].type, known


def _infer_ends(where: str, graph_def: GraphDef, starts: Iterable[str]) -> dict[str, tuple[int, list[int | None] | None]]:
    """Element types and shapes of tensors inside the graph, where the user cuts it."""
    graph = _import(where, graph_def)
    tensors = {node_of(start): graph.get_tensor_by_name(start) for start in starts}
    return {
        name: (tensor.dtype.as_datatype_enum, None if tensor.shape.rank is None else tensor.shape.as_list())
        for name, tensor in tensors.items()
        if tensor.op.type not in _PLACEHOLDERS
    }


def _import(where: str, graph_def: GraphDef) -> Any:
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ModelError(f"{where}: TensorFlow cannot import the graph: {str(error).splitlines()[0]}") from None
    return graph


def _topological(nodes: Nodes) -> list[str]:
    """Node names, producers first; nodes of a loop are left out."""
    waiting = {name: {node_of(read) for read in data_inputs(node)} for name, node in nodes.items()}
    readers: dict[str, list[str]] = {}
    for name, reads in waiting.items():
        for read in reads:
            readers.setdefault(read, []).append(name)
    ready = [name for name, reads in waiting.items() if not reads]
    order: list[str] = []
    while ready:
        name = ready.pop()
        order.append(name)
        for reader in readers.get(name, ()):
            waiting[reader].discard(name)
            if not waiting[reader]:
                ready.append(reader)
    return order


def _has_output(node: Any) -> bool:
    definition = op_def_registry.get(node.op)
    return definition is None or len(definition.output_arg) > 0


def _outside_name(tensor: str) -> str:
    """The name users know: `:0` says nothing."""
    return tensor.removesuffix(":0")
