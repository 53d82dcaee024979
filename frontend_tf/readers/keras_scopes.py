"""TensorFlow nodes of a traced Keras model, named after its layers.

Keras 3 opens each layer's name scope twice, once to build and once to call it, so that TensorFlow counts: the operators of
layer `conv2d` come out as `model_1/conv2d_1/...` and those of layer `conv2d_1` as `model_1/conv2d_1_2/...`. Nobody could find
a layer again by such names. Here the scope each layer really runs in is recorded while the model is traced, and the nodes are
then renamed to `model/conv2d/...`, `model/conv2d_1/...`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from ..frozen import GraphDef

logger = logging.getLogger(__name__)


@contextmanager
def recorded_scopes(model: Any) -> Iterator[dict[str, str]]:
    """Records, while the block traces `model`, the TensorFlow name scope of each layer call.

    Each layer's `call` is covered by a recording one for the time of the block.

    Yields:
        Scope -> name of the layer that runs in it, in the order of the calls.
    """
    scopes: dict[str, str] = {}
    covered = []
    try:
        for layer in _layers(model):
            if "call" not in vars(layer):
                object.__setattr__(layer, "call", _recording(layer, scopes))  # past Keras' tracking of attributes
                covered.append(layer)
        yield scopes
    finally:
        for layer in covered:
            object.__delattr__(layer, "call")


def _layers(model: Any) -> list[Any]:
    """The model and, through nested models, its layers, each one once."""
    found: list[Any] = []
    pending = [model]
    while pending:
        layer = pending.pop()
        if not any(layer is other for other in found):
            found.append(layer)
            pending.extend(layer.layers if isinstance(layer, keras.Model) else [])
    return found


def _recording(layer: Any, scopes: dict[str, str]) -> Callable[..., Any]:
    call = layer.call

    @functools.wraps(call)
    def recording(*args: Any, **kwargs: Any) -> Any:
        scopes.setdefault(tf.get_current_name_scope(), layer.name)
        return call(*args, **kwargs)

    return recording


def rename_scopes(graph_def: GraphDef, scopes: Mapping[str, str]) -> GraphDef:
    """A copy of the graph with the recorded scopes called as their layers; a layer's second call gets `_1` and so on.

    The graph itself comes back where the new names would clash.
    """
    wanted = _new_scopes(scopes)
    names = {node.name: _renamed(node.name, wanted) for node in graph_def.node}
    if len(set(names.values())) != len(names):
        logger.debug("nodes cannot be named after their layers: the names would clash")
        return graph_def
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph_def)
    for node in result.node:
        node.name = names[node.name]
        node.attr.pop("_class", None)  # colocation by old name
        for index, read in enumerate(node.input):
            mark, plain = ("^", read[1:]) if read.startswith("^") else ("", read)
            name, colon, port = plain.partition(":")
            node.input[index] = f"{mark}{names[name]}{colon}{port}"
    return result


def _new_scopes(scopes: Mapping[str, str]) -> dict[str, str]:
    """Recorded scope -> new scope; first calls take the layers' own names, before repeated calls are numbered."""
    first: dict[tuple[str, str], str] = {}
    for scope, layer in scopes.items():
        first.setdefault((scope.rpartition("/")[0], layer), scope)
    firsts = set(first.values())
    new: dict[str, str] = {}
    for scope in sorted(scopes, key=lambda scope: (scope.count("/"), scope not in firsts)):  # parents before children
        parent = _renamed(scope.rpartition("/")[0], new)
        base = f"{parent}/{scopes[scope]}" if parent else scopes[scope]
        candidate, count = base, 0
        while candidate in new.values():
            count += 1
            candidate = f"{base}_{count}"
        new[scope] = candidate
    return new


def _renamed(name: str, scopes: Mapping[str, str]) -> str:
    """`name` with its longest recorded scope replaced."""
    scope, rest = name, ""
    while scope:
        if scope in scopes:
            return scopes[scope] + rest
        scope, slash, last = scope.rpartition("/")
        rest = f"{slash}{last}{rest}"
    return name
