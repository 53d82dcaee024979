"""The part of a graph between its inputs and outputs, in a graph of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ...ir import ModelError
from ..frozen import GraphDef
from ..large_constants import without_data
from ..nodes import PLACEHOLDERS, Nodes, data_inputs, index_of, make_node, node_of, tensor_name


def cut(nodes: Nodes, kept: set[str], starts: Mapping[str, str], like: GraphDef) -> GraphDef:
    """The nodes `kept`, with placeholders where the graph is cut.

    Control inputs go: they order side effects, of which an inference graph has none, and a node that waits for a dead branch
    of a conditional is gone already (`fold_conditionals`). Placeholders with a default that is not overridden become it.

    Args:
        nodes: the graph.
        kept: names of its nodes that stay, those at the starts included.
        starts: tensor at which the graph is cut -> name of the placeholder there. A placeholder keeps its attributes, that of
            another tensor has none yet.
        like: whose versions and functions are taken over.
    """
    result = tf.compat.v1.GraphDef(versions=like.versions, library=like.library)
    renamed = {tensor_name(tensor): name for tensor, name in starts.items()}
    placeholders: dict[str, list[str]] = {}
    for tensor, name in starts.items():
        placeholders.setdefault(node_of(tensor), []).append(name)
    for name, node in nodes.items():
        if name in placeholders and name in kept:
            result.node.extend(_placeholder(node, called) for called in placeholders[name])
        elif name in kept:
            copy = result.node.add()
            copy.CopyFrom(node)
            copy.device = ""  # the machine it was trained on is not this one
            for key in [key for key in copy.attr if key.startswith("_") and key != "_output_shapes"]:
                del copy.attr[key]  # hints for compilers and placement, such as a node to share a device with that is gone
            del copy.input[:]
            copy.input.extend(renamed.get(tensor_name(tensor), tensor) for tensor in data_inputs(node))
            if node.op == "PlaceholderWithDefault":
                copy.op = "Identity"
                dtype = copy.attr["dtype"].type
                copy.attr.clear()
                copy.attr["T"].type = dtype
    return result


def _placeholder(node: Any, name: str) -> Any:
    """What stands at a start; the attributes of a placeholder that stood there already are kept."""
    placeholder = make_node(name, "Placeholder", [])
    for key in ("dtype", "shape", "_output_shapes") if node.op in PLACEHOLDERS else ():
        if key in node.attr:
            placeholder.attr[key].CopyFrom(node.attr[key])
    return placeholder


def placeholder_names(nodes: Nodes, starts: Sequence[str]) -> dict[str, str]:
    """Tensor at which the graph is cut -> what the placeholder there is called: as its node, `node_1` for `node:1`."""
    names: dict[str, str] = {}
    for tensor in starts:
        wanted = node_of(tensor) if index_of(tensor) == 0 else tensor.replace(":", "_")
        candidate, count = wanted, 0
        while candidate in names.values() or (candidate in nodes and candidate != node_of(tensor)):
            count += 1
            candidate = f"{wanted}_{count}"
        names[tensor] = candidate
    return names


def import_graph(where: str, graph_def: GraphDef) -> Any:
    """A `tf.Graph` to look at, not to be run: its large constants are zeros. TensorFlow infers the shapes.

    Raises:
        ModelError: TensorFlow refuses the graph.
    """
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(without_data(graph_def), name="")
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ModelError(f"{where}: TensorFlow cannot import the graph: {str(error).splitlines()[0]}") from None
    return graph
