"""Function calls in a graph -> the nodes of the functions, by plain rewriting: nothing is run and nothing is optimized.

x -> StatefulPartitionedCall(f) -> y      ->      x -> net/conv/Conv2D -> ... -> y

TensorFlow 2 saves a model as functions that call functions. Grappler's inliner leaves calls alone that it deems stateful, and
every function of a model that reads variables is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tensorflow.python.framework import op_def_registry

from ..ir import ModelError
from .frozen import GraphDef
from .nodes import node_of, tensor_name

_CALLS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_ANONYMOUS: Final = re.compile(r"(Stateful)?PartitionedCall(_\d+)?$")
_MOST_NODES: Final = 1_000_000
"""Functions cannot call themselves in TensorFlow; a file that says so anyway would never come to an end."""


def inline_calls(graph_def: GraphDef, where: str, first: Iterable[str] = ()) -> tuple[GraphDef, dict[str, str]]:
    """Inlines all calls of the graph itself, nested ones too; functions that control flow refers to stay as they are.

    Nodes of an anonymous call (`scope/StatefulPartitionedCall_1`) take its scope, so that names are those of the layers.
    Second comers get `_1`, as everywhere in TensorFlow; a call's own name stays reserved, since its outputs are known by it.

    Args:
        graph_def: the graph; it is not changed.
        where: what messages call it.
        first: calls whose nodes get the plain names, where several functions hold the same layers.

    Returns:
        The graph, and what became of the outputs of the calls: tensor -> tensor.

    Raises:
        ModelError: the functions call each other without end, or a call and its function do not fit.
    """
    library = {function.signature.name: function for function in graph_def.library.function}
    if not any(_called(node, library) for node in graph_def.node):
        return graph_def, {}
    result = type(graph_def)()
    result.versions.CopyFrom(graph_def.versions)
    result.library.CopyFrom(graph_def.library)
    taken = {node.name for node in graph_def.node}
    became: dict[str, str] = {}
    plain = set(first)
    pending = [node for node in graph_def.node if node.name not in plain] + [node for node in graph_def.node if node.name in plain]
    while pending:
        node = pending.pop()
        function = _called(node, library)
        if function is None:
            result.node.add().CopyFrom(node)
            continue
        try:
            body = _body(node, function, library, taken, became)
        except KeyError as error:
            raise ModelError(
                f"{where}: node {node.name!r} does not fit the function {function.signature.name!r}. Received: {error}"
            ) from None
        pending.extend(reversed(body))
        if len(taken) > _MOST_NODES:
            raise ModelError(f"{where}: functions call each other without end, {function.signature.name!r} among them")
    names = {node.name for node in result.node}
    for node in result.node:
        reads = [_final(read, became) for read in node.input if not read.startswith("^")]
        # A call that is gone orders nothing any more: what it did is what its readers read.
        controls = [read for read in node.input if read.startswith("^") and node_of(read) in names]
        del node.input[:]
        node.input.extend((*reads, *controls))
    return result, {tensor: _final(tensor, became) for tensor in became}


def _called(node: Any, library: Mapping[str, Any]) -> Any:
    name = node.attr["f"].func.name if node.op in _CALLS else node.op
    return library.get(name)


def _body(call: Any, function: Any, library: Mapping[str, Any], taken: set[str], became: dict[str, str]) -> list[Any]:
    """Copies of the function's nodes under new names, which read what the call reads."""
    new = _names(call.name, [node.name for node in function.node_def], taken)
    arguments = [tensor_name(read) for read in call.input if not read.startswith("^")]
    names = [argument.name for argument in function.signature.input_arg]
    if len(names) != len(arguments):
        raise KeyError(f"{len(arguments)} arguments for {len(names)}")
    tensors = dict(zip(names, arguments, strict=True))
    for node in function.node_def:
        tensors.update(_outputs(node, new[node.name], library))
    for index, output in enumerate(function.signature.output_arg):
        became[f"{call.name}:{index}"] = tensors[function.ret[output.name]]
    body = []
    for node in function.node_def:
        copy = type(node)()
        copy.CopyFrom(node)
        copy.name = new[node.name]
        controls = [f"^{new[read[1:]]}" for read in node.input if read.startswith("^") and read[1:] in new]
        del copy.input[:]
        copy.input.extend([tensors[read] for read in node.input if not read.startswith("^")] + controls)
        body.append(copy)
    return body


def _names(call: str, names: Iterable[str], taken: set[str]) -> dict[str, str]:
    """New names for the nodes of a function; they are `taken` from now on."""
    last = call.rpartition("/")[2]
    scope = call[: -len(last)] if _ANONYMOUS.fullmatch(last) else f"{call}/"
    new: dict[str, str] = {}
    for name in names:
        candidate, count = scope + name, 0
        while candidate in taken:
            count += 1
            candidate = f"{scope}{name}_{count}"
        taken.add(candidate)
        new[name] = candidate
    return new


def _outputs(node: Any, name: str, library: Mapping[str, Any]) -> dict[str, str]:
    """Inside a function a tensor is `node:output name:index`, in a graph `node:position`."""
    definition = library[node.op].signature if node.op in library else op_def_registry.get(node.op)
    if definition is None:
        raise KeyError(f"unknown operator {node.op!r}")
    tensors, position = {}, 0
    for output in definition.output_arg:
        count = 1
        if output.number_attr:
            count = node.attr[output.number_attr].i
        elif output.type_list_attr:
            count = len(node.attr[output.type_list_attr].list.type)
        for index in range(count):
            tensors[f"{node.name}:{output.name}:{index}"] = f"{name}:{position}"
            position += 1
    return tensors


def _final(tensor: str, became: Mapping[str, str]) -> str:
    tensor = tensor_name(tensor)
    while tensor in became:
        tensor = became[tensor]
    return tensor
