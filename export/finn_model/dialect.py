"""QONNX as FINN's conversion takes it (H4), from QONNX as `qonnx_dialect` writes it.

Conv(x, w, b) -> Quant            =>  Add(Conv(x, w), b) -> Quant       Gemm likewise
x -> Quant(unsigned)              =>  x -> Relu -> Quant(unsigned)      a relu it is anyway, and FINN looks for one
w -> Quant -> two readers         =>  w -> Quant -> reader, w' -> Quant -> reader
"""

from __future__ import annotations

import numpy as np
import onnx_ir

from ...ir import add_initializer, add_node, attribute, constant, forget_names, name_of, rename, static_shape
from ..qonnx_dialect.gemm import split_gemms
from .moves import RESHAPES, flattens, transposition


def to_finn(model: onnx_ir.Model) -> None:
    """Rewrites a QONNX model in place; biases are plain numbers in it."""
    forget_names(model.graph)
    split_gemms(model)
    for node in list(model.graph):
        if node.op_type == "Conv" and len(node.inputs) > 2 and node.inputs[2] is not None:
            _split_bias(model.graph, node)
        elif node.op_type == "Quant" and constant(node.inputs[0]) is not None:
            _one_reader(model.graph, node)
        elif node.op_type == "Quant" and not attribute(node, "signed", 1):
            _rectify(model.graph, node)
        elif node.op_type in RESHAPES:
            _rename_reshape(model.graph, node)
    forget_names(model.graph)


def _split_bias(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    value, bias = node.outputs[0], constant(node.inputs[2])
    assert bias is not None
    name = name_of(value)
    readers = value.uses()
    ends = [index for index, output in enumerate(graph.outputs) if output is value]
    rename(value, f"{name}__product")
    array = np.asarray(bias).reshape(1, -1, *[1] * (len(value.shape or ()) - 2))
    added = add_initializer(graph, f"{name}__bias", array)
    total = add_node(graph, "Add", [value, added], name, after=node, like=value)
    for reader, index in readers:
        reader.replace_input_with(index, total)
    for index in ends:
        graph.outputs[index] = total
    old = node.inputs[2]
    node.resize_inputs(2)
    if old is not None and old.is_initializer() and not old.uses():
        del graph.initializers[name_of(old)]


def _one_reader(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    """FINN folds a constant's `Quant` into the layer that reads it: each reader gets its own."""
    value, array = node.outputs[0], constant(node.inputs[0])
    assert array is not None
    for number, (reader, index) in enumerate(list(value.uses())[1:]):
        source = add_initializer(graph, f"{name_of(node.inputs[0])}__{number}", np.array(array))
        attributes = {"signed": attribute(node, "signed", 1), "narrow": 0, "rounding_mode": "ROUND"}
        inputs = [source, *node.inputs[1:]]
        twin = onnx_ir.node("Quant", inputs, attributes, domain=node.domain, num_outputs=1, name=f"{node.name}__{number}")
        output = twin.outputs[0]
        output.name, output.shape, output.type = f"{name_of(value)}__{number}", value.shape, value.type
        graph.insert_after(node, twin)
        reader.replace_input_with(index, output)


def _rectify(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    source = node.inputs[0]
    above = None if source is None else source.producer()
    if source is not None and (above is None or above.op_type != "Relu"):
        relu = add_node(graph, "Relu", [source], f"{name_of(node.outputs[0])}__positive", before=node, like=source)
        node.replace_input_with(0, relu)


def _rename_reshape(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    source, value = node.inputs[0], node.outputs[0]
    before, after = (None if end is None else static_shape(end) for end in (source, value))
    if source is None or before is None or after is None:
        return
    perm = transposition(before, after)
    if perm is None and not flattens(before, after):
        return
    op, attributes = ("Flatten", {"axis": 1}) if perm is None else ("Transpose", {"perm": perm})
    name = name_of(value)
    rename(value, f"{name}__reshaped")
    moved = add_node(graph, op, [source], name, attributes=attributes, before=node, like=value)
    value.replace_all_uses_with(moved, replace_graph_outputs=True)
    graph.remove(node, safe=True)
