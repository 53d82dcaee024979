"""Which array of a TensorFlow 2 checkpoint belongs to which handle in a SavedModel's graph.

handle --(captured by a function as its n-th bound object)--> saved object --(attribute path)--> array

This is how TensorFlow's own loader finds them. The restore nodes mostly say the same, but `tf.saved_model.save` of a Keras 3 model
writes ones that fill copies of the variables, and leaves those the network reads to the objects.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import message  # type: ignore[import-untyped]
from tensorflow.core.protobuf import trackable_object_graph_pb2

from ...ir import ModelError
from ..nodes import data_inputs, node_of
from .checkpoint import OBJECT_GRAPH, Checkpoint
from .saver import Key

_VALUE = "VARIABLE_VALUE"


def object_keys(meta: Any, checkpoint: Checkpoint) -> dict[str, list[Key]]:
    """Handle node -> its place in the checkpoint; empty where either side knows no objects.

    Args:
        meta: MetaGraphDef of the SavedModel.
        checkpoint: its variables.

    Raises:
        ModelError: the checkpoint's list of objects is damaged.
    """
    if not meta.object_graph_def.nodes or not checkpoint.is_object_based:
        return {}
    keys = _keys(meta.object_graph_def, _objects(checkpoint))
    functions = meta.object_graph_def.concrete_functions
    found: dict[str, list[Key]] = {}
    for node in meta.graph_def.node:
        function = node.attr["f"].func.name
        bound = list(functions[function].bound_inputs) if function in functions else []
        for handle, number in zip(data_inputs(node)[::-1], bound[::-1], strict=False):  # captured ones come last
            if number in keys:
                found.setdefault(node_of(handle), []).append(keys[number])
    return found


def _objects(checkpoint: Checkpoint) -> Any:
    objects = trackable_object_graph_pb2.TrackableObjectGraph()
    try:
        objects.ParseFromString(checkpoint.array(OBJECT_GRAPH).item())
    except (message.DecodeError, TypeError) as error:
        raise ModelError(f"{checkpoint.prefix}: its list of objects is damaged. Received: {type(error).__name__}") from None
    return objects


def _keys(saved: Any, stored: Any) -> dict[int, Key]:
    """Both sides are trees of named children with cross references; they are walked side by side from their roots."""
    keys: dict[int, Key] = {}
    seen: set[int] = set()
    pending = [(0, 0)]
    while pending:
        here, there = pending.pop()
        if here in seen or here >= len(saved.nodes) or there >= len(stored.nodes):
            continue
        seen.add(here)
        for attribute in stored.nodes[there].attributes:
            if attribute.name == _VALUE:
                keys[here] = Key(attribute.checkpoint_key)
        children = {child.local_name: child.node_id for child in stored.nodes[there].children}
        pending.extend(
            (child.node_id, children[child.local_name]) for child in saved.nodes[here].children if child.local_name in children
        )
    return keys
