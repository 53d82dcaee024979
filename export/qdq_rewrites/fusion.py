"""Which compute layers onnxruntime runs in floating point, and why: read off the graph, before any session is made.

onnxruntime 1.31 on CPU computes a layer in integers where its operands are dequantized from 8 bits and, for a Conv, its sum is
rounded to 8 bits at once, a Relu in between allowed. What it runs in float between Q and DQ is exact too (X1), only slower.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir

from ...ir import COMPUTE, grid_of, name_of, only_consumer


def float_layers(graph: onnx_ir.Graph, islands: Mapping[str, str]) -> dict[str, str]:
    """Compute layers that are not fused to an integer kernel.

    Args:
        graph: of a Q/DQ model as it is written.
        islands: node -> why the model itself computes it in floating point.

    Returns:
        Layer -> reason, in topological order.
    """
    found = {}
    for node in graph:
        if node.op_type in COMPUTE:
            name = node.name or name_of(node.outputs[0])
            reason = f"the model leaves it in float: {islands[name]}" if name in islands else _objection(node)
            if reason is not None:
                found[name] = reason
    return found


def _objection(node: onnx_ir.Node) -> str | None:
    if node.op_type == "ConvTranspose":
        return "onnxruntime has no integer ConvTranspose"
    for value in node.inputs[:2]:
        above = None if value is None else value.producer()
        if above is None or above.op_type != "DequantizeLinear":
            return f"it reads {name_of(value)!r}, which is not dequantized from integers"
        if grid_of(above).bits != 8:
            return f"it reads {name_of(value)!r}, which has {grid_of(above).bits} bits"
    return _unrounded(node) if node.op_type == "Conv" else None


def _unrounded(node: onnx_ir.Node) -> str | None:
    """Why the sum of a Conv is not rounded to 8 bits at once."""
    reader = only_consumer(node.outputs[0])
    while reader is not None and reader.op_type == "Relu":
        reader = only_consumer(reader.outputs[0])
    if reader is None:
        return "its sum has several readers"
    if reader.op_type != "QuantizeLinear":
        return f"its sum goes through {reader.op_type} {reader.name!r} before it is rounded"
    bits = grid_of(reader).bits
    return None if bits == 8 else f"its sum is rounded to {bits} bits"
