"""Gemm as MatMul and Add, which the readers of QONNX take.

    Gemm(x, W, b)  =>  Add(MatMul(x, W), b)

A factor that the Gemm transposes gets a Transpose.
"""

from __future__ import annotations

import onnx_ir

from ...ir import add_node, attribute, name_of, rename


def split_gemms(model: onnx_ir.Model) -> None:
    """Rewrites every Gemm in place; what it computes keeps its name, and the nodes are called after it."""
    for node in list(model.graph):
        if node.op_type == "Gemm":
            _split(model.graph, node)


def _split(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    value = node.outputs[0]
    name = name_of(value)
    factors = []
    for index, flag in enumerate(("transA", "transB")):
        factor = node.inputs[index]
        assert factor is not None
        if attribute(node, flag, 0):
            shape = None if factor.shape is None else onnx_ir.Shape(list(factor.shape)[::-1])
            factor = add_node(graph, "Transpose", [factor], f"{name}__{flag}", attributes={"perm": [1, 0]}, before=node)
            factor.shape, factor.type = shape, value.type
        factors.append(factor)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rename(value, f"{name}__gemm")
    result = add_node(graph, "MatMul", factors, name if bias is None else f"{name}__product", before=node, like=value)
    worker = result.producer()
    assert worker is not None
    worker.name = node.name or worker.name
    if bias is not None:
        result = add_node(graph, "Add", [result, bias], name, before=node, like=value)
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
