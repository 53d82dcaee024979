"""Constant nodes of a foreign model become initializers.

c = Constant<value_float = 2.0>()
y = Mul(x, c)                        ->    <float c = {2.0}>  y = Mul(x, c)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx

from ..ir.errors import UnsupportedError
from ..ir.reading import label

_FORMS: Final[Mapping[str, Callable[[onnx.AttributeProto], Any]]] = {
    "value_float": lambda attribute: np.float32(attribute.f),
    "value_floats": lambda attribute: np.asarray(attribute.floats, np.float32),
    "value_int": lambda attribute: np.int64(attribute.i),
    "value_ints": lambda attribute: np.asarray(attribute.ints, np.int64),
}
"""Attribute -> its array; `value` holds a tensor as it is."""


def plain_constants(graph: onnx.GraphProto, file: object) -> None:
    """Rewrites the graph in place; a constant that is a graph output stays a node.

    Raises:
        UnsupportedError: a constant of strings.
    """
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        if node.op_type != "Constant" or node.output[0] in outputs:
            kept.append(node)
            continue
        found = [attribute for attribute in node.attribute if attribute.name == "value" or attribute.name in _FORMS]
        if len(found) != 1 or len(node.attribute) != 1:
            raise UnsupportedError(f"{file}: Constant node {label(node)!r}: one tensor or number is expected")
        attribute = found[0]
        tensor = graph.initializer.add()
        if attribute.name == "value":
            tensor.CopyFrom(attribute.t)
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(_FORMS[attribute.name](attribute))))
        tensor.name = node.output[0]
    nodes = [_copy(node) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)


def name_by_readers(graph: onnx.GraphProto, known: frozenset[str]) -> None:
    """Initializers whose names are not `known` (the version converter counts them) are called `reader__place`."""
    taken = {*known, *(name for node in graph.node for name in node.output), *(value.name for value in graph.input)}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names: dict[str, str] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in tensors and name not in known and name not in names:
                wanted = f"{label(node)}__{index}"
                while wanted in taken:
                    wanted += "_"
                taken.add(wanted)
                names[name] = wanted
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    for old, new in names.items():
        tensors[old].name = new


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    """Elements of a repeated field do not outlive it."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
