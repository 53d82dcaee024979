"""The same model under opset 17, which AMD's documentation recommends; opset 21 is needed by nothing that is left in it."""

from __future__ import annotations

from typing import Final

import onnx
import onnx_ir

from ...ir import OPSET, attribute

OLDER: Final = 17
_OLDER_IR: Final = 8

_SAME: Final = frozenset(
    {
        *("Cast", "Constant", "DequantizeLinear", "Flatten", "Identity", "Pad", "QuantizeLinear", "Reshape", "Resize", "Shape"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators whose later versions add types and attributes, but mean the same in what is written here."""

_LATER_ATTRIBUTES: Final = {"DequantizeLinear": {"block_size"}, "QuantizeLinear": {"block_size", "output_dtype", "saturate"}}


def older(model: onnx_ir.Model) -> onnx_ir.Model | str:
    """A copy under opset 17.

    Args:
        model: opset 21, one graph; it is not changed.

    Returns:
        The copy, or the operator that has another meaning there.
    """
    result = model.clone()
    for node in result.graph:
        if not _is_same(node):
            return node.op_type
        for name in _LATER_ATTRIBUTES.get(node.op_type, ()):
            node.attributes.pop(name, None)
        node.metadata_props.clear()
    result.graph.opset_imports[""] = OLDER
    result.ir_version = _OLDER_IR
    result.metadata_props.clear()
    return result


def _is_same(node: onnx_ir.Node) -> bool:
    now = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
    try:
        then = onnx.defs.get_schema(node.op_type, OLDER, node.domain)
    except onnx.defs.SchemaError:
        return False
    if node.op_type == "Pad" and attribute(node, "mode", "constant") == "wrap":
        return False
    known = set(then.attributes) | _LATER_ATTRIBUTES.get(node.op_type, set())
    fits = set(node.attributes) <= known and len(node.inputs) <= then.max_input
    return fits and (now.since_version == then.since_version or node.op_type in _SAME)
