"""Reshapes whose target is computed from the batch size at run time -> constant targets, and the batch keeps its name.

Reshape(x, Cast(Shape(y)))    ->  Reshape(x, [-1, 1001])     where inference knows all dimensions but one
Reshape(x, shape of x)        ->  x
x [N,8,8,4] -> Reshape -> [?,256]  is [N,256]: the counts per image agree
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir

from ...ir import add_initializer, constant, name_of, replace_value, static_shape

BATCH: Final = "N"


def settle_reshapes(graph: onnx_ir.Graph) -> None:
    """Applies the three rules, in graph order; shapes must have been inferred."""
    for node in list(graph):
        if node.op_type == "Reshape":
            _make_constant(graph, node)
            _name_batch(graph, node)
            _drop_idle(graph, node)


def _make_constant(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    shape = static_shape(node.outputs[0])
    if shape is None or constant(node.inputs[1]) is not None or list(shape).count(None) > 1:
        return
    target = np.asarray([-1 if dim is None else dim for dim in shape], np.int64)
    node.replace_input_with(1, add_initializer(graph, f"{name_of(node.outputs[0])}__shape", target))


def _name_batch(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    """Gives the open first dimension of the output the input's symbol, everywhere, where both count the same thing."""
    source, output = node.inputs[0], node.outputs[0]
    before, after = None if source is None else static_shape(source), static_shape(output)
    if source is None or source.shape is None or output.shape is None or not before or not after:
        return
    symbol, batch = output.shape[0], source.shape[0]
    if isinstance(symbol, int) or isinstance(batch, int) or symbol == batch:
        return
    if _per_image(before) != _per_image(after) or _per_image(before) is None:
        return
    if symbol.value is None:
        output.shape = onnx_ir.Shape([batch, *output.shape[1:]])
        return
    for other in graph:
        for value in other.outputs:
            if value.shape is not None and symbol in tuple(value.shape):
                value.shape = onnx_ir.Shape([batch if dim == symbol else dim for dim in value.shape])


def _per_image(shape: Sequence[int | None]) -> int | None:
    known = [dim for dim in shape[1:] if dim is not None]
    return math.prod(known) if len(known) == len(shape) - 1 else None


def _drop_idle(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    source, output = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or output.shape is None or tuple(source.shape) != tuple(output.shape):
        return
    at_the_end = source.is_graph_input() or source.is_graph_output() or source.is_initializer()
    if (
        static_shape(source) is None
        or list(static_shape(source) or ()).count(None) > 1
        or (output.is_graph_output() and at_the_end)
    ):
        return
    replace_value(output, source)
    graph.remove(node, safe=True)
