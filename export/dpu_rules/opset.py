"""The same model under opset 17, which AMD's documentation recommends; opset 21 is needed by nothing that is left in it."""

from __future__ import annotations

from typing import Final

import onnx
import onnx_ir

from ...ir import OPSET, ModelError, attribute
from ...ir.outline import outline

OLDER: Final = 17
_OLDER_IR: Final = 8

_SAME: Final = frozenset(
    {
        *("Cast", "Constant", "DequantizeLinear", "Flatten", "Identity", "Pad", "QuantizeLinear", "Reshape", "Resize", "Shape"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators whose later versions add types and attributes, but mean the same in what is written here."""

_LATER_WORDS: Final = {"wrap", "half_pixel_symmetric"}
"""Values of `mode` and `coordinate_transformation_mode` that opset 17 does not have."""

_LATER_ATTRIBUTES: Final = {"DequantizeLinear": {"block_size"}, "QuantizeLinear": {"block_size", "output_dtype", "saturate"}}


def older(model: onnx_ir.Model) -> onnx_ir.Model | str:
    """A copy under opset 17.

    Args:
        model: opset 21, one graph; it is not changed.

    Returns:
        The copy, or the operator that has another meaning there.

    Raises:
        ModelError: the copy is ill-formed under opset 17.
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
    try:
        onnx.checker.check_model(outline(onnx_ir.to_proto(result)))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"refusing to write an ill-formed model of opset {OLDER}: {str(error).splitlines()[0]}") from error
    return result


def _is_same(node: onnx_ir.Node) -> bool:
    now = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
    try:
        then = onnx.defs.get_schema(node.op_type, OLDER, node.domain)
    except onnx.defs.SchemaError:
        return False
    if _LATER_WORDS & {attribute(node, name, "") for name in ("mode", "coordinate_transformation_mode")}:
        return False
    known = set(then.attributes) | _LATER_ATTRIBUTES.get(node.op_type, set())
    fits = set(node.attributes) <= known and len(node.inputs) <= then.max_input
    return fits and (now.since_version == then.since_version or node.op_type in _SAME)
